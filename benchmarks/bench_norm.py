"""The double backward of norms alone, and whole penalties through critics that have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from arms import sizes
from bench_penalty_critics import case as penalty_case
from harness import Case, Floor, Size
from torch import Tensor, nn

from ganops import ops

Bench = Callable[[Case], None]
Op = Callable[..., Tensor]


def stock_pixel_norm(x: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def forms(norm: str, shape: Sequence[int], impl: str) -> tuple[Op, Op, Sequence[int] | None]:
    """(stock, ours, the weights' shape), both as functions of x and its parameters."""
    inner, channels = tuple(shape[1:]), (shape[1],)
    if norm == "layer":
        return (lambda x, w, b: F.layer_norm(x, inner, w, b),
                lambda x, w, b: ops.layer_norm(x, inner, w, b, impl=impl), inner)  # fmt: skip
    if norm == "rms":
        return (lambda x, w, b: F.rms_norm(x, inner, w),
                lambda x, w, b: ops.rms_norm(x, inner, w, impl=impl), inner)  # fmt: skip
    if norm == "group":
        return (lambda x, w, b: F.group_norm(x, 8, w, b),
                lambda x, w, b: ops.group_norm(x, 8, w, b, impl=impl), channels)  # fmt: skip
    if norm == "instance":
        return (lambda x, w, b: F.instance_norm(x, None, None, w, b),
                lambda x, w, b: ops.instance_norm(x, None, None, w, b, impl=impl),
                channels)  # fmt: skip
    if norm == "batch":
        return (lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
                lambda x, w, b: ops.batch_norm(x, None, None, w, b, True, impl=impl),
                channels)  # fmt: skip
    return lambda x, w, b: stock_pixel_norm(x), lambda x, w, b: ops.pixel_norm(x, impl=impl), None


def double_backward(
    op: Op, x: Tensor, w: Tensor | None, b: Tensor | None, dy: Tensor, v: Tensor
) -> Callable[[], tuple[Tensor, ...]]:
    """An arm: from the cotangent v of dx, the gradients to dy, x and w. The rest is done once."""
    (dx,) = torch.autograd.grad(op(x, w, b), x, dy, create_graph=True)
    wanted = [t for t in (dy, x, w) if t is not None]
    return lambda: torch.autograd.grad(dx, wanted, v, retain_graph=True)


def alone(norm: str, size: Size, device: str, impl: str, headline: bool) -> Case:
    """Floor: v, dy and x read, the gradients to dy and x written."""
    stock, ours, weights = forms(norm, size.shape, impl)
    x, dy = (size.randn(i, device, requires_grad=True) for i in range(2))
    w = b = None
    if weights is not None:
        w = Size(tuple(weights), size.dtype).randn(2, device, requires_grad=True)
        b = Size(tuple(weights), size.dtype).randn(3, device, requires_grad=True)
    v = size.randn(4, device)
    nbytes = 5 * size.nbytes
    return Case(
        op="norm",
        row=f"{size}, {norm} norm, double backward",
        ours=double_backward(ours, x, w, b, dy, v),
        stock={"stock": double_backward(stock, x, w, b, dy, v)},
        floor=Floor.copy(nbytes, size, device),
        nbytes=nbytes,
        flops=20 * size.count,
        dtype=size.dtype,
        device=device,
        headline=headline,
    )


@pytest.mark.parametrize("norm", ["group", "instance", "batch", "pixel"])
@sizes(
    tiny=["2x8x4x4"],
    default=["64x128x32x32", "32x64x16x16", "64x128x32x32 channels_last"],
    paper=["64x128x64x64"],
)
def bench_double_backward(size: Size, norm: str, device: str, impl: str, bench: Bench) -> None:
    large = size.count >= 1 << 22 and not size.channels_last
    bench(alone(norm, size, device, impl, headline=large and norm != "pixel"))


@pytest.mark.parametrize("norm", ["layer", "rms"])
@sizes(tiny=["6x8"], default=["4096x512", "64x32768", "256x512"], paper=["16384x1024"])
def bench_rows(size: Size, norm: str, device: str, impl: str, bench: Bench) -> None:
    bench(alone(norm, size, device, impl, headline=norm == "layer" and size.shape[0] == 4096))


NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "layer": lambda channels, side: nn.LayerNorm([channels, side, side]),
    "group": lambda channels, side: nn.GroupNorm(1, channels),
    "instance": lambda channels, side: nn.InstanceNorm2d(channels, affine=True),
    "batch": lambda channels, side: nn.BatchNorm2d(channels, track_running_stats=False),
}


@pytest.mark.parametrize("norm", NORMS)
@sizes(tiny=["2x3x16x16"], default=["64x3x64x64"])
def bench_penalty(size: Size, norm: str, device: str, impl: str, bench: Bench) -> None:
    """DCGAN's critic with the norm after every convolution but the first and the last."""

    def build(size: Size, act: Callable[[float], nn.Module], base: int) -> nn.Module:
        channels, side, wide = size.shape[1], size.shape[-1], base
        layers: list[nn.Module] = []
        while side > 4:
            side //= 2
            layers.append(nn.Conv2d(channels, wide, 4, 2, 1))
            if channels != size.shape[1]:
                layers.append(NORMS[norm](wide, side))
            layers.append(act(0.2))
            channels, wide = wide, wide * 2
        return nn.Sequential(*layers, nn.Conv2d(channels, 1, 4), nn.Flatten(0))

    width = 4 if size.shape[0] == 2 else 64
    bench(penalty_case(f"DCGAN + {norm} norm", size, build, width, device, impl))
