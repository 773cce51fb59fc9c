"""Inception Score: closed forms, extremes, splits, streaming, peers, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from peers import peer

from ganops.metrics import StreamingInceptionScore, inception_score


def logits(n: int, classes: int, seed: int = 0, scale: float = 3.0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, classes, generator=g) * scale


def brute(rows, splits):
    """By Python floats: mean KL to the mean, split by split."""
    n, scores = len(rows), []
    for s in range(splits):
        part = []
        for row in rows[s * n // splits : (s + 1) * n // splits].tolist():
            top = max(row)
            weights = [math.exp(v - top) for v in row]
            part.append([w / math.fsum(weights) for w in weights])
        q = [math.fsum(column) / len(part) for column in zip(*part)]
        kl = [math.fsum(p * math.log(p / m) for p, m in zip(row, q) if p) for row in part]
        scores.append(math.exp(math.fsum(kl) / len(part)))
    mean = math.fsum(scores) / splits
    return mean, math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / splits)


@pytest.mark.parametrize(("n", "splits"), [(40, 1), (40, 10), (43, 10), (11, 10), (10, 10)])
def test_brute_force(n, splits) -> None:
    rows = logits(n, 7)
    found = inception_score(rows, splits=splits)
    assert (found.value, found.std) == pytest.approx(brute(rows, splits), rel=1e-12, abs=1e-12)
    assert len(found.scores) == splits


def test_closed_forms() -> None:
    assert inception_score(logits(1, 5).expand(20, 5), splits=2).value == pytest.approx(1.0)
    for seed in range(20):  # never below, by rounding either
        same = logits(1, 50, seed).expand(20, 50)
        assert min(inception_score(same, splits=5).scores) >= 1.0
    hot = 80.0 * torch.eye(6).repeat(4, 1)
    assert inception_score(hot, splits=2).value == pytest.approx(6.0, rel=1e-12)
    a = torch.tensor([0.9, 0.1]).double().log()
    pair = torch.stack([a, a.flip(0)]).repeat(10, 1)
    assert inception_score(pair, splits=2).value == pytest.approx(1.4449348, rel=1e-6)
    assert inception_score(pair, splits=2).std == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("size", [2e2, 2e3, 1e30])
def test_extreme_logits_of_classes_never_predicted(size) -> None:
    rows = torch.full((20, 8), -size)
    rows[torch.arange(20), torch.arange(20) % 4] = size
    found = inception_score(rows, splits=1)
    assert found.value == pytest.approx(4.0, rel=1e-12)
    assert inception_score(rows.double() * 1e270, splits=1).value == pytest.approx(4.0, rel=1e-12)


def test_a_constant_changes_nothing_and_a_bias_something_that_is_said() -> None:
    rows = logits(60, 9).double()
    plain = inception_score(rows, splits=3)
    assert inception_score(rows + 5.0, splits=3).value == pytest.approx(plain.value, rel=1e-12)
    bias = torch.linspace(0, 3, 9)
    biased = inception_score(rows, splits=3, bias=bias)
    assert biased.value == pytest.approx(brute(rows + bias, 3)[0], rel=1e-12)
    assert abs(biased.value - plain.value) > 0.01
    assert "no logit bias added" in str(plain)
    assert "no logit bias" not in str(biased)
    assert "logit bias added" in str(biased)
    for part in ("60 images", "9 classes", "3 splits", "contiguous", "population"):
        assert part in str(plain)


def test_sizes_of_splits_differ_by_one_and_are_said() -> None:
    assert "sizes 10 to 11" in str(inception_score(logits(103, 4), splits=10))
    assert "sizes 10 to 10" in str(inception_score(logits(100, 4), splits=10))


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_streaming_is_the_same(batch) -> None:
    rows = logits(131, 6)
    whole = inception_score(rows, splits=10)
    known = StreamingInceptionScore(6, splits=10, total=131)
    dealt = StreamingInceptionScore(6, splits=10)
    for part in rows.split(batch):
        known.update(part)
        dealt.update(part)
        dealt.update(part[:0])
    assert known.compute().scores == pytest.approx(whole.scores, rel=1e-13)
    assert known.compute().order == "contiguous"
    # Dealt like cards: equal to contiguous splits of the rows in that order, of the same sizes.
    expected = [brute(rows[s::10], 1)[0] for s in range(10)]
    assert dealt.compute().scores == pytest.approx(expected, rel=1e-12)
    assert "every S-th row" in str(dealt.compute())


def test_no_generator_is_used() -> None:
    before = torch.get_rng_state()
    assert inception_score(logits(50, 5)) == inception_score(logits(50, 5))
    assert torch.equal(before, torch.get_rng_state())


def test_torch_fidelity() -> None:
    theirs = peer("torch_fidelity.metric_isc")
    rows = logits(507, 30)
    other = theirs.isc_features_to_metric(rows, splits=10, shuffle=False)
    found = inception_score(rows)
    assert found.value == pytest.approx(other[theirs.KEY_METRIC_ISC_MEAN], rel=1e-12)
    assert found.std == pytest.approx(other[theirs.KEY_METRIC_ISC_STD], rel=1e-9)


def test_bad_input() -> None:
    rows = logits(20, 5)
    for call, error, says in (
        (lambda: inception_score(rows[:9]), ValueError, r"10 rows or more \(splits = 10\), got 9"),
        (lambda: inception_score(rows[0]), ValueError, r"logits: expected shape \(N, d\)"),
        (lambda: inception_score(rows.long()), TypeError, "floating-point"),
        (lambda: inception_score(rows * torch.nan), ValueError, "being row 0"),
        (lambda: inception_score(rows, splits=0), ValueError, "splits >= 1"),
        (lambda: inception_score(rows, bias=rows[0, :4]), ValueError, r"bias: expected shape \(5"),
        (lambda: StreamingInceptionScore(5, total=9), ValueError, "total >= splits = 10, got 9"),
        (lambda: StreamingInceptionScore(5).compute(), ValueError, "10 rows or more, got 0"),
        (lambda: StreamingInceptionScore(5, total=30).compute(), ValueError, "30 rows, got 0"),
        (lambda: StreamingInceptionScore(4).update(rows), ValueError, r"logits \(N, 4\)"),
        (lambda: StreamingInceptionScore(5, total=19).update(rows), ValueError, "19 rows, got 20"),
    ):
        with pytest.raises(error, match=says):
            call()
