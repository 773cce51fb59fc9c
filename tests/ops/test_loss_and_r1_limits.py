"""Where loss_and_r1 must not share one backward, and what runs beside it."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ganops import ops
from ganops.ops.gradient_penalty import shared_delta


@pytest.fixture(autouse=True)
def _warnings_again():
    shared_delta._warn_once.cache_clear()


def gradients(net, total):
    return torch.autograd.grad(total, list(net.parameters()))


def plain(net, x, loss, gamma):
    x = x.detach().requires_grad_()
    scores = net(x)
    (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return loss(scores) + gamma * grad.flatten(1).square().sum(1).mean() / 2


class Patches(nn.Module):
    """Folds pieces of each image into the batch, and sums their scores."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        pieces = self.conv(x.reshape(-1, 1, *x.shape[2:])).relu().sum((1, 2, 3))
        return pieces.view(x.shape[0], -1).sum(1)


@pytest.mark.parametrize("batch", [1, 2])
def test_pieces_of_images_in_the_batch(batch):
    net, x = Patches().double(), torch.randn(batch, 3, 8, 8, dtype=torch.float64)
    with pytest.warns(UserWarning, match="not known to keep samples apart"):
        ours = ops.loss_and_r1(net, x, lambda s: s.mean(), gamma=1.0)
    expected = gradients(net, plain(net, x, lambda s: s.mean(), 1.0))
    torch.testing.assert_close(gradients(net, ours), expected)


def small(width=16):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(width * 16, 1)
    )


def softplus(s):
    return F.softplus(-s.float()).mean()


def test_float16_keeps_the_loss_scale():
    """The shared backward starts from ones, which no scale of the loss reaches."""
    net, x = small(), torch.randn(4, 3, 8, 8)
    with (
        torch.autocast("cpu", dtype=torch.float16),
        pytest.warns(UserWarning, match="computes in float16"),
    ):
        ops.loss_and_r1(net, x, softplus, gamma=1.0)
    with torch.autocast("cpu", dtype=torch.float16), pytest.raises(RuntimeError, match="float16"):
        ops.loss_and_r1(net, x, softplus, gamma=1.0, engine="shared")


def test_a_backward_inside_autocast_casts_nothing_of_an_island():
    net, x = small(), torch.randn(4, 3, 8, 8)

    def island(t):
        with torch.autocast("cpu", enabled=False):
            return net(t)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty = ops.r1_penalty(island, x, engine="tangent")
        ours = torch.autograd.grad(penalty, [net[0].weight, net[3].weight])
    expected = torch.autograd.grad(
        ops.r1_penalty(net, x, engine="autograd"), [net[0].weight, net[3].weight]
    )
    for a, b in zip(ours, expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_shared_backward_inside_autocast_casts_nothing_of_an_island():
    net, x = small(), torch.randn(4, 3, 8, 8)

    def island(t):
        with torch.autocast("cpu", enabled=False):
            return net(t)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = gradients(net, ops.loss_and_r1(island, x, softplus, gamma=1.0, engine="shared"))
    for a, b in zip(ours, gradients(net, plain(net, x, softplus, 1.0))):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_results_written_into_buffers_and_whole_slices():
    net = small().double()
    buffer = torch.empty(4, 3, 8, 8, dtype=torch.float64)

    def critic(x):
        with torch.no_grad():
            torch.abs(x, out=buffer)
        return net(x[:, :, :8])

    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = ops.loss_and_r1(critic, x, softplus, gamma=1.0)
    expected = gradients(net, plain(net, x, softplus, 1.0))
    torch.testing.assert_close(gradients(net, ours), expected)
    assert torch.equal(buffer, x.abs())
