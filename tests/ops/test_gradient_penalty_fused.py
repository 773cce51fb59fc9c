"""penalty_and_gradient: the same numbers as the penalty and its autograd, and no derivative."""

from __future__ import annotations

import pytest
import torch
from backends import Backend
from compare import DTYPES, TOLERANCES, assert_near, assert_same_bits
from torch.autograd import forward_ad

from ganops import ops


def rows(*shape, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(device, dtype)


def by_autograd(g, scale, impl, **setting):
    leaf = g.detach().requires_grad_()
    value = ops.penalty_from_gradient(leaf, impl=impl, **setting)
    (gradient,) = torch.autograd.grad(scale * value, leaf)
    return value.detach(), gradient


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("center", [0.0, 0.1, 1.0, 20.0])
def test_equals_the_reference_and_the_ops_own_autograd(any_backend, center, one_sided, dtype):
    g = rows(5, 3, 11, 5, dtype=dtype, device=any_backend.device)
    g[1] = 0
    g[2] *= 0.05
    setting = {"center": center, "one_sided": one_sided}
    got = ops.penalty_and_gradient(g, scale=10.0, impl=any_backend.impl, **setting)
    for impl in ("reference", any_backend.impl):
        value, gradient = by_autograd(g, 10.0, impl, **setting)
        assert_near(got[0] / (1 + value), value / (1 + value), 20)
        assert_near(got[1], gradient, 20 if dtype not in (torch.bfloat16, torch.float16) else 2)
    assert (got[1][1] == 0).all()
    assert not any(t.requires_grad for t in got)


@pytest.mark.parametrize("shape", [(1,), (7,), (1, 1), (3, 0), (2, 8191), (2, 8193), (129, 1)])
def test_shapes(backend, shape):
    g = rows(*shape, device=backend.device)
    value, gradient = ops.penalty_and_gradient(g, scale=0.5, impl=backend.impl)
    expected = by_autograd(g, 0.5, "reference")
    assert_near(value, expected[0], 20)
    assert_near(gradient, expected[1], 20)


@pytest.mark.parametrize(
    "layout",
    [
        lambda g: g.contiguous(memory_format=torch.channels_last),
        lambda g: g.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        lambda g: torch.cat((g, g), 3)[..., : g.shape[3]],
        lambda g: g[:1].expand(g.shape),
        lambda g: torch.cat((g.flatten()[:1], g.flatten()))[1:].view(g.shape),
    ],
    ids=["channels-last", "samples-inside", "sliced", "expanded", "shifted"],
)
def test_layouts(backend, layout):
    g = layout(rows(4, 3, 5, 7, device=backend.device))
    value, gradient = ops.penalty_and_gradient(g, impl=backend.impl)
    expected = by_autograd(g, 1.0, "reference")
    assert_near(value, expected[0], 20)
    assert_near(gradient, expected[1], 20)


@pytest.mark.parametrize("shape", [(3, 700_001), (300_007, 7)], ids=str)
def test_results_larger_than_the_cache(backend, shape):
    if backend == ("triton", "cpu"):
        pytest.skip("the interpreter would take minutes, and has no streaming stores")
    g = rows(*shape, dtype=torch.float32, device=backend.device)
    value, gradient = ops.penalty_and_gradient(g, center=1.5, impl=backend.impl)
    wanted = by_autograd(g.double(), 1.0, "reference", center=1.5)
    bound = 20 * TOLERANCES[torch.float32][0]
    assert abs(value.item() - wanted[0].item()) <= bound * wanted[0].item()
    assert (gradient.double() - wanted[1]).abs().max() <= bound * wanted[1].abs().max()


def test_threads_do_not_change_a_bit():
    pair = Backend("native", "cpu")
    if pair.why_not() is not None:
        pytest.skip(pair.why_not())
    g = rows(37, 20_011, dtype=torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append(ops.penalty_and_gradient(g, impl="native"))
    finally:
        torch.set_num_threads(before)
    for value, gradient in found[1:]:
        assert_same_bits(value, found[0][0])
        assert_same_bits(gradient, found[0][1])


def test_a_gradient_through_it_is_refused_not_lost(any_backend):
    impl = any_backend.impl
    g = rows(3, 4, device=any_backend.device)
    leaf = g.clone().requires_grad_()
    with pytest.raises(ValueError, match="has no derivative, and grad requires one"):
        ops.penalty_and_gradient(leaf, impl=impl)
    with torch.no_grad():
        assert not ops.penalty_and_gradient(leaf, impl=impl)[1].requires_grad
    with pytest.raises(ValueError, match="has no derivative"):
        torch.func.grad(lambda g: ops.penalty_and_gradient(g, impl=impl)[0])(g)


def test_nor_is_a_tangent(backend):
    g = rows(3, 4, device=backend.device)
    op = getattr(torch.ops.ganops, "gradient_penalty_fused" + backend.suffix)
    refused = r"gradient_penalty_fused: .*order 1 was asked for"
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(g, g)
        for call in (
            lambda: ops.penalty_and_gradient(dual, impl=backend.impl),
            lambda: op(dual, 1.0, False, 1.0),
        ):
            with pytest.raises(RuntimeError, match=refused):
                call()
    with pytest.raises(RuntimeError, match=refused):
        op(g.clone().requires_grad_(), 1.0, False, 1.0)[0].backward()


@pytest.mark.parametrize(
    ("grad", "kwargs", "error", "message"),
    [
        (torch.ones(2, 3).int(), {}, TypeError, "expected grad as a float tensor, got torch.int"),
        (torch.ones(()), {}, ValueError, r"expected grad of shape \(B, ...\) with B >= 1"),
        (torch.ones(0, 3), {}, ValueError, r"expected grad of shape \(B, ...\) with B >= 1"),
        (torch.ones(2, 3), {"center": -0.5}, ValueError, "expected a finite center >= 0, got -0.5"),
        (torch.ones(2, 3), {"impl": "gpu"}, ValueError, "expected one of auto, reference"),
    ],
)
def test_bad_arguments(grad, kwargs, error, message):
    with pytest.raises(error, match=f"(penalty_and_gradient|gradient_penalty): .*{message}"):
        ops.penalty_and_gradient(grad, **kwargs)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number_is_refused(scale):
    with pytest.raises(ValueError, match="expected a finite scale"):
        ops.penalty_and_gradient(torch.ones(2, 3), scale=scale)
