"""WGAN-GP. Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville 2017, arXiv 1704.00028.

Who updates what, in which order, each step:
1. five times (n_critic): the critic f, on fresh reals x, fresh z and fresh eps,
   L_D = mean f(G(z)) - mean f(x) + 10 * mean (|grad f(eps x + (1 - eps) G(z))| - 1)^2;
2. once: the generator G, on fresh z, L_G = -mean f(G(z)).
Adam with lr 1e-4 and betas (0, 0.9) for both. The critic must not couple samples (no batch norm).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar

from torch import Tensor, nn

from ganops import models
from ganops.losses import wasserstein
from ganops.methods.base import EMA, Adam, ImageSpec, Method, Phase, Recipe
from ganops.methods.config import check_range
from ganops.methods.turn import Turn
from ganops.models import ConvCritic, ConvGenerator, CriticConfig, GeneratorConfig
from ganops.regularizers import GP


@dataclasses.dataclass(frozen=True)
class WGANGP(Recipe):
    """Settings of WGAN-GP; defaults are Algorithm 1 of the paper, networks are small conv nets."""

    n_critic: int = 5
    penalty: GP = field(default_factory=GP)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    optimizer_g: Adam = field(default_factory=Adam)
    optimizer_d: Adam = field(default_factory=Adam)
    ema: EMA = field(default_factory=EMA)

    method: ClassVar[str] = "wgan-gp"
    summary: ClassVar[str] = "Wasserstein critic kept near unit slope by a gradient penalty"

    def __post_init__(self) -> None:
        check_range("n_critic", self.n_critic, 1)

    def build(self, images: ImageSpec, networks: Mapping[str, nn.Module]) -> Method:
        size = (images.channels, images.height, images.width)
        generator = networks.get("generator") or ConvGenerator(self.generator, *size)
        critic = networks.get("discriminator") or ConvCritic(self.critic, *size)
        models.refuse_batch_norm(critic, "a critic under a per-sample gradient penalty")
        return Method(
            networks={"generator": generator, "discriminator": critic},
            phases=(
                Phase("d", ("discriminator",), critic_loss, self.optimizer_d, repeat=self.n_critic),
                Phase("g", ("generator",), generator_loss, self.optimizer_g),
            ),
            z_dim=int(getattr(generator, "z_dim", self.generator.z_dim)),
            regularizers=(self.penalty, *self.regularizers),
            average=self.ema,
        )


def critic_loss(turn: Turn) -> Tensor:
    real, fake = models.scores(turn.discriminator, turn.real, turn.fake)
    return wasserstein.d(real, fake)


def generator_loss(turn: Turn) -> Tensor:
    return wasserstein.g(turn.discriminator(turn.fake))
