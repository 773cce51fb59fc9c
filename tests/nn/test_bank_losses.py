"""K losses, their weights, the generator's one backward, and the walk in chunks."""

from __future__ import annotations

import math

import pytest
import torch
from banks import K, apart, images, normed, rp, stacked
from torch import nn

from ganops import losses, ops
from ganops.nn import DiscriminatorBank

close = torch.testing.assert_close
TIGHT = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def softplus(t):
    return nn.functional.softplus(t)


def test_the_cards_losses():
    real, fake = torch.randn(K, 4), torch.randn(K, 4)
    expected = [(softplus(-real[k]).mean() + softplus(fake[k]).mean()) / 2 for k in range(K)]
    close(losses.bank.d(real, fake), torch.stack(expected))
    close(losses.bank.g(fake), torch.stack([softplus(-f).mean() for f in fake]))
    zero = torch.zeros(K, 4, 1, 2, 2)
    close(losses.bank.d(zero, zero), torch.full((K,), math.log(2)))
    close(losses.combine(losses.bank.g(zero)), torch.tensor(math.log(2)))


@pytest.mark.parametrize(
    ("weighting", "weights"),
    [
        ("mean", lambda v: torch.full((3,), 1 / 3)),
        ("softmax", lambda v: torch.exp(2 * v) / torch.exp(2 * v).sum()),
        ("softmin", lambda v: torch.exp(-2 * v) / torch.exp(-2 * v).sum()),
        ("hypervolume", lambda v: 1 / (1.5 * v.max() - v)),
    ],
)
def test_weightings(weighting, weights):
    each = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)
    total = losses.combine(each, weighting, alpha=2.0, slack=1.5)
    (slopes,) = torch.autograd.grad(total, each)
    expected = weights(each.detach())
    close(slopes, expected)
    if weighting == "hypervolume":
        close(total, -torch.log(3.0 - each).sum())
    else:
        close(total, expected @ each)


def penalty(part, real, fake):
    alpha = torch.full(real.shape[:2], 0.3)
    return 10 * ops.gradient_penalty(part, real, fake, alpha=alpha, per_discriminator=True)


@pytest.mark.parametrize("chunk", [None, 1, 2])
@pytest.mark.parametrize("make", [rp, normed(nn.BatchNorm2d)])
def test_discriminator_backward_in_chunks(make, chunk):
    """Losses, gradients (accumulated on what was there) and running statistics."""
    bank = DiscriminatorBank(make, K, seed=7, execution="batched")
    members = apart(make, range(7, 7 + K))
    real, fake = images(1), images(2).requires_grad_()
    plus = penalty if make is rp else None
    for _ in range(2):
        found = losses.bank_d_backward(bank, real, fake, penalty=plus, chunk=chunk)
        expected = []
        for k, m in enumerate(members):
            loss = (softplus(-m(real[k])).mean() + softplus(m(fake[k].detach())).mean()) / 2
            if plus:
                loss = loss + 10 * ops.gradient_penalty(
                    m, real[k], fake[k], alpha=torch.full((4,), 0.3)
                )
            loss.backward()
            expected.append(loss.detach())
        close(found, torch.stack(expected), **TIGHT)
    for name, p in bank.named_parameters():
        grad = stacked(members, lambda m: m.get_parameter(name).grad)  # noqa: B023
        close(p.grad, grad, **TIGHT, msg=name)
    for name, b in bank.named_buffers():
        close(b, stacked(members, lambda m: m.get_buffer(name)), **TIGHT, msg=name)  # noqa: B023
    assert fake.grad is None


@pytest.mark.parametrize("weighting", ["mean", "softmax", "hypervolume"])
@pytest.mark.parametrize("chunk", [None, 2])
def test_generator_backward_is_autograds_of_the_combined_loss(weighting, chunk):
    bank = DiscriminatorBank(rp, K, seed=7, execution="batched")
    latents = torch.randn(4, 5)
    generator = nn.Linear(5, 256)
    found = []
    for ours in (True, False):
        generator.zero_grad()
        pictures = generator(latents).unflatten(1, (1, 16, 16))
        views = torch.stack([pictures * (k + 1) for k in range(K)])
        if ours:
            each = losses.bank_g_backward(bank, views, weighting=weighting, chunk=chunk)
        else:
            each = losses.bank.g(bank(views))
            losses.combine(each, weighting).backward()
        found.append([each.detach(), generator.weight.grad.clone()])
        if ours:
            assert all(p.grad is None for p in bank.parameters())
    close(*found, **TIGHT)


def test_a_step_on_one_shared_batch():
    bank = DiscriminatorBank(rp, K, seed=7, execution="batched")
    x, y = images(1)[0], images(2)[0]
    expected = losses.bank.d(*(bank(t.expand(K, *t.shape)) for t in (x, y)))
    for chunk in (None, 2):
        close(losses.bank_d_backward(bank, x, y, chunk=chunk, shared=True), expected.detach())
    z = x.clone().requires_grad_()
    losses.bank_g_backward(bank, z.expand(K, *z.shape), chunk=2)
    close(z.grad, torch.autograd.grad(losses.bank.g(bank(z, shared=True)).mean(), z)[0], **TIGHT)


def test_what_a_part_keeps_for_backward_is_linear_in_its_size():
    bank = DiscriminatorBank(rp, 8, execution="batched")
    x = images(0, 8)
    bank(x)
    own = {p.untyped_storage().data_ptr() for p in bank.parameters()}
    kept = []
    for count in (2, 4, 8):
        storages = {}

        def keep(t, storages=storages):
            storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            scores = bank.part(0, count)(x[:count].clone())
        kept.append(sum(n for where, n in storages.items() if where not in own))
        del scores
    assert kept[1] == 2 * kept[0]
    assert kept[2] == 2 * kept[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.combine(torch.ones(2, 2)), r"expected losses of shape \(K,\), got \(2, 2"),
        (lambda: losses.combine(torch.ones(2), "max"), "expected weighting 'mean'.* got 'max'"),
        (lambda: losses.combine(torch.ones(2), "hypervolume", slack=1.0), "slack above 1, got 1.0"),
        (lambda: losses.combine(torch.ones(2), "softmax", alpha=math.inf), "finite alpha, got inf"),
        (lambda: losses.bank.g(torch.ones(3)), r"logits of shape \(K, B, ...\), got \(3,\)"),
        (lambda: losses.bank_g_backward(None, torch.ones(2, 2)), "a graph to the generator"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
