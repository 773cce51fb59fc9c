"""A convolution's gradients, by ways of our own: to an image; to a weight with a small output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from arms import sizes
from harness import Case, Floor, Size
from torch import Tensor

from ganops import ops

Bench = Callable[[Case], None]
OUTPUTS = 64  # channels of the convolution's result


def to_input(conv: Callable[..., Tensor], x: Tensor, w: Tensor) -> Callable[[], Any]:
    """The gradient to x alone, as a penalty's first backward and a generator's step want it."""
    y = conv(x, w, None, 2, 1)
    dy = torch.ones_like(y)
    return lambda: torch.autograd.grad(y, x, dy, retain_graph=True)


@pytest.mark.parametrize("channels", [1, 3, 8, 16])
@sizes(tiny=["2x1x8x8"], default=["64x1x64x64"])
def bench_backward_to_input(
    size: Size, channels: int, device: str, impl: str, bench: Bench
) -> None:
    """4x4, stride 2, to `channels` channels. Floor: the forward, which multiplies as much."""
    batch, _, *sides = size.shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, *sides, generator=generator).to(device).requires_grad_()
    w = torch.randn(OUTPUTS, channels, 4, 4, generator=generator).to(device)

    def forward() -> Tensor:
        with torch.no_grad():
            return F.conv2d(x, w, None, 2, 1)

    outputs = batch * OUTPUTS * (sides[0] // 2) * (sides[1] // 2)
    bench(
        Case(
            op="conv2d",
            row=f"{batch}x{channels}x{sides[0]}x{sides[1]} float32, backward to the input",
            ours=to_input(ops.conv2d, x, w),
            stock={"stock": to_input(F.conv2d, x, w)},
            peers={},
            optional={},
            floor=Floor("one forward convolution", forward),
            nbytes=0,
            flops=2 * outputs * channels * 16,
            device=device,
            tolerance=1e-3,
            note="torch's own kernel" if channels > 8 else "",
        )
    )


@pytest.mark.parametrize("outputs", [128, 512])
@sizes(tiny=["2x4x8x8"], default=["64x256x8x8", "64x512x4x4"])
def bench_weight_gradient(size: Size, outputs: int, device: str, impl: str, bench: Bench) -> None:
    """4x4, stride 2, as in a critic's last layers. Floor: the forward, which multiplies as much."""
    batch, channels, *sides = size.shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, *sides, generator=generator).to(device)
    w = torch.randn(outputs, channels, 4, 4, generator=generator).to(device).requires_grad_()

    def to_weight(conv: Callable[..., Tensor]) -> Callable[[], Any]:
        y = conv(x, w, None, 2, 1)
        dy = x.new_ones(()).expand_as(y).contiguous()
        return lambda: torch.autograd.grad(y, w, dy, retain_graph=True)

    def forward() -> Tensor:
        with torch.no_grad():
            return F.conv2d(x, w, None, 2, 1)

    bench(
        Case(
            op="conv2d",
            row=f"{batch}x{channels}x{sides[0]}x{sides[1]} float32, to {outputs}x{channels}x4x4",
            ours=to_weight(ops.conv2d),
            stock={"stock": to_weight(F.conv2d)},
            floor=Floor("one forward convolution", forward),
            nbytes=0,
            flops=2 * batch * sides[0] * sides[1] // 4 * w.numel(),
            device=device,
            tolerance=1e-3,
        )
    )
