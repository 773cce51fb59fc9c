"""Images, critics and comparisons of the tests of consistency penalties."""

from __future__ import annotations

import torch
from torch import nn

B = 3


def images(seed, batch=B, shape=(3, 12, 12)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *shape, generator=generator, dtype=torch.float64)


REAL, FAKE, NEAR = images(0), images(1), images(1) + 0.1 * images(2)


def flip(x):
    return x.flip(-1)


def same(x):
    return x


def stock_cr(critic, x, twin):
    return (critic(x) - critic(twin)).square().flatten(1).sum(1).mean()


def make(kind="plain"):
    torch.manual_seed(0)
    norm = {"plain": nn.Identity, "instance": lambda: nn.GroupNorm(2, 6),
            "batch": lambda: nn.BatchNorm2d(6)}[kind]()  # fmt: skip
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2), norm, nn.LeakyReLU(0.2), nn.Conv2d(6, 4, 3, 2),
                         nn.Softplus(), nn.Flatten(), nn.Linear(16, 1)).double()  # fmt: skip


class Conditional(nn.Module):
    """A projection critic; `shared` is no image's own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(432, 5), nn.Tanh()).double()
        self.embed = nn.Embedding(4, 5).double()

    def forward(self, x, labels, shared=1.0, *, y=None):
        labels = labels if y is None else labels + y
        return (self.embed(labels) * self.features(x)).sum(1) * shared


def assert_same(critic, ours, expected):
    params = list(critic.parameters())
    both = [
        torch.autograd.grad(t, params, allow_unused=True, retain_graph=True)
        for t in (ours, expected)
    ]
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-13)
    assert any(g is not None and g.any() for g in both[0])
    for p, *pair in zip(params, *both):
        a, b = (torch.zeros_like(p) if g is None else g for g in pair)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


class Calls:
    """Stands before a critic and notes the sizes of the batches that it sees."""

    def __init__(self, critic):
        self.critic, self.sizes = critic, []

    def __call__(self, x, *args, **kwargs):
        self.sizes.append(len(x))
        return self.critic(x, *args, **kwargs)
