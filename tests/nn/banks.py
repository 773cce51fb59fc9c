"""Discriminators for the tests of the bank, one of each kind of layer, and K of them apart."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ganops import nn as gnn
from ganops import ops

K, B = 3, 4


class Mixed(nn.Module):
    """Code of its own: a skip connection, functions, reflect padding, an in-place activation."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding="same", padding_mode="reflect")
        self.grouped = nn.Conv2d(4, 4, 3, 1, 1, groups=2, dilation=1)
        self.up = nn.ConvTranspose2d(4, 2, 4, 2, 1, groups=2)
        self.down = nn.Conv2d(2, 8, (4, 3), (2, 1), (1, 2), bias=False)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        h = nn.functional.leaky_relu(self.first(x), 0.2, inplace=True)
        h = h + self.grouped(h)
        h = torch.relu(self.down(self.up(h))) * self.scale
        return self.head(ops.bias_act(h.mean((2, 3)), act="swish"))


def rp():
    """The card's, on 16 x 16."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 8, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(8, 64, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(64, 1, 2),
    )  # fmt: skip


def normed(norm):
    return lambda: nn.Sequential(
        nn.Conv2d(1, 4, 4, 4), norm(4), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(64, 1)
    )


def spectral():
    return nn.Sequential(
        spectral_norm(nn.Conv2d(1, 4, 4, 2, 1)), nn.ReLU(), nn.MaxPool2d(2),
        spectral_norm(nn.ConvTranspose2d(4, 4, 2, 2), dim=1), nn.AvgPool2d(4), nn.Flatten(),
        spectral_norm(nn.Linear(16, 1), n_power_iterations=2),
    )  # fmt: skip


def twins():
    """ganops' own layers, and statistics of the batch."""
    return nn.Sequential(
        gnn.Conv2d(1, 4, 4, 4), gnn.BatchNorm2d(4), gnn.SiLU(), gnn.MinibatchStdDev(2),
        spectral_norm(gnn.Conv2d(5, 2, 4)), nn.Flatten(1), nn.PReLU(2), nn.Linear(2, 1),
    )  # fmt: skip


def vectors():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(256, 8), nn.LayerNorm(8), nn.GELU(), nn.RMSNorm(8), nn.Linear(8, 1)
    )


ARCHITECTURES = {
    "rp": rp,
    "mixed": Mixed,
    "batch norm": normed(nn.BatchNorm2d),
    "instance norm": normed(lambda c: nn.InstanceNorm2d(c, affine=True, track_running_stats=True)),
    "group norm": normed(lambda c: nn.GroupNorm(2, c)),
    "layer norm": normed(lambda c: nn.LayerNorm([c, 4, 4])),
    "spectral norm": spectral,
    "ganops.nn": twins,
    "vectors": vectors,
}


def apart(make, seeds):
    """K modules built under their seeds."""
    found = []
    for seed in seeds:
        torch.manual_seed(seed)
        found.append(make())
    return found


def images(seed=0, count=K, batch=B):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, batch, 1, 16, 16, generator=generator, dtype=torch.float64)


def stacked(members, read):
    return torch.stack([read(m) for m in members])
