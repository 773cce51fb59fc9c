"""upfirdn2d and the resampling made of it, against loops written from the definition."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from backends import Backend
from compare import DTYPES, TOLERANCES
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from upfirdns import FILTERS, brute_force, randn

from ganops import ops

QUICK = settings(deadline=None, max_examples=150, derandomize=True)


@pytest.fixture(params=[pytest.param(Backend("native", "cpu"), id="native-cpu")])
def native(request):
    reason = request.param.why_not()
    if reason is not None:
        pytest.skip(reason)
    return "native"


def assert_close(ours, exact, dtype, message=""):
    """Sums of up to a few hundred products of numbers around 1."""
    rtol, atol = TOLERANCES[dtype]
    assert ours.dtype == dtype
    scale = max(exact.abs().max().item(), 1e-3) if exact.numel() else 1
    torch.testing.assert_close(
        ours.double().cpu(), exact, rtol=1.5 * rtol, atol=8 * scale * max(atol, rtol / 8),
        msg=lambda m: f"{message}\n{m}",
    )  # fmt: skip


SIDES = [(0, 0, 0, 0), (3, 0, 1, 2), (-1, 2, 0, -2), (7, 7, -1, 9)]


@pytest.mark.parametrize("up_x", [1, 2, 3])
@pytest.mark.parametrize("down_x", [1, 2, 3])
@pytest.mark.parametrize("name", FILTERS)
def test_every_factor_filter_and_side(any_backend, name, up_x, down_x):
    """The y axis goes through the factors the other way round."""
    f, impl = FILTERS[name].to(any_backend.device), any_backend.impl
    few = any_backend == ("triton", "cpu")
    checked = 0
    for (h, w), sides in itertools.product([(1, 7), (6, 1), (5, 8)], SIDES):
        up, down = (up_x, down_x), (down_x, up_x)
        flip = (h + w + up_x) % 2 == 0
        if few and ((h, w) != (5, 8) or sides == SIDES[3]):
            continue
        x = randn(2, 1, h, w, seed=h)
        exact = brute_force(x, f, up, down, sides, flip, -1.7)
        if 0 in exact.shape:
            with pytest.raises(ValueError, match="at least as many padded pixels as taps"):
                ops.upfirdn2d(x, f.cpu(), up, down, sides, flip, -1.7, impl="reference")
            continue
        y = ops.upfirdn2d(x.to(any_backend.device), f, up, down, sides, flip, -1.7, impl=impl)
        assert_close(y, exact, torch.float64, f"{h}x{w} {sides}")
        checked += 1
    assert checked >= (0 if name in ("twelve", "thirteen") else 1)


def layouts(x):
    other = torch.cat([x, x], 3)
    return {
        "contiguous": x,
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "slice": other[..., 1 : 1 + x.shape[3]],
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "every second": other[..., :: other.shape[3] // x.shape[3]],
        "channels swapped": x.transpose(0, 1).contiguous().transpose(0, 1),
        "expanded": x[:1].expand(x.shape),
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 9, 11), (2, 1, 5, 8), (3, 5, 1, 4), (2, 4, 6, 1)])
def test_every_dtype_and_memory_order(backend, dtype, shape):
    x = randn(*shape, dtype=dtype, device=backend.device)
    few = backend == ("triton", "cpu")
    if few and shape != (2, 3, 9, 11):
        pytest.skip("one shape does, where interpreting each takes a second")
    cases = [("four", (2, 2), (1, 1)), ("outer", (1, 1), (2, 2)), ("wide", (3, 2), (2, 1))]
    for (name, up, down), (order, t) in itertools.product(cases, layouts(x).items()):
        if few and order in ("slice", "every second", "channels swapped"):
            continue
        f = FILTERS[name].to(backend.device)
        y = ops.upfirdn2d(t, f, up, down, (3, 2, 3, 2), impl=backend.impl)
        exact = brute_force(t, f, up, down, (3, 2, 3, 2))
        assert_close(y, exact, dtype, f"{name} {order}")
        last = order == "channels_last" and shape[1] > 1
        format_ = torch.channels_last if last else torch.contiguous_format
        assert y.is_contiguous(memory_format=format_), order


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["four", "twelve", "wide"])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_images_of_many_tiles(backend, name, up, down, channels_last):
    """Wider and higher than any kernel takes at a time."""
    if backend == ("triton", "cpu"):
        pytest.skip("minutes in the interpreter")
    shape = (1, 3, 70, 6001) if not channels_last else (2, 700, 11, 37)
    x, f = randn(*shape, dtype=torch.float32), FILTERS[name]
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    exact = ops.upfirdn2d(x.double(), f, up, down, (5, 3, 2, 7), impl="reference")
    y = ops.upfirdn2d(x.to(backend.device), f.to(backend.device), up, down, (5, 3, 2, 7),
                      impl=backend.impl)  # fmt: skip
    assert_close(y, exact, torch.float32)


@QUICK
@given(
    st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 5)] * 4),
    st.tuples(*[st.integers(-4, 9)] * 4), st.tuples(*[st.integers(1, 7)] * 2), st.booleans(),
)  # fmt: skip
def test_polyphase_arithmetic(size, factors, sides, taps, flip):
    if Backend("native", "cpu").why_not() is not None:
        pytest.skip("the native library is not here")
    x, f = randn(1, 2, *size), randn(*taps, dtype=torch.float32, seed=4)
    exact = brute_force(x, f, factors[:2], factors[2:], sides, flip)
    if 0 in exact.shape:
        return
    for impl in ("reference", "native"):
        y = ops.upfirdn2d(x, f, factors[:2], factors[2:], sides, flip, impl=impl)
        torch.testing.assert_close(y, exact, rtol=1e-12, atol=1e-12)


def test_infinities_stay_where_the_filter_puts_them(backend):
    """A tap that would meet an inserted zero, or the zeros around, is not multiplied with it."""
    x = torch.ones(1, 1, 4, 4, device=backend.device)
    x[0, 0, 1, 2] = float("inf")
    for f, up, down in itertools.product((torch.ones(3), randn(3, 3).float()), (1, 2, 3), (1, 2)):
        f = f.to(backend.device)
        y = ops.upfirdn2d(x, f, up, down, 2, impl=backend.impl)
        expected = ops.upfirdn2d(x.isinf().float(), torch.ones_like(f), up, down, 2) > 0
        assert torch.equal(~y.isfinite().cpu(), expected.cpu()), (f.shape, up, down)


def test_empty_batches(any_backend):
    f = FILTERS["four"].to(any_backend.device)
    for shape in ((0, 3, 4, 5), (2, 0, 4, 5)):
        x = torch.empty(shape, device=any_backend.device, requires_grad=True)
        y = ops.upsample2d(x, f, impl=any_backend.impl)
        assert y.shape == (*shape[:2], 8, 10)
        assert torch.autograd.grad(y.sum(), x)[0].shape == shape


LINEAR = {
    "upsample": lambda x, f, **k: ops.upsample2d(x, f, padding=(1, 0, -1, 2), **k),
    "downsample": lambda x, f, **k: ops.downsample2d(x, f, (2, 3), **k),
    "filter": lambda x, f, **k: ops.filter2d(x, f, padding=1, flip_filter=True, gain=0.7, **k),
    "both": lambda x, f, **k: ops.upfirdn2d(x, f, (3, 2), (2, 3), (4, 1, 2, 3), **k),
}


@pytest.mark.parametrize("name", ["three", "four", "wide"])
@pytest.mark.parametrize("op", LINEAR)
def test_gradcheck_and_gradgradcheck(backend, op, name):
    f = functools.partial(LINEAR[op], f=FILTERS[name].to(backend.device), impl=backend.impl)
    x = randn(1, 2, 4, 5, device=backend.device).requires_grad_()
    fast = backend == ("triton", "cpu")
    if fast and name != "four":
        pytest.skip("one filter does, where interpreting each takes seconds")
    assert gradcheck(f, x, check_forward_ad=True, check_batched_grad=not fast, fast_mode=fast)
    assert gradgradcheck(f, x, check_fwd_over_rev=True, fast_mode=fast)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("op", LINEAR)
def test_the_gradient_is_the_adjoint(native, op, name, dtype):
    """<T x, y> = <x, T' y>, in the dtype's own digits, and in the memory order of the cotangent."""
    f, x = FILTERS[name], randn(2, 3, 9, 7, dtype=dtype).requires_grad_()
    try:
        y = LINEAR[op](x, f, impl=native)
    except ValueError:
        return  # too many taps
    dy = randn(*y.shape, dtype=dtype, seed=5).contiguous(memory_format=torch.channels_last)
    (dx,) = torch.autograd.grad(y, x, dy)
    exact = LINEAR[op](x.detach().double(), f, impl="reference")
    there, back = (exact * dy.double()).sum(), (dx.double() * x.detach().double()).sum()
    scale = (dy.double().norm() * exact.norm()).item() + 1e-9
    assert abs(there - back).item() <= 4 * TOLERANCES[dtype][0] * scale


@pytest.mark.parametrize("op", LINEAR)
def test_orders_two_and_three(backend, op):
    """Inside something that is not linear, which sees every order of it."""
    x = randn(1, 1, 3, 4, device=backend.device).requires_grad_()

    def chain(impl):
        f, found = FILTERS["four"].to(backend.device), []
        g = LINEAR[op](x**3, f, impl=impl).sin().sum()
        for _ in range(3):
            (g,) = torch.autograd.grad(g.sum(), x, create_graph=True)
            found.append(g.detach())
        return found

    for ours, exact in zip(chain(backend.impl), chain("reference")):
        torch.testing.assert_close(ours, exact, rtol=1e-11, atol=1e-11 * exact.abs().max().item())


TRANSFORMS = {
    "hessian": torch.func.hessian,
    "jacrev-jacfwd": lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
    "grad-of-grad": lambda f: torch.func.grad(lambda x: torch.func.grad(f)(x).square().sum()),
    "jvp-of-grad": lambda f: lambda x: torch.func.jvp(torch.func.grad(f), (x,), (x.cos(),))[1],
    "vmap-grad": lambda f: (
        lambda x: torch.func.vmap(torch.func.grad(f), in_dims=2)(torch.stack((x, 2 * x, -x), 2))
    ),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_torch_func(backend, transform):
    x, f = randn(1, 2, 3, 2, device=backend.device), FILTERS["three"].to(backend.device)

    def result(impl):
        return TRANSFORMS[transform](lambda x: ops.upsample2d(x**2, f, impl=impl).cos().sum())(x)

    expected = result("reference")
    assert expected.abs().max() > 0
    torch.testing.assert_close(result(backend.impl), expected, rtol=1e-11, atol=1e-11)


def test_what_has_no_derivative_is_refused(backend):
    x, f = randn(1, 1, 3, 3, device=backend.device), torch.ones(3, device=backend.device)
    apply = functools.partial(ops.filter2d, x, impl=backend.impl)
    with pytest.raises(ValueError, match="expected f as a constant, got a filter that requires"):
        apply(f.clone().requires_grad_())
    for transform in (torch.func.grad, torch.func.jacfwd):
        with pytest.raises(ValueError, match="expected f as a constant"):
            transform(lambda f: apply(f).sum())(f)
    with pytest.raises(ValueError, match=r"expected one filter for all of torch\.func\.vmap"):
        torch.func.vmap(apply)(f.expand(2, 3))
    with pytest.raises(RuntimeError, match="forward mode inside forward mode"):
        torch.func.jacfwd(torch.func.jacfwd(lambda x: ops.filter2d(x, f, impl=backend.impl)))(x)


def test_the_reference_differentiates_the_filter():
    x, f = randn(1, 2, 5, 4), randn(3).requires_grad_()
    assert gradcheck(lambda f: ops.upsample2d(x, f, impl="reference"), f)
    assert gradcheck(lambda f: ops.downsample2d(x, f, impl="reference"), f[:, None] * f)
