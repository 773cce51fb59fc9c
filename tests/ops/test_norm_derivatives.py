"""Norms: derivatives by differences, refusals, forward mode, torch.func, compile, threads."""

from __future__ import annotations

import functools

import pytest
import torch
from norms import LARGE, SMALL
from test_threads import assert_independent_of_threads
from torch.autograd import gradcheck, gradgradcheck

from ganops import ops

TRAINED = [n for n in SMALL if n != "batch-fixed"]


def leaves(case, affine=True, layout="contiguous"):
    x, w, b, *_ = case.tensors(affine, layout=layout)
    return [t.detach().requires_grad_() for t in (x, w, b) if t is not None]


def of(case, impl="auto"):
    def f(x, w=None, b=None):
        return case.ours(x, w, b, impl=impl)

    return f


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_gradcheck_of_orders_1_and_2(name, affine, layout):
    case = SMALL[name]
    if name == "layer-of-one" and not affine:
        pytest.skip("its output is zero, and so are all derivatives")
    inputs = leaves(case, affine, layout)
    torch.manual_seed(1)
    assert gradcheck(of(case), inputs, fast_mode=False)
    assert gradgradcheck(of(case), inputs, fast_mode=True)


@pytest.mark.parametrize("name", ["layer", "group-2d", "instance-3d", "batch-2d", "pixel-2d"])
def test_gradgradcheck_entry_by_entry(name):
    assert gradgradcheck(of(SMALL[name]), leaves(SMALL[name]))


def first_derivative(f, x, dy):
    return torch.autograd.grad(f(x), x, dy, create_graph=True)[0]


@pytest.mark.parametrize("name", TRAINED)
def test_order_3_is_refused_and_the_reference_has_it(name):
    case = SMALL[name]
    x, _, _, dy, v, *_ = case.tensors(False)
    x.requires_grad_()
    (second,) = torch.autograd.grad(first_derivative(of(case), x, dy), x, v, create_graph=True)
    with pytest.raises(RuntimeError, match=r"norm: .*up to order 2, and order 3 .*reference"):
        torch.autograd.grad(second.square().sum(), x)
    slope = functools.partial(first_derivative, of(case, "reference"), dy=dy)
    if name != "layer-of-one":
        assert gradgradcheck(slope, (x,), fast_mode=True)


def test_stock_has_wrong_third_derivatives():
    """Why the reference is not built on torch's norms; fails when torch is repaired."""
    x, _, _, dy, *_ = SMALL["layer"].tensors(False)
    f = functools.partial(first_derivative, lambda t: SMALL["layer"].stock(t, None, None), dy=dy)
    assert not gradgradcheck(f, (x.requires_grad_(),), raise_exception=False)


def test_a_fixed_batch_norm_has_every_order_and_sends_nothing_useless():
    case = SMALL["batch-fixed"]
    x, w, b = leaves(case)
    slope = functools.partial(first_derivative, lambda t: of(case)(t, w, b).tanh(),
                              dy=torch.ones_like(x))  # fmt: skip
    assert gradgradcheck(slope, (x,), fast_mode=True)
    (g,) = torch.autograd.grad(of(case)(x, w, b).sum(), x, create_graph=True)
    assert torch.autograd.grad(g.square().sum(), (x, w), allow_unused=True)[0] is None


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_forward_mode_is_the_references(name, affine):
    case = SMALL[name]
    x, w, b, dy, *tangents = case.tensors(affine)
    inputs = tuple(t for t in (x, w, b) if t is not None)
    tangents = tuple(t for t in tangents if t is not None)
    found = [torch.func.jvp(of(case, impl), inputs, tangents)[1] for impl in ("auto", "reference")]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)

    def all_gradients(impl, *inputs):
        return torch.func.vjp(of(case, impl), *inputs)[1](dy)

    found = [torch.func.jvp(functools.partial(all_gradients, impl), inputs, tangents)[1]
             for impl in ("auto", "reference")]  # fmt: skip
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", TRAINED)
def test_torch_func_and_vmap(name):
    case = SMALL[name]
    x, w, b, dy, *_ = case.tensors()

    def loss(impl, x):
        return (of(case, impl)(x, w, b) * dy).tanh().sum()

    def penalty(impl, x):
        return torch.func.grad(functools.partial(loss, impl))(x).square().sum()

    xs = torch.stack([x, x.flip(0) - 1.0, 2 * x])
    for f in (loss, penalty):
        ours, theirs = (functools.partial(f, impl) for impl in ("auto", "reference"))
        expected = torch.func.grad(theirs)(x)
        torch.testing.assert_close(torch.func.grad(ours)(x), expected, rtol=1e-8, atol=1e-10)
        one_by_one = torch.stack([torch.func.grad(theirs)(t) for t in xs])
        mapped = torch.func.vmap(torch.func.grad(ours))(xs)
        torch.testing.assert_close(mapped, one_by_one, rtol=1e-8, atol=1e-10)


def test_hessians():
    case = SMALL["layer"]
    x, w, b, dy, *_ = case.tensors()
    found = [torch.func.hessian(lambda t, i=impl: (of(case, i)(t, w, b) * dy).sum())(x)
             for impl in ("auto", "reference")]  # fmt: skip
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-10)
    with pytest.raises(RuntimeError, match="norm: forward mode inside forward mode"):
        torch.func.jacfwd(torch.func.jacfwd(lambda t: of(case)(t, w, b).sum()))(x)


@pytest.mark.parametrize("name", ["layer", "group-4d", "instance-4d", "batch-4d", "rms"])
def test_compiling_hands_over_to_torch(name):
    torch.compiler.reset()
    case = SMALL[name]
    x, w, b, dy, *_ = case.tensors()

    def slope(x):
        return torch.func.grad(lambda t: (case.ours(t, w, b) * dy).sum())(x)

    x.requires_grad_()
    once = torch.compile(slope, fullgraph=True, backend="aot_eager")
    found = [torch.autograd.grad(f(x).square().sum(), x)[0] for f in (once, slope)]
    torch.testing.assert_close(*found)


def test_subclasses_are_torchs():
    class Mine(torch.Tensor):
        pass

    x = torch.randn(3, 4, 5).as_subclass(Mine)
    for y in (ops.layer_norm(x, (5,)), ops.group_norm(x, 2), ops.instance_norm(x),
              ops.batch_norm(x, None, None, training=True), ops.rms_norm(x, (5,))):  # fmt: skip
        assert type(y) is Mine
    assert type(ops.pixel_norm(x)) is Mine


def test_only_some_cotangents():
    """Second derivatives through dw or db alone."""
    case = SMALL["group-3d"]
    found = []
    for impl in ("auto", "reference"):
        x, w, b = leaves(case)
        dw, db = torch.autograd.grad(of(case, impl)(x, w, b).tanh().sum(), (w, b),
                                     create_graph=True)  # fmt: skip
        found.append([torch.autograd.grad(g.square().sum(), x, retain_graph=True)[0]
                      for g in (dw, db)])  # fmt: skip
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LARGE)
def test_second_order_does_not_depend_on_threads(name, dtype):
    case = LARGE[name]
    x, w, b, dy, v, *_ = case.tensors(dtype=dtype)

    # Torch's own sums (the statistics, a batch norm's dx) do depend on them: taken once.
    inputs = [t.detach().requires_grad_() for t in (x, w, dy) if t is not None]
    y = case.ours(inputs[0], inputs[1] if w is not None else None, b)
    (g,) = torch.autograd.grad(y, inputs[0], inputs[-1], create_graph=True)
    assert_independent_of_threads(lambda: torch.autograd.grad(g, inputs, v, retain_graph=True))
