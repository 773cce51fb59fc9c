"""Results do not depend on how many threads compute them: the same bits from one and from two."""

from __future__ import annotations

import pytest
import torch
from backends import Backend
from compare import assert_same_bits

from ganops import ops


@pytest.fixture(params=[pytest.param(Backend("native", "cpu"), id="native-cpu")])
def native(request):
    reason = request.param.why_not()
    if reason is not None:
        pytest.skip(reason)
    return "native"


def with_threads(n, f):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        return f()
    finally:
        torch.set_num_threads(before)


def assert_independent_of_threads(f):
    one = with_threads(1, f)
    for n in (2, 3):
        for got, expected in zip(with_threads(n, f), one):
            assert_same_bits(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape", [(64, 16, 257), (20_011, 13), (3, 5, 70_001), (1, 1, 300_007), (4, 150_001)], ids=str
)
def test_bias_act_with_its_bias_gradient(native, shape, dtype):
    torch.manual_seed(0)
    x, dy, v = torch.randn(3, *shape).to(dtype)
    b = torch.randn(shape[1]).to(dtype)

    def orders():
        x_, b_, dy_ = (t.detach().requires_grad_() for t in (x, b, dy))
        y = ops.bias_act(x_, b_, act="swish", impl=native)
        first = torch.autograd.grad(y, (x_, b_), dy_, create_graph=True)
        # Not with respect to b: that sum is torch's own.
        return [y.detach(), *(g.detach() for g in first), torch.autograd.grad(first[0], x_, v)[0]]

    assert_independent_of_threads(orders)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(3, 200_003), (5000, 77), (1, 500_009)], ids=str)
def test_gradient_penalty(native, shape, dtype):
    torch.manual_seed(0)
    g, v = torch.randn(2, *shape).to(dtype)

    def orders():
        leaf = g.detach().requires_grad_()
        go = torch.ones((), requires_grad=True)
        value = ops.penalty_from_gradient(leaf, impl=native)
        (d,) = torch.autograd.grad(value, leaf, go, create_graph=True)
        return [value.detach(), d.detach(), *torch.autograd.grad(d, (leaf, go), v)]

    assert_independent_of_threads(orders)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("shape", [(4, 200_003), (5000, 77), (300_008, 1)], ids=str)
def test_consistency(native, shape, reduction, dtype):
    torch.manual_seed(0)
    x, v = torch.randn(2, *shape).to(dtype)

    def orders():
        leaf = x.detach().requires_grad_()
        value = ops.consistency_loss(leaf, reduction=reduction, impl=native)
        go = torch.ones_like(value).requires_grad_()
        (d,) = torch.autograd.grad(value, leaf, go, create_graph=True)
        return [value.detach(), d.detach(), *torch.autograd.grad(d, (leaf, go), v)]

    assert_independent_of_threads(orders)


@pytest.mark.parametrize("protocol", ["tf", "clean"])
def test_resize(native, protocol):
    x = torch.randint(0, 256, (3, 3, 40, 30), dtype=torch.uint8)
    run = lambda: [ops.resize_normalize(x, protocol=protocol, impl=native)]  # noqa: E731
    assert_independent_of_threads(run)


def test_philox(native):
    draw = lambda: [ops.random_normal((200_003,), seed=1, offset=3, impl=native)]  # noqa: E731
    assert_independent_of_threads(draw)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 301, 203), (7, 1, 99, 64)], ids=str)
def test_augment(native, shape, dtype):
    torch.manual_seed(0)
    x = torch.randint(0, 256, shape).to(dtype)
    policy = ops.AugmentPolicy(shift=0.3, subpixel=True, saturation=0.5, contrast=0.5, noise=0.1)

    def orders():
        leaf = x.detach().requires_grad_(dtype != torch.uint8)
        y = ops.consistency_pair(leaf, policy, seed=1, impl=native)
        back = torch.autograd.grad(y, leaf, y.detach()) if leaf.requires_grad else ()
        return [y.detach(), *back]

    assert_independent_of_threads(orders)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(1, 3, 201, 103), (2, 5, 130, 64), (4, 1, 49, 50)], ids=str)
def test_ada(native, shape, dtype):
    """Images in parallel, tiles one after the other."""
    torch.manual_seed(0)
    x = torch.randint(0, 256, shape).to(dtype)
    policy = "ada-bgc" if shape[1] < 4 else "ada-bg"

    def orders():
        results = []
        for p, seed in ((0.9, 1), (0.9, 2), (0.2, 5)):  # resampled by tiles of two sizes; blitted
            leaf = x.detach().requires_grad_(dtype != torch.uint8)
            y = ops.ada_augment(leaf, policy, p, seed=seed, impl=native)
            back = torch.autograd.grad(y, leaf, y.detach()) if leaf.requires_grad else ()
            results += [y.detach(), *back]
        return results

    assert_independent_of_threads(orders)
