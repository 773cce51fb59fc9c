"""The tables of docs/second_order.md: what layers send, and the penalties of known code bases.

``python tests/ops/conventions.py`` prints them; --write puts them into the page.
test_conventions.py computes every row.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganops import ops
from ganops.ops.philox import seed_from

PAGE = Path(__file__).parents[2] / "docs" / "second_order.md"
SEED = 5


@dataclass
class Setting:
    """A small critic and generator, and images in [0, 1], which every convention allows."""

    critic: nn.Module
    generator: Callable[[Tensor], Tensor]
    real: Tensor
    fake: Tensor
    w: Tensor  # (B, L, d)
    alpha: Tensor
    noise: Tensor  # of the generated images' shape
    weights: list[Tensor]  # the critic's and the generator's
    mean: float = 0.25

    def grad(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(self.critic(x).sum(), x, create_graph=True)
        return g

    def norms(self, x: Tensor, epsilon: float = 0.0) -> Tensor:
        return (self.squares(x) + epsilon).sqrt()

    def squares(self, x: Tensor) -> Tensor:
        return self.grad(x).square().sum((1, 2, 3))

    @property
    def between(self) -> Tensor:
        a = self.alpha.view(-1, 1, 1, 1)
        return a * self.real + (1 - a) * self.fake

    def uniform(self, *shape: int, stream: int = 0) -> Tensor:
        seed = seed_from(self.rng())
        return ops.random_uniform(shape, seed=seed, stream=stream).to(self.real)

    def normal(self) -> Tensor:
        return ops.random_normal(self.real.shape, seed=seed_from(self.rng())).to(self.real)

    def rng(self) -> torch.Generator:
        return torch.Generator().manual_seed(SEED)


def setting() -> Setting:
    torch.manual_seed(3)
    critic = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(96, 8), nn.Tanh(),
        nn.Linear(8, 1),
    ).double()  # fmt: skip
    critic[-1].weight.data *= 7.9
    mix = torch.randn(2 * 5, 3 * 8 * 8, dtype=torch.float64, requires_grad=True)
    real, fake = torch.rand(2, 4, 3, 8, 8, dtype=torch.float64)
    return Setting(
        critic, lambda w: (w.flatten(1) @ mix).tanh().view(-1, 3, 8, 8), real, fake,
        torch.randn(4, 2, 5, dtype=torch.float64), torch.rand(4, dtype=torch.float64),
        torch.randn(4, 3, 8, 8, dtype=torch.float64),
        [mix, *(p for p in critic.parameters() if p.dim() > 1)],
    )  # fmt: skip


def gp(s: Setting, **how: Any) -> Tensor:
    return ops.gradient_penalty(s.critic, s.real, s.fake, alpha=s.alpha, **how)


def dragan(s: Setting, **how: Any) -> Tensor:
    return ops.dragan_penalty(s.critic, s.real, generator=s.rng(), **how)


def r1(s: Setting) -> Tensor:
    return ops.r1_penalty(s.critic, s.real)


def r2(s: Setting) -> Tensor:
    return ops.r2_penalty(s.critic, s.fake)


def path_length(s: Setting) -> Tensor:
    mean = torch.tensor(s.mean, dtype=torch.float64)
    return ops.path_length_penalty(s.generator, s.w, mean, noise=s.noise)


def stylegan2_path_length(s: Setting) -> Tensor:
    w = s.w.detach().requires_grad_()
    images = s.generator(w)
    y = s.noise / math.sqrt(8 * 8)
    (g,) = torch.autograd.grad((images * y).sum(), w, create_graph=True)
    lengths = g.square().sum(2).mean(1).sqrt()
    return 2 * (lengths - (s.mean + 0.01 * (lengths.mean() - s.mean))).square().mean()


def dragan_code_points(s: Setting) -> Tensor:
    perturbed = s.real + 0.5 * s.real.std(correction=0) * s.uniform(*s.real.shape)
    return s.real + s.uniform(4, stream=1).view(-1, 1, 1, 1) * (perturbed - s.real)


def compare_gan_points(s: Setting) -> Tensor:
    std = s.real.std(correction=0)
    return (s.real + std * (s.uniform(*s.real.shape) - 0.5)).clamp(0, 1)


@dataclass
class Convention:
    """One row. `within`: the relative distance of both columns; None for a mistake, far off."""

    code: str
    term: str  # what is added to the loss; n = |gradient of one sample|
    at: str  # where the gradient is taken
    theirs: Callable[[Setting], Tensor]
    ours_text: str
    ours: Callable[[Setting], Tensor]
    read: str  # what the formula was checked against
    within: float | None = 1e-10


PAPER, CODE = "paper", "code"
CONVENTIONS = [
    Convention("WGAN-GP, two-sided; igul222/improved_wgan_training", "10 mean (n - 1)^2",
               "between real and fake", lambda s: 10 * (s.norms(s.between) - 1).square().mean(),
               "10 * gradient_penalty(D, x, G)", lambda s: 10 * gp(s), PAPER),
    Convention("WGAN-GP, one-sided", "10 mean max(0, n - 1)^2", "between real and fake",
               lambda s: 10 * (s.norms(s.between) - 1).clamp_min(0).square().mean(),
               "10 * gradient_penalty(..., one_sided=True)", lambda s: 10 * gp(s, one_sided=True),
               PAPER),
    Convention("ProGAN's WGAN-GP on CIFAR-10", "mean (n - 750)^2 / 750^2", "between real and fake",
               lambda s: ((s.norms(s.between) - 750) / 750).square().mean(),
               "gradient_penalty(..., center=750) / 750**2",
               lambda s: gp(s, center=750) / 750**2, "second hand"),
    Convention("R1 paper, StyleGAN2 family, StudioGAN, R3GAN", "g/2 mean n^2", "real",
               lambda s: 0.7 / 2 * s.squares(s.real).mean(), "g * r1_penalty(D, x)",
               lambda s: 0.7 * r1(s), CODE),
    Convention("LMescheder/GAN_stability", "r mean n^2, r = 10", "real",
               lambda s: 10 * s.squares(s.real).mean(), "2 * r * r1_penalty(D, x)",
               lambda s: 20 * r1(s), CODE),
    Convention("StyleGAN2, lazy R1", "16 g/2 mean n^2, every 16th step", "real",
               lambda s: 16 * 0.7 / 2 * s.squares(s.real).mean(), "16 * g * r1_penalty(D, x)",
               lambda s: 16 * 0.7 * r1(s), CODE),
    Convention("R3GAN", "g/2 (mean n^2 + mean n^2), every step", "real, and fake",
               lambda s: 0.7 / 2 * (s.squares(s.real).mean() + s.squares(s.fake).mean()),
               "g * (r1_penalty(D, x) + r2_penalty(D, G))", lambda s: 0.7 * (r1(s) + r2(s)), CODE),
    Convention("kodalinaveen3/DRAGAN", "10 mean (n - 1)^2",
               "x + a (std u / 2), u per pixel, a per sample",
               lambda s: 10 * (s.norms(dragan_code_points(s)) - 1).square().mean(),
               "10 * dragan_penalty(D, x)", lambda s: 10 * dragan(s), CODE),
    Convention("DRAGAN, paper", "10 mean (n - 1)^2", "x + N(0, c); c = 10 is often quoted",
               lambda s: 10 * (s.norms(s.real + math.sqrt(0.3) * s.normal()) - 1).square().mean(),
               "10 * dragan_penalty(D, x, noise='paper', variance=c)",
               lambda s: 10 * dragan(s, noise="paper", variance=0.3),
               "paper text not obtained; c not verified"),
    Convention("compare_gan, DRAGAN", "lambda mean (n - 1)^2, n^2 + 1e-4 for n^2",
               "x + std (u - 1/2), clamped to [0, 1]",
               lambda s: 10 * (s.norms(compare_gan_points(s), 1e-4) - 1).square().mean(),
               "lambda * dragan_penalty(D, x, noise='compare_gan')",
               lambda s: 10 * dragan(s, noise="compare_gan"), CODE, 1e-2),
    Convention("StyleGAN2, path length", "2 mean (l - a)^2, every 4th step times 4", "latents w",
               stylegan2_path_length, "2 * path_length_penalty(G, w, mean)",
               lambda s: 2 * path_length(s), CODE),
    Convention("mistake: Zeleni9/pytorch-wgan #40, PyTorch-GAN dragan.py",
               "norm over channels only", "between real and fake",
               lambda s: 10 * (s.grad(s.between).norm(2, dim=1) - 1).square().mean(),
               "none: n runs over C, H and W", lambda s: 10 * gp(s), "issue", None),
    Convention("mistake: vsyrgkanis/optimistic_GAN_training", "one norm over the whole batch",
               "between real and fake", lambda s: 10 * (s.grad(s.between).norm() - 1).square(),
               "none: about sqrt(B) too large an n", lambda s: 10 * gp(s), CODE, None),
    Convention("mistake: R1 as a mean over pixels", "g/2 mean over B, C, H, W", "real",
               lambda s: 0.7 / 2 * s.grad(s.real).square().mean(),
               "g / (C H W) * r1_penalty(D, x)", lambda s: 0.7 / (3 * 8 * 8) * r1(s), "worked out"),
]  # fmt: skip


F = nn.functional
LAYERS: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {
    "zeros": {
        "relu": F.relu, "leaky_relu": F.leaky_relu, "relu6": F.relu6, "hardtanh": F.hardtanh,
        "threshold": lambda t: F.threshold(t, 0.1, 0.0), "abs": torch.abs,
        "prelu": lambda t: F.prelu(t, torch.full((1,), 0.2).to(t)),
        "max_pool2d": lambda t: F.max_pool2d(t, 2), "avg_pool2d": lambda t: F.avg_pool2d(t, 2),
        "adaptive_avg_pool2d": lambda t: F.adaptive_avg_pool2d(t, 3),
        "adaptive_max_pool2d": lambda t: F.adaptive_max_pool2d(t, 3),
        "reflect pad": lambda t: F.pad(t, (1, 1, 1, 1), "reflect"),
        "replicate pad": lambda t: F.pad(t, (1, 1, 1, 1), "replicate"),
    },
    "nothing": {
        "conv2d": lambda t: F.conv2d(t, torch.ones(4, 4, 3, 3).to(t)),
        "linear": lambda t: F.linear(t, torch.ones(3, 8).to(t)),
        "constant pad": lambda t: F.pad(t, (1, 1, 1, 1)), "sum": lambda t: t.sum(1),
        "where": lambda t: torch.where(t > 0, t, 0.2 * t), "clamp": lambda t: t.clamp(-1, 1),
        "interpolate": lambda t: F.interpolate(t, scale_factor=2, mode="bilinear"),
        "pixel_shuffle": lambda t: F.pixel_shuffle(t, 2),
    },
    "a real term": {
        "silu": F.silu, "gelu": F.gelu, "elu": F.elu, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
        "softplus": F.softplus, "layer_norm": lambda t: F.layer_norm(t, t.shape[1:]),
        "instance_norm": F.instance_norm, "group_norm": lambda t: F.group_norm(t, 2),
    },
}  # fmt: skip


def sent(layer: Callable[[Tensor], Tensor]) -> str:
    """What stock PyTorch's double backward sends into the forward pass of a layer."""
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    (g,) = torch.autograd.grad(y, x, torch.randn_like(y).requires_grad_(), create_graph=True)
    (found,) = torch.autograd.grad(g, x, torch.randn_like(g), allow_unused=True)
    return "nothing" if found is None else "a real term" if found.any() else "zeros"


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [heads, ["---"] * len(heads), *rows])


def tables() -> dict[str, str]:
    """The page's generated parts, by the name of their markers."""
    conventions = [[c.code, c.term, c.at, f"`{c.ours_text}`" if c.within else c.ours_text, c.read]
                   for c in CONVENTIONS]  # fmt: skip
    return {
        "layers": markdown(["stock PyTorch sends", "from"],
                           [[kind, ", ".join(layers)] for kind, layers in LAYERS.items()]),
        "conventions": markdown(["code base", "what it adds to the loss", "at", "in ganops",
                                 "read in"], conventions),
    }  # fmt: skip


def page_with_tables() -> str:
    text = PAGE.read_text()
    for name, table in tables().items():
        begin, end = (f"<!-- {name}: {edge} -->\n" for edge in ("begin", "end"))
        before, rest = text.split(begin)
        text = before + begin + table + end + rest.split(end)[1]
    return text


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page_with_tables())
    else:
        print(*tables().values(), sep="\n")
