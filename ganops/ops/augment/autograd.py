"""Fakes and derivatives of the compiled augment.

T(x) = L x + c for fixed random numbers, so

    order 0   y  = T(x)           pair: [x ; T(x)]
    order 1   dx = L' dy          pair: dy[:B] + L' dy[B:]
    order 2   d dy = L v          the kernel of order 0 without c; and so on, to any order
    forward   y_t = L x_t
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._autograd import kernel, quick, refuse_nested_forward, register
from .._triton import deferred
from .reference import COLUMNS, is_channels_last

# Codes of csrc/common/cuda_launch.h.
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Spec:
    """What is not a tensor (one leaf to pytrees, which torch.func needs)."""

    impl: str
    seed: int
    offset: int
    flags: int
    dtype: torch.dtype  # of the images that come in
    out_dtype: torch.dtype
    pair: bool
    linear: bool = False

    @property
    def linear_part(self) -> Spec:
        return Spec(self.impl, 0, 0, self.flags, self.dtype, self.out_dtype, self.pair, True)


@quick
class Augment(Function):
    """T(x), or its linear part."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, params: Tensor, spec: Spec) -> Tensor:
        y: Tensor = kernel("augment", spec.impl)(
            x, params, spec.seed, spec.offset, spec.flags, DTYPES.index(spec.out_dtype),
            spec.pair, spec.linear,
        )  # fmt: skip
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, params, ctx.spec = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(params)
        ctx.save_for_forward(params)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, None, None]:
        if dy is None:
            return None, None, None
        return AugmentGrad.apply(dy, *ctx.saved_tensors, ctx.spec), None, None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, *_: None) -> Tensor:
        refuse_nested_forward("augment")
        y_t: Tensor = Augment.apply(x_t, *ctx.saved_tensors, ctx.spec.linear_part)
        return y_t


@quick
class AugmentGrad(Function):
    """dx from dy: linear in dy."""

    generate_vmap_rule = True

    @staticmethod
    def forward(dy: Tensor, params: Tensor, spec: Spec) -> Tensor:
        dx: Tensor = kernel("augment_grad", spec.impl)(
            dy, params, spec.flags, DTYPES.index(spec.dtype), spec.pair
        )
        return dx

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, params, ctx.spec = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(params)
        ctx.save_for_forward(params)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Tensor | None, None, None]:
        if v is None:
            return None, None, None
        return Augment.apply(v, *ctx.saved_tensors, ctx.spec.linear_part), None, None

    @staticmethod
    def jvp(ctx: Any, dy_t: Tensor, *_: None) -> Tensor:
        refuse_nested_forward("augment")
        dx_t: Tensor = AugmentGrad.apply(dy_t, *ctx.saved_tensors, ctx.spec)
        return dx_t


def _images(like: Tensor, batch: int, dtype: int) -> Tensor:
    layout = torch.channels_last if is_channels_last(like) else torch.contiguous_format
    return torch.empty(
        (batch, *like.shape[1:]), dtype=DTYPES[dtype], device=like.device, memory_format=layout
    )


def _fake_params(like: Tensor, n: int, *_: Any) -> Tensor:
    return like.new_empty((n, len(COLUMNS)), dtype=torch.float32)


def _fake(
    x: Tensor, params: Tensor, seed: int, offset: int, flags: int, dtype: int, pair: bool,
    linear: bool,
) -> Tensor:  # fmt: skip
    return _images(x, x.shape[0] * (2 if pair else 1), dtype)


def _fake_grad(dy: Tensor, params: Tensor, flags: int, dtype: int, pair: bool) -> Tensor:
    return _images(dy, dy.shape[0] // (2 if pair else 1), dtype)


def _autograd(
    impl: str, x: Tensor, params: Tensor, seed: int, offset: int, flags: int, dtype: int,
    pair: bool, linear: bool,
) -> Tensor:  # fmt: skip
    spec = Spec(impl, seed, offset, flags, x.dtype, DTYPES[dtype], pair, linear)
    return Augment.apply(x, params, spec)  # type: ignore[no-any-return]


def _autograd_grad(
    impl: str, dy: Tensor, params: Tensor, flags: int, dtype: int, pair: bool
) -> Tensor:
    spec = Spec(impl, 0, 0, flags, DTYPES[dtype], dy.dtype, pair)
    return AugmentGrad.apply(dy, params, spec)  # type: ignore[no-any-return]


register(
    "augment_params",
    "(Tensor like, int n, int seed, int offset, int height, int width, int flip, int gate,"
    " int shift_y, int shift_x, int cut_y, int cut_x, float sub_y, float sub_x,"
    " float brightness, float saturation, float contrast, float noise) -> Tensor",
    fake=_fake_params,
    autograd=None,
    triton=deferred(__package__, "augment_params"),
)
register(
    "augment",
    "(Tensor x, Tensor params, int seed, int offset, int flags, int dtype, bool pair,"
    " bool linear) -> Tensor",
    fake=_fake,
    autograd=_autograd,
    triton=deferred(__package__, "augment"),
)
register(
    "augment_grad",
    "(Tensor dy, Tensor params, int flags, int dtype, bool pair) -> Tensor",
    fake=_fake_grad,
    autograd=_autograd_grad,
    triton=deferred(__package__, "augment_grad"),
)
