"""A convolution as two autograd nodes, so that the engine itself prunes weight gradients.

    x ────────────┐
    w, b ── ByWeights ── ByInput ── y         y = C(x, w) + b, computed once, by the first

`autograd.grad(scores, x)` does not run nodes that do not lead to x, but a Python Function is not
told which of its own inputs are wanted: `Conv` computes W(dy, x) there for nobody. Here ByInput
sends dx = X(dy, w) to x and dy to ByWeights, which is run only where w's or b's gradient is wanted.
A penalty written by hand then costs what one of ganops does.

The tensor that each formula reads besides its own inputs (x in ByWeights, w in ByInput) is saved
and has no edge: it tells further orders where W(dy, x) and X(dy, w) came from, and leads the first
nowhere. Outside torch.func and forward mode, whose levels see inputs alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from .._autograd import quick, transformed
from .._input_pass import InputPass
from .._twins import Like, writable
from .autograd import Conv, ConvInput, ConvWeight
from .spec import AnySpec


def convolve(x: Tensor, w: Tensor, b: Tensor | None, spec: AnySpec) -> Tensor:
    """y, in one node or in two."""
    y: Tensor
    if _splits(x, w, b):
        y = ByInput.apply(x, ByWeights.apply(w, b, [x], spec), [w], spec)
    else:
        y = writable(Conv.apply(x, w, b, spec))
    return y


def _splits(x: Tensor, w: Tensor, b: Tensor | None) -> bool:
    """Is there something to prune, and nobody else who prunes or sees inputs alone?"""
    weights = w.requires_grad or (b is not None and b.requires_grad)
    if not (x.requires_grad and weights and torch.is_grad_enabled()):
        return False
    if InputPass.current() is not None or transformed():
        return False
    return all(t is None or forward_ad.unpack_dual(t).tangent is None for t in (x, w, b))


@quick
class ByWeights(Function):
    """y as a function of (w, b). hidden: [x]."""

    @staticmethod
    def forward(w: Tensor, b: Tensor | None, hidden: list[Tensor], spec: AnySpec) -> Tensor:
        return spec.forward(hidden[0], w, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        w, _, (x,), ctx.spec = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*(x, w) if ctx.needs_input_grad[0] else ())

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return None, None, None, None
        need_w, need_b = ctx.needs_input_grad[:2]
        if need_w and not torch.is_grad_enabled():  # the last order: one call for both
            _, dw, db = ctx.spec.backward(dy, *ctx.saved_tensors, [False, True, need_b])
            return dw, db, None, None
        db = ctx.spec.bias(dy) if need_b else None
        if not need_w:
            return None, db, None, None
        x, w = ctx.saved_tensors
        return ConvWeight.apply(dy, x, Like.of(w), ctx.spec), db, None, None


@quick
class ByInput(Function):
    """y as a function of x, in place of what ByWeights made. hidden: [w]."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, hidden: list[Tensor], spec: AnySpec) -> Tensor:
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, y, (w,), ctx.spec = inputs
        ctx.x_like = Like.of(x)
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(y)
        # x is at hand where ByWeights keeps it; a placeholder of its size would cost memory.
        ctx.save_for_backward(w, x if w.requires_grad else None)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return None, None, None, None
        w, x = ctx.saved_tensors
        if torch.is_grad_enabled():
            return ConvInput.apply(dy, w, ctx.x_like, ctx.spec), dy, None, None
        return ctx.spec.input(dy, w, ctx.x_like, x), dy, None, None
