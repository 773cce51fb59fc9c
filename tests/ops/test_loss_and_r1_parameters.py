"""Parameters outside layers under loss_and_r1: their share of each sample, or a refusal.

All sizes are 4, so that no shape gives away which dimension holds the samples.
"""

from __future__ import annotations

import gc
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F
from counting import Counter
from torch import nn

from ganops import ops

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(4, 3, 4, 4, generator=GENERATOR, dtype=torch.float64)
ROW = torch.randn(4, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.tensor([2, 0, 3, 2])


class Net(nn.Module):
    """conv, f, conv, one score a sample; f takes parameters of many shapes."""

    def __init__(self, f):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.f = nn.Conv2d(3, 4, 3, padding=1), f
        self.second, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 1)
        self.p, self.q = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4) + 2)
        self.number, self.one = nn.Parameter(torch.tensor(1.3)), nn.Parameter(torch.tensor([0.7]))
        self.whole = nn.Parameter(torch.randn(1, 4, 4, 4))
        self.rows = nn.Parameter(torch.randn(4, 4))
        self.embed, self.map = nn.Embedding(4, 4), nn.Embedding(4, 64)
        self.to(torch.float64)

    def forward(self, x):
        h = torch.relu(self.second(self.f(self, self.first(x)).reshape(x.shape[0], 4, 4, -1)))
        return self.last(h.mean((2, 3)))


def along(p):
    return p[:, None, None]


def label_map(n, h):
    return n.map(LABELS[: len(h)]).view(-1, 4, 4, 4)


def in_place(n, h):
    h = h * 1
    h += along(n.p)
    h *= along(n.q)
    h -= n.number
    h.div_(n.one.exp())
    return h


def without_grad(n, h):
    with torch.no_grad():
        k = h + along(n.p)
    return h * k


def of_a_layer(n, h):
    return h * ops.conv2d(n.whole, n.second.weight, n.p, padding=1).relu() + n.first.bias.sum()


def head(n, h):
    return h + (n.embed(LABELS[: len(h)]) * h.mean((2, 3))).sum(1)[:, None, None, None]


def flat(n, h):
    h = h.mean((2, 3))
    h = ops.bias_act(F.prelu(h, n.p), n.q, act="lrelu")
    return (h * n.embed(LABELS[: len(h)]) + n.number)[..., None, None].expand(-1, 4, 4, 4)


SERVED = {
    "bias": lambda n, h: h + along(n.p),
    "bias first": lambda n, h: along(n.p)[None] - h,
    "gain": lambda n, h: h * along(n.q),
    "gain first": lambda n, h: n.number * h,
    "divisor": lambda n, h: h / along(n.q) + torch.true_divide(h, n.one),
    "functions": lambda n, h: torch.mul(torch.sub(torch.add(h, n.one, alpha=2), n.whole), n.number),
    "in place": in_place,
    "every shape": lambda n, h: (((h + n.p) * n.one - n.whole) * n.number + along(n.q)) / 2,
    "by row and column": lambda n, h: h * n.rows + n.rows[:, :, None],
    "one row a sample": lambda n, h: h + n.rows[: len(h), :, None, None],
    "where": lambda n, h: torch.where(h > 0, h, along(n.p)) + h.where(h < 1, n.number * 2),
    "maximum": lambda n, h: torch.maximum(h, along(n.p)) + torch.min(h, n.whole),
    "twice": lambda n, h: torch.relu(h * along(n.p) + along(n.p)) * along(n.p) - n.p,
    "without grad": without_grad,
    "of a layer's output": of_a_layer,
    "of a graph": lambda n, h: h * along(n.p.exp() / n.q.norm()) + n.first.weight.mean(),
    "with what is detached": lambda n, h: h + along(n.p) * h.detach().mean(0) * h.detach(),
    "layers' own": lambda n, h: (h + along(n.first.bias)) * n.second.weight[0, :, :1, :1],
    "and a layer": lambda n, h: F.conv2d(h, n.rows[:, :, None, None], n.p) * along(n.p) + n.rows,
    "joined": lambda n, h: torch.cat([h, label_map(n, h)], 1)[:, ::2].flip(1) + h,
    "stacked": lambda n, h: torch.stack([label_map(n, h), h, h], 2).sum(2) * h.new_ones(4),
    "projection": head,
    "embedded gain": lambda n, h: h * label_map(n, h) + n.embed(LABELS[: len(h)])[..., None, None],
    "prelu": lambda n, h: F.prelu(F.prelu(h, n.p), n.one),
    "prelu twice": lambda n, h: F.prelu(n.second(F.prelu(h, n.p)), n.p) * along(n.p),
    "prelu of three": lambda n, h: F.prelu(h.flatten(2), n.q).view(-1, 4, 4, 4),
    "prelu of a graph": lambda n, h: F.prelu(h, 0.1 * n.p.sin()),
    "bias_act": lambda n, h: ops.bias_act(h, n.p, act="lrelu", clamp=0.9),
    "bias_act relu": lambda n, h: ops.bias_act(ops.bias_act(h, n.p, dim=3, act="relu"), n.p, 2),
    "bias_act linear": lambda n, h: ops.bias_act(h, n.p, gain=1.7) * ops.bias_act(n.q, gain=2),
    "bias_act from x": lambda n, h: ops.bias_act(h, n.p, act="lrelu", alpha=-0.4, gain=-1),
    "bias_act of a graph": lambda n, h: ops.bias_act(h, n.p * n.number, act="relu"),
    "bias_act reference": lambda n, h: ops.bias_act(h, n.p, act="lrelu", impl="reference"),
    "bias_act of samples": lambda n, h: ops.bias_act(h, n.p[: len(h)], 0, "lrelu"),
    "two dimensions": flat,
}  # fmt: skip
REFUSED = {
    "matmul": (lambda n, h: h @ n.rows, "not known to keep samples apart"),
    "clamp": (lambda n, h: h.clamp(along(n.p)), "share of each sample is not known"),
    "keyword": (lambda n, h: torch.add(h, other=n.p), "share of each sample"),
    "number of another dtype": (lambda n, h: h * n.number.float(), "share of each sample"),
    "more dimensions": (lambda n, h: h.mean((1, 2, 3)) + n.rows[:, :, None], "keep samples|share"),
    "joined rows": (
        lambda n, h: h + torch.cat([h, n.whole]).mean(0, keepdim=True), "keep samples|share"),
    "in place of it": (lambda n, h: (n.whole.expand(4, 4, 4, 4) * 1).add_(h), "share of each"),
    "transposed": (lambda n, h: (h.transpose(0, 1) + n.whole).transpose(0, 1), "keep samples"),
    "across": (
        lambda n, h: h + (h.mean(0, keepdim=True) * n.whole).sum(0), "not known to keep|share"),
    "bias_act across": (
        lambda n, h: ops.bias_act(h.transpose(0, 1), n.p, act="relu").transpose(0, 1),
        r"\w+ is not known to keep samples apart"),
    "prelu across": (lambda n, h: F.prelu(h.transpose(0, 1), n.p).transpose(0, 1), "keep samples"),
    "bias_act bent": (lambda n, h: ops.bias_act(h, n.p, act="tanh"), "BiasActBackward is not"),
    "slope of the images": (lambda n, h: F.prelu(h, h.mean((0, 2, 3))), "weights from the images"),
    "bias of the images": (
        lambda n, h: ops.bias_act(h, h.mean((0, 2, 3)), act="relu"), "weights from the images"),
}  # fmt: skip


def plain(net, x, loss, gamma=0.7):
    x = x.detach().requires_grad_()
    scores = net(x)
    (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return loss(scores) + gamma * grad.flatten(1).square().sum(1).mean() / 2


def score_loss(scores):
    return (F.softplus(scores[:, 0]) * ROW[: len(scores)]).sum() + scores.mean().square()


def shared(net, x=X, loss=score_loss, gamma=0.7):
    return ops.loss_and_r1(net, x, loss, gamma=gamma, engine="shared")


def assert_same(params, ours, expected, **how):
    torch.testing.assert_close(ours, expected)
    both = [torch.autograd.grad(t, params, allow_unused=True, **how) for t in (ours, expected)]
    for p, a, b in zip(params, *both):
        a, b = (torch.zeros_like(p) if g is None else g for g in (a, b))
        assert (a - b).norm() <= 1e-11 * b.norm() + 1e-14


@pytest.mark.parametrize("batch", [4, 1])
@pytest.mark.parametrize("name", SERVED)
def test_parameters_outside_layers(name, batch):
    net, x = Net(SERVED[name]), X[:batch]
    assert_same(list(net.parameters()), shared(net, x), plain(net, x, score_loss))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_and_falls_back(name):
    net = Net(REFUSED[name][0])
    with pytest.raises(RuntimeError, match=f"cannot serve this critic: .*{REFUSED[name][1]}"):
        shared(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = ops.loss_and_r1(net, X, score_loss, gamma=0.7)
    assert_same(list(net.parameters()), ours, plain(net, X, score_loss))


def everything(n, h):
    return flat(n, SERVED["twice"](n, SERVED["prelu twice"](n, head(n, in_place(n, h)))))


@pytest.mark.parametrize("loss", [lambda s: s.sum() * 0 + 3.0, lambda s: torch.ones(()).double()])
def test_losses_without_a_gradient(loss):
    net = Net(everything)
    assert_same(list(net.parameters()), shared(net, loss=loss), plain(net, X, loss))


def test_frozen_and_asked_for_one_by_one():
    net = Net(everything)
    expected = torch.autograd.grad(
        plain(net, X, score_loss), list(net.parameters()), allow_unused=True
    )
    for p, e in zip(net.parameters(), expected):
        if e is not None:
            shared(net).backward(inputs=[p])
            torch.testing.assert_close(p.grad, e, rtol=1e-10, atol=1e-13)
            assert sum(other.grad is not None for other in net.parameters()) == 1
            p.grad = None
    for p in net.parameters():
        p.requires_grad_(p is net.embed.weight)
    assert_same([net.embed.weight], shared(net), plain(net, X, score_loss))


def test_twice_through_one_graph_and_no_further():
    net = Net(everything)
    params, total = list(net.parameters()), shared(net)
    assert_same(params, total, plain(net, X, score_loss), retain_graph=True)
    assert_same(params, 2 * total, 2 * plain(net, X, score_loss))
    with pytest.raises(RuntimeError, match="order 2 was asked for"):
        torch.autograd.grad(shared(net), params, create_graph=True, allow_unused=True)


def test_hooks_on_parameters_see_the_whole_gradient_once():
    net, seen = Net(everything), []
    net.p.register_hook(seen.append)
    shared(net).backward()
    torch.autograd.grad(plain(net, X, score_loss), net.p)
    ours, expected = seen
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-13)


def test_parameters_in_the_loss_and_a_second_critic_call():
    net = Net(everything)

    def loss(scores):
        return F.softplus(net(-X) - net.number * scores).mean()

    assert_same(list(net.parameters()), shared(net, loss=loss), plain(net, X, loss))


def test_bfloat16():
    net = Net(lambda n, h: h * along(n.p) + n.rows).float()
    with torch.autocast("cpu", torch.bfloat16):
        low = shared(net, X.float(), lambda s: s.float().mean())
        expected = plain(net, X.float(), lambda s: s.float().mean())
    torch.testing.assert_close(low, expected, rtol=1e-2, atol=0)
    grads = torch.autograd.grad(low, [net.p, net.rows])
    exact = torch.autograd.grad(plain(net, X.float(), lambda s: s.mean()), [net.p, net.rows])
    for a, b in zip(grads, exact):
        assert (a - b).norm() <= 0.1 * b.norm()


def test_under_vmap():
    net = Net(None)

    def critic(x):
        return torch.func.vmap(lambda u, y: (u * along(net.p)[:3]).sum() + net.embed(y).sum())(
            x, LABELS
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = ops.loss_and_r1(critic, X, lambda s: s.exp().mean(), gamma=0.7)
    expected = plain(critic, X, lambda s: s.exp().mean())
    assert_same([net.p, net.embed.weight], ours, expected)


def test_penalties_alone_take_no_gradient_of_a_bias():
    net = Net(SERVED["bias_act"])
    ours = ops.r1_penalty(net, X)
    assert_same(list(net.parameters()), ours, plain(net, X, lambda s: 0.0, 1.0))
    assert_same(list(net.parameters()), ops.r1_penalty(net, X, engine="tangent"),
                plain(net, X, lambda s: 0.0, 1.0))  # fmt: skip


def test_cost_is_four_forwards():
    net = Net(everything)
    with torch.no_grad(), Counter() as forward:
        net(X)
    with Counter() as counter:
        shared(net).backward()
    assert counter.flops <= 4 * forward.flops


def test_nothing_outlives_the_call():
    """A parameter made by a twin knows the pass; were its view kept there, nothing would go."""
    net = Net(None)
    p = net.whole * 1
    watched = weakref.ref(p)
    net.f = lambda n, h, p=p: h * ops.conv2d(p, n.second.weight, padding=1)
    shared(net)
    del net.f, p
    gc.collect()
    assert watched() is None
