"""bias_act: add a bias, activate, scale, in one pass; its first and second derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable

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

from ganops import ops

Bench = Callable[[Case], None]
Op = Callable[[Tensor, Tensor], Tensor]

ROOT2 = math.sqrt(2.0)
# act -> (function, the same in place on a temporary where autograd allows it, default gain)
ACTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor] | None, float]] = {
    "linear": (lambda x: x, None, 1.0),
    "relu": (F.relu, torch.relu_, ROOT2),
    "lrelu": (lambda x: F.leaky_relu(x, 0.2), lambda x: F.leaky_relu_(x, 0.2), ROOT2),
    "tanh": (torch.tanh, torch.tanh_, 1.0),
    "sigmoid": (torch.sigmoid, torch.sigmoid_, 1.0),
    "elu": (F.elu, F.elu_, 1.0),
    "selu": (F.selu, F.selu_, 1.0),
    "softplus": (F.softplus, None, 1.0),
    "swish": (F.silu, None, ROOT2),
}
KINK = 5e-3  # at a kink, another order of rounding takes the other slope: single entries differ
HOMOGENEOUS = ("linear", "relu", "lrelu")  # act(g x) = g act(x) for g > 0


def per_channel(b: Tensor) -> Tensor:
    return b.view(1, -1, 1, 1)


def stock_forms(act: str) -> dict[str, Op]:
    """Stock PyTorch as people write it, and the form with the fewest passes that we know."""
    function, in_place, gain = ACTS[act]
    last = in_place or function

    def plain(x: Tensor, b: Tensor) -> Tensor:
        y = function(x + per_channel(b))
        return y if gain == 1.0 else y.mul(gain)

    def lean(x: Tensor, b: Tensor) -> Tensor:
        if act in HOMOGENEOUS:  # the gain goes into the addition, the activation runs in place
            return last(torch.add(per_channel(b * gain), x, alpha=gain))
        y = last(x + per_channel(b))
        return y if gain == 1.0 else y.mul(gain)

    return {"stock": plain} if act == "linear" else {"stock": plain, "stock, lean": lean}


def ours(act: str, impl: str) -> Op:
    return lambda x, b: ops.bias_act(x, b, act=act, impl=impl)


def without_gradient(op: Op, x: Tensor, b: Tensor) -> Callable[[], Tensor]:
    def arm() -> Tensor:
        with torch.no_grad():
            return op(x, b)

    return arm


def inputs(size: Size, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """x, b, dy"""
    channels = Size((size.shape[1],), size.dtype)
    x = size.randn(0, device, requires_grad=True)
    return x, channels.randn(1, device, requires_grad=True), size.randn(2, device)


@sizes(
    tiny=["2x8x4x4"],
    default=["32x64x64x64", "32x64x64x64 channels_last", "32x64x64x64 bfloat16"],
    paper=["32x128x128x128"],
)
def bench_leaky_forward(size: Size, device: str, impl: str, bench: Bench) -> None:
    """No gradient wanted. Floor: x read once, y written once."""
    x, b, _ = inputs(size, device)
    nbytes = 2 * size.nbytes
    forms = {name: without_gradient(op, x, b) for name, op in stock_forms("lrelu").items()}
    bench(
        Case(
            op="bias_act",
            row=f"{size}, lrelu, forward",
            ours=without_gradient(ours("lrelu", impl), x, b),
            stock=forms,
            peers={"reference": without_gradient(ours("lrelu", "reference"), x, b)},
            optional={
                "torch.compile": without_gradient(compiled(stock_forms("lrelu")["stock"]), x, b)
            },
            floor=Floor.copy(nbytes, size, device),
            nbytes=nbytes,
            flops=3 * size.count,
            dtype=size.dtype,
            device=device,
            headline=size.dtype == torch.float32 and not size.channels_last,
        )
    )


def forward_and_backward(size: Size, act: str, device: str, impl: str, headline: bool) -> Case:
    """Floor: x read, y written; dy and y (or x) read, dx written."""
    x, b, dy = inputs(size, device)
    nbytes = 5 * size.nbytes
    forms = stock_forms(act)
    return Case(
        op="bias_act",
        row=f"{size}, {act}, forward and backward",
        ours=with_gradient(ours(act, impl), [x, b], dy),
        stock={name: with_gradient(op, [x, b], dy) for name, op in forms.items()},
        peers={"reference": with_gradient(ours(act, "reference"), [x, b], dy)},
        optional={"torch.compile": with_gradient(compiled(forms["stock"]), [x, b], dy)},
        floor=Floor.copy(nbytes, size, device),
        nbytes=nbytes,
        flops=7 * size.count,  # for a transcendental activation a lower bound
        dtype=size.dtype,
        device=device,
        tolerance=KINK if act in HOMOGENEOUS and size.dtype == torch.float32 else None,
        headline=headline,
    )


@sizes(
    tiny=["2x8x4x4"],
    # The last is all overhead of the call: what a kernel saves, Python's autograd takes there.
    default=["32x64x64x64", "32x64x64x64 channels_last", "32x64x64x64 bfloat16", "16x64x4x4"],
    paper=["32x128x128x128"],
)
def bench_leaky_forward_and_backward(size: Size, device: str, impl: str, bench: Bench) -> None:
    headline = size.dtype == torch.float32 and size.shape[-1] > 4
    bench(forward_and_backward(size, "lrelu", device, impl, headline=headline))


@pytest.mark.parametrize("act", [act for act in ACTS if act != "lrelu"])
@sizes(tiny=["2x8x4x4"], default=["32x64x32x32"])
def bench_activation(size: Size, act: str, device: str, impl: str, bench: Bench) -> None:
    bench(forward_and_backward(size, act, device, impl, headline=False))


@pytest.mark.parametrize("act", ["lrelu", "swish"])
@sizes(tiny=["2x8x4x4"], default=["32x64x32x32"])
def bench_double_backward(size: Size, act: str, device: str, impl: str, bench: Bench) -> None:
    """y, dx, and the gradient of <dx, v> to x and dy, as a gradient penalty asks for them.

    Floor: the five passes above; then v and y read, the gradient to dy written; for a smooth
    activation dy read and the gradient to x written too.
    """
    x, b, dy = inputs(size, device)
    dy.requires_grad_()
    v = size.randn(3, device)
    nbytes = (8 if act == "lrelu" else 10) * size.nbytes
    forms = stock_forms(act)
    args = ([x, b], v, dy)
    bench(
        Case(
            op="bias_act",
            row=f"{size}, {act}, with double backward",
            ours=with_second_gradient(ours(act, impl), *args),
            stock={name: with_second_gradient(op, *args) for name, op in forms.items()},
            peers={"reference": with_second_gradient(ours(act, "reference"), *args)},
            optional={
                "torch.compile, one graph": with_second_gradient_compiled(forms["stock"], *args)
            },
            floor=Floor.copy(nbytes, size, device),
            nbytes=nbytes,
            flops=12 * size.count,
            dtype=size.dtype,
            device=device,
            tolerance=KINK if act in HOMOGENEOUS else None,
            note="stock sends zeros to x, ours nothing" if act == "lrelu" else "",
        )
    )
