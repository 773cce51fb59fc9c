"""Whole losses of a critic: loss with R1 on one batch, and WGAN-GP's, with their gradients.

Floor: forwards of the critic, each taken at the measured time of one: four for a loss with R1
(forward, backward to the images, tangent forward, weight gradient), ten for WGAN-GP's (three for
each of real and fake, four for the penalty).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from arms import sizes
from bench_penalty_critics import ResNet, dcgan, laid_out, mlp, stock_activation
from harness import Case, Floor, Size
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import ganops
from ganops import ops

Bench = Callable[[Case], None]
Builder = Callable[..., nn.Module]


def input_gradient(scores: Tensor, x: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return grad.flatten(1)


def logistic(scores: Tensor) -> Tensor:
    return F.softplus(-scores).mean()


def loss_and_r1(critic: nn.Module, size: Size, device: str) -> dict[str, Callable[[], Tensor]]:
    x = size.randn(0, device)

    def stock() -> Tensor:
        leaf = x.detach().requires_grad_()
        scores = critic(leaf)
        return logistic(scores) + 5 * input_gradient(scores, leaf).square().sum(1).mean()

    def two_forwards() -> Tensor:
        return logistic(critic(x)) + 10 * ops.r1_penalty(critic, x)

    def ours() -> Tensor:
        return ops.loss_and_r1(critic, x, logistic, gamma=10, engine="shared")

    return {"ours": ours, "stock": stock, "loss, and r1_penalty apart": two_forwards}


def wgan_gp(critic: nn.Module, size: Size, device: str) -> dict[str, Callable[[], Tensor]]:
    real, fake = size.randn(0, device), size.randn(1, device)
    alpha = torch.linspace(0, 1, size.shape[0], device=device)

    def stock() -> Tensor:
        points = ops.interpolate(real, fake, alpha=alpha)
        penalty = (input_gradient(critic(points), points).norm(2, dim=1) - 1).square().mean()
        return critic(fake).mean() - critic(real).mean() + 10 * penalty

    def ours(**how: Any) -> Tensor:
        return ops.wgan_gp_loss(critic, real, fake, alpha=alpha, **how)

    return {
        "ours": lambda: ours(batched=True),
        "stock": stock,
        "real and fake apart": lambda: ours(batched=False),
    }


def case(name: str, size: Size, critic: nn.Module, device: str, impl: str, *, r1: bool) -> Case:
    critic = laid_out(critic.to(device), size)
    made = (loss_and_r1 if r1 else wgan_gp)(critic, size, device)
    # Real and fake cancel in the last bias of WGAN-GP: nothing to compare but rounding.
    params = [p for key, p in critic.named_parameters() if r1 or key.endswith("weight")]

    def arm(loss: Callable[[], Tensor]) -> Callable[[], Any]:
        def run() -> Any:
            with ganops.use_impl(impl):
                total = loss()
            return (total, *torch.autograd.grad(total, params, allow_unused=True))

        return run

    def forward() -> Tensor:
        with torch.no_grad():
            scores: Tensor = critic(x)
            return scores

    x = size.randn(0, device)
    with FlopCounterMode(display=False) as counter:
        forward()
    forwards = 4 if r1 else 10
    ours, stock, *peers = ((label, arm(loss)) for label, loss in made.items())
    return Case(
        op="critic_losses",
        row=f"{'loss with R1' if r1 else 'WGAN-GP'}, {name}, {size}",
        ours=ours[1],
        stock=dict([stock]),
        peers=dict(peers),
        floor=Floor(f"{forwards} critic forwards", forward, scale=float(forwards)),
        nbytes=0,
        flops=forwards * int(counter.get_total_flops()),
        device=device,
        tolerance=1e-2,  # a sign flip at a kink moves single entries of the weights' gradient
        headline=True,
    )


@sizes(tiny=["2x3x8x8"], default=["64x3x64x64"])
def bench_dcgan_loss_and_r1(size: Size, device: str, impl: str, bench: Bench) -> None:
    critic = dcgan(size, stock_activation, 4 if size.shape[0] == 2 else 64)
    bench(case("DCGAN", size, critic, device, impl, r1=True))


@sizes(tiny=["2x3x8x8"], default=["64x3x64x64", "64x3x64x64 channels_last"])
def bench_dcgan_wgan_gp(size: Size, device: str, impl: str, bench: Bench) -> None:
    critic = dcgan(size, stock_activation, 4 if size.shape[0] == 2 else 64)
    bench(case("DCGAN", size, critic, device, impl, r1=False))


@sizes(tiny=["2x3x8x8"], default=["64x3x32x32"])
def bench_sngan_resnet_loss_and_r1(size: Size, device: str, impl: str, bench: Bench) -> None:
    critic = ResNet(size, stock_activation, 4 if size.shape[0] == 2 else 128)
    bench(case("SNGAN ResNet", size, critic, device, impl, r1=True))


@sizes(tiny=["2x3x8x8 channels_last"], default=["64x3x32x32", "64x3x32x32 channels_last"])
def bench_sngan_resnet_wgan_gp(size: Size, device: str, impl: str, bench: Bench) -> None:
    critic = ResNet(size, stock_activation, 4 if size.shape[0] == 2 else 128)
    bench(case("SNGAN ResNet", size, critic, device, impl, r1=False))


@sizes(tiny=["2x1x8x8"], default=["256x1x28x28"])
def bench_mlp_loss_and_r1(size: Size, device: str, impl: str, bench: Bench) -> None:
    critic = mlp(size, stock_activation, 8 if size.shape[0] == 2 else 512)
    bench(case("MLP", size, critic, device, impl, r1=True))


@sizes(tiny=["2x1x8x8"], default=["256x1x28x28"])
def bench_mlp_wgan_gp(size: Size, device: str, impl: str, bench: Bench) -> None:
    critic = mlp(size, stock_activation, 8 if size.shape[0] == 2 else 512)
    bench(case("MLP", size, critic, device, impl, r1=False))
