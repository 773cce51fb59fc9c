"""What a penalty on an untouched critic runs: the floor, counted in FLOPs and in calls."""

from __future__ import annotations

import critics
import pytest
import torch
from counting import Counter
from torch import nn

import ganops
from ganops import ops


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
