"""autograd.grad(is_grads_batched=True): right without create_graph, and never a lost graph with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ganops
from ganops import ops

WEIGHT = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SQUARES = {
    "relu": ops.relu,
    "leaky_relu": ops.leaky_relu,
    "avg_pool2d": lambda y: ops.avg_pool2d(y, 2),
    "max_pool2d": lambda y: ops.max_pool2d(y, 2),
    "reflect pad": lambda y: ops.pad(y, (1, 1, 1, 1), mode="reflect"),
    "prelu": lambda y: ops.prelu(y, WEIGHT.flatten()[:1]),
    "conv2d": lambda y: ops.conv2d(y, WEIGHT.transpose(0, 1)),
    "silu": ops.silu,
    "group_norm": lambda y: ops.group_norm(y, 2),
    "bias_act, piecewise linear": lambda y: ops.bias_act(y, act="lrelu"),
    "bias_act, smooth": lambda y: ops.bias_act(y, act="swish"),
    "penalty": lambda y: ops.penalty_from_gradient(y)[None],
}
REFUSED = ("conv2d", "silu", "group_norm", "bias_act", "penalty")


def penalised(function, *, batched, create_graph):
    """Gradients of two scores of a critic, and of a loss that keeps a graph of its own."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 6, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    w = WEIGHT.clone().requires_grad_()
    y = function(torch.nn.functional.conv2d(x, w)).square().flatten()[:2]
    into = torch.eye(len(y), dtype=torch.float64)
    if batched:
        (grads,) = torch.autograd.grad(
            y, x, into, is_grads_batched=True, create_graph=create_graph, retain_graph=True
        )
    else:
        grads = torch.stack([torch.autograd.grad(y, x, row, create_graph=True)[0] for row in into])
    if not create_graph:
        return [grads.detach()]
    return torch.autograd.grad(y.sum() + grads.square().sum(), (x, w))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", SQUARES)
def test_batched_gradients_are_right_or_refused(name, create_graph):
    def run(batched):
        return penalised(SQUARES[name], batched=batched, create_graph=create_graph)

    if create_graph and name.startswith(REFUSED):
        with pytest.raises(RuntimeError, match="would lose the second derivative"):
            run(True)
        return
    for got, expected in zip(run(True), run(False)):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_a_jacobian_penalty_of_an_optimised_critic_is_refused_in_one_form_and_right_in_the_other():
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Flatten()).double()
    x = torch.ones(1, 3, 4, 4, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(critic, x, create_graph=True).square().sum()
    (expected,) = torch.autograd.grad(expected, critic[0].weight)
    ganops.optimize(critic, verbose=False)
    with pytest.raises(RuntimeError, match="jacrev"):
        torch.autograd.functional.jacobian(critic, x, create_graph=True, vectorize=True)
    (got,) = torch.autograd.grad(torch.func.jacrev(critic)(x).square().sum(), critic[0].weight)
    torch.testing.assert_close(got, expected)


def test_gradients_sample_by_sample_of_an_optimised_critic():
    def gradients(critic):
        def score(params, x):
            return torch.func.functional_call(critic, params, (x[None],)).square().sum()

        params = {k: p.detach() for k, p in critic.named_parameters()}
        return torch.func.vmap(torch.func.grad(score), (None, 0))(params, images)

    images = torch.ones(2, 3, 4, 4, dtype=torch.float64)
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Flatten()).double()
    expected = gradients(critic)
    torch.testing.assert_close(gradients(ganops.optimize(critic, verbose=False)), expected)
