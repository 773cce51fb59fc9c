"""Resampling with a low-pass filter: twice as large, half as large, and as large as before.

Stock is what code without a kernel of its own does: zeros inserted and padded, then a grouped
convolution, of the whole filter or of each axis; and, for enlarging, a transposed convolution that
inserts them itself, for shrinking a strided one.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from arms import compiled, sizes, with_gradient
from harness import Case, Floor, Size
from torch import Tensor

from ganops import ops

Bench = Callable[[Case], None]
Op = Callable[[Tensor], Tensor]

# The 12 taps of the wavelet sym6, which augmentation pipelines low-pass with.
SYM6 = [
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
]  # fmt: skip
TAPS = {"4 taps": [1.0, 3.0, 3.0, 1.0], "12 taps": SYM6}
KINDS = ("up", "down", "same")
# In front and behind, as ops.upsample2d, downsample2d and filter2d pad.
SIDES: dict[str, Callable[[int], tuple[int, int]]] = {
    "up": lambda k: ((k + 1) // 2, (k - 2) // 2),
    "down": lambda k: ((k - 1) // 2, (k - 2) // 2),
    "same": lambda k: (k // 2, (k - 1) // 2),
}
OURS = {"up": ops.upsample2d, "down": ops.downsample2d, "same": ops.filter2d}


def ours(kind: str, f: Tensor, impl: str) -> Op:
    return lambda x: OURS[kind](x, f, impl=impl)


def grouped(kind: str, f: Tensor) -> Op:
    """Zeros inserted by padding, one convolution with the whole filter, every other pixel kept."""
    taps, step = f.outer(f).flip(0, 1), 2 if kind == "down" else 1
    if kind == "up":
        taps = taps * 4
    front, back = SIDES[kind](f.numel())

    def apply(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if kind == "up":
            x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, 1, 0, 0, 0, 1)).reshape(n, c, 2 * h, 2 * w)
        x = F.pad(x, (front, back, front, back))
        return F.conv2d(x, taps.expand(c, 1, -1, -1), groups=c)[:, :, ::step, ::step]

    return apply


def axis_by_axis(kind: str, f: Tensor) -> Op:
    """One dim at a time, by convolutions that insert the zeros or leave out pixels themselves."""
    front, back = SIDES[kind](f.numel())
    taps = f.flip(0) * (2 if kind == "up" else 1)
    kernels = (taps[None, None, None, :], taps[None, None, :, None])

    def apply(x: Tensor) -> Tensor:
        c = x.shape[1]
        for kernel, wide in zip(kernels, (True, False)):
            step = (1, 2) if wide else (2, 1)
            if kind == "up":  # the filter is symmetric or not: a transposed one is flipped
                weight = kernel.flip(2, 3).expand(c, 1, -1, -1)
                x = F.conv_transpose2d(x, weight, None, step, groups=c)
                cut, dim = f.numel() - 1 - front, 3 if wide else 2
                x = x.narrow(dim, cut, x.shape[dim] - cut - (f.numel() - 2 - back))
            else:
                x = F.pad(x, (front, back, 0, 0) if wide else (0, 0, front, back))
                stride = step if kind == "down" else 1
                x = F.conv2d(x, kernel.expand(c, 1, -1, -1), None, stride, groups=c)
        return x

    return apply


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "and backward"])
@sizes(
    tiny=["2x3x8x8"],
    default=["16x3x256x256", "16x64x64x64"],
    paper=["16x64x64x64 float32 channels_last", "16x64x64x64 bfloat16"],
)
def bench_resampling(
    size: Size, backward: bool, kind: str, taps: str, device: str, impl: str, bench: Bench
) -> None:
    """Floor: x read and y written; the same again, the other way round, for the backward."""
    x = size.randn(0, device, requires_grad=backward)
    f = ops.setup_filter(TAPS[taps], device=device, separable=True)
    scale = {"up": 4.0, "down": 0.25, "same": 1.0}[kind]
    passes = 2 if backward else 1
    nbytes = passes * int(size.nbytes * (1 + scale))
    # Columns at the width of x, then rows at that of y; an inserted zero is not multiplied.
    met = f.numel() // 2 if kind == "up" else f.numel()
    high, wide = {"up": (2, 2), "down": (0.5, 0.5), "same": (1, 1)}[kind]
    flops = passes * int(2 * met * size.count * (high + high * wide))
    given = f.to(size.dtype)  # as stock convolutions want it
    arms = {"grouped": grouped(kind, given), "by axis": axis_by_axis(kind, given)}
    dy = None
    if backward:
        with torch.no_grad():
            dy = torch.randn_like(ours(kind, f, impl)(x))

    def arm(op: Op) -> Callable[[], object]:
        return with_gradient(op, [x], dy) if backward else lambda: op(x)

    bench(
        Case(
            op="upfirdn2d",
            row=f"{size}, {kind}, {taps}, {'and backward' if backward else 'forward'}",
            ours=arm(ours(kind, f, impl)),
            stock={name: arm(op) for name, op in arms.items()},
            optional={"torch.compile": arm(compiled(arms["by axis"]))},
            floor=Floor.copy(nbytes, size, device),
            nbytes=nbytes,
            flops=flops,
            dtype=size.dtype,
            device=device,
            headline=kind == "up" and taps == "4 taps" and not backward,
        )
    )
