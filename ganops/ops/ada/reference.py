"""ADA's geometry and colour in plain PyTorch: the definition of correct, of any order.

An image is continued without end by reflection (period 2 (n - 1)), so no margin is needed and a
sample's result does not depend on its batch. The source coordinate of output pixel o is A o + d, in
units of 2^-32 pixels; what resamples does so on a lattice of half the spacing:

    u = up(x): zeros between pixels, then 2 f per axis      f: sym6, 12 taps, sum 1
    w[m] = u bilinearly at A m + 2 d                        -5 <= m <= 2 n + 4
    y[o] = sum_k f[k] w[2 o + k - 5]                        per axis

f is orthogonal, so that A = 1, d = 0 gives back x.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

# Daubechies' symlet of order 6; its sum is sqrt 2.
_SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
SYM6 = tuple(tap / sum(_SYM6) for tap in _SYM6)
BEFORE = 5  # points of the finer lattice that the filter reaches before the first pixel
HALO = 10  # and in all
MASK = 0xFFFFFFFF


def period(n: int) -> int:
    """Of n pixels continued by reflection."""
    return max(1, 2 * (n - 1))


def reflect(i: Tensor, n: int) -> Tensor:
    """The pixel that stands at index i of the continued image."""
    i = i % period(n)
    return torch.where(i < n, i, period(n) - i)


def ada(x: Tensor, maps: Tensor, color: Tensor | None) -> Tensor:
    """y = C T(x): (B, C, H, W). maps: (B, 7) int64, color: (B, C, C + 1) or None."""
    v = x if x.dtype == torch.float64 else x.float()
    rows, columns = coordinates(maps, x.shape[2:], 1, 0)
    blitted = _gather(v, reflect(rows >> 32, x.shape[2]), reflect(columns >> 32, x.shape[3]))
    y = torch.where(maps[:, 6].bool().view(-1, 1, 1, 1), _resample(v, maps), blitted)
    if color is not None:
        channels = range(x.shape[1])
        c = color.to(v)[..., None, None]
        y = torch.stack(
            [sum((c[:, i, j] * y[:, j] for j in channels), c[:, i, -1]) for i in channels], 1
        )
    return y.to(x.dtype)


def coordinates(
    maps: Tensor, size: tuple[int, ...], spacing: int, before: int
) -> tuple[Tensor, Tensor]:
    """Source rows and columns (B, h, w), int64 in 2^-32, of a lattice `spacing` times as fine."""
    h, w = (spacing * n + 2 * before for n in size)
    my = torch.arange(h, device=maps.device)[:, None] - before
    mx = torch.arange(w, device=maps.device) - before
    a, b, e, c, d, f = (column.view(-1, 1, 1) for column in maps[:, :6].unbind(1))
    return c * mx + d * my + spacing * f, a * mx + b * my + spacing * e


def _gather(v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """v[b, c, rows[b, i, j], columns[b, i, j]]."""
    index = (rows * v.shape[3] + columns).flatten(1)[:, None].expand(-1, v.shape[1], -1)
    return v.flatten(2).gather(2, index).view(*v.shape[:2], *rows.shape[1:])


def _resample(v: Tensor, maps: Tensor) -> Tensor:
    u = _upsample(_upsample(v, 2), 3)
    rows, columns = coordinates(maps, v.shape[2:], 2, BEFORE)
    fy, fx = (((s & MASK).to(v) * 2.0**-32)[:, None] for s in (rows, columns))
    y, x = rows >> 32, columns >> 32
    near, far = (
        _gather(u, (y + k) % u.shape[2], x % u.shape[3]) * (1 - fx)
        + _gather(u, (y + k) % u.shape[2], (x + 1) % u.shape[3]) * fx
        for k in (0, 1)
    )
    return _downsample(_downsample(near * (1 - fy) + far * fy, 2), 3)


def _upsample(v: Tensor, dim: int) -> Tensor:
    """One period of the finer lattice: u[i] = 2 sum_j x[j] f[5 + i - 2 j]."""
    n = v.shape[dim]
    one = reflect(torch.arange(period(n), device=v.device), n)
    v = v.index_select(dim, one)
    shifted = {k: v.roll(k, dim) for k in range(-3, 4)}
    even = _total([2 * SYM6[2 * k + 5] * shifted[k] for k in range(-2, 4)])
    odd = _total([2 * SYM6[2 * k + 6] * shifted[k] for k in range(-3, 3)])
    return torch.stack((even, odd), dim + 1).flatten(dim, dim + 1)


def _downsample(w: Tensor, dim: int) -> Tensor:
    n = (w.shape[dim] - HALO) // 2
    every_second = (slice(None),) * dim + (slice(None, None, 2),)
    return _total([SYM6[k] * w.narrow(dim, k, 2 * n - 1)[every_second] for k in range(12)])


def _total(terms: list[Tensor]) -> Tensor:
    return functools.reduce(torch.add, terms)
