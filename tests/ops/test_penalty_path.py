"""What the engines that need a piecewise linear critic accept, and what they must refuse.

All sizes are 4, so that no shape gives away which dimension holds the samples.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from counting import Counter, Peak
from torch import nn

from ganops import ops

GENERATOR = torch.Generator().manual_seed(0)
OTHER = torch.randn(4, 4, 4, 4, generator=GENERATOR, dtype=torch.float64)
ROW = torch.randn(4, generator=GENERATOR, dtype=torch.float64)
X = torch.randn(4, 3, 4, 4, generator=GENERATOR, dtype=torch.float64)


class Between(nn.Module):
    """conv, f, conv, one score a sample."""

    def __init__(self, f):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.f = nn.Conv2d(3, 4, 3, padding=1), f
        self.second, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 1)
        self.to(torch.float64)

    def forward(self, x):
        h = torch.relu(self.second(self.f(self.first(x)).reshape(4, 4, 4, -1)))
        return self.last(h.mean((2, 3)))


APART = {
    "arithmetic": lambda h: 2 - (h * 3 + OTHER - (-h)) / 4,
    "two of them": lambda h: h + F.leaky_relu(h, 0.1) - h.relu(),
    "times constant": lambda h: OTHER * h * ROW[:, None, None, None],
    "broadcast": lambda h: h + h.mean((2, 3), keepdim=True) + h.amax(1, keepdim=True),
    "views": lambda h: h.view(4, 16, 4).unsqueeze(1).squeeze(1).flatten(1).unflatten(1, (4, 4, 4)),
    "unsafe view": lambda h: h.permute(0, 2, 3, 1).reshape(4, 16, 4),
    "permute": lambda h: h.permute(0, 3, 1, 2).transpose(-1, 1).contiguous(),
    "expand": lambda h: h[:, :, :, :1].expand(4, 4, 4, 4),
    "cut and join": lambda h: torch.cat([c + 1 for c in h.chunk(2, -1)] + [h[:, :, :, 1:3]], -3),
    "split": lambda h: torch.cat(h.split([1, 3], 1)[::-1], 1),
    "stack": lambda h: torch.stack([h[:, i] for i in range(4)], 2),
    "flip": lambda h: h.flip(-1),
    "sums": lambda h: h.sum(-1, keepdim=True) + torch.einsum("bchw->bch", h)[..., None],
    "sums of three": lambda h: h + (h.flatten(2).sum(-1) - h.flatten(2).sum(-2)[:, :4])[..., None,
                                                                                        None],
    "where": lambda h: torch.where(h > 0, h, OTHER) + torch.where(OTHER > 0, OTHER, h),
    "maximum": lambda h: torch.maximum(h, -2 * h) + torch.minimum(OTHER, h),
    "clamp": lambda h: h.clamp(-1, 1) + h.clamp_min(0.1) + h.clamp(max=0.2),
    "activations": lambda h: F.relu6(h) + h.abs() + F.hardtanh(h, -0.5, 0.5) + F.threshold(h, 0, 1),
    "negative slope": lambda h: F.leaky_relu(h, -0.3),
    "in place": lambda h: F.hardtanh_(2 * F.leaky_relu_(h * 1, 0.3), -0.5, 0.5),
    "frozen prelu": lambda h: F.prelu(h, ROW),
    "pools": lambda h: F.max_pool2d(h, 3, 1, 1) + F.avg_pool2d(h, 3, 1, 1),
    "adaptive pools": lambda h: F.adaptive_avg_pool2d(h, 2) + F.adaptive_max_pool2d(h, 2),
    "pads": lambda h: F.pad(F.pad(h, (1, 0, 0, 1)), (1, 1, 1, 1), "reflect")[:, :, :4, :4],
    "resize": lambda h: F.interpolate(h, (8, 8)) + F.interpolate(h, (8, 8), mode="bilinear"),
    "pixels": lambda h: F.pixel_shuffle(F.pixel_unshuffle(h, 2), 2),
    "dtype": lambda h: (h.float() * 2).double(),
    "transposed": lambda h: F.conv_transpose2d(h, OTHER, None, 2, 1)[..., :4],
    "detached": lambda h: h * h.detach().mean(0) - h.detach().square(),
}  # fmt: skip
COUPLED = {
    "transpose": lambda h: h.transpose(0, 1),
    "permute": lambda h: h.permute(1, 0, 2, 3),
    "t": lambda h: h.reshape(4, 64).t().reshape(4, 4, 4, 4),
    "mean": lambda h: h - h.mean(0, keepdim=True),
    "sum": lambda h: h.sum(0).unsqueeze(1).expand(4, 4, 4, 4),
    "sum of three": lambda h: h + h.flatten(2).sum(-3)[:, :4, None, None],
    "whole mean": lambda h: h - h.mean(),
    "amax": lambda h: h - h.amax((0, 1), keepdim=True),
    "flip": lambda h: h.flip(0),
    "roll": lambda h: h.roll(1, 0),
    "slice": lambda h: h[:2].repeat(2, 1, 1, 1),
    "select": lambda h: h + h[0],
    "cat": lambda h: torch.cat([h[1:], h[:1]], 0),
    "stack": lambda h: torch.stack(list(h.unbind(0))[::-1], 0),
    "chunk": lambda h: torch.cat(h.chunk(2)[::-1]),
    "index": lambda h: h[torch.tensor([1, 2, 3, 0])],
    "groups": lambda h: h.view(2, 2, 4, 4, 4).mean(1, keepdim=True).expand(2, 2, 4, 4, 4),
    "broadcast": lambda h: h + (h.mean((1, 2, 3))[:, None] + h[:, 0, 0, 0])[..., None, None],
    "expand": lambda h: h.mean((1, 2, 3)).expand(4, 4)[..., None, None].expand(4, 4, 4, 4),
    "ndim": lambda h: h + h.mean(3),
    "pad": lambda h: F.pad(h, (0, 0, 0, 0, 0, 0, 1, -1)),
    "matmul": lambda h: (ROW.outer(ROW) @ h.reshape(4, 64)).view(4, 4, 4, 4),
    "conv across": lambda h: F.conv2d(h.transpose(0, 1), OTHER[:, :, :1, :1]),
}
BENT = {
    "silu": F.silu, "tanh": torch.tanh, "square": lambda h: h * h, "divide": lambda h: 1 / (2 + h),
    "gate": lambda h: h * torch.sigmoid(h.mean((2, 3), keepdim=True)), "gelu": F.gelu,
    "norm": lambda h: F.layer_norm(h, (4, 4, 4)), "attend": lambda h: h @ h.transpose(2, 3),
    "batch norm": lambda h: F.batch_norm(h, None, None, training=True),
    "own weights": lambda h: F.conv2d(h, h[:, :, :1, :1]),
}  # fmt: skip


def plain(critic, loss, gamma):
    x = X.clone().requires_grad_()
    scores = critic(x)
    (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return loss(scores) + gamma * grad.flatten(1).square().sum(1).mean() / 2


def score_loss(scores):
    return (F.softplus(scores[:, 0]) * ROW).sum()


def assert_same(critic, ours, expected):
    params = list(critic.parameters())
    both = [torch.autograd.grad(t, params, allow_unused=True) for t in (ours, expected)]
    torch.testing.assert_close(ours, expected)
    for p, a, b in zip(params, *both):
        a, b = (torch.zeros_like(p) if g is None else g for g in (a, b))
        assert (a - b).norm() <= 1e-10 * b.norm() + 1e-13


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", APART)
def test_piecewise_linear_and_sample_by_sample(name):
    critic = Between(APART[name])
    tolerant = critic if name != "dtype" else Between(lambda h: h * 2)
    ours = ops.loss_and_r1(critic, X, score_loss, gamma=0.7)
    if name == "dtype":  # through float32: right to its rounding
        torch.testing.assert_close(ours, plain(tolerant, score_loss, 0.7), rtol=1e-5, atol=0)
        return
    assert_same(critic, ours, plain(critic, score_loss, 0.7))
    penalty = ops.r1_penalty(critic, X, engine="tangent")
    assert_same(critic, penalty, plain(critic, lambda s: 0.0, 1.0))


@pytest.mark.parametrize("name", COUPLED)
def test_coupled_samples_are_refused_by_name(name):
    critic = Between(COUPLED[name])
    with pytest.raises(RuntimeError, match=r"cannot serve this critic: \w*Backward\d"):
        ops.loss_and_r1(critic, X, score_loss, gamma=0.7, engine="shared")


@pytest.mark.parametrize("engine", ["shared", "tangent"])
@pytest.mark.parametrize("name", BENT)
def test_what_is_not_piecewise_linear_is_refused_by_name(name, engine):
    critic = Between(BENT[name])

    def call():
        if engine == "shared":
            ops.loss_and_r1(critic, X, score_loss, gamma=0.7, engine=engine)
        else:
            ops.r1_penalty(critic, X, engine=engine)

    with pytest.raises(RuntimeError, match=rf"{engine}.*: \w*Backward.*use engine='autograd'"):
        call()


def test_functions_of_unknown_make_are_refused():
    """Named like a twin, and not one."""

    class Activation(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        def backward(ctx, dy):
            return 2 * dy * ctx.saved_tensors[0]

    with pytest.raises(RuntimeError, match="ActivationBackward is not known"):
        ops.r1_penalty(Between(Activation.apply), X, engine="tangent")


def test_one_sample_is_never_coupled():
    layer = nn.Conv2d(3, 4, 4).double()

    def critic(x):
        return torch.relu(layer(x)).transpose(0, 1).sum().reshape(1)

    ours = ops.loss_and_r1(critic, X[:1], lambda s: s.sum(), gamma=0.7, engine="shared")
    x = X[:1].clone().requires_grad_()
    scores = critic(x)
    (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    assert_same(layer, ours, scores.sum() + 0.35 * grad.square().sum())


def test_a_critic_that_returns_its_input():
    x = X[:, 0, 0, :1]
    ours = ops.loss_and_r1(lambda t: t, x, lambda s: s.sum(), gamma=2.0, engine="shared")
    torch.testing.assert_close(ours, x.sum() + 1)
    assert ops.r1_penalty(lambda t: t, x, engine="tangent").item() == 0.5


# ---- engine="tangent" -------------------------------------------------------------------------


def dcgan(base, act):
    layers, channels = [], 3
    for wide in (base, 2 * base, 4 * base, 8 * base):
        layers += [nn.Conv2d(channels, wide, 4, 2, 1), act()]
        channels = wide
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 4), nn.Flatten(0))


def stock_r1(critic, x):
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return grad.flatten(1).square().sum(1).mean() / 2


@pytest.mark.parametrize("in_place", [False, True])
def test_tangent_keeps_masks_and_deltas_alone(in_place):
    """Base and batch by 16, where the DCGAN of the papers has both by 64: the same proportions."""
    critic = dcgan(16, lambda: nn.LeakyReLU(0.2, in_place))
    x = torch.randn(16, 3, 64, 64)
    peaks = []
    for run in (stock_r1, lambda c, t: ops.r1_penalty(c, t, engine="tangent")):
        critic.zero_grad()
        with Peak() as peak:
            run(critic, x).backward()
        peaks.append(peak.peak)
    assert peaks[1] <= (0.55 if not in_place else 0.7) * peaks[0]


def test_tangent_costs_four_forwards():
    critic, x = dcgan(8, lambda: nn.LeakyReLU(0.2)).double(), torch.randn(2, 3, 64, 64).double()
    with torch.no_grad(), Counter() as forward:
        critic(x)
    with Counter() as counter:
        ops.r1_penalty(critic, x, engine="tangent").backward()
    assert counter.flops == 4 * forward.flops - 2 * 2 * 64 * 16  # no tangent of the last layer


def test_tangent_of_every_penalty():
    critic, x, alpha = dcgan(2, nn.ReLU).double(), torch.randn(3, 3, 64, 64).double(), torch.rand(3)
    seeded = lambda: torch.Generator().manual_seed(2)  # noqa: E731
    calls = (
        lambda e: ops.gradient_penalty(critic, x, -x, alpha=alpha, engine=e),
        lambda e: ops.r2_penalty(critic, x, engine=e),
        lambda e: ops.dragan_penalty(critic, x, generator=seeded(), engine=e),
    )
    for call in calls:
        assert_same(critic, call("tangent"), call("autograd"))


@pytest.mark.parametrize("act", ["relu", "abs"])
def test_tangent_leaves_gapped_activations_in_their_order(act):
    """Or a later dropout would draw other bits than stock."""
    strides = []

    def cut(h):
        h = h.contiguous(memory_format=torch.channels_last)[:, :, ::2]
        h = getattr(torch, act)(h)
        strides.append(h.stride())
        torch.manual_seed(2)
        h = F.dropout(h, 0.4)
        return torch.cat((h, h), 2)

    critic = Between(cut)
    one, two = (ops.r1_penalty(critic, X, engine=e) for e in ("autograd", "tangent"))
    assert strides[0] == strides[1] == (32, 1, 16, 4)
    torch.testing.assert_close(one, two)


def test_tangent_raises_where_an_activation_is_missed():
    """A value taken out of the critic wants what was not kept."""
    critic, features = dcgan(2, nn.ReLU), []
    critic[2].register_forward_hook(lambda module, inputs, out: features.append(out))
    penalty = ops.r1_penalty(critic, torch.randn(2, 3, 64, 64), engine="tangent")
    with pytest.raises(RuntimeError, match=r"engine='tangent' kept no activations.*autograd"):
        (penalty + features[0].sum()).backward()
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)
    with hooks, pytest.raises(RuntimeError, match=r"'tangent' cannot.*saved-tensor hooks"):
        ops.r1_penalty(critic, torch.randn(2, 3, 64, 64), engine="tangent")
