"""Forward mode through a last backward: grad mode is off there, and the tangents must live."""

from __future__ import annotations

import pytest
import torch
import torch.autograd.forward_ad as fw

from ganops import ops

ONES = torch.ones(4, 4, dtype=torch.float64)
TAPS = ops.setup_filter([1.0, 3.0, 3.0, 1.0])
OPS = {
    "bias_act, lrelu": lambda x: ops.bias_act(x, act="lrelu"),
    "bias_act, swish": lambda x: ops.bias_act(x, act="swish"),
    "bias_act, tanh": lambda x: ops.bias_act(x, ONES[0], act="tanh"),
    "consistency_loss": lambda x: ops.consistency_loss(x),
    "penalty_from_gradient": lambda x: ops.penalty_from_gradient(x),
    "linear": lambda x: ops.linear(x, ONES),
    "conv2d": lambda x: ops.conv2d(x[None, None], ONES[None, None, :2, :2]),
    "layer_norm": lambda x: ops.layer_norm(x, (4,)),
    "relu": ops.relu,
    "tanh": ops.tanh,
    "augment": lambda x: ops.augment(x[None, None], "cr", seed=1),
    "ada_augment": lambda x: ops.ada_augment(x[None, None], "ada-bg", seed=1),
    "upsample2d": lambda x: ops.upsample2d(x[None, None], TAPS),
}


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, dtype=torch.float64, generator=generator, requires_grad=True)


def dual(f, x, v, create_graph):
    with fw.dual_level():
        point = fw.make_dual(x, v)
        (g,) = torch.autograd.grad((f(point) ** 3).sum(), point, create_graph=create_graph)
        return fw.unpack_dual(g).tangent


@pytest.mark.parametrize("name", OPS)
def test_the_tangent_of_a_last_backward(name, x):
    f, v = OPS[name], torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 4)
    (grad,) = torch.autograd.grad((f(x) ** 3).sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(grad, x, v)  # the Hessian is symmetric
    torch.testing.assert_close(dual(f, x, v, False), expected)
    torch.testing.assert_close(dual(f, x, v, True), expected)


@pytest.mark.parametrize("name", OPS)
def test_the_tangent_of_what_is_sent_back(name, x):
    """The graph was recorded outside torch.func, the backward runs within."""
    y = OPS[name](x)
    v = torch.ones_like(y)

    def back(dy):
        return torch.autograd.grad(y, x, dy, retain_graph=True)[0]

    _, tangent = torch.func.jvp(back, (2 * v,), (v,))
    torch.testing.assert_close(tangent, back(v))
