"""K random views of a batch: the projection, and the gradient to the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from arms import sizes
from harness import Case, Floor, Size
from torch import Tensor

from ganops import ops

Bench = Callable[[Case], None]
K = 48


def one_wide(x: Tensor, filters: Tensor) -> Tensor:
    """No copy: each discriminator's view is strided, and its first layer has to gather it."""
    return F.conv2d(x, filters.flatten(0, 1), None, 2, 3).transpose(0, 1).unsqueeze(2)


def separate(x: Tensor, filters: Tensor) -> Tensor:
    return torch.stack([F.conv2d(x, each, None, 2, 3) for each in filters])


def ours(x: Tensor, filters: Tensor) -> Tensor:
    return ops.random_projection(x, filters, stride=2, padding=3)


def case(size: Size, device: str, work: str, arms: Callable[..., Any], floor: Floor) -> Case:
    """Stock's faster arm, the one wide convolution, is the baseline; the loop is shown beside."""
    batch, channels, height, width = size.shape
    return Case(
        op="random_projection",
        row=f"{size}, {K} x 8x8 stride 2, {work}",
        ours=arms(ours),
        stock={"one wide convolution": arms(one_wide), f"{K} convolutions": arms(separate)},
        floor=floor,
        nbytes=0,
        flops=2 * batch * K * height * width // 4 * channels * 64,
        device=device,
        tolerance=1e-5,
    )


@sizes(tiny=["2x3x8x8"], default=["64x3x64x64"])
def bench_forward(size: Size, device: str, impl: str, bench: Bench) -> None:
    """Floor: a fill of the views, which one wide convolution cannot reach."""
    x = size.randn(0, device)
    filters = ops.random_filters(K, 1, size.shape[1], 8, seed=0, device=device)

    def arms(function: Callable[..., Tensor]) -> Callable[[], Tensor]:
        def arm() -> Tensor:
            with torch.no_grad():
                return function(x, filters)

        return arm

    outputs = K * size.count // size.shape[1] // 4
    floor = Floor.fill(outputs * 4, size, device)
    bench(case(size, device, "forward", arms, floor))


@sizes(tiny=["2x3x8x8"], default=["64x3x64x64"])
def bench_gradient_to_the_image(size: Size, device: str, impl: str, bench: Bench) -> None:
    """Floor: one wide forward convolution, which multiplies as much."""
    x = size.randn(0, device, requires_grad=True)
    filters = ops.random_filters(K, 1, size.shape[1], 8, seed=0, device=device)
    with torch.no_grad():
        upstream = torch.randn_like(ours(x, filters))

    def arms(function: Callable[..., Tensor]) -> Callable[[], Any]:
        # The wide convolution's gradient comes as its output lies, without a copy.
        y = function(x, filters)
        dy = torch.empty_like(y).copy_(upstream)
        return lambda: torch.autograd.grad(y, x, dy, retain_graph=True)

    def forward() -> Tensor:
        with torch.no_grad():
            return one_wide(x, filters)

    floor = Floor("one forward convolution", forward)
    bench(case(size, device, "gradient to the image", arms, floor))
