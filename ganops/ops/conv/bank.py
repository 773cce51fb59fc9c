"""Convolutions of K networks at once: x (K, B, C, H, W), weights (K, Cout, C / groups, kh, kw).

Two ways to run the same numbers, neither with a loop over K. One grouped convolution of K groups is
the vendor's best where images are large; where a batch has fewer pixels than a layer has outputs,
the weights are most of what moves, and the vendor's grouped kernels fall far behind a batched
matrix product over unfolded windows (docs/bank.md has the table). `ganops.nn.DiscriminatorBank`
keeps weights with channels innermost, so that the product reads them where they lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._twins import Like, serves
from .taps import convolve

__all__ = ["convolve_bank"]

FEW = 2**23  # numbers of unfolded windows up to which the product wins where it nearly ties


def convolve_bank(
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """y, (K, B, Cout, H', W'), with the derivatives of `conv2d`: of every order, none looping.

    b: (K, Cout) or None; the numbers are those of one member. x may be (1, B, C, H, W), one batch
    for all.
    """
    from . import conv2d  # this package's own, defined after this file is read

    members = len(w)
    wide = len(x) == 1 < members and groups == 1  # reads the one batch once
    x = x if wide else x.expand(members, *x.shape[1:])
    plain = not wide and groups == 1 and tuple(dilation) == (1, 1) and serves(x, w, b)
    product = Windows(tuple(stride), tuple(padding), tuple(w.shape[3:]))
    if plain and product.better(x.shape, w.shape) and _alike(x, w, b):
        near = w.permute(0, 1, 3, 4, 2).flatten(2)
        rows = convolve(x.permute(0, 1, 3, 4, 2), near, b, product)
        return rows.unflatten(1, (x.shape[1], *product.sides(x.shape[3:]))).permute(0, 1, 4, 2, 3)
    given = x[0] if wide else joined(x)
    flat = None if b is None else b.reshape(-1)
    # Contiguous: channels innermost would lay out the images so as well, for slower kernels.
    filters = w.flatten(0, 1).contiguous()
    y = conv2d(
        given, filters, flat, stride, padding, dilation, groups if wide else groups * members
    )
    return apart(y, members)


def joined(x: Tensor) -> Tensor:
    """(B, K C, ...) of (K, B, C, ...): a view of what a grouped convolution gave."""
    return x.transpose(0, 1).flatten(1, 2)


def apart(y: Tensor, members: int) -> Tensor:
    """The inverse of `joined`."""
    return y.unflatten(1, (members, -1)).transpose(0, 1)


def _alike(x: Tensor, w: Tensor, b: Tensor | None) -> bool:
    """Autocast and mixed dtypes are conv2d's business."""
    device = x.device.type
    cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return not cast and x.dtype == w.dtype and (b is None or b.dtype == x.dtype)


@dataclass(frozen=True)
class Windows:
    """K batched products over unfolded windows, in the terms of `Spec`, channels innermost.

    x: (K, B, H, W, C), w: (K, Cout, kh kw C), b: (K, Cout) or None, y: (K, B H' W', Cout).
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    kernel: tuple[int, ...]

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        rows, kernels = self._unfolded(x), w.transpose(1, 2)
        if b is None:
            return torch.bmm(rows, kernels)
        return torch.baddbmm(b.unsqueeze(1), rows, kernels)

    def backward(self, dy: Tensor, x: Tensor, w: Tensor, mask: list[bool]) -> tuple[Any, ...]:
        """(dx, dw, db); what the mask leaves out is None and costs nothing."""
        return (
            self._folded(torch.bmm(dy, w), x.shape) if mask[0] else None,
            torch.bmm(dy.transpose(1, 2), self._unfolded(x)) if mask[1] else None,
            self.bias(dy) if mask[2] else None,
        )

    def input(self, dy: Tensor, w: Tensor, like: Like, x: Tensor | None = None) -> Tensor:
        return self._folded(torch.bmm(dy, w), torch.Size(like.shape))

    def quick_input(self, dy: Tensor, w: Tensor, like: Like) -> Tensor:
        return self.input(dy, w, like)

    def bias(self, dy: Tensor) -> Tensor:
        return dy.sum(1)

    def bias_by_sample(self, dy: Tensor) -> Tensor:
        raise RuntimeError("a bank has no one score a sample: differentiate loss and R1 apart")

    def better(self, x: torch.Size, w: torch.Size) -> bool:
        """Was this way measured faster than the grouped one? (benchmarks/bench_bank.py)"""
        down, right = self.sides(x[3:])
        if min(down, right) <= 0 or x[1] == 0:
            return False
        pixels = x[1] * down * right
        unfolded = w[0] * pixels * w[2:].numel()
        return down * right == 1 or pixels <= w[1] or (pixels <= 2 * w[1] and unfolded <= FEW)

    def sides(self, sides: Any) -> tuple[int, ...]:
        numbers = zip(sides, self.padding, self.kernel, self.stride)
        return tuple((n + 2 * p - k) // s + 1 for n, p, k, s in numbers)

    def _unfolded(self, x: Tensor) -> Tensor:
        """(K, B H' W', kh kw C): what each output sees."""
        (p, q), (kh, kw), (s, t) = self.padding, self.kernel, self.stride
        x = F.pad(x, (0, 0, q, q, p, p)) if p or q else x
        seen = x.unfold(2, kh, s).unfold(3, kw, t)  # (K, B, H', W', C, kh, kw)
        members, batch, down, right, channels = seen.shape[:5]
        rows = seen.permute(0, 1, 2, 3, 5, 6, 4)
        return rows.reshape(members, batch * down * right, kh * kw * channels)

    def _folded(self, rows: Tensor, x: torch.Size) -> Tensor:
        """The transpose of `_unfolded`: windows are added up where they overlap."""
        (p, q), (kh, kw), (s, t) = self.padding, self.kernel, self.stride
        (down, right), (high, wide) = self.sides(x[2:4]), x[2:4]
        rows = rows.unflatten(1, (x[1], down, right)).unflatten(4, (kh, kw, x[4]))
        if (down, right, kh, kw, p, q) == (1, 1, high, wide, 0, 0):
            return rows[:, :, 0, 0]
        into = rows.new_zeros(*x[:2], high + 2 * p, wide + 2 * q, x[4])
        if not any((kh % s, kw % t, into.shape[2] % s, into.shape[3] % t)):
            # s x t taps at a time, which never overlap and lie together in both.
            cells = into.unflatten(2, (-1, s)).unflatten(4, (-1, t))
            taps = rows.unflatten(4, (-1, s)).unflatten(6, (-1, t))
            for i in range(kh // s):
                for j in range(kw // t):
                    part = taps[:, :, :, :, i, :, j].permute(0, 1, 2, 4, 3, 5, 6)
                    cells[:, :, i : i + down, :, j : j + right].add_(part)
        else:
            for i in range(kh):
                for j in range(kw):
                    last = i + s * (down - 1) + 1, j + t * (right - 1) + 1
                    into[:, :, i : last[0] : s, j : last[1] : t].add_(rows[:, :, :, :, i, j])
        return into[:, :, p : p + high, q : q + wide]
