"""One sample of many groups: torch's kernels go by a batch stride that says nothing there."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ganops import ops

NUMBERS = {"stride": (1, 2), "padding": 2, "groups": 2}


def elementary(x, w, b):
    """x: (6, 7, 1); w: (8, 3, 2, 2). By unfolding, group by group."""
    patches = F.unfold(x[None], w.shape[2:], 1, 2, (1, 2)).reshape(2, 12, -1)
    y = torch.einsum("gok,gkl->gol", w.reshape(2, 4, 12), patches).reshape(8, 10, -1)
    return y + b[:, None, None]


@pytest.mark.parametrize("strides", [(7, 1, 1), (1, 6, 6)])
@pytest.mark.parametrize("batched", [False, True])
def test_both_orders_whatever_the_strides(strides, batched):
    generator = torch.Generator().manual_seed(0)
    x, w, b = (
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in ((6, 7, 1), (8, 3, 2, 2), (8,))
    )
    x = torch.empty_strided((6, 7, 1), strides, dtype=torch.float64).copy_(x).requires_grad_()
    w = w.contiguous(memory_format=torch.channels_last).requires_grad_()
    b.requires_grad_()

    def orders(f):
        y = f(x, w, b)
        cotangent = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape)
        first = torch.autograd.grad((y * cotangent + y * y).sum(), (x, w, b), create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), (x, w))
        return y, *first, *second

    def ours(x, w, b):
        if batched:
            return ops.conv2d(x[None], w, b, **NUMBERS)[0]
        return ops.conv2d(x, w, b, **NUMBERS)

    torch.testing.assert_close(orders(ours), orders(elementary))
