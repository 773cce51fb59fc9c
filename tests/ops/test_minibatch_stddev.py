"""minibatch_stddev: the card's numbers, who is grouped with whom, derivatives, and bad input."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ganops import nn, ops


def randn(*shape, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def by_loops(x, group_size, num_channels):
    """From the definition, one number at a time."""
    n, c, height, width = x.shape
    g = min(group_size, n)
    m, run = n // g, c // num_channels
    out = torch.empty(n, c + num_channels, height, width, dtype=x.dtype)
    out[:, :c] = x
    for i in range(n):
        members = [i % m + k * m for k in range(g)]
        for f in range(num_channels):
            terms = []
            for channel in range(f * run, (f + 1) * run):
                for h in range(height):
                    for w in range(width):
                        values = [x[k, channel, h, w].item() for k in members]
                        mean = sum(values) / g
                        terms.append((sum((v - mean) ** 2 for v in values) / g + 1e-8) ** 0.5)
            out[i, c + f] = sum(terms) / len(terms)
    return out


@pytest.mark.parametrize(
    ("group_size", "expected"), [(4, 4.4721359561), (2, 4.0), (9, 4.4721359561)]
)
def test_the_cards_numbers(group_size, expected):
    x = torch.arange(16, dtype=torch.float64).reshape(4, 2, 2, 1)
    y = ops.minibatch_stddev(x, group_size)
    assert y.shape == (4, 3, 2, 1)
    assert torch.equal(y[:, :2], x)
    torch.testing.assert_close(y[:, 2], torch.full((4, 2, 1), expected, dtype=x.dtype),
                               rtol=1e-8, atol=0)  # fmt: skip


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("group_size", "num_channels"), [(4, 1), (2, 3), (3, 2), (1, 6), (12, 1)])
def test_against_loops(group_size, num_channels, memory_format):
    x = randn(12, 6, 2, 3).contiguous(memory_format=memory_format)
    y = ops.minibatch_stddev(x, group_size, num_channels)
    torch.testing.assert_close(y, by_loops(x, group_size, num_channels), rtol=1e-13, atol=0)
    assert y.is_contiguous(memory_format=memory_format)


def test_members_of_a_group_lie_n_over_g_apart():
    x = randn(8, 2, 2, 2)
    y = ops.minibatch_stddev(x, 4)[:, 2, 0, 0]
    assert torch.equal(y[:2], y[2:4])
    assert y[0] != y[1]
    within, across = [2, 1, 0, 3, 4, 5, 6, 7], [1, 0, 2, 3, 4, 5, 6, 7]
    torch.testing.assert_close(ops.minibatch_stddev(x[within], 4)[:, 2, 0, 0], y)
    assert not torch.isclose(ops.minibatch_stddev(x[across], 4)[:, 2, 0, 0], y).any()


def test_equal_samples_have_a_ten_thousandth_and_no_gradient():
    x = torch.ones(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    y = ops.minibatch_stddev(x)[:, 3]
    torch.testing.assert_close(y, torch.full_like(y, 1e-4), rtol=1e-12, atol=0)
    (g,) = torch.autograd.grad(y.sum(), x)
    assert not g.any()


@pytest.mark.parametrize("num_channels", [1, 2])
def test_gradcheck_and_gradgradcheck(num_channels):
    x = randn(4, 4, 2, 1).requires_grad_()
    f = lambda x: ops.minibatch_stddev(x, 2, num_channels)  # noqa: E731
    assert gradcheck(f, x, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(f, x, check_fwd_over_rev=True)


@pytest.mark.parametrize(("dtype", "base"), [(torch.bfloat16, 256), (torch.float16, 2048)])
def test_half_types_are_reduced_in_float(dtype, base):
    """Neighbouring numbers of the dtype, whose mean it cannot hold."""
    x = torch.full((4, 8, 2, 2), base, dtype=dtype)
    x[2:] += 2
    y = ops.minibatch_stddev(x)
    assert y.dtype == dtype
    assert torch.equal(y[:, 8], torch.ones(4, 2, 2, dtype=dtype))
    assert torch.equal(y[:, :8], x)


def test_float32_is_near_float64():
    x = randn(4, 64, 4, 4)
    torch.testing.assert_close(ops.minibatch_stddev(x.float()), ops.minibatch_stddev(x).float())


def test_sizes_at_the_edge():
    assert ops.minibatch_stddev(torch.empty(0, 4, 2, 2), 4, 2).shape == (0, 6, 2, 2)
    assert ops.minibatch_stddev(torch.randn(1, 4, 2, 2))[0, 4, 0, 0].item() == pytest.approx(1e-4)
    assert ops.minibatch_stddev(torch.randn(4, 6), 2, 3).shape == (4, 9)


def test_the_module_is_the_op():
    module = nn.MinibatchStdDev(2, num_channels=3)
    x = randn(4, 6, 2, 2)
    assert torch.equal(module(x), ops.minibatch_stddev(x, 2, 3))
    assert not module.state_dict()
    assert repr(module) == "MinibatchStdDev(group_size=2, num_channels=3)"


def test_compiles():
    x = randn(4, 4, 2, 2)
    f = torch.compile(ops.minibatch_stddev, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(f(x), ops.minibatch_stddev(x))
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("shape", "args", "message"),
    [
        ((6, 4, 2, 2), (4, 1), r"divisible by group_size 4, got 6"),
        ((4, 4, 2, 2), (4, 3), r"divisible by num_channels 3, got 4"),
        ((4, 4, 2, 2), (0, 1), r"group_size of at least 1, got 0"),
        ((4, 4, 2, 2), (4, -1), r"num_channels of at least 1, got -1"),
        ((4,), (4, 1), r"\(N, C, ...\), got \(4,\)"),
    ],
)
def test_bad_sizes(shape, args, message):
    with pytest.raises(ValueError, match=message):
        ops.minibatch_stddev(torch.randn(shape), *args)


@pytest.mark.parametrize("x", [torch.ones(4, 1, dtype=torch.int64), [[1.0]]])
def test_bad_types(x):
    with pytest.raises(TypeError, match="expected x as a float tensor, got"):
        ops.minibatch_stddev(x)
