"""The weight gradient of a convolution with a small output, as a convolution in turn."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from counting import Counter
from hypothesis import given, settings
from hypothesis import strategies as st

from ganops import ops
from ganops.ops.conv import small_output


@st.composite
def geometries(draw):
    """The last window ends where the padding does."""
    stride = draw(st.tuples(*[st.integers(1, 3)] * 2))
    kernel = draw(st.tuples(*[st.integers(1, 5)] * 2))
    steps = draw(st.tuples(*[st.integers(1, 4)] * 2))
    padding = tuple(
        draw(st.integers(0, (s * (n - 1) + k - 1) // 2))
        for s, k, n in zip(stride, kernel, steps)
    )  # fmt: skip
    sides = [s * (n - 1) + k - 2 * p for s, k, n, p in zip(stride, kernel, steps, padding)]
    return stride, kernel, padding, sides


@settings(deadline=None, max_examples=150)
@given(geometries())
def test_every_geometry_gives_autograds_numbers(geometry):
    stride, kernel, padding, sides = geometry
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, *sides, generator=generator, dtype=torch.float64)
    w = torch.randn(4, 2, *kernel, generator=generator, dtype=torch.float64, requires_grad=True)
    y = F.conv2d(x, w, None, stride, padding)
    dy = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(y, w, dy)
    ours = small_output.weight_gradient(dy, x, w, stride, padding)
    assert ours.is_contiguous()
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


B, C, LAST = small_output.BATCH, small_output.CHANNELS, small_output.LAST


def asked(batch=B, channels=C, side=8, kernel=4, stride=2, padding=1, dtype=torch.float32,
          layout=torch.contiguous_format, dilation=1, transposed=False, groups=1):  # fmt: skip
    x = torch.zeros(batch, channels, side, side, dtype=dtype).to(memory_format=layout)
    w = torch.zeros(8, channels, kernel, kernel, dtype=dtype).to(memory_format=layout)
    dy = F.conv2d(x, w, None, stride, padding, dilation)
    pair = ((n, n) for n in (stride, padding, dilation))
    return small_output.serves(dy, x, w, *pair, transposed, groups)


def test_it_serves_where_it_measured_faster():
    assert asked()
    assert asked(dtype=torch.bfloat16)
    assert asked(side=4, kernel=4, stride=1, padding=0)
    assert not asked(dtype=torch.float64)
    assert not asked(batch=B - 1)
    assert not asked(channels=C - 1)
    assert not asked(side=16)  # as many as 64 pixels for 16 taps
    assert not asked(side=9)  # a last row that no window meets
    assert asked(batch=LAST, layout=torch.channels_last)
    assert not asked(batch=LAST - 1, layout=torch.channels_last)
    assert not asked(batch=LAST, side=4, stride=1, padding=0, layout=torch.channels_last)
    assert not asked(side=7, kernel=3, dilation=2)
    assert not asked(transposed=True)
    assert not asked(groups=2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_twin_uses_it_in_every_order_and_layout(dtype, layout, monkeypatch):
    calls = []
    real = small_output.weight_gradient
    monkeypatch.setattr(small_output, "weight_gradient", lambda *a: calls.append(1) or real(*a))
    torch.manual_seed(0)
    x = torch.randn(LAST, C, 8, 8).to(dtype).to(memory_format=layout).requires_grad_()
    w = (torch.randn(5, C, 4, 4) / 32).to(dtype).to(memory_format=layout).requires_grad_()
    b = torch.randn(5).to(dtype).requires_grad_()
    v = torch.randn(LAST, C, 8, 8).to(dtype).to(memory_format=layout)
    found = []
    for conv in (ops.conv2d, F.conv2d):
        y = conv(x, w, b, 2, 1)
        first = torch.autograd.grad(y.square().sum(), [x, w, b], retain_graph=True)
        alone = torch.autograd.grad(y.square().sum(), [w], retain_graph=True)
        (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        found.append((*first, *alone, dx, *torch.autograd.grad((dx * v).sum(), [x, w, b])))
    assert len(calls) >= 4
    bound = {"rtol": 1e-4, "atol": 2e-3} if dtype == torch.float32 else {"rtol": 0.1, "atol": 2.0}
    for ours, expected in zip(*found):
        torch.testing.assert_close(ours, expected, **bound)
        assert ours.dim() == 1 or ours.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(("out", "side", "padding"), [(1, 4, 0), (5, 4, 0), (5, 1, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradients_strides_are_the_weights(out, side, padding, layout):
    """Of one output channel, and of an x in both formats: DDP's buckets go by strides."""
    x = torch.randn(LAST, C, side, side).to(memory_format=layout)
    w = torch.randn(out, C, 4, 4).contiguous(memory_format=layout).requires_grad_()
    gradients = []
    for conv in (ops.conv2d, F.conv2d):
        y = conv(x, w, None, 1, padding)
        gradients += torch.autograd.grad(y.square().sum(), w)
    ours, expected = gradients
    assert ours.stride() == expected.stride()


def test_a_penalty_uses_it_and_costs_no_more():
    critic = torch.nn.Sequential(
        torch.nn.Conv2d(3, C, 4, 2, 1), torch.nn.LayerNorm([C, 8, 8]), torch.nn.LeakyReLU(0.2),
        torch.nn.Conv2d(C, 16, 4, 2, 1), torch.nn.LayerNorm([16, 4, 4]), torch.nn.LeakyReLU(0.2),
        torch.nn.Conv2d(16, 1, 4),
    )  # fmt: skip
    x = torch.randn(B, 3, 16, 16)

    def spent():
        critic.zero_grad(set_to_none=True)
        with Counter() as counter:
            ops.r1_penalty(critic, x).backward()
        return counter.flops, [p.grad for p in critic.parameters()]

    flops, grads = spent()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_output, "BATCH", B + 1)
        expected_flops, expected = spent()
    assert flops == expected_flops
    for ours, theirs in zip(grads, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_under_vmap():
    x, w = torch.randn(2, B, C, 4, 4), torch.randn(2, 5, C, 4, 4)

    def gradient(conv):
        one = torch.func.grad(lambda w, x: conv(x, w, None, 2, 1).square().sum())
        return torch.vmap(one)(w, x)

    torch.testing.assert_close(gradient(ops.conv2d), gradient(F.conv2d), rtol=1e-4, atol=1e-2)
