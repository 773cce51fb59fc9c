"""Philox: known answers, an independent NumPy twin, and the same bits from every implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from compare import assert_same_bits

from ganops import ops
from ganops.ops.philox import reference, seed_from

DRAWS = {"bits": ops.random_bits, "uniform": ops.random_uniform, "normal": ops.random_normal}
SEEDS = (0, 1, -1, -7, 2**31, 2**32 + 5, 2**63 - 1, 2**64 - 1)

# (stream, offset, n): odd ends, more than 32 bits of each, and the last elements there are.
DRAWN = [
    (0, 0, 7), (3, 5, 1023), (2**40 + 1, 2**34 + 3, 9), (-1, 1, 8), (2**64 - 1, 2**62 - 20, 20),
    (7, 2**34 - 5, 11), (2**31, 2**31 + 1, 5),
]  # fmt: skip

# Counter, key and result of the kat_vectors file of Random123, philox4x32 with 10 rounds.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def hexadecimal(text):
    return [int(word, 16) for word in text.split()]


def numpy_words(seed, stream, element, n):
    """Words element ... element + n - 1, from the definition, in NumPy's 64-bit integers."""
    mask = np.uint64(0xFFFFFFFF)
    blocks = np.arange(element // 4, (element + n + 3) // 4, dtype=np.uint64)
    low, high = blocks & mask, blocks >> np.uint64(32)
    c = [low, high, np.full_like(low, stream % 2**32), np.full_like(low, stream >> 32 & 0xFFFFFFFF)]
    k = [np.uint64(seed % 2**32), np.uint64(seed >> 32 & 0xFFFFFFFF)]
    for _ in range(10):
        p = [c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)]
        c = [(p[1] >> np.uint64(32)) ^ c[1] ^ k[0], p[1] & mask,
             (p[0] >> np.uint64(32)) ^ c[3] ^ k[1], p[0] & mask]  # fmt: skip
        k = [(k[0] + np.uint64(0x9E3779B9)) & mask, (k[1] + np.uint64(0xBB67AE85)) & mask]
    words = np.stack(c, -1).reshape(-1)
    return words[element % 4 :][:n].astype(np.int64)


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_reference_gives_the_known_answers(counter, key, result):
    words = reference.philox4x32(torch.tensor(hexadecimal(counter)), torch.tensor(hexadecimal(key)))
    assert words.tolist() == hexadecimal(result)


def test_known_answer_through_the_public_function(any_backend):
    """The first one: the others' block numbers are beyond any offset."""
    bits = ops.random_bits((4,), seed=0, impl=any_backend.impl, device=any_backend.device)
    assert bits.tolist() == hexadecimal(KNOWN[0][2])


@pytest.mark.parametrize("seed", SEEDS)
def test_words_equal_numpys(any_backend, seed):
    where = {"impl": any_backend.impl, "device": any_backend.device}
    for stream, offset, n in DRAWN:
        bits = ops.random_bits((n,), seed=seed, offset=offset, stream=stream, **where)
        assert bits.dtype == torch.int64
        assert np.array_equal(bits.cpu().numpy(), numpy_words(seed, stream, offset, n))


@pytest.mark.parametrize("kind", DRAWS)
def test_every_implementation_gives_the_same_bits(backend, kind):
    where = {"impl": backend.impl, "device": backend.device}
    sizes = (0, 1, 2, 3, 4, 5, 1023, 1024, 1025, 4096, 4099, 20_011)
    for n in (0, 1, 5, 1025) if backend == ("triton", "cpu") else sizes:
        for seed, offset in ((0, 0), (-9, 1), (2**64 - 1, 2**35 + 2), (12345, 3)):
            expected = DRAWS[kind]((n,), seed=seed, offset=offset, stream=n, impl="reference")
            got = DRAWS[kind]((n,), seed=seed, offset=offset, stream=n, **where)
            assert_same_bits(got.cpu(), expected)


@pytest.mark.parametrize("kind", DRAWS)
def test_any_split_gives_the_same_numbers(any_backend, kind):
    draw = DRAWS[kind]
    where = {"seed": 5, "stream": 2, "impl": any_backend.impl, "device": any_backend.device}
    whole = draw((6, 5, 7), offset=3, **where)
    assert whole.shape == (6, 5, 7)
    assert whole.is_contiguous()
    for cut in range(7):
        parts = [
            draw((cut, 5, 7), offset=3, **where),
            draw((6 - cut, 5, 7), offset=3 + cut * 35, **where),
        ]
        assert_same_bits(torch.cat(parts), whole)
    one_by_one = [draw((), offset=3 + i, **where) for i in range(12)]
    assert_same_bits(torch.stack(one_by_one), whole.flatten()[:12])


def test_seeds_and_streams_are_independent():
    base = ops.random_bits((64,), seed=1)
    for other in ({"seed": 2}, {"seed": 1 + 2**32}, {"seed": 1, "stream": 1},
                  {"seed": 1, "stream": 2**32}, {"seed": 1, "offset": 2**34}):  # fmt: skip
        assert (base == ops.random_bits((64,), **other)).sum() == 0
    assert_same_bits(ops.random_bits((9,), seed=-1), ops.random_bits((9,), seed=2**64 - 1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_are_casts_of_float32(any_backend, dtype):
    where = {"seed": 3, "impl": any_backend.impl, "device": any_backend.device}
    for draw in (ops.random_uniform, ops.random_normal):
        assert_same_bits(draw((99,), dtype=dtype, **where), draw((99,), **where).to(dtype))


def test_uniforms_are_multiples_of_2_to_the_minus_24():
    u = ops.random_uniform((100_000,), seed=0)
    assert u.min() >= 0
    assert u.max() < 1
    assert ((u.double() * 2**24) % 1 == 0).all()
    extremes = reference.uniform_from_bits(torch.tensor([0, 255, 256, 2**32 - 1]))
    assert extremes.tolist() == [0.0, 0.0, 2.0**-24, 1 - 2.0**-24]


def within(statistic, expected, sigma):
    """5 sigma: a false alarm in two million, were the seed not fixed."""
    return abs(float(statistic) - expected) < 5 * sigma


def test_uniform_moments_and_fit():
    n = 1_000_000
    u = ops.random_uniform((n,), seed=11).double()
    assert within(u.mean(), 1 / 2, math.sqrt(1 / 12 / n))
    assert within(u.var(), 1 / 12, math.sqrt(1 / 180 / n))
    assert within((u[1:] * u[:-1]).mean(), 1 / 4, math.sqrt(7 / 144 / n) * 1.5)
    counts = torch.histc(u, 256, 0, 1)
    chi_square = ((counts - n / 256) ** 2 / (n / 256)).sum()
    assert within(chi_square, 255, math.sqrt(2 * 255))
    stats = pytest.importorskip("scipy.stats")
    assert stats.kstest(u.numpy()[:200_000], "uniform").pvalue > 1e-3


def test_normal_moments_and_fit():
    n = 1_000_000
    x = ops.random_normal((n,), seed=12).double()
    assert within(x.mean(), 0, math.sqrt(1 / n))
    assert within(x.square().mean(), 1, math.sqrt(2 / n))
    assert within((x**3).mean(), 0, math.sqrt(15 / n))
    assert within((x**4).mean(), 3, math.sqrt(96 / n))
    assert within((x[1:] * x[:-1]).mean(), 0, math.sqrt(1 / n))  # cos and sin of one angle
    pairs = x.view(-1, 2).square()
    assert within((pairs[:, 0] * pairs[:, 1]).mean(), 1, math.sqrt(8 / (n / 2)))
    assert x.abs().max() <= math.sqrt(48 * math.log(2))
    stats = pytest.importorskip("scipy.stats")
    assert stats.kstest(x.numpy()[:200_000], "norm").pvalue > 1e-3


def test_logarithm_is_accurate():
    # Every exponent that (b + 1) / 2^24 can have, dense near 1 where log cancels.
    k = torch.cat((torch.arange(1, 70_000), 2**24 - torch.arange(70_000),
                   torch.arange(1, 2**24, 997)))  # fmt: skip
    u = k.to(torch.float32) * 2.0**-24
    exact = u.double().log()
    ulp = torch.where(exact == 0, 1.0, (2.0 ** exact.abs().log2().floor()) * 2.0**-23)
    assert ((reference.log_exact(u).double() - exact).abs() / ulp).max() <= 1.0
    assert reference.log_exact(torch.ones(1)).item() == 0.0


def test_cosine_and_sine_are_accurate_and_exact_at_quarters():
    v = torch.cat((torch.arange(0, 2**24, 61), torch.tensor([2**24 - 1])))
    cos, sin = reference.cos_sin_turns(v << 8)
    angle = v.double() * (2 * math.pi / 2**24)
    # The angle itself, at most pi / 4 after reduction, is rounded to float32.
    assert (cos.double() - angle.cos()).abs().max() <= 1.2e-7
    assert (sin.double() - angle.sin()).abs().max() <= 1.2e-7
    quarters = torch.arange(4) << 30
    cos, sin = reference.cos_sin_turns(quarters)
    assert cos.tolist() == [1, 0, -1, 0]
    assert sin.tolist() == [0, 1, 0, -1]


def test_square_root_is_correctly_rounded():
    x = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) * 34
    exact = np.sqrt(x.numpy().astype(np.longdouble)).astype(np.float32)
    assert np.array_equal(reference.sqrt_exact(x).numpy(), exact)


def test_seed_from_a_generator():
    one, two = (torch.Generator().manual_seed(4) for _ in range(2))
    first = seed_from(one)
    assert 0 <= first < 2**63 - 1
    assert first == seed_from(two)
    assert first != seed_from(one)
    torch.manual_seed(4)
    assert seed_from() == first


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"shape": (-1,)}, ValueError, r"expected sizes >= 0, got \(-1,\)"),
        ({"offset": -1}, ValueError, "expected 0 <= offset < 2.62, got -1"),
        ({"offset": 2**62}, ValueError, "expected 0 <= offset < 2.62"),
        ({"seed": 2**64}, ValueError, "expected seed to fit 64 bits"),
        ({"seed": -(2**63) - 1}, ValueError, "expected seed to fit 64 bits"),
        ({"stream": 2**64}, ValueError, "expected stream to fit 64 bits"),
        ({"shape": (2**40, 2**40)}, ValueError, "expected offset . elements <= 2.62, got offset 0"),
        ({"shape": (2,), "offset": 2**62 - 1}, ValueError, "expected offset . elements <= 2.62"),
        ({"shape": (1.5,)}, TypeError, "expected each size as an int, got 1.5"),
        ({"shape": 5}, TypeError, "expected shape as a sequence of ints, got 5"),
        ({"seed": 1.5}, TypeError, "expected seed as an int, got 1.5"),
        ({"offset": 1.0}, TypeError, "expected offset as an int, got 1.0"),
        ({"stream": "a"}, TypeError, "expected stream as an int, got 'a'"),
        ({"dtype": torch.int32}, TypeError, "expected a floating dtype, got torch.int32"),
        ({"impl": "numpy"}, ValueError, "philox: impl: expected one of auto"),
    ],
)
def test_bad_arguments(kwargs, error, message):
    arguments = {"shape": (2,), "seed": 0, **kwargs}
    with pytest.raises(error, match=message):
        ops.random_uniform(arguments.pop("shape"), **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
@pytest.mark.parametrize("impl", ["auto", "reference"])
def test_a_device_that_is_not_there_is_named(impl):
    with pytest.raises(ValueError, match="expected a device that torch has here, got cuda: no"):
        ops.random_uniform((2,), seed=0, device="cuda", impl=impl)
