"""Fakes and derivatives of the compiled consistency loss.

On a batch x = [a ; b], with Dx = a - b, L = D'D and a constant c:

    Square  q(x)    = c <Dx, Dx>    dq/dx = 2c Lx
    Dot     p(x, y) = c <Dx, Dy>    dp/dx = c Ly,          dp/dy = c Lx
    Slope   u(s, x) = c s Lx        <v, du/ds> = c <Dv, Dx>, (du/dx)'v = c s Lv

Each derivative is one of the three again, so every order there is has a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._autograd import (
    empty_rows_like,
    is_last_order,
    kernel,
    quick,
    refuse_nested_forward,
    register,
)
from .._triton import deferred


@dataclass(frozen=True)
class Spec:
    """What is not a tensor (one leaf to pytrees, which torch.func needs)."""

    impl: str
    scale: float
    per_sample: bool

    def twice(self) -> Spec:
        return replace(self, scale=2 * self.scale)


@quick
class Square(Function):
    """c <Dx, Dx>, of each pair or of all."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, spec: Spec) -> Tensor:
        out: Tensor = kernel("consistency", spec.impl)(x, None, spec.scale, spec.per_sample)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.spec = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, go: Tensor | None) -> tuple[Tensor | None, None]:
        if go is None:
            return None, None
        (x,) = ctx.saved_tensors
        slope: Any = Slope.forward if is_last_order(go, x) else Slope.apply
        return slope(go, x, ctx.spec.twice()), None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, _: None) -> Tensor:
        refuse_nested_forward("consistency")
        (x,) = ctx.saved_tensors
        out: Tensor = Dot.apply(x, x_t, ctx.spec.twice())
        return out


@quick
class Dot(Function):
    """c <Dx, Dy>, of each pair or of all."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor, spec: Spec) -> Tensor:
        out: Tensor = kernel("consistency", spec.impl)(x, y, spec.scale, spec.per_sample)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, y, ctx.spec = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, y)
        ctx.save_for_forward(x, y)

    @staticmethod
    def backward(ctx: Any, go: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        if go is None:
            return None, None, None
        x, y = ctx.saved_tensors
        need_x, need_y, _ = ctx.needs_input_grad
        return (
            Slope.apply(go, y, ctx.spec) if need_x else None,
            Slope.apply(go, x, ctx.spec) if need_y else None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor | None, y_t: Tensor | None, _: None) -> Tensor:
        refuse_nested_forward("consistency")
        x, y = ctx.saved_tensors
        return _total(
            None if x_t is None else Dot.apply(x_t, y, ctx.spec),
            None if y_t is None else Dot.apply(x, y_t, ctx.spec),
        )


@quick
class Slope(Function):
    """c s Lx, with one s for each pair or for all."""

    generate_vmap_rule = True

    @staticmethod
    def forward(s: Tensor, x: Tensor, spec: Spec) -> Tensor:
        out: Tensor = kernel("consistency_grad", spec.impl)(s, x, spec.scale)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        s, x, ctx.spec = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(s, x)
        ctx.save_for_forward(s, x)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        if v is None:
            return None, None, None
        s, x = ctx.saved_tensors
        need_s, need_x, _ = ctx.needs_input_grad
        return (
            Dot.apply(v, x, ctx.spec) if need_s else None,
            Slope.apply(s, v, ctx.spec) if need_x else None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, s_t: Tensor | None, x_t: Tensor | None, _: None) -> Tensor:
        refuse_nested_forward("consistency")
        s, x = ctx.saved_tensors
        return _total(
            None if s_t is None else Slope.apply(s_t, x, ctx.spec),
            None if x_t is None else Slope.apply(s, x_t, ctx.spec),
        )


def _total(*parts: Tensor | None) -> Tensor:
    first, *others = (p for p in parts if p is not None)
    return sum(others, first)


def _fake(x: Tensor, y: Tensor | None, scale: float, per_sample: bool) -> Tensor:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty((x.shape[0] // 2,) if per_sample else (), dtype=dtype)


def _fake_grad(s: Tensor, x: Tensor, scale: float) -> Tensor:
    return empty_rows_like(x)


def _autograd(impl: str, x: Tensor, y: Tensor | None, scale: float, per_sample: bool) -> Tensor:
    spec = Spec(impl, scale, per_sample)
    out: Tensor = Square.apply(x, spec) if y is None else Dot.apply(x, y, spec)
    return out


def _autograd_grad(impl: str, s: Tensor, x: Tensor, scale: float) -> Tensor:
    out: Tensor = Slope.apply(s, x, Spec(impl, scale, s.dim() == 1))
    return out


register(
    "consistency",
    "(Tensor x, Tensor? y, float scale, bool per_sample) -> Tensor",
    fake=_fake,
    autograd=_autograd,
    triton=deferred(__package__, "consistency"),
)
register(
    "consistency_grad",
    "(Tensor s, Tensor x, float scale) -> Tensor",
    fake=_fake_grad,
    autograd=_autograd_grad,
    triton=deferred(__package__, "consistency_grad"),
)
