"""Bias gradients of tensors so large that dx is streamed past the cache, in bursts."""

from __future__ import annotations

import pytest
import torch
from backends import Backend

from ganops import ops


@pytest.mark.parametrize("shape", [(130001, 17), (17, 5, 40009)], ids=["columns", "slabs"])
def test_bias_gradient_of_a_streamed_result(shape):
    if Backend("native", "cpu").why_not() is not None:
        pytest.skip(f"no native kernels: {Backend('native', 'cpu').why_not()}")
    x = torch.randn(shape)
    b = torch.randn(shape[1], requires_grad=True)
    v = torch.rand(shape)  # one sign: a lost part cannot cancel
    assert x.numel() * 4 >= 8 << 20
    y = ops.bias_act(x.requires_grad_(), b, act="lrelu", impl="native")
    dx, db = torch.autograd.grad(y, (x, b), v)
    others = [d for d in range(x.dim()) if d != 1]
    torch.testing.assert_close(db.double(), dx.double().sum(others), rtol=1e-5, atol=0)
    slope = torch.where(y.detach() > 0, 1.0, 0.2) * 2**0.5
    torch.testing.assert_close(dx, slope * v)
