"""random_projection: K separate convolutions, its derivatives, and bad input."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from ganops import ops
from ganops.ops.conv import sub_pixel

DOUBLE = torch.float64


def randn(*shape, dtype=DOUBLE, seed=3):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)).to(
        dtype
    )


def separate(x, filters, stride, padding):
    """The definition: one convolution for each discriminator."""
    return torch.stack([F.conv2d(x, w, None, stride, padding) for w in filters])


@st.composite
def geometries(draw):
    stride = draw(st.tuples(*[st.integers(1, 4)] * 2))
    kernel = draw(st.tuples(*[st.integers(1, 8)] * 2))
    padding = tuple(draw(st.integers(0, 7)) for _ in kernel)
    sides = tuple(draw(st.integers(max(1, k - 2 * p), 13)) for k, p in zip(kernel, padding))
    numbers = draw(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)))
    return stride, kernel, padding, sides, numbers, draw(st.sampled_from([DOUBLE, torch.float32]))


@settings(deadline=None, max_examples=60)
@given(geometries())
def test_every_geometry_gives_the_numbers_of_separate_convolutions(geometry):
    """float32 goes by volumes, float64 by planes."""
    stride, kernel, padding, sides, (k, c, batch), dtype = geometry
    x = randn(batch, 3, *sides, dtype=dtype).requires_grad_()
    w = randn(k, c, 3, *kernel, dtype=dtype, seed=4)
    expected = separate(x, w, stride, padding)
    y = ops.random_projection(x, w, stride=stride, padding=padding)
    assert y.is_contiguous()
    near = {"rtol": 1e-12, "atol": 1e-12} if dtype == DOUBLE else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(y, expected, **near)
    dy = randn(*y.shape, dtype=dtype, seed=5)
    torch.testing.assert_close(
        torch.autograd.grad(y, x, dy)[0], torch.autograd.grad(expected, x, dy)[0], **near
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [1, 2])
def test_dtypes_and_layouts(dtype, layout, channels):
    x = randn(4, 3, 12, 10, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    w = ops.random_filters(5, channels, 3, 8, seed=1, dtype=dtype)
    y = ops.random_projection(x, w, stride=2, padding=3)
    assert y.dtype == dtype
    assert y.shape == (5, 4, channels, 6, 5)
    assert all(view.is_contiguous() for view in y)
    wide, fixed = x.detach().double().requires_grad_(), w.double()
    expected = separate(wide, fixed, 2, 3)
    bound = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}[dtype]
    assert (y.double() - expected).norm() <= bound * expected.norm()
    dy = randn(*y.shape, dtype=dtype, seed=5)
    (dx,) = torch.autograd.grad(y, x, dy)
    (truth,) = torch.autograd.grad(expected, wide, dy.double())
    assert dx.dtype == dtype
    assert dx.stride() == x.stride()
    assert (dx.double() - truth).norm() <= bound * truth.norm()


@pytest.mark.parametrize("shape", [(1, 2, 4, 3), (1, 9, 2, 2)])  # 9 channels: torch's own backward
def test_gradcheck_and_gradgradcheck(shape):
    x, w = randn(*shape).requires_grad_(), randn(2, 1, shape[1], 3, 2)
    f = lambda x: ops.random_projection(x, w, stride=2, padding=1)  # noqa: E731
    assert gradcheck(f, x, check_forward_ad=True)
    assert gradgradcheck(f, x, check_fwd_over_rev=True)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_a_loss_that_is_not_linear_has_both_orders(dtype):
    x, w, v = (
        randn(2, 3, 8, 8, dtype=dtype).requires_grad_(),
        *(randn(*s, dtype=dtype) for s in ((3, 1, 3, 4, 4), (2, 3, 8, 8))),
    )
    found = []
    for f in (lambda x: ops.random_projection(x, w, stride=2, padding=1),
              lambda x: separate(x, w, 2, 1)):  # fmt: skip
        (first,) = torch.autograd.grad(f(x).pow(3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first * v).sum(), x, create_graph=True)
        (third,) = torch.autograd.grad((second * v).sum(), x)
        jvp = torch.func.jvp(f, (x.detach(),), (v,))[1]
        slope = torch.func.grad(lambda x, f=f: f(x).pow(3).sum())
        hvp = torch.func.jvp(slope, (x.detach(),), (v,))[1]
        found.append((first, second, third, jvp, hvp))
    for ours, expected in zip(*found):
        assert (ours - expected).norm() <= (1e-12 if dtype == DOUBLE else 1e-5) * expected.norm()


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_torch_func(dtype):
    x, w = randn(2, 3, 3, 8, 8, dtype=dtype), randn(3, 2, 3, 4, 4, dtype=dtype)
    ours = lambda x: ops.random_projection(x, w, stride=2, padding=1)  # noqa: E731
    stock = lambda x: separate(x, w, 2, 1)  # noqa: E731
    near = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(torch.vmap(ours)(x), torch.vmap(stock)(x), **near)
    for f, g in ((ours, stock),):
        one, two = (torch.vmap(torch.func.grad(lambda x, h=h: h(x).square().sum())) for h in (f, g))
        torch.testing.assert_close(one(x), two(x), **near)
    small, few = x[0, :1, :, :4, :4], w[:2, :1]
    jac = [
        j(lambda x: ops.random_projection(x, few, stride=2, padding=1))(small)
        for j in (torch.func.jacrev, torch.func.jacfwd)
    ]
    torch.testing.assert_close(*jac, **near)
    jac_stock = torch.func.jacrev(lambda x: separate(x, few, 2, 1))(small)
    torch.testing.assert_close(jac[0], jac_stock, **near)


def test_batched_gradients():
    """autograd.grad(is_grads_batched=True), as jacobian(vectorize=True) asks."""
    x, w = randn(2, 3, 8, 8, dtype=torch.float32).requires_grad_(), randn(2, 1, 3, 4, 4).float()
    y = ops.random_projection(x, w, stride=2, padding=1)
    dy = randn(3, *y.shape, dtype=torch.float32)
    (all_,) = torch.autograd.grad(y, x, dy, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(y, x, d, retain_graph=True)[0] for d in dy]
    torch.testing.assert_close(all_, torch.stack(each), rtol=1e-4, atol=1e-4)


def test_the_backward_of_an_image_is_the_dense_one_and_of_features_torchs(monkeypatch):
    calls = []
    real = sub_pixel.interleave
    monkeypatch.setattr(sub_pixel, "interleave", lambda *a: calls.append(1) or real(*a))
    for channels, stride, dtype, expected in (
        (3, 2, torch.float32, 1), (3, 2, DOUBLE, 1), (9, 2, torch.float32, 0), (3, 1, DOUBLE, 0),
    ):  # fmt: skip
        calls.clear()
        x = randn(2, channels, 8, 8, dtype=dtype).requires_grad_()
        w = randn(2, 1, channels, 4, 4, dtype=dtype)
        ops.random_projection(x, w, stride=stride, padding=1).sum().backward()
        assert len(calls) == expected


def test_identical_filters_sum_to_one_discriminators_gradient():
    """Test 2 of the card: the mean over K equal views is K = 1."""
    x = randn(2, 3, 8, 8).requires_grad_()
    w = ops.random_filters(1, 1, 3, 8, seed=0, dtype=DOUBLE)
    one, four = (
        ops.random_projection(x, f, stride=2, padding=3).square().sum((1, 2, 3, 4)).mean()
        for f in (w, w.repeat(4, 1, 1, 1, 1))
    )
    torch.testing.assert_close(*(torch.autograd.grad(v, x)[0] for v in (one, four)))


def test_nothing_of_the_images_is_kept_for_backward():
    x, w = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(2, 1, 3, 4, 4)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ops.random_projection(x, w, stride=2, padding=1)
    assert [t.data_ptr() for t in kept] == [w.data_ptr()]


def test_empty_batch():
    x, w = torch.empty(0, 3, 8, 8, requires_grad=True), torch.randn(2, 1, 3, 4, 4)
    y = ops.random_projection(x, w, stride=2, padding=1)
    assert y.shape == (2, 0, 1, 4, 4)
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_autocast_casts_as_torchs_convolution():
    x, w = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(2, 1, 3, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ops.random_projection(x, w, stride=2, padding=1)
        expected = separate(x, w, 2, 1)
        assert ops.random_projection(x, w.bfloat16(), stride=2, padding=1).dtype == torch.bfloat16
    assert y.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=0.02, atol=0.1)
    (dx,) = torch.autograd.grad(y.float().sum(), x)
    assert dx.dtype == torch.float32


def test_compiles_with_its_gradient():
    x, w = randn(2, 3, 8, 8, dtype=torch.float32).requires_grad_(), randn(2, 2, 3, 4, 4).float()
    f = lambda x: ops.random_projection(x, w, stride=2, padding=1)  # noqa: E731
    g = torch.compile(f, fullgraph=True, backend="aot_eager")
    y, expected = g(x), f(x)
    assert y.is_contiguous()
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        *(torch.autograd.grad(v.square().sum(), x)[0] for v in (y, expected)), rtol=1e-4, atol=1e-4
    )
    torch._dynamo.reset()


# Bad input.


def project(x=None, w=None, stride=2, padding=1):
    x = torch.randn(2, 3, 8, 8) if x is None else x
    w = torch.randn(2, 1, 3, 4, 4) if w is None else w
    return ops.random_projection(x, w, stride=stride, padding=padding)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": torch.randn(3, 8, 8)}, r"\(B, Cin, H, W\), got \(3, 8, 8\)"),
        ({"w": torch.randn(1, 3, 4, 4)}, r"\(K, C, Cin, kh, kw\), .*got \(1, 3, 4, 4\)"),
        ({"w": torch.randn(0, 1, 3, 4, 4)}, r"K at least 1, got \(0, 1, 3, 4, 4\)"),
        ({"x": torch.randn(2, 1, 8, 8)}, "the filters' 3 channels, got 1"),
        ({"x": torch.randn(2, 3, 1, 8)}, "smaller than the filters, got height 1 with padding 1"),
        ({"x": torch.randn(2, 3, 8, 1)}, "got width 1 with padding 1 for filters of 4"),
        ({"stride": 0}, "stride of at least 1, got 0"),
        ({"padding": -1}, "padding of at least 0, got -1"),
        ({"stride": (2, 0)}, "each stride of at least 1, got 0"),
        ({"stride": [2, 2, 4]}, r"the same for all K discriminators.*got \[2, 2, 4\]"),
        ({"padding": (1, 2, 3)}, r"the same for all K discriminators.*once for each geometry"),
        ({"w": torch.randn(2, 1, 3, 4, 4, requires_grad=True)}, "views are fixed"),
    ],
)  # fmt: skip
def test_bad_values(given, message):
    with pytest.raises(ValueError, match=message):
        project(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, "one float tensor, got torch.uint8"),
        ({"x": [1.0]}, "x as one float tensor, got"),
        ({"w": [torch.randn(1, 3, 4, 4), torch.randn(1, 3, 8, 8)]}, "views of different shapes"),
        ({"x": torch.randn(2, 3, 8, 8, dtype=DOUBLE)}, "one dtype and device, got torch.float64"),
        ({"stride": 2.0}, "stride as an integer, got 2.0"),
        ({"padding": "same"}, "padding as an integer, got 'same'"),
    ],
)  # fmt: skip
def test_bad_types(given, message):
    with pytest.raises(TypeError, match=message):
        project(**given)


def test_no_way_leads_to_a_gradient_of_the_filters():
    x, w = torch.randn(2, 3, 8, 8), torch.randn(2, 1, 3, 4, 4)
    calls = [
        lambda: torch.func.grad(lambda w: project(x, w).sum())(w),
        lambda: torch.func.jvp(lambda w: project(x, w), (w,), (w,)),
        lambda: torch.func.grad(lambda w: torch.vmap(lambda x: project(x, w))(x[None]).sum())(w),
        lambda: torch.func.grad(lambda w: torch.vmap(lambda w: project(x, w))(w).sum())(w[None]),
        lambda: torch.vmap(torch.func.grad(lambda w: project(x, w).sum()))(w[None]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="views are fixed"):
            call()
