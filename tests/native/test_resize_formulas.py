"""resize_math.h, number by number."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

FAST = settings(deadline=None, max_examples=200)
PIXELS = st.floats(0, 255, width=32)
UNIT = st.floats(0, 1, width=32)


def test_between_two_pixels(harness):
    @FAST
    @given(PIXELS, PIXELS, UNIT)
    def check(a, b, d):
        a32, b32, d32 = (np.float32(v) for v in (a, b, d))
        assert harness.resize_lerp(a, b, d) == a32 + (b32 - a32) * d32

    check()
    assert harness.resize_lerp(3.0, 7.0, 0.0) == 3.0
    assert harness.resize_lerp(3.0, 7.0, 1.0) == 7.0


def test_a_filter_adds_in_double_in_order(harness):
    @FAST
    @given(st.lists(st.tuples(st.floats(-1, 1), PIXELS), min_size=1, max_size=9))
    def check(terms):
        weights, pixels = np.array(terms).T
        total = 0.0
        for w, p in zip(weights, pixels):
            total += float(w) * float(np.float32(p))
        assert harness.resize_sum(weights, pixels.astype(np.float32)) == total

    check()


def test_the_range_of_bytes_becomes_the_network_s(harness):
    assert [harness.resize_clip(v) for v in (-0.5, 0.0, 17.25, 255.0, 260.0)] == [
        0.0, 0.0, 17.25, 255.0, 255.0,
    ]  # fmt: skip
    assert [harness.resize_normalise(v, 128.0, 128.0) for v in (0, 128, 255)] == [
        -1.0, 0.0, 0.9921875,
    ]  # fmt: skip
    v = np.float32(200.3)
    assert harness.resize_normalise(v, 127.5, 127.5) == (v - np.float32(127.5)) / np.float32(127.5)
    assert harness.resize_normalise(255.0, 127.5, 127.5) == 1.0
