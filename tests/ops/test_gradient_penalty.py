"""penalty_from_gradient: values and derivatives of every implementation against the reference."""

from __future__ import annotations

import functools

import pytest
import torch
from backends import REASONS
from compare import DTYPES, TOLERANCES, assert_near, assert_same_bits, three_orders
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from ganops import ops

CENTERS = (0.0, 0.1, 1.0, 20.0)  # 0.1 is no binary fraction; 20 is above every norm


def rows(*shape, dtype=torch.float64, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(device, dtype)


def in_double(g, center, one_sided):
    """The penalty of the very numbers in g, by the definition, in float64."""
    distance = g.detach().double().flatten(1).norm(dim=1) - center
    return (distance.clamp_min(0) if one_sided else distance).square().mean()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("center", CENTERS)
def test_three_orders_match_the_reference(backend, center, one_sided, dtype):
    g = rows(6, 3, 7, 5, dtype=dtype, device=backend.device)
    g[1] = 0
    g[2] *= 1e-3
    g[3] *= 0.1
    g[4] *= 30
    v = rows(6, 3, 7, 5, dtype=dtype, device=backend.device, seed=1)
    reduced = torch.float64 if dtype == torch.float64 else torch.float32
    dy = torch.tensor(1.7, dtype=reduced, device=backend.device)
    setting = {"center": center, "one_sided": one_sided}
    ours, expected = (
        three_orders(
            functools.partial(ops.penalty_from_gradient, **setting, impl=i), (g,), dy, (v,)
        )
        for i in (backend.impl, "reference")
    )
    for name, wanted in expected.items():
        scale = max(1.0, wanted.abs().max().item())  # rows of 105 terms cancel
        assert_near(ours[name] / scale, wanted / scale, 20 if wanted.dtype == reduced else 2, name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("center", CENTERS)
def test_value_matches_float64(any_backend, center, one_sided, dtype):
    g = rows(5, 1023, dtype=dtype, device=any_backend.device)
    value = ops.penalty_from_gradient(g, center=center, one_sided=one_sided, impl=any_backend.impl)
    assert value.shape == ()
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # Sums are float32 for half types too: their error is in the input alone.
    rtol = 20 * TOLERANCES[value.dtype][0]
    torch.testing.assert_close(
        value.double(), in_double(g, center, one_sided), rtol=rtol, atol=1e-12
    )


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("center", [0.0, 1.0])
def test_gradcheck_and_gradgradcheck(backend, center, one_sided):
    g = rows(3, 2, 2, device=backend.device).requires_grad_()
    f = functools.partial(
        ops.penalty_from_gradient, center=center, one_sided=one_sided, impl=backend.impl
    )
    fast = backend == ("triton", "cpu")
    assert gradcheck(f, (g,), check_forward_ad=True, check_batched_grad=True, fast_mode=fast)
    assert gradgradcheck(f, (g,), check_fwd_over_rev=True, fast_mode=fast)


@pytest.mark.parametrize("one_sided", [False, True])
def test_reference_is_right_to_order_four(one_sided):
    g = rows(3, 2, 2).requires_grad_()

    def second(g):
        p = ops.penalty_from_gradient(g, center=1.0, one_sided=one_sided, impl="reference")
        (d,) = torch.autograd.grad(p, g, create_graph=True)
        return torch.autograd.grad(d.square().sum(), g, create_graph=True)

    assert gradcheck(second, (g,))
    assert gradgradcheck(second, (g,), atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("center", [0.0, 1.0])
def test_zero_rows_are_finite_at_orders_one_and_two(any_backend, center, one_sided, dtype):
    g = torch.zeros(2, 5, dtype=dtype, device=any_backend.device, requires_grad=True)
    value = ops.penalty_from_gradient(g, center=center, one_sided=one_sided, impl=any_backend.impl)
    assert value.item() == (0.0 if one_sided else center**2)
    (d,) = torch.autograd.grad(value, g, create_graph=True)
    assert_same_bits(d.detach().abs(), torch.zeros_like(g))
    (dd,) = torch.autograd.grad(d.sum(), g)
    # |g|^2 is curved at 0 (2 / B); a norm is not differentiable there, and 0 is what is taken.
    assert_near(dd, torch.full_like(g, 0.0 if center else 1.0))


def test_a_row_at_the_centre_has_no_gradient_but_a_curvature(any_backend):
    g = torch.tensor([[0.6, 0.8]], dtype=torch.float64, device=any_backend.device)
    g.requires_grad_()
    value = ops.penalty_from_gradient(g, center=1.0, impl=any_backend.impl)
    (d,) = torch.autograd.grad(value, g, create_graph=True)
    assert_near(d.detach(), torch.zeros_like(g), 2)
    (dd,) = torch.autograd.grad(d, g, torch.ones_like(g))
    u = g.detach() / g.detach().norm()
    assert_near(dd, 2 * u * u.sum(), 4)  # 2 <u, v> u


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_bad_number_is_not_hidden(any_backend, value, one_sided):
    g = rows(3, 4, device=any_backend.device)
    g[1, 2] = value
    setting = {"one_sided": one_sided, "impl": any_backend.impl}
    p = ops.penalty_from_gradient(g.requires_grad_(), **setting)
    assert not p.isfinite()
    assert not ops.penalty_and_gradient(g.detach(), **setting)[0].isfinite()
    (d,) = torch.autograd.grad(p, g)
    assert not d[1].isfinite().all()
    assert d[0].isfinite().all()


SHAPES = [(1,), (7,), (1, 1), (3, 0), (1, 1023), (2, 1024), (2, 1025), (3, 2, 31, 37),
          (2, 8191), (2, 8192), (2, 8193), (1, 16385), (129, 1), (5, 3)]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(backend, shape):
    g, v = (rows(*shape, device=backend.device, seed=i) for i in range(2))
    compare(backend, g, v)


def compare(backend, g, v):
    dy = torch.tensor(0.7, dtype=g.dtype, device=g.device)
    ours, expected = (
        three_orders(functools.partial(ops.penalty_from_gradient, impl=i), (g,), dy, (v,))
        for i in (backend.impl, "reference")
    )
    for name, wanted in expected.items():
        scale = max(1.0, float(wanted.abs().max())) if wanted.numel() else 1.0
        assert_near(ours[name] / scale, wanted / scale, 20, name)


LAYOUTS = {
    "contiguous": lambda g: g,
    "channels-last": lambda g: g.contiguous(memory_format=torch.channels_last),
    "samples-inside": lambda g: g.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "sliced": lambda g: torch.cat((g, g), 3)[..., : g.shape[3]],
    "every-other-sample": lambda g: torch.stack((g, -g), 1).flatten(0, 1)[::2],
    "shifted": lambda g: torch.cat((g.flatten()[:1], g.flatten()))[1:].view(g.shape),
    "expanded": lambda g: g[:1].expand(g.shape),
}


@pytest.mark.parametrize("of_v", LAYOUTS)
@pytest.mark.parametrize("of_g", LAYOUTS)
def test_layouts(backend, of_g, of_v):
    if backend == ("triton", "cpu") and "contiguous" not in (of_g, of_v):
        pytest.skip("one unusual operand at a time does, where each case is interpreted")
    g, v = (rows(4, 3, 5, 7, device=backend.device, seed=i) for i in range(2))
    compare(backend, LAYOUTS[of_g](g), LAYOUTS[of_v](v))


@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "shifted"])
def test_gradients_keep_the_memory_order_of_dense_rows(backend, layout):
    g = LAYOUTS[layout](rows(4, 3, 5, 7, device=backend.device)).requires_grad_()
    (d,) = torch.autograd.grad(ops.penalty_from_gradient(g, impl=backend.impl), g)
    assert d.stride() == g.stride()


@pytest.mark.parametrize("shape", [(3, 700_001), (300_007, 7), (1, 2_100_001)], ids=str)
def test_results_larger_than_the_cache(backend, shape):
    """Beyond 8 MiB results are streamed, in bursts that odd rows start anywhere in."""
    if backend == ("triton", "cpu"):
        pytest.skip("the interpreter would take minutes, and has no streaming stores")
    g, v = (rows(*shape, dtype=torch.float32, device=backend.device, seed=i) for i in range(2))
    ours, expected = ([], [])
    for found, impl in ((ours, backend.impl), (expected, "reference")):
        x = g.double() if impl == "reference" else g.clone()
        value = ops.penalty_from_gradient(x.requires_grad_(), center=1.5, impl=impl)
        (d,) = torch.autograd.grad(value, x, create_graph=True)
        (dd,) = torch.autograd.grad(d, x, v.to(d.dtype))
        found.extend((value.detach(), d.detach(), dd))
    for got, wanted in zip(ours, expected):
        assert (got.double() - wanted).abs().max() <= 2e-6 * wanted.abs().max()


TRANSFORMS = {
    "grad": torch.func.grad,
    "hessian": torch.func.hessian,
    "jacrev-jacrev": lambda f: torch.func.jacrev(torch.func.jacrev(f)),
    "jacrev-jacfwd": lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
    "grad-of-jvp": lambda f: torch.func.grad(
        lambda g: torch.func.jvp(f, (g,), (torch.ones_like(g),))[1]
    ),
    "grad-of-grad": lambda f: torch.func.grad(lambda g: torch.func.grad(f)(g).square().sum()),
    "jvp": lambda f: lambda g: torch.func.jvp(f, (g,), (g.cos(),))[1],
    "jvp-of-grad": lambda f: lambda g: torch.func.jvp(torch.func.grad(f), (g,), (g.cos(),))[1],
    "vmap-grad": lambda f: lambda g: torch.func.vmap(torch.func.grad(f))(torch.stack((g, 2 * g))),
}


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_torch_func(backend, transform, one_sided):
    g = rows(2, 3, device=backend.device)

    def through(impl):
        f = functools.partial(ops.penalty_from_gradient, one_sided=one_sided, impl=impl)
        return TRANSFORMS[transform](lambda g: f(g).square())(g)

    expected = through("reference")
    assert expected.abs().max() > 0
    assert_near(through(backend.impl), expected, 50)


def test_third_order_is_refused(backend):
    g = rows(3, 4, device=backend.device).requires_grad_()
    d = ops.penalty_from_gradient(g, impl=backend.impl)
    for _ in range(2):
        (d,) = torch.autograd.grad(d.sum(), g, create_graph=True)
    with pytest.raises(RuntimeError, match=r"gradient_penalty: .*up to order 2, and order 3"):
        torch.autograd.grad(d.sum(), g)
    f = functools.partial(ops.penalty_from_gradient, impl=backend.impl)
    with pytest.raises(RuntimeError, match="order 3"):
        torch.func.jacfwd(torch.func.jacrev(torch.func.jacrev(f)))(g.detach())


def test_forward_over_forward_is_refused(backend):
    """It would be silently wrong: PyTorch drops outer tangents inside a jvp."""
    g = rows(3, 4, device=backend.device)
    f = functools.partial(ops.penalty_from_gradient, impl=backend.impl)
    with pytest.raises(RuntimeError, match=r"forward mode inside forward mode.*hessian"):
        torch.func.jacfwd(torch.func.jacfwd(f))(g)
    slope = lambda g: torch.func.grad(f)(g).sum()  # noqa: E731
    with pytest.raises(RuntimeError, match="forward mode inside forward mode"):
        torch.func.jacfwd(torch.func.jacfwd(slope))(g)


def test_dual_numbers_reach_the_dispatcher_ops(backend):
    """Without requires_grad too: a missing rule there would give silent zeros."""
    g, t = (rows(3, 4, device=backend.device, seed=i) for i in range(2))
    op = getattr(torch.ops.ganops, "gradient_penalty" + backend.suffix)
    order1 = getattr(torch.ops.ganops, "gradient_penalty_grad" + backend.suffix)
    f = functools.partial(ops.penalty_from_gradient, impl="reference")
    go = torch.tensor(0.7, dtype=g.dtype, device=g.device)
    norms = op(g, 1.0, False)[1]
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(g, t)
        value = forward_ad.unpack_dual(op(dual, 1.0, False)[0])
        curved = forward_ad.unpack_dual(order1(go, dual, norms, 1.0, False))
        linear = forward_ad.unpack_dual(order1(forward_ad.make_dual(go, go), g, norms, 1.0, False))
    assert_near(value.tangent, torch.func.jvp(f, (g,), (t,))[1], 20)
    assert_near(linear.tangent, 0.7 * torch.func.grad(f)(g), 20)
    assert_near(curved.tangent, 0.7 * torch.func.jvp(torch.func.grad(f), (g,), (t,))[1], 20)


def test_the_same_bits_each_time(backend):
    g = rows(9, 999, dtype=torch.float32, device=backend.device)
    found = {ops.penalty_from_gradient(g, impl=backend.impl).item() for _ in range(5)}
    assert len(found) == 1


G = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("grad", "kwargs", "error", "message"),
    [
        (G.long(), {}, TypeError, "expected grad as a float tensor, got torch.int64"),
        (None, {}, TypeError, "expected grad as a float tensor, got NoneType"),
        (G.to_sparse(), {}, TypeError, "expected a dense grad, got layout torch.sparse_coo"),
        (G, {"center": "1"}, TypeError, "expected center as a number, got '1'"),
        (G[0, 0], {}, ValueError, r"grad of shape \(B, ...\) with B >= 1, got \(\)"),
        (G[:0], {}, ValueError, r"grad of shape \(B, ...\) with B >= 1, got \(0, 3\)"),
        (G, {"center": -1.0}, ValueError, "expected a finite center >= 0, got -1.0"),
        (G, {"center": float("nan")}, ValueError, "expected a finite center >= 0, got nan"),
        (G, {"center": float("inf")}, ValueError, "expected a finite center >= 0, got inf"),
        (G, {"impl": "fast"}, ValueError, "expected one of auto, reference, native, triton"),
    ],
)
def test_bad_arguments(grad, kwargs, error, message):
    with pytest.raises(error, match=message):
        ops.penalty_from_gradient(grad, **kwargs)


def test_the_native_op_itself_refuses_what_would_read_out_of_bounds():
    if ("native", "cpu") in REASONS:
        pytest.skip(REASONS["native", "cpu"])
    go, norms = torch.ones(()), torch.ones(2)
    op = torch.ops.ganops
    with pytest.raises(RuntimeError, match="at least one sample"):
        op.gradient_penalty(G[:0], 1.0, False)
    for wrong in (norms[:1], norms.double(), torch.ones(4)[::2]):
        with pytest.raises(RuntimeError, match="one norm per sample"):
            op.gradient_penalty_grad(go, G, wrong, 1.0, False)
    with pytest.raises(RuntimeError, match="scalar of the penalty's dtype"):
        op.gradient_penalty_grad(torch.ones(2), G, norms, 1.0, False)
    with pytest.raises(RuntimeError, match="shape of grad"):
        op.gradient_penalty_grad2(G[:, :2], go, G, norms, 1.0, False)
