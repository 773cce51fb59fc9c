"""bias_act under autograd and torch.func: right to order 2 in every mode, refused beyond."""

from __future__ import annotations

import functools

import pytest
import torch
from compare import assert_near
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from ganops import ops
from ganops.ops.bias_act import ACTIVATIONS

SMOOTH = ("tanh", "sigmoid", "elu", "selu", "softplus", "swish")
PIECEWISE_LINEAR = ("linear", "relu", "lrelu")


def double(*shape, device="cpu", seed=7):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(device)


def check_both_orders(backend, f, inputs):
    """Forward, reverse, and forward over reverse; in random directions where evaluations are slow
    (the interpreter), else entry by entry."""
    fast = backend == ("triton", "cpu")
    assert gradcheck(f, inputs, check_forward_ad=True, check_batched_grad=True, fast_mode=fast)
    assert gradgradcheck(f, inputs, check_fwd_over_rev=True, fast_mode=fast)


@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_gradcheck_and_gradgradcheck(backend, act, clamp):
    x = double(2, 3, device=backend.device).requires_grad_()
    b = double(3, device=backend.device, seed=8).requires_grad_()
    f = functools.partial(ops.bias_act, act=act, clamp=clamp, gain=1.3, impl=backend.impl)
    check_both_orders(backend, f, (x, b))
    if clamp is None:
        check_both_orders(backend, f, (x,))


@pytest.mark.parametrize("gain", [-0.7, 0.0])
@pytest.mark.parametrize("alpha", [-0.5, 0.1])
def test_gradcheck_where_y_does_not_tell_the_slope(backend, alpha, gain):
    x = double(2, 3, device=backend.device).requires_grad_()
    b = double(3, device=backend.device, seed=8).requires_grad_()
    f = functools.partial(
        ops.bias_act, act="lrelu", alpha=alpha, gain=gain, clamp=0.8, impl=backend.impl
    )
    check_both_orders(backend, f, (x, b))


def test_reference_is_right_to_order_four():
    x = double(2, 3).requires_grad_()
    b = double(3, seed=8).requires_grad_()

    def second(x, b):
        y = ops.bias_act(x, b, act="swish", clamp=0.8, impl="reference")
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), (x, b), create_graph=True)

    assert gradcheck(second, (x, b))
    assert gradgradcheck(second, (x, b), atol=1e-4)


TRANSFORMS = {
    "grad": torch.func.grad,
    "hessian": torch.func.hessian,
    "jacrev-jacrev": lambda f: torch.func.jacrev(torch.func.jacrev(f)),
    "jacrev-jacfwd": lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
    "grad-of-jvp": lambda f: torch.func.grad(
        lambda x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1]
    ),
    "grad-of-grad": lambda f: torch.func.grad(lambda x: torch.func.grad(f)(x).square().sum()),
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (x.cos(),))[1],
    "jvp-of-grad": lambda f: lambda x: torch.func.jvp(torch.func.grad(f), (x,), (x.cos(),))[1],
    "vmap-grad": lambda f: (
        lambda x: torch.func.vmap(torch.func.grad(f))(torch.stack((x, 2 * x, -x)))
    ),
}


@pytest.mark.parametrize("act", ["linear", "lrelu", "swish"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_torch_func(backend, transform, act):
    x, b = double(2, 3, device=backend.device), double(3, device=backend.device, seed=8)

    def with_impl(impl, wrt):
        def of_x(x):
            y = ops.bias_act(x, b, act=act, clamp=1.2, impl=impl)
            return (y * y.detach().cos() + y**2).sum()

        def of_b(b):
            return ops.bias_act(x, b, act=act, clamp=1.2, impl=impl).square().sum()

        return TRANSFORMS[transform](of_x if wrt is x else of_b)(wrt)

    for wrt in (x, b):
        expected = with_impl("reference", wrt)
        assert expected.abs().max() > 0
        assert_near(with_impl(backend.impl, wrt), expected, 20)


@pytest.mark.parametrize("act", SMOOTH)
def test_third_order_is_refused(backend, act):
    x = double(2, 3, device=backend.device).requires_grad_()
    g = ops.bias_act(x, act=act, impl=backend.impl)
    for _ in range(2):
        (g,) = torch.autograd.grad(g.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"bias_act: .*up to order 2, and order 3.*reference"):
        torch.autograd.grad(g.sum(), x)


def test_third_order_is_refused_by_torch_func(backend):
    f = lambda x: ops.bias_act(x, act="tanh", impl=backend.impl).sum()  # noqa: E731
    x = double(3, device=backend.device)
    for third in (
        lambda: torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(f)))(x),
        lambda: torch.func.jacfwd(torch.func.jacrev(torch.func.jacrev(f)))(x),
    ):
        with pytest.raises(RuntimeError, match="order 3"):
            third()


def test_forward_over_forward_is_refused(backend):
    """It would be silently wrong: PyTorch drops outer tangents inside a jvp."""
    x, b = double(2, 3, device=backend.device), double(3, device=backend.device)
    f = lambda b: ops.bias_act(x, b.sin(), act="lrelu", impl=backend.impl).sum()  # noqa: E731
    for g in (f, lambda b: torch.func.grad(f)(b).sum()):
        with pytest.raises(RuntimeError, match=r"forward mode inside forward mode.*hessian"):
            torch.func.jacfwd(torch.func.jacfwd(g))(b)


@pytest.mark.parametrize("act", PIECEWISE_LINEAR)
def test_piecewise_linear_functions_have_every_order(backend, act):
    """They have no curvature of their own: (f(t^3))''' = 6 f' needs only f'."""
    t = double(5, device=backend.device).requires_grad_()
    g = ops.bias_act(t**3, act=act, gain=1.0, impl=backend.impl)
    for _ in range(3):
        (g,) = torch.autograd.grad(g.sum(), t, create_graph=True)
    slope = {"linear": 1.0, "relu": 0.0, "lrelu": 0.2}[act]
    assert_near(g.detach(), 6 * slope + (6 - 6 * slope) * (t > 0).double(), 4)


class Upstream(torch.autograd.Function):
    """The identity; counts how often a gradient, zeros included, is sent through it."""

    calls = 0

    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        Upstream.calls += grad is not None
        return grad


def penalty_of(x, f):
    """Calls through the primal network while d(penalty)/dx is taken, and that derivative."""
    y = f(Upstream.apply(x))
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    w = torch.ones((), dtype=x.dtype, device=x.device, requires_grad=True)
    before = Upstream.calls
    (d_x, _) = torch.autograd.grad((w * g).square().sum(), (x, w), allow_unused=True)
    return Upstream.calls - before, d_x


@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize("gain", [1.3, -1.3])
@pytest.mark.parametrize("act", PIECEWISE_LINEAR)
def test_double_backward_sends_nothing_through_the_primal(backend, act, gain, clamp):
    x = double(4, 3, device=backend.device).requires_grad_()
    f = functools.partial(ops.bias_act, act=act, gain=gain, clamp=clamp, impl=backend.impl)
    calls, d_x = penalty_of(x, f)
    assert calls == 0
    assert d_x is None


def test_the_count_sees_what_stock_pytorch_sends():
    x = double(4, 3).requires_grad_()
    calls, d_x = penalty_of(x, torch.nn.functional.leaky_relu)
    assert calls == 1
    assert not d_x.any()
    calls, d_x = penalty_of(x, functools.partial(ops.bias_act, act="swish"))
    assert calls == 1
    assert d_x.any()


class CountMatmuls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
        return func(*args, **(kwargs or {}))


def test_a_critic_s_double_backward_skips_the_primal_matrix_products(backend):
    x = double(4, 6, device=backend.device).requires_grad_()
    layers = [double(6, 6, device=backend.device, seed=i).requires_grad_() for i in range(3)]

    def matmuls(act):
        y = x
        for w in layers:
            y = act(y @ w)
        (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        with CountMatmuls() as counted:
            grads = torch.autograd.grad(g.square().sum(), layers)
        return counted.count, grads

    ours, grads = matmuls(functools.partial(ops.bias_act, act="relu", gain=1, impl=backend.impl))
    stock, expected = matmuls(torch.relu)
    for g, e in zip(grads, expected):
        assert_near(g, e, 20)
    # Each layer's product is differentiated twice either way: 2 products a layer, less the first
    # input's. Stock adds the primal backward: for the weights, and to reach the layer below.
    assert (ours, stock - ours) == (6, 5)


@pytest.mark.parametrize("act", ["linear", "lrelu", "tanh"])
def test_dual_numbers_reach_the_dispatcher_ops(backend, act):
    """Without requires_grad too: a missing rule there would give silent zeros."""
    x, t, v = (double(2, 3, device=backend.device, seed=i) for i in range(3))
    numbers = (1, list(ACTIVATIONS).index(act), 0.2, 1.3, 0.9)
    value = getattr(torch.ops.ganops, "bias_act" + backend.suffix)
    order1 = getattr(torch.ops.ganops, "bias_act_grad" + backend.suffix)
    plain = dict(act=act, gain=1.3, clamp=0.9)
    h = lambda x: ops.bias_act(x, **plain, impl="reference")  # noqa: E731
    gradient = lambda x: torch.func.vjp(h, x)[1](v)[0]  # noqa: E731
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, t)
        y = forward_ad.unpack_dual(value(dual, None, *numbers))
        g = forward_ad.unpack_dual(order1(v, dual, None, *numbers, False, False)[0])
        g_v = forward_ad.unpack_dual(
            order1(forward_ad.make_dual(v, t), x, None, *numbers, False, False)[0]
        )
    assert_near(y.tangent, torch.func.jvp(h, (x,), (t,))[1], 2)
    assert_near(g_v.tangent, torch.func.vjp(h, x)[1](t)[0], 2)
    curved = torch.func.jvp(gradient, (x,), (t,))[1]
    if g.tangent is None:  # no tangent is the same as a zero one
        assert not curved.any()
    else:
        assert_near(g.tangent, curved, 4)
    assert act != "tanh" or g.tangent is not None


@pytest.mark.parametrize("from_output", [False, True])
def test_gradients_of_the_dispatcher_ops(backend, from_output):
    x, dy = (double(2, 3, device=backend.device, seed=i).requires_grad_() for i in range(2))
    b = double(3, device=backend.device, seed=3).requires_grad_()
    numbers = (1, list(ACTIVATIONS).index("sigmoid"), 0.0, 1.3, 0.9)
    value = getattr(torch.ops.ganops, "bias_act" + backend.suffix)
    order1 = getattr(torch.ops.ganops, "bias_act_grad" + backend.suffix)
    order2 = getattr(torch.ops.ganops, "bias_act_grad2" + backend.suffix)
    assert gradcheck(lambda x, b: value(x, b, *numbers), (x, b), check_forward_ad=True)
    assert gradgradcheck(lambda x, b: value(x, b, *numbers), (x, b))
    ref = (0.1 + 0.3 * x.detach().sigmoid()).requires_grad_() if from_output else x
    # Where the slope is read off y, b serves the sum alone.
    given = (dy, ref) if from_output else (dy, ref, b)
    both = lambda dy, ref, b=b: order1(dy, ref, b, *numbers, from_output, True)  # noqa: E731
    assert gradcheck(both, given, check_forward_ad=True)
    with pytest.raises(RuntimeError, match="order 3"):
        order2(dy, dy, ref, b, *numbers, from_output).sum().backward()
