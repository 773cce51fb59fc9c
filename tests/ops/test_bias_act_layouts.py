"""bias_act on every size and memory layout that takes a path of its own in the kernels."""

from __future__ import annotations

import functools

import pytest
import torch
from compare import assert_near, three_orders

from ganops import ops

# Sizes at the seams of csrc/bias_act/bias_act_cpu.cpp: blocks of 1024 elements; slabs of one
# channel cut into units of 8192, where inner >= 256; shorter ones walked by the period of the
# channels. (shape, dim)
SHAPES = [
    ((), None), ((1,), 0), ((1, 1), 1), ((2, 3), 1), ((7,), 0), ((5, 3), 0), ((5, 3), -2),
    ((1, 1, 1, 1), 1), ((3, 1, 5), 1), ((2, 1023), 1), ((1023, 2), 1), ((2, 1024), 1),
    ((2, 1025), 1), ((1, 5, 255), 1), ((1, 5, 256), 1), ((2, 3, 257), -2), ((2, 3, 1023), 1),
    ((2, 3, 1025), 1), ((1, 2, 8191), 1), ((1, 2, 8192), 1), ((1, 2, 8193), 1), ((8209,), None),
    ((13, 17, 3, 3), 1), ((2, 3, 31, 37), 1), ((2, 3, 31, 37), 3), ((2, 3, 31, 37), 0),
    ((2, 2, 2, 2, 2, 3), -1),
    # Nothing to do, and no channels to do it for.
    ((0,), 0), ((0, 3, 4), 1), ((2, 0, 4), 1), ((2, 3, 0), 1), ((0, 0), 1),
]  # fmt: skip


def flipped_order(x):
    """The same values, memory in the reverse order of dims: dense, not contiguous."""
    order = list(range(x.dim()))[::-1]
    return x.permute(order).contiguous().permute(order)


def sliced(x):
    """Every other element along the last dim of a wider tensor: not dense."""
    wide = x.new_empty(*x.shape[:-1], 2 * x.shape[-1]).normal_()
    wide[..., ::2] = x
    return wide[..., ::2]


def shifted(x):
    """At an address one element past the allocator's alignment."""
    flat = x.new_empty(x.numel() + 1)
    view = flat[1:].view(x.shape)
    view.copy_(x)
    assert view.data_ptr() % 16 != 0 or x.numel() == 0
    return view


def odd_stride_of_size_one(x):
    """Dims of size 1 may carry any stride."""
    strides = [s if n != 1 else 12345 for n, s in zip(x.shape, x.stride())]
    return x.as_strided(x.shape, strides)


def expanded(x):
    """One row repeated by stride 0."""
    return x[:1].expand(x.shape)


LAYOUTS = [lambda x: x, flipped_order, sliced, shifted, odd_stride_of_size_one, expanded]
NAMES = ["contiguous", "flipped", "sliced", "shifted", "odd-stride", "expanded"]


def compare(backend, x, b, dim, dy, v, act="swish", **more):
    seconds = (v,) if b is None else (v, torch.randn_like(b))
    ours, expected = (
        three_orders(
            functools.partial(ops.bias_act, dim=dim or 0, act=act, clamp=1.5, impl=i, **more),
            (x,) if b is None else (x, b),
            dy,
            seconds,
        )
        for i in (backend.impl, "reference")
    )
    for name, wanted in expected.items():
        assert_near(ours[name], wanted, 20 * max(1, x.numel()) ** 0.5, name)


@pytest.mark.parametrize(("shape", "dim"), SHAPES, ids=str)
def test_shapes(backend, shape, dim):
    torch.manual_seed(0)
    x, dy, v = torch.randn(3, *shape, dtype=torch.float64, device=backend.device)
    b = None if dim is None else torch.randn(shape[dim], dtype=x.dtype, device=x.device)
    for act in ("swish", "lrelu"):
        compare(backend, x, b, dim, dy, v, act)
    if b is not None:
        compare(backend, x, None, dim, dy, v)


@pytest.mark.parametrize("of_dy", LAYOUTS, ids=NAMES)
@pytest.mark.parametrize("of_x", LAYOUTS, ids=NAMES)
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 1, 300), (2, 3, 301)], ids=str)
def test_layouts_of_the_operands(backend, of_x, of_dy, shape):
    torch.manual_seed(1)
    x, dy, v = torch.randn(3, *shape, dtype=torch.float64, device=backend.device)
    b = torch.randn(2 * shape[1], dtype=x.dtype, device=x.device)[::2]
    compare(backend, of_x(x), b, 1, of_dy(dy), of_dy(v))
    compare(backend, of_x(x), b, -2, of_dy(dy), flipped_order(v), "lrelu")


def test_channels_last(backend):
    torch.manual_seed(2)
    x, dy, v = torch.randn(3, 2, 5, 6, 7, dtype=torch.float64, device=backend.device)
    b = torch.randn(5, dtype=x.dtype, device=x.device)
    last = x.contiguous(memory_format=torch.channels_last)
    for given in (dy, dy.contiguous(memory_format=torch.channels_last)):
        compare(backend, last, b, 1, given, v)
        compare(backend, x, b, 1, given, v)
    y = ops.bias_act(last, b, impl=backend.impl)
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", LAYOUTS, ids=NAMES)
def test_results_have_the_strides_of_dense_operands(backend, layout):
    x = layout(torch.randn(3, 4, 5, device=backend.device)).requires_grad_()
    y = ops.bias_act(x, act="tanh", impl=backend.impl)
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    dense = layout not in (sliced, expanded)
    wanted = x.stride() if dense else torch.empty(x.shape).stride()
    assert y.stride() == wanted
    assert dx.stride() == wanted


def test_a_sum_s_cotangent_is_expanded(backend):
    x = torch.randn(3, 4, 5, dtype=torch.float64, device=backend.device, requires_grad=True)
    y = ops.bias_act(x, act="swish", impl=backend.impl)
    (ours,) = torch.autograd.grad(y.sum(), x)
    (expected,) = torch.autograd.grad(ops.bias_act(x, act="swish", impl="reference").sum(), x)
    assert_near(ours, expected, 2)


# Results beyond kStreamBytes (8 MiB, csrc/common/stream_store.h) are written past the cache, in
# bursts that start where a row happens to be aligned: odd rows put that everywhere.
@pytest.mark.parametrize(
    ("shape", "dim"),
    [((3, 700001), 0), ((2_100_001,), None), ((100_003, 7, 3), 1), ((1, 2100, 1001), 1)],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_results_larger_than_the_cache(backend, shape, dim, dtype):
    if backend == ("triton", "cpu"):
        pytest.skip("the interpreter would take minutes, and has no streaming stores")
    torch.manual_seed(4)
    x, dy, v = torch.randn(3, *shape, dtype=dtype, device=backend.device)
    b = None if dim is None else torch.randn(shape[dim], dtype=dtype, device=backend.device)
    y, dx, d2x = elementwise_orders(backend.impl, x, b, dim, dy, v)
    ry, rdx, rd2x = elementwise_orders("reference", x, b, dim, dy, v)
    assert_near(y, ry, 2)
    assert_near(dx, rdx, 4)
    assert_near(d2x, rd2x, 10)


def elementwise_orders(impl, x, b, dim, dy, v):
    x, dy = x.requires_grad_(), dy.requires_grad_()
    y = ops.bias_act(x, b, dim=dim or 0, act="sigmoid", clamp=0.9, impl=impl)
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    (d2x,) = torch.autograd.grad(dx, x, v)
    return y.detach(), dx.detach(), d2x


@pytest.mark.parametrize("shape", [(64, 9, 1009), (30_011, 17), (1, 1, 300_007)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bias_gradients_are_summed_without_loss(backend, shape, dtype):
    if backend == ("triton", "cpu"):
        pytest.skip("there the sum is torch's own; test_shapes covers its wiring")
    torch.manual_seed(5)
    x = torch.randn(shape, device=backend.device).to(dtype)
    b = torch.zeros(shape[1], dtype=dtype, device=backend.device, requires_grad=True)
    dy = (torch.randn_like(x, dtype=torch.float32) + 1).to(dtype)
    ops.bias_act(x, b, act="lrelu", gain=1.0, impl=backend.impl).backward(dy)
    others = [d for d in range(x.dim()) if d != 1]
    terms = torch.where(x > 0, dy.double(), 0.2 * dy.double())
    exact, size = terms.sum(others), terms.abs().sum(others)
    # Terms carry one rounding each; partial sums of a few thousand terms are float, then double.
    bound = size * 2e-6 + (0 if dtype == torch.float32 else 2.0**-8) * exact.abs()
    assert ((b.grad.double() - exact).abs() <= bound).all()
