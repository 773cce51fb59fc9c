"""Derivatives of convolutions: three bilinear maps that are each other's derivatives.

    y  = C(x, w)        convolution                dy -> (X(dy, w), W(dy, x))
    dx = X(dy, w)       backward with respect x    v  -> d dy = C(v, w),  d w = W(dy, v)
    dw = W(dy, x)       backward with respect w    u  -> d dy = C(x, u),  d x = X(dy, u)

The set is closed, so every order is right, and runs the kernels of a first order: torch's own
formula for the double backward computes dw as a convolution whose kernel is the whole image, one
call per group (small_output.py does where that is small). C stands for a transposed convolution and
a linear layer as well.

Inside a penalty that shares its backward with a loss, X(dy, w) also carries the loss's part:
`SharedInput`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._autograd import quick, transformed
from .._input_pass import InputPass
from .._twins import Like, one_forward_level, rows_like, sum_rows, times_rows
from .spec import AnySpec


@quick
class Conv(Function):
    """y from (x, w, b). x is kept only where w's gradient may be wanted, and w where x's is."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor | None, spec: AnySpec) -> Tensor:
        return spec.forward(x, w, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, b, ctx.spec = inputs
        ctx.x_like, ctx.w_like = Like.of(x), Like.of(w)
        ctx.set_materialize_grads(False)
        need_x, need_w = ctx.needs_input_grad[:2]
        keep = (here := InputPass.current()) and here.keep
        ctx.shared, ctx.masks = here if keep == "shared" else None, keep == "masks"
        all_ = transformed()  # vmap reads both lists by one set of dimensions: no gaps there
        keep_x = all_ or (need_w and not ctx.masks)
        kept = x if keep_x else None, w if need_x or all_ else None
        bias = (b,) if ctx.shared else ()
        ctx.save_for_backward(*kept, *bias)
        ctx.save_for_forward(x, w, *bias)
        ctx.w_pruned, ctx.b_pruned = InputPass.prunes(w), InputPass.prunes(b)
        ctx.x_left = InputPass.leaves(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Any, ...]:
        if dy is None:
            return None, None, None, None
        x, w, *b = ctx.saved_tensors
        need_x, need_w, need_b = ctx.needs_input_grad[:3]
        need_w, need_b = need_w and not ctx.w_pruned(), need_b and not ctx.b_pruned()
        need_x = need_x and not ctx.x_left()
        if need_w and ctx.masks:
            raise RuntimeError(
                "engine='tangent' kept no activations, and something sent the critic's layers a "
                "gradient that needs them (a value taken out of the critic, or an operation that "
                "is not piecewise linear); use engine='autograd'"
            )
        if not torch.is_grad_enabled():  # the last order: one call for all
            x = ctx.x_like.empty() if x is None else x
            w = ctx.w_like.empty() if w is None else w
            dx = ctx.spec.quick_input(dy, w, ctx.x_like) if need_x else None
            mask = [need_x and dx is None, need_w, need_b]
            first, *others = ctx.spec.backward(dy, x, w, mask) if any(mask) else (None,) * 3
            return first if dx is None else dx, *others, None
        if need_x and ctx.shared and ctx.shared.running:
            a = None if x is None else x.detach()
            dx = SharedInput.apply(dy, w, *b, a, ctx.x_like, ctx.spec, ctx.shared)
        else:
            dx = ConvInput.apply(dy, w, ctx.x_like, ctx.spec) if need_x else None
        dw = ConvWeight.apply(dy, x, ctx.w_like, ctx.spec) if need_w else None
        db = ctx.spec.bias(dy) if need_b else None
        return dx, dw, db, None

    @staticmethod
    def jvp(
        ctx: Any, x_t: Tensor | None, w_t: Tensor | None, b_t: Tensor | None, _: None
    ) -> Tensor | None:
        one_forward_level("conv2d")
        x, w, *_ = ctx.saved_tensors
        parts = []
        if x_t is not None:
            parts.append(Conv.apply(x_t, w, b_t, ctx.spec))
        if w_t is not None:
            parts.append(Conv.apply(x, w_t, None if parts else b_t, ctx.spec))
        if not parts and b_t is not None:
            parts.append(Conv.apply(torch.zeros_like(x), w, b_t, ctx.spec))
        return _sum(parts)


@quick
class ConvInput(Function):
    """dx from (dy, w)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(dy: Tensor, w: Tensor, like: Like, spec: AnySpec) -> Tensor:
        return spec.input(dy, w, like)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        dy, w, ctx.x_like, ctx.spec = inputs
        ctx.w_like = Like.of(w)
        ctx.set_materialize_grads(False)
        need_dy, need_w = ctx.needs_input_grad[:2]
        all_ = transformed()
        ctx.save_for_backward(dy if need_w or all_ else None, w if need_dy or all_ else None)
        ctx.save_for_forward(dy, w)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Any, ...]:
        if v is None:
            return None, None, None, None
        dy, w = ctx.saved_tensors
        need_dy, need_w = ctx.needs_input_grad[:2]
        d_dy = Conv.apply(v, w, None, ctx.spec) if need_dy else None
        d_w = ConvWeight.apply(dy, v, ctx.w_like, ctx.spec) if need_w else None
        return d_dy, d_w, None, None

    @staticmethod
    def jvp(ctx: Any, dy_t: Tensor | None, w_t: Tensor | None, *_: Any) -> Tensor | None:
        one_forward_level("conv2d")
        dy, w = ctx.saved_tensors
        return _sum(
            [ConvInput.apply(*pair, ctx.x_like, ctx.spec)
             for pair in ((dy_t, w), (dy, w_t)) if None not in pair]
        )  # fmt: skip


@quick
class SharedInput(Function):
    """dx from (dy, w), whose double backward is the loss's backward too.

    Where sample n's score has derivative c_n in the loss, and dy is the backward of the sum of the
    scores, the loss's own backward would bring c_n dy_n: with a the layer's input, dw grows by
    W(dy, c a), one product for both, and db by the sum of c dy. Without c it is `ConvInput`.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        dy: Tensor, w: Tensor, b: Tensor | None, a: Tensor | None, like: Like, spec: AnySpec,
        shared: InputPass,
    ) -> Tensor:  # fmt: skip
        return spec.input(dy, w, like)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        dy, w, _, a, _, ctx.spec, ctx.shared = inputs
        ctx.w_like = Like.of(w)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, w, a)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Any, ...]:
        dy, w, a = ctx.saved_tensors
        need_dy, need_w, need_b = ctx.needs_input_grad[:3]
        c = ctx.shared.score_weights
        d_dy = d_w = d_b = None
        further = torch.is_grad_enabled()  # else nobody asks for a graph of these
        if need_dy and v is not None:
            d_dy = Conv.apply(v, w, None, ctx.spec) if further else ctx.spec.forward(v, w, None)
        operand = v if c is None or not need_w else plus_rows(v, c, a)
        if need_w and operand is not None:
            d_w = (
                ConvWeight.apply(dy, operand, ctx.w_like, ctx.spec)
                if further
                else ctx.spec.backward(dy, operand, w, [False, True, False])[1]
            )
        if need_b and c is not None:
            d_b = sum_rows(ctx.spec.bias_by_sample(dy), c)
        return d_dy, d_w, d_b, None, None, None, None


@quick
class ConvWeight(Function):
    """dw from (dy, x)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(dy: Tensor, x: Tensor, like: Like, spec: AnySpec) -> Tensor:
        dw: Tensor = spec.backward(dy, x, like.empty(), [False, True, False])[1]
        return dw

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        dy, x, ctx.w_like, ctx.spec = inputs
        ctx.x_like = Like.of(x)
        ctx.set_materialize_grads(False)
        need_dy, need_x = ctx.needs_input_grad[:2]
        all_ = transformed()
        ctx.save_for_backward(dy if need_x or all_ else None, x if need_dy or all_ else None)
        ctx.save_for_forward(dy, x)

    @staticmethod
    def backward(ctx: Any, u: Tensor | None) -> tuple[Any, ...]:
        if u is None:
            return None, None, None, None
        dy, x = ctx.saved_tensors
        need_dy, need_x = ctx.needs_input_grad[:2]
        d_dy = Conv.apply(x, u, None, ctx.spec) if need_dy else None
        d_x = ConvInput.apply(dy, u, ctx.x_like, ctx.spec) if need_x else None
        return d_dy, d_x, None, None

    @staticmethod
    def jvp(ctx: Any, dy_t: Tensor | None, x_t: Tensor | None, *_: Any) -> Tensor | None:
        one_forward_level("conv2d")
        dy, x = ctx.saved_tensors
        return _sum(
            [ConvWeight.apply(*pair, ctx.w_like, ctx.spec)
             for pair in ((dy_t, x), (dy, x_t)) if None not in pair]
        )  # fmt: skip


def plus_rows(v: Tensor | None, c: Tensor, a: Tensor) -> Tensor:
    """v + c a, c along dim 0."""
    return times_rows(a, c) if v is None else torch.addcmul(v, a, rows_like(c, a))


def _sum(parts: list[Tensor]) -> Tensor | None:
    return sum(parts[1:], parts[0]) if parts else None
