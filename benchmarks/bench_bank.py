"""The bank of K discriminators: a Python loop over K modules, stock grouped convolutions, ours.

One batch for each of the card's discriminators on 32x32 views: 4x4 convolutions of stride 2 with
bias and leaky ReLU, and a last of 2x2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from arms import sizes
from harness import Case, Floor, Size
from torch import Tensor, nn

from ganops import ops
from ganops.nn import DiscriminatorBank

Bench = Callable[[Case], None]
Score = Callable[[Tensor], Tensor]


def discriminator(base: int, side: int) -> Callable[[], nn.Module]:
    """The card's D_k."""

    def make() -> nn.Module:
        layers: list[nn.Module] = []
        channels = 1
        while side >> len(layers) // 2 > 2:
            wider = base * 2 ** (len(layers) // 2)
            layers += [nn.Conv2d(channels, wider, 4, 2, 1), nn.LeakyReLU(0.2)]
            channels = wider
        return nn.Sequential(*layers, nn.Conv2d(channels, 1, 2))

    return make


class Setting:
    """A bank, K modules with its weights, and stock grouped convolutions on the same."""

    def __init__(self, size: Size, base: int, device: str) -> None:
        self.members, batch, side, _ = size.shape
        make = discriminator(base, side)
        self.bank = DiscriminatorBank(make, self.members, seed=0, execution="batched").to(device)
        self.modules = [self.bank.unbind(k) for k in range(self.members)]
        self.layers = [(p.detach().contiguous().requires_grad_(), b.detach().requires_grad_())
                       for p, b in zip(*[iter(self.bank.parameters())] * 2)]  # fmt: skip
        shape = (self.members, batch, 1, side, side)
        generator = torch.Generator().manual_seed(0)
        self.real, self.fake = (
            torch.randn(shape, generator=generator).to(device) for _ in range(2)
        )
        self.alpha = torch.rand(shape[:2], generator=generator).to(device)

    def looped(self, x: Tensor) -> Tensor:
        return torch.stack([m(x[k]).flatten() for k, m in enumerate(self.modules)])

    def grouped(self, x: Tensor) -> Tensor:
        h = x.transpose(0, 1).flatten(1, 2)
        for i, (w, b) in enumerate(self.layers):
            last = i + 1 == len(self.layers)
            numbers = (1, 0) if last else (2, 1)
            h = F.conv2d(h, w.flatten(0, 1), b.flatten(), *numbers, 1, self.members)
            h = h if last else F.leaky_relu(h, 0.2)
        return h.flatten(1).t()

    def parameters(self, which: str) -> Sequence[Tensor]:
        if which == "loop":
            return [p for m in self.modules for p in m.parameters()]
        if which == "grouped":
            return [t for layer in self.layers for t in layer]
        return list(self.bank.parameters())

    def arm(self, which: str, penalty: Callable[[Score], Tensor] | None) -> Callable[[], Any]:
        """Losses and the gradient of each parameter; returned are the first layer's."""
        score = {"loop": self.looped, "grouped": self.grouped}.get(which, self.bank)
        parameters = self.parameters(which)

        def run() -> list[Tensor]:
            losses = F.softplus(-score(self.real)).mean(1)
            if penalty is not None:
                losses = losses + 10 * penalty(score)
            grads = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
            step = len(grads) // self.members
            if which != "loop":
                return [losses, grads[0]]
            return [losses, torch.stack([g for g in grads[::step] if g is not None])]

        return run

    def stock_penalty(self, score: Score) -> Tensor:
        weight = self.alpha[..., None, None, None]
        x = torch.lerp(self.fake, self.real, weight).requires_grad_()
        (g,) = torch.autograd.grad(score(x).sum(), x, create_graph=True)
        return (g.flatten(2).norm(2, dim=2) - 1).square().mean(1)

    def penalty(self, score: Score) -> Tensor:
        return ops.gradient_penalty(
            score, self.real, self.fake, alpha=self.alpha, per_discriminator=True
        )

    def adam(self, which: str, *, fused: bool) -> Callable[[], None]:
        """Steps on gradients that stand: one optimiser of the bank, or one for each module."""
        groups = [self.bank] if which == "bank" else self.modules
        optimizers = [
            torch.optim.Adam(m.parameters(), 1e-6, betas=(0.5, 0.999), fused=fused) for m in groups
        ]
        for module in groups:
            for p in module.parameters():
                p.grad = torch.ones_like(p)

        def run() -> None:
            for optimizer in optimizers:
                optimizer.step()

        return run


def _case(setting: Setting, row: str, penalty: bool, device: str) -> Case:
    ours = setting.arm("bank", setting.penalty if penalty else None)
    stock = {
        name: setting.arm(name, setting.stock_penalty if penalty else None)
        for name in ("loop", "grouped")
    }
    floor = setting.arm("bank", None) if penalty else _forward(setting)
    return Case(
        op="discriminator_bank",
        row=row,
        ours=ours,
        stock=stock,
        floor=Floor("the loss alone" if penalty else "a forward of the bank", floor),
        nbytes=0,
        flops=0,
        device=device,
        tolerance=1e-2,  # single signs at kinks differ between kernels
        headline=True,
    )


def _forward(setting: Setting) -> Callable[[], Any]:
    def run() -> Tensor:
        with torch.no_grad():
            return setting.bank(setting.real)  # type: ignore[no-any-return]

    return run


@pytest.mark.parametrize("base", [16])
@pytest.mark.parametrize("penalty", [False, True], ids=["loss", "with penalty"])
@sizes(tiny=["2x3x8x8"], default=["48x8x32x32"])
def bench_bank(size: Size, base: int, penalty: bool, device: str, impl: str, bench: Bench) -> None:
    """A discriminator's backward: the loss on one batch, without and with WGAN-GP's penalty."""
    members, batch, side, _ = size.shape
    setting = Setting(size, base, device)
    what = "loss and gradient penalty" if penalty else "loss"
    row = f"K {members}, base {base}, {batch}x1x{side}x{side} float32, {what}, backward"
    bench(_case(setting, row, penalty, device))


@sizes(tiny=["2x3x8x8"], default=["48x8x32x32"])
def bench_bank_adam(size: Size, device: str, impl: str, bench: Bench) -> None:
    """One Adam over stacked tensors, and K of them. Floor: the seven tensors that a step moves."""
    setting = Setting(size, 16, device)
    count = sum(p.numel() for p in setting.bank.parameters())
    moved = Size((count,))
    bench(
        Case(
            op="discriminator_bank",
            row=f"K {size.shape[0]}, base 16, Adam step",
            ours=setting.adam("bank", fused=True),
            stock={
                "loop": setting.adam("loop", fused=False),
                "loop, fused": setting.adam("loop", fused=True),
            },
            peers={"bank, not fused": setting.adam("bank", fused=False)},
            floor=Floor.copy(7 * moved.nbytes, moved, device),
            nbytes=7 * moved.nbytes,
            flops=0,
            device=device,
            comparable=False,
        )
    )
