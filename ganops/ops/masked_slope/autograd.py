"""Derivatives of masked piecewise linear functions.

    order 0        y = f(x), and the mask: where the slope is 1
    order 1 and up s g from the mask, linear in g: its own derivative, to every order

Nothing else is kept: no x, no y.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._autograd import empty_dense_like, is_dense, kernel, quick, register
from .._triton import deferred
from .._twins import Elementwise, one_forward_level
from . import reference

_NAMES = list(reference.VALUES)
_CODES = {name: code for code, name in enumerate(_NAMES)}


@dataclass(frozen=True)
class Spec:
    """What is not a tensor (one leaf to pytrees, which torch.func needs)."""

    impl: str
    name: str
    a: float = 0.0
    b: float = 0.0

    @property
    def outside(self) -> float:
        """The slope where the mask is False."""
        return self.a if self.name == "leaky_relu" else 0.0


@quick
class Masked(Elementwise):
    """(y, mask) from x."""

    @staticmethod
    def forward(x: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
        a, b = spec.a, spec.b
        if spec.impl == "reference":
            return reference.VALUES[spec.name](x, a, b), reference.MASKS[spec.name](x, a, b)
        # Gaps are closed in x's memory order, as torch does: a later dropout then draws the same.
        x = x if x.is_contiguous() or is_dense(x) else x.clone()
        y, mask = kernel("masked_slope_value", spec.impl)(x, _CODES[spec.name], a, b)
        return y, mask

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, ctx.spec = inputs
        mask = output[1]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(mask)
        ctx.save_for_forward(mask)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, _: None) -> tuple[Tensor | None, None]:
        if dy is None:
            return None, None
        return Slope.apply(dy, *ctx.saved_tensors, ctx.spec.outside, ctx.spec.impl), None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, _: None) -> tuple[Tensor, None]:
        one_forward_level(ctx.spec.name)
        return Slope.apply(x_t, *ctx.saved_tensors, ctx.spec.outside, ctx.spec.impl), None


@quick
class Slope(Elementwise):
    """s g, with s from a mask."""

    @staticmethod
    def forward(g: Tensor, mask: Tensor, outside: float, impl: str) -> Tensor:
        if impl == "reference":
            return reference.masked_slope(g, mask, outside)
        y: Tensor = kernel("masked_slope", impl)(g, mask, outside)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, mask, *ctx.rest = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(mask)
        ctx.save_for_forward(mask)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        if v is None:
            return None, None, None, None
        return Slope.apply(v, *ctx.saved_tensors, *ctx.rest), None, None, None

    @staticmethod
    def jvp(ctx: Any, g_t: Tensor, *_: Any) -> Tensor:
        one_forward_level("masked_slope")
        y_t: Tensor = Slope.apply(g_t, *ctx.saved_tensors, *ctx.rest)
        return y_t


def _fake_value(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    y = torch.empty_like(x)
    return y, torch.empty_strided(y.shape, y.stride(), dtype=torch.bool, device=x.device)


def _value(impl: str, x: Tensor, act: int, a: float, b: float) -> tuple[Tensor, Tensor]:
    y, mask = Masked.apply(x, Spec(impl, _NAMES[act], a, b))
    return y, mask


def _fake_slope(g: Tensor, mask: Tensor, outside: float) -> Tensor:
    like = empty_dense_like(mask)
    return torch.empty_strided(g.shape, like.stride(), dtype=g.dtype, device=g.device)


def _slope(impl: str, g: Tensor, mask: Tensor, outside: float) -> Tensor:
    y: Tensor = Slope.apply(g, mask, outside, impl)
    return y


register(
    "masked_slope_value",
    "(Tensor x, int act, float a, float b) -> (Tensor y, Tensor mask)",
    fake=_fake_value,
    autograd=_value,
    triton=deferred(__package__, "masked_slope_value"),
)
register(
    "masked_slope",
    "(Tensor g, Tensor mask, float outside) -> Tensor",
    fake=_fake_slope,
    autograd=_slope,
    triton=deferred(__package__, "masked_slope"),
)
