"""Smooth activations: value and gradient (torch's own kernels), and the double backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from arms import (
    compiled,
    sizes,
    with_gradient,
    with_second_gradient,
    with_second_gradient_compiled,
)
from harness import Case, Floor, Size
from torch import Tensor

import ganops
from ganops import ops

Bench = Callable[[Case], None]
Op = Callable[[Tensor], Tensor]

ACTS: dict[str, tuple[Op, Op]] = {
    "silu": (ops.silu, F.silu),
    "gelu": (ops.gelu, F.gelu),
    "gelu, tanh": (partial(ops.gelu, approximate="tanh"), partial(F.gelu, approximate="tanh")),
    "softplus": (ops.softplus, F.softplus),
    "elu": (ops.elu, F.elu),
    "tanh": (ops.tanh, torch.tanh),
    "sigmoid": (ops.sigmoid, torch.sigmoid),
    "mish": (ops.mish, F.mish),
}


def ours(act: str, impl: str) -> Op:
    def f(x: Tensor) -> Tensor:
        with ganops.use_impl(impl):
            return ACTS[act][0](x)

    return f


@sizes(tiny=["2x8x4x4"], default=["32x64x32x32"])
def bench_gradient(size: Size, device: str, impl: str, bench: Bench) -> None:
    """Value and gradient. Floor: x read, y written; dy and x read, dx written."""
    x, dy = size.randn(0, device, requires_grad=True), size.randn(1, device)
    stock = ACTS["silu"][1]
    nbytes = 5 * size.nbytes
    bench(
        Case(
            op="smooth",
            row=f"{size}, silu, forward and backward",
            ours=with_gradient(ours("silu", impl), [x], dy),
            stock={"stock": with_gradient(stock, [x], dy)},
            optional={"torch.compile": with_gradient(compiled(stock), [x], dy)},
            floor=Floor.copy(nbytes, size, device),
            nbytes=nbytes,
            flops=10 * size.count,
            dtype=size.dtype,
            device=device,
            note="the same kernels",
        )
    )


@pytest.mark.parametrize("act", ACTS)
@sizes(tiny=["2x8x4x4"], default=["32x64x32x32"])
def bench_double_backward(size: Size, act: str, device: str, impl: str, bench: Bench) -> None:
    """y, dx, and the gradient of <dx, v> to x and dy, as a gradient penalty asks for them.

    Floor: the five passes above; then v, dy and x read, the gradients to dy and x written.
    """
    x, dy, v = (
        size.randn(0, device, requires_grad=True),
        size.randn(1, device),
        size.randn(2, device),
    )
    dy.requires_grad_()
    nbytes = 10 * size.nbytes
    stock = ACTS[act][1]
    args = ([x], v, dy)
    bench(
        Case(
            op="smooth",
            row=f"{size}, {act}, with double backward",
            ours=with_second_gradient(ours(act, impl), *args),
            stock={"stock": with_second_gradient(stock, *args)},
            optional={"torch.compile, one graph": with_second_gradient_compiled(stock, *args)},
            floor=Floor.copy(nbytes, size, device),
            nbytes=nbytes,
            flops=30 * size.count,
            dtype=size.dtype,
            device=device,
            headline=act == "silu",
        )
    )
