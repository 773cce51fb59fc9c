"""Piecewise linear formulas of csrc/masked_slope/masked_slope_math.h against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

DTYPES = (np.float32, np.float64)
# Limits, then the function; the slope is 1 between the limits and not at them.
PIECES = {
    "relu": ((0, np.inf), lambda x, a, b: max(x, 0)),
    "leaky_relu": ((0, np.inf), lambda x, a, b: x if x > 0 else a * x),
    "hardtanh": ((-1.5, 0.75), lambda x, a, b: min(max(x, a), b)),
    "threshold": ((-1.5, np.inf), lambda x, a, b: x if x > a else b),
}
A, B = -1.5, 0.75  # exact in every dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PIECES)
def test_values_and_where_the_slope_is_one(harness, name, dtype):
    (low, high), exact = PIECES[name]
    width = 32 if dtype == np.float32 else 64
    numbers = st.one_of(st.sampled_from([0.0, -0.0, A, B, np.inf, -np.inf]),
                        st.floats(-9, 9, width=width))  # fmt: skip

    @settings(deadline=None, max_examples=100)
    @given(numbers)
    def check(t):
        x = np.array([t], dtype=dtype)
        keeps, other, inside, _ = (f[0] for f in getattr(harness, f"piece_{name}")(x, A, B))
        assert (x[0] if keeps else other) == exact(x[0], dtype(A), dtype(B))
        assert inside == (low < t < high or t == high == np.inf)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_and_a_zero_slope_lets_nothing_through(harness, dtype):
    x = np.array([np.nan, np.inf, -2], dtype=dtype)
    for name in PIECES:
        keeps, other, inside, _ = getattr(harness, f"piece_{name}")(x, A, B)
        assert np.isnan(x[0] if keeps[0] else other[0])
        assert not inside[0]
    assert harness.piece_relu(x, 0.0, B)[3].tolist() == [0, 0, 0]
    assert harness.piece_relu(x, A, B)[3].tolist()[1:] == [-np.inf, 3]
