"""ADA's image-space filter, noise and cutout: off by default, plain torch for every implementation.

All are affine in the image, of any order, and leave samples whose gate is shut bit for bit alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..philox import random_normal
from .parameters import NOISE
from .reference import reflect

# Daubechies' symlet of order 2.
_SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)


def _convolve(a: list[float], b: list[float]) -> list[float]:
    out = [0.0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[i + j] += x * y
    return out


def _bank() -> tuple[tuple[float, ...], ...]:
    """Four bands of 43 taps, lowest first, whose sum is the identity.

    low = H(z) H(1/z) / 2 and high = H(-z) H(-1/z) / 2 add up to 1. Every step halves the lowest
    band: all bands are spread by two and smoothed by low, and high becomes a new band.
    """
    lows = list(_SYM2)
    highs = [tap * (-1) ** k for k, tap in enumerate(lows)]
    low, high = ([t / 2 for t in _convolve(taps, taps[::-1])] for taps in (lows, highs))
    bands = [[1.0], [0.0], [0.0], [0.0]]
    for new in (1, 2, 3):
        for k, band in enumerate(bands):
            spread = [0.0] * (2 * len(band) - 1)
            spread[::2] = band
            bands[k] = _convolve(spread, low)
        start = (len(bands[new]) - len(high)) // 2
        for k, tap in enumerate(high):
            bands[new][start + k] += tap
    return tuple(map(tuple, bands))


BANK = _bank()
REACH = len(BANK[0]) // 2


def filter_bands(x: Tensor, gains: Tensor, filtered: Tensor) -> Tensor:
    """x through sum_k gains[k] BANK[k] along both axes, reflected at the edges."""
    n, channels, h, w = x.shape
    if x.numel() == 0:
        return x
    v = x if x.dtype == torch.float64 else x.float()
    # Python numbers, one at a time: a table would have to be copied from the host.
    taps = torch.stack(
        [
            gains[:, 0] * a + gains[:, 1] * b + gains[:, 2] * c + gains[:, 3] * d
            for a, b, c, d in zip(*BANK, strict=True)
        ],
        1,
    )
    weight = taps.to(v).repeat_interleave(channels, 0)[:, None]
    rows, columns = (
        reflect(torch.arange(-REACH, side + REACH, device=x.device), side) for side in (h, w)
    )
    y = v.index_select(2, rows).index_select(3, columns).flatten(0, 1)[None]
    y = F.conv2d(y, weight[:, :, None], groups=n * channels)
    y = F.conv2d(y, weight[..., None], groups=n * channels).view(v.shape)
    return torch.where(filtered.view(-1, 1, 1, 1), y.to(x.dtype), x)


def add_noise(x: Tensor, sigma: Tensor, seed: int, offset: int, impl: str) -> Tensor:
    """x + sigma N; element e of sample i has number (offset + i) C H W + e of its stream."""
    first = offset * x.shape[1:].numel()
    noise = random_normal(
        x.shape, seed=seed, offset=first, stream=NOISE, device=x.device, impl=impl
    )
    noise = noise.double() * sigma.view(-1, 1, 1, 1)
    return x + noise.to(x.dtype)


def cut_out(x: Tensor, cutout: Tensor, size: float) -> Tensor:
    """Zeros where a pixel's centre is nearer than size / 2 to the box's centre along both axes."""
    near = []
    for k, n in ((0, x.shape[3]), (1, x.shape[2])):
        at = (torch.arange(n, device=x.device, dtype=torch.float64) + 0.5) / n
        near.append((at - cutout[:, k, None]).abs() < size / 2)
    inside = near[1][:, :, None] & near[0][:, None] & (cutout[:, 2] > 0).view(-1, 1, 1)
    return x.masked_fill(inside[:, None], 0.0)
