"""Golden numbers of the Wasserstein loss and of the WGAN-GP penalty, from the formulas by hand."""

from __future__ import annotations

import types

import pytest
import torch

from ganops.losses import wasserstein
from ganops.regularizers import GP


def linear_batch(weight: torch.Tensor, n: int = 6) -> types.SimpleNamespace:
    """A batch for the critic f(x) = w.x, whose input gradient is w everywhere."""
    generator = torch.Generator().manual_seed(0)
    shape = (n, *weight.shape)
    return types.SimpleNamespace(
        real=torch.randn(shape, generator=generator, dtype=weight.dtype),
        fake=torch.randn(shape, generator=generator, dtype=weight.dtype),
        discriminator=lambda x: (x * weight).flatten(1).sum(1),
        uniform=lambda name, *size: torch.rand(*size, generator=generator),
    )


def test_wasserstein_values_and_gradients() -> None:
    real = torch.tensor([0.5, 2.0, -1.0], requires_grad=True)
    fake = torch.tensor([-0.5, -2.0, 1.0], requires_grad=True)
    loss = wasserstein.d(real, fake)
    assert loss.item() == pytest.approx(-1.0)
    loss.backward()
    torch.testing.assert_close(real.grad, torch.full((3,), -1 / 3))
    torch.testing.assert_close(fake.grad, torch.full((3,), 1 / 3))
    assert wasserstein.g(fake).item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("weight", "one_sided", "value", "gradient"),
    [
        ((3.0, 4.0), False, 160.0, (48.0, 64.0)),
        ((3.0, 4.0), True, 160.0, (48.0, 64.0)),
        ((0.3, 0.4), False, 2.5, (-6.0, -8.0)),
        ((0.3, 0.4), True, 0.0, (0.0, 0.0)),
        ((0.0, 0.0), False, 10.0, (0.0, 0.0)),
    ],
)
def test_gradient_penalty_of_a_linear_critic(weight, one_sided, value, gradient) -> None:
    w = torch.tensor(weight, dtype=torch.float64).reshape(1, 1, 2).requires_grad_(True)
    reg = GP(one_sided=one_sided)
    penalty = reg.weight * reg.penalty(linear_batch(w))
    assert penalty.item() == pytest.approx(value, abs=1e-9)
    (got,) = torch.autograd.grad(penalty, w, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(got.flatten(), torch.tensor(gradient, dtype=torch.float64))


def test_loss_and_penalty_balance_where_theory_says() -> None:
    """With m = mean x - mean G, the linear optimum is w = (1 + |m| / (2 lambda)) m / |m|."""
    m = torch.tensor([1.5, -2.0], dtype=torch.float64)
    w = ((1 + m.norm() / 20) * m / m.norm()).reshape(1, 1, 2).requires_grad_(True)
    batch = linear_batch(w)
    batch.fake = batch.fake - batch.fake.mean(0)
    batch.real = batch.real - batch.real.mean(0) + m.reshape(1, 1, 2)
    loss = wasserstein.d(batch.discriminator(batch.real), batch.discriminator(batch.fake))
    (gradient,) = torch.autograd.grad(loss + 10 * GP().penalty(batch), w)
    assert gradient.abs().max() < 1e-12


def test_interpolation_weight_is_one_per_sample_and_on_real() -> None:
    """A quadratic critic f = |x|^2 / 2 has gradient xhat, so the penalty tells where xhat is."""
    real, fake = torch.full((4, 2, 3, 3), 1.0), torch.zeros(4, 2, 3, 3)
    alpha = torch.tensor([0.0, 0.25, 0.5, 1.0])
    batch = types.SimpleNamespace(
        real=real,
        fake=fake,
        discriminator=lambda x: 0.5 * x.square().flatten(1).sum(1),
        uniform=lambda name, *size: alpha,
    )
    expected = (alpha * 18**0.5 - 1).square().mean()
    torch.testing.assert_close(GP().penalty(batch), expected)
    assert GP(center=0.0).penalty(batch).item() == pytest.approx((alpha**2 * 18).mean().item())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1.0}, "weight must be >= 0"),
        ({"center": -0.5}, "center must be >= 0"),
        ({"interval": 0}, "interval must be >= 1"),
        ({"weight": float("nan")}, "weight must be >= 0"),
    ],
)
def test_bad_penalty_settings(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        GP(**settings)
