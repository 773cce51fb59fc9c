"""Small convolutional generator and critic for any even image size, used where a method names none.

Nearest upsampling then 3x3 convolution in the generator, 4x4 stride-2 convolutions in the critic,
leaky ReLU 0.2 with gain sqrt 2 after the bias, weights of standard deviation 1/sqrt(fan_in). The
layout is ours, not a paper's.
"""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from ganops.ops import bias_act


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
    """`width` channels at full resolution, doubled per halving up to 8 * width."""

    z_dim: int = 64
    width: int = 32
    norm: Literal["batch", "none"] = "batch"

    def __post_init__(self) -> None:
        _at_least_one(self)


@dataclasses.dataclass(frozen=True)
class CriticConfig:
    """`width` channels at full resolution, doubled per halving up to 8 * width; `hidden` units."""

    width: int = 32
    hidden: int = 128

    def __post_init__(self) -> None:
        _at_least_one(self)


def _at_least_one(settings: GeneratorConfig | CriticConfig) -> None:
    for name, value in vars(settings).items():
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")


def levels(height: int, width: int) -> int:
    """How often both sides can be halved while staying at least 4."""
    count = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) >= 8:
        height, width, count = height // 2, width // 2, count + 1
    return count


class Activated(nn.Module):
    """A convolution or linear layer, optional batch norm, bias, leaky ReLU, in one place."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, channels: int, *, norm: bool = False) -> None:
        super().__init__()
        fan_in = math.prod(layer.weight.shape[1:])
        nn.init.normal_(layer.weight, std=fan_in**-0.5)
        self.layer = layer
        self.norm = nn.BatchNorm2d(channels, affine=True) if norm else None
        self.bias = None if norm else nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        if self.norm is not None:
            x = self.norm(x)
        return bias_act(x, self.bias, act="lrelu")


class ConvGenerator(nn.Module):
    """z (B, z_dim) -> images (B, C, H, W) in [-1, 1]."""

    def __init__(self, settings: GeneratorConfig, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.z_dim = settings.z_dim
        norm, depth = settings.norm == "batch", levels(height, width)
        wide = [settings.width * min(2**i, 8) for i in range(depth, -1, -1)]
        base = (wide[0], height >> depth, width >> depth)
        start = nn.Linear(self.z_dim, math.prod(base), bias=False)
        nn.init.normal_(start.weight, std=self.z_dim**-0.5)
        self.start = nn.Sequential(start, nn.Unflatten(1, base))
        self.first = Activated(nn.Conv2d(wide[0], wide[0], 1, bias=False), wide[0], norm=norm)
        self.up = nn.ModuleList(
            Activated(nn.Conv2d(a, b, 3, padding=1, bias=False), b, norm=norm)
            for a, b in pairwise(wide)
        )
        self.image = nn.Conv2d(wide[-1], channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.first(self.start(z))
        for block in self.up:
            x = block(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return torch.tanh(self.image(x))


class ConvCritic(nn.Module):
    """Images (B, C, H, W) -> scores (B,). Piecewise linear; no layer couples samples."""

    per_sample = True

    def __init__(self, settings: CriticConfig, channels: int, height: int, width: int) -> None:
        super().__init__()
        depth = levels(height, width)
        wide = [settings.width * min(2**i, 8) for i in range(depth + 1)]
        self.body = nn.Sequential(
            Activated(nn.Conv2d(channels, wide[0], 3, padding=1, bias=False), wide[0]),
            *(
                Activated(nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False), b)
                for a, b in pairwise(wide)
            ),
            nn.Flatten(),
        )
        features = wide[-1] * (height >> depth) * (width >> depth)
        self.hidden = Activated(nn.Linear(features, settings.hidden, bias=False), settings.hidden)
        self.score = nn.Linear(settings.hidden, 1)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.score(self.hidden(self.body(images)))
        return scores.squeeze(1)
