"""resize_normalize in plain PyTorch: the definition of correct, and the taps all kernels read.

One axis of `size` pixels becomes one of `out`. Either output i lies between two pixels,

    y_i = x_a + (x_b - x_a) d_i,   b = min(a + 1, size - 1)          float32

or it is a filter's sum, y_i = sum_k w_ik x_(a + k), in float64, rounded to float32. The x axis goes
first, then the y axis, then (y - shift) / divisor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Taps(NamedTuple):
    """What each output along an axis reads."""

    first: Tensor  # (out,) int32
    weight: Tensor  # (out, 1) float32: d; or (out, k) float64: w, zeros beyond the last pixel

    def to(self, device: torch.device) -> Taps:
        return Taps(self.first.to(device), self.weight.to(device))


class Protocol(NamedTuple):
    """How a code base prepares images for its network."""

    taps: Callable[[int, int], Taps]
    shift: float
    divisor: float


def tf_taps(size: int, out: int) -> Taps:
    """TensorFlow 1: output i is at i size / out; no half pixel, corners not aligned."""
    at = torch.arange(out, dtype=torch.float32) * torch.tensor(size / out, dtype=torch.float32)
    return _between(at, size)


def half_pixel_taps(size: int, out: int) -> Taps:
    """torch.nn.functional.interpolate: output i is at (i + 1/2) size / out - 1/2, at least 0."""
    scale = torch.tensor(size, dtype=torch.float32) / out
    at = (torch.arange(out, dtype=torch.float32) + 0.5) * scale - 0.5
    return _between(at.clamp_min(0), size)


def _between(at: Tensor, size: int) -> Taps:
    first = at.to(torch.int32).clamp_max(size - 1)
    return Taps(first, (at - first)[:, None])


def bicubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -1/2, as Pillow evaluates it."""
    a, x = -0.5, x.abs()
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, 0.0))


def triangle(x: Tensor) -> Tensor:
    return (1.0 - x.abs()).clamp_min(0.0)


def filter_taps(f: Callable[[Tensor], Tensor], support: float) -> Callable[[int, int], Taps]:
    """Pillow's resampling: the filter, widened where the image shrinks, at the pixel centres."""

    def taps(size: int, out: int) -> Taps:
        scale = size / out
        wider = max(scale, 1.0)
        reach = support * wider
        center = (torch.arange(out, dtype=torch.float64) + 0.5) * scale
        # Truncated, as a cast to int is: only where it is clamped is it negative.
        first = (center - reach + 0.5).to(torch.int64).clamp_min(0)
        end = (center + reach + 0.5).to(torch.int64).clamp_max(size)
        most = min(size, int(2 * reach + 2))
        index = first[:, None] + torch.arange(most)
        weight = f((index - center[:, None] + 0.5) * (1.0 / wider))
        weight = torch.where(index < end[:, None], weight, 0.0)
        total = torch.zeros(out, dtype=torch.float64)
        for k in range(most):  # in this order: sums in another order have other last bits
            total = total + weight[:, k]
        weight = weight / total[:, None]
        used = int((end - first).max())
        return Taps(first.to(torch.int32), weight[:, :used].contiguous())

    return taps


PROTOCOLS = {
    "tf": Protocol(tf_taps, 128.0, 128.0),
    "torch": Protocol(half_pixel_taps, 127.5, 127.5),
    "clean": Protocol(filter_taps(bicubic, 2.0), 128.0, 128.0),
    "antialias": Protocol(filter_taps(triangle, 1.0), 128.0, 128.0),
}


def along(x: Tensor, taps: Taps, dim: int) -> Tensor:
    """x (float32) resized along one of its last two dims."""
    size, shape = x.shape[dim], [1] * x.dim()
    shape[dim] = -1
    first = taps.first.to(torch.int64)
    if taps.weight.dtype == torch.float32:
        d = taps.weight.view(shape)
        low = x.index_select(dim, first)
        return low + (x.index_select(dim, (first + 1).clamp_max(size - 1)) - low) * d
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for k in range(taps.weight.shape[1]):
        pixels = x.index_select(dim, (first + k).clamp_max(size - 1)).to(torch.float64)
        total = total + taps.weight[:, k].reshape(shape) * pixels
    return total.to(torch.float32)


def resize(x: Tensor, y_taps: Taps, x_taps: Taps, shift: float, divisor: float) -> Tensor:
    """uint8 (N, 1 or 3, H, W) -> float32 (N, 3, h, w), contiguous."""
    y = along(along(x.to(torch.float32), x_taps, 3), y_taps, 2)
    if y_taps.weight.dtype == torch.float64:
        y = y.clamp(0, 255)
    y = (y - shift) / divisor
    return y.expand(-1, 3, -1, -1) if x.shape[1] == 1 else y
