"""Which taps meet which pixels: csrc/upfirdn2d/upfirdn2d_math.h against the definition."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

FAST = settings(deadline=None, max_examples=300)
FACTOR = st.integers(1, 9)


@FAST
@given(st.integers(0, 200), FACTOR, FACTOR, st.integers(-60, 60))
@example(0, 2, 1, 2)
@example(0, 3, 2, -1)
def test_first_tap_is_the_first_that_meets_a_number(harness, o, up, down, pad):
    tap, index, *narrow = harness.first_tap(o, up, down, pad)
    # Tap k of result o meets place o down + k - pad of the image with its zeros.
    expected = next(k for k in range(up) if (o * down + k - pad) % up == 0)
    assert (tap, index) == (expected, (o * down + expected - pad) // up)
    assert narrow == [tap, index]


@FAST
@given(st.integers(0, 20), FACTOR, st.integers(1, 20))
def test_tap_count(harness, tap, up, taps):
    assert harness.tap_count(tap, up, taps) == len(range(tap, taps, up))


@FAST
@given(FACTOR, FACTOR, st.integers(-20, 20), st.integers(1, 12), st.integers(0, 9))
def test_the_adjoint_meets_the_same_pairs(harness, up, down, pad, taps, sample):
    """Result o meets number i by tap k, if and only if in the adjoint i meets o by taps - 1 - k."""

    def met(o, up, down, pad):
        tap, index, *_ = harness.first_tap(o, up, down, pad)
        return {(index + j, tap + j * up) for j in range(harness.tap_count(tap, up, taps))}

    for o, k in met(sample, down, up, taps - 1 - pad):  # as numbers of x meet results
        if o >= 0:
            assert (sample, taps - 1 - k) in met(o, up, down, pad)
    for i, k in met(sample, up, down, pad):
        if i >= 0:
            assert (sample, taps - 1 - k) in met(i, down, up, taps - 1 - pad)
