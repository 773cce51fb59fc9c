"""The distance against truths that take no root, independent code, and its own derivatives."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from ganops.metrics import (
    FeatureStats,
    factors,
    frechet,
    frechet_distance,
    frechet_distance_from_features,
    frechet_distance_infinity,
    moments,
)

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def known_pair(d, cond, spread, rank=None):
    """(S, T S T) and their distance |(1 - T) F|^2, S = F F'."""
    q, _ = torch.linalg.qr(normal(d, d))
    values = torch.logspace(0, -np.log10(cond), d, dtype=F64)
    values[d if rank is None else rank :] = 0
    f = q * values.sqrt()
    w, _ = torch.linalg.qr(normal(d, d, seed=1))
    t = (w * torch.linspace(1 - spread, 1 + spread, d, dtype=F64)) @ w.T
    g = t @ f
    zero = torch.zeros(d, dtype=F64)
    return (zero, f @ f.T), (zero, g @ g.T), float((f - g).square().sum())


@pytest.mark.parametrize(
    ("d", "cond", "spread", "rank", "limit"),
    [
        (600, 2e3, 0.1, None, 1e-10), (200, 2e3, 0.1, None, 1e-10), (200, 2e12, 0.1, None, 1e-9),
        (200, 1e3, 0.1, 60, 1e-10),
        (200, 1e15, 0.1, 150, 1e-9), (200, 2e3, 1e-4, None, 1e-6), (65, 1.0, 0.5, None, 1e-12),
        (1, 1.0, 0.5, None, 1e-12),
    ],
)  # fmt: skip
def test_pairs_of_known_distance(d, cond, spread, rank, limit):
    a, b, expected = known_pair(d, cond, spread, rank)
    if d == 1:  # linspace of one is its start
        assert expected == pytest.approx(0.25)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=limit)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=limit)


@pytest.mark.filterwarnings("ignore:frechet_distance. .* rows of:UserWarning")
@pytest.mark.parametrize("n", [2, 20, 99, 100, 101, 130])
def test_moments_and_features_agree_around_full_rank(n):
    x, y = normal(n, 100).exp(), normal(n + 1, 100, seed=1).exp()
    xc, yc = (t - t.mean(0) for t in (x, y))
    cross = torch.linalg.svdvals(xc / (n - 1) ** 0.5 @ yc.T / n**0.5).sum()
    expected = (x.mean(0) - y.mean(0)).square().sum() - 2 * cross
    expected = float(expected + xc.square().sum() / (n - 1) + yc.square().sum() / n)
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance_from_features(x, y) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance_from_features(y, x) == pytest.approx(expected, rel=1e-10)


def test_independent_code_agrees():
    """scipy's sqrtm, as pytorch-fid uses it, and torchmetrics where it is installed."""
    linalg = pytest.importorskip("scipy.linalg")
    x, y = normal(500, 30).exp(), normal(400, 30, seed=1).exp()
    (m1, s1), (m2, s2) = moments(x), moments(y)
    root = linalg.sqrtm((s1 @ s2).numpy()).real
    expected = float((m1 - m2).square().sum() + s1.trace() + s2.trace()) - 2 * np.trace(root)
    assert frechet_distance((m1, s1), (m2, s2)) == pytest.approx(expected, rel=1e-8)
    fid = pytest.importorskip("torchmetrics.image.fid", reason="torchmetrics is not installed")
    theirs = fid._compute_fid(m1, s1, m2, s2)
    assert frechet_distance((m1, s1), (m2, s2)) == pytest.approx(float(theirs), rel=1e-8)


def test_zero_against_itself_exactly():
    for x in (normal(50, 8), normal(5, 8), torch.ones(4, 3)):
        assert frechet_distance(moments(x), moments(x.clone())) == 0.0
        assert frechet_distance_from_features(x, x.clone()) < 1e-13
    mean, cov = moments(normal(50, 8))
    cov.requires_grad_()
    distance = frechet_distance((mean, cov), (mean, cov.detach().clone()))
    distance.backward()
    assert (distance.item(), float(cov.grad.abs().max())) == (0.0, 0.0)


def test_points_and_collapsed_sets():
    point = (torch.tensor([1.0, 2.0]), torch.zeros(2, 2))
    other = (torch.tensor([1.0, 4.0]), torch.tensor([[2.0, 0.5], [0.5, 1.0]]))
    assert frechet_distance(point, other) == pytest.approx(7.0)
    assert frechet_distance(other, point) == pytest.approx(7.0)
    assert frechet_distance_from_features(torch.ones(3, 2), torch.zeros(4, 2)) == pytest.approx(2.0)
    line = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    across = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    assert frechet_distance(moments(line), moments(across)) == pytest.approx(1.5)


def test_matrices_in_float32_that_rounding_made_indefinite():
    x, y = normal(40, 100), normal(40, 100, seed=1)
    exact = frechet_distance(moments(x), moments(y))
    rounded = [(m.float(), s.float()) for m, s in (moments(x), moments(y))]
    assert frechet_distance(*rounded) == pytest.approx(exact, rel=1e-3)


def test_fast_roots_are_taken_only_where_they_are_exact(monkeypatch):
    calls = []
    real = torch.linalg.svdvals
    monkeypatch.setattr(torch.linalg, "svdvals", lambda m: calls.append(1) or real(m))
    for cond, spread, rank, slow in (
        (1e2, 0.1, None, 0), (2e12, 0.1, None, 1), (1e2, 0.1, 30, 1), (1e2, 1e-6, None, 1),
    ):  # fmt: skip
        calls.clear()
        a, b, _ = known_pair(100, cond, spread, rank)
        frechet_distance(a, b)
        assert len(calls) == slow, (cond, spread, rank)


@pytest.mark.parametrize("rank", [6, 3])
def test_gradcheck_in_moments(rank):
    """Full rank, and along the range of a singular covariance: in its factor."""
    f, g = normal(6, rank), normal(6, 6, seed=1)
    mean, other = normal(6, seed=2), normal(6, seed=3)

    def distance(f, g, mean, other):
        return frechet_distance((mean, f @ f.T), (other, g @ g.T))

    leaves = [t.requires_grad_() for t in (f, g, mean, other)]
    assert torch.autograd.gradcheck(distance, leaves)
    (first,) = torch.autograd.grad(distance(*leaves), f, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(first.sum(), g)


@pytest.mark.parametrize(("n", "m"), [(4, 5), (9, 4), (9, 11)])
def test_gradcheck_in_features(n, m):
    x, y = normal(n, 6).requires_grad_(), normal(m, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(frechet_distance_from_features, (x, y))
    (first,) = torch.autograd.grad(frechet_distance_from_features(x, y), x, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(first.sum(), y)
    x.grad = None
    frechet_distance_from_features(x, y.detach()).backward()
    step = x.detach() - 1e-4 * x.grad
    assert frechet_distance_from_features(step, y.detach()) < float(
        frechet_distance_from_features(x.detach(), y.detach())
    )


@pytest.mark.parametrize("d", [1, 5, 64, 130])
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_factors_multiply_to_the_covariance(d, share):
    rank = max(1, int(d * share))
    f = normal(d, rank)
    cov = f @ f.T
    for g in (factors.factor(cov), factors.pivoted_cholesky(cov, d * 2.2e-16)):
        torch.testing.assert_close(g.T @ g, cov, rtol=0, atol=1e-13 * float(cov.abs().max()))
        assert len(g) == rank


@pytest.mark.parametrize("d", [1, 5, 256, 300, 530])
def test_products_of_triangles_are_the_whole_product(d):
    f, g = normal(d, d).triu(), normal(d, d, seed=1).triu()
    torch.testing.assert_close(factors.upper_times_lower(f, g), f @ g.T, rtol=1e-12, atol=1e-11)
    whole = f @ f.T
    torch.testing.assert_close(
        factors.lower_product(f).tril(), whole.tril(), rtol=1e-12, atol=1e-11
    )
    assert factors.is_upper(f)
    assert d == 1 or not factors.is_upper(f.T)
    assert not factors.is_upper(normal(d, d + 1))


def test_a_pivoted_factor_of_full_rank_is_no_triangle():
    """Its smallest pivot is above what pivoting drops, but below what plain Cholesky keeps."""
    a, b, expected = known_pair(60, 1e14, 0.1)
    g = factors.pivoted_cholesky(a[1], 0.0)
    assert not factors.is_upper(g)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_bad_input():
    good = (torch.zeros(2), torch.eye(2))
    for bad, error, message in (
        ((torch.zeros(2), torch.tensor([[1.0, 0.0], [0.5, 1.0]])), ValueError, "symmetric"),
        ((torch.zeros(2), torch.tensor([[1.0, 0.0], [0.0, -1.0]])), ValueError, "semidefinite"),
        ((torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]])), ValueError, "semidefinite"),
        ((torch.zeros(2), torch.full((2, 2), float("inf"))), ValueError, "finite"),
        ((torch.zeros(0), torch.zeros(0, 0)), ValueError, "expected mean"),
        (torch.zeros(3, 2), TypeError, "expected FeatureStats"),
        (FeatureStats(2), ValueError, "needs 2 rows or more, got 0"),
        (FeatureStats(3), ValueError, "needs 2 rows or more, got 0"),
    ):
        for pair in ((good, bad), (bad, good)):
            with pytest.raises(error, match=message):
                frechet_distance(*pair)
    for x in (torch.zeros(1, 2), torch.zeros(2), torch.zeros(4, 2, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"expected floating features \(N >= 2, d\)"):
            frechet_distance_from_features(x, torch.zeros(3, 2))
    with pytest.raises(ValueError, match="expected finite features"):
        frechet_distance_from_features(torch.full((3, 2), float("nan")), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="dimensions differ: 2 and 3"):
        frechet_distance_from_features(torch.zeros(3, 2), torch.zeros(3, 3))
    for kwargs in ({"points": 1}, {"smallest": 1}, {"smallest": 30}):
        with pytest.raises(ValueError, match="frechet_distance_infinity: expected"):
            frechet_distance_infinity(normal(30, 2), good, **kwargs)


def test_few_rows_are_warned_about_once(monkeypatch):
    monkeypatch.setattr(frechet, "_warned", set())
    few, enough = FeatureStats(8), FeatureStats(8)
    few.update(normal(8, 8))
    enough.update(normal(9, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(enough, enough)
        frechet_distance(few.moments(), enough)  # of unknown number
    with pytest.warns(UserWarning, match="8 rows of 8 dimensions: .*biased upwards.*infinity"):
        frechet_distance(few, enough)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(few, enough)


def test_infinity_takes_the_bias_away():
    """Card metric_fid: against exact moments, half of 2 d / N + d (d + 1) / (2 (N - 1))."""
    d, n = 8, 2000
    exact = (torch.zeros(d), torch.eye(d))
    plain = [frechet_distance(moments(normal(n, d, seed=s)), exact) for s in range(12)]
    bias = d / n + d * (d + 1) / (4 * (n - 1))
    assert np.mean(plain) == pytest.approx(bias, rel=0.25)
    limits = [frechet_distance_infinity(normal(n, d, seed=s), exact, smallest=200)
              for s in range(12)]  # fmt: skip
    assert abs(np.mean(limits)) < bias / 4
    generator = torch.Generator().manual_seed(0)
    again = frechet_distance_infinity(normal(n, d), exact, smallest=200, generator=generator)
    assert again == pytest.approx(limits[0], rel=1e-12)
