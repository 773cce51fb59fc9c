"""Leaky ReLU that keeps a byte a number: value and gradient, and what a penalty asks for."""

from __future__ import annotations

from collections.abc import Callable

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
from ganops.ops import masked_slope

Bench = Callable[[Case], None]


def stock(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def twin(x: Tensor) -> Tensor:
    return ops.leaky_relu(x, 0.2)


def ours(impl: str) -> Callable[[Tensor], Tensor]:
    def f(x: Tensor) -> Tensor:
        with ganops.use_impl(impl):
            return masked_slope.masked(x, "leaky_relu", 0.2)

    return f


def bytes_for(size: Size, numbers: int, masks: int) -> int:
    return numbers * size.nbytes + masks * size.count


@sizes(tiny=["2x8x4x4"], default=["64x64x32x32"])
def bench_gradient(size: Size, device: str, impl: str, bench: Bench) -> None:
    """Floor: x read, y and the mask written; dy and the mask read, dx written."""
    x, dy = size.randn(0, device, requires_grad=True), size.randn(1, device)
    nbytes = bytes_for(size, 4, 2)
    bench(
        Case(
            op="masked_slope",
            row=f"{size}, leaky ReLU, forward and backward",
            ours=with_gradient(ours(impl), [x], dy),
            stock={"stock": with_gradient(stock, [x], dy)},
            optional={"torch.compile": with_gradient(compiled(stock), [x], dy)},
            floor=Floor.copy(nbytes, size, device),
            nbytes=nbytes,
            flops=2 * size.count,
            dtype=size.dtype,
            device=device,
        )
    )


@sizes(tiny=["2x8x4x4"], default=["64x64x32x32"])
def bench_double_backward(size: Size, device: str, impl: str, bench: Bench) -> None:
    """y, dx, and the gradient of <dx, v> to dy. Floor: as above, and v and the mask read, the
    gradient to dy written."""
    x, dy, v = (
        size.randn(0, device, requires_grad=True),
        size.randn(1, device),
        size.randn(2, device),
    )
    dy.requires_grad_()
    nbytes = bytes_for(size, 6, 3)
    args = ([x], v, dy)
    bench(
        Case(
            op="masked_slope",
            row=f"{size}, leaky ReLU, with double backward",
            ours=with_second_gradient(ours(impl), *args),
            stock={"stock": with_second_gradient(stock, *args)},
            peers={"ops.leaky_relu, which keeps y": with_second_gradient(twin, *args)},
            optional={"torch.compile, one graph": with_second_gradient_compiled(stock, *args)},
            floor=Floor.copy(nbytes, size, device),
            nbytes=nbytes,
            flops=3 * size.count,
            dtype=size.dtype,
            device=device,
            note="stock sends zeros to x, ours nothing",
        )
    )
