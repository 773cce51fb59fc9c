"""What augment's Triton kernels do for one pixel: random words, geometry, colours.

Formulas of csrc/augment/augment_math.h.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..philox.triton_kernels import _philox
from .reference import COLUMNS

WIDTH = tl.constexpr(len(COLUMNS))


@triton.jit
def sample_words(sample, block, seed_low, seed_high):
    zero = (sample * 0 + block * 0).to(tl.uint32)
    high = (sample >> 32).to(tl.uint32) | 0x80000000
    return _philox(
        zero + block.to(tl.uint32), zero + (block.to(tl.int64) >> 32).to(tl.uint32),
        zero + sample.to(tl.uint32), zero + high,
        zero + seed_low.to(tl.uint32), zero + seed_high.to(tl.uint32),
    )  # fmt: skip


@triton.jit
def uniform(word, values):
    return tl.umulhi(word, (word * 0) + values.to(tl.uint32)).to(tl.int32)


@triton.jit
def signed(word):
    return ((word >> 8).to(tl.int32) - 8388608).to(tl.float32) * 1.1920928955078125e-07  # 2^-23


@triton.jit
def happens(word, gate):
    return (word >> 8).to(tl.int32) < gate


@triton.jit
def load(pointer, at, mask, DOUBLE: tl.constexpr, BYTES: tl.constexpr):
    v = tl.load(pointer + at, mask=mask, other=0)
    if DOUBLE:
        v = v.to(tl.float64)
    else:
        v = v.to(tl.float32)
        if BYTES:  # v / 127.5 - 1, as unit_from_byte does it
            v = v * 0.0078432559967041015625 + v * -1.1874180216864261e-07 - 1.0
    return v


@triton.jit
def source(w, i, side, REFLECT: tl.constexpr):
    """Where output position w reads; -1: beyond the border."""
    at = w + i
    if REFLECT:
        at = tl.abs(at)
        return tl.where(at > side - 1, 2 * (side - 1) - at, at)
    return tl.where((at >= 0) & (at < side), at, -1)


@triton.jit
def reader(r, i, side, k):
    """Candidate k = 0, 1, 2 of the output positions that read position r; -1: none."""
    last = side - 1
    w = tl.where(k == 0, r, tl.where(k == 1, -r, 2 * last - r)) - i
    once = (k == 0) | ((k == 1) & (r != 0)) | ((k == 2) & (r != last))
    return tl.where(once & (w >= 0) & (w < side), w, -1)


@triton.jit
def column(params, sample, COLUMN: tl.constexpr, DOUBLE: tl.constexpr):
    v = tl.load(params + sample * WIDTH + COLUMN)
    return v.to(tl.float64) if DOUBLE else v


@triton.jit
def colour(params, b, sums, elements, FLAGS: tl.constexpr, LINEAR: tl.constexpr,
            DOUBLE: tl.constexpr):  # fmt: skip
    """scale, mix, add"""
    k = column(params, b, 5, DOUBLE)
    s = column(params, b, 4, DOUBLE)
    if not FLAGS & 8:
        k = k * 0 + 1
    if not FLAGS & 4:
        s = s * 0 + 1
    add = column(params, b, 3, DOUBLE)
    if LINEAR:
        add = add * 0
    if FLAGS & 8:
        add += (1 - k) * tl.load(sums + b).to(add.dtype) / elements
    return k * s, k * (1 - s), add


@triton.jit
def is_cut(params, b, h, w):
    """Is this output pixel cut out?"""
    y, x = h - column(params, b, 6, False), w - column(params, b, 7, False)
    inside = (y >= 0) & (y < column(params, b, 8, False))
    return inside & (x >= 0) & (x < column(params, b, 9, False))


@triton.jit
def shift(params, b, COLUMN: tl.constexpr, DOUBLE: tl.constexpr):
    """Whole pixels and the rest of a shift."""
    t = column(params, b, COLUMN, DOUBLE)
    whole = tl.floor(t)
    return whole.to(tl.int32), t - whole


@triton.jit
def tap_weight(fraction, TAP: tl.constexpr):
    return fraction if TAP else 1 - fraction


@triton.jit
def gathered(dy, params, b, r, q, mask, height, width, iy, fy, ix, fx, pixel_stride, zero,
              FLAGS: tl.constexpr, DOUBLE: tl.constexpr):  # fmt: skip
    """What dy sends to input pixel (r, q): every output pixel that reads it."""
    TAPS: tl.constexpr = 2 if FLAGS & 2 else 1
    READERS: tl.constexpr = 3 if FLAGS & 1 else 1
    total = zero
    # The outer loops at run time: unrolled, 36 readers take all registers there are.
    for y in range(TAPS * READERS):
        second = y >= READERS
        h = reader(r, tl.where(second, iy + 1, iy), height, tl.where(second, y - READERS, y))
        wy = tl.where(second, fy, 1 - fy)
        for x in range(TAPS * READERS):
            beyond = x >= READERS
            w = reader(q, tl.where(beyond, ix + 1, ix), width, tl.where(beyond, x - READERS, x))
            weight = zero + wy * tl.where(beyond, fx, 1 - fx)
            reads = mask & (h >= 0) & (w >= 0) & (weight != 0) & (is_cut(params, b, h, w) == 0)
            v = load(dy, (h * width + w).to(tl.int64) * pixel_stride, reads, DOUBLE, False)
            total += tl.where(reads, weight * v, 0.0)
    return total
