"""The scalar formulas of augment_math.h: bytes to numbers, and where a shifted axis reads."""

from __future__ import annotations

import numpy as np
import pytest


def test_bytes_have_the_bits_of_a_division(harness):
    every = np.arange(256, dtype=np.uint8)
    divided = every.astype(np.float32) / np.float32(127.5) - np.float32(1)
    np.testing.assert_array_equal(harness.unit_from_byte(every), divided)


@pytest.mark.parametrize("side", [1, 2, 3, 7, 8])
def test_a_reflected_axis_is_numpys(harness, side):
    axis = np.arange(side)
    for shift in range(1 - side, side):
        padded = np.pad(axis, side - 1, mode="reflect") if side > 1 else axis
        expected = padded[side - 1 + shift :][:side]
        found = [harness.augment_source(w, shift, side, True) for w in range(side)]
        assert found == list(expected)


@pytest.mark.parametrize("side", [1, 2, 5])
def test_a_zero_padded_axis(harness, side):
    for shift in range(-side - 2, side + 3):
        for w in range(side):
            inside = 0 <= w + shift < side
            found = harness.augment_source(w, shift, side, False)
            assert found == (w + shift if inside else -1)


@pytest.mark.parametrize("reflect", [False, True])
@pytest.mark.parametrize("side", [1, 2, 3, 8])
def test_readers_are_the_inverse_of_sources(harness, side, reflect):
    """Every position that reads r is found once."""
    for shift in range(1 - side, side):
        for r in range(side):
            expected = [
                w for w in range(side) if harness.augment_source(w, shift, side, reflect) == r
            ]
            found = [harness.augment_reader(r, shift, side, reflect, k) for k in range(3)]
            assert sorted(w for w in found if w >= 0) == expected
