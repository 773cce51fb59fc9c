"""nn.RandomProjection: the op with filters that nothing changes."""

from __future__ import annotations

import copy

import pytest
import torch

from ganops import nn, ops
from ganops.methods import EMA
from ganops.trainers.ema import Average


def test_the_module_is_the_op_with_the_cards_defaults():
    module = nn.RandomProjection(12, 3)
    x = torch.randn(2, 3, 64, 64)
    y = module(x)
    assert y.shape == (12, 2, 1, 32, 32)
    filters = ops.random_filters(12, 1, 3, 8, seed=0)
    assert torch.equal(module.filters, filters)
    assert torch.equal(y, ops.random_projection(x, filters, stride=2, padding=3))
    assert repr(module) == (
        "RandomProjection(K=12, in_channels=3, out_channels=1, kernel_size=(8, 8), stride=(2, 2), "
        "padding=(3, 3), seed=0)"
    )


def test_every_argument_arrives():
    module = nn.RandomProjection(2, 4, 5, (3, 6), (1, 2), (0, 4), seed=9)
    assert torch.equal(module.filters, ops.random_filters(2, 5, 4, (3, 6), seed=9))
    x = torch.randn(1, 4, 7, 9)
    expected = ops.random_projection(x, module.filters, stride=(1, 2), padding=(0, 4))
    assert torch.equal(module(x), expected)


def test_the_filters_are_in_the_state_dict_and_no_parameters():
    module, other = nn.RandomProjection(2, 3), nn.RandomProjection(2, 3, seed=1)
    assert not list(module.parameters())
    assert list(module.state_dict()) == ["filters"]
    assert not torch.equal(module.filters, other.filters)
    other.load_state_dict(copy.deepcopy(module.state_dict()))
    assert torch.equal(module.filters, other.filters)


def test_training_leaves_them_as_they_are():
    """Weight decay, momentum, requires_grad_, spectral norm and the twins included."""
    projection = nn.RandomProjection(2, 3)
    head = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(32, 1))
    critic = torch.nn.Sequential(projection, torch.nn.Flatten(1), head).requires_grad_()
    before = projection.filters.clone()
    nn.batch_spectral_norm(critic)
    nn.optimize(critic)
    optimiser = torch.optim.AdamW(critic.parameters(), lr=0.1, weight_decay=0.5)
    assert sum(p.numel() for g in optimiser.param_groups for p in g["params"]) == 33
    for _ in range(3):
        critic(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimiser.step()
    assert torch.equal(projection.filters, before)
    assert projection.filters.grad is None


@pytest.mark.parametrize("buffers", ["average", "copy"])
def test_a_running_average_copies_them(buffers):
    live = torch.nn.Sequential(nn.RandomProjection(2, 3), torch.nn.BatchNorm2d(1))
    average = Average(live, EMA(beta=0.9, buffers=buffers))
    assert torch.equal(average.network[0].filters, live[0].filters)
    live[0].load_state_dict(nn.RandomProjection(2, 3, seed=5).state_dict())
    live[1].running_mean.add_(1)
    average.update(batch=4, images_seen=4)
    assert torch.equal(average.network[0].filters, live[0].filters)
    mean = 0.1 if buffers == "average" else 1.0
    torch.testing.assert_close(average.network[1].running_mean, torch.full((1,), mean))


def test_a_gradient_penalty_goes_through_it():
    torch.manual_seed(0)
    projection = nn.RandomProjection(1, 3).double()
    body = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 4, 2, 1), torch.nn.LeakyReLU(0.2), torch.nn.Flatten(),
        torch.nn.Linear(16, 1),
    ).double()  # fmt: skip
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)

    def stock(x):
        y = torch.nn.functional.conv2d(x, projection.filters[0], None, 2, 3)
        return body(y).flatten()

    found = []
    for critic in (lambda x: body(projection(x)[0]).flatten(), stock):
        value = ops.r1_penalty(critic, x)
        found.append((value, *torch.autograd.grad(value, [*body.parameters()][:1])))
    for ours, expected in zip(*found):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((0, 3), "K of at least 1, got 0"),
        ((2, 3, 1, [8, 4, 2]), "the same for all K discriminators"),
        ((2, 3, 1, 8, [2, 2, 4]), "stride as one number.*the same for all K discriminators"),
        ((2, 3, 1, 8, 2, [3, 3, 3]), "padding as one number.*the same for all K discriminators"),
    ],
)
def test_bad_arguments(args, message):
    with pytest.raises(ValueError, match=message):
        nn.RandomProjection(*args)
