"""The norms' second derivative of csrc/norm/norm_math.h against autograd on the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

EPS = 1e-2


def definition(x, w, b, centered):
    t = x - x.mean() if centered else x
    rstd = (t.square().mean() + EPS).rsqrt()
    return w * t * rstd + b, t * rstd, rstd


@pytest.mark.parametrize("centered", [True, False])
def test_second_order_of_one_row(harness, centered):
    @settings(deadline=None, max_examples=60)
    @given(st.integers(1, 9), st.integers(0, 2**31 - 1), st.floats(-5, 5))
    def check(n, seed, offset):
        torch.manual_seed(seed)
        x, w, b, dy, v, a, c = torch.randn(7, n, dtype=torch.float64)
        x = (x + offset).requires_grad_()
        w.requires_grad_(), b.requires_grad_(), dy.requires_grad_()
        y, xhat, rstd = definition(x, w, b, centered)
        first = torch.autograd.grad(y, (x, w, b), dy, create_graph=True)
        expected = torch.autograd.grad(first, (dy, x, w), (v, a, c))
        arrays = [t.detach().numpy().copy() for t in (v, dy, xhat)]
        rest = [t.detach().numpy().copy() for t in (w, a, c)]
        got = harness.norm_second(*arrays, rstd.item(), *rest, centered)
        for g, e in zip(got, expected):
            scale = max(1.0, e.abs().max().item())
            np.testing.assert_allclose(g, e.numpy(), rtol=1e-10, atol=1e-10 * scale)

    check()
