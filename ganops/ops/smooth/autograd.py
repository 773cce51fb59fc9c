"""Derivatives of the smooth activations.

    order 0   y  = f(x)             torch's own kernel
    order 1   dx = s dy             torch's own kernel; s = f'(x), read off ref
    order 2   d dy  = s v           one kernel of ganops for both
              d ref = ds/dref v dy
    order 3   through the second derivative: refused

ref is x; for tanh and sigmoid y, which the next layer keeps anyway: order 2 then sends its gradient
to y, and the chain through order 1 makes it x's. What is saved is what torch saves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._autograd import empty_dense_like, kernel, quick, refuse, register
from .._triton import deferred
from .._twins import Elementwise, one_forward_level
from .reference import VALUES

aten = torch.ops.aten
_CODES = {name: code for code, name in enumerate(VALUES)}
_NAMES = list(VALUES)


@dataclass(frozen=True)
class Spec:
    """What is not a tensor (one leaf to pytrees, which torch.func needs)."""

    impl: str
    name: str
    a: float = 0.0
    b: float = 0.0

    @property
    def from_output(self) -> bool:
        return self.name in ("tanh", "sigmoid")

    def slope(self, g: Tensor, ref: Tensor) -> Tensor:
        """s g."""
        return _SLOPES[self.name](g, ref, self.a, self.b)


_SLOPES: dict[str, Callable[..., Tensor]] = {
    "silu": lambda g, x, a, b: aten.silu_backward(g, x),
    "gelu": lambda g, x, a, b: aten.gelu_backward(g, x),
    "gelu_tanh": lambda g, x, a, b: aten.gelu_backward(g, x, approximate="tanh"),
    "softplus": lambda g, x, a, b: aten.softplus_backward(g, x, a, b),
    "elu": lambda g, x, a, b: aten.elu_backward(g, a / b, b, 1, False, x),
    "tanh": lambda g, y, a, b: aten.tanh_backward(g, y),
    "sigmoid": lambda g, y, a, b: aten.sigmoid_backward(g, y),
    "mish": lambda g, x, a, b: aten.mish_backward(g, x),
    "hardswish": lambda g, x, a, b: aten.hardswish_backward(g, x),
}


@quick
class Smooth(Elementwise):
    """y from x."""

    @staticmethod
    def forward(x: Tensor, spec: Spec) -> Tensor:
        return VALUES[spec.name](x, spec.a, spec.b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.spec = inputs
        ctx.set_materialize_grads(False)
        ref = output if ctx.spec.from_output else x
        ctx.save_for_backward(ref)
        ctx.save_for_forward(ref)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, None]:
        if dy is None:
            return None, None
        if not torch.is_grad_enabled():  # the last order
            return ctx.spec.slope(dy, *ctx.saved_tensors), None
        return SmoothGrad.apply(dy, *ctx.saved_tensors, ctx.spec), None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, _: None) -> Tensor:
        one_forward_level(ctx.spec.name)
        y_t: Tensor = SmoothGrad.apply(x_t, *ctx.saved_tensors, ctx.spec)
        return y_t


@quick
class SmoothGrad(Elementwise):
    """dx from dy: linear in dy."""

    @staticmethod
    def forward(dy: Tensor, ref: Tensor, spec: Spec) -> Tensor:
        return spec.slope(dy, ref)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        dy, ref, ctx.spec = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, ref)
        ctx.save_for_forward(dy, ref)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        if v is None:
            return None, None, None
        dy, ref = ctx.saved_tensors
        need_dy, need_ref, _ = ctx.needs_input_grad
        if not need_ref:
            return SmoothGrad.apply(v, ref, ctx.spec), None, None
        d_dy, d_ref = SmoothGrad2.apply(v, dy, ref, ctx.spec)
        return d_dy if need_dy else None, d_ref, None

    @staticmethod
    def jvp(ctx: Any, dy_t: Tensor | None, ref_t: Tensor | None, _: None) -> Tensor:
        one_forward_level(ctx.spec.name)
        dy, ref = ctx.saved_tensors
        dx_t = None if dy_t is None else SmoothGrad.apply(dy_t, ref, ctx.spec)
        if ref_t is None:
            return torch.zeros_like(dy) if dx_t is None else dx_t
        _, curved = SmoothGrad2.apply(ref_t, dy, ref, ctx.spec)
        total: Tensor = curved if dx_t is None else dx_t + curved
        return total


@quick
class SmoothGrad2(Elementwise):
    """(s v, ds/dref v dy): the last order there is a kernel for."""

    @staticmethod
    def forward(v: Tensor, dy: Tensor, ref: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
        d_dy, d_ref = kernel("smooth_grad2", spec.impl)(
            v, dy, ref, _CODES[spec.name], spec.a, spec.b
        )
        return d_dy, d_ref

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.name = inputs[3].name

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise refuse(ctx.name, 3)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise refuse(ctx.name, 3)


def _fake(v: Tensor, dy: Tensor, ref: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return empty_dense_like(ref), empty_dense_like(ref)


def _autograd(
    impl: str, v: Tensor, dy: Tensor, ref: Tensor, act: int, a: float, b: float
) -> tuple[Tensor, Tensor]:
    d_dy, d_ref = SmoothGrad2.apply(v, dy, ref, Spec(impl, _NAMES[act], a, b))
    return d_dy, d_ref


register(
    "smooth_grad2",
    "(Tensor v, Tensor dy, Tensor ref, int act, float a, float b) -> (Tensor d_dy, Tensor d_ref)",
    fake=_fake,
    autograd=_autograd,
    triton=deferred(__package__, "smooth_grad2"),
)
