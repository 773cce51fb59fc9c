"""Derivatives of ADA's geometry and colour, which are affine in the image.

    order 0   y  = C T(x)                    ada
    order 1   dx = T' C' dy                  ada_grad, the adjoint
    order 2   d dy = C T(v) without b        ada again, and so on: every order is one of the two

Nothing is saved but the maps and colours, a few dozen numbers a sample.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._autograd import empty_dense_like, kernel, quick, register
from .._triton import deferred
from .fused import ada_params, fake_params


class _Linear(Function):
    """What the two directions share: each other's derivative, and samples in front under vmap."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.maps, ctx.color, ctx.impl = inputs
        ctx.set_materialize_grads(False)

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        n = info.batch_size
        x, maps, color = (
            None if t is None else (t.expand(n, *t.shape) if d is None else t.movedim(d, 0))
            for t, d in zip(args[:3], in_dims)
        )
        one = [None if t is None else t.flatten(0, 1) for t in (x, maps, color)]
        y: Any = cls.apply(*one, args[3])
        return y.unflatten(0, (n, -1)), 0


@quick
class Ada(_Linear):
    """y from x. maps: (B, 7), color: (B, C, C + 1) in the dtype of computation, or None."""

    @staticmethod
    def forward(x: Tensor, maps: Tensor, color: Tensor | None, impl: str) -> Tensor:
        y: Tensor = kernel("ada", impl)(x, maps, color)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        dx = None if dy is None else AdaGrad.apply(dy, ctx.maps, ctx.color, ctx.impl)
        return dx, None, None, None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, *_: Any) -> Tensor:
        return _without_bias(x_t, ctx.maps, ctx.color, ctx.impl)


@quick
class AdaGrad(_Linear):
    """dx from dy, linear in it."""

    @staticmethod
    def forward(dy: Tensor, maps: Tensor, color: Tensor | None, impl: str) -> Tensor:
        dx: Tensor = kernel("ada_grad", impl)(dy, maps, color)
        return dx

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        d_dy = None if v is None else _without_bias(v, ctx.maps, ctx.color, ctx.impl)
        return d_dy, None, None, None

    @staticmethod
    def jvp(ctx: Any, dy_t: Tensor, *_: Any) -> Tensor:
        dx_t: Tensor = AdaGrad.apply(dy_t, ctx.maps, ctx.color, ctx.impl)
        return dx_t


def _without_bias(x: Tensor, maps: Tensor, color: Tensor | None, impl: str) -> Tensor:
    if color is not None:
        color = torch.cat((color[..., :-1], torch.zeros_like(color[..., -1:])), -1)
    y: Tensor = Ada.apply(x, maps, color, impl)
    return y


def _fake(x: Tensor, maps: Tensor, color: Tensor | None) -> Tensor:
    if x.dtype == torch.uint8:  # which the CPU's kernel reads itself
        return x.new_empty(x.shape, dtype=torch.float32)
    return empty_dense_like(x)


def _autograd(impl: str, x: Tensor, maps: Tensor, color: Tensor | None) -> Tensor:
    y: Tensor = Ada.apply(x, maps, color, impl)
    return y


def _autograd_grad(impl: str, dy: Tensor, maps: Tensor, color: Tensor | None) -> Tensor:
    dx: Tensor = AdaGrad.apply(dy, maps, color, impl)
    return dx


register(
    "ada",
    "(Tensor x, Tensor maps, Tensor? color) -> Tensor",
    fake=_fake,
    autograd=_autograd,
    triton=deferred(__package__, "ada"),
)
register(
    "ada_grad",
    "(Tensor dy, Tensor maps, Tensor? color) -> Tensor",
    fake=_fake,
    autograd=_autograd_grad,
    triton=deferred(__package__, "ada_grad"),
)
register(
    "ada_params",
    "(Tensor p, Tensor plan, int n, int seed, int offset, int height, int width)"
    " -> (Tensor maps, Tensor table)",
    fake=fake_params,
    autograd=None,
    triton=ada_params,
)
