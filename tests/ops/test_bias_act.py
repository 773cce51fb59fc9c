"""bias_act: values and derivatives of every implementation against the reference."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from backends import REASONS
from compare import DTYPES, TOLERANCES, assert_near, assert_same_bits, three_orders

from ganops import ops
from ganops.ops.bias_act import ACTIVATIONS

HALF = (torch.bfloat16, torch.float16)
PIECEWISE_LINEAR = ("linear", "relu", "lrelu")


def settings(act):
    """Every combination of slope, gain and clamp that takes a path of its own."""
    alphas = (None, -0.3, 0.0, 1.5) if act == "lrelu" else (None,)
    for alpha in alphas:
        for gain in (None, 0.5, 0.0, -1.5):
            for clamp in (None, 0.75, 0.0):
                yield {"act": act, "alpha": alpha, "gain": gain, "clamp": clamp}


def operands(dtype, device="cpu"):
    """x, b, and cotangents; x + b meets 0 exactly, both tails, and values too small to square."""
    torch.manual_seed(3)
    x = 3 * torch.randn(4, 5, 7, dtype=torch.float64)
    x[0, :, :4] = torch.tensor([0.0, -0.0, 1e-4, -1e-4])
    x[1, :, :4] = torch.tensor([30.0, -30.0, 95.0, -95.0])
    b = torch.tensor([0.0, 0.5, -1.0, 2.0, 0.25], dtype=torch.float64)
    x[2] = -b[:, None]  # the kink, for every channel
    rest = [torch.randn_like(x), torch.randn_like(x), torch.randn_like(b)]
    return [t.to(device, dtype) for t in (x, b, *rest)]


def off_rounded_kinks(y, limit):
    """1 where the stored y tells on which side of a kink t lay, else 0.

    A half-precision y may have been rounded onto 0 or onto the clamp; kernels that keep y instead
    of x then take the derivative at the kink, where the reference takes the one beside it.
    """
    return ((y != 0) & (y.abs() != limit)).to(y.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_three_orders_match_the_reference(backend, act, dtype):
    x, b, dy, v, v_b = operands(dtype, backend.device)
    rtol, atol = TOLERANCES[dtype]
    for setting in settings(act):
        ours, expected = (
            three_orders(functools.partial(ops.bias_act, **setting, impl=i), (x, b), dy, (v, v_b))
            for i in (backend.impl, "reference")
        )
        known, slack = torch.ones_like(x), torch.zeros_like(x)
        if dtype in HALF and act != "swish":
            known = off_rounded_kinks(expected["y"], setting["clamp"])
            if act not in PIECEWISE_LINEAR:
                # The slope is read off y as stored, not off the float it was rounded from: an
                # error of |ds/dy| <= 2 times half a unit of y in each slope.
                w = v.abs() + v_b.abs()[:, None]
                slack = 4 * rtol * (1 + expected["y"].abs()) * (dy.abs() + w + dy.abs() * w)
        for name, wanted in expected.items():
            got, bound = ours[name], 2 * (rtol * wanted.abs() + atol)
            assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
            if wanted.dim() == 3:
                bound, error = bound + slack * (name != "y"), (got - wanted).abs() * known
            else:  # a gradient of b: the sum of that of x, which may have been rounded first
                if not known.all():
                    continue
                summed = expected[name.replace("1", "0")].abs().double()
                bound = (2 * (rtol * summed + atol) + slack).sum((0, 2))
                error = (got.double() - wanted.double()).abs()
            assert (error <= bound).all(), f"{name} of {setting}: {(error - bound).max()} too far"


@pytest.mark.parametrize("from_output", [False, True])
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_half_types_are_computed_in_float32_and_rounded_once(backend, act, dtype, from_output):
    if backend == ("triton", "cpu") and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter truncates to bfloat16 where hardware rounds")
    if from_output and act == "swish":
        pytest.skip("swish is not monotone: its slope cannot be read off y")
    x, b, dy, v, _ = operands(dtype, backend.device)
    wide = [t.float() for t in (x, b, dy, v)]
    op = getattr(torch.ops.ganops, "bias_act" + backend.suffix)
    grad = getattr(torch.ops.ganops, "bias_act_grad" + backend.suffix)
    grad2 = getattr(torch.ops.ganops, "bias_act_grad2" + backend.suffix)
    numbers = (1, list(ACTIVATIONS).index(act), 0.25, 1.5, 0.75)
    y = op(x, b, *numbers)

    def all_orders(x, b, dy, v):
        ref = y.to(x.dtype) if from_output else x
        dx, db = grad(dy, ref, b, *numbers, from_output, True)
        found = [op(x, b, *numbers), dx, grad2(v, dy, ref, b, *numbers, from_output)]
        # Triton leaves the bias gradient to torch's sum over the rounded dx.
        return found if backend.impl == "triton" else [*found, db]

    for half, single in zip(all_orders(x, b, dy, v), all_orders(*wide)):
        assert_same_bits(half, single.to(dtype))


@pytest.mark.parametrize(
    ("act", "alpha", "slope"),
    [("relu", None, 0.0), ("lrelu", 0.3, 0.3), ("lrelu", -2.0, -2.0), ("elu", None, 1.0),
     ("selu", None, 1.0507009873554805 * 1.6732632423543772)],
)  # fmt: skip
def test_derivative_at_the_kink_is_the_left_one(any_backend, act, alpha, slope):
    x = torch.zeros(3, dtype=torch.float64, device=any_backend.device, requires_grad=True)
    y = ops.bias_act(x, act=act, alpha=alpha, gain=2.0, impl=any_backend.impl)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert_near(dx, torch.full_like(x, 2.0 * slope))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("clamp", [0.1, 0.5, 0.7, 256.0, 1e5])
@pytest.mark.parametrize("act", ["linear", "lrelu", "softplus"])
def test_derivative_is_zero_where_the_clamp_binds(any_backend, act, clamp, dtype):
    # 0.1 rounds down and 0.7 up in half precision; 1e5 is beyond float16, whose largest then binds.
    limit = min(clamp, torch.finfo(dtype).max)
    x = torch.tensor([clamp, 2 * clamp, clamp / 4, -clamp / 4], dtype=dtype)
    x = x.to(any_backend.device).requires_grad_()
    y = ops.bias_act(x, act=act, alpha=None, gain=10.0, clamp=clamp, impl=any_backend.impl)
    assert torch.equal(y.abs().max(), torch.tensor(limit, dtype=dtype, device=x.device))
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert (dx[y.abs() == y.abs().max()] == 0).all()
    below = torch.tensor([0.01 * clamp], dtype=dtype, device=x.device, requires_grad=True)
    z = ops.bias_act(below, act="linear", gain=10.0, clamp=clamp, impl=any_backend.impl)
    assert torch.autograd.grad(z.sum(), below)[0].item() == 10.0


def test_a_clamp_beyond_float16_is_the_references(backend):
    """Between the two limits y would round to infinity, on which kernels saw the clamp bind."""
    x = torch.tensor([60000.0, 65504.0, -60000.0, 100.0], dtype=torch.float16)
    for gain in (1.0, 1.5, 4.0):
        found = []
        for impl in (backend.impl, "reference"):
            leaf = x.to(backend.device).requires_grad_()
            y = ops.bias_act(leaf, gain=gain, clamp=1e5, impl=impl)
            found.append((y.detach(), torch.autograd.grad(y.sum(), leaf)[0]))
        assert found[0][0].isfinite().all()
        for got, expected in zip(*found):
            assert_same_bits(got, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_nan_and_infinity_come_through_as_in_the_reference(backend, act, dtype):
    special = [math.nan, math.inf, -math.inf, 1.0, -1.0]
    x = torch.tensor(special * 7, dtype=dtype, device=backend.device)
    for clamp in (None, 0.75):
        ours, expected = (
            ops.bias_act(x, act=act, clamp=clamp, impl=i) for i in (backend.impl, "reference")
        )
        assert_near(ours, expected, message=f"clamp={clamp}")
        assert torch.equal(ours.isnan(), expected.isnan())


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_nan_reaches_the_gradients(backend, act):
    x = torch.tensor([math.nan, 1.0], device=backend.device, requires_grad=True)
    y = ops.bias_act(x, act=act, impl=backend.impl)
    (dx,) = torch.autograd.grad((y * y).sum(), x)
    assert dx.isnan().tolist() == [True, False]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_derivatives_are_nan_where_the_references_are(backend, act, order):
    """For finite cotangents, read off y (gain > 0) and off x."""
    for gain in (1.5, -1.5):
        for clamp in (None, 0.75):
            setting = {"act": act, "gain": gain, "clamp": clamp}
            found = []
            for impl in (backend.impl, "reference"):
                x = torch.tensor([math.nan, 0.3, -0.3], dtype=torch.float64, device=backend.device)
                dy = torch.full_like(x, 2.0).requires_grad_()
                y = ops.bias_act(x.requires_grad_(), **setting, impl=impl)
                (d,) = torch.autograd.grad(y, x, dy, create_graph=order == 2)
                if order == 2:
                    (d,) = torch.autograd.grad(d, dy, torch.full_like(x, 0.5))
                found.append(d)
            assert found[0].isnan().tolist() == found[1].isnan().tolist(), setting
            assert_near(*found, 2, str(setting))


def test_dim_does_not_matter_without_a_bias(any_backend):
    for shape in ((), (3,), (2, 3)):
        x = torch.ones(shape, device=any_backend.device)
        assert torch.equal(ops.bias_act(x, gain=2.0, impl=any_backend.impl), 2 * x)


def test_defaults_are_stylegans(any_backend):
    for act, gain, value in [("linear", 1, -2), ("relu", 2**0.5, 0), ("lrelu", 2**0.5, -0.4),
                             ("swish", 2**0.5, -2 / (1 + math.exp(2))), ("tanh", 1, math.tanh(-2)),
                             ("elu", 1, math.expm1(-2)), ("softplus", 1, math.log1p(math.exp(-2))),
                             ("sigmoid", 1, 1 / (1 + math.exp(2)))]:  # fmt: skip
        x = torch.tensor([[-3.0]], dtype=torch.float64, device=any_backend.device)
        b = torch.tensor([1.0], dtype=torch.float64, device=any_backend.device)
        y = ops.bias_act(x, b, act=act, impl=any_backend.impl)
        assert_near(y, torch.full_like(x, gain * value), message=act)


def test_bias_of_another_dtype_is_cast(any_backend):
    x = torch.randn(2, 3, device=any_backend.device)
    b = torch.randn(3, dtype=torch.float64, device=any_backend.device, requires_grad=True)
    y = ops.bias_act(x, b, impl=any_backend.impl)
    assert_near(y, x + b.float())
    y.sum().backward()
    assert_same_bits(b.grad, torch.full_like(b, 2.0))


def test_only_what_needs_a_gradient_gets_one(backend):
    x = torch.randn(2, 3, device=backend.device)
    b = torch.randn(3, device=backend.device, requires_grad=True)
    ops.bias_act(x, b, act="tanh", impl=backend.impl).sum().backward()
    assert x.grad is None
    assert b.grad.shape == (3,)
    y = ops.bias_act(x, b.detach(), impl=backend.impl)
    assert not y.requires_grad


@pytest.mark.parametrize(
    ("kwargs", "kept"),
    [
        ({"act": "linear"}, set()),
        ({"act": "linear", "gain": -2.0}, set()),
        ({"act": "linear", "clamp": 0.5}, {"y"}),
        ({"act": "relu"}, {"y"}),
        ({"act": "lrelu"}, {"y"}),
        ({"act": "lrelu", "alpha": -0.1}, {"x"}),
        ({"act": "tanh"}, {"y"}),
        ({"act": "softplus"}, {"y"}),
        ({"act": "softplus", "gain": -1.0}, {"x"}),
        ({"act": "swish"}, {"x"}),
    ],
)
def test_backward_keeps_what_the_docstring_says(backend, kwargs, kept):
    x = torch.randn(2, 3, device=backend.device, requires_grad=True)
    saved = []

    def pack(t):
        saved.append(t.data_ptr())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = ops.bias_act(x, **kwargs, impl=backend.impl)
    names = {x.data_ptr(): "x", y.data_ptr(): "y"}
    assert {names[p] for p in saved} == kept
    y.sum().backward()
    assert x.grad is not None


X, B = torch.zeros(2, 3), torch.zeros(3)


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((X.long(),), {}, TypeError, "expected x as a float tensor, got torch.int64"),
        (([1.0],), {}, TypeError, "expected x as a float tensor, got list"),
        ((X.to(torch.complex64),), {}, TypeError, "expected x as a float tensor, got torch.compl"),
        ((X, B.int()), {}, TypeError, "expected b as a float tensor or None, got torch.int32"),
        ((X, 1.0), {}, TypeError, "expected b as a float tensor or None, got float"),
        ((X.to_sparse(),), {}, TypeError, "expected a dense x, got layout torch.sparse_coo"),
        ((X,), {"alpha": "x"}, TypeError, "expected alpha as a number, got str 'x'"),
        ((X, B), {"dim": 1.0}, TypeError, "expected dim as a number, got float 1.0"),
        ((X,), {"act": "gelu"}, ValueError, r"act as one of linear, relu.*swish; got 'gelu'"),
        ((X,), {"act": "relu", "alpha": 0.1}, ValueError, "slope of lrelu; relu takes none"),
        ((X,), {"clamp": -1.0}, ValueError, "expected clamp >= 0 or None, got -1.0"),
        ((X,), {"clamp": math.nan}, ValueError, "expected clamp >= 0 or None, got nan"),
        ((X,), {"gain": math.nan}, ValueError, "expected gain as a finite number, got nan"),
        ((X,), {"gain": math.inf}, ValueError, "expected gain as a finite number, got inf"),
        ((X,), {"act": "lrelu", "alpha": math.nan}, ValueError, "expected alpha as a finite"),
        ((X,), {"dim": 2}, ValueError, "expected dim within the 2 dims of x, got 2"),
        ((X, B), {"dim": 2}, ValueError, "expected dim within the 2 dims of x, got 2"),
        ((X, B), {"dim": -3}, ValueError, "expected dim within the 2 dims of x, got -3"),
        ((torch.tensor(1.0), B), {}, ValueError, "expected dim within the 0 dims of x, got 1"),
        ((X, B[:2]), {}, ValueError, r"b of shape \(3,\) for dim 1 of x \(2, 3\), got \(2,\)"),
        ((X, B), {"dim": 0}, ValueError, r"b of shape \(2,\) for dim 0 of x \(2, 3\), got \(3,\)"),
        ((X, X), {}, ValueError, r"b of shape \(3,\).*got \(2, 3\)"),
        ((X, B.to("meta")), {}, ValueError, "expected b on cpu as x is, got meta"),
        ((X,), {"impl": "cuda"}, ValueError, "bias_act: impl: expected one of auto, reference"),
    ],
)
def test_bad_arguments(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        ops.bias_act(*args, **kwargs)


@pytest.mark.parametrize(
    ("x", "b", "message"),
    [
        (X, B[:2], "expected a contiguous bias of 3"),
        (X, B.double(), "expected a contiguous bias of 3"),
        (X, torch.zeros(6)[::2], "expected a contiguous bias of 3"),
    ],
)
def test_the_native_op_itself_refuses_what_would_read_out_of_bounds(x, b, message):
    if ("native", "cpu") in REASONS:
        pytest.skip(REASONS["native", "cpu"])
    with pytest.raises(RuntimeError, match=message):
        torch.ops.ganops.bias_act(x, b, 1, 0, 0.0, 1.0, -1.0)
    with pytest.raises(RuntimeError, match="is outside rank 2"):
        torch.ops.ganops.bias_act(x, B, 2, 0, 0.0, 1.0, -1.0)
    with pytest.raises(RuntimeError, match="no activation 99"):
        torch.ops.ganops.bias_act(x, B, 1, 99, 0.0, 1.0, -1.0)
    with pytest.raises(RuntimeError, match="shape of dy"):
        torch.ops.ganops.bias_act_grad(x, x[:1], None, 1, 0, 0.0, 1.0, -1.0, False, False)
