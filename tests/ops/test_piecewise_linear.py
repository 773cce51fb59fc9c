"""Piecewise linear activations, pools and pads: torch's values, torch's derivatives, no zeros."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from counting import Nothing
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, vmap

from ganops import ops

SLOPES = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)

# name: ours, torch's. Arguments are bound the way call sites write them, by position and by name.
TWINS = {
    "relu": (ops.relu, F.relu),
    "leaky_relu": (lambda x: ops.leaky_relu(x, 0.2), lambda x: F.leaky_relu(x, 0.2)),
    "leaky_relu-": (lambda x: ops.leaky_relu(x, -0.2), lambda x: F.leaky_relu(x, -0.2)),
    "leaky_relu0": (
        lambda x: ops.leaky_relu(x, negative_slope=0.0),
        lambda x: F.leaky_relu(x, negative_slope=0.0),
    ),
    "relu6": (ops.relu6, F.relu6),
    "hardtanh": (
        lambda x: ops.hardtanh(x, min_val=-0.4, max_val=1.5),
        lambda x: F.hardtanh(x, min_val=-0.4, max_val=1.5),
    ),
    "threshold": (lambda x: ops.threshold(x, 0.3, 2.0), lambda x: F.threshold(x, 0.3, 2.0)),
    "abs": (ops.abs, torch.abs),
    "prelu": (lambda x: ops.prelu(x, SLOPES.to(x)), lambda x: F.prelu(x, SLOPES.to(x))),
    "avg_pool2d": (lambda x: ops.avg_pool2d(x, 2), lambda x: F.avg_pool2d(x, 2)),
    "avg_pool2d_all": (
        lambda x: ops.avg_pool2d(x, (3, 2), 2, 1, True, False),
        lambda x: F.avg_pool2d(x, (3, 2), 2, 1, True, False),
    ),
    "avg_pool2d_divisor": (
        lambda x: ops.avg_pool2d(x, 3, stride=1, divisor_override=5),
        lambda x: F.avg_pool2d(x, 3, stride=1, divisor_override=5),
    ),
    "max_pool2d": (lambda x: ops.max_pool2d(x, 2), lambda x: F.max_pool2d(x, 2)),
    "max_pool2d_overlapping": (
        lambda x: ops.max_pool2d(x, 3, 2, padding=1, ceil_mode=True),
        lambda x: F.max_pool2d(x, 3, 2, padding=1, ceil_mode=True),
    ),
    "max_pool2d_dilated": (
        lambda x: ops.max_pool2d(x, 2, stride=1, dilation=2),
        lambda x: F.max_pool2d(x, 2, stride=1, dilation=2),
    ),
    "adaptive_max_pool2d": (
        lambda x: ops.adaptive_max_pool2d(x, (3, None)),
        lambda x: F.adaptive_max_pool2d(x, (3, None)),
    ),
    "adaptive_avg_pool2d": (
        lambda x: ops.adaptive_avg_pool2d(x, (3, 2)),
        lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
    ),
    "adaptive_avg_pool2d_one": (
        lambda x: ops.adaptive_avg_pool2d(x, 1),
        lambda x: F.adaptive_avg_pool2d(x, 1),
    ),
    "reflect": (
        lambda x: ops.pad(x, (1, 2, 0, 3), "reflect"),
        lambda x: F.pad(x, (1, 2, 0, 3), "reflect"),
    ),
    "replicate": (
        lambda x: ops.pad(x, (1, 2, 0, 3), mode="replicate"),
        lambda x: F.pad(x, (1, 2, 0, 3), mode="replicate"),
    ),
}
TO_ROUNDING = {"adaptive_avg_pool2d"}  # derivatives: two matrix products for torch's loop
every_twin = pytest.mark.parametrize(("ours", "stock"), TWINS.values(), ids=TWINS)


def images(dtype=torch.float64, seed=0, memory_format=torch.contiguous_format):
    """(2, 3, 7, 6) of every sign, with kinks, without ties for a maximum but at 0."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 7, 6, generator=generator, dtype=torch.float64) * 3
    x[0, 0, 0, :3] = torch.tensor([0.0, -0.0, 6.0], dtype=x.dtype)
    return x.to(dtype).contiguous(memory_format=memory_format).requires_grad_()


def smooth_images():
    """No kink within the reach of a finite difference."""
    x = images().detach()
    x[0, 0, 0, :3] += torch.tensor([0.11, 0.17, 0.23])
    return x.requires_grad_()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", TWINS)
def test_value_and_first_derivative_are_torchs(name, dtype, memory_format):
    ours, stock = TWINS[name]
    x = images(dtype, memory_format=memory_format)
    y, expected = ours(x), stock(x)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    (dx,), (dx_stock,) = (torch.autograd.grad(out, x, dy) for out in (y, expected))
    assert torch.equal(y, expected)
    assert y.stride() == expected.stride()
    if name in TO_ROUNDING or (name == "prelu" and dtype == torch.bfloat16):
        rtol = 2.0**-6 if dtype == torch.bfloat16 else None  # torch rounds twice
        torch.testing.assert_close(dx, dx_stock, rtol=rtol, atol=rtol and 1e-2)
    else:
        assert torch.equal(dx, dx_stock)


@every_twin
def test_double_backward_sends_nothing_to_x_and_the_truth_to_dy(ours, stock):
    x = smooth_images()
    dy = torch.randn_like(ours(x)).requires_grad_()
    found = []
    for f in (ours, stock):
        (dx,) = torch.autograd.grad(f(x), x, dy, create_graph=True)
        v = torch.randn(dx.shape, generator=torch.Generator().manual_seed(2), dtype=dx.dtype)
        d_dy, d_x = torch.autograd.grad(dx, (dy, x), v, allow_unused=True)
        found.append(d_dy)
        if f is ours:
            assert d_x is None
    torch.testing.assert_close(*found)


@every_twin
def test_order_two_is_the_adjoint_of_order_one_at_kinks_too(ours, stock):
    x = images()
    dy = torch.randn_like(ours(x)).requires_grad_()
    (dx,) = torch.autograd.grad(ours(x), x, dy, create_graph=True)
    v = torch.randn_like(dx)
    (d_dy,) = torch.autograd.grad(dx, dy, v)
    torch.testing.assert_close((d_dy * dy).sum(), (dx * v).sum())


@pytest.mark.filterwarnings("ignore:.*batching rule")
@every_twin
def test_gradcheck_reverse_forward_and_batched(ours, stock):
    x = smooth_images()
    modes = {"check_forward_ad": True, "check_batched_grad": True}
    gradcheck(ours, x, **modes, check_batched_forward_grad=True)
    gradgradcheck(ours, x, check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.filterwarnings("ignore:.*batching rule")
@every_twin
def test_torch_func_agrees(ours, stock):
    x = smooth_images().detach()

    def transforms(f):
        def cubes(t):
            return (f(t) ** 3).sum()

        def penalty(t):
            return grad(cubes)(t).square().sum()

        return (
            hessian(cubes)(x[:1]),
            grad(penalty)(x),
            grad(lambda t: grad(penalty)(t).square().sum())(x),
            vmap(grad(cubes))(x[:, None]),
            vmap(grad(penalty))(x[:, None]),
        )

    for got, expected in zip(transforms(ours), transforms(stock)):
        torch.testing.assert_close(got, expected)


def test_forward_inside_forward_is_refused():
    x = torch.tensor([1.0, -2.0])
    with pytest.raises(RuntimeError, match="relu: forward mode inside forward mode"):
        jacfwd(jacfwd(lambda t: ops.relu(t).square().sum()))(x)


def test_prelu_weight_gradients_of_both_orders():
    x, w = smooth_images(), SLOPES.clone().requires_grad_()
    gradcheck(ops.prelu, (x, w), check_forward_ad=True)
    gradgradcheck(ops.prelu, (x, w), check_fwd_over_rev=True)
    one = torch.tensor([0.25], dtype=x.dtype, requires_grad=True)
    gradgradcheck(ops.prelu, (x, one))
    gradgradcheck(ops.prelu, (x.detach()[0, 0, 0].requires_grad_(), one))


INPLACE = {
    "relu": lambda f, x: f.relu(x, inplace=True),
    "leaky_relu": lambda f, x: f.leaky_relu(x, 0.2, inplace=True),
    "leaky_relu-forward-only": lambda f, x: f.leaky_relu(x, 0.0, True),
    "relu6": lambda f, x: f.relu6(x, True),
    "hardtanh": lambda f, x: f.hardtanh(x, -0.5, 0.5, True),
    "threshold": lambda f, x: f.threshold(x, 0.1, 0.0, True),
}


@pytest.mark.parametrize("call", INPLACE.values(), ids=INPLACE)
@pytest.mark.parametrize("view", [False, True])
def test_in_place_changes_its_argument_as_torch_does(call, view):
    found = []
    for f in (ops, F):
        x = images().detach().requires_grad_()
        h = x * 1.5
        target = h[:, :2] if view else h
        y = call(f, target)
        assert y is target
        (dx,) = torch.autograd.grad((h * h).sum() + y.sum(), x, create_graph=True)
        (ddx,) = torch.autograd.grad(dx.square().sum(), x)
        found.append((h, dx, ddx))
    for got, expected in zip(*found):
        assert torch.equal(got, expected)


def test_in_place_spoils_what_autograd_saved_as_torch_does():
    x = images()
    h = x * 1.0
    square = h * h
    ops.relu(h, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        square.sum().backward()


def test_in_place_forward_mode():
    x, t = images().detach(), torch.randn(2, 3, 7, 6, dtype=torch.float64)
    with forward_ad.dual_level():
        h = forward_ad.make_dual(x, t) * 1.0
        tangent = forward_ad.unpack_dual(ops.leaky_relu(h, 0.2, inplace=True)).tangent
    assert torch.equal(tangent, torch.where(x > 0, t, 0.2 * t))


@pytest.mark.parametrize("name", ["relu", "abs", "threshold", "hardtanh"])
def test_integers_go_to_torch(name):
    ours = {"relu": ops.relu, "abs": ops.abs, "threshold": lambda t: ops.threshold(t, 1, 0),
            "hardtanh": lambda t: ops.hardtanh(t, -1, 1)}[name]  # fmt: skip
    x = torch.arange(-3, 4)
    assert ours(x).dtype == torch.int64


def test_pools_keep_no_image():
    x = images()
    for y in (ops.avg_pool2d(x, 2), ops.pad(x, (1, 1, 1, 1), "reflect")):
        assert not y.grad_fn.saved_tensors
    y = ops.max_pool2d(x, 2)
    assert [t.dtype for t in y.grad_fn.saved_tensors] == [torch.int64]


def test_max_pools_return_indices():
    x = images()
    for ours, stock in ((ops.max_pool2d, F.max_pool2d),
                        (ops.adaptive_max_pool2d, F.adaptive_max_pool2d)):  # fmt: skip
        y, indices = ours(x, 3, return_indices=True)
        expected, where = stock(x, 3, return_indices=True)
        assert torch.equal(y, expected)
        assert torch.equal(indices, where)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
@pytest.mark.parametrize("sides", [1, 2, 3])
def test_pads_of_every_rank(mode, sides):
    for shape in [(2, 5, 6, 7, 4)[-sides - 2 :], (2, 5, 6, 7, 4)[-sides - 1 :]]:
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        y = ops.pad(x, [1, 2] * sides, mode)
        assert torch.equal(y, F.pad(x, [1, 2] * sides, mode))
        (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        torch.autograd.grad(dx.sum(), x)


def test_bad_arguments_meet_torchs_errors():
    x = images()
    with pytest.raises(RuntimeError, match="stride should not be zero"):
        ops.avg_pool2d(x, 2, 0)
    with pytest.raises(RuntimeError, match=r"[Pp]adding"):
        ops.pad(x, (9, 9, 9, 9), "reflect")
    with pytest.raises(RuntimeError, match="pad should be at most half"):
        ops.max_pool2d(x, 2, padding=2)


@every_twin
def test_no_gradient_stays_none(ours, stock):
    x = images()
    assert torch.autograd.grad(Nothing.apply(ours(x)).sum(), x, allow_unused=True) == (None,)


def test_in_place_under_vmap():
    def f(t):
        h = 2 * t
        ops.leaky_relu(h, 0.2, inplace=True)
        return h

    x = images().detach()
    assert torch.equal(vmap(f)(x), F.leaky_relu(2 * x, 0.2))
    slopes = vmap(grad(lambda t: f(t).sum()))(x)
    assert torch.equal(slopes, torch.where(x > 0, 2 * torch.ones_like(x), 0.4))


def test_under_torch_compile_stock_runs():
    graphs = []

    def keep(module, inputs):
        graphs.append(module.code)
        return module

    def f(t):
        h = ops.max_pool2d(ops.leaky_relu(ops.pad(t, (1, 1, 1, 1), "reflect"), 0.2), 2)
        return ops.conv2d(h, t[:, :, :2, :2])

    x = images().detach().requires_grad_()
    torch.compile(f, backend=keep, fullgraph=True)(x)
    assert "leaky_relu" in graphs[0]
    assert "autograd_function" not in graphs[0]
