"""What a critic's recorded graph tells: is it piecewise linear in its input, sample by sample?

Read off the autograd nodes between the scores and the images. Only nodes named here pass; whatever
is unknown does not, so a verdict can be too strict and never too lax.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .. import conv, piecewise_linear, pooling
from .._autograd import available
from ..bias_act.autograd import BiasAct, Spec

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """When a node is linear given its masks, and when it leaves dim 0 to the samples.

    inputs: which of its inputs may lead to x: "any", "one" of them, or the "first" alone.
    rows: (node, shape out, shape in) -> bool, called with batch-sized dim 0 on both sides.
    """

    inputs: str
    rows: Callable[[Any, Shape, Shape], bool]


def _aligned(node: Any, out: Shape, given: Shape) -> bool:
    """As many dimensions: broadcasting pairs dim 0 with dim 0."""
    return len(out) == len(given)


def _in_order(node: Any, out: Shape, given: Shape) -> bool:
    """A reshape that keeps the size of dim 0 keeps its rows."""
    return True


def _never(node: Any, out: Shape, given: Shape) -> bool:
    return False


def _dims(node: Any, name: str, ndim: int) -> set[int]:
    """The dimensions that a node saved; {0}, the refused one, where it saved none."""
    found = getattr(node, "_saved_" + name, None)
    dims = [found] if isinstance(found, int) else list(found or [])
    return {(d - 2**64 if d >= 2**63 else d) % ndim for d in dims} or {0}


def _off_rows(*names: str) -> Callable[[Any, Shape, Shape], bool]:
    """Acts along saved dimensions, none of which may be 0."""

    def rows(node: Any, out: Shape, given: Shape) -> bool:
        ndim = max(len(out), len(given))
        return all(0 not in _dims(node, name, ndim) for name in names)

    return rows


def _padded(node: Any, out: Shape, given: Shape) -> bool:
    pad: Shape | None = getattr(node, "_saved_pad", None)
    return pad is not None and len(pad) // 2 < len(given)


def _permuted(node: Any, out: Shape, given: Shape) -> bool:
    dims: Shape = getattr(node, "_saved_dims", ())
    return dims[:1] == (0,)


_TWIN = Rule("first", _aligned)
_RESHAPE = Rule("any", _in_order)
RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ["Add", "Sub", "Rsub", "Neg", "Clone", "ToCopy", "Expand", "Where", "Maximum", "Minimum",
         "Clamp", "ClampMin", "ClampMax", "NativeDropout", "UpsampleNearest2D",
         "UpsampleBilinear2D", "PixelShuffle", "PixelUnshuffle"],
        Rule("any", _aligned),
    ),
    **dict.fromkeys(["View", "UnsafeView", "ReshapeAlias", "Alias", "Squeeze", "Unsqueeze"],
                    _RESHAPE),
    **dict.fromkeys(["Sum", "Mean", "Amax", "Cat", "Stack", "Slice", "Select", "Split",
                     "SplitWithSizes"], Rule("any", _off_rows("dim"))),
    "Flip": Rule("any", _off_rows("dims")),
    "Transpose": Rule("any", _off_rows("dim0", "dim1")),
    "Permute": Rule("any", _permuted),
    "ConstantPadNd": Rule("any", _padded),
    "Mul": Rule("one", _aligned),
    "Div": Rule("first", _aligned),
    **dict.fromkeys(["Addmm", "Mm", "Bmm", "T"], Rule("one", _never)),
}  # fmt: skip


@cache
def _twins() -> dict[Any, str]:
    """Node types of the twins: names alone could be anybody's."""
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    with torch.enable_grad():
        made = {
            "conv": conv.conv2d(x, x.detach()),
            "activation": piecewise_linear.relu(x),
            "activation in place": piecewise_linear.relu(x * 1, inplace=True),
            "masked activation": piecewise_linear.masked(x),
            "masked activation in place": piecewise_linear.masked(x * 1, inplace=True),
            "prelu": piecewise_linear.prelu(x, x[0, 0, 0, :1].detach()),
            "pool": pooling.avg_pool2d(x, 2),
            "max pool": pooling.max_pool2d(x, 2),
            "bias_act": _bias_act(x),
        }
    return {type(y.grad_fn): name for name, y in made.items() if isinstance(y, Tensor)}


def _bias_act(x: Tensor) -> Tensor | None:
    """By a compiled kernel, if there is one; the meta device has them all."""
    for impl in filter(available, ("native", "triton")):
        y: Tensor = BiasAct.apply(x.to("meta"), None, Spec(impl, 0, 0, 0.0, 1.0, -1.0))
        return y
    return None


# What brings its own parameters the loss's part of their gradients.
SHARING = ("bias_act", "conv", "prelu")


def _rule(node: Any) -> Rule | None:
    twin = _twins().get(type(node))
    if twin == "bias_act" and not node.spec.piecewise_linear:
        return None
    kind: Any = type(node)
    return _TWIN if twin else _stock_rule(kind)


def node_kind(node: Any) -> str | None:
    """Which twin it is; "reshape" for a stock node that only renames what it is given."""
    if (twin := _twins().get(type(node))) is not None:
        return twin
    return "reshape" if _rule(node) is _RESHAPE else None


@cache
def _stock_rule(kind: Any) -> Rule | None:
    name = re.fullmatch(r"(\w+?)Backward\d+", kind.__name__)
    return RULES.get(name[1]) if name else None


class Path:
    """The nodes through which scores depend on x, a leaf."""

    def __init__(self, scores: Tensor, x: Tensor) -> None:
        self.scores, self.x = scores, x
        self._leads: dict[Any, bool] = {None: False}
        self._shapes: dict[Any, list[Shape | None]] = {}
        self._half = False  # is any gradient on the way in float16?
        stack: list[Any] = [scores.grad_fn]
        while stack:
            node = stack[-1]
            if node in self._leads:
                stack.pop()
                continue
            waiting = [n for n, _ in node.next_functions if n not in self._leads]
            if waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            self._leads[node] = getattr(node, "variable", None) is x or any(
                self._leads[n] for n, _ in node.next_functions
            )
        self.nodes = [n for n, leads in self._leads.items() if leads and n.next_functions]

    @contextmanager
    def measured(self) -> Iterator[None]:
        """A backward to x in here tells the shapes that `why_coupled` asks for."""

        def remember(node: Any) -> Any:
            def hook(grads: tuple[Tensor | None, ...]) -> None:
                self._shapes[node] = [None if g is None else tuple(g.shape) for g in grads]
                self._half |= any(g is not None and g.dtype == torch.float16 for g in grads)

            return node.register_prehook(hook)

        handles = [remember(node) for node in self.nodes]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def why_not_linear(self) -> str | None:
        """What in the critic is not piecewise linear in x; None if nothing is."""
        for node in self.nodes:
            leading = [i for i, (n, _) in enumerate(node.next_functions) if self._leads[n]]
            rule, name = _rule(node), type(node).__name__
            if rule is None:
                return f"{name} is not known to be piecewise linear"
            if rule.inputs == "first" and leading != [0]:
                return f"{name} takes its weights from the images"
            if rule.inputs == "one" and len(leading) != 1:
                return f"{name} multiplies two values that depend on the images"
        return None

    def entered(self, spread: dict[Any, Tensor]) -> dict[Any, Tensor]:
        """Those that the scores take in directly."""
        beside = {n for node in self.nodes for n, _ in node.next_functions if not self._leads[n]}
        return {node: view for node, view in spread.items() if node in beside}

    def why_coupled(self, spread: dict[Any, Tensor]) -> str | None:
        """What in a piecewise linear critic mixes samples, or takes a parameter that is neither a
        layer's nor `spread` over the samples."""
        if self._half:
            return "it computes in float16, where the loss's part would miss the loss scale"
        for node in self.nodes:
            name = type(node).__name__
            shares = _twins().get(type(node)) in SHARING
            for source, index in node.next_functions:
                if source in spread:
                    given: Any = tuple(spread[source].shape)
                elif not self._leads[source]:
                    if source is None or shares:
                        continue
                    return f"{name} takes a parameter whose share of each sample is not known"
                elif self.x.shape[0] == 1 and not shares:
                    continue  # one sample mixes with nobody; but a layer must see it as one row
                else:
                    seen = self._shapes.get(source)
                    given = seen[index] if seen else tuple(self.x.shape)
                if not self._keeps_rows(node, given):
                    return f"{name} is not known to keep samples apart"
        return None

    def _keeps_rows(self, node: Any, given: Shape | None) -> bool:
        rule = _rule(node)
        out = next((s for s in self._shapes.get(node, []) if s is not None), None)
        if rule is None or not out or not given:
            return False
        return out[0] == given[0] == self.x.shape[0] and rule.rows(node, out, given)


def refuse_further_orders() -> None:
    """Raises where the backward of a shared loss is to be differentiated in turn."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "loss_and_r1: engine='shared' has derivatives of order 1, and order 2 was asked "
            "for; use engine='autograd'"
        )
