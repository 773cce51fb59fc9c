"""Activations, penalty and Philox of csrc/<op>/<op>_math.h against mpmath and the reference."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from ganops.ops.bias_act import ACTIVATIONS
from ganops.ops.philox import reference as philox

FAST = settings(deadline=None, max_examples=100)
DTYPES = (np.float32, np.float64)
ALPHA = 0.3
SELU_SCALE = mpf("1.0507009873554804934193349852946")
SELU_ALPHA = mpf("1.6732632423543772848170429916717")


def logistic(t):
    return 1 / (1 + mpmath.exp(-t))


# Written from their definitions; derivatives are taken by mpmath, not by formula.
EXACT = {
    "linear": lambda t: t,
    "relu": lambda t: max(t, mpf(0)),
    "lrelu": lambda t: t if t > 0 else mpf(ALPHA) * t,
    "tanh": mpmath.tanh,
    "sigmoid": logistic,
    "elu": lambda t: t if t > 0 else mpmath.expm1(t),
    "selu": lambda t: SELU_SCALE * (t if t > 0 else SELU_ALPHA * mpmath.expm1(t)),
    "softplus": lambda t: mpmath.log1p(mpmath.exp(t)),
    "swish": lambda t: t * logistic(t),
}
KINKED = ("relu", "lrelu", "elu", "selu")


def exact_orders(f, t, orders):
    """f and its derivatives at t, from one side of a kink at 0."""
    with mpmath.workdps(60):
        return [mpmath.diff(f, mpf(t), n, h=mpf(10) ** -20) if n else f(mpf(t))
                for n in range(orders)]  # fmt: skip


def assert_close(got, exact, dtype, message):
    """Within 8 eps of the number, and of 1: f' and f'' come of differences of numbers near 1."""
    eps = float(np.finfo(dtype).eps)
    for g, e in zip(got, exact):
        assert abs(float(g) - float(e)) <= 8 * eps * (abs(float(e)) + 1), f"{message}: {g} {e}"


def away_from_kinks(dtype, low, high):
    width = 32 if dtype == np.float32 else 64
    numbers = st.floats(dtype(low), dtype(high), width=width, allow_subnormal=False)
    return numbers.filter(lambda t: abs(t) > 1e-15)


def test_every_activation_is_tested():
    assert list(EXACT) == list(ACTIVATIONS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", EXACT)
def test_jets_are_the_function_and_its_derivatives(harness, act, dtype):
    alpha = float(dtype(ALPHA))
    f = EXACT[act] if act != "lrelu" else lambda t: t if t > 0 else mpf(alpha) * t

    @FAST
    @given(away_from_kinks(dtype, -60, 60))
    def check(t):
        got = getattr(harness, f"jet_{act}")(np.array([t], dtype=dtype), alpha)
        assert got[0].dtype == dtype
        assert_close([g[0] for g in got], exact_orders(f, t, 3), dtype, f"{act} at {t}")

    check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", EXACT)
def test_jets_far_out_are_finite_and_monotone(harness, act, dtype):
    t = np.array([-1e30, -1e4, -800, -200, -104, -89, 89, 104, 200, 800, 1e4, 1e30], dtype=dtype)
    f, d1, d2 = getattr(harness, f"jet_{act}")(t, ALPHA)
    for values in (f, d1, d2):
        assert np.isfinite(values).all()
    assert (np.diff(f) >= 0).all() or act == "swish"
    assert (d2 == 0).all() or act in ("swish", "tanh", "sigmoid", "softplus", "elu", "selu")
    nan = getattr(harness, f"jet_{act}")(np.array([np.nan], dtype=dtype), ALPHA)
    assert np.isnan(nan[0][0])


@pytest.mark.parametrize("act", KINKED)
def test_kinks_take_the_derivative_from_the_left(harness, act):
    f, d1, d2 = getattr(harness, f"jet_{act}")(np.array([0.0, -0.0]), ALPHA)
    left = {"relu": (0, 0), "lrelu": (ALPHA, 0), "elu": (1, 1)}
    slope, curve = left.get(act, [float(SELU_SCALE * SELU_ALPHA)] * 2)
    np.testing.assert_array_equal(f, [0, 0])
    np.testing.assert_allclose(d1, [slope] * 2, rtol=1e-15)
    np.testing.assert_allclose(d2, [curve] * 2, rtol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", [a for a in EXACT if a != "swish"])
def test_slopes_read_off_the_output(harness, act, dtype):
    """s(y) = gain f'(t) at y = gain f(t), and ds/dy = s'(t) / y'(t) = f'' / f'."""
    eps = float(np.finfo(dtype).eps)

    @FAST
    @given(away_from_kinks(dtype, -6, 6), st.sampled_from([0.5, 1.0, 3.0]))
    def check(t, gain):
        f, d1, d2 = exact_orders(EXACT[act], t, 3)
        y = np.array([gain * float(f)], dtype=dtype)
        s, d = getattr(harness, f"slope_{act}")(y, ALPHA, gain)
        curve = float(d2 / d1) if d1 else 0.0
        # y carries a rounding of its own, which s' turns into one of s.
        slack = eps * (abs(curve) * abs(float(y[0])) + gain)
        assert abs(float(s[0]) - gain * float(d1)) <= 8 * slack + 8 * eps * gain * abs(float(d1))
        assert abs(float(d[0]) - curve) <= 16 * eps * (1 + abs(curve))

    check()


@pytest.mark.parametrize("act", EXACT)
def test_gain_and_clamp(harness, act):
    t = np.linspace(-4, 4, 81)
    f, d1, d2 = getattr(harness, f"jet_{act}")(t, ALPHA)
    for gain in (1.5, -1.5, 0.0):
        for clamp in (-1.0, 0.0, 0.6, 1e9):
            y = gain * f
            is_open = np.abs(y) < clamp if clamp >= 0 else np.ones_like(y, dtype=bool)
            limited = np.clip(y, -clamp, clamp) if clamp >= 0 else y
            value = getattr(harness, f"value_{act}")(t, ALPHA, gain, clamp)
            grad, grad2 = getattr(harness, f"grad_{act}")(t, ALPHA, gain, clamp)
            np.testing.assert_array_equal(value, limited)
            np.testing.assert_array_equal(grad, np.where(is_open, gain * d1 * 3, 0))
            np.testing.assert_array_equal(grad2, np.where(is_open, gain * d2 * 0.5 * 3, 0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("one_sided", [False, True])
def test_penalty_is_the_function_and_its_derivatives(harness, one_sided, dtype):
    """k1 = phi' / n and k2 = k1', for phi of the norm n."""
    eps = float(np.finfo(dtype).eps)
    width = 32 if dtype == np.float32 else 64
    norms = st.floats(dtype(1e-3), dtype(1e3), width=width)
    centers = st.sampled_from([0.0, 0.25, 1.0, 30.0])

    @FAST
    @given(norms, centers)
    def check(n, center):
        def phi(m):
            distance = m - mpf(center)
            return max(distance, mpf(0)) ** 2 if one_sided else distance**2

        if abs(n - center) <= 1e-9 * center:  # the kink of the one-sided form
            return
        with mpmath.workdps(60):
            first = lambda m: mpmath.diff(phi, m, h=mpf(10) ** -20) / m  # noqa: E731
            exact = [phi(mpf(n)), first(mpf(n)), mpmath.diff(first, mpf(n), h=mpf(10) ** -12)]
        got = harness.penalty(np.array([n], dtype=dtype), center, one_sided)
        sizes = [(n + center) ** 2, 2 * (n + center) / n, 2 * center / n**2 + 1e-9]
        for g, e, size in zip(got, exact, sizes):
            assert abs(float(g[0]) - float(e)) <= 8 * eps * size + 1e-15 * size

    check()


def test_penalty_at_zero_and_at_the_centre(harness):
    def at(n, center, one_sided):
        return [float(v[0]) for v in harness.penalty(np.array([n]), center, one_sided)]

    assert at(0.0, 1.0, False) == [1, 0, 0]
    assert at(0.0, 1.0, True) == [0, 0, 0]
    assert at(0.0, 0.0, False) == at(0.0, 0.0, True) == [0, 2, 0]
    assert at(1.0, 1.0, False) == [0, 0, 2]
    assert at(1.0, 1.0, True) == [0, 0, 0]
    tiny = at(5e-324, 1.0, True)
    assert tiny == [0, 0, 0]


KNOWN = [
    ((0, 0, 0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 6, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("given_words", "result"), KNOWN)
def test_philox_gives_the_known_answers(harness, given_words, result):
    assert harness.philox4x32(*given_words) == result


def test_philox_equals_the_reference_bit_by_bit(harness):
    words = st.integers(0, 2**32 - 1)

    @FAST
    @given(st.lists(words, min_size=6, max_size=6))
    def check(w):
        expected = philox.philox4x32(torch.tensor(w[:4]), torch.tensor(w[4:]))
        assert harness.philox4x32(*w) == tuple(expected.tolist())
        block = torch.tensor([w[:4]])
        normals = philox.normals_from_bits(block)[0]
        assert harness.normals_from_block(*w[:4]) == tuple(normals.tolist())

    check()


def test_philox_floats_equal_the_reference_at_every_sample(harness):
    bits = np.concatenate([
        np.arange(0, 2**32, 104_729, dtype=np.uint64), np.arange(2000), 2**32 - 1 - np.arange(2000),
        (np.arange(4).repeat(400) << 30) + np.tile(np.arange(-200, 200) << 8, 4) & 0xFFFFFFFF,
    ]).astype(np.uint32)  # fmt: skip
    as_torch = torch.from_numpy(bits.astype(np.int64))
    np.testing.assert_array_equal(
        harness.uniform_from_bits(bits), philox.uniform_from_bits(as_torch).numpy()
    )
    for got, expected in zip(harness.cos_sin_turns(bits), philox.cos_sin_turns(as_torch)):
        np.testing.assert_array_equal(got, expected.numpy())
    u = ((bits >> 8) + 1).astype(np.float32) * np.float32(2.0**-24)
    np.testing.assert_array_equal(
        harness.log_exact(u), philox.log_exact(torch.from_numpy(u)).numpy()
    )


def test_a_block_is_keyed_by_seed_stream_and_number(harness):
    seed, stream, block = 2**63 + 5, 2**40 + 9, 2**33 + 1
    low = lambda n: n % 2**32  # noqa: E731
    expected = harness.philox4x32(low(block), block >> 32, low(stream), stream >> 32,
                                  low(seed), seed >> 32)  # fmt: skip
    assert harness.philox_block(seed, stream, block) == expected
