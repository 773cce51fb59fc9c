"""Critics as people write them, of stock layers: 3x12x12 (or flat) images to scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrizations import spectral_norm


class Residual(nn.Module):
    """SNGAN's: pre-activation, shortcut convolutions, average pools; in place as in public code."""

    def __init__(self, channels=6, wrap=lambda layer: layer, act=None, in_place=False):
        super().__init__()
        self.first = wrap(nn.Conv2d(3, channels, 3, padding=1))
        self.a = wrap(nn.Conv2d(channels, channels, 3, padding=1))
        self.b = wrap(nn.Conv2d(channels, channels, 3, padding=1))
        self.shortcut = wrap(nn.Conv2d(channels, channels, 1))
        self.last = wrap(nn.Linear(channels, 1))
        self.act = act or nn.ReLU(in_place)

    def forward(self, x):
        h = self.first(x)
        h = F.avg_pool2d(self.b(self.act(self.a(self.act(h)))), 2) + F.avg_pool2d(
            self.shortcut(h), 2
        )
        return self.last(self.act(h).sum((2, 3)))


class Projection(nn.Module):
    """Class-conditional, with an embedding head and a keyword."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.PReLU(6), nn.Conv2d(6, 8, 3))
        self.embed, self.head = nn.Embedding(4, 8), nn.Linear(8, 1)

    def forward(self, x, labels=None):
        labels = torch.arange(x.shape[0]) % 4 if labels is None else labels
        h = torch.relu(self.features(x)).mean((2, 3))
        return self.head(h).squeeze(1) + (self.embed(labels) * h).sum(1)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.qkv = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 24)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 1)

    def forward(self, x):
        h = self.stem(x).flatten(2).transpose(1, 2)
        with sdpa_kernel(SDPBackend.MATH):
            h = h + F.scaled_dot_product_attention(*self.qkv(self.norm(h)).chunk(3, -1))
        return self.head(F.gelu(h)).mean((1, 2))


class MinibatchStd(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 5, 3, 2), nn.Conv2d(6, 1, 5)

    def forward(self, x):
        h = F.leaky_relu(self.conv(x), 0.2, inplace=True)
        std = (h.var(0, correction=0) + 1e-8).sqrt().mean().expand(h.shape[0], 1, *h.shape[2:])
        return self.head(torch.cat([h, std], 1))


class InPlace(nn.Module):
    """Every way to write an in-place activation, on values that are used again."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 1)

    def forward(self, x):
        h = self.a(x)
        h.relu_()
        k = F.leaky_relu_(self.b(h), 0.1)
        k = k + h
        F.relu(k[:, :3], inplace=True)
        k = 1.1 * k
        F.hardtanh(k, -2.0, 2.0, inplace=True)
        k = k + 0.1
        return self.head(torch.relu_(k).mean((2, 3)))


class Returns(nn.Module):
    """Scores among other things."""

    def __init__(self, form):
        super().__init__()
        self.conv, self.form = nn.Conv2d(3, 1, 12), form

    def forward(self, x):
        scores = self.conv(x).abs()
        return {"tuple": (scores, x), "dict": {"logits": scores, "x": x}}[self.form]


class OwnFilters(nn.Module):
    """A critic that predicts its filters from the images: weights that must not be pruned."""

    def __init__(self):
        super().__init__()
        self.predict, self.a = nn.Linear(3, 12), nn.Conv2d(3, 3, 3)
        self.slope = nn.Linear(3, 4)

    def forward(self, x):
        means = x.mean((0, 2, 3))
        filters = self.predict(means).view(4, 3, 1, 1)
        h = F.conv2d(self.a(x), filters, self.slope(means))
        h = F.conv_transpose2d(h, filters, means)
        return F.prelu(h, means).mean((1, 2, 3))


class Borders(nn.Module):
    """Reflection, replication, and every pool."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=2, padding_mode="reflect")
        self.b = nn.Conv2d(4, 4, 3, groups=2, padding="same")
        self.up = nn.ConvTranspose2d(4, 2, 4, 2, 1)

    def forward(self, x):
        h = F.relu6(F.pad(self.a(x), (1, 0, 2, 1), "replicate"))
        h = F.max_pool2d(F.threshold(self.b(h), 0.1, 0.0), 2, return_indices=True)[0]
        h = self.up(F.adaptive_avg_pool2d(h, 5))
        return F.adaptive_max_pool2d(nn.ReflectionPad2d(1)(h), 2).sum((1, 2, 3))


def dcgan(channels=4, norm=lambda c, s: nn.Identity(), act=None):
    act = act or nn.LeakyReLU(0.2, inplace=True)  # one object for all layers, as in public code
    return nn.Sequential(
        nn.Conv2d(3, channels, 4, 2, 1, bias=False), act,
        nn.Conv2d(channels, 2 * channels, 4, 2, 1), norm(2 * channels, 3), act,
        nn.Conv2d(2 * channels, 1, 3),
    )  # fmt: skip


def mlp(width=16):
    layers = [nn.Flatten(), nn.Linear(432, width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(width, width), nn.ReLU(True), nn.Linear(width, 1))


CRITICS = {
    "dcgan": dcgan,
    "mlp": mlp,
    "residual": Residual,
    "residual-in-place": lambda: Residual(in_place=True),
    "residual-spectral": lambda: Residual(wrap=spectral_norm).eval(),
    "projection": Projection,
    "attention": Attention,
    "minibatch-std": MinibatchStd,
    "in-place": InPlace,
    "own-filters": OwnFilters,
    "borders": Borders,
    "group-norm": lambda: dcgan(norm=lambda c, s: nn.GroupNorm(2, c)),
    "layer-norm": lambda: dcgan(norm=lambda c, s: nn.LayerNorm([c, s, s])),
    "instance-norm": lambda: dcgan(norm=lambda c, s: nn.InstanceNorm2d(c, affine=True)),
    "batch-norm-train": lambda: dcgan(
        norm=lambda c, s: nn.BatchNorm2d(c, track_running_stats=False)
    ),
    "rms-norm": lambda: dcgan(norm=lambda c, s: nn.RMSNorm([c, s, s])),
    "batch-norm-eval": lambda: dcgan(norm=lambda c, s: nn.BatchNorm2d(c)).eval(),
    "silu": lambda: dcgan(act=nn.SiLU(inplace=True)),
    "hooks": lambda: _with_hooks(dcgan()),
}
PIECEWISE_LINEAR = ("dcgan", "mlp", "residual", "residual-in-place", "in-place", "borders")


def _with_hooks(critic):
    critic[0].register_forward_hook(lambda module, inputs, out: 1.5 * out)
    critic[2].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 0.1,))
    critic[5].register_full_backward_hook(lambda module, gx, gy: None)
    return critic


def make(name):
    """In float64, with the same weights each time."""
    torch.manual_seed(7)
    return CRITICS[name]().double()
