"""csrc/spectral_norm/spectral_norm_math.h as numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FAST = settings(deadline=None, max_examples=100)
DTYPES = (np.float32, np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_are_divided_by_their_norm_or_eps(harness, dtype):
    got = harness.spectral_unit(np.array([4.0, 0.5, 0.25, 0.0, np.nan], dtype=dtype), 0.5)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, np.array([0.25, 2, 2, 2, np.nan], dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rows_gradient_is_the_closed_form(harness, dtype):
    """A whole matrix, number by number: dW = (G - <G, Y> u v^T) / sigma."""
    numbers = st.floats(-4, 4, width=32)

    @FAST
    @given(st.lists(numbers, min_size=16, max_size=16), st.floats(0.5, 4, width=32))
    def check(values, sigma):
        g, y = np.array(values[:12]).reshape(2, 2, 3)
        u, v = np.array([0.6, 0.8]), np.array(values[12:15])
        along = (g * y).sum() / sigma
        expected = (g - (g * y).sum() * np.outer(u, v)) / sigma
        for i in range(2):
            for j in range(3):
                got = harness.spectral_grad(
                    np.array([g[i, j]], dtype=dtype), 1 / sigma, along * u[i], v[j]
                )
                scale = abs(g[i, j] / sigma) + abs(along * u[i] * v[j]) + 1e-30
                assert abs(float(got[0]) - expected[i, j]) <= 6 * np.finfo(dtype).eps * scale

    check()
