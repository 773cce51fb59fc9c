"""A strided convolution's backward to few channels, as one dense convolution.

With stride s, pixel s i + r of dx meets only the taps k = (r + p) mod s + s t of the kernel:

    dx[s i + r] = sum_t  dy[i + (r + p) div s - t]  w[(r + p) mod s + s t]

so that all s x s phases are one convolution of dy with stride 1, whose kernel is s times smaller
and which has s x s times the channels, and then an interleaving copy. The vendor's kernel loses to
it where dx has few channels, as images have; from 16 on there is nothing to gain
(benchmarks/bench_conv.py; oneDNN).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .._twins import Like

aten = torch.ops.aten
FEW = 8  # channels of dx up to which this measured faster


def serves(
    w: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...], transposed: bool, groups: int
) -> bool:
    """Is this backward faster so? A question to the CPU's kernels; other devices use their own."""
    plain = not transposed and groups == 1 and w.dim() == 4 and tuple(dilation) == (1, 1)
    return plain and w.device.type == "cpu" and min(stride) > 1 and w.shape[1] <= FEW


def input_gradient(
    dy: Tensor, w: Tensor, like: Like, stride: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """dx, (B, Cin, H, W) as `like` says. dy: (B, Cout, H', W'); w: (Cout, Cin, kh, kw)."""
    kernel = phases(w, stride)
    around = tuple(n - 1 for n in kernel.shape[2:])
    # ATen's, not F.conv2d: autocast, where it is on, would cast what torch's own backward does not.
    z = aten.convolution(dy, kernel, None, (1, 1), around, (1, 1), False, (0, 0), 1)
    z = z.view(like.shape[0], *stride, like.shape[1], *z.shape[2:])
    return interleave(z, like, stride, padding)


def phases(w: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The dense kernel, (sh sw Cin, Cout, th, tw)."""
    taps = [-(-k // s) for k, s in zip(w.shape[2:], stride)]
    # (Cout, Cin, th, sh, tw, sw): tap k = s t + phase, taps in falling order, as dy is walked up.
    grown = F.pad(w, [0, taps[1] * stride[1] - w.shape[3], 0, taps[0] * stride[0] - w.shape[2]])
    each = grown.reshape(*w.shape[:2], taps[0], stride[0], taps[1], stride[1]).flip(2, 4)
    return each.permute(3, 5, 1, 0, 2, 4).reshape(-1, w.shape[0], *taps)


def interleave(z: Tensor, like: Like, stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
    """dx from its phases, z: (B, sh, sw, Cin, h, w), of any strides."""
    # From z, not from nothing: under vmap it must be as batched as z is.
    dx = z.new_empty(like.shape) if like.stride is None else z.new_empty_strided(
        like.shape, like.stride
    )  # fmt: skip
    for r in range(stride[0]):
        for q in range(stride[1]):
            row, down = _phase(r, 0, stride, padding)
            col, right = _phase(q, 1, stride, padding)
            to = dx[:, :, r :: stride[0], q :: stride[1]]
            _place(to, z.select(1, row).select(1, col), down, right)
    return dx


def _phase(r: int, axis: int, stride: tuple[int, ...], padding: tuple[int, ...]) -> tuple[int, int]:
    """(which phase of the kernel, how far along z) pixel r of each stride is."""
    offset, phase = divmod(r + padding[axis], stride[axis])
    return phase, offset


def _place(to: Tensor, source: Tensor, down: int, right: int) -> None:
    """source from (down, right) on; pixels beyond its end, past the last window, met no tap."""
    rows = max(0, min(to.shape[2], source.shape[2] - down))
    cols = max(0, min(to.shape[3], source.shape[3] - right))
    if (rows, cols) != (to.shape[2], to.shape[3]):
        to.zero_()
    if rows and cols:
        part = source.narrow(2, down, rows).narrow(3, right, cols)
        to.narrow(2, 0, rows).narrow(3, 0, cols).copy_(part)
