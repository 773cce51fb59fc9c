"""Derivatives of pools and pads: y = P x with P fixed (or fixed by indices, where a maximum picks).

    order 1   dx = P' dy          order 2   d dy = P v;  nothing for x

torch's formulas take x beside dy but read only its geometry; they get memory that nobody touches,
so x need not be kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from .._autograd import quick
from .._twins import Like, one_forward_level

aten = torch.ops.aten


@dataclass(frozen=True)
class Fixed:
    """An ATen op `forward(x, *args)` and its adjoint `backward(dy, x, *args)`."""

    name: str  # of the forward op
    args: tuple[Any, ...]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = getattr(aten, self.name)(x, *self.args)
        return y

    def backward(self, dy: Tensor, like: Like) -> Tensor:
        dx: Tensor = getattr(aten, self.name + "_backward")(dy, like.empty(), *self.args)
        return dx


@dataclass(frozen=True)
class AdaptiveAverage:
    """Means over windows that tile the image; their adjoint by two small matrix products."""

    size: tuple[int, int]

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.size)

    def backward(self, dy: Tensor, like: Like) -> Tensor:
        h, w = like.shape[-2:]
        dy = dy if dy.dtype == torch.float64 else dy.float()
        dx = self._windows(h, self.size[0], dy).t() @ dy @ self._windows(w, self.size[1], dy)
        return dx.to(like.dtype)

    @staticmethod
    def _windows(n: int, out: int, dy: Tensor) -> Tensor:
        """(out, n): row i averages pixels floor(i n / out) ... ceil((i + 1) n / out) - 1."""
        i, j = torch.arange(out).unsqueeze(1), torch.arange(n)
        inside = (j >= i * n // out) & (j < ((i + 1) * n + out - 1) // out)
        weights = inside / inside.sum(1, keepdim=True).to(torch.float64)
        return weights.to(dtype=dy.dtype, device=dy.device)


@quick
class LinearMap(Function):
    """y = P x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, fixed: Fixed | AdaptiveAverage) -> Tensor:
        return fixed.forward(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.fixed = inputs
        ctx.like = Like.of(x)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, None]:
        return None if dy is None else ctx.fixed.backward(dy, ctx.like), None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, _: None) -> Tensor:
        one_forward_level("pool")
        y_t: Tensor = ctx.fixed.forward(x_t)
        return y_t


@dataclass(frozen=True)
class Maximum:
    """A max pool; `adaptive` has the output size as its only argument."""

    adaptive: bool
    args: tuple[Any, ...]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        op = aten.adaptive_max_pool2d if self.adaptive else aten.max_pool2d_with_indices
        y, indices = op(x, *self.args)
        return y, indices

    def backward(self, dy: Tensor, like: Like, indices: Tensor) -> Tensor:
        x = like.empty()
        if self.adaptive:
            dx: Tensor = aten.adaptive_max_pool2d_backward(dy, x, indices)
        else:
            dx = aten.max_pool2d_with_indices_backward(dy, x, *self.args, indices)
        return dx


@quick
class MaxPool(Function):
    """(y, indices): the largest of each window and where it is in its image."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, pool: Maximum) -> tuple[Tensor, Tensor]:
        return pool.forward(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, ctx.pool = inputs
        _, indices = output
        ctx.like = Like.of(x)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(indices)
        ctx.save_for_backward(indices)
        ctx.save_for_forward(indices)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, _: Any) -> tuple[Tensor | None, None]:
        if dy is None:
            return None, None
        return ctx.pool.backward(dy, ctx.like, *ctx.saved_tensors), None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, _: None) -> tuple[Tensor, None]:
        one_forward_level("pool")
        (indices,) = ctx.saved_tensors
        flat = (*indices.shape[:-2], -1)
        return x_t.reshape(flat).gather(-1, indices.reshape(flat)).reshape(indices.shape), None
