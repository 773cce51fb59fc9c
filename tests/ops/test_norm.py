"""Norms: torch's values and first derivatives, and the reference's second, in every layout."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from backends import Backend
from compare import three_orders
from norms import LAYOUTS, NORMS, SMALL
from torch.utils._python_dispatch import TorchDispatchMode

import ganops
from ganops import ops

aten = torch.ops.aten
PUBLIC = ("batch_norm", "group_norm", "instance_norm", "layer_norm", "pixel_norm", "rms_norm")


def orders(case, call, affine, tensors):
    x, w, b, dy, v, v_w, v_b = tensors
    inputs = [t for t in (x, w, b) if t is not None]

    def f(x, w=None, b=None):
        return call(x, w, b)

    return three_orders(f, inputs, dy, [t for t in (v, v_w, v_b) if t is not None])


def assert_orders(got, expected, limit):
    """Within `limit` of the largest number of each result."""
    assert got.keys() == expected.keys()
    for name, e in expected.items():
        error = (got[name].double() - e.double()).abs().max()
        assert error <= limit * max(1.0, e.abs().max().item()), f"{name}: {error}"


def laid_out(name, layout):
    """Layouts that say something new about this case."""
    return layout == "contiguous" or len(NORMS[name].shape) > 2


# Rows with a period, segments, batch, columns by one and by several; several programs of each.
INTERPRETED = ("layer-3d", "layer-long", "group-3d", "group-wide", "instance-3d", "batch-2d",
               "batch-3d", "batch-wide", "rms", "pixel-wide")  # fmt: skip
GRID = [(name, layout) for name in NORMS for layout in LAYOUTS if laid_out(name, layout)]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("name", "layout"), GRID)
def test_three_orders_are_the_references(backend, name, layout, affine):
    case = NORMS[name]
    if backend == ("triton", "cpu") and not (affine and layout == "contiguous"
                                             and name in INTERPRETED):  # fmt: skip
        pytest.skip("each kind and layout once, where a test takes a second")
    tensors = case.tensors(affine, layout=layout, device=backend.device)
    got = orders(case, lambda *a: case.ours(*a, impl=backend.impl), affine, tensors)
    expected = orders(case, lambda *a: case.ours(*a, impl="reference"), affine, tensors)
    assert_orders(got, expected, 1e-10 if name == "layer-of-one" else 1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NORMS)
def test_narrow_types_are_near_float64(backend, name, dtype):
    """Halves round what is between the orders (y, dx), each once."""
    case = NORMS[name]
    if backend == ("triton", "cpu") and (name not in ("layer", "batch-2d") or dtype.itemsize == 4):
        pytest.skip("each kind and layout once, where a test takes a second")
    tensors = case.tensors(True, dtype=dtype, device=backend.device)
    wide = [None if t is None else t.double() for t in tensors]
    got = orders(case, lambda *a: case.ours(*a, impl=backend.impl), True, tensors)
    expected = orders(case, lambda *a: case.ours(*a, impl="reference"), True, wide)
    assert all(got[k].dtype == dtype for k in got)
    assert_orders(got, expected, {torch.float32: 2e-5}.get(dtype, 6 * torch.finfo(dtype).eps))


def test_halves_with_parameters_in_float32():
    """As in mixed precision; the second order is computed in float32 and rounded once."""
    for name in ("layer-3d", "group-3d", "instance-3d", "batch-3d", "batch-fixed"):
        case = NORMS[name]
        x, w, b, dy, v, v_w, v_b = case.tensors(dtype=torch.float32)
        x, dy, v = x.bfloat16(), dy.bfloat16(), v.bfloat16()
        got = orders(case, case.ours, True, (x, w, b, dy, v, v_w, v_b))
        wide = [t.double() for t in (x, w, b, dy, v, v_w, v_b)]
        expected = orders(case, lambda *a, c=case: c.ours(*a, impl="reference"), True, wide)
        assert (got["y"].dtype, got["d1"].dtype) == (torch.bfloat16, torch.float32)
        assert_orders(got, expected, 2**-6)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "layout"), GRID)
def test_values_and_first_derivatives_are_torchs(name, layout, dtype, affine):
    case = NORMS[name]
    x, w, b, dy, *_ = case.tensors(affine, dtype, layout)
    if name.startswith("instance"):  # stock's gradient is wrong for a channels-last batch of one
        dy = dy.contiguous()
    found = []
    for call in (case.ours, case.stock):
        leaves = [None if t is None else t.detach().requires_grad_() for t in (x, w, b)]
        y = call(*leaves)
        grads = torch.autograd.grad(y, [t for t in leaves if t is not None], dy)
        found.append([y.detach(), *grads])
    exact = not name.startswith(("rms", "pixel")) and name != "batch-fixed"
    for i, (a, e) in enumerate(zip(*found, strict=True)):
        assert a.dtype == e.dtype
        if exact:
            torch.testing.assert_close(a, e, rtol=0, atol=0)
        else:
            scale = max(1.0, e.abs().max().item())
            assert (a - e).abs().max() <= 100 * torch.finfo(dtype).eps * scale
        if exact and i == 0:
            assert a.stride() == e.stride()


@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize("momentum", [0.1, 1.0])
@pytest.mark.parametrize("norm", ["batch_norm", "instance_norm"])
def test_running_statistics_move_once_as_torchs(norm, momentum, impl):
    x = torch.randn(4, 3, 5, 2, dtype=torch.float64, requires_grad=True)
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    found = []
    for call in (getattr(F, norm), lambda *a: getattr(ops, norm)(*a, impl=impl)):
        mean = torch.arange(3, dtype=torch.float64)
        var = torch.ones(3, dtype=torch.float64)
        y = call(x, mean, var, w, None, True, momentum, 1e-5)
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        g.square().sum().backward()
        found.append((mean, var))
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
        assert ours.abs().max() > 0
    fixed = [call(x, *found[0], w, None, False, 0.1, 1e-5).detach()
             for call in (getattr(F, norm), getattr(ops, norm))]  # fmt: skip
    torch.testing.assert_close(*fixed)


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names, self.masks = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func.overloadpacket).split(".")[-1])
        if "_norm_backward" in self.names[-1]:
            self.masks.append(list(args[-1]))
        return func(*args, **(kwargs or {}))

    def of(self, *parts):
        return [n for n in self.names if any(p in n for p in parts)]


@pytest.mark.parametrize("name", ["layer-3d", "group-3d", "group-wide", "instance-4d", "batch-4d"])
def test_one_kernel_for_each_order(name):
    """Stock runs 31 for group norm's first backward, and 60 to 89 for each second."""
    case = NORMS[name]
    x, w, b, dy, v, *_ = case.tensors()
    x.requires_grad_(), w.requires_grad_(), dy.requires_grad_()
    with Calls() as forward:
        y = case.ours(x, w, b)
    with Calls() as first:
        (g,) = torch.autograd.grad(y, x, dy, create_graph=True)
    with Calls() as second:
        torch.autograd.grad(g, (x, w, dy), v)
    assert len(forward.of("native_")) == 1
    assert len(first.of("native_")) == 1
    assert len(second.of("norm_grad2")) == 1
    views = ("view", "detach", "alias", "reshape", "clone", "empty", "permute", "expand")
    arithmetic = [n for n in second.names if not any(v in n for v in (*views, "norm_grad2"))]
    assert len(arithmetic) <= 3, arithmetic  # expanding short weights, and its adjoint


def test_a_penalty_computes_no_weight_gradient_on_the_way():
    norm = torch.nn.GroupNorm(2, 4).double()
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    with Calls() as calls:
        penalty = ops.r1_penalty(lambda t: norm(t).square().sum((1, 2, 3)), x)
    assert calls.masks == [[True, False, False]]
    penalty.backward()
    assert norm.weight.grad.abs().max() > 0


def test_a_penalty_runs_the_twins_of_every_spelling():
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    w = torch.linspace(1, 2, 4, dtype=torch.float64).requires_grad_()
    m, s = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    spellings = [
        lambda t: F.layer_norm(t, (5,)), lambda t: torch.layer_norm(t, (5,), None, None, 1e-5),
        lambda t: F.group_norm(t, 2, w), lambda t: torch.group_norm(t, 2, w),
        lambda t: F.instance_norm(t, weight=w),
        lambda t: F.batch_norm(t, None, None, w, None, True),
        lambda t: torch.instance_norm(t, w, None, None, None, True, 0.1, 1e-5, True),
        lambda t: torch.batch_norm(t, w, None, m, s, True, 0.1, 1e-5, True),
        lambda t: torch.batch_norm(t, w, None, m, s, training=True, momentum=0.1, eps=1e-5,
                                   cudnn_enabled=True),
        lambda t: F.rms_norm(t, (5,)), lambda t: torch.rms_norm(t, (5,)),
    ]  # fmt: skip
    for i, spelling in enumerate(spellings):
        seen = []

        def critic(t, f=spelling, seen=seen):
            y = f(t)
            seen.append(type(y.grad_fn).__name__)
            return y.tanh().pow(3).sum((1, 2))

        ours = ops.r1_penalty(critic, x)
        theirs = ops.r1_penalty(critic, x, engine="autograd")
        assert seen[0] in ("NormBackward", "ViewBackward0"), (i, seen)
        assert seen[1] not in ("NormBackward",)
        torch.testing.assert_close(ours, theirs)


def test_the_largest_and_smallest_calls():
    """n = 1 rows, empty batches, and refusals worded by torch."""
    assert ops.layer_norm(torch.ones(0, 3), (3,)).shape == (0, 3)
    assert ops.batch_norm(torch.ones(0, 3), torch.zeros(3), torch.ones(3)).shape == (0, 3)
    assert ops.pixel_norm(torch.ones(0, 3)).shape == (0, 3)
    for call in (lambda: ops.batch_norm(torch.ones(1, 3), None, None, training=True),
                 lambda: ops.instance_norm(torch.ones(2, 3, 1)),
                 lambda: ops.group_norm(torch.ones(1, 3), 3)):  # fmt: skip
        with pytest.raises(ValueError, match="Expected more than 1"):
            call()


def test_bad_calls():
    x = torch.ones(2, 4, 3)
    with pytest.raises(RuntimeError, match="normalized_shape"):
        ops.layer_norm(x, (4,))
    with pytest.raises((RuntimeError, ValueError), match="divisible"):
        ops.group_norm(x, 3)
    with pytest.raises(RuntimeError, match="weight"):
        ops.batch_norm(x, None, None, torch.ones(3), training=True)
    with pytest.raises(RuntimeError, match="running_mean"):
        ops.batch_norm(x, None, None)
    with pytest.raises(TypeError, match=r"pixel_norm: expected x as a float tensor, got torch.int"):
        ops.pixel_norm(torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"pixel_norm: expected x as \(B, C, ...\), got \(3,\)"):
        ops.pixel_norm(torch.ones(3))
    with pytest.raises(ValueError, match="norm: impl: expected one of auto"):
        ops.layer_norm(x, (3,), impl="fast")


@pytest.mark.parametrize("name", [n for n in SMALL if n != "batch-fixed"])
def test_cpu_autocast_is_torchs(name):
    case = SMALL[name]
    for dtype in (torch.float32, torch.bfloat16):
        x, w, b, *_ = case.tensors(dtype=dtype)
        with torch.autocast("cpu"):
            ours, theirs = case.ours(x, w, b), case.stock(x, w, b)
        assert ours.dtype == (dtype if name.startswith("pixel") else theirs.dtype)
        torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=2e-2, atol=2e-2)


def test_an_implementation_that_cannot_serve_is_refused():
    if Backend("triton", "cpu").why_not() is None:
        pytest.skip("the interpreter serves")
    with pytest.raises(RuntimeError, match="norm: impl='triton' cannot serve cpu"):
        ops.layer_norm(torch.ones(2, 3), (3,), impl="triton")
    with ganops.use_impl("reference"):
        y = ops.layer_norm(torch.randn(2, 3, requires_grad=True), (3,))
    assert "Norm" not in type(y.grad_fn).__name__


def test_a_batch_of_one_with_mixed_memory_orders():
    """Where stock's own first derivative is wrong (torch 2.13, CPU)."""
    x, dy = torch.randn(2, 1, 3, 3, 2, dtype=torch.float64)
    other = dy.movedim(1, -1).contiguous().movedim(-1, 1).reshape(1, 3, 3, 2)
    assert other.stride() == (3, 1, 6, 3)
    for name in ("instance_norm", "batch_norm"):
        how = {} if name == "instance_norm" else {"training": True}
        call = functools.partial(getattr(ops, name), running_mean=None, running_var=None, **how)
        x.requires_grad_()
        ours, expected = (torch.autograd.grad(call(x, **how), x, other)[0]
                          for how in ({}, {"impl": "reference"}))  # fmt: skip
        torch.testing.assert_close(ours, expected)


def test_every_public_norm_is_here():
    assert set(PUBLIC) == set(ganops.ops.norm.__all__)
