"""CR, bCR, zCR and the shared step: the card's checks, plain autograd, constants and noise.

T is a function here: a flip, a permutation.
"""

from __future__ import annotations

import pytest
import torch
from pairs import FAKE, NEAR, REAL, assert_same, flip, images, make, same, stock_cr
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ganops import ops

# The card's "How to test".


@pytest.mark.parametrize("joint", [True, False])
def test_1_identity_gives_zero_and_no_gradient(joint):
    critic = make()
    for penalty in (ops.cr_penalty(critic, REAL, augment=same, joint=joint),
                    ops.bcr_penalty(critic, REAL, FAKE, augment=same, joint=joint),
                    ops.zcr_d_penalty(critic, FAKE, FAKE, joint=joint)):  # fmt: skip
        # One convolution of a larger batch may round otherwise.
        assert penalty.item() <= 1e-28
        for g in torch.autograd.grad(penalty, critic.parameters()):
            assert g.abs().max() <= 1e-13


def test_2_a_linear_critic_and_a_permutation():
    w, x = torch.randn(7, dtype=torch.float64, requires_grad=True), images(3, 5, (7,))
    order = torch.randperm(7)
    d = x - x[:, order]
    penalty = ops.cr_penalty(lambda x: x @ w, x, augment=lambda x: x[:, order], weight=3.0)
    torch.testing.assert_close(penalty, 3 * (d @ w).square().mean())
    (grad,) = torch.autograd.grad(penalty, w)
    torch.testing.assert_close(grad, 3 * 2 * ((d @ w).unsqueeze(1) * d).mean(0))


def test_3_a_flip_symmetric_critic_is_consistent_under_flips():
    plain = make()
    critic = lambda x: plain(x) + plain(x.flip(-1))  # noqa: E731
    assert ops.cr_penalty(critic, REAL, augment=flip).item() <= 1e-28
    assert ops.cr_penalty(plain, REAL, augment=flip).item() > 1e-4


def test_4_latent_noise_through_a_linear_generator():
    w = images(4, 6, (4,))
    z = images(5, 40_000, (4,))
    near = ops.perturb_latent(z, 0.3, seed=7)
    change = -ops.zcr_g_penalty(z @ w.T, near @ w.T, weight=1.0)
    wanted = 0.3**2 * w.square().sum() / 6
    torch.testing.assert_close(change, wanted, rtol=0.02, atol=0)


def test_4_the_generators_term_rewards_diversity():
    """One step of gradient descent on it must drive G(z) and G(z + dz) apart."""
    w = images(4, 6, (4,)).requires_grad_()
    z = images(5, 8, (4,))
    near = ops.perturb_latent(z, seed=7)

    def apart():
        return (z @ w.T - near @ w.T).square().mean()

    before, penalty = apart(), ops.zcr_g_penalty(z @ w.T, near @ w.T)
    torch.testing.assert_close(penalty, -0.5 * before)
    (grad,) = torch.autograd.grad(penalty, w)
    (plain,) = torch.autograd.grad(before, w)
    torch.testing.assert_close(grad, -0.5 * plain)
    with torch.no_grad():
        w -= grad
    assert apart() > before


# Against plain autograd, joint and apart.


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("kind", ["plain", "instance"])
def test_penalties_and_gradients_are_those_of_plain_autograd(kind, joint):
    critic, weights = make(kind), {"weight_real": 3.0, "weight_fake": 0.5}
    real, fake = stock_cr(critic, REAL, flip(REAL)), stock_cr(critic, FAKE, flip(FAKE))
    latent = stock_cr(critic, FAKE, NEAR)
    both = ops.bcr_penalty(critic, REAL, FAKE, augment=flip, joint=joint, **weights)
    assert_same(critic, both, 3 * real + 0.5 * fake)
    one = ops.cr_penalty(critic, REAL, augment=flip, weight=2.0, joint=joint)
    assert_same(critic, one, 2 * real)
    assert_same(critic, ops.zcr_d_penalty(critic, FAKE, NEAR, joint=joint), 20 * latent)
    assert_same(critic, ops.zcr_d_penalty(critic, FAKE, NEAR, weight=5, joint=joint), 5 * latent)
    seen = ops.consistency_scores(
        critic, REAL, FAKE, NEAR, augment=flip, weight_latent=7.0, joint=joint, **weights
    )
    assert_same(critic, seen.penalty, 3 * real + 0.5 * fake + 7 * latent)
    assert_same(critic, seen.real.square().mean(), critic(REAL).square().mean())
    assert_same(critic, seen.fake.square().mean(), critic(FAKE).square().mean())
    assert list(seen.terms) == ["real", "latent", "fake"]
    for name, wanted in (("real", real), ("fake", fake), ("latent", latent)):
        assert_same(critic, seen.terms[name], wanted)


def test_default_weights_are_the_cards():
    critic = make()
    real, fake = stock_cr(critic, REAL, flip(REAL)), stock_cr(critic, FAKE, flip(FAKE))
    assert_same(critic, ops.cr_penalty(critic, REAL, augment=flip), 10 * real)
    assert_same(critic, ops.bcr_penalty(critic, REAL, FAKE, augment=flip), 10 * real + 10 * fake)
    icr = ops.consistency_scores(critic, REAL, FAKE, NEAR, augment=flip).penalty
    assert_same(critic, icr, 10 * real + 10 * fake + 20 * stock_cr(critic, FAKE, NEAR))
    torch.testing.assert_close(ops.zcr_g_penalty(FAKE, NEAR), -0.5 * (FAKE - NEAR).square().mean())


def test_batch_statistics_stay_apart_if_asked():
    critic, expected = make("batch"), make("batch")
    penalty = ops.cr_penalty(critic, REAL, augment=flip, joint=False)
    assert_same(critic, penalty, 10 * stock_cr(critic, REAL, flip(REAL)))
    ops.bcr_penalty(critic, REAL, FAKE, augment=flip, joint=False)
    joint = ops.cr_penalty(critic, REAL, augment=flip)
    assert abs(joint / penalty - 1) > 1e-3  # and are mixed otherwise
    ops.consistency_scores(expected, REAL, FAKE, NEAR, augment=flip, joint=False)
    assert expected[1].num_batches_tracked == 5


def test_spectral_norm_moves_once_a_call():
    critic = nn.Sequential(nn.Flatten(), spectral_norm(nn.Linear(432, 3), n_power_iterations=1))
    critic = critic.double()
    states = []
    for joint in (True, False):
        torch.manual_seed(1)
        inner = critic[1].parametrizations.weight[0]
        inner._u.copy_(torch.nn.functional.normalize(torch.randn(3), dim=0))
        ops.bcr_penalty(critic, REAL, FAKE, augment=flip, joint=joint)
        states.append(inner._u.clone())
    assert not torch.allclose(*states)


# Constants, precision.


def test_images_are_constants_but_for_the_generators_term():
    critic = make()
    real, fake, near = (t.clone().requires_grad_() for t in (REAL, FAKE, NEAR))
    seen = ops.consistency_scores(critic, real, fake, near, augment=flip)
    losses = (seen.penalty, seen.fake.sum(), ops.cr_penalty(critic, real, augment=flip),
              ops.zcr_d_penalty(critic, fake, near))  # fmt: skip
    sum(loss for loss in losses).backward()
    assert real.grad is fake.grad is near.grad is None
    ops.zcr_g_penalty(fake, near).backward()
    torch.testing.assert_close(fake.grad, -near.grad)
    torch.testing.assert_close(fake.grad, -(FAKE - NEAR) / FAKE.numel())


def test_both_branches_get_gradients():
    """A stop-gradient on one would halve the gradient of a linear critic."""
    w = torch.tensor([1.0], requires_grad=True)
    ops.cr_penalty(lambda x: x * w, torch.tensor([[3.0]]), augment=lambda x: 0 * x).backward()
    assert w.grad.item() == 10 * 2 * 9


def test_penalties_under_autocast():
    """Over six seeds up to 0.022 of the value and 0.047 of the gradient's norm were measured."""
    torch.manual_seed(0)
    exact = make()
    critic = make().float()
    x = REAL.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty = ops.cr_penalty(critic, x, augment=flip)
        seen = ops.consistency_scores(critic, x, FAKE.bfloat16(), augment=flip)
        spread = ops.zcr_g_penalty(FAKE.bfloat16(), NEAR.bfloat16())
    assert penalty.dtype == seen.penalty.dtype == spread.dtype == torch.float32
    wanted = ops.cr_penalty(exact, REAL, augment=flip)
    both = ops.bcr_penalty(exact, REAL, FAKE, augment=flip)
    for ours, theirs in ((penalty, wanted), (seen.penalty, both)):
        found, exactly = (
            torch.cat([g.double().flatten() for g in torch.autograd.grad(t, list(c.parameters()))])
            for t, c in ((ours, critic), (theirs, exact))
        )
        assert abs(ours.item() / theirs.item() - 1) < 0.1
        assert (found - exactly).norm() / exactly.norm() < 0.1
    exact_spread = -0.5 * (FAKE.bfloat16().double() - NEAR.bfloat16().double()).square().mean()
    torch.testing.assert_close(spread.double(), exact_spread, rtol=1e-5, atol=0)


# Noise.


def test_noise_is_the_same_for_any_split_and_device_seed():
    z = images(0, 6, (4,)).float()
    whole = ops.perturb_latent(z, 0.5, seed=3)
    parts = [ops.perturb_latent(z[i : i + 2], 0.5, seed=3, offset=i) for i in (0, 2, 4)]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, ops.perturb_latent(z, 0.5, seed=4))
    given = ops.perturb_latent(z, 0.5, noise=torch.ones_like(z))
    assert torch.equal(given, z + 0.5)
    drawn = [ops.perturb_latent(z, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*drawn)
    assert (drawn[0] - z).abs().max() <= 0.05 * 5.78
    assert ops.perturb_latent(z.bfloat16(), seed=1).dtype == torch.bfloat16
    leaf = z.clone().requires_grad_()
    ops.perturb_latent(leaf, seed=1).sum().backward()
    assert torch.equal(leaf.grad, torch.ones_like(z))
