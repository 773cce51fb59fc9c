"""How a norm's tensors are laid out for the kernel of the second order (csrc/norm/norm_layout.h).

A view turns x, and whatever has x's shape, into a contiguous tensor of three dims and back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Codes of NormKind in csrc/norm/norm_layout.h.
ROWS, SEGMENTS, BATCH, COLUMNS = range(4)
# Shorter runs of numbers that share a weight cost more than a weight per number.
SHORT = 64


@dataclass(frozen=True)
class View:
    """(a, b, c) of a tensor whose dim 1 is first moved last, if asked."""

    kind: int
    shape: tuple[int, int, int]
    last: bool = False
    repeat: int = 1  # each weight serves so many neighbours

    def of(self, t: Tensor) -> Tensor:
        t = t.movedim(1, -1) if self.last else t
        return t.reshape(self.shape).contiguous()

    def back(self, t: Tensor, shape: torch.Size) -> Tensor:
        if not self.last:
            return t.view(shape)
        return t.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1)

    def weight(self, w: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        if w is None:
            return None
        w = w.detach().reshape(-1).to(dtype).contiguous()
        return w if self.repeat == 1 else w.repeat_interleave(self.repeat)

    def weight_grad(self, d_w: Tensor, shape: torch.Size) -> Tensor:
        return (d_w if self.repeat == 1 else d_w.view(-1, self.repeat).sum(1)).view(shape)


def trailing(x: Tensor, dims: int) -> View:
    """Statistics over the last dims, a weight for each number (layer norm, RMS norm)."""
    n = math.prod(x.shape[x.dim() - dims :])
    return View(ROWS, (x.numel() // max(n, 1), 1, n))


def grouped(x: Tensor, groups: int) -> View:
    """Statistics over a sample's group of channels and all positions."""
    batch, channels, inner = *x.shape[:2], math.prod(x.shape[2:])
    if channels_last(x):
        return View(COLUMNS, (batch, inner, channels), last=True)
    if inner >= SHORT:
        return View(SEGMENTS, (batch, channels, inner))
    return View(ROWS, (batch * groups, 1, channels // groups * inner), repeat=inner)


def per_channel(x: Tensor) -> View:
    """Statistics of a channel over samples and positions."""
    batch, channels, inner = *x.shape[:2], math.prod(x.shape[2:])
    if channels_last(x):
        return View(COLUMNS, (1, batch * inner, channels), last=True)
    if inner >= SHORT:
        return View(BATCH, (batch, channels, inner))
    return View(COLUMNS, (1, batch, channels * inner), repeat=inner)


def across_channels(x: Tensor) -> View:
    """Statistics of a pixel over its channels; no weights."""
    batch, channels, inner = *x.shape[:2], math.prod(x.shape[2:])
    if channels_last(x) or inner < SHORT:
        return View(ROWS, (batch * inner, 1, channels), last=True)
    return View(COLUMNS, (batch, channels, inner))


def channels_last(x: Tensor) -> bool:
    """Is dim 1 the innermost in memory, and x not contiguous as well?"""
    return x.dim() > 2 and not x.is_contiguous() and x.movedim(1, -1).is_contiguous()
