"""The gradient penalty: its reduction alone, its second derivative, and a whole penalty step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from arms import (
    compiled,
    sizes,
    with_gradient,
    with_second_gradient,
    with_second_gradient_compiled,
)
from harness import Case, Floor, Size
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import ganops
from ganops import ops

Bench = Callable[[Case], None]


def stock_penalty(grad: Tensor) -> Tensor:
    norms: Tensor = grad.flatten(1).norm(2, dim=1)
    return (norms - 1).square().mean()


def einsum_penalty(grad: Tensor) -> Tensor:
    """Stock without the norm's own backward (two passes and a mask against division by zero)."""
    flat = grad.flatten(1)
    return ((flat * flat).sum(1).sqrt() - 1).square().mean()


def ours(impl: str) -> Callable[[Tensor], Tensor]:
    return lambda grad: ops.penalty_from_gradient(grad, impl=impl)


def one_pass(grad: Tensor, impl: str) -> Callable[[], list[Tensor]]:
    known = grad.detach()
    return lambda: list(ops.penalty_and_gradient(known, impl=impl))


@sizes(
    tiny=["2x3x8x8", "2x3x8x8 bfloat16"],
    default=[
        "64x3x32x32",
        "64x3x64x64",
        "64x3x128x128",
        "64x3x256x256",
        "64x3x128x128 bfloat16",
    ],
    paper=["256x3x256x256"],
)
def bench_penalty_value_and_gradient(size: Size, device: str, impl: str, bench: Bench) -> None:
    """P and dP/dgrad. Floor: grad read once, dP/dgrad written once."""
    grad = size.randn(0, device, requires_grad=True)
    nbytes = 2 * size.nbytes
    bench(
        Case(
            op="penalty_from_gradient",
            row=f"{size}, value and gradient",
            ours=with_gradient(ours(impl), [grad]),
            stock={
                "stock": with_gradient(stock_penalty, [grad]),
                "stock, sum of squares": with_gradient(einsum_penalty, [grad]),
            },
            peers={
                "reference": with_gradient(ours("reference"), [grad]),
                "ours, weight known: penalty_and_gradient": one_pass(grad, impl),
            },
            optional={"torch.compile": with_gradient(compiled(stock_penalty), [grad])},
            floor=Floor.copy(nbytes, size, device),
            nbytes=nbytes,
            flops=4 * size.count,
            dtype=size.dtype,
            device=device,
            headline=size.shape[-1] in (64, 128, 256) and size.dtype == torch.float32,
        )
    )


@sizes(tiny=["2x3x8x8"], default=["64x3x64x64", "64x3x128x128"])
def bench_penalty_double_backward(size: Size, device: str, impl: str, bench: Bench) -> None:
    """P, dP/dgrad and the gradient of <dP/dgrad, v>.

    Floor: as above, then grad and v read once, the second gradient written once.
    """
    grad = size.randn(0, device, requires_grad=True)
    v = size.randn(1, device)
    nbytes = 5 * size.nbytes
    bench(
        Case(
            op="penalty_from_gradient",
            row=f"{size}, with double backward",
            ours=with_second_gradient(ours(impl), [grad], v),
            stock={
                "stock": with_second_gradient(stock_penalty, [grad], v),
                "stock, sum of squares": with_second_gradient(einsum_penalty, [grad], v),
            },
            peers={"reference": with_second_gradient(ours("reference"), [grad], v)},
            optional={
                "torch.compile, one graph": with_second_gradient_compiled(stock_penalty, [grad], v)
            },
            floor=Floor.copy(nbytes, size, device),
            nbytes=nbytes,
            flops=10 * size.count,
            dtype=size.dtype,
            device=device,
        )
    )


class BiasLeaky(nn.Module):
    """Twin of nn.LeakyReLU(0.2) after a convolution: adds the bias and activates in one pass."""

    def __init__(self, bias: nn.Parameter, impl: str) -> None:
        super().__init__()
        self.bias, self.impl = bias, impl

    def forward(self, x: Tensor) -> Tensor:
        return ops.bias_act(x, self.bias, act="lrelu", alpha=0.2, gain=1.0, impl=self.impl)


def dcgan_critic(size: Size, base: int) -> nn.Sequential:
    """4x4 stride-2 convolutions with leaky ReLU down to 4x4, then one score per image."""
    layers: list[nn.Module] = []
    channels, side, wide = size.shape[1], size.shape[-1], base
    while side > 4:
        layers += [nn.Conv2d(channels, wide, 4, 2, 1), nn.LeakyReLU(0.2)]
        channels, side, wide = wide, side // 2, wide * 2
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 4), nn.Flatten(0))


def fused_twin(critic: nn.Sequential, impl: str) -> nn.Sequential:
    """The same critic, weights shared, with bias and activation as one op."""
    layers: list[nn.Module] = []
    for layer, after in zip(critic, [*[*critic][1:], None], strict=True):
        if isinstance(layer, nn.LeakyReLU):
            continue
        if isinstance(layer, nn.Conv2d) and isinstance(after, nn.LeakyReLU):
            plain = nn.Conv2d(layer.in_channels, layer.out_channels, 4, 2, 1, bias=False)
            plain.weight = layer.weight
            layers += [plain, BiasLeaky(cast("nn.Parameter", layer.bias), impl)]
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


def critic_flops(critic: nn.Module, images: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        critic(images)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("twin", [False, True], ids=["untouched", "bias_act"])
@sizes(tiny=["2x3x8x8"], default=["32x3x64x64"], paper=["64x3x64x64"])
def bench_whole_penalty(size: Size, twin: bool, device: str, impl: str, bench: Bench) -> None:
    """A DCGAN critic's penalty and its gradient to the weights.

    Floor: four critic forwards, the least that a piecewise-linear critic needs (forward, backward
    to the input, tangent forward, weight gradient).
    """
    torch.manual_seed(0)
    critic = dcgan_critic(size, base=32).to(device)
    mine = fused_twin(critic, impl) if twin else critic
    real, fake = size.randn(0, device), size.randn(1, device)
    alpha = torch.rand(size.shape[0], device=device)
    weights = [p for name, p in critic.named_parameters() if name.endswith("weight")]

    def stock() -> Any:
        mixed = torch.lerp(fake, real, alpha.view(-1, 1, 1, 1)).requires_grad_()
        (grad,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
        penalty = stock_penalty(grad)
        return (penalty, *torch.autograd.grad(penalty, weights))

    def with_ganops() -> Any:
        with ganops.use_impl(impl):
            penalty = ops.gradient_penalty(mine, real, fake, alpha=alpha)
        return (penalty, *torch.autograd.grad(penalty, weights))

    def forward() -> Tensor:
        with torch.no_grad():
            scores: Tensor = critic(fake)
            return scores

    bench(
        Case(
            op="gradient_penalty",
            row=f"{size}, DCGAN critic, {'bias_act in it' if twin else 'untouched'}",
            ours=with_ganops,
            stock={"stock": stock},
            floor=Floor("four critic forwards", forward, scale=4.0),
            nbytes=0,
            flops=4 * critic_flops(critic, fake),
            device=device,
            tolerance=1e-2,  # a sign flip at a kink moves single entries of the weights' gradient
            note="" if twin else "convolutions dominate: only the reduction is ours here",
        )
    )
