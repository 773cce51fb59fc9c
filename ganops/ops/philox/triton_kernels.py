"""Philox 4x32-10 in Triton; every line has its twin in reference.py.

Launched with enable_fp_fusion=False: a fused multiply-add would change the last bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import cdiv, launch

BLOCK = 256  # counter blocks, of four words, per program


@triton.jit
def _philox(c0, c1, c2, c3, k0, k1):
    for _ in tl.static_range(10):
        hi0, lo0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        hi1, lo1 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def _log(u):
    bits = u.to(tl.int32, bitcast=True)
    exponent = ((bits >> 23) - 126).to(tl.float32)
    m = ((bits & 0x007FFFFF) | 0x3F000000).to(tl.float32, bitcast=True)
    small = m < 0.70710678118654752
    exponent = tl.where(small, exponent - 1.0, exponent)
    t = tl.where(small, m + m, m) - 1.0
    z = t * t
    y = t * 0.0 + 7.0376836292e-2
    y = y * t + -1.1514610310e-1
    y = y * t + 1.1676998740e-1
    y = y * t + -1.2420140846e-1
    y = y * t + 1.4249322787e-1
    y = y * t + -1.6668057665e-1
    y = y * t + 2.0000714765e-1
    y = y * t + -2.4999993993e-1
    y = y * t + 3.3333331174e-1
    y = y * t * z
    y = y + exponent * -2.12194440e-4
    y = y - z * 0.5
    return (t + y) + exponent * 0.693359375


@triton.jit
def _cos_sin(bits):
    v = (bits >> 8).to(tl.int32)
    nearest = (v + (1 << 21)) >> 22
    quarter = nearest & 3
    x = (v - (nearest << 22)).to(tl.float32) * 5.9604644775390625e-08 * 6.283185307179586
    z = x * x
    s = x * 0.0 + -1.9515295891e-4
    s = s * z + 8.3321608736e-3
    s = s * z + -1.6666654611e-1
    s = s * z * x + x
    c = x * 0.0 + 2.443315711809948e-5
    c = c * z + -1.388731625493765e-3
    c = c * z + 4.166664568298827e-2
    c = (c * z * z - z * 0.5) + 1.0
    swap = (quarter & 1) == 1
    cos, sin = tl.where(swap, s, c), tl.where(swap, c, s)
    cos = tl.where((quarter == 1) | (quarter == 2), -cos, cos)
    sin = tl.where(quarter >= 2, -sin, sin)
    return cos, sin


@triton.jit
def _normals(a, b):
    u = ((a >> 8) + 1).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08
    r = tl.sqrt_rn(_log(u) * -2.0)
    cos, sin = _cos_sin(b)
    return r * cos, r * sin


@triton.jit
def _store(out, first, word: tl.constexpr, offset, n, value):
    at = first * 4 + word - offset
    tl.store(out + at, value.to(out.dtype.element_ty), mask=(at >= 0) & (at < n))


@triton.jit(do_not_specialize=["seed_low", "seed_high", "offset", "stream_low", "stream_high"])
def philox_kernel(
    out,  # (n,) int64 words, or float32
    n, seed_low, seed_high, offset, stream_low, stream_high,
    KIND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    block = offset // 4 + tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    zero = (block * 0).to(tl.uint32)
    w0, w1, w2, w3 = _philox(
        block.to(tl.uint32), (block >> 32).to(tl.uint32),
        zero + stream_low.to(tl.uint32), zero + stream_high.to(tl.uint32),
        zero + seed_low.to(tl.uint32), zero + seed_high.to(tl.uint32),
    )  # fmt: skip
    if KIND == 1:
        w0 = (w0 >> 8).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08  # 2^-24
        w1 = (w1 >> 8).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08
        w2 = (w2 >> 8).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08
        w3 = (w3 >> 8).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08
    elif KIND == 2:
        w0, w1 = _normals(w0, w1)
        w2, w3 = _normals(w2, w3)
    _store(out, block, 0, offset, n, w0)
    _store(out, block, 1, offset, n, w1)
    _store(out, block, 2, offset, n, w2)
    _store(out, block, 3, offset, n, w3)


def _words(value: int) -> tuple[int, int]:
    """The low and high 32 bits as signed integers: one type for every value (i32)."""
    low, high = ((v & 0xFFFFFFFF ^ 0x80000000) - 0x80000000 for v in (value, value >> 32))
    return low, high


def philox(like: Tensor, n: int, seed: int, offset: int, stream: int, kind: int) -> Tensor:
    """Elements offset ... offset + n - 1 of the stream, on the device of `like`."""
    out = like.new_empty(n, dtype=torch.int64 if kind == 0 else torch.float32)
    blocks = cdiv(offset + n, 4) - offset // 4 if n else 0
    launch(philox_kernel, cdiv(blocks, BLOCK), out, out, n, *_words(seed), offset, *_words(stream),
           KIND=kind, BLOCK=BLOCK, enable_fp_fusion=False)  # fmt: skip
    return out
