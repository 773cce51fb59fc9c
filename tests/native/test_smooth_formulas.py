"""Second orders of csrc/smooth/smooth_math.h against derivatives that mpmath takes."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from ganops.ops.smooth.reference import VALUES

FAST = settings(deadline=None, max_examples=100)
DTYPES = (np.float32, np.float64)
A, B = 1.5, 0.75  # exact in every dtype


def logistic(t):
    return 1 / (1 + mpmath.exp(-t))


def gelu_tanh(t):
    u = mpmath.sqrt(2 / mpmath.pi) * (t + mpf("0.044715") * t**3)
    return t * (1 + mpmath.tanh(u)) / 2


# Written from their definitions; derivatives are taken by mpmath, not by formula.
EXACT = {
    "silu": lambda t: t * logistic(t),
    "gelu": lambda t: t * mpmath.ncdf(t),
    "gelu_tanh": gelu_tanh,
    "softplus": lambda t: mpmath.log1p(mpmath.exp(A * t)) / A,
    "elu": lambda t: B * t if t > 0 else A * mpmath.expm1(t),
    "tanh": mpmath.tanh,
    "sigmoid": logistic,
    "mish": lambda t: t * mpmath.tanh(mpmath.log1p(mpmath.exp(t))),
    "hardswish": lambda t: t * min(max(t + 3, mpf(0)), mpf(6)) / 6,
}
FROM_OUTPUT = ("tanh", "sigmoid")


def test_every_activation_is_tested():
    assert list(EXACT) == list(VALUES)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", EXACT)
def test_slopes_are_the_first_and_second_derivative(harness, act, dtype):
    """Within 12 eps of the number, and of 1: both come of differences of numbers near 1."""
    eps = float(np.finfo(dtype).eps)
    threshold = 1e9 if act == "softplus" else B
    width = 32 if dtype == np.float32 else 64
    numbers = st.floats(dtype(-60), dtype(60), width=width, allow_subnormal=False)

    @FAST
    @given(numbers.filter(lambda t: min(abs(t), abs(t - 3), abs(t + 3)) > 1e-15))
    def check(t):
        with mpmath.workdps(60):
            f, d1, d2 = (
                mpmath.diff(EXACT[act], mpf(t), n, h=mpf(10) ** -20) if n else EXACT[act](mpf(t))
                for n in range(3)
            )
        ref = np.array([float(f) if act in FROM_OUTPUT else t], dtype=dtype)
        s, d = getattr(harness, f"smooth_{act}")(ref, A, threshold)
        assert s.dtype == dtype
        curve = d2 / d1 if act in FROM_OUTPUT else d2
        for got, exact in ((s[0], d1), (d[0], curve)):
            assert abs(float(got) - float(exact)) <= 12 * eps * (abs(float(exact)) + 1), f"at {t}"

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_softplus_is_a_line_past_its_threshold(harness, dtype):
    s, d = harness.smooth_softplus(np.array([3.0, 2.0, 1.99], dtype=dtype), 2.0, 4.0)
    np.testing.assert_array_equal(s[0], 1)
    np.testing.assert_array_equal(d[0], 0)
    assert (s[1:] < 1).all()
    assert (d[1:] > 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_left_tail_of_gelu_keeps_its_digits(harness, dtype):
    """x phi(x) + cdf(x) falls like phi: 1 + erf would leave nothing of the cdf but its error."""
    t = np.linspace(-8, -3, 101).astype(dtype)
    s, _ = harness.smooth_gelu(t, 0.0, 0.0)
    exact = [float(mpmath.ncdf(v) + v * mpmath.npdf(v)) for v in t.astype(float)]
    np.testing.assert_allclose(s, exact, rtol=3e-5 if dtype == np.float32 else 1e-13)
