"""Derivatives of upfirdn2d, which is linear in x: each is upfirdn2d again.

    order 0   y  = T x
    order 1   dx = T' dy    up and down swapped, the filter reversed, sizes swapped,
                            pad' = taps - 1 - pad; and (T')' = T
    order 2   d dy = T v, nothing to x; and so on, for every order

T' scatters dy where T gathered x, so no further kernel is needed. The filter is a constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._autograd import kernel, quick, refuse_nested_forward, register
from .._triton import deferred


@dataclass(frozen=True)
class Spec:
    """What is not a tensor (one leaf to pytrees, which torch.func needs). Pairs are (x, y)."""

    impl: str
    up: tuple[int, int]
    down: tuple[int, int]
    pad: tuple[int, int]  # in front; what is behind follows from out
    out: tuple[int, int]
    flip: bool
    gain: float

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Those of the dispatcher op, after x and f."""
        return (*self.up, *self.down, *self.pad, *self.out, self.flip, self.gain)

    def adjoint(self, f: Tensor, size: tuple[int, int]) -> Spec:
        """Of the operation on inputs of this size."""
        taps = (f.shape[-1], f.shape[0])
        pad = (taps[0] - 1 - self.pad[0], taps[1] - 1 - self.pad[1])
        return Spec(self.impl, self.down, self.up, pad, size, not self.flip, self.gain)


@quick
class Upfirdn2d(Function):
    """y from x; its own derivative."""

    @staticmethod
    def forward(x: Tensor, f: Tensor, spec: Spec) -> Tensor:
        y: Tensor = kernel("upfirdn2d", spec.impl)(x, f, *spec.arguments)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, f, ctx.spec = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(f)
        ctx.save_for_forward(f)
        ctx.size = (x.shape[3], x.shape[2])

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, None, None]:
        if ctx.needs_input_grad[1]:
            raise no_filter_gradient()
        if dy is None:
            return None, None, None
        (f,) = ctx.saved_tensors
        return Upfirdn2d.apply(dy, f, ctx.spec.adjoint(f, ctx.size)), None, None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor | None, f_t: Tensor | None, _: None) -> Tensor:
        if f_t is not None or x_t is None:
            raise no_filter_gradient()
        refuse_nested_forward("upfirdn2d")
        y_t: Tensor = Upfirdn2d.apply(x_t, *ctx.saved_tensors, ctx.spec)
        return y_t

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], x: Tensor, f: Tensor, spec: Spec
    ) -> tuple[Tensor, int]:
        """More samples of the same filter."""
        if in_dims[1] is not None:
            raise ValueError(
                "upfirdn2d: expected one filter for all of torch.func.vmap, got one for each"
            )
        x = x.movedim(in_dims[0], 0)
        y = Upfirdn2d.apply(x.flatten(0, 1), f, spec)
        return y.unflatten(0, x.shape[:2]), 0


def no_filter_gradient() -> ValueError:
    """The error of asking for one."""
    return ValueError(
        "upfirdn2d: expected f as a constant, got a filter that requires a gradient; "
        'f.detach(), or impl="reference", which differentiates it'
    )


def _channels_last(x: Tensor) -> bool:
    """Twin of is_channels_last in csrc/upfirdn2d/upfirdn2d_layout.h."""
    channels, height, width = x.shape[1:]
    pixels = width == 1 or x.stride(3) == channels
    return (
        not x.is_contiguous()
        and channels > 1
        and x.stride(1) == 1
        and pixels
        and height * width > 1
    )


def empty_result(x: Tensor, out_x: int, out_y: int, dtype: torch.dtype | None = None) -> Tensor:
    """An empty y, in the memory order of x."""
    n, c = x.shape[:2]
    if not _channels_last(x):
        return x.new_empty((n, c, out_y, out_x), dtype=dtype)
    return x.new_empty((n, out_y, out_x, c), dtype=dtype).permute(0, 3, 1, 2)


def _fake(x: Tensor, f: Tensor, *rest: Any) -> Tensor:
    return empty_result(x, *rest[6:8])


def _autograd(impl: str, x: Tensor, f: Tensor, *rest: Any) -> Tensor:
    up_x, up_y, down_x, down_y, pad_x, pad_y, out_x, out_y, flip, gain = rest
    if f.requires_grad:
        raise no_filter_gradient()
    pairs = ((up_x, up_y), (down_x, down_y), (pad_x, pad_y), (out_x, out_y))
    y: Tensor = Upfirdn2d.apply(x, f, Spec(impl, *pairs, flip, gain))
    return y


register(
    "upfirdn2d",
    "(Tensor x, Tensor f, int up_x, int up_y, int down_x, int down_y, int pad_x, int pad_y,"
    " int out_x, int out_y, bool flip, float gain) -> Tensor",
    fake=_fake,
    autograd=_autograd,
    triton=deferred(__package__, "upfirdn2d"),
)
