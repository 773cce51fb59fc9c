"""Spectral normalisation of one weight in plain PyTorch: the definition of correct.

Any device, differentiable to any order, and under every transform; the derivative of the compiled
kernels' first order is composed here too.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def normalised(
    w: Tensor, u: Tensor, v: Tensor, n_iterations: int, eps: float, dim: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(W / sigma, u, v, sigma), the vectors after the iterations; u and v are updated in place."""
    with full_precision(w.device):
        wide = matrix(w, dim).to(reduced(w))
        with torch.no_grad():
            new_u, new_v = iterated(wide.detach(), u, v, n_iterations, eps)
        sigma = torch.dot(new_u, torch.mv(wide, new_v))
        y = w / sigma if w.dtype == sigma.dtype else (w.to(sigma.dtype) / sigma).to(w.dtype)
        return y, new_u, new_v, sigma


def iterated(
    wide: Tensor, u: Tensor, v: Tensor, n_iterations: int, eps: float
) -> tuple[Tensor, Tensor]:
    """u, v as new tensors: the buffers change under the graph."""
    if n_iterations == 0:
        return u.to(wide.dtype, copy=True), v.to(wide.dtype, copy=True)
    new_v = v.to(wide.dtype)
    for _ in range(n_iterations):
        wv = torch.mv(wide, new_v)
        new_u = wv / torch.linalg.vector_norm(wv).clamp_min(eps)
        wu = torch.mv(wide.t(), new_u)
        new_v = wu / torch.linalg.vector_norm(wu).clamp_min(eps)
    for kept, new in ((u, new_u), (v, new_v)):
        if torch.compiler.is_compiling():
            torch.mul(new, 1, out=kept)  # torch.func.grad refuses copy_ there, and vmap this
        else:
            _Store.apply(new, kept)
    return new_u, new_v


class _Store(Function):
    """kept <- new, beneath the transforms of torch.func, which refuse to write what they captured.

    Both are constants, and what is returned is nobody's.
    """

    @staticmethod
    def forward(new: Tensor, kept: Tensor) -> Tensor:
        return kept.copy_(new).new_empty(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[None, None]:
        return None, None

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], new: Tensor, kept: Tensor) -> tuple[Any, None]:
        of_new, of_kept = in_dims
        if of_kept is None:
            raise ValueError(
                "spectral_norm_weights: expected vectors of its own for each weight under vmap, as "
                "they are updated in place, got the same for all; n_iterations=0 updates nothing"
            )
        new = new if of_new is None else new.movedim(of_new, 0)
        return _Store.apply(new, kept.movedim(of_kept, 0)), None


def grad(g: Tensor, y: Tensor, u: Tensor, v: Tensor, sigma: Tensor, dim: int) -> Tensor:
    """dW = (G - <G, Y> u v^T) / sigma."""
    with full_precision(g.device):
        wide_g, wide_y = g.to(sigma.dtype), y.to(sigma.dtype)
        direction = unmatrix(torch.outer(u, v), g, dim)
        return ((wide_g - (wide_g * wide_y).sum() * direction) / sigma).to(y.dtype)


def grad_backward(
    into: Tensor, g: Tensor, y: Tensor, u: Tensor, v: Tensor, sigma: Tensor, dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of <into, grad(...)> with respect to g, y and sigma.

    With c = u^T V v: (V - c Y) / sigma, -c G / sigma, and (c <G, Y> - <V, G>) / sigma^2.
    """
    with full_precision(g.device):
        wide, wide_g, wide_y = (t.to(sigma.dtype) for t in (into, g, y))
        c = (matrix(wide, dim) * torch.outer(u, v)).sum()
        d_sigma = (c * (wide_g * wide_y).sum() - (wide * wide_g).sum()) / (sigma * sigma)
        d_g, d_y = (wide - c * wide_y) / sigma, -(c / sigma) * wide_g
        return d_g.to(g.dtype), d_y.to(y.dtype), d_sigma


def reduced(w: Tensor) -> torch.dtype:
    """What is computed in: half types are multiplied in float32."""
    return torch.float64 if w.dtype == torch.float64 else torch.float32


def full_precision(device: torch.device) -> Any:
    """Turns autocast off, where it is on: its context takes as long as a layer's kernels."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def matrix(w: Tensor, dim: int) -> Tensor:
    """dim first, the others flattened; a view of contiguous weights for dim 0."""
    rows_first = w.movedim(dim, 0) if dim else w
    rows = rows_first.shape[0]
    return rows_first.reshape(rows, w.numel() // max(rows, 1))


def unmatrix(rows: Tensor, like: Tensor, dim: int) -> Tensor:
    """The inverse of `matrix`, to the shape of `like`."""
    if dim == 0:
        return rows.reshape(like.shape)
    return rows.reshape(like.movedim(dim, 0).shape).movedim(0, dim)
