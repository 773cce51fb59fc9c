"""BEGAN's M and the realness gap."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganops.metrics import began_convergence, realness_gap


def test_began() -> None:
    found = began_convergence(0.2, torch.tensor(0.06, dtype=torch.float64))
    assert (found.m, found.balance, found.ratio) == pytest.approx((0.24, 0.04, 0.3))
    assert began_convergence(0.2, 0.1).m == 0.2
    assert began_convergence(0.2, 0.2).m == pytest.approx(0.3)
    assert began_convergence(0.2, 0.1, gamma=0.75).m == pytest.approx(0.25)
    assert began_convergence(0.0, 0.0).m == 0.0
    assert began_convergence(0.0, 0.1).ratio == math.inf
    assert "gamma 0.5" in str(found)
    for losses in ((-1, 0.1), (0.1, math.nan), (math.inf, 1)):
        with pytest.raises(ValueError, match="finite losses >= 0"):
            began_convergence(*losses)
    with pytest.raises(ValueError, match="gamma"):
        began_convergence(0.1, 0.1, gamma=-1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=30),
    st.lists(st.integers(-3, 3), min_size=1, max_size=30),
)
def test_auc_counts_pairs_and_ties(real, generated) -> None:
    expected = sum((s > t) + 0.5 * (s == t) for s in real for t in generated)
    found = realness_gap(torch.tensor(real).float(), torch.tensor(generated).half()[:, None])
    assert found.auc == expected / (len(real) * len(generated))
    assert (found.n_real, found.n_generated) == (len(real), len(generated))


def test_the_other_numbers() -> None:
    s, t = torch.tensor([2.0, 0.0, -1.0]), torch.tensor([-1.0, 0.5])
    found = realness_gap(s, t)
    assert found.logit_gap == pytest.approx(1 / 3 + 0.25)
    assert found.probability_gap == pytest.approx(
        float(s.double().sigmoid().mean() - t.double().sigmoid().mean())
    )
    variance = (float(s.double().var()) + float(t.double().var())) / 2
    assert found.effect_size == pytest.approx(found.logit_gap / math.sqrt(variance))
    assert (found.real_sign, found.generated_sign) == (0.0, 0.0)
    assert realness_gap(s.abs(), t).real_sign == pytest.approx(2 / 3)
    assert realness_gap(s, -t.abs()).generated_sign == -1.0
    assert math.isnan(realness_gap(s, t, logits=False).probability_gap)
    assert "probability" not in str(realness_gap(s, t, logits=False))
    assert "3 real and 2 generated" in str(found)


def test_equal_constant_and_normal_scores() -> None:
    s = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    same = realness_gap(s, s)
    assert (same.auc, same.logit_gap, same.effect_size) == (0.5, 0.0, 0.0)
    one = realness_gap(torch.ones(5), torch.zeros(3))
    assert (one.auc, one.logit_gap, one.effect_size) == (1.0, 1.0, math.inf)
    assert realness_gap(torch.zeros(5), torch.ones(3)).effect_size == -math.inf
    assert realness_gap(torch.ones(5), torch.ones(3)).effect_size == 0.0
    assert realness_gap(torch.ones(1), torch.zeros(1)).auc == 1.0
    t = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    apart = realness_gap(s + 1, t)
    assert apart.auc == pytest.approx(0.760250, abs=0.01)
    assert apart.effect_size == pytest.approx(1.0, abs=0.03)
    squeezed = realness_gap((s + 1).double().sinh(), t.double().sinh())
    assert squeezed.auc == apart.auc
    assert realness_gap(t, s + 1).auc == pytest.approx(1 - apart.auc)


def test_bad_scores() -> None:
    good = torch.randn(4)
    for bad, error, says in (
        (good.long(), TypeError, "floating-point scores, got torch.int64"),
        ([1.0], TypeError, "got list"),
        (good.view(2, 2), ValueError, "one score an image"),
        (good[:0], ValueError, "one score an image"),
        (good.index_fill(0, torch.tensor(2), torch.nan), ValueError, "got nan at 2"),
    ):
        with pytest.raises(error, match=says):
            realness_gap(bad, good)
        with pytest.raises(error, match="generated: .*" + says):
            realness_gap(good, bad)
