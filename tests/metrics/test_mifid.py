"""MiFID and the distance to the nearest training row."""

from __future__ import annotations

import math

import pytest
import torch
from peers import peer

from ganops.metrics import frechet_distance, memorisation_distance, mifid, moments


def sets(n: int = 60, m: int = 45, d: int = 6, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=g).abs() + 0.1
    return x.to(dtype), (torch.randn(m, d, generator=g) + 0.2).to(dtype)


def brute(rows, others):
    """By loops over Python floats."""
    total = 0.0
    for a in rows.double().tolist():
        best = 1.0
        for b in others.double().tolist():
            dot = math.fsum(p * q for p, q in zip(a, b))
            best = min(best, 1 - abs(dot) / (math.hypot(*a) * math.hypot(*b)))
        total += best
    return total / len(rows)


@pytest.mark.parametrize("tile", [None, 1, 16])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_brute_force(dtype, tile) -> None:
    x, y = sets(dtype=dtype)
    assert memorisation_distance(x, y, tile=tile) == pytest.approx(brute(y, x), rel=1e-9)
    over_real = memorisation_distance(x, y, over="real", tile=tile)
    assert over_real == pytest.approx(brute(x, y), rel=1e-9)


def test_copies_near_copies_and_zeros() -> None:
    x, y = sets(dtype=torch.float32)
    assert memorisation_distance(x, x[:20].clone()) == 0.0
    assert memorisation_distance(x, -3.0 * x[:20]) < 1e-15
    assert memorisation_distance(x * 1e-30, x[:20] * 1e30) < 1e-13
    wide = x.double()
    assert memorisation_distance(wide * 1e-200, wide[:20] * 1e200) < 1e-13
    v = torch.tensor([[1.0, 0.0]])
    for angle in (1e-3, 1e-6):  # 1 - cos would be lost to rounding
        turned = torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
        expected = 2 * math.sin(angle / 2) ** 2
        assert memorisation_distance(v.double(), turned) == pytest.approx(expected, rel=1e-7)
    assert memorisation_distance(x, torch.zeros(3, 6)) == 1.0
    assert memorisation_distance(torch.zeros(3, 6), y) == 1.0


def test_the_value_on_both_sides_of_the_threshold() -> None:
    x, y = sets()
    distance = frechet_distance(moments(x), moments(y))
    near = memorisation_distance(x, y)
    assert mifid(x, y, threshold=near).value == pytest.approx(distance, rel=1e-12)
    found = mifid(x, y, threshold=1.01 * near)
    assert found.value == pytest.approx(distance / near, rel=1e-12)
    assert (found.frechet, found.memorisation) == pytest.approx((distance, near))
    assert mifid(x, y, threshold=1.01 * near, frechet=3.0).value == pytest.approx(3.0 / near)
    assert mifid(x, x[:20].clone()).value == math.inf
    for part in ("60 real", "45 generated", "over generated rows", "threshold 0.1"):
        assert part in str(mifid(x, y))


def test_torchmetrics() -> None:
    theirs = peer("torchmetrics.image.mifid")
    x, y = sets()
    other = theirs._compute_cosine_distance(x, y, cosine_distance_eps=1.0)
    assert memorisation_distance(x, y, over="real") == pytest.approx(float(other), rel=1e-9)
    stats = [f(t) for t in (x, y) for f in (lambda t: t.mean(0), lambda t: t.T.cov(), lambda t: t)]
    other = float(theirs._mifid_compute(*stats))
    assert mifid(x, y, over="real").value == pytest.approx(other, rel=1e-6)


def test_bad_input() -> None:
    x, y = sets()
    for call, says in (
        (lambda: mifid(x, y[:1]), "generated: expected 2 rows or more, got 1"),
        (lambda: mifid(x, y[:, :2]), "one feature dimension"),
        (lambda: mifid(x, y, threshold=-0.1), "threshold: expected"),
        (lambda: mifid(x, y, over="both"), "over: expected 'generated' or 'real', got 'both'"),
        (lambda: mifid(x, y, tile=0), "tile: expected an integer >= 1, got 0"),
        (lambda: mifid(x * torch.inf, y), "real: .*row 0"),
    ):
        with pytest.raises(ValueError, match=says):
            call()
