"""What a bank runs: as many calls for many discriminators as for few; what it refuses."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from banks import ARCHITECTURES, K, images, rp
from torch import nn
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.utils._python_dispatch import TorchDispatchMode

from ganops import ops
from ganops.nn import DiscriminatorBank
from ganops.ops.conv.bank import Windows, convolve_bank

VIEWS = {"detach", "view", "transpose", "t", "expand", "permute", "select", "slice", "unsqueeze",
         "squeeze", "alias", "_unsafe_view", "unfold", "as_strided", "_reshape_alias", "split",
         "unbind"}  # fmt: skip


class Calls(TorchDispatchMode):
    """What is asked of the dispatcher, views excluded."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def step(bank, count, penalty):
    x = images(1, count).float()
    with Calls() as calls:
        loss = bank(x).square().mean(1).sum()
        if penalty:
            alpha = torch.full(x.shape[:2], 0.5)
            loss = loss + ops.gradient_penalty(
                bank, x, images(2, count).float(), alpha=alpha, per_discriminator=True
            ).sum()  # fmt: skip
        loss.backward()
    return calls.names


@pytest.mark.parametrize("make", ARCHITECTURES.values(), ids=ARCHITECTURES)
@pytest.mark.parametrize("penalty", [False, True])
def test_calls_do_not_depend_on_k(make, penalty):
    counts = []
    for count in (2, 5):
        bank = DiscriminatorBank(make, count, execution="batched")
        bank(images(0, count).float())  # the first call looks whether it can
        counts.append(sorted(step(bank, count, penalty)))
    assert counts[0] == counts[1]


def test_convolutions_of_a_penalty_are_four_a_layer():
    """Forward, backward to the input, and the two of the double backward, for all K together."""
    bank = DiscriminatorBank(rp, 4, execution="batched")
    bank(images(0, 4).float())
    x = images(1, 4).float()
    with Calls() as calls:
        ops.r1_penalty(bank, x, per_discriminator=True).sum().backward()
    products = [n for n in calls.names if n in ("convolution", "convolution_backward", "bmm",
                                                "baddbmm", "addmm", "mm")]  # fmt: skip
    # The last layer's double backward has no forward part: its scores' gradient is a constant.
    assert len(products) <= 4 * 4 + 2


@pytest.mark.parametrize("sides", [(6, 6), (7, 5)])
@pytest.mark.parametrize("kernel", [(2, 2), (4, 4), (3, 2), (1, 1)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (0, 1)])
def test_products_over_windows_are_convolutions(sides, kernel, stride, padding, monkeypatch):
    """Values and gradients of order 1 and 2, where the product is not what would be chosen too."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    x, w, b = randn(2, 3, 2, *sides), randn(2, 3, 2, *kernel), randn(2, 3)
    found = []
    for yes in (True, False):
        monkeypatch.setattr(Windows, "better", lambda *_: yes)  # noqa: B023
        y = convolve_bank(x, w, b, stride, padding, (1, 1), 1)
        first = torch.autograd.grad(y.sin().sum(), (x, w, b), create_graph=True)
        second = torch.autograd.grad(sum(g.cos().sum() for g in first), (x, w, b))
        with torch.no_grad():
            found.append([convolve_bank(x, w, b, stride, padding, (1, 1), 1), *first, *second])
    separate = [nn.functional.conv2d(x[k], w[k], b[k], stride, padding) for k in range(2)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[0][0], torch.stack(separate), rtol=1e-10, atol=1e-12)


def test_both_ways_are_chosen():
    first, last = torch.Size((48, 8, 1, 32, 32)), torch.Size((48, 8, 64, 4, 4))
    same = Windows((2, 2), (1, 1), (4, 4))
    assert not same.better(first, torch.Size((48, 16, 1, 4, 4)))
    assert same.better(last, torch.Size((48, 128, 64, 4, 4)))
    assert same.better(torch.Size((48, 8, 32, 8, 8)), torch.Size((48, 64, 32, 4, 4)))  # nearly ties
    assert not same.better(torch.Size((48, 4, 64, 16, 16)), torch.Size((48, 128, 64, 4, 4)))
    assert Windows((1, 1), (0, 0), (2, 2)).better(torch.Size((48, 8, 128, 2, 2)),
                                                  torch.Size((48, 1, 128, 2, 2)))  # fmt: skip


class Branches(nn.Linear):
    """Looks at its data."""

    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else -super().forward(x)


def test_what_cannot_be_batched_is_refused_or_looped_with_one_warning():
    x = torch.randn(K, 4, 2)
    with pytest.raises(RuntimeError, match=r"cannot be batched .*control flow.*execution='loop'"):
        DiscriminatorBank(lambda: Branches(2, 1), K, seed=0, execution="batched")(x)
    bank = DiscriminatorBank(lambda: Branches(2, 1), K, seed=0)
    expected = torch.stack([bank.unbind(k)(x[k]).squeeze(1) for k in range(K)])
    with pytest.warns(UserWarning, match="one after the other, as they cannot be batched"):
        torch.testing.assert_close(bank(x), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(bank(x), expected)


class Late(nn.Module):
    """Moves statistics before torch finds that it cannot batch it."""

    def __init__(self):
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(2), Branches(2, 1)

    def forward(self, x):
        return self.last(self.norm(x))


def test_a_failed_attempt_moves_nothing():
    bank = DiscriminatorBank(Late, K, seed=0)
    twin = DiscriminatorBank(Late, K, seed=0, execution="loop")
    x = torch.randn(K, 4, 2)
    with pytest.warns(UserWarning, match="one after the other"):
        bank(x)
    twin(x)
    for name, b in bank.named_buffers():
        torch.testing.assert_close(b, twin.get_buffer(name))
    assert bank.get_buffer("norm.num_batches_tracked").tolist() == [1] * K


@pytest.mark.parametrize("make", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_the_loop_gives_the_same(make):
    x = images().float()
    banks = [DiscriminatorBank(make, K, seed=1, execution=how) for how in ("batched", "loop")]
    ys = [bank(x) for bank in banks]
    torch.testing.assert_close(*ys, rtol=1e-4, atol=1e-5)
    for a, b in zip(*(bank.buffers() for bank in banks)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_dropout_draws_other_masks_for_each():
    bank = DiscriminatorBank(lambda: nn.Dropout(0.5), 4, execution="batched")
    y = bank(torch.ones(4, 1, 64))
    assert len({tuple(row.flatten().tolist()) for row in y}) == 4
    bank.eval()
    assert torch.equal(bank(torch.ones(4, 1, 64)), torch.ones(4, 1, 64))


class Replaces(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen = self.seen + 1
        return x.sum(1)


SHARED = nn.Linear(2, 1)
WEIGHT = torch.randn(2)


class Hidden(nn.Linear):
    def __init__(self):
        super().__init__(2, 1)
        self.mean = WEIGHT


def factory(*modules):
    each = itertools.cycle(modules)
    return lambda: next(each)()


@pytest.mark.parametrize(
    ("make", "count", "error", "message"),
    [
        (rp, 0, ValueError, "K of at least 1, got 0"),
        (rp, 2.0, TypeError, "K as an int, got 2.0"),
        (rp(), 2, None, ""),
        (3, 2, TypeError, "make_discriminator as a function"),
        (lambda: torch.relu, 2, TypeError, "to return a torch.nn.Module, got"),
        (lambda: SHARED, 2, ValueError, "share nothing, got weight of number 1"),
        (lambda: nn.Sequential(nn.Linear(2, 2), SHARED), 2, ValueError, "share nothing, got 1.w"),
        (Hidden, 2, ValueError, "parameters or buffers, got one in the plain attribute mean"),
        (factory(lambda: nn.Linear(2, 1), lambda: nn.Linear(2, 3)), 2, ValueError,
         "one architecture, got"),
        (factory(lambda: nn.LeakyReLU(0.1), lambda: nn.LeakyReLU(0.2)), 2, ValueError,
         "one architecture, got"),
        (factory(nn.ReLU, nn.Tanh), 2, ValueError, "one architecture, got"),
        (factory(lambda: nn.Sequential(nn.ReLU()), lambda: nn.Sequential(nn.ReLU(), nn.ReLU())),
         2, ValueError, "one architecture"),
        (lambda: old_spectral_norm(nn.Linear(2, 1)), 2, ValueError, "parametrizations.spectral_n"),
    ],
)  # fmt: skip
def test_factories_are_checked(make, count, error, message):
    if error is None:  # a module is callable, but it is no factory
        error, message = TypeError, "make_discriminator as a function"
    with pytest.raises(error, match=message):
        DiscriminatorBank(make, count)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda b: b(torch.zeros(2, 4, 2)), ValueError, r"shape \(3, B, ...\).* got \(2, 4, 2\)"),
        (lambda b: b(torch.zeros(3)), ValueError, r"shape \(3, B, ...\).* got \(3,\)"),
        (lambda b: b(torch.zeros(()), shared=True), ValueError, "got a single number"),
        (lambda b: b([1]), TypeError, "x as a tensor, got list"),
        (lambda b: b.unbind(3), ValueError, "one of 3 discriminators, got 3"),
        (lambda b: b.part(2, 2), ValueError, "a part within 0 and 3, got 2 to 2"),
        (lambda b: list(b.parts(0)), ValueError, "chunk of at least 1, got 0"),
        (lambda b: b.load_member_state_dict(0, {}), ValueError, "differs in bias, weight"),
        (lambda b: b.load_member_state_dict(0, b.state_dict()), ValueError, "expected .* of shape"),
        (lambda b: ops.r1_penalty(b, torch.zeros(3, 4, 2)), ValueError, "got a bank, which takes"),
        (lambda b: ops.wgan_gp_loss(b, *torch.zeros(2, 3, 4, 2)), ValueError, "got a bank, which"),
        (lambda b: ops.gradient_penalty(b, *torch.zeros(2, 3, 4, 2), per_discriminator=True,
                                        alpha=torch.zeros(3)), ValueError, "alpha of shape"),
    ],
)  # fmt: skip
def test_calls_are_checked(call, error, message):
    bank = DiscriminatorBank(lambda: nn.Linear(2, 1), 3)
    with pytest.raises(error, match=message):
        call(bank)


@pytest.mark.parametrize("how", ["batched", "loop"])
def test_replaced_buffers_and_odd_scores_are_refused(how):
    with pytest.raises(RuntimeError, match="replaces its buffer seen"):
        DiscriminatorBank(Replaces, 2, execution=how)(torch.zeros(2, 4, 2))
    with pytest.raises(ValueError, match=r"scores of shape \(4, ...\)"):
        DiscriminatorBank(lambda: nn.Flatten(0), 2, execution=how)(torch.zeros(2, 4, 2))
    with pytest.raises(ValueError, match="expected 2 seeds, got 1"):
        DiscriminatorBank(rp, 2, seed=[1])
    with pytest.raises(ValueError, match="execution 'auto', 'batched' or 'loop', got 'fast'"):
        DiscriminatorBank(rp, 2, execution="fast")


@pytest.mark.parametrize("in_dims", [(0, 0), (2, 1), (1, None), (None, 0)])
def test_bias_act_of_members_with_and_without_a_bias_each(in_dims):
    shapes = [[4, 3, 5], [3]]  # without the members
    given = [torch.randn(s if d is None else [*s[:d], K, *s[d:]]) for s, d in zip(shapes, in_dims)]

    def one(x, b):
        return ops.bias_act(x, b, act="swish")

    alone = [[t if d is None else t.select(d, k) for t, d in zip(given, in_dims)] for k in range(K)]
    expected = torch.stack([one(*pair) for pair in alone])
    torch.testing.assert_close(torch.func.vmap(one, in_dims)(*given), expected)


def test_training_flags_follow_the_bank():
    bank = DiscriminatorBank(lambda: nn.Sequential(nn.Dropout(0.5)), 2, execution="loop").eval()
    assert not any(m.training for m in bank.unbind(0).modules())
    x = torch.ones(2, 3, 4)
    assert torch.equal(bank(x), x)
    assert all(m.training for m in bank.train().unbind(0).modules())
