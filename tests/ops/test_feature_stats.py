"""feature_stats_: every implementation against two passes, and the bits that native promises."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from ganops.ops import feature_stats_
from ganops.ops._autograd import kernel

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def rows_of(n, d, seed=0, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, d, generator=generator, dtype=torch.float64) + 0.5).to(device, dtype)


def start(d, device="cpu"):
    mean = torch.zeros(d, dtype=torch.float64, device=device)
    return mean, torch.zeros(d, d, dtype=torch.float64, device=device)


def truth(*blocks):
    x = torch.cat([b.cpu().double() for b in blocks])
    mean = x.mean(0)
    return mean, ((x - mean).T @ (x - mean)).triu()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (5, 3), (33, 24), (40, 25), (7, 200), (65, 131)])
@pytest.mark.parametrize("fast", [False, True])
def test_two_blocks_are_their_rows(any_backend, n, d, dtype, fast):
    if any_backend == ("triton", "cpu") and n * d > 2000:
        pytest.skip("smaller ones do, where interpreting takes seconds")
    a, b = (rows_of(k, d, k, dtype, any_backend.device) for k in (n, n + 2))
    mean, m2 = start(d, any_backend.device)
    mean = feature_stats_(a, mean, m2, 0, fast=fast, impl=any_backend.impl)
    mean = feature_stats_(b, mean, m2, n, fast=fast, impl=any_backend.impl)
    expected = truth(a, b)
    torch.testing.assert_close(mean.cpu(), expected[0], rtol=1e-14, atol=1e-15)
    limit = 3e-6 if fast else 1e-13
    torch.testing.assert_close(m2.cpu().triu(), expected[1], rtol=0, atol=limit * 2 * n + limit)


def test_strided_rows(any_backend):
    wide = rows_of(9, 40, device=any_backend.device)
    for rows in (wide[:, 3:15], wide[::2, ::3], wide.T[:12].T, wide[:1].expand(4, 40)[:, :7]):
        mean, m2 = start(rows.shape[1], any_backend.device)
        mean = feature_stats_(rows, mean, m2, 0, impl=any_backend.impl)
        torch.testing.assert_close(m2.cpu().triu(), truth(rows)[1], rtol=1e-13, atol=1e-13)


def test_native_rounds_as_it_promises():
    """Each element: fused multiply-adds over centred rows in order, then added to m2."""
    x = rows_of(6, 5, dtype=torch.float32)
    mean, m2 = start(5)
    m2 += rows_of(5, 5, 1)
    before = m2.clone()
    kernel("feature_stats", "native")(x, mean, m2, 0, False)
    own = torch.zeros(5, dtype=torch.float64)
    for row in x.double():
        own = own + row
    c = (x.double() - own / 6).tolist()
    for i in range(5):
        for j in range(i, 5):
            total = 0.0
            for row in c:  # rounded once
                total = float(Fraction(row[i]) * Fraction(row[j]) + Fraction(total))
            assert float(m2[i, j]) == float(before[i, j]) + total
    below = torch.ones(5, 5).tril(-1).bool()
    assert torch.equal(m2[below], before[below])  # the other triangle is left alone


@pytest.mark.parametrize("fast", [False, True])
def test_bits_do_not_depend_on_threads(fast):
    x, before = rows_of(70, 1000, dtype=torch.float32), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            mean, m2 = start(1000)
            found.append((kernel("feature_stats", "native")(x, mean, m2, 5, fast), m2))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_bad_input():
    mean, m2 = start(3)
    x = torch.zeros(2, 3)
    for args, error, message in (
        ((x.long(), mean, m2, 0), TypeError, "expected floating rows, got torch.int64"),
        ((x, mean.float(), m2, 0), TypeError, "expected float64 mean and m2"),
        ((x[0], mean, m2, 0), ValueError, r"expected rows \(n >= 1, d\)"),
        ((x[:0], mean, m2, 0), ValueError, r"expected rows \(n >= 1, d\)"),
        ((torch.zeros(2, 4), mean, m2, 0), ValueError, r"got \(2, 4\), \(3,\) and \(3, 3\)"),
        ((x, mean, m2[:2], 0), ValueError, r"and \(2, 3\)"),
        ((x, mean, m2.T.clone().T[:, [2, 1, 0]].T, 0), ValueError, "expected contiguous"),
        ((x, mean, m2, -1), ValueError, "expected count >= 0, got -1"),
    ):
        with pytest.raises(error, match=message):
            feature_stats_(*args)
    with pytest.raises(RuntimeError, match="expected a float64 mean of 3 numbers"):
        kernel("feature_stats", "native")(x, mean.float(), m2, 0, False)
    with pytest.raises(RuntimeError, match="expected a contiguous float64 m2"):
        kernel("feature_stats", "native")(x, mean, m2.float(), 0, False)
