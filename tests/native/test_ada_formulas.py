"""csrc/ada/ada_math.h: the continued image, and the seven taps of a resampled point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganops.ops.ada.reference import SYM6

FAST = settings(deadline=None, max_examples=200)
DTYPES = (np.float32, np.float64)


@FAST
@given(st.integers(-(10**6), 10**6), st.integers(1, 50))
def test_reflection_walks_back_and_forth(harness, i, n):
    walk = [*range(n), *range(n - 2, 0, -1)]
    assert harness.ada_reflect(i, n) == walk[i % len(walk)]


def upsampled(i, pixel):
    """Weight of a pixel in upsampled point i: zeros between pixels, then the filter."""
    k = 5 + i - 2 * pixel
    return 2 * SYM6[k] if 0 <= k < 12 else 0.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_taps_are_the_filter_then_bilinear(harness, dtype):
    eps = float(np.finfo(dtype).eps)

    @FAST
    @given(st.integers(-(2**50), 2**50))
    def check(s):
        first, taps = harness.ada_point(s, np.zeros(1, dtype))
        assert taps.dtype == dtype
        i, far = s >> 32, (s & 0xFFFFFFFF) / 2**32
        for pixel in range(i // 2 - 9, i // 2 + 10):
            expected = (1 - far) * upsampled(i, pixel) + far * upsampled(i + 1, pixel)
            got = taps[pixel - first] if 0 <= pixel - first < 7 else 0.0
            assert abs(got - expected) <= 4 * eps
        assert abs(float(np.sum(taps, dtype=np.float64)) - 1) < 1e-11 + 8 * eps

    check()
