"""FeatureStats: float64's own mean and covariance, however rows arrive, merge and are read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from two_processes import meet, run_two

from ganops.metrics import FeatureStats, frechet_distance


def rows_of(n, d, seed=0, mean=0.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64) / d**0.5
    x = torch.randn(n, d, generator=generator, dtype=torch.float64).abs() @ mix + mean
    return x.to(dtype)


def two_pass(x):
    x = x.double()
    mean = x.mean(0)
    mean = mean + (x - mean).mean(0)
    c = x - mean
    return mean, c.T @ c / (len(x) - 1)


def of(x, split=None, **kwargs):
    stats = FeatureStats(x.shape[1], **kwargs)
    for part in x.split(split or len(x)):
        stats.update(part)
    return stats


def error(got, expected):
    return float((got - expected).abs().max() / expected.abs().max())


def state(stats):
    return {k: v for k, v in stats.state_dict().items() if torch.is_tensor(v)}


def same_bits(a, b):
    a, b = state(a), state(b)
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("states", "mode"), [(1, "exact"), (2, "exact"), (7, "exact"), (2, "fast")]
)
def test_a_million_rows_in_ten_thousand_uneven_batches(states, mode):
    x = rows_of(10**6, 6, mean=3.0)
    generator = torch.Generator().manual_seed(1)
    cuts = torch.randint(10**6, (9_999,), generator=generator).sort().values.tolist()
    batches = [x[i:j] for i, j in zip([0, *cuts], [*cuts, 10**6], strict=True)]
    assert min(map(len, batches)) == 0  # and empty ones are among them
    parts = [FeatureStats(6, mode=mode) for _ in range(states)]
    for i, batch in enumerate(batches):
        parts[i % states].update(batch)
    total = parts[0]
    for part in parts[1:]:
        total.merge(part)
    mean, cov = two_pass(x)
    assert total.count == 10**6
    assert error(total.mean, mean) < 1e-12
    assert error(total.cov, cov) < (1e-10 if mode == "exact" else 2e-7)
    reference = of(rows_of(1000, 6, 5))
    distance = frechet_distance((mean, cov), reference)
    assert frechet_distance(total, reference) == pytest.approx(distance, rel=1e-6)


@pytest.mark.parametrize("mean", [0.0, 10.0, 1e3, 1e5])
def test_far_from_zero(mean):
    """Raw second moments lose mean^2 / variance; block means keep all but mean / deviation."""
    x = rows_of(20_000, 8, mean=mean, dtype=torch.float64)
    stats = of(x, 300)
    assert error(stats.cov, two_pass(x)[1]) < 1e-14 + 1e-16 * mean
    assert error(of(x, 300, mode="fast").cov, two_pass(x)[1]) < 1e-6
    raw = (x.T @ x - len(x) * x.mean(0).outer(x.mean(0))) / (len(x) - 1)
    if mean == 1e5:
        assert error(raw, two_pass(x)[1]) > 1e-9  # the test can tell


def test_a_first_block_that_is_unlike_the_rest():
    """No pilot mean is trusted: the rows jump by 1e6 standard deviations."""
    x = torch.cat((rows_of(600, 5, dtype=torch.float64), rows_of(6000, 5, 1, 1e6).double()))
    assert error(of(x, 97).cov, two_pass(x)[1]) < 1e-12
    later = FeatureStats(5).merge(of(x[600:], 97))
    assert error(later.cov, two_pass(x[600:])[1]) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("split", [1, 7, 700, 2000])
def test_every_dtype_is_read_as_it_is(dtype, split):
    x = rows_of(1500, 11, dtype=dtype)
    stats = of(x, split)
    mean, cov = two_pass(x)
    assert stats.mean.dtype == stats.cov.dtype == torch.float64
    assert error(stats.mean, mean) < 1e-14
    assert error(stats.cov, cov) < 1e-13


def test_dtypes_may_alternate():
    x = rows_of(40, 3, dtype=torch.float64)
    halves = x.to(torch.bfloat16)
    stats = FeatureStats(3, block=16)
    for i in range(0, 40, 4):  # a block begun in float32 goes on in float64
        stats.update(halves[i : i + 2])
        stats.update(x[i + 2 : i + 4])
    mixed = torch.stack([x[i] if i % 4 >= 2 else halves[i].double() for i in range(40)])
    assert error(stats.cov, two_pass(mixed)[1]) < 1e-14


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(1, 30), st.booleans())
def test_the_same_rows_give_the_same_bits_however_they_are_split(sizes, block, reading):
    x = rows_of(sum(sizes) + 2, 4)
    one = of(x, block=block)
    many = FeatureStats(4, block=block)
    for part in x.split([*sizes, 2]):
        many.update(part)
        if reading and many.count >= 2:
            many.moments()
    assert same_bits(one, many)
    assert torch.equal(one.cov, many.cov)
    assert error(one.cov, two_pass(x)[1]) < 1e-12


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(2, 30), st.integers(1, 9))
def test_merging_is_counting_all_rows(a, b, c, block):
    parts = [rows_of(n, 3, seed) for seed, n in enumerate((a, b, c))]
    x, y, z = (of(p, block=block) if len(p) else FeatureStats(3, block=block) for p in parts)
    before = [p.copy() for p in (x, y, z)]
    left, right = x.copy().merge(y).merge(z), x.copy().merge(y.copy().merge(z))
    again = x.copy().merge(y).merge(z)
    mean, cov = two_pass(torch.cat(parts))
    for got in (left, right, z.copy().merge(x).merge(y)):
        assert got.count == a + b + c
        assert error(got.mean, mean) < 1e-13
        assert error(got.cov, cov) < 1e-13
    assert same_bits(left, again)
    assert all(same_bits(p, q) for p, q in zip((x, y, z), before, strict=True))
    left.update(parts[2])  # and goes on
    assert error(left.cov, two_pass(torch.cat((*parts, parts[2])))[1]) < 1e-12


def test_merging_with_itself_counts_all_rows_twice():
    x = rows_of(23, 3)
    stats = of(x, block=10)
    assert error(stats.merge(stats).cov, two_pass(torch.cat((x, x)))[1]) < 1e-14


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_numbers_that_are_not_finite_are_refused_and_nothing_is_lost(bad, dtype):
    x = rows_of(50, 4, dtype=dtype)
    stats = of(x, 7, block=16)
    before = stats.copy()
    wrong = x.clone()
    wrong[31, 2] = bad
    wrong[40] = float("nan")
    with pytest.raises(ValueError, match=r"(nan|inf) at feature 2 in row 31 .*\(row 81 of all"):
        stats.update(wrong)
    assert same_bits(stats, before)
    assert stats.count == 50


def test_large_finite_numbers_are_not_taken_for_infinite():
    stats = FeatureStats(2)
    stats.update(torch.full((4, 2), 3e38))
    stats.update(torch.full((4, 2), 6e4, dtype=torch.float16))
    assert stats.count == 8
    huge = FeatureStats(1)
    huge.update(torch.tensor([[1e200], [-1e200]], dtype=torch.float64))
    with pytest.raises(ValueError, match="overflow"):
        huge.moments()


def test_bad_input():
    stats = FeatureStats(3)
    for wrong in (torch.zeros(2, 4), torch.zeros(3), torch.zeros(1, 3, 1)):
        with pytest.raises(ValueError, match=r"expected features \(N, 3\), got"):
            stats.update(wrong)
    for wrong in (torch.zeros(2, 3, dtype=torch.int64), [[1.0, 2.0, 3.0]]):
        with pytest.raises(TypeError, match="expected a tensor of floating features, got"):
            stats.update(wrong)
    with pytest.raises(ValueError, match="a mean needs a row or more, got 0"):
        _ = stats.mean
    stats.update(torch.ones(1, 3))
    assert stats.mean.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="needs 2 rows or more, got 1"):
        _ = stats.cov
    for kwargs in ({"dim": 0}, {"dim": 2.0}, {"dim": 2, "block": 0}, {"dim": 2, "mode": "half"}):
        with pytest.raises(ValueError, match="FeatureStats: expected"):
            FeatureStats(**kwargs)
    for other, word in (
        (FeatureStats(4), "dim 3 and 4"),
        (FeatureStats(3, mode="fast"), "mode 'exact' and 'fast'"),
        (FeatureStats(3, resize="tf"), "resize: None and 'tf'"),
    ):
        with pytest.raises(ValueError, match=f"cannot merge.* {word}"):
            stats.merge(other)


def test_a_state_dict_continues_to_the_bit():
    x = rows_of(100, 5)
    whole, first = of(x, block=32), of(x[:45], block=32)
    rest = FeatureStats(5, block=32)
    rest.load_state_dict(first.state_dict())
    first.update(x[:1])  # does not reach the one that was loaded
    rest.update(x[45:])
    assert same_bits(whole, rest)
    assert whole.count == rest.count == 100
    with pytest.raises(ValueError, match="expected a state of block 16, got 32"):
        FeatureStats(5, block=16).load_state_dict(whole.state_dict())


def test_features_of_inference_mode_and_with_a_graph_are_taken():
    x = rows_of(40, 3)
    stats = FeatureStats(3, block=16)
    with torch.inference_mode():
        stats.update(x[:20] * 1)
        made = FeatureStats(3, block=16)
        made.update(x[:20] * 1)
        copied = made.copy()
        loaded = FeatureStats(3, block=16)
        loaded.load_state_dict(made.state_dict())
        merged = FeatureStats(3, block=16).merge(made)
    stats.update(x[20:].clone().requires_grad_())
    for other in (made, copied, loaded, merged):
        other.update(x[20:])
        assert error(other.cov, stats.cov) < 1e-14
    assert not stats.mean.requires_grad
    assert same_bits(stats, of(x, block=16))


SHARES = [(37, 4), (0, 30), (0, 0)]


def test_two_processes_have_all_rows(tmp_path):
    """Uneven counts, one empty, both empty."""
    for first, second, counts in zip(*run_two(__file__, tmp_path), SHARES, strict=True):
        assert first["count"] == second["count"] == sum(counts)
        if sum(counts):
            assert torch.equal(first["m2"], second["m2"])
            assert torch.equal(first["mean"], second["mean"])
            x = torch.cat([rows_of(n, 5, rank, 1e3 * rank, torch.float64)
                           for rank, n in enumerate(counts)])  # fmt: skip
            mean, cov = two_pass(x)
            assert error(first["mean"], mean) < 1e-14
            assert error(first["cov"], cov) < 1e-13


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    meet(rank, folder)
    found = []
    for counts in SHARES:
        stats = FeatureStats(5, block=16)
        stats.update(rows_of(counts[rank], 5, rank, 1e3 * rank, torch.float64))
        stats.all_reduce()
        found.append(
            {
                "count": stats.count,
                "cov": stats.cov if stats.count else None,
                **{k: v for k, v in stats.state_dict().items() if k in ("mean", "m2")},
            }
        )
    torch.save(found, folder / f"{rank}.pt")
