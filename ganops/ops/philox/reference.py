"""Philox 4x32-10 in plain PyTorch: the definition of ganops' random numbers.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

The generator is a bijection of a 128-bit counter under a 64-bit key. ganops uses

    key     = (seed & 2^32-1, seed >> 32)
    counter = (block & 2^32-1, block >> 32, stream & 2^32-1, stream >> 32)

and element ``e`` of a stream is word ``e % 4`` of block ``e // 4``. So an element depends on
(seed, stream, e) alone: not on the shape it is drawn in, the batch split, threads, device or rank.

Floats are made by operations that IEEE 754 rounds exactly (integer shifts, +, *, sqrt; never a
fused multiply-add, never a library log or cos), so every backend yields the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

M0, M1 = 0xD2511F53, 0xCD9E8D57  # round multipliers
W0, W1 = 0x9E3779B9, 0xBB67AE85  # Weyl key increments: golden ratio, sqrt(3) - 1
ROUNDS = 10
MASK = 0xFFFFFFFF

# log(1 + t) = t - t^2/2 + t^3 * P(t) on sqrt(1/2)-1 <= t < sqrt(2)-1 (the classic Cephes logf fit).
LOG_POLY = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
LN2_HI, LN2_LO = 0.693359375, -2.12194440e-4
# sin(x) = x + x^3 * S(x^2), cos(x) = 1 - x^2/2 + x^4 * C(x^2) on |x| <= pi/4 (Cephes sinf, cosf).
SIN_POLY = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COS_POLY = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
TWO_PI = 6.283185307179586
SQRT_HALF = 0.70710678118654752


def philox4x32(counter: Tensor, key: Tensor, rounds: int = ROUNDS) -> Tensor:
    """The bijection. counter: (..., 4), key: (..., 2), int64 holding 32-bit words. -> (..., 4)."""
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key.unbind(-1)
    for _ in range(rounds):
        # int64 products wrap modulo 2^64, which keeps both 32-bit halves right.
        p0, p1 = c0 * M0, c2 * M1
        hi0, lo0 = (p0 >> 32) & MASK, p0 & MASK
        hi1, lo1 = (p1 >> 32) & MASK, p1 & MASK
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return torch.stack((c0, c1, c2, c3), -1)


def _blocks(first: int, count: int, seed: int, stream: int, device: torch.device) -> Tensor:
    """Words of `count` blocks starting at block `first`: (count, 4) int64."""
    block = torch.arange(first, first + count, dtype=torch.int64, device=device)
    counter = torch.empty(count, 4, dtype=torch.int64, device=device)
    counter[:, 0] = block & MASK
    counter[:, 1] = (block >> 32) & MASK
    counter[:, 2] = stream & MASK
    counter[:, 3] = (stream >> 32) & MASK
    key = torch.tensor([seed & MASK, (seed >> 32) & MASK], dtype=torch.int64, device=device)
    return philox4x32(counter, key)


def random_bits(n: int, seed: int, offset: int, stream: int, device: torch.device) -> Tensor:
    """Elements offset ... offset+n-1 of a stream as int64 in [0, 2^32). -> (n,)"""
    first = offset // 4
    last = (offset + n + 3) // 4
    words = _blocks(first, last - first, seed, stream, device).flatten()
    start = offset - 4 * first
    return words[start : start + n]


def uniform_from_bits(bits: Tensor) -> Tensor:
    """Top 24 bits -> float32 in [0, 1), every value a multiple of 2^-24."""
    return (bits >> 8).to(torch.float32) * 2.0**-24


def _horner(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    acc = torch.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        acc = acc * x
        acc = acc + c
    return acc


def log_exact(u: Tensor) -> Tensor:
    """Natural logarithm of normal positive float32 by exactly rounded steps (about 1 ulp)."""
    bits = u.view(torch.int32)
    exponent = ((bits >> 23) - 126).to(torch.float32)
    m = ((bits & 0x007FFFFF) | 0x3F000000).view(torch.float32)  # in [1/2, 1)
    small = m < SQRT_HALF
    exponent = torch.where(small, exponent - 1.0, exponent)
    t = torch.where(small, m + m, m) - 1.0
    z = t * t
    y = _horner(LOG_POLY, t) * t
    y = y * z
    y = y + exponent * LN2_LO
    y = y - z * 0.5
    return (t + y) + exponent * LN2_HI


def sqrt_exact(x: Tensor) -> Tensor:
    """Correctly rounded float32 square root; torch's own can be 1 ulp off on a CPU."""
    return x.double().sqrt().float()


def cos_sin_turns(bits: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin) of 2 pi v, v = (top 24 bits) / 2^24, reduced exactly to |v| <= 1/8."""
    v = bits >> 8
    nearest = (v + (1 << 21)) >> 22  # nearest quarter turn, 0 ... 4
    quarter = nearest & 3
    rest = (v - (nearest << 22)).to(torch.float32) * 2.0**-24  # turns, in [-1/8, 1/8)
    x = rest * TWO_PI
    z = x * x
    s = _horner(SIN_POLY, z) * z
    s = s * x
    s = s + x
    c = _horner(COS_POLY, z) * z
    c = c * z
    c = (c - z * 0.5) + 1.0
    swap = (quarter & 1) == 1
    cos, sin = torch.where(swap, s, c), torch.where(swap, c, s)
    cos = torch.where((quarter == 1) | (quarter == 2), -cos, cos)
    sin = torch.where(quarter >= 2, -sin, sin)
    return cos, sin


def normals_from_bits(bits: Tensor) -> Tensor:
    """Box-Muller on the words of whole blocks. bits: (blocks, 4) -> float32 (blocks, 4).

    Words (0, 1) give elements (0, 1) and words (2, 3) elements (2, 3):
    r = sqrt(-2 log((b0 >> 8) + 1) / 2^24), (r cos 2 pi v, r sin 2 pi v).
    """
    first, second = bits[:, 0::2], bits[:, 1::2]
    u = ((first >> 8) + 1).to(torch.float32) * 2.0**-24  # (0, 1]
    r = sqrt_exact(log_exact(u) * -2.0)
    cos, sin = cos_sin_turns(second)
    return torch.stack((r * cos, r * sin), -1).flatten(1)


def random_uniform(n: int, seed: int, offset: int, stream: int, device: torch.device) -> Tensor:
    """(n,) float32 in [0, 1)."""
    return uniform_from_bits(random_bits(n, seed, offset, stream, device))


def random_normal(n: int, seed: int, offset: int, stream: int, device: torch.device) -> Tensor:
    """(n,) float32, standard normal, |x| <= sqrt(48 log 2) = 5.77."""
    first = offset // 4
    last = (offset + n + 3) // 4
    words = _blocks(first, last - first, seed, stream, device)
    start = offset - 4 * first
    return normals_from_bits(words).flatten()[start : start + n]
