"""Bias gradients of wide matrices: right, and without a sum per column for every few rows."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from backends import Backend

from ganops import ops


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape", [(70, 70_001), (5, 300_007), (3, 1_200_003), (40, 9001, 9)], ids=str
)
def test_bias_gradient_of_many_columns(backend, shape, dtype):
    if backend == ("triton", "cpu"):
        pytest.skip("the interpreter would take minutes, and sums by torch")
    if dtype == torch.bfloat16 and len(shape) == 3:
        pytest.skip("once is enough for the largest")
    x, v = (torch.randn(shape, device=backend.device).to(dtype) for _ in range(2))
    b = torch.randn(shape[1], device=backend.device).to(dtype).requires_grad_()
    y = ops.bias_act(x.requires_grad_(), b, act="lrelu", gain=1.0, impl=backend.impl)
    dx, db = torch.autograd.grad(y, (x, b), v)
    t = x.detach().double() + b.detach().double().reshape(1, -1, *[1] * (x.dim() - 2))
    wanted = v.double() * torch.where(t > 0, torch.ones_like(t), 0.2)
    others = [d for d in range(x.dim()) if d != 1]
    # Not the sign of t where a half y was rounded to 0.
    known = (y != 0).double()
    assert (((dx.double() - wanted) * known).abs() <= torch.finfo(dtype).eps * wanted.abs()).all()
    size = (wanted.abs() + (1 - known) * v.double().abs()).sum(others)
    error = (db.double() - wanted.sum(others)).abs()
    assert (error <= 4 * torch.finfo(dtype).eps * size).all()


MEASURE = """
import re, torch
from ganops import ops
peak = lambda: int(re.search("VmHWM:\\\\s+(\\\\d+) kB", open("/proc/self/status").read())[1]) >> 10
run = lambda *t: torch.ops.ganops.bias_act_grad.kernel(*t, 1, 2, 0.2, 1.0, -1.0, False, True)
run(torch.ones(2, 8), torch.ones(2, 8), torch.zeros(8))
dy, x, b = torch.ones(64, 1 << 18), torch.ones(64, 1 << 18), torch.zeros(1 << 18)
before = peak()
dx, db = run(dy, x, b)
print(peak() - before, int(db[0]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_scratch_is_bounded():
    reason = Backend("native", "cpu").why_not()
    if reason is not None:
        pytest.skip(reason)
    said = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    grown, db = map(int, said.stdout.split())
    assert db == 64
    # dx is 64 MB, 2^20 sums are 4, the bias and db 1 each; 64 sums per column would be 64.
    assert 60 <= grown <= 64 + 16
