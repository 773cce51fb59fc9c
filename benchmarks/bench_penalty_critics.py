"""Whole gradient penalties on untouched critics of stock layers: value, and gradient to weights.

Floor: four forwards of the critic, the least for a piecewise linear one (forward, backward to the
input, tangent forward, weight gradient), each taken at the measured time of a forward.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from arms import compiled, sizes
from harness import Case, Floor, Size
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import ganops
from ganops import ops

Bench = Callable[[Case], None]


class Where(nn.Module):
    """Leaky ReLU of stock operations that send no zeros in double backward: the free baseline."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, self.slope * x)


def dcgan(size: Size, act: Callable[[float], nn.Module], base: int) -> nn.Module:
    """4x4 stride-2 convolutions with leaky ReLU down to 4x4, then one score per image."""
    layers: list[nn.Module] = []
    channels, side, wide = size.shape[1], size.shape[-1], base
    while side > 4:
        layers += [nn.Conv2d(channels, wide, 4, 2, 1), act(0.2)]
        channels, side, wide = wide, side // 2, wide * 2
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 4), nn.Flatten(0))


class Block(nn.Module):
    """SNGAN's discriminator block: [ReLU,] conv, ReLU, conv[, pool], beside a 1x1 shortcut."""

    def __init__(
        self, inputs: int, outputs: int, act: nn.Module, *, first: bool, down: bool
    ) -> None:
        super().__init__()
        self.a = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.b = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if down else nn.Identity()
        self.act, self.first, self.down = act, first, down

    def forward(self, x: Tensor) -> Tensor:
        h = self.b(self.act(self.a(x if self.first else self.act(x))))
        if not self.down:
            return h + self.shortcut(x)
        if self.first:
            return F.avg_pool2d(h, 2) + self.shortcut(F.avg_pool2d(x, 2))
        return F.avg_pool2d(h, 2) + F.avg_pool2d(self.shortcut(x), 2)


class ResNet(nn.Module):
    """SNGAN's 32x32 discriminator, without its normalisation: two blocks down, two plain."""

    def __init__(self, size: Size, act: Callable[[float], nn.Module], channels: int) -> None:
        super().__init__()
        self.act = act(0.0)
        self.blocks = nn.Sequential(*(
            Block(size.shape[1] if i == 0 else channels, channels, self.act,
                  first=i == 0, down=i < 2)
            for i in range(4)
        ))  # fmt: skip
        self.last = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(self.act(self.blocks(x)).sum((2, 3))).squeeze(1)
        return scores


def mlp(size: Size, act: Callable[[float], nn.Module], width: int) -> nn.Module:
    """Three hidden layers."""
    sides = [size.count // size.shape[0], width, width, width]
    layers: list[nn.Module] = [nn.Flatten()]
    for a, b in itertools.pairwise(sides):
        layers += [nn.Linear(a, b), act(0.2)]
    return nn.Sequential(*layers, nn.Linear(width, 1), nn.Flatten(0))


def stock_activation(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope) if slope else nn.ReLU()


def laid_out(critic: nn.Module, size: Size) -> nn.Module:
    """Its weights in the images' memory format."""
    return critic.to(memory_format=torch.channels_last) if size.channels_last else critic


def case(
    name: str, size: Size, build: Callable[..., nn.Module], width: int, device: str, impl: str
) -> Case:
    torch.manual_seed(0)
    critic = laid_out(build(size, stock_activation, width).to(device), size)
    where = laid_out(build(size, Where, width).to(device), size)
    where.load_state_dict(critic.state_dict())
    points = size.randn(0, device)

    def weights(of: nn.Module) -> list[Tensor]:
        return [p for key, p in of.named_parameters() if key.endswith("weight")]

    def reduced(grad: Tensor) -> Tensor:
        norms: Tensor = grad.flatten(1).norm(2, dim=1)
        return (norms - 1).square().mean()

    def stock(of: nn.Module) -> Callable[[], Any]:
        def arm() -> Any:
            x = points.detach().requires_grad_()
            (grad,) = torch.autograd.grad(of(x).sum(), x, create_graph=True)
            penalty = reduced(grad)
            return (penalty, *torch.autograd.grad(penalty, weights(of)))

        return arm

    def ours() -> Any:
        ones = torch.ones(size.shape[0], device=device)
        with ganops.use_impl(impl):
            penalty = ops.gradient_penalty(critic, points, points, alpha=ones)
        return (penalty, *torch.autograd.grad(penalty, weights(critic)))

    once = compiled(lambda x: reduced(torch.func.grad(lambda t: critic(t).sum())(x)))

    def one_graph() -> Any:
        penalty = once(points)
        return (penalty, *torch.autograd.grad(penalty, weights(critic)))

    def forward() -> Tensor:
        with torch.no_grad():
            scores: Tensor = critic(points)
            return scores

    with FlopCounterMode(display=False) as counter:
        forward()
    return Case(
        op="penalty_critics",
        row=f"{name}, {size}",
        ours=ours,
        stock={"stock": stock(critic)},
        peers={"stock, torch.where activations": stock(where)},
        optional={"torch.compile, torch.func.grad": one_graph},
        floor=Floor("four critic forwards", forward, scale=4.0),
        nbytes=0,
        flops=4 * int(counter.get_total_flops()),
        device=device,
        tolerance=1e-2,  # a sign flip at a kink moves single entries of the weights' gradient
        headline=True,
    )


@sizes(tiny=["2x3x8x8"], default=["64x3x64x64", "64x3x64x64 channels_last"])
def bench_dcgan(size: Size, device: str, impl: str, bench: Bench) -> None:
    bench(case("DCGAN", size, dcgan, 4 if size.shape[0] == 2 else 64, device, impl))


@sizes(tiny=["2x3x8x8 channels_last"], default=["64x3x32x32", "64x3x32x32 channels_last"])
def bench_sngan_resnet(size: Size, device: str, impl: str, bench: Bench) -> None:
    bench(case("SNGAN ResNet", size, ResNet, 4 if size.shape[0] == 2 else 128, device, impl))


@sizes(tiny=["2x1x8x8"], default=["256x1x28x28"])
def bench_mlp(size: Size, device: str, impl: str, bench: Bench) -> None:
    bench(case("MLP", size, mlp, 8 if size.shape[0] == 2 else 512, device, impl))
