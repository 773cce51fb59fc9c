"""upfirdn2d in Triton: one program per block of pixels of a plane, taps read as they are needed.

Rows and columns are filtered together, so that x is read from memory once and its neighbours from
the cache; where that would be many taps (a long separable filter), in two launches, one per axis,
with the numbers in between in the computing dtype.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import cdiv, launch
from .autograd import empty_result

BLOCK = 256
MOST_TAPS = 16  # met by one result, of a separable filter in one launch


@triton.jit
def upfirdn_kernel(
    x, f, y,
    height, width, out_h, out_w, channels,  # of x, of y
    x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w,  # strides
    ahead_x, ahead_y, shift_x, shift_y,  # pad = ahead up - shift, with 0 <= shift
    blocks, gain: tl.float64,
    UP_X: tl.constexpr, UP_Y: tl.constexpr, DOWN_X: tl.constexpr, DOWN_Y: tl.constexpr,
    KX: tl.constexpr, KY: tl.constexpr, FLIP: tl.constexpr, LAST: tl.constexpr,
    BLOCK: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """first_tap of csrc/upfirdn2d/upfirdn2d_math.h on both axes, in numbers that are not negative.

    LAST: a plane is a sample, and its channels are neighbours.
    """
    C: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    i = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    if LAST:
        sample, channel, pixel = plane, i % channels, i // channels
    else:
        sample, channel, pixel = plane // channels, plane % channels, i
    valid = pixel < (pixel * 0 + out_h) * out_w  # which can pass 2^31
    row, column = pixel // out_w, pixel % out_w
    from_x, from_y = column * DOWN_X + shift_x, row * DOWN_Y + shift_y
    at_x, at_y = (from_x + UP_X - 1) // UP_X, (from_y + UP_Y - 1) // UP_Y
    tap_x, tap_y = at_x * UP_X - from_x, at_y * UP_Y - from_y
    at_x, at_y = at_x - ahead_x, at_y - ahead_y
    source = x + sample * x_n + channel * x_c
    total = tl.zeros([BLOCK], dtype=C)
    for jy in range((KY + UP_Y - 1) // UP_Y):
        ky, iy = tap_y + jy * UP_Y, at_y + jy
        in_y = valid & (ky < KY) & (iy >= 0) & (iy < height)
        for jx in range((KX + UP_X - 1) // UP_X):
            kx, ix = tap_x + jx * UP_X, at_x + jx
            inside = in_y & (kx < KX) & (ix >= 0) & (ix < width)
            k = ky * KX + kx if FLIP else (KY - 1 - ky) * KX + (KX - 1 - kx)
            weight = tl.load(f + k, mask=inside, other=0.0).to(C)
            number = tl.load(source + iy * x_h + ix * x_w, mask=inside, other=0.0).to(C)
            total += weight * number
    target = y + sample * y_n + channel * y_c + row * y_h + column * y_w
    tl.store(target, (total * tl.full([BLOCK], gain, C)).to(y.dtype.element_ty), mask=valid)


def _run(
    x: Tensor, f: Tensor, y: Tensor, up: tuple[int, int], down: tuple[int, int],
    pad: tuple[int, int], flip: bool, gain: float,
) -> Tensor:  # fmt: skip
    """One launch of a filter of two dims."""
    n, channels, out_h, out_w = y.shape
    last = y.stride(1) == 1 and channels > 1
    planes, numbers = (n, out_h * out_w * channels) if last else (n * channels, out_h * out_w)
    blocks = cdiv(numbers, BLOCK)
    ahead = [max(0, cdiv(p, u)) for p, u in zip(pad, up)]
    shift = [a * u - p for a, u, p in zip(ahead, up, pad)]
    launch(
        upfirdn_kernel, planes * blocks, x,
        x, f, y, x.shape[2], x.shape[3], out_h, out_w, channels, *x.stride(), *y.stride(), *ahead,
        *shift, max(blocks, 1), gain, UP_X=up[0], UP_Y=up[1], DOWN_X=down[0], DOWN_Y=down[1],
        KX=f.shape[1], KY=f.shape[0], FLIP=flip, LAST=last, BLOCK=BLOCK,
        DOUBLE=f.dtype == torch.float64,
    )  # fmt: skip
    return y


def upfirdn2d(
    x: Tensor, f: Tensor, up_x: int, up_y: int, down_x: int, down_y: int, pad_x: int, pad_y: int,
    out_x: int, out_y: int, flip: bool, gain: float,
) -> Tensor:  # fmt: skip
    """y."""
    y = empty_result(x, out_x, out_y)
    up, down, pad = (up_x, up_y), (down_x, down_y), (pad_x, pad_y)
    if f.dim() == 2:
        return _run(x, f.contiguous(), y, up, down, pad, flip, gain)
    if cdiv(f.numel(), up_x) * cdiv(f.numel(), up_y) <= MOST_TAPS:
        return _run(x, f.outer(f), y, up, down, pad, flip, gain)
    # Whichever leaves less in between goes first.
    if out_y * x.shape[3] <= out_x * x.shape[2]:
        between = empty_result(x, x.shape[3], out_y, f.dtype)
        _run(x, f[:, None].contiguous(), between, (1, up_y), (1, down_y), (0, pad_y), flip, gain)
        return _run(between, f[None, :], y, (up_x, 1), (down_x, 1), (pad_x, 0), flip, 1.0)
    between = empty_result(x, out_x, x.shape[2], f.dtype)
    _run(x, f[None, :], between, (up_x, 1), (down_x, 1), (pad_x, 0), flip, gain)
    return _run(between, f[:, None].contiguous(), y, (1, up_y), (1, down_y), (0, pad_y), flip, 1.0)
