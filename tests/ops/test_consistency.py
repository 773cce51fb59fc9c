"""consistency_loss: values and derivatives of every implementation against the reference."""

from __future__ import annotations

import functools

import pytest
import torch
from backends import REASONS
from compare import DTYPES, TOLERANCES, assert_near, assert_same_bits, three_orders
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from ganops import ops

REDUCTIONS = ("mean", "sum", "none")


def numbers(*shape, dtype=torch.float64, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(device, dtype)


def stock(x, reduction):
    """The loss of the very numbers in x, as people write it, in float64."""
    a, b = x.double().chunk(2)
    each = (a - b).flatten(1).square().sum(1) if x.dim() > 1 else (a - b).square()
    return {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]


def test_two_logits_by_hand(any_backend):
    x = torch.tensor([[3.0], [1.0], [1.0], [4.0]], device=any_backend.device, requires_grad=True)
    each = ops.consistency_loss(x, reduction="none", impl=any_backend.impl)
    assert each.tolist() == [4.0, 9.0]
    assert ops.consistency_loss(x, reduction="sum", impl=any_backend.impl).item() == 13.0
    mean = ops.consistency_loss(x, impl=any_backend.impl)
    assert mean.item() == 6.5
    (d,) = torch.autograd.grad(mean, x)
    assert d.flatten().tolist() == [2.0, -3.0, -2.0, 3.0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(6, 3, 7, 5), (10, 1023), (8,), (4, 1)], ids=str)
def test_value_and_gradient_match_float64(any_backend, shape, reduction, dtype):
    x = numbers(*shape, dtype=dtype, device=any_backend.device).requires_grad_()
    value = ops.consistency_loss(x, reduction=reduction, impl=any_backend.impl)
    exact = stock(x, reduction)
    assert value.shape == exact.shape
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # Differences and sums are of float32 for half types too: the gradient alone is rounded.
    torch.testing.assert_close(
        value.double(), exact, rtol=10 * TOLERANCES[value.dtype][0], atol=1e-12
    )
    go = numbers(*value.shape, dtype=value.dtype, device=any_backend.device, seed=1)
    (d,) = torch.autograd.grad(value, x, go)
    (wanted,) = torch.autograd.grad(exact, x, go.double())
    assert_near(d, wanted, 4)
    a, b = d.chunk(2)
    assert_same_bits(a, -b)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_three_orders_match_the_reference(backend, reduction, dtype):
    x, v = (numbers(6, 3, 7, 5, dtype=dtype, device=backend.device, seed=i) for i in range(2))
    compare(backend, x, v, reduction)


def compare(backend, x, v, reduction="mean"):
    reduced = torch.float64 if x.dtype == torch.float64 else torch.float32
    shape = (len(x) // 2,) if reduction == "none" else ()
    dy = numbers(*shape, dtype=reduced, device=x.device, seed=2)
    f = functools.partial(ops.consistency_loss, reduction=reduction)
    ours, expected = (
        three_orders(functools.partial(f, impl=i), (x,), dy, (v,))
        for i in (backend.impl, "reference")
    )
    for name, wanted in expected.items():
        scale = max(1.0, float(wanted.abs().max())) if wanted.numel() else 1.0
        assert_near(ours[name] / scale, wanted / scale, 20 if wanted.dtype == reduced else 2, name)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck_and_gradgradcheck(backend, reduction):
    x = numbers(4, 2, 2, device=backend.device).requires_grad_()
    f = functools.partial(ops.consistency_loss, reduction=reduction, impl=backend.impl)
    fast = backend == ("triton", "cpu")
    if fast and reduction != "none":
        pytest.skip("once does, where each call is interpreted")
    assert gradcheck(f, (x,), check_forward_ad=True, check_batched_grad=not fast, fast_mode=fast)
    # The squared gradient is of order 4 in x: it bends, where that of a quadratic form does not.
    bent = lambda x: torch.autograd.grad(f(x).square().sum(), x, create_graph=True)[0]  # noqa: E731
    assert gradgradcheck(lambda x: f(x).square(), (x,), check_fwd_over_rev=True, fast_mode=fast)
    assert gradgradcheck(bent, (x,), fast_mode=True)


SHAPES = [(2,), (14,), (2, 1), (6, 0), (2, 1023), (4, 1024), (4, 1025), (6, 2, 31, 37),
          (4, 8191), (2, 8192), (4, 8193), (2, 16385), (34, 1), (10, 3), (2, 150_001)]  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(backend, shape, reduction):
    if backend == ("triton", "cpu") and shape in ((2, 150_001), (34, 1)):
        pytest.skip("the interpreter takes long, and other shapes have several pieces and samples")
    x, v = (numbers(*shape, device=backend.device, seed=i) for i in range(2))
    compare(backend, x, v, reduction)


def test_triton_finishes_sums_in_several_steps(backend, monkeypatch):
    if backend.impl != "triton":
        pytest.skip("its constant")
    from ganops.ops.consistency import triton_kernels

    monkeypatch.setattr(triton_kernels, "SUMS", 4)
    x = numbers(2, 80_001, device=backend.device)
    assert_near(ops.consistency_loss(x, impl="triton"), stock(x, "mean"), 20)


def test_an_expanded_cotangent(backend):
    x = numbers(8, 5, device=backend.device).requires_grad_()
    value = ops.consistency_loss(x, reduction="none", impl=backend.impl)
    (d,) = torch.autograd.grad(value, x, torch.tensor(0.7, dtype=x.dtype).to(x).expand(4))
    (wanted,) = torch.autograd.grad(0.7 * stock(x, "sum"), x)
    assert_near(d, wanted, 4)


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels-last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "samples-inside": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "sliced": lambda x: torch.cat((x, x), 3)[..., : x.shape[3]],
    "every-other-sample": lambda x: torch.stack((x, -x), 1).flatten(0, 1)[::2],
    "shifted": lambda x: torch.cat((x.flatten()[:1], x.flatten()))[1:].view(x.shape),
    "expanded": lambda x: x[:1].expand(x.shape),
}


@pytest.mark.parametrize("of_v", LAYOUTS)
@pytest.mark.parametrize("of_x", LAYOUTS)
def test_layouts(backend, of_x, of_v):
    if backend == ("triton", "cpu") and "contiguous" not in (of_x, of_v):
        pytest.skip("one unusual operand at a time does, where each case is interpreted")
    x, v = (numbers(4, 3, 5, 7, device=backend.device, seed=i) for i in range(2))
    compare(backend, LAYOUTS[of_x](x), LAYOUTS[of_v](v), "none")


@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "shifted"])
def test_gradients_keep_the_memory_order_of_dense_rows(backend, layout):
    x = LAYOUTS[layout](numbers(4, 3, 5, 7, device=backend.device)).requires_grad_()
    (d,) = torch.autograd.grad(ops.consistency_loss(x, impl=backend.impl), x)
    assert d.stride() == x.stride()


@pytest.mark.parametrize("shape", [(4, 600_001), (300_006, 7)], ids=str)
def test_results_larger_than_the_cache(backend, shape):
    """Beyond 8 MiB results are streamed, in bursts that odd rows start anywhere in."""
    if backend == ("triton", "cpu"):
        pytest.skip("the interpreter would take minutes, and has no streaming stores")
    x = numbers(*shape, dtype=torch.float32, device=backend.device).requires_grad_()
    for reduction in ("sum", "none"):
        value = ops.consistency_loss(x, reduction=reduction, impl=backend.impl)
        (d,) = torch.autograd.grad(value, x, torch.ones_like(value))
        exact = stock(x, reduction)
        torch.testing.assert_close(value.double(), exact, rtol=2e-6, atol=0)
        (wanted,) = torch.autograd.grad(exact, x, torch.ones_like(exact))
        assert_near(d, wanted, 1)


TRANSFORMS = {
    "grad": torch.func.grad,
    "hessian": torch.func.hessian,
    "jacrev-jacfwd": lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
    "third": lambda f: torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(f))),
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (x.cos(),))[1],
    "jvp-of-grad": lambda f: lambda x: torch.func.jvp(torch.func.grad(f), (x,), (x.cos(),))[1],
    "vmap-grad": lambda f: lambda x: torch.func.vmap(torch.func.grad(f))(torch.stack((x, 2 * x))),
}


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_torch_func(backend, transform, reduction):
    if backend == ("triton", "cpu") and transform in ("third", "jacrev-jacfwd"):
        pytest.skip("the interpreter would take minutes")
    x = numbers(4, 2, device=backend.device)

    def through(impl):
        f = functools.partial(ops.consistency_loss, reduction=reduction, impl=impl)
        return TRANSFORMS[transform](lambda x: f(x).square().sum())(x)

    expected = through("reference")
    assert expected.abs().max() > 0
    assert_near(through(backend.impl), expected, 50)


def test_forward_over_forward_is_refused(backend):
    """It would be silently wrong: PyTorch drops outer tangents inside a jvp."""
    x = numbers(4, 2, device=backend.device)
    f = functools.partial(ops.consistency_loss, impl=backend.impl)
    with pytest.raises(RuntimeError, match=r"forward mode inside forward mode.*hessian"):
        torch.func.jacfwd(torch.func.jacfwd(f))(x)
    slope = lambda x: torch.func.grad(f)(x).sum()  # noqa: E731
    with pytest.raises(RuntimeError, match="forward mode inside forward mode"):
        torch.func.jacfwd(torch.func.jacfwd(slope))(x)


def test_dual_numbers_reach_the_dispatcher_ops(backend):
    """Without requires_grad too: a missing rule there would give silent zeros."""
    x, y, t, u = (numbers(4, 3, device=backend.device, seed=i) for i in range(4))
    op = getattr(torch.ops.ganops, "consistency" + backend.suffix)
    order1 = getattr(torch.ops.ganops, "consistency_grad" + backend.suffix)
    s, s_t = numbers(2, 2, device=backend.device, seed=5)

    def d(x):
        return x[:2] - x[2:]

    def slope(x):
        return torch.cat((d(x), -d(x)))

    with forward_ad.dual_level():
        dual_x, dual_y = forward_ad.make_dual(x, t), forward_ad.make_dual(y, u)
        square = forward_ad.unpack_dual(op(dual_x, None, 0.3, False)).tangent
        dot = forward_ad.unpack_dual(op(dual_x, dual_y, 0.3, True)).tangent
        one = forward_ad.unpack_dual(op(x, dual_y, 0.3, True)).tangent
        bent = forward_ad.unpack_dual(order1(forward_ad.make_dual(s, s_t), dual_x, 0.3)).tangent
    assert_near(square, 0.6 * (d(x) * d(t)).sum(), 20)
    assert_near(one, 0.3 * (d(x) * d(u)).sum(1), 20)
    assert_near(dot, 0.3 * (d(x) * d(u) + d(t) * d(y)).sum(1), 20)
    s, s_t = (f.repeat(2).unsqueeze(1) for f in (s, s_t))
    assert_near(bent, 0.3 * (s_t * slope(x) + s * slope(t)), 20)


def test_one_bad_number_is_not_hidden(any_backend):
    x = numbers(6, 4, device=any_backend.device)
    x[1, 2] = float("nan")
    each = ops.consistency_loss(x.requires_grad_(), reduction="none", impl=any_backend.impl)
    assert each.isfinite().tolist() == [True, False, True]
    (d,) = torch.autograd.grad(each.sum(), x)
    assert d.isfinite().all(1).tolist() == [True, False, True, True, False, True]
    assert not ops.consistency_loss(x, impl=any_backend.impl).isfinite()


def test_the_same_bits_each_time(backend):
    x = numbers(8, 9999, dtype=torch.float32, device=backend.device)
    assert len({ops.consistency_loss(x, impl=backend.impl).item() for _ in range(5)}) == 1


def test_output_picks_the_scores():
    x = numbers(4, 3)
    wanted = ops.consistency_loss(x)
    assert ops.consistency_loss({"logits": x, "w": None}, output=lambda d: d["logits"]) == wanted
    assert ops.consistency_loss((None, x), output=lambda d: d[1]) == wanted


X = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("d_out", "kwargs", "error", "message"),
    [
        (X.long(), {}, TypeError, "expected a dense float tensor, got torch.int64"),
        (X.to_sparse(), {}, TypeError, "dense float tensor, got torch.float32, .*sparse"),
        ((X, X), {}, TypeError, "expected a tensor, got tuple; pick one with output="),
        (X[0, 0], {}, ValueError, r"\(2 B, ...\) outputs for \[x ; T\(x\)\].*, got \(\)"),
        (X[:0], {}, ValueError, r"with B >= 1, got \(0, 3\)"),
        (X[:3], {}, ValueError, r"with B >= 1, got \(3, 3\)"),
        (X, {"reduction": "max"}, ValueError, "reduction 'mean', 'sum' or 'none', got 'max'"),
        (X, {"impl": "fast"}, ValueError, "expected one of auto, reference, native, triton"),
    ],
)  # fmt: skip
def test_bad_arguments(d_out, kwargs, error, message):
    with pytest.raises(error, match=message):
        ops.consistency_loss(d_out, **kwargs)


def test_the_native_op_itself_refuses_what_would_read_out_of_bounds():
    if ("native", "cpu") in REASONS:
        pytest.skip(REASONS["native", "cpu"])
    op = torch.ops.ganops
    for wrong in (X[:0], X[:3], X[0, 0]):
        with pytest.raises(RuntimeError, match="a batch of 2 B samples"):
            op.consistency(wrong, None, 1.0, False)
    with pytest.raises(RuntimeError, match="y must have the shape of x"):
        op.consistency(X, X[:, :2], 1.0, False)
    for wrong in (torch.ones(4), torch.ones(1), torch.ones(2).double(), torch.ones(2, 1)):
        with pytest.raises(RuntimeError, match="a scalar or one number per pair"):
            op.consistency_grad(wrong, X, 1.0)
