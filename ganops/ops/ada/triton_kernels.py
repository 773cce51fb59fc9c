"""ADA's geometry and colour in Triton: csrc/ada/ada_math.h, two launches each way.

Forward: the lattice of points, each by 7 x 7 taps straight from the image, then the filter down and
colour. Adjoint: the gradient on the lattice, then each pixel gathers from the points that can read
it, in a fixed order, without atomics. Half types are computed in float32 right after the load.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._autograd import empty_dense_like
from .._triton import cdiv, launch
from .reference import HALO
from .triton_forward import _first, _map, _sym6, _tap, points_kernel, result_kernel

BLOCK = 256  # points or results a program
PIXELS, CANDIDATES = 16, 32  # pixels a program gathers for, points it looks at in one step
REGISTERS = 192  # of a gathering thread: told a limit, the assembler spills none to stay below less


@triton.jit
def _colored(dy, color, n, c, sn, sc, sy, sx, ox, oy, inside, HAS_COLOR: tl.constexpr,
             CHANNELS: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """C' dy at (ox, oy), 0 where not inside."""
    at = dy + n * sn + oy * sy + ox * sx
    total = tl.zeros((BLOCK,), DTYPE)
    if HAS_COLOR:
        for i in range(CHANNELS):
            weight = tl.load(color + (n * CHANNELS + i) * (CHANNELS + 1) + c)
            total += weight * tl.load(at + i * sc, mask=inside, other=0.0).to(DTYPE)
    else:
        total += tl.load(at + c * sc, mask=inside, other=0.0).to(DTYPE)
    return total


@triton.jit
def lattice_kernel(
    dy, maps, color, points, channels, height, width, sn, sc, sy, sx, blocks,
    HAS_COLOR: tl.constexpr, CHANNELS: tl.constexpr, DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient on the lattice; of blitted samples that of T(x), in the same memory."""
    DTYPE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    n, c = plane // channels, plane % channels
    w, h = 2 * width + 10, 2 * height + 10
    i = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x, y = i % w, i // w
    total = tl.zeros((BLOCK,), DTYPE)
    if tl.load(maps + n * 7 + 6) != 0:
        for j in range(6):
            ky, oy = (y & 1) + 2 * j, (y >> 1) - j
            line = tl.zeros((BLOCK,), DTYPE)
            for k in range(6):
                kx, ox = (x & 1) + 2 * k, (x >> 1) - k
                inside = (oy >= 0) & (oy < height) & (ox >= 0) & (ox < width)
                line += _sym6(kx, DTYPE) * _colored(
                    dy,
                    color,
                    n,
                    c,
                    sn,
                    sc,
                    sy,
                    sx,
                    ox,
                    oy,
                    inside,
                    HAS_COLOR,
                    CHANNELS,
                    DTYPE,
                    BLOCK,
                )
            total += _sym6(ky, DTYPE) * line
    else:
        inside = (x < width) & (y < height)
        total = _colored(
            dy, color, n, c, sn, sc, sy, sx, x, y, inside, HAS_COLOR, CHANNELS, DTYPE, BLOCK
        )
    tl.store(points + plane * w * h + i, total, mask=y < h)  # w h can pass 2^31


@triton.jit
def _weight(s, r, fine, DTYPE: tl.constexpr):
    """With which the point at s reads index r of the continued image."""
    return tl.where(
        fine, _tap(s, r - _first(s).to(tl.int32), DTYPE), ((s >> 32).to(tl.int32) == r).to(DTYPE)
    )


@triton.jit
def _copy(j, k, mirror, n, low):
    """The k-th index from low on of the continued image that is pixel j, or its mirror image."""
    period = tl.maximum(2 * (n - 1), 1)
    j = tl.where(mirror, -j, j)
    gap = ((j - low) % period + period) % period
    return low + gap + k * period


@triton.jit
def gather_kernel(
    points, maps, dx, channels, height, width, tn, tc, ty, tx, blocks,
    DOUBLE: tl.constexpr, PIXELS: tl.constexpr, CANDIDATES: tl.constexpr,
):  # fmt: skip
    DTYPE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    n, c = plane // channels, plane % channels
    a, b, e, p, q, f = _map(maps, n)
    fine = tl.load(maps + n * 7 + 6) != 0
    step, before = tl.where(fine, 2, 1), tl.where(fine, 5, 0)
    e, f = e * step, f * step
    w, h = 2 * width + 10, 2 * height + 10
    x1, y1 = tl.where(fine, w - 6, width - 1), tl.where(fine, h - 6, height - 1)
    # Indices of the continued image that any point reads.
    left = (e + tl.minimum(-a * before, a * x1) + tl.minimum(-b * before, b * y1)) >> 32
    right = (e + tl.maximum(-a * before, a * x1) + tl.maximum(-b * before, b * y1)) >> 32
    top = (f + tl.minimum(-p * before, p * x1) + tl.minimum(-q * before, q * y1)) >> 32
    bottom = (f + tl.maximum(-p * before, p * x1) + tl.maximum(-q * before, q * y1)) >> 32
    left, right = tl.where(fine, (left >> 1) - 3, left), tl.where(fine, (right >> 1) + 4, right)
    top, bottom = tl.where(fine, (top >> 1) - 3, top), tl.where(fine, (bottom >> 1) + 4, bottom)
    # They fit 32 bits, in which the loops below have registers enough.
    left, right = left.to(tl.int32), right.to(tl.int32)
    top, bottom = top.to(tl.int32), bottom.to(tl.int32)
    copies_x = ((right - left) // tl.maximum(2 * (width - 1), 1) + 1).to(tl.int32)
    copies_y = ((bottom - top) // tl.maximum(2 * (height - 1), 1) + 1).to(tl.int32)
    # The inverse map says which points can read a place, with room for its rounding.
    unit = 2.3283064365386963e-10
    ra, rb = a.to(tl.float32) * unit, b.to(tl.float32) * unit
    rp, rq = p.to(tl.float32) * unit, q.to(tl.float32) * unit
    scale = 1.0 / (ra * rq - rb * rp)
    half, middle = tl.where(fine, 6.75, 0.25), tl.where(fine, 0.5, 0.0)
    reach_x = half * (tl.abs(rq * scale) + tl.abs(rb * scale))
    reach_y = half * (tl.abs(rp * scale) + tl.abs(ra * scale))
    wide, tall = (2 * reach_x).to(tl.int32) + 2, (2 * reach_y).to(tl.int32) + 2

    i = (tl.program_id(0) % blocks).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)[:, None]
    x, y = (i % width).to(tl.int32), (i // width).to(tl.int32)
    total = tl.zeros((PIXELS, CANDIDATES), DTYPE)
    for zy in range(2 * copies_y):
        ry = _copy(y, zy >> 1, (zy & 1) == 1, height, top)
        mine = (ry <= bottom) & (((zy & 1) == 0) | ((y > 0) & (y < height - 1))) & (y < height)
        for zx in range(2 * copies_x):
            rx = _copy(x, zx >> 1, (zx & 1) == 1, width, left)
            valid = mine & (rx <= right) & (((zx & 1) == 0) | ((x > 0) & (x < width - 1)))
            if tl.max(valid.to(tl.int32)) > 0:
                u = (step * rx).to(tl.float32) + middle - e.to(tl.float32) * unit
                v = (step * ry).to(tl.float32) + middle - f.to(tl.float32) * unit
                first_x = tl.ceil((rq * u - rb * v) * scale - reach_x).to(tl.int64)
                first_y = tl.ceil((ra * v - rp * u) * scale - reach_y).to(tl.int64)
                for row in range(tall):
                    my = first_y + row
                    for column in range(0, wide, CANDIDATES):
                        mx = first_x + column + tl.arange(0, CANDIDATES)[None, :]
                        read = valid & (mx >= -before) & (mx <= x1) & (my >= -before) & (my <= y1)
                        su, sv = a * mx + b * my + e, p * mx + q * my + f
                        weight = _weight(su, rx, fine, DTYPE) * _weight(sv, ry, fine, DTYPE)
                        at = points + plane * w * h + (my + before) * w + mx + before
                        value = tl.load(at, mask=read & (weight != 0.0), other=0.0)
                        total += tl.where(read, weight * value, 0.0)
    at = dx + n * tn + c * tc + y.to(tl.int64) * ty + x.to(tl.int64) * tx
    result = tl.sum(total, 1)[:, None]
    tl.store(at, result.to(dx.dtype.element_ty), mask=i < width * height)


def _points(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty(b, c, 2 * h + HALO, 2 * w + HALO, dtype=dtype)


def ada(x: Tensor, maps: Tensor, color: Tensor | None) -> Tensor:
    """y = C T(x)."""
    y, points, maps = empty_dense_like(x), _points(x), maps.contiguous()
    b, c, h, w = x.shape
    double = x.dtype == torch.float64
    blocks = cdiv(points.shape[2] * points.shape[3], BLOCK)
    launch(points_kernel, b * c * blocks, x, x, maps, points, c, h, w, *x.stride(), blocks,
           DOUBLE=double, BLOCK=BLOCK)  # fmt: skip
    blocks = cdiv(h * w, BLOCK)
    color = None if color is None else color.contiguous()
    launch(result_kernel, b * c * blocks, x, x, maps, points if color is None else color, points, y,
           c, h, w, *x.stride(), *y.stride(), blocks, HAS_COLOR=color is not None, CHANNELS=c,
           DOUBLE=double, BLOCK=BLOCK)  # fmt: skip
    return y


def ada_grad(dy: Tensor, maps: Tensor, color: Tensor | None) -> Tensor:
    """dx = T' C' dy."""
    dx, points, maps = empty_dense_like(dy), _points(dy), maps.contiguous()
    b, c, h, w = dy.shape
    double = dy.dtype == torch.float64
    blocks = cdiv(points.shape[2] * points.shape[3], BLOCK)
    color = None if color is None else color.contiguous()
    launch(lattice_kernel, b * c * blocks, dy, dy, maps, points if color is None else color, points,
           c, h, w, *dy.stride(), blocks, HAS_COLOR=color is not None, CHANNELS=c, DOUBLE=double,
           BLOCK=BLOCK)  # fmt: skip
    blocks = cdiv(h * w, PIXELS)
    launch(gather_kernel, b * c * blocks, dy, points, maps, dx, c, h, w, *dx.stride(), blocks,
           DOUBLE=double, PIXELS=PIXELS, CANDIDATES=CANDIDATES, maxnreg=REGISTERS)  # fmt: skip
    return dx
