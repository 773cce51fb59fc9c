"""nn.DiscriminatorBank: everything that K separate modules do, to rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from banks import ARCHITECTURES, K, apart, images, normed, rp, stacked
from torch import nn

from ganops import ops
from ganops.nn import DiscriminatorBank

close = torch.testing.assert_close
TIGHT = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=ARCHITECTURES)
def pair(request):
    """A bank that must not loop, and the same K modules apart."""
    make = ARCHITECTURES[request.param]
    bank = DiscriminatorBank(make, K, seed=7, execution="batched")
    return bank, apart(make, range(7, 7 + K))


def scores_of(members, x):
    return torch.stack([m(x[k]).flatten() for k, m in enumerate(members)])


def assert_same_state(bank, members):
    for name, t in bank.state_dict().items():
        close(t, stacked(members, lambda m: m.state_dict()[name]), **TIGHT, msg=name)  # noqa: B023


def test_initialisation_and_names_are_those_of_the_seeds(pair):
    bank, members = pair
    assert list(bank.state_dict()) == list(members[0].state_dict())
    for name, t in bank.state_dict().items():
        assert torch.equal(t, stacked(members, lambda m: m.state_dict()[name]))  # noqa: B023


def test_seeds_leave_the_generator_alone_and_may_be_a_list():
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    bank = DiscriminatorBank(lambda: nn.Linear(2, 1), 2, seed=[5, 5])
    assert torch.equal(torch.rand(()), expected)
    assert torch.equal(bank.weight[0], bank.weight[1])


def test_training_steps_with_penalties_are_those_of_separate_modules(pair):
    """Losses, gradients to images, Adam's states and running statistics over three steps."""
    bank, members = pair
    ours = torch.optim.Adam(bank.parameters(), 1e-2, betas=(0.5, 0.999))
    theirs = [torch.optim.Adam(m.parameters(), 1e-2, betas=(0.5, 0.999)) for m in members]
    for step in range(3):
        x = images(step).requires_grad_()
        losses, grads = [], []
        for players in (bank, members):
            scores = bank(x) if players is bank else scores_of(members, x)
            (g,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
            loss = scores.square().mean(1) + g.flatten(2).square().sum(2).mean(1)
            for m in [bank] if players is bank else members:
                m.zero_grad()
            loss.sum().backward()
            losses.append(loss.detach())
            grads.append(g.detach())
        close(losses[0], losses[1], **TIGHT)
        close(grads[0], grads[1], **TIGHT)
        for name, p in bank.named_parameters():
            apart_ = [m.get_parameter(name).grad for m in members]
            if all(g is not None for g in apart_) and p.grad is not None:
                close(p.grad, torch.stack(apart_), rtol=1e-8, atol=1e-11, msg=name)
            else:  # twins send nothing where stock sends zeros
                assert all(g is None or not g.any() for g in apart_), name
        for optimizer in (ours, *theirs):
            optimizer.step()
    for i, p in enumerate(bank.parameters()):
        state = ours.state[p]
        for key in ("exp_avg", "exp_avg_sq"):
            apart_ = [o.state[list(m.parameters())[i]][key] for o, m in zip(theirs, members)]
            close(state[key], torch.stack(apart_), rtol=1e-6, atol=1e-10)
    for name, t in bank.state_dict().items():
        theirs_ = stacked(members, lambda m: m.state_dict()[name])  # noqa: B023
        close(t, theirs_, rtol=1e-6, atol=1e-8)


def test_evaluation(pair):
    bank, members = pair
    bank(images(1))
    scores_of(members, images(1))
    bank.eval()
    for m in members:
        m.eval()
    x = images(2).requires_grad_()
    before = {k: v.clone() for k, v in bank.state_dict().items()}
    scores, expected = bank(x), scores_of(members, x)
    close(scores, expected, **TIGHT)
    close(*(torch.autograd.grad(s.sum(), x)[0] for s in (scores, expected)), **TIGHT)
    assert all(torch.equal(before[k], v) for k, v in bank.state_dict().items())


def test_one_shared_batch(pair):
    bank, members = pair
    x = images()[0].requires_grad_()
    scores = bank(x, shared=True)
    expected = scores_of(members, x.expand(K, *x.shape))
    close(scores, expected, **TIGHT)
    weights = torch.rand(K, 1)
    close(*(torch.autograd.grad((s * weights).sum(), x)[0] for s in (scores, expected)), **TIGHT)


def test_a_leaf_that_is_one_batch_expanded_gets_each_discriminators_own_gradient():
    bank = DiscriminatorBank(rp, K, seed=0, execution="batched")
    members = [bank.unbind(k) for k in range(K)]
    x = images()[0].expand(K, -1, -1, -1, -1).detach().requires_grad_()
    (g,) = torch.autograd.grad(bank(x).sum(), x)
    (expected,) = torch.autograd.grad(scores_of(members, x).sum(), x)
    close(g, expected, **TIGHT)


@pytest.mark.parametrize("engine", ["auto", "autograd", "tangent"])
def test_penalties_are_k_separate_penalties(engine):
    bank = DiscriminatorBank(rp, K, seed=1, execution="batched")
    members = [bank.unbind(k) for k in range(K)]
    real, fake, alpha = images(1), images(2), torch.rand(K, 4)
    ours = [
        ops.gradient_penalty(bank, real, fake, alpha=alpha, per_discriminator=True, engine=engine),
        ops.r1_penalty(bank, real, per_discriminator=True, engine=engine),
        ops.r2_penalty(bank, fake, per_discriminator=True, engine=engine),
        ops.gradient_penalty(bank, real, fake, alpha=alpha, per_discriminator=True, center=0.1,
                             one_sided=True),
    ]  # fmt: skip
    theirs = [
        torch.stack([ops.gradient_penalty(m, real[k], fake[k], alpha=alpha[k])
                     for k, m in enumerate(members)]),
        torch.stack([ops.r1_penalty(m, real[k]) for k, m in enumerate(members)]),
        torch.stack([ops.r2_penalty(m, fake[k]) for k, m in enumerate(members)]),
        torch.stack([ops.gradient_penalty(m, real[k], fake[k], alpha=alpha[k], center=0.1,
                                          one_sided=True) for k, m in enumerate(members)]),
    ]  # fmt: skip
    for a, b in zip(ours, theirs):
        assert a.shape == (K,)
        close(a, b, **TIGHT)
        w = torch.rand(K)
        (a @ w).backward()
        (b @ w).backward()
    for name, p in bank.named_parameters():
        if p.grad is not None:
            grads = stacked(members, lambda m: m.get_parameter(name).grad)  # noqa: B023
            close(p.grad, grads, **TIGHT)
    assert bank.get_parameter("0.weight").grad is not None


def test_the_penalty_of_a_shared_batch_is_of_the_sum_over_k():
    bank = DiscriminatorBank(rp, K, seed=1, execution="batched")
    members = [bank.unbind(k) for k in range(K)]
    x = images()[0]
    found = ops.r1_penalty(bank, x, critic_kwargs={"shared": True})
    close(found, ops.r1_penalty(lambda t: sum(m(t).flatten() for m in members), x), **TIGHT)


def test_a_penalty_drawn_at_random_takes_one_alpha_for_each_discriminator_and_sample():
    seen = []

    class Bank:
        takes_a_batch_each = True

        def __call__(self, x):
            seen.append(x.detach())
            return x.flatten(2).square().sum(2)

    ops.gradient_penalty(Bank(), torch.ones(2, 3, 5), torch.zeros(2, 3, 5), per_discriminator=True)
    assert seen[0][..., 0].unique().numel() == 6
    assert torch.equal(seen[0], seen[0][..., :1].expand(2, 3, 5))


def test_one_discriminator_taken_out_and_put_back(pair):
    bank, members = pair
    x = images(3)
    alone = bank.unbind(1).eval()
    assert type(alone) is type(members[0])
    close(alone(x[1]), members[1].eval()(x[1]), **TIGHT)
    assert bank.member_state_dict(1).keys() == members[0].state_dict().keys()
    other = apart(ARCHITECTURES["rp"], [99])[0] if type(alone) is nn.Sequential else None
    with torch.no_grad():
        for p in alone.parameters():
            p.add_(1)
    assert not torch.equal(next(iter(bank.parameters()))[1], next(iter(alone.parameters())))
    bank.load_member_state_dict(1, alone.state_dict())
    for name, t in bank.state_dict().items():
        assert torch.equal(t[1], alone.state_dict()[name])
        assert torch.equal(t[0], members[0].state_dict()[name])
    fresh = copy.deepcopy(members[0])
    fresh.load_state_dict(bank.member_state_dict(-1))  # keys and shapes of a plain module
    assert other is None or len(other.state_dict())


def test_saved_and_copied():
    bank = DiscriminatorBank(normed(nn.BatchNorm2d), K, seed=0)
    other = DiscriminatorBank(normed(nn.BatchNorm2d), K, seed=9)
    other.load_state_dict(bank.state_dict())
    twin = copy.deepcopy(bank)
    x = images()
    expected = bank(x)
    assert torch.equal(other(x), expected)
    assert torch.equal(twin(x), expected)
    twin.float()
    assert twin(x.float()).dtype == torch.float32
    assert bank.get_parameter("0.weight").dtype == torch.float64


def test_patches_keep_their_shape():
    bank = DiscriminatorBank(lambda: nn.Conv2d(1, 1, 4, 4), K)
    assert bank(images()).shape == (K, 4, 1, 4, 4)
