"""The penalty of gradients so small that their squares underflow, against exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compare import TOLERANCES

from ganops import ops

# Powers of ten on both sides of every threshold. Below the smallest normal number a norm has few
# digits, and so have its derivatives.
SIZES = {
    torch.float64: (-305, -250, -170, -154, -121, -120, -119, -100, -20, 0, 100),
    torch.float32: (-37, -30, -23, -20, -19, -16, -15, -14, -8, 0, 12),
}


def exact(g, v, go, center, one_sided):
    """P, u = go dP/dg, and the gradients of <u, v> for g and go, in long double, on scaled rows."""
    g, v = (t.detach().cpu().numpy().astype(np.longdouble) for t in (g, v))
    size = np.abs(g).max(1, keepdims=True)
    r = g / np.where(size == 0, 1, size)
    length = np.sqrt((r * r).sum(1, keepdims=True))
    unit, n = r / np.where(size == 0, 1, length), size * length
    uv = (unit * v).sum(1, keepdims=True)
    slope = np.where((n > 0) & ((n > center) | (not one_sided)), 1, 0)
    distance = np.where((n > center) | (not one_sided), n - center, 0)
    along = np.where(n > 0, center / np.where(n > 0, n, 1), 0) * slope
    d_g = 2 * go / len(g) * (slope * v - along * (v - uv * unit))
    wanted = (distance**2).mean(), 2 * go / len(g) * distance * unit, d_g, (2 * distance * uv).sum()
    return [torch.from_numpy(np.asarray(w, np.float64)) for w in (*wanted[:3], wanted[3] / len(g))]


def found(g, v, go, **setting):
    g, go = g.detach().requires_grad_(), torch.tensor(go, dtype=g.dtype, device=g.device)
    value = ops.penalty_from_gradient(g, **setting)
    (u,) = torch.autograd.grad(value, g, go.requires_grad_(), create_graph=True)
    return [value.detach(), u.detach(), *torch.autograd.grad(u, (g, go), v)]


@pytest.mark.parametrize(
    ("dtype", "size"), [(d, s) for d, sizes in SIZES.items() for s in sizes], ids=str
)
@pytest.mark.parametrize("one_sided", [False, True])
def test_three_orders_are_exact(any_backend, dtype, size, one_sided):
    generator = torch.Generator().manual_seed(size + 400)
    g, v = torch.randn(2, 4, 33, dtype=torch.float64, generator=generator)
    g = (g * 10.0**size).to(any_backend.device, dtype)
    g[1, ::2] = 0
    g[2] = 0
    v = v.to(any_backend.device, dtype)
    v[0, 0] = 0  # 0 times an overflown factor would be NaN
    setting = {"center": 1.0, "one_sided": one_sided}
    got = found(g, v, 0.7, **setting, impl=any_backend.impl)
    wanted = exact(g, v, 0.7, **setting)
    fused = ops.penalty_and_gradient(g, scale=0.7, **setting, impl=any_backend.impl)
    for name, ours, right in zip(
        ("value", "d", "dd", "d_go", "fused value", "fused d"),
        (*got, *fused), (*wanted, *wanted[:2]),
    ):  # fmt: skip
        ours = ours.detach().cpu().double()
        assert ours.isfinite().all(), name
        scale = right.abs().amax() if right.numel() > 1 and name != "dd" else right.abs()
        if name == "dd":  # rows differ in size
            scale = right.abs().amax(1, keepdim=True)
        bound = 20 * TOLERANCES[dtype][0] * scale + torch.finfo(dtype).tiny
        assert ((ours - right).abs() <= bound).all(), f"{name}: {(ours - right).abs().max()}"


def test_an_overflow_is_infinite_and_not_nan(any_backend):
    """At a norm of 1e-39 the curvature 1e39 does not fit float32: only what is 0 stays finite."""
    g = torch.zeros(1, 3, device=any_backend.device)
    g[0, 0] = 1e-39
    v = torch.tensor([[0.0, 1.0, 0.0]], device=any_backend.device)
    _, u, dd, _ = found(g, v, 1.0, impl=any_backend.impl)
    torch.testing.assert_close(u.cpu(), torch.tensor([[-2.0, 0.0, 0.0]]), rtol=1e-5, atol=0)
    assert dd.tolist() == [[0.0, float("-inf"), 0.0]]
