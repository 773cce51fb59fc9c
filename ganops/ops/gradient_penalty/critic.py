"""The gradient of a critic's scores with respect to its images, kept differentiable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import disable_saved_tensors_hooks

from .._arguments import shown
from .._input_pass import InputPass
from .path import Path
from .rerouting import Rerouting

ENGINES = ("auto", "autograd", "tangent")
KEEP = {"auto": "values", "tangent": "masks", "shared": "shared"}


@dataclass(frozen=True)
class Critic:
    """A critic and how to call it; `name` is the penalty's, `noun` the critic's, for messages.

    own_x: is x the penalty's own, of which nobody wants a gradient but the penalty?
    """

    name: str
    call: Callable[..., Any]
    output: Callable[[Any], Tensor] | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None
    engine: str = "auto"
    engines: tuple[str, ...] = ENGINES
    noun: str = "critic"
    own_x: bool = True
    per_discriminator: bool | None = None  # None: a penalty that knows one discriminator alone

    def __post_init__(self) -> None:
        known = self.kwargs if isinstance(self.kwargs, Mapping) else {}
        shared = bool(self.per_discriminator is False and known.get("shared"))
        each = getattr(self.call, "takes_a_batch_each", False)
        if each and not shared and not self.per_discriminator:
            raise ValueError(
                f"{self.name}: expected one batch for one critic, got a bank, which takes a batch "
                "for each of its discriminators: gradient_penalty, r1_penalty and r2_penalty serve "
                "it with per_discriminator=True, or with critic_kwargs={'shared': True} for one "
                "batch of all"
            )
        if self.engine not in self.engines:
            first, *others = map(repr, self.engines)
            raise ValueError(
                f"{self.name}: expected engine {', '.join([first, *others[:-1]])} or "
                f"{others[-1]}, got {self.engine!r}"
            )

        for name, given in ((self.noun, self.call), ("output", self.output)):
            if not (callable(given) or (given is None and name == "output")):
                raise TypeError(f"{self.name}: expected {name} as a function, got {shown(given)}")
        if not isinstance(self.args, (tuple, list)) or not isinstance(self.kwargs or {}, Mapping):
            raise TypeError(
                f"{self.name}: expected the {self.noun}'s further arguments as a tuple and a dict, "
                f"got {shown(self.args)} and {shown(self.kwargs)}"
            )

    def scores(self, x: Tensor) -> Tensor:
        """(B, ...), one row per sample."""
        out = self.call(x, *self.args, **(self.kwargs or {}))
        out = out if self.output is None else self.output(out)
        if not isinstance(out, Tensor):
            raise TypeError(
                f"{self.name}: expected the {self.noun} to return a tensor, got "
                f"{type(out).__name__}; pick one with output="
            )
        if out.is_complex():
            raise TypeError(f"{self.name}: expected real scores, got {out.dtype}; use output=")
        if self.per_discriminator and out.shape[:2] != x.shape[:2]:
            raise ValueError(
                f"{self.name}: expected scores of shape {tuple(x.shape[:2])}, one row per "
                f"discriminator and sample, got {tuple(out.shape)}"
            )
        of_bank = self.per_discriminator is False and out.dim() > 1 and len(x) == out.shape[1]
        if not of_bank and (out.dim() == 0 or out.shape[0] != x.shape[0]):
            raise ValueError(
                f"{self.name}: expected scores of shape ({x.shape[0]}, ...), one row per sample, "
                f"got {tuple(out.shape)}"
            )
        return out

    def input_gradient(self, x: Tensor) -> Tensor:
        """d(sum of scores)/dx, with x's shape. x: (B, ...), a leaf that requires grad."""
        if torch.compiler.is_compiling():
            if self.engine == "tangent":
                raise self.refusal("it does not run inside torch.compile")
            # The one form of second order that torch.compile gets right.
            gradient: Tensor = torch.func.grad(lambda t: self.scores(t).sum())(x)
            return gradient
        scores, only_x = self.forward(x, KEEP.get(self.engine))
        if self.engine == "tangent" and (why := Path(scores, x).why_not_linear()):
            raise self.refusal(why)
        return self.gradient(scores, only_x)

    def forward(self, x: Tensor, keep: str | None) -> tuple[Tensor, InputPass]:
        """Scores that can be differentiated twice. The critic runs by twins that keep `keep`, or
        as it is: if that is None, or must be because of hooks on saved tensors."""
        only_x = InputPass(x, keep or "values")
        with torch.enable_grad(), ExitStack() as active:
            if keep is not None and hooks_are_free():
                active.enter_context(disable_saved_tensors_hooks(
                    f"{self.name}: the {self.noun} uses saved-tensor hooks (activation "
                    "checkpointing or offloading), and what they recompute would not be what ran "
                    "here; pass engine='autograd'"
                ))  # fmt: skip
                nested = InputPass.current()  # a twin must not run by twins in turn
                active.enter_context(only_x)
                if nested is None:
                    active.enter_context(Rerouting(only_x))
            elif self.engine == "tangent":
                raise self.refusal("saved-tensor hooks are active around it")
            scores = self.scores(x)
        if not scores.requires_grad:
            raise self._detached()
        self._refuse_lossy(scores)
        return scores, only_x

    def gradient(self, scores: Tensor, only_x: InputPass) -> Tensor:
        """d(sum of scores)/dx, of what `forward` gave."""
        return self.gradients(scores, only_x)[0]

    def gradients(self, scores: Tensor, only_x: InputPass, *others: Tensor) -> tuple[Any, ...]:
        """d(sum of scores) by x, and by other tensors in the graph; None where there is none."""
        only_x.running = True
        try:
            with torch.enable_grad():
                grads = torch.autograd.grad(
                    scores, (only_x.x, *others), torch.ones_like(scores), create_graph=True,
                    allow_unused=True,
                )  # fmt: skip
        finally:
            only_x.running, only_x.over = False, self.own_x
        if grads[0] is None:
            raise self._detached()
        return grads

    def refusal(self, why: str) -> RuntimeError:
        """This engine cannot serve."""
        return RuntimeError(
            f"{self.name}: engine={self.engine!r} cannot serve this {self.noun}: {why}; "
            "use engine='autograd'"
        )

    def _detached(self) -> ValueError:
        return ValueError(
            f"{self.name}: the {self.noun}'s output does not depend on its input (detached, under "
            "no_grad, or computed from something else)"
        )

    def _refuse_lossy(self, scores: Tensor) -> None:
        """Graphs whose second derivative is lost or wrong, and that do not always say so."""
        seen: set[Any] = {None}
        stack: list[Any] = [scores.grad_fn]
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            stack.extend([n for n, _ in node.next_functions])
        kinds = {kind.__name__ for kind in set(map(type, seen))}
        if any(kind.startswith("_DDPSink") for kind in kinds):
            raise RuntimeError(
                f"{self.name}: the {self.noun} is a DistributedDataParallel with static_graph "
                "or find_unused_parameters, which takes the penalty's inner backward for the "
                "loss's, and may give wrong gradients without an error. Pass its .module; "
                "the loss's scores come from the wrapper as before"
            )
        if any(kind.startswith("CompiledFunction") for kind in kinds):
            raise RuntimeError(
                f"{self.name}: the {self.noun} runs regions compiled by torch.compile, which "
                "have no double backward: the penalty's gradient would be lost, in some cases "
                f"without an error. Pass the {self.noun} uncompiled, or compile the function "
                f"that calls {self.name} instead of the {self.noun}"
            )


def hooks_are_free() -> bool:
    """Are no saved-tensor hooks active around the penalty? If there are, everything is stock."""
    try:
        with disable_saved_tensors_hooks("probing"):
            return True
    except RuntimeError:
        return False


def leaf(name: str, argument: str, x: Any) -> Tensor:
    """The images, detached, as the leaf to differentiate by; or a clear error."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name}: expected {argument} as a float tensor, got {got}")
    if x.dim() == 0 or x.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one sample, got {tuple(x.shape)}")
    return differentiable_leaf(x.detach())


def differentiable_leaf(x: Tensor) -> Tensor:
    """x requiring grad, but not while compiling: torch.func.grad needs no leaf there."""
    if torch.compiler.is_compiling():
        return x
    return (x.clone() if x.is_inference() else x).requires_grad_()
