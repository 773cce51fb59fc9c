"""The formulas of csrc/consistency/consistency_math.h: a quadratic form and its slope."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

# Eighths of small integers: every result is exact, in any order of operations.
NUMBERS = st.integers(-4096, 4096).map(lambda n: n / 8)


def test_terms_and_slopes(harness):
    @settings(deadline=None, max_examples=100)
    @given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
    def check(a, b, c, d):
        p, q, r, s = map(Fraction, (a, b, c, d))
        term = harness.consistency_term
        assert Fraction(term(a, b, c, d)) == (p - q) * (r - s)
        assert Fraction(harness.consistency_slope(c, a, b)) == r * (p - q)
        # <Dx, Dy> = <x, Ly>: the slope is the form's derivative, in both halves
        slope = harness.consistency_slope
        assert term(a, b, c, d) == a * slope(1.0, c, d) + b * slope(1.0, d, c)

    check()
