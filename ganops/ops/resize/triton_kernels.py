"""resize in Triton: one program per block of output pixels of a channel, both axes at once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import cdiv, launch
from .autograd import empty_result

BLOCK = 256


@triton.jit
def _tap(total, row, first, weights, column, count, width, x_w, valid):
    """The filter's sum along x of one source row, rounded to float32."""
    k = 0
    while k < count:
        inside = valid & (first + k < width)
        w = tl.load(weights + column * count + k, mask=inside, other=0.0)
        number = tl.load(row + (first + k) * x_w, mask=inside, other=0)
        total += w * number.to(tl.float32).to(tl.float64)
        k += 1
    return total.to(tl.float32)


@triton.jit
def _lerp(a, b, d):
    return a + (b - a) * d


@triton.jit
def _across(row, first, weights, column, width, x_w, valid):
    """Between two pixels of one source row."""
    next = tl.minimum(first + 1, width - 1)
    a = tl.load(row + first * x_w, mask=valid, other=0).to(tl.float32)
    b = tl.load(row + next * x_w, mask=valid, other=0).to(tl.float32)
    return _lerp(a, b, tl.load(weights + column, mask=valid, other=0.0))


@triton.jit
def resize_kernel(
    x, first_y, weight_y, first_x, weight_x, y,
    channels, height, width, out_h, out_w, taps_y, taps_x,
    x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w,  # strides
    blocks, shift, divisor,
    LERP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    i = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    sample, channel = plane // 3, plane % 3
    valid = i < out_h * out_w
    h, w = (i // out_w).to(tl.int64), (i % out_w).to(tl.int64)
    top = tl.load(first_y + h, mask=valid, other=0).to(tl.int64)
    left = tl.load(first_x + w, mask=valid, other=0).to(tl.int64)
    source = x + sample * x_n + (channel % channels) * x_c
    if LERP:
        next = tl.minimum(top + 1, height - 1)
        a = _across(source + top * x_h, left, weight_x, w, width, x_w, valid)
        b = _across(source + next * x_h, left, weight_x, w, width, x_w, valid)
        v = _lerp(a, b, tl.load(weight_y + h, mask=valid, other=0.0))
    else:
        zero = tl.zeros([BLOCK], dtype=tl.float64)
        total = zero
        k = 0
        while k < taps_y:
            inside = valid & (top + k < height)
            number = _tap(zero, source + (top + k) * x_h, left, weight_x, w, taps_x, width, x_w,
                          inside)  # fmt: skip
            weight = tl.load(weight_y + h * taps_y + k, mask=inside, other=0.0)
            total += weight * number.to(tl.float64)
            k += 1
        v = total.to(tl.float32)
        v = tl.where(v < 0.0, 0.0, v)
        v = tl.where(v > 255.0, 255.0, v)
    v = tl.div_rn(v - shift, tl.zeros([BLOCK], dtype=tl.float32) + divisor)
    target = y + sample * y_n + channel * y_c + h * y_h + w * y_w
    tl.store(target, v.to(y.dtype.element_ty), mask=valid)


def resize(
    x: Tensor, first_y: Tensor, weight_y: Tensor, first_x: Tensor, weight_x: Tensor, shift: float,
    divisor: float, dtype: int, channels_last: bool,
) -> Tensor:  # fmt: skip
    """uint8 (N, 1 or 3, H, W) -> (N, 3, h, w), for taps of `reference.Taps`."""
    y = empty_result(x, first_y.shape[0], first_x.shape[0], dtype, channels_last)
    n, _, out_h, out_w = y.shape
    blocks = cdiv(out_h * out_w, BLOCK)
    launch(
        resize_kernel, n * 3 * blocks, y,
        x, first_y, weight_y, first_x, weight_x, y, x.shape[1], *x.shape[2:], out_h, out_w,
        weight_y.shape[1], weight_x.shape[1], *x.stride(), *y.stride(), blocks, shift, divisor,
        LERP=weight_y.dtype == torch.float32, BLOCK=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return y
