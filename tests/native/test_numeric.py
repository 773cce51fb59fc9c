"""Half conversions, exp, expm1, log1p and tanh of csrc/common/numeric.h, number by number."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

# The fixture of the harness lasts the session: hypothesis may share it among its examples.
FAST = settings(deadline=None, max_examples=200)
DTYPES = (np.float32, np.float64)
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan]


def floats(dtype, low=None, high=None):
    width = 32 if dtype == np.float32 else 64
    bound = {} if low is None else {"min_value": dtype(low), "max_value": dtype(high)}
    return st.lists(st.floats(width=width, **bound), min_size=1, max_size=8)


def errors_in_ulps(got, exact, dtype):
    """|got - exact| in units of the last place of exact; 0 where both are the same special.

    exact: mpmath numbers. A result below the smallest normal may be 0 (one unit there).
    """
    found = []
    for g, e in zip(got.tolist(), exact):
        if mpmath.isnan(e) or mpmath.isinf(e):
            found.append(0.0 if (g != g and mpmath.isnan(e)) or g == e else np.inf)
            continue
        if abs(e) > mpmath.mpf(float(np.finfo(dtype).max)):
            found.append(0.0 if np.isinf(g) else np.inf)
        elif abs(e) < mpmath.mpf(float(np.finfo(dtype).tiny)):
            tiny = mpmath.mpf(float(np.finfo(dtype).tiny))
            found.append(0.0 if abs(g - e) <= tiny else np.inf)
        else:
            found.append(float(abs(g - e) / float(np.spacing(dtype(abs(float(e)))))))
    return found


FUNCTIONS = {  # name: (exact, domain of float32, domain of float64, most ulps)
    "exp_": (mpmath.exp, (-110, 95), (-760, 720), 2),
    "exp_negative": (mpmath.exp, (-110, 0), (-760, 0), 2),
    "expm1_negative": (mpmath.expm1, (-110, 0), (-760, 0), 2),
    "log1p_": (lambda x: mpmath.log1p(x), (0, 1), (0, 1), 3),
    "tanh_": (mpmath.tanh, (-110, 110), (-760, 760), 3),
}


def assert_accurate(harness, name, values, dtype):
    exact, _, _, most = FUNCTIONS[name]
    x = np.array(values, dtype=dtype)
    with mpmath.workdps(40):
        wanted = [exact(mpmath.mpf(v)) for v in x.tolist()]
        found = errors_in_ulps(getattr(harness, name)(x), wanted, dtype)
    worst = int(np.argmax(found))
    assert found[worst] <= most, f"{name}({x[worst]!r}) is {found[worst]} units off"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_within_a_few_units_in_the_last_place(harness, name, dtype):
    domain = FUNCTIONS[name][1 if dtype == np.float32 else 2]

    @FAST
    @given(floats(dtype, *domain))
    def check(values):
        assert_accurate(harness, name, values, dtype)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_over_a_dense_grid(harness, name, dtype):
    """Every branch, its seams, and every power of two."""
    low, high = FUNCTIONS[name][1 if dtype == np.float32 else 2]
    powers = 2.0 ** np.arange(-149 if dtype == np.float32 else -1074, 10)
    seams = np.array([0.34, 0.41421356237309503, 0.17, 0.34657359, 0.693147, 1.0])
    near = np.concatenate([np.nextafter(seams, -9), seams, np.nextafter(seams, 9), powers])
    x = np.concatenate([np.linspace(low, high, 1501), near, -near]).astype(dtype)
    assert_accurate(harness, name, x[(x >= low) & (x <= high)], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_at_special_values(harness, dtype):
    x = np.array(SPECIAL, dtype=dtype)
    np.testing.assert_array_equal(harness.exp_(x), [1, 1, np.inf, 0, np.nan])
    np.testing.assert_array_equal(harness.tanh_(x), [0, 0, 1, -1, np.nan])
    below = np.array([0.0, -0.0, -np.inf, np.nan], dtype=dtype)
    np.testing.assert_array_equal(harness.exp_negative(below), [1, 1, 0, np.nan])
    np.testing.assert_array_equal(harness.expm1_negative(below), [0, 0, -1, np.nan])
    assert harness.log1p_(x[:1]) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_numbers_keep_their_relative_accuracy(harness, dtype):
    """expm1, log1p and tanh are the identity near 0, down to the last subnormal."""
    x = np.geomspace(np.finfo(dtype).tiny, np.finfo(dtype).eps / 4, 300).astype(dtype)
    np.testing.assert_array_max_ulp(harness.log1p_(x), x, 2, dtype)
    np.testing.assert_array_max_ulp(harness.expm1_negative(-x), -x, 2, dtype)
    np.testing.assert_array_max_ulp(harness.tanh_(x), x, 2, dtype)


def test_tanh_is_odd(harness):
    x = np.linspace(0, 30, 1001)
    np.testing.assert_array_equal(harness.tanh_(-x), -harness.tanh_(x))


ALL_BITS = np.arange(2**16, dtype=np.uint16)


def test_every_half_becomes_its_float(harness):
    np.testing.assert_array_equal(
        harness.half_to_float(ALL_BITS), ALL_BITS.view(np.float16).astype(np.float32)
    )


def test_every_bfloat16_becomes_its_float(harness):
    expected = torch.from_numpy(ALL_BITS.view(np.int16)).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(harness.bfloat16_to_float(ALL_BITS), expected)


TO_HALF = {"float_to_half": torch.float16, "float_to_bfloat16": torch.bfloat16}


def assert_rounds_as_torch(harness, name, x):
    got = getattr(harness, name)(x)
    expected = torch.from_numpy(x).to(TO_HALF[name])
    nan = np.isnan(x)
    assert torch.from_numpy(got.view(np.int16)).view(TO_HALF[name]).isnan().numpy()[nan].all()
    wanted = expected.view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(got[~nan], wanted[~nan])


@pytest.mark.parametrize("name", TO_HALF)
def test_every_half_survives_the_round_trip(harness, name):
    to_float = harness.half_to_float if name == "float_to_half" else harness.bfloat16_to_float
    x = to_float(ALL_BITS)
    finite = ~np.isnan(x)
    np.testing.assert_array_equal(getattr(harness, name)(x)[finite], ALL_BITS[finite])


@pytest.mark.parametrize("name", TO_HALF)
def test_rounding_at_and_beside_every_midpoint(harness, name):
    """Between two neighbours ties go to the even one; a float beyond decides otherwise."""
    to_float = harness.half_to_float if name == "float_to_half" else harness.bfloat16_to_float
    values = to_float(ALL_BITS[: 2**15])
    values = values[np.isfinite(values)].astype(np.float64)
    middle = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    x = np.concatenate([middle, np.nextafter(middle, np.float32(0)),
                        np.nextafter(middle, np.float32(np.inf))])  # fmt: skip
    assert_rounds_as_torch(harness, name, np.concatenate([x, -x]))


@pytest.mark.parametrize("name", TO_HALF)
def test_rounding_of_any_float(harness, name):
    edges = np.array([*SPECIAL, 65504, 65519.996, 65520, 65535, 3.4028235e38, 3.3895314e38,
                      2.0**-24, 2.0**-25, 2.98e-8, 6.1e-5, 1e-45], dtype=np.float32)  # fmt: skip
    assert_rounds_as_torch(harness, name, np.concatenate([edges, -edges]))
    bits = np.random.default_rng(0).integers(0, 2**32, 300_000, dtype=np.uint32)
    assert_rounds_as_torch(harness, name, bits.view(np.float32))

    @FAST
    @given(floats(np.float32))
    def check(values):
        assert_rounds_as_torch(harness, name, np.array(values, dtype=np.float32))

    check()
