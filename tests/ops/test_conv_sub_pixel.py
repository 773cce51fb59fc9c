"""The strided convolution's backward to few channels, as one dense convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from counting import Counter
from hypothesis import given, settings
from hypothesis import strategies as st

from ganops import ops
from ganops.ops._twins import Like
from ganops.ops.conv import sub_pixel


@st.composite
def geometries(draw):
    stride = draw(st.tuples(*[st.integers(1, 4)] * 2))
    kernel = draw(st.tuples(*[st.integers(1, 6)] * 2))
    padding = tuple(draw(st.integers(0, 7)) for _ in kernel)
    sides = tuple(
        draw(st.integers(max(1, k - 2 * p), 13)) for k, p in zip(kernel, padding)
    )  # fmt: skip
    return stride, kernel, padding, sides


@settings(deadline=None, max_examples=200)
@given(geometries())
def test_every_geometry_gives_autograds_numbers(geometry):
    stride, kernel, padding, sides = geometry
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *sides, generator=generator, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, 3, *kernel, generator=generator, dtype=torch.float64)
    y = F.conv2d(x, w, None, stride, padding)
    dy = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(y, x, dy)
    ours = sub_pixel.input_gradient(dy, w, Like.of(x), stride, padding)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_it_serves_images_and_not_features():
    def asked(channels, stride=(2, 2), dilation=(1, 1), transposed=False, groups=1):
        return sub_pixel.serves(
            torch.zeros(4, channels, 4, 4), stride, dilation, transposed, groups
        )

    assert asked(1)
    assert asked(3)
    assert not asked(sub_pixel.FEW + 1)
    assert not asked(3, stride=(1, 1))
    assert not asked(3, stride=(2, 1))
    assert not asked(3, dilation=(2, 2))
    assert not asked(3, transposed=True)
    assert not asked(3, groups=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_twin_uses_it_in_every_order_and_layout(dtype, layout, monkeypatch):
    calls = []
    real = sub_pixel.input_gradient
    monkeypatch.setattr(sub_pixel, "input_gradient", lambda *a: calls.append(1) or real(*a))
    torch.manual_seed(0)
    x = torch.randn(4, 3, 11, 12).to(dtype).to(memory_format=layout).requires_grad_()
    w = torch.randn(5, 3, 4, 4).to(dtype).requires_grad_()
    v = torch.randn(4, 3, 11, 12).to(dtype)
    found = []
    for conv in (ops.conv2d, F.conv2d):
        y = conv(x, w, None, 2, 1)
        first = torch.autograd.grad(y.sum(), [x, w], retain_graph=True)
        (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        assert dx.stride() == x.stride()
        found.append((*first, dx, *torch.autograd.grad((dx * v).sum(), [x, w])))
    assert len(calls) >= 2
    bound = {"rtol": 1e-4, "atol": 1e-3} if dtype == torch.float32 else {"rtol": 0.05, "atol": 1.5}
    for ours, expected in zip(*found):
        torch.testing.assert_close(ours, expected, **bound)


def test_under_vmap():
    x = torch.randn(2, 3, 4, 3, 8, 8, dtype=torch.float64)
    w = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)

    def gradient(conv):
        one = torch.func.grad(lambda x, w: conv(x, w, None, 2, 1).square().sum())
        return torch.vmap(torch.vmap(one, (0, None)))(x, w)

    torch.testing.assert_close(gradient(ops.conv2d), gradient(F.conv2d))


def test_what_it_adds_is_one_border_of_windows():
    """Of a 4x4 kernel with stride 2: (H/2 + 1)^2 windows where (H/2)^2 are needed."""
    dy, w = torch.randn(2, 8, 16, 16), torch.randn(8, 3, 4, 4)
    like = Like.of(torch.empty(2, 3, 32, 32))
    with Counter(sub_pixel=True) as counter:
        sub_pixel.input_gradient(dy, w, like, (2, 2), (1, 1))
    assert counter.calls == 1
    assert counter.flops == 2 * 2 * 17 * 17 * w.numel()


def test_autocast_around_an_island_of_float32_changes_nothing():
    """torch's own backward is not cast there; neither is this."""
    torch.manual_seed(0)
    x, w = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(4, 3, 4, 4)
    found = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for conv in (ops.conv2d, F.conv2d):
            with torch.autocast("cpu", enabled=False):
                y = conv(x, w, None, 2, 1)
            found.append(torch.autograd.grad(y.square().sum(), x)[0])
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-4)
