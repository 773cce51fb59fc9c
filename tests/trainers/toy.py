"""A method small enough to compute by hand, and a way to run its phases without a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from ganops.data import ImageSet
from ganops.methods import EMA, Adam, ImageSpec, Method, Phase, Recipe
from ganops.trainers.guard import Guard
from ganops.trainers.step import Position, Stepper


class ToyGenerator(nn.Module):
    """z (B, 2) -> (B, 1, 2, 2); counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.z_dim, self.calls = 2, 0
        self.layer = nn.Linear(2, 4)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.tanh(self.layer(z)).reshape(-1, 1, 2, 2)


class ToyCritic(nn.Module):
    """(B, 1, 2, 2) -> (B,)"""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1)).squeeze(1)


def d_loss(turn) -> torch.Tensor:
    return turn.discriminator(turn.fake).mean() - turn.discriminator(turn.real).mean()


def g_loss(turn) -> torch.Tensor:
    return -turn.discriminator(turn.fake).mean()


def toy_method(phases=None, **fields: Any) -> Method:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = {"generator": ToyGenerator(), "discriminator": ToyCritic()}
    if phases is None:
        phases = (
            Phase("d", ("discriminator",), d_loss, Adam(lr=0.1)),
            Phase("g", ("generator",), g_loss, Adam(lr=0.1)),
        )
    return Method(networks=networks, phases=phases, z_dim=2, **fields)


def toy_images(n: int = 10) -> ImageSet:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(256, (n, 1, 2, 2), generator=generator, dtype=torch.int64)
    return ImageSet(images.to(torch.uint8), torch.arange(n) % 2, seed=1)


def toy_stepper(method: Method, *, policy: str = "error", batch: int = 4, seed: int = 0) -> Stepper:
    device = torch.device("cpu")
    guard = Guard(policy, 2, device)
    source = {"data": toy_images()}
    return Stepper(method, source, guard, batch=batch, seed=seed, device=device)


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


@dataclasses.dataclass(frozen=True)
class ToyRecipe(Recipe):
    """A recipe that is not one of the library's: the loop must not care."""

    lr: float = 0.01
    nan_at: int = -1  # step whose critic loss is not a number
    once: bool = True  # ... in the first attempt only
    ema: EMA = dataclasses.field(default_factory=lambda: EMA(beta=0.5))
    method: ClassVar[str] = "toy"

    def build(self, images: ImageSpec, networks: Mapping[str, nn.Module]) -> Method:
        def broken(turn) -> torch.Tensor:
            bad = turn.step == self.nan_at and not (self.once and turn.draw._attempt)
            return d_loss(turn) * (float("nan") if bad else 1.0)

        base = toy_method()
        return dataclasses.replace(
            base,
            networks={**base.networks, **networks},
            phases=(
                Phase("d", ("discriminator",), broken, Adam(lr=self.lr), repeat=2),
                Phase("g", ("generator",), g_loss, Adam(lr=self.lr)),
            ),
            average=self.ema,
        )


__all__ = ["Position", "ToyRecipe", "toy_images", "toy_method", "toy_stepper", "weights"]
