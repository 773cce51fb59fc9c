"""ADA's forward pass in Triton: the lattice of points, then the filter down and colour."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _sym6(k, DTYPE: tl.constexpr):
    """The filter at an index known at run time, 0 beyond its ends."""
    f = tl.zeros(k.shape, DTYPE)
    f = tl.where(k == 0, tl.full(k.shape, 0.010892350163280001, DTYPE), f)
    f = tl.where(k == 1, tl.full(k.shape, 0.0024683061859200003, DTYPE), f)
    f = tl.where(k == 2, tl.full(k.shape, -0.08343160770584002, DTYPE), f)
    f = tl.where(k == 3, tl.full(k.shape, -0.03416156079324, DTYPE), f)
    f = tl.where(k == 4, tl.full(k.shape, 0.34722898647835004, DTYPE), f)
    f = tl.where(k == 5, tl.full(k.shape, 0.55694639196396, DTYPE), f)
    f = tl.where(k == 6, tl.full(k.shape, 0.23895218566605003, DTYPE), f)
    f = tl.where(k == 7, tl.full(k.shape, -0.05136248493090002, DTYPE), f)
    f = tl.where(k == 8, tl.full(k.shape, -0.014891875649220001, DTYPE), f)
    f = tl.where(k == 9, tl.full(k.shape, 0.031625281329940004, DTYPE), f)
    f = tl.where(k == 10, tl.full(k.shape, 0.0012499610463900003, DTYPE), f)
    f = tl.where(k == 11, tl.full(k.shape, -0.005515933754690001, DTYPE), f)
    return f


@triton.jit
def _reflect(i, n):
    period = tl.maximum(2 * (n - 1), 1)
    i = (i % period + period) % period  # whatever the sign of a remainder is
    return tl.where(i < n, i, period - i)


@triton.jit
def _fraction(s, DTYPE: tl.constexpr):
    if tl.float64 == DTYPE:
        f = (s & 0xFFFFFFFF).to(tl.float64) * 2.3283064365386963e-10
    else:
        f = ((s >> 8) & 0xFFFFFF).to(tl.float32) * 5.9604644775390625e-08
    return f


@triton.jit
def _first(s):
    i = s >> 32
    return (i >> 1) - 3 + (i & 1)


@triton.jit
def _tap(s, t, DTYPE: tl.constexpr):
    """Weight of pixel first + t of the continued image in the point at s."""
    k = (11 - ((s >> 32) & 1) - 2 * t).to(tl.int32)
    far = _fraction(s, DTYPE)
    return 2.0 * ((1.0 - far) * _sym6(k, DTYPE) + far * _sym6(k + 1, DTYPE))


@triton.jit
def _map(maps, n):
    at = maps + n * 7
    return (tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3), tl.load(at + 4),
            tl.load(at + 5))  # fmt: skip


@triton.jit
def points_kernel(
    x, maps, points, channels, height, width, sn, sc, sy, sx, blocks,
    DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    DTYPE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    n, c = plane // channels, plane % channels
    if tl.load(maps + n * 7 + 6) != 0:
        a, b, e, p, q, f = _map(maps, n)
        w, h = 2 * width + 10, 2 * height + 10
        i = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        mx, my = i % w - 5, i // w - 5
        inside = my < h - 5  # w h can pass 2^31
        u, v = a * mx + b * my + 2 * e, p * mx + q * my + 2 * f
        image = x + n * sn + c * sc
        total = tl.zeros((BLOCK,), DTYPE)
        for j in range(7):
            row = image + _reflect(_first(v) + j, height) * sy
            line = tl.zeros((BLOCK,), DTYPE)
            for k in range(7):
                value = tl.load(row + _reflect(_first(u) + k, width) * sx, mask=inside, other=0.0)
                line += _tap(u, k, DTYPE) * value.to(DTYPE)
            total += _tap(v, j, DTYPE) * line
        tl.store(points + plane * w * h + i, total, mask=inside)


@triton.jit
def _result(x, maps, points, n, c, channels, height, width, sn, sc, sy, sx, ox, oy, inside,
            DTYPE: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Channel c of T(x) at (ox, oy)."""
    total = tl.zeros((BLOCK,), DTYPE)
    if tl.load(maps + n * 7 + 6) != 0:
        w = 2 * width + 10
        at = points + (n * channels + c) * w * (2 * height + 10) + 2 * oy * w + 2 * ox
        for j in range(12):
            line = tl.zeros((BLOCK,), DTYPE)
            for k in range(12):
                value = tl.load(at + j * w + k, mask=inside, other=0.0)
                line += _sym6(tl.full((1,), k, tl.int32), DTYPE) * value
            total += _sym6(tl.full((1,), j, tl.int32), DTYPE) * line
    else:
        a, b, e, p, q, f = _map(maps, n)
        u = _reflect((a * ox + b * oy + e) >> 32, width)
        v = _reflect((p * ox + q * oy + f) >> 32, height)
        source = x + n * sn + c * sc + v * sy + u * sx
        total = tl.load(source, mask=inside, other=0.0).to(DTYPE)
    return total


@triton.jit
def result_kernel(
    x, maps, color, points, y, channels, height, width,
    sn, sc, sy, sx, tn, tc, ty, tx, blocks,
    HAS_COLOR: tl.constexpr, CHANNELS: tl.constexpr, DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program makes BLOCK results of one channel; with colour of all, each sample's own mix."""
    DTYPE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    n, c = plane // channels, plane % channels
    i = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < height * width
    ox, oy = i % width, i // width
    total = tl.zeros((BLOCK,), DTYPE)
    if HAS_COLOR:
        row = color + plane * (CHANNELS + 1)
        total += tl.load(row + CHANNELS)
        for j in range(CHANNELS):
            total += tl.load(row + j) * _result(
                x, maps, points, n, j, channels, height, width, sn, sc, sy, sx, ox, oy, inside,
                DTYPE, BLOCK,
            )  # fmt: skip
    else:
        total += _result(
            x, maps, points, n, c, channels, height, width, sn, sc, sy, sx, ox, oy, inside,
            DTYPE, BLOCK,
        )  # fmt: skip
    at = y + n * tn + c * tc + oy * ty + ox * tx
    tl.store(at, total.to(y.dtype.element_ty), mask=inside)
