"""What a penalty on an untouched critic runs: the floor, counted in FLOPs and in calls."""

from __future__ import annotations

import critics
import pytest
import torch
from counting import Counter
from torch import nn

import ganops
from ganops import ops
from ganops.ops._input_pass import InputPass
from ganops.ops.gradient_penalty.critic import Critic


def count(function):
    with Counter() as counter:
        function()
    return counter


def costs(critic, x):
    """(penalty and backward, one forward) in FLOPs."""

    def penalty():
        ops.r1_penalty(critic, x).backward()

    with torch.no_grad():
        forward = count(lambda: critic(x)).flops
    return count(penalty).flops, forward


NETS = {
    "dcgan-64": (lambda: nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1),
        nn.LeakyReLU(0.2, True), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(32, 64, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(64, 1, 4)),
        (2, 3, 64, 64), 2 * 2 * 64 * 16),
    "sngan-32": (lambda: critics.Residual(8), (2, 3, 32, 32), 2 * 2 * 8),
    "sngan-32-in-place": (lambda: critics.Residual(8, in_place=True), (2, 3, 32, 32), 2 * 2 * 8),
    "mlp": (lambda: critics.mlp(32), (4, 3, 12, 12), 2 * 4 * 32),
    "borders": (critics.Borders, (2, 3, 12, 12), 0),
}  # fmt: skip


@pytest.mark.parametrize(("make", "shape", "last"), NETS.values(), ids=NETS)
def test_a_piecewise_linear_critic_costs_four_forwards_exactly(make, shape, last):
    """Forward, backward-data, tangent-forward, weight gradient; the tangent of the last layer
    (`last` FLOPs) reaches no parameter. Adaptive pools go backward by two small products."""
    critic, x = make().double(), torch.randn(shape, dtype=torch.float64)
    spent, forward = costs(critic, x)
    extra = 0
    if isinstance(critic, critics.Borders):
        extra = spent - 4 * forward
        assert 0 < extra < 0.05 * forward
    assert spent == 4 * forward - last + extra


@pytest.mark.parametrize("net", ["dcgan-64", "mlp"])
def test_a_handwritten_penalty_costs_the_same_once_the_critic_is_optimized(net):
    make, shape, last = NETS[net]
    critic = ganops.optimize(make().double(), verbose=False)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def penalty():
        (grad,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        (grad.flatten(1).norm(2, 1) - 1).pow(2).mean().backward()

    with torch.no_grad():
        forward = count(lambda: critic(x)).flops
    assert count(penalty).flops == 4 * forward - last


def test_stock_costs_six():
    """What the twins are for; fails when torch sends no zeros any more."""
    make, shape, _ = NETS["sngan-32"]
    critic, x = make().double(), torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        forward = count(lambda: critic(x)).flops
    stock = count(lambda: ops.r1_penalty(critic, x, engine="autograd").backward()).flops
    assert stock > 5.8 * forward


@pytest.mark.parametrize("groups", [1, 12, 48])
def test_a_bank_of_critics_calls_four_convolutions_a_layer(groups):
    bank = nn.Sequential(
        nn.Conv2d(3 * groups, 2 * groups, 3, 2, groups=groups), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * groups, groups, 5, groups=groups),
    ).double()  # fmt: skip
    x = torch.randn(3, 3 * groups, 12, 12, dtype=torch.float64)
    counter = count(lambda: ops.r1_penalty(bank, x).backward())
    assert counter.calls == 4 + 3  # no tangent of the last layer


def normed():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 1, 8)
    ).double()


def test_the_points_own_gradient_is_not_computed_twice():
    """Backward through a norm goes into the forward pass, and ends at the first layer's weight."""
    critic, x = normed(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    first, last = 2 * 2 * 64 * critic[0].weight.numel(), 2 * 2 * critic[3].weight.numel()
    # forward, to the points, tangent, weight twice; the last one's tangent reaches no parameter
    spent = count(lambda: ops.r1_penalty(critic, x).backward()).flops
    assert spent == 5 * first + 3 * last


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_hook_on_the_points_still_sees_their_gradient(when):
    net, x = normed(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    seen = []

    def critic(points):
        if when == "before":
            points.register_hook(lambda g: seen.append(g.clone()))
        else:
            points.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.clone()))
        return net(points)

    found = []
    for engine in ("auto", "autograd"):
        seen.clear()
        ops.r1_penalty(critic, x, engine=engine).backward()
        found.append(list(seen))
    assert len(found[0]) == len(found[1]) == (2 if when == "before" else 1)
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


def test_points_of_somebody_elses_get_their_gradient():
    """As path_length_penalty's latents do, which may be a mapping network's."""
    net, found, latent = normed(), [], torch.randn(2, 3, 8, 8, dtype=torch.float64)
    latent.requires_grad_()
    for engine in ("auto", "autograd"):
        points = 2 * latent
        grad = Critic("test", net, engine=engine, own_x=False).input_gradient(points)
        found.append(torch.autograd.grad(grad.square().sum(), latent)[0])
    assert found[0].abs().max() > 0
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("theirs", [True, False])
def test_latents_are_their_owners(theirs):
    passes = []

    def generator(w):
        passes.append(InputPass.current())
        return 2 * w[:, :, None, None]

    w, mean = torch.randn(4, 6, requires_grad=theirs), torch.zeros(())
    ops.path_length_penalty(generator, w, mean)
    assert passes[0].over is not theirs
