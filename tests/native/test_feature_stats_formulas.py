"""The merge's two numbers, and the tiles of every instruction set, which round alike."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

COUNTS = st.integers(0, 10**9)


@given(COUNTS, st.integers(1, 10**6))
def test_merge_numbers(harness, a, b):
    assert harness.merge_step(a, b) == b / (a + b)
    assert harness.merge_spread(a, b) ** 2 == pytest.approx(
        float(Fraction(a * b, a + b)), rel=1e-15
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("depth", "d"), [(1, 1), (9, 12), (5, 7), (20, 10)])
def test_every_instruction_set_rounds_alike(harness, dtype, depth, d):
    x = np.random.default_rng(0).standard_normal((depth, d)).astype(dtype)
    found = [harness.tile_product(kind, x.ravel(), depth, d)
             for kind in range(harness.best_tile() + 1)]  # fmt: skip
    assert all(np.array_equal(found[0], other) for other in found)
    for i in range(d):
        for j in range(d):
            total = dtype(0)
            for row in x.tolist():
                total = dtype(float(Fraction(row[i]) * Fraction(row[j]) + Fraction(float(total))))
            assert found[0][i * d + j] == (float(total) if j >= i else 0.0)
