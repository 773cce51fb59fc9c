"""The running average of weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ganops.methods import EMA
from ganops.trainers.ema import Average


def test_gap_to_constant_weights_decays_as_beta_to_the_t() -> None:
    live = nn.Linear(3, 2)
    average = Average(live, EMA(beta=0.9))
    assert torch.equal(average.network.weight, live.weight)  # starts as an exact copy
    start = average.network.weight.clone()
    with torch.no_grad():
        live.weight.add_(1.0)
    for _ in range(5):
        average.update(batch=4, images_seen=4)
    torch.testing.assert_close(live.weight - average.network.weight, torch.full((2, 3), 0.9**5))
    assert not torch.equal(start, average.network.weight)


@pytest.mark.parametrize(
    ("batch", "kimg", "beta"), [(64, 20, 0.997784), (32, 10, 0.997784), (64, 500, 0.999911)]
)
def test_half_life_values(batch, kimg, beta) -> None:
    assert EMA(half_life_kimg=kimg).decay(batch, 10**9) == pytest.approx(beta, abs=5e-7)


def test_gap_halves_after_a_half_life_and_ramp_shortens_it() -> None:
    settings = EMA(half_life_kimg=1.0)
    assert settings.decay(100, 0) ** 10 == pytest.approx(0.5)
    ramped = EMA(half_life_kimg=1.0, ramp=0.05)
    assert ramped.decay(100, 2000) == pytest.approx(0.5)  # half-life min(1000, 100) images
    assert ramped.decay(100, 10**6) == settings.decay(100, 10**6)
    assert ramped.decay(100, 0) == 0.0
    assert EMA(beta=0.3, ramp=0.05).decay(100, 5) == 0.3


@pytest.mark.parametrize("buffers", ["average", "copy"])
def test_buffers_and_the_loop_it_replaces(buffers) -> None:
    torch.manual_seed(0)
    live = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Linear(2, 2))
    average = Average(live, EMA(beta=0.75, buffers=buffers))
    reference = copy.deepcopy(live.state_dict())
    for _ in range(3):
        live[1](torch.randn(4, 3, 2, 2))
        with torch.no_grad():
            for p in live.parameters():
                p.add_(torch.randn_like(p))
        for name, value in live.state_dict().items():
            follows = "running" in name or "num_batches" in name
            if "num_batches" in name or (follows and buffers == "copy"):
                reference[name] = value.clone()
            else:
                reference[name] = torch.lerp(reference[name], value, 0.25)
        average.update(4, 4)
    for name, value in average.network.state_dict().items():
        torch.testing.assert_close(value, reference[name])
    assert average.network.state_dict()["1.num_batches_tracked"] == 3


def test_half_precision_is_averaged_in_float32() -> None:
    live = nn.Linear(4, 4, dtype=torch.bfloat16)
    average = Average(live, EMA(beta=0.9999))
    assert average.network.weight.dtype == torch.float32
    before = average.network.weight.clone()
    with torch.no_grad():
        live.weight.add_(1.0)
    average.update(1, 1)
    assert not torch.equal(before, average.network.weight)


def test_the_average_never_trains() -> None:
    average = Average(nn.Linear(2, 2), EMA())
    assert not any(p.requires_grad for p in average.network.parameters())
    assert not average.network.training
