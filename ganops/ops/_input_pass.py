"""The pass that wants input gradients alone, and how twins learn of it.

autograd.grad(scores, x) prunes what does not lead to x, but a Python Function is not told: its
needs_input_grad says yes for the weights as well, and it would compute gradients that nobody reads.
So a penalty announces itself: twins called inside `with InputPass(x):` ask for each weight whether
the first backward may skip it, and get the answer as a function to call in that backward (which may
run in another thread).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.graph import get_gradient_edge
from torch.nn import Parameter

from ._autograd import quick
from ._twins import sum_rows


class InputPass:
    """One penalty's critic call, and then its backward to `x` (which requires grad).

    `running` is True during that backward only. `over` is True after it, where x is the penalty's
    own: from then on nobody asks for its gradient. What the twins record besides:

    "values"  what any later backward may want.
    "masks"   no activations: layers keep no input, piecewise linear functions their slope's mask.
              The one gradient of a weight is then the double backward's; any other raises.
    "shared"  the backward to x keeps each layer's input, so that the double backward can add the
              weights' gradient of a loss that gives sample n the derivative `score_weights[n]`.
              Parameters outside layers are in `spread`.
    """

    _here = threading.local()

    def __init__(self, x: Tensor, keep: str = "values") -> None:
        self.running = self.over = False
        self.keep = keep
        self.score_weights: Tensor | None = None  # (B,), set when the loss's backward arrives
        self.hooked = False  # did the critic register a hook on a tensor?
        self.x = x
        self.spread: dict[Any, Tensor] = {}  # by autograd node: parameters, one row a sample
        self._leads: dict[Any, bool] = {}  # what is known of autograd nodes: do they lead to x?

    def __enter__(self) -> InputPass:
        self._outer = getattr(self._here, "current", None)
        self._here.current = self
        return self

    def __exit__(self, *_: Any) -> None:
        self._here.current = self._outer
        self._leads.clear()

    @classmethod
    def current(cls) -> InputPass | None:
        """The penalty that is calling its critic, in this thread."""
        return getattr(cls._here, "current", None)

    @classmethod
    def keeping(cls, what: str) -> InputPass | None:
        """The current pass if it keeps `what`."""
        here = cls.current()
        return here if here is not None and here.keep == what else None

    @classmethod
    def prunes(cls, weight: Tensor | None) -> Callable[[], bool]:
        """A question to ask in backward: is the gradient of `weight` of no use just now?

        Never, where `weight` itself depends on x, as in a critic that predicts its filters.
        """
        current = cls.current()
        if current is None or weight is None or current._depends(weight):
            return _never
        return lambda: current.running

    @classmethod
    def leaves(cls, input: Tensor) -> Callable[[], bool]:
        """Likewise: is the gradient of a layer's `input` of no use, being that of x itself?

        A critic that hooks its tensors may look at that one, too; hooks on nodes are not seen.
        """
        current = cls.current()
        if current is None or input is not current.x:
            return _never
        return lambda: current.over and not current.hooked

    def by_sample(self, operands: Sequence[Any], *, broadcast: bool) -> list[Any]:
        """The operands of a function that acts row by row, in which each sample has a row of its
        own of what depends on parameters alone: views, remembered in `spread`.

        The gradient of such a row is one sample's, so a loss's is that times `score_weights`.

        broadcast: may an operand without rows be given some? Where not, only those with rows count.
        """
        grown = [t for t in operands if type(t) in (Tensor, Parameter) and t.requires_grad]
        if len(grown) < 2 or not torch.is_grad_enabled():
            return list(operands)
        params = {id(t) for t in grown if not self._depends(t)}
        values = [t for t in grown if id(t) not in params]
        rank, rows = max(t.dim() for t in grown), self.x.shape[0]
        if not (params and values) or any(
            t.dim() < rank or t.shape[:1] != (rows,) or t.dtype != values[0].dtype for t in values
        ):
            return list(operands)

        def spread(t: Tensor) -> Tensor:
            full = t.dim() == rank
            if not (full and t.shape[0] == rows) and not (
                broadcast and (not full or t.shape[0] == 1)
            ):
                return t
            if t.dim() == 0 and t.dtype != values[0].dtype:
                return t  # a lone number has no say in the result's dtype, and must get none
            missing = [1] * (rank - 1 - t.dim())
            view = t.expand(rows, *missing, *(t.shape[1:] if full else t.shape))
            self.spread[get_gradient_edge(view).node] = view
            return view

        return [spread(t) if id(t) in params else t for t in operands]

    def _depends(self, weight: Tensor) -> bool:
        if weight is self.x:
            return True
        return weight.grad_fn is not None and self._leads_to_x(weight.grad_fn)

    def _leads_to_x(self, root: Any) -> bool:
        """Depth first, without recursion: graphs are deep."""
        target = get_gradient_edge(self.x).node
        stack, seen = [root], set()
        while stack:
            node = stack.pop()
            known = self._leads.get(node)
            if node is target or known:
                self._leads[root] = True
                return True
            if node in seen or known is False:
                continue
            seen.add(node)
            stack.extend(n for n, _ in node.next_functions if n is not None)
        self._leads.update(dict.fromkeys(seen, False))
        return False


@quick
class Share(Function):
    """dx as it is; in double backward `param` gets a loss's part of its gradient.

    terms: (B, param.numel()), of sample n what the backward of its score alone sends to param.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(dx: Tensor, param: Tensor, terms: Tensor, shared: InputPass) -> Tensor:
        return dx.view_as(dx)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, param, terms, ctx.shared = inputs
        ctx.shape = param.shape
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(terms)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Any, ...]:
        (terms,) = ctx.saved_tensors
        c = ctx.shared.score_weights
        if c is None or not ctx.needs_input_grad[1]:
            return v, None, None, None
        return v, sum_rows(terms, c).reshape(ctx.shape), None, None


def _never() -> bool:
    return False
