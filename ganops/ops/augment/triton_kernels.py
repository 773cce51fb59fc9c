"""augment in Triton: one lane per pixel; formulas of csrc/augment/augment_math.h.

Launched with enable_fp_fusion=False: parameters and noise are the same bits everywhere. Everything
is computed in float32 (float64 for float64) right after the load.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import cdiv, launch
from ..philox.triton_kernels import _normals, _words
from .autograd import _images
from .reference import COLUMNS, CONTRAST, NOISE, is_channels_last
from .triton_pixels import (
    WIDTH,
    colour,
    column,
    gathered,
    happens,
    is_cut,
    load,
    sample_words,
    shift,
    signed,
    source,
    tap_weight,
    uniform,
)  # fmt: skip

BLOCK = 128
SUM_BLOCK = 1024


@triton.jit(do_not_specialize=[
    "seed_low", "seed_high", "offset", "flip", "gate", "shift_y", "shift_x", "cut_y", "cut_x",
])  # fmt: skip
def params_kernel(
    out,  # (n, WIDTH) float32
    n, seed_low, seed_high, offset, height, width, flip, gate, shift_y, shift_x, cut_y, cut_x,
    sub_y: tl.float32, sub_x: tl.float32, brightness: tl.float32, saturation: tl.float32,
    contrast: tl.float32, noise: tl.float32,
    BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    sample = i + offset
    w0, w1, w2, w3 = sample_words(sample, i * 0, seed_low, seed_high)
    w4, w5, w6, _ = sample_words(sample, i * 0 + 1, seed_low, seed_high)
    w8, w9, w10, w11 = sample_words(sample, i * 0 + 2, seed_low, seed_high)
    w12, w13, w14, _ = sample_words(sample, i * 0 + 3, seed_low, seed_high)
    row, mask = out + i * WIDTH, i < n
    tl.store(row, tl.where(happens(w0, flip), 1.0, 0.0), mask=mask)
    moves = happens(w1, gate)
    y = (uniform(w2, 2 * shift_y + 1) - shift_y).to(tl.float32) + signed(w2) * sub_y
    x = (uniform(w3, 2 * shift_x + 1) - shift_x).to(tl.float32) + signed(w3) * sub_x
    tl.store(row + 1, tl.where(moves, y, 0.0), mask=mask)
    tl.store(row + 2, tl.where(moves, x, 0.0), mask=mask)
    tl.store(row + 3, tl.where(happens(w8, gate), signed(w9) * brightness, 0.0), mask=mask)
    tl.store(row + 4, tl.where(happens(w10, gate), signed(w11) * saturation + 1.0, 1.0), mask)
    tl.store(row + 5, tl.where(happens(w12, gate), signed(w13) * contrast + 1.0, 1.0), mask=mask)
    cuts = happens(w4, gate) & (cut_y > 0) & (cut_x > 0)
    top = (uniform(w5, height + 1 - cut_y % 2) - cut_y // 2).to(tl.float32)
    left = (uniform(w6, width + 1 - cut_x % 2) - cut_x // 2).to(tl.float32)
    tl.store(row + 6, tl.where(cuts, top, 0.0), mask=mask)
    tl.store(row + 7, tl.where(cuts, left, 0.0), mask=mask)
    tl.store(row + 8, tl.where(cuts, cut_y, 0).to(tl.float32), mask=mask)
    tl.store(row + 9, tl.where(cuts, cut_x, 0).to(tl.float32), mask=mask)
    tl.store(row + 10, tl.where(happens(w14, gate), noise, 0.0), mask=mask)


@triton.jit
def sum_kernel(
    x, params, sums,  # images, (B, WIDTH), (B,)
    height, width, pixel_stride, channel_stride,
    CHANNELS: tl.constexpr, FLAGS: tl.constexpr, ADJOINT: tl.constexpr, DOUBLE: tl.constexpr,
    BYTES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0)
    pixels = height * width
    x += b.to(tl.int64) * pixels * CHANNELS
    iy, fy = shift(params, b, 1, DOUBLE)
    ix, fx = shift(params, b, 2, DOUBLE)
    total = tl.zeros((BLOCK,), tl.float64 if DOUBLE else tl.float32)
    start = 0
    while start < pixels:  # the interpreter of Triton 3.6 has no range() over an argument
        i = start + tl.arange(0, BLOCK)
        mask = i < pixels
        h, w = i // width, i % width
        weight = tl.where(mask, total * 0 + 1, 0)
        if ADJOINT:
            wy, wx = total * 0, total * 0
            for tap in tl.static_range(2):
                wy += tl.where(
                    source(h, iy + tap, height, FLAGS & 1) >= 0, tap_weight(fy, tap), 0.0
                )
                wx += tl.where(source(w, ix + tap, width, FLAGS & 1) >= 0, tap_weight(fx, tap), 0.0)
            weight = tl.where(mask & (is_cut(params, b, h, w) == 0), wy * wx, 0.0)
        for c in tl.static_range(CHANNELS):
            at = i.to(tl.int64) * pixel_stride + c * channel_stride
            v = load(x, at, mask & (weight != 0), DOUBLE, BYTES)
            total += tl.where(weight != 0, weight * v, 0.0)
        start += BLOCK
    tl.store(sums + b, tl.sum(total, 0).to(tl.float64))


@triton.jit(do_not_specialize=["seed_low", "seed_high", "offset"])
def forward_kernel(
    x, params, sums, original, changed,
    height, width, pixel_stride, channel_stride, seed_low, seed_high, offset,
    CHANNELS: tl.constexpr, FLAGS: tl.constexpr, PAIR: tl.constexpr, LINEAR: tl.constexpr,
    DOUBLE: tl.constexpr, BYTES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    pixels = height * width
    blocks = tl.cdiv(pixels, BLOCK)
    b = tl.program_id(0) // blocks
    i = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = i < pixels
    base = b.to(tl.int64) * pixels * CHANNELS
    x, original, changed = x + base, original + base, changed + base
    h, w = i // width, i % width
    pixel = i.to(tl.int64) * pixel_stride
    scale, mix, add = colour(params, b, sums, pixels * CHANNELS, FLAGS, LINEAR, DOUBLE)
    flips = column(params, b, 0, False) > 0
    iy, fy = shift(params, b, 1, DOUBLE)
    ix, fx = shift(params, b, 2, DOUBLE)
    cut = is_cut(params, b, h, w)
    TAPS: tl.constexpr = 2 if FLAGS & 2 else 1
    for c in tl.static_range(CHANNELS):
        if PAIR:
            at = pixel + c * channel_stride
            v = load(x, at, mask, DOUBLE, BYTES)
            tl.store(original + at, v.to(original.dtype.element_ty), mask=mask)
    for c in tl.static_range(CHANNELS):
        y = tl.zeros((BLOCK,), tl.float64 if DOUBLE else tl.float32)
        for tap_y in tl.static_range(TAPS):
            for tap_x in tl.static_range(TAPS):
                r = source(h, iy + tap_y, height, FLAGS & 1)
                q = source(w, ix + tap_x, width, FLAGS & 1)
                weight = y * 0 + tap_weight(fy, tap_y) * tap_weight(fx, tap_x)
                inside = mask & (r >= 0) & (q >= 0) & (weight != 0)
                q = tl.where(flips, width - 1 - q, q)
                at = (r * width + q).to(tl.int64) * pixel_stride
                v = scale * load(x, at + c * channel_stride, inside, DOUBLE, BYTES) + add
                if FLAGS & 4:
                    mean = v * 0
                    for k in tl.static_range(CHANNELS):
                        mean += load(x, at + k * channel_stride, inside, DOUBLE, BYTES)
                    v += mix * (mean * tl.full(mean.shape, 1.0 / CHANNELS, mean.dtype))
                y += tl.where(inside, weight * v, 0.0)
        if FLAGS & 16:
            e = i.to(tl.int64) + pixels * c
            w0, w1, w2, w3 = sample_words(offset + b + e * 0, e // 4 + 4, seed_low, seed_high)
            n0, n1 = _normals(w0, w1)
            n2, n3 = _normals(w2, w3)
            k = e % 4
            n = tl.where(k == 0, n0, tl.where(k == 1, n1, tl.where(k == 2, n2, n3)))
            sigma = column(params, b, 10, DOUBLE)
            y += tl.where(sigma != 0, sigma * n, 0.0)
        y = tl.where(cut, 0.0, y).to(changed.dtype.element_ty)
        tl.store(changed + pixel + c * channel_stride, y, mask=mask)


@triton.jit
def adjoint_kernel(
    plain, dy, params, sums, dx,
    height, width, pixel_stride, channel_stride,
    CHANNELS: tl.constexpr, FLAGS: tl.constexpr, PAIR: tl.constexpr, DOUBLE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    pixels = height * width
    blocks = tl.cdiv(pixels, BLOCK)
    b = tl.program_id(0) // blocks
    i = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = i < pixels
    base = b.to(tl.int64) * pixels * CHANNELS
    plain, dy, dx = plain + base, dy + base, dx + base
    r, q = i // width, i % width
    pixel = i.to(tl.int64) * pixel_stride
    scale, mix, add = colour(params, b, sums, pixels * CHANNELS, FLAGS, True, DOUBLE)
    q = tl.where(column(params, b, 0, False) > 0, width - 1 - q, q)
    iy, fy = shift(params, b, 1, DOUBLE)
    ix, fx = shift(params, b, 2, DOUBLE)
    zero = tl.zeros((BLOCK,), tl.float64 if DOUBLE else tl.float32)
    rest = zero + add
    if FLAGS & 4:
        mean = zero
        for c in range(CHANNELS):
            mean += gathered(dy + c * channel_stride, params, b, r, q, mask, height, width,
                              iy, fy, ix, fx, pixel_stride, zero, FLAGS, DOUBLE)  # fmt: skip
        rest += mix * (mean * tl.full(mean.shape, 1.0 / CHANNELS, mean.dtype))
    for c in range(CHANNELS):
        v = gathered(dy + c * channel_stride, params, b, r, q, mask, height, width,
                      iy, fy, ix, fx, pixel_stride, zero, FLAGS, DOUBLE)  # fmt: skip
        v = scale * v + rest
        at = pixel + c * channel_stride
        if PAIR:
            v += load(plain, at, mask, DOUBLE, False)
        tl.store(dx + at, v.to(dx.dtype.element_ty), mask=mask)


def augment_params(
    like: Tensor, n: int, seed: int, offset: int, height: int, width: int, flip: int, gate: int,
    shift_y: int, shift_x: int, cut_y: int, cut_x: int, *strengths: float,
) -> Tensor:  # fmt: skip
    """The parameters of samples offset ... offset + n - 1."""
    out = like.new_empty((n, len(COLUMNS)), dtype=torch.float32)
    launch(params_kernel, cdiv(n, BLOCK), out, out, n, *_words(seed), offset, height, width, flip,
           gate, shift_y, shift_x, cut_y, cut_x, *strengths, BLOCK=BLOCK,
           enable_fp_fusion=False)  # fmt: skip
    return out


def _geometry(x: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
    """x in one of the two memory orders, and height, width, strides of a pixel and a channel."""
    if x.shape[1:].numel() >= 2**31:  # pixels and elements are counted in 32 bits
        raise ValueError(
            f"augment: expected images of fewer than 2^31 numbers for Triton, got "
            f"{tuple(x.shape[1:])}"
        )
    x = x if is_channels_last(x) else x.contiguous()
    _, channels, height, width = x.shape
    last = is_channels_last(x)
    return x, (height, width, *((channels, 1) if last else (1, height * width)))


def _sums(x: Tensor, params: Tensor, geometry: tuple[int, ...], flags: int, adjoint: bool,
          meta: dict[str, object]) -> Tensor:  # fmt: skip
    """Sums over each image; an empty tensor where contrast asks for none."""
    sums = x.new_empty(x.shape[0] if flags & CONTRAST else 0, dtype=torch.float64)
    launch(sum_kernel, sums.numel(), x, x, params, sums, *geometry, CHANNELS=x.shape[1],
           FLAGS=flags, ADJOINT=adjoint, BLOCK=SUM_BLOCK, enable_fp_fusion=False,
           **meta)  # fmt: skip
    return sums


def augment(
    x: Tensor, params: Tensor, seed: int, offset: int, flags: int, dtype: int, pair: bool,
    linear: bool,
) -> Tensor:  # fmt: skip
    """T(x), or [x ; T(x)]."""
    x, geometry = _geometry(x)
    batch = x.shape[0]
    y = _images(x, batch * (2 if pair else 1), dtype)
    if x.numel() == 0:
        return y
    meta = {"DOUBLE": x.dtype == torch.float64, "BYTES": x.dtype == torch.uint8}
    sums = _sums(x, params, geometry, flags, False, meta)
    programs = batch * cdiv(geometry[0] * geometry[1], BLOCK)
    flags = flags & ~NOISE if linear else flags
    launch(forward_kernel, programs, x, x, params, sums, y, y[-batch:], *geometry, *_words(seed),
           offset, CHANNELS=x.shape[1], FLAGS=flags, PAIR=pair, LINEAR=linear, BLOCK=BLOCK,
           enable_fp_fusion=False, **meta)  # fmt: skip
    return y


def augment_grad(dy: Tensor, params: Tensor, flags: int, dtype: int, pair: bool) -> Tensor:
    """dx from dy."""
    dy, geometry = _geometry(dy)
    batch = params.shape[0]
    dx = _images(dy, batch, dtype)
    if dx.numel() == 0:
        return dx
    changed = dy[-batch:]
    meta = {"DOUBLE": dy.dtype == torch.float64}
    sums = _sums(changed, params, geometry, flags, True, {**meta, "BYTES": False})
    programs = batch * cdiv(geometry[0] * geometry[1], BLOCK)
    launch(adjoint_kernel, programs, dy, dy, changed, params, sums, dx, *geometry,
           CHANNELS=dy.shape[1], FLAGS=flags, PAIR=pair, BLOCK=BLOCK, enable_fp_fusion=False,
           **meta)  # fmt: skip
    return dx
