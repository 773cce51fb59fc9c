"""Precision, recall, density, coverage: brute force, peers, ties, laws, bad input."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import peer

from ganops.metrics import _tiles, density_coverage, prdc, precision_recall
from ganops.metrics._tiles import direct_rows, rows_of

NAMES = ("precision", "recall", "density", "coverage")


def sets(n: int, m: int, d: int, seed: int = 0, shift: float = 0.3, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, d, generator=g), torch.randn(m, d, generator=g) + shift
    return x.to(dtype), y.to(dtype)


def brute(real, generated, k, closed=True):
    """By loops over numpy rows in float64, as the definitions read."""
    r, g = real.double().numpy(), generated.double().numpy()
    within = np.less_equal if closed else np.less

    def radius(rows, i):
        others = [np.sqrt(((rows[i] - o) ** 2).sum()) for j, o in enumerate(rows) if j != i]
        return sorted(others)[k - 1]

    across = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in g] for a in r])
    of_real = np.array([radius(r, i) for i in range(len(r))])
    of_generated = np.array([radius(g, j) for j in range(len(g))])
    balls, back = within(across, of_real[:, None]), within(across, of_generated[None])
    return {
        "precision": balls.any(0).mean(),
        "recall": back.any(1).mean(),
        "density": balls.sum() / (k * len(g)),
        "coverage": balls.any(1).mean(),
    }


def numbers(result):
    return {name: getattr(result, name) for name in NAMES}


def test_the_example_of_the_papers_definitions() -> None:
    real, generated = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.5], [10.0]])
    found = prdc(real, generated, k=1, closed=False)
    assert numbers(found) == {"precision": 0.5, "recall": 1.0, "density": 1.0, "coverage": 2 / 3}
    found = density_coverage(real, generated, k=1)
    assert (found.density, found.coverage) == (1.0, 2 / 3)
    # Radii of real 3, 2, 3; four pairs at (0.5: all three balls), 10 in none.
    pair = torch.cat([generated, generated[1:] * 3])
    assert density_coverage(real, pair, k=2).density == 3 / 6
    assert density_coverage(real, pair, k=2).coverage == 1.0


@settings(max_examples=25, deadline=None)
@given(
    st.integers(4, 23), st.integers(4, 23), st.integers(1, 6), st.integers(1, 3),
    st.integers(0, 10**6), st.booleans(), st.booleans(), st.sampled_from([3, 7, 64]),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)  # fmt: skip
def test_brute_force_agrees_to_the_bit(n, m, d, k, seed, closed, lattice, tile, dtype) -> None:
    """On a lattice nearly every distance ties; elsewhere none do."""
    x, y = sets(n, m, d, seed, dtype=dtype)
    if lattice:
        x, y = x.round(), y.round()
    found = numbers(prdc(x, y, k=k, closed=closed, tile=tile))
    assert found == pytest.approx(brute(x, y, k, closed), abs=1e-15)


@pytest.mark.parametrize("far", [0.0, 1e3, 1e6])
def test_far_from_zero_and_at_any_scale(far) -> None:
    """Products of rows that were not centred would be noise here."""
    x, y = sets(80, 70, 5, dtype=torch.float64)
    x, y = ((t * 2**10).round() / 2**10 + far for t in (x, y))
    expected = brute(x, y, 3)
    for scale in (1.0, 2.0**-120, 2.0**125) if not far else (1.0,):
        wide = scale**8 if not far else scale
        assert numbers(prdc(x * wide, y * wide, k=3)) == pytest.approx(expected)
        if far < 1e6:
            found = prdc((x * scale).float(), (y * scale).float(), k=3)
            assert numbers(found) == pytest.approx(expected)


def test_many_features_near_ties_and_copies() -> None:
    """Pairs at the boundary within float32 rounding, and exact copies, are decided exactly."""
    x, y = sets(60, 50, 64, shift=0.0)
    y[:20] = x[:20]
    y[20:30] = y[30:40] + 1e-6
    x[40:50] = x[50:60]
    x[30] = torch.nextafter(x[31], torch.tensor(9.0))
    for k in (1, 2, 5):
        assert numbers(prdc(x, y, k=k, tile=16)) == pytest.approx(brute(x, y, k))


def test_tight_clusters_far_apart() -> None:
    """Within a cluster the fast float32 distances are nothing but noise."""
    x, y = sets(50, 44, 8, shift=0.1)
    for t in (x, y):
        t[::2] = 1e3 + 0.02 * t[::2]
        t[1::2] = 0.02 * t[1::2] - 1e3
    for k in (1, 3):
        expected = brute(x, y, k)
        assert 0 < expected["precision"] < 1
        assert numbers(prdc(x, y, k=k)) == pytest.approx(expected)


@pytest.mark.parametrize(("precision", "bits"), [("high", 10), ("medium", 7)])
def test_coarse_products_change_nothing(precision, bits) -> None:
    x, y = sets(90, 80, 16)
    expected = numbers(prdc(x, y, k=3))
    exact = rows_of(x)[0].slack
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert numbers(prdc(x, y, k=3)) == expected
        assert rows_of(x)[0].slack == exact * 2.0 ** (23 - bits)  # not every CPU rounds so
    finally:
        torch.set_float32_matmul_precision(before)
    with torch.autocast("cpu", torch.bfloat16):
        assert numbers(prdc(x, y, k=3)) == expected


@pytest.mark.parametrize("collapsed", [False, True])
def test_few_rows_need_the_slow_way(collapsed, monkeypatch) -> None:
    """Far from zero too, thanks to centring; and copies settle themselves at radius 0."""
    rechecked = []

    def counting(a, which, b):
        rechecked.append(len(which))
        return iter(()) if len(which) == 0 else direct_rows(a, which, b)

    monkeypatch.setattr(_tiles, "direct_rows", counting)
    x, y = sets(400, 400, 64)
    prdc(x + 50, y[:1].expand(400, 64) + 50 if collapsed else y + 50, k=3)
    assert len(rechecked) == 4  # radii of both, balls, reach
    assert sum(rechecked) < 20


def test_several_k_share_one_pass_and_the_parts_agree() -> None:
    x, y = sets(150, 130, 8)
    several = prdc(x, y, k=[1, 3, 7], tile=32)
    assert [r.k for r in several] == [1, 3, 7]
    for found in several:
        assert found == prdc(x, y, k=found.k)
        pr, dc = precision_recall(x, y, k=found.k), density_coverage(x, y, k=found.k)
        assert (pr.precision, pr.recall) == (found.precision, found.recall)
        assert (dc.density, dc.coverage) == (found.density, found.coverage)


def test_identical_far_and_exchanged_sets() -> None:
    x, y = sets(200, 180, 6)
    same = prdc(x, x.clone(), k=3)
    assert numbers(same) == {"precision": 1, "recall": 1, "density": 4 / 3, "coverage": 1}
    assert prdc(x, x.clone(), k=3, closed=False).density == 1.0
    assert set(numbers(prdc(x, y + 1e4, k=3)).values()) == {0.0}
    a, b = precision_recall(x, y), precision_recall(y, x)
    assert (a.precision, a.recall) == (b.recall, b.precision)
    collapsed = y[:1].expand(180, 6)  # all radii 0: no real row is reached
    assert prdc(x, collapsed, k=3).recall == 0.0


def test_rising_noise_lowers_every_number() -> None:
    x, y = sets(400, 400, 12, shift=0.0)
    noise = torch.randn(400, 12, generator=torch.Generator().manual_seed(9))
    found = [numbers(prdc(x, y + s * noise, k=3)) for s in (0.0, 0.7, 1.5, 3.0)]
    for name in ("precision", "density", "coverage"):
        values = [f[name] for f in found]
        assert values == sorted(values, reverse=True)
        assert values[-1] < 0.5 * values[0]


def test_coverage_and_density_of_equal_distributions() -> None:
    """E density = 1 and the exact law of coverage, for open or closed balls."""
    found = [density_coverage(*sets(60, 50, 4, seed, shift=0.0), k=3) for seed in range(150)]
    for name, law in (("density", 1.0), ("coverage", found[0].coverage_if_equal)):
        values = torch.tensor([getattr(f, name) for f in found]).double()
        assert abs(values.mean() - law) < 4 * values.std() / len(values) ** 0.5
    assert found[0].coverage_if_equal == pytest.approx(1 - 59 * 58 * 57 / (109 * 108 * 107))


def test_torch_fidelity_and_prdc() -> None:
    x, y = sets(300, 260, 16, dtype=torch.float64)
    theirs = peer("torch_fidelity.metric_prc").calculate_precision_recall_full(y, x, 3)
    ours = precision_recall(x, y, k=3)
    assert (ours.precision, ours.recall) == pytest.approx(theirs, abs=1e-6)  # float32 means


def test_the_prdc_package() -> None:
    x, y = sets(300, 260, 16, dtype=torch.float64)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = peer("prdc").compute_prdc(x.numpy(), y.numpy(), 5)
    assert numbers(prdc(x, y, k=5, closed=False)) == pytest.approx(theirs, abs=1e-12)


def test_the_protocol_is_printed() -> None:
    x, y = sets(12, 10, 3)
    line = str(prdc(x, y, k=2))
    assert "\n" not in line
    for part in ("k = 2", "12 real", "10 generated", "3 features", "closed", "precision"):
        assert part in line
    assert "open" in str(density_coverage(x, y, k=2, closed=False))
    assert prdc(x, y, k=2).as_dict()["n_real"] == 12


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda x, y: (x[:, 0], y), ValueError, r"real: expected shape \(N, d\), got \(9,\)"),
        (lambda x, y: (x, y[:, :2]), ValueError, "one feature dimension, got 4 .* and 2"),
        (lambda x, y: (x, y.double()), ValueError, "one dtype"),
        (lambda x, y: (x.long(), y), TypeError, "real: expected floating-point features, got"),
        (lambda x, y: (x, y.numpy()), TypeError, "generated: expected a tensor"),
        (lambda x, y: (x, y[:3]), ValueError, r"4 rows or more \(more than k = 3\), got 3"),
        (lambda x, y: (x.index_fill(0, torch.tensor([5, 7]), torch.nan), y), ValueError,
         "real: .* 2 of 9 rows, the first being row 5"),
        (lambda x, y: (x, y.index_fill(0, torch.tensor([2]), torch.inf)), ValueError,
         "generated: .* row 2"),
    ],
)  # fmt: skip
def test_bad_input(change, error, says) -> None:
    with pytest.raises(error, match=says):
        prdc(*change(*sets(9, 8, 4)), k=3)


def test_bad_options() -> None:
    x, y = sets(9, 8, 4)
    for k in (0, [], [2, 0], 1.5):
        with pytest.raises((ValueError, TypeError), match=r"k: expected|not iterable"):
            prdc(x, y, k=k)
    with pytest.raises(ValueError, match="tile: expected"):
        prdc(x, y, k=1, tile=0)


def test_features_are_left_alone() -> None:
    for dtype in (torch.float32, torch.float64):
        x, y = sets(40, 30, 4, dtype=dtype)
        before = x.clone(), y.clone()
        prdc(x, y, k=2)
        assert torch.equal(x, before[0])
        assert torch.equal(y, before[1])
