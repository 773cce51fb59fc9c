"""The weight gradient of a convolution with a small output, as a convolution in turn.

    dw[o, c, k] = sum_{n, i} dy[n, o, i] x[n, c, s i + k - p]

is a convolution of x by dy, samples being its channels, dy's pixels its taps, the stride s its
dilation. Torch's double backward takes this form always, and where dy is an image it is the wrong
one. Where dy has no more pixels than the weight has taps, as in a critic's last layers, it is the
vendor's weight-gradient kernel that runs at half its rate: this measured 1.1 to 6 times faster
(benchmarks/bench_conv.py; oneDNN). It fits where the last window ends where the padding does.
"""

from __future__ import annotations

import torch
from torch import Tensor

aten = torch.ops.aten
BATCH, LAST = 16, 64  # samples from which on this measured faster; of channels-last tensors
CHANNELS = 64  # likewise, of x


def serves(
    dy: Tensor, x: Tensor, w: Tensor, stride: tuple[int, ...], padding: tuple[int, ...],
    dilation: tuple[int, ...], transposed: bool, groups: int,
) -> bool:  # fmt: skip
    """Is this gradient faster so? A question to oneDNN: other kernels and devices use their own."""
    plain = not transposed and groups == 1 and tuple(dilation) == (1, 1)
    return (
        plain
        and w.device.type == "cpu"
        and w.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and dy.dim() == x.dim() == w.dim() == 4
        and _large(dy, x, w)
        and dy.shape[2] * dy.shape[3] <= w.shape[2] * w.shape[3]
        and all(
            size + 2 * p - s * (steps - 1) == k
            for size, steps, k, s, p in zip(
                x.shape[2:], dy.shape[2:], w.shape[2:], stride, padding, strict=True
            )
        )
    )


def _large(dy: Tensor, x: Tensor, w: Tensor) -> bool:
    if x.shape[1] < CHANNELS:
        return False
    if x.is_contiguous() and w.is_contiguous():
        return x.shape[0] >= BATCH
    last = torch.channels_last
    both = x.is_contiguous(memory_format=last) and w.is_contiguous(memory_format=last)
    return both and x.shape[0] >= LAST and dy[0, 0].numel() > 1


def weight_gradient(
    dy: Tensor, x: Tensor, w: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """dw, (Cout, Cin, kh, kw), in w's memory format. dy: (B, Cout, H', W'); x: (B, Cin, H, W)."""
    taps = dy.transpose(0, 1).contiguous()
    # ATen's, not F.conv2d: autocast, where it is on, would cast what torch's own backward does not.
    dw: Tensor = aten.convolution(
        x.transpose(0, 1).contiguous(), taps, None, (1, 1), padding, stride, False, (0, 0), 1
    )
    laid = torch.contiguous_format if w.is_contiguous() else torch.channels_last
    # contiguous() would leave a lone output channel a stride of its own, of which DDP warns.
    return dw.transpose(0, 1).clone(memory_format=laid)
