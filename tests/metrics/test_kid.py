"""KID: brute force, peers, unbiasedness, its standard error, blocks, bad input."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from peers import peer

from ganops.metrics import BlockKID, kid


def sets(n: int, m: int, d: int, seed: int = 0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.rand(n, d, generator=g, dtype=torch.float64), torch.rand(m, d, generator=g)
    return x.to(dtype), (y * 1.2).to(dtype)


def brute(x, y):
    """By loops over Python floats, summed exactly."""
    x, y = x.double().tolist(), y.double().tolist()

    def k(a, b):
        return (math.fsum(p * q for p, q in zip(a, b)) / len(a) + 1) ** 3

    def within(rows):
        pairs = [k(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
        return math.fsum(pairs) / len(pairs)

    return within(x) + within(y) - 2 * math.fsum(k(a, b) for a in x for b in y) / (len(x) * len(y))


def test_the_cards_example() -> None:
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    found = kid(x, y)
    assert found.value == 297.5
    assert math.isnan(found.spread)
    assert found.as_dict()["spread"] is None
    assert found.as_dict()["protocol"] == found.protocol()


@pytest.mark.parametrize("tile", [None, 1, 7, 16])
@pytest.mark.parametrize("shape", [(2, 3, 1), (17, 23, 5), (32, 16, 3)])
def test_brute_force(shape, tile) -> None:
    x, y = sets(*shape)
    assert kid(x, y, tile=tile).value == pytest.approx(brute(x, y), rel=1e-11)
    assert kid(y, x, tile=tile).value == pytest.approx(brute(x, y), rel=1e-11)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert kid(x[order], y, tile=tile).value == pytest.approx(brute(x, y), rel=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_features_have_wide_products(dtype) -> None:
    x, y = sets(20, 19, 6, dtype=dtype)
    assert kid(x, y).value == pytest.approx(brute(x, y), rel=1e-11)
    with torch.autocast("cpu", torch.bfloat16):
        assert kid(x, y).value == pytest.approx(brute(x, y), rel=1e-11)
    fast = kid(x, y, dtype=torch.float32)
    assert fast.value == pytest.approx(brute(x, y), abs=1e-6)
    assert "float32 products" in str(fast)


def test_jackknife_is_leaving_one_out() -> None:
    x, y = sets(9, 7, 3)

    def without(rows, i):
        return torch.cat([rows[:i], rows[i + 1 :]])

    total = 0.0
    for rows, estimate in (
        (x, lambda i: kid(without(x, i), y).value), (y, lambda i: kid(x, without(y, i)).value)
    ):  # fmt: skip
        left = np.array([estimate(i) for i in range(len(rows))])
        total += (len(rows) - 1) / len(rows) * ((left - left.mean()) ** 2).sum()
    assert kid(x, y).spread == pytest.approx(math.sqrt(total), rel=1e-10)


def test_unbiased_and_its_standard_error_is_no_less_than_true() -> None:
    """Equal distributions: mean 0. Others: the jackknife's is the spread of repetitions."""
    g = torch.Generator().manual_seed(3)
    equal, apart = [], []
    for _ in range(400):
        x, y = torch.randn(2, 40, 8, generator=g).unbind()
        equal.append(kid(x, y))
        apart.append(kid(x, 1.3 * y + 0.7))
    values = torch.tensor([f.value for f in equal]).double()
    assert abs(values.mean()) < 4 * values.std() / 20
    assert values.min() < 0
    for found, low, high in ((equal, 1.0, 1.6), (apart, 0.9, 1.25)):
        true = torch.tensor([f.value for f in found]).double().std()
        root_mean_square = torch.tensor([f.spread for f in found]).square().mean().sqrt()
        assert low < root_mean_square / true < high


def test_rising_noise_raises_it() -> None:
    x, y = sets(200, 200, 10)
    noise = torch.randn(200, 10, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    values = [kid(x, y / 1.2 + s * noise).value for s in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values)


def by_hand(x, y, subsets, size, seed):
    """The subsets of the common tools: numpy's legacy generator, generated rows first."""
    draw, values = np.random.RandomState(seed), []
    for _ in range(subsets):
        b = y[draw.choice(len(y), size, replace=False)]
        values.append(brute(x[draw.choice(len(x), size, replace=False)], b))
    return np.mean(values), np.std(values)


def test_subsets() -> None:
    x, y = sets(30, 25, 4)
    found = kid(x, y, subsets=5, subset_size=12, seed=8)
    assert (found.value, found.spread) == pytest.approx(by_hand(x, y, 5, 12, 8), rel=1e-9)
    assert "5 subsets of 12, seed 8" in str(found)
    assert "standard deviation over subsets" in str(found)


def test_the_global_generators_are_left_alone() -> None:
    x, y = sets(30, 25, 4)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    kid(x, y, subsets=3, subset_size=10)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()


def test_torch_fidelity() -> None:
    theirs = peer("torch_fidelity.metric_kid")
    x, y = sets(220, 200, 32)
    found = kid(x, y, subsets=6, subset_size=90, seed=4)
    other = theirs.kid_features_to_metric(
        y, x, kid_subsets=6, kid_subset_size=90, rng_seed=4, verbose=False
    )
    assert found.value == pytest.approx(other[theirs.KEY_METRIC_KID_MEAN], rel=1e-9)
    assert found.spread == pytest.approx(other[theirs.KEY_METRIC_KID_STD], rel=1e-9)


def test_clean_fid() -> None:
    theirs = peer("cleanfid.fid")
    x, y = sets(220, 200, 32)
    np.random.seed(4)
    other = theirs.kernel_distance(x.numpy(), y.numpy(), num_subsets=6, max_subset_size=90)
    found = kid(x, y, subsets=6, subset_size=90, seed=4)
    assert found.value == pytest.approx(other, rel=1e-9)


def test_torchmetrics() -> None:
    theirs = peer("torchmetrics.image.kid")
    x, y = sets(40, 40, 8)
    other = theirs.poly_mmd(x, y)
    assert kid(x, y).value == pytest.approx(float(other), rel=1e-9)


def test_blocks_are_means_of_small_sets_however_they_arrive() -> None:
    x, y = sets(53, 47, 5)
    expected = [kid(x[s : s + 10], y[s : s + 10]).value for s in range(0, 40, 10)]
    for step in (1, 7, 10, 33):
        state = BlockKID(5, block=10)
        for at in range(0, 53, step):
            state.update(x[at : at + step], real=True)
            state.update(y[at : at + step], real=False)
        found = state.compute()
        assert found.value == pytest.approx(np.mean(expected), rel=1e-11)
        assert found.spread == pytest.approx(np.std(expected, ddof=1) / 2, rel=1e-9)
        assert (found.n_real, found.n_generated) == (40, 40)
        assert "13 real and 7 generated rows left over" in str(found)
    state.update(x[:0], real=True)
    assert state.compute() == found


def test_blocks_merge() -> None:
    x, y = sets(60, 60, 5)
    parts = [BlockKID(5, block=8) for _ in range(2)]
    for part, rows in zip(parts, (slice(0, 27), slice(27, 60))):
        part.update(x[rows], real=True)
        part.update(y[rows], real=False)
    assert (len(parts[0].values), len(parts[1].values)) == (3, 4)
    parts[0].merge(parts[1])
    assert len(parts[0].values) == 7  # 3 and 1 rows were left over
    parts[0].update(x[:4], real=True)
    parts[0].update(y[:4], real=False)
    leftover = [torch.cat([t[24:27], t[59:60], t[:4]]) for t in (x, y)]
    assert parts[0].values[7] == pytest.approx(kid(*leftover).value, rel=1e-11)
    with pytest.raises(ValueError, match="expected dim 5 and block 8, got 5 and 9"):
        parts[0].merge(BlockKID(5, block=9))


def test_bad_input() -> None:
    x, y = sets(6, 5, 3)
    for arguments, options, says in (
        ((x[:1], y), {}, "real: expected 2 rows or more, got 1"),
        ((x, y[:, :2]), {}, "one feature dimension"),
        ((x, y), {"subsets": 2, "subset_size": 6}, "subset_size <= the rows"),
        ((x, y), {"subsets": 0, "subset_size": 3}, "expected subsets >= 1"),
        ((x, y), {"dtype": torch.float16}, "dtype: expected torch.float64 or torch.float32"),
        ((x, y), {"tile": 0}, "tile: expected"),
        ((x, y * torch.nan), {}, "5 of 5 rows, the first being row 0"),
    ):
        with pytest.raises(ValueError, match=says):
            kid(*arguments, **options)
    state = BlockKID(3, block=4)
    with pytest.raises(ValueError, match=r"expected features \(N, 3\)"):
        state.update(x[:, :2], real=True)
    with pytest.raises(ValueError, match="a block of 4 rows of both sets, got 0 real"):
        state.compute()
    with pytest.raises(ValueError, match="block >= 2"):
        BlockKID(3, block=1)
