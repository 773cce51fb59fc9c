"""What the twins of torch's own functions share.

A twin returns what torch's function returns, and differs in what its backward does: torch.autograd
Functions over public ATen operations, whose saved tensors are read detached where the derivative is
piecewise constant. The stock formulas then carry every further order, and have nothing to send to
the primal network but what is truly there; where stock PyTorch sends zeros, autograd runs the whole
primal backward on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import Parameter

from ._autograd import is_dense, refuse_nested_forward, transformed


def serves(*tensors: Tensor | None) -> bool:
    """May a twin take these? Otherwise the caller hands over to torch's own function.

    Not while compiling (a Python Function inside torch.func.grad inside torch.compile loses its
    derivative without a word), and not for subclasses, which have rules of their own.
    """
    if torch.compiler.is_compiling():
        return False
    for t in tensors:
        if t is not None and not (
            type(t) in (Tensor, Parameter) and t.is_floating_point() and t.layout == torch.strided
        ):
            return False
    return True


def autocast_casts(t: Tensor) -> bool:
    """Is autocast on, here and now, for t's device?"""
    device = t.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def one_forward_level(op: str) -> None:
    """Every twin's jvp starts with this."""
    refuse_nested_forward(op, f"torch's own {op}")


def writable(y: Tensor) -> Tensor:
    """A Function's result for an activation in place: under torch.func.vmap it is a view, which
    nothing may change, and its copy is none."""
    return y.clone() if transformed() else y


class Elementwise(Function):
    """Under vmap an elementwise function is itself, with one more dimension in front."""

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        moved = [_in_front(a, d, info.batch_size) for a, d in zip(args, in_dims)]
        out: Any = cls.apply(*moved)
        return out, (0, 0) if isinstance(out, tuple) else 0


def _in_front(t: Any, dim: int | None, size: int) -> Any:
    if not isinstance(t, Tensor):
        return t
    return t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)


@dataclass(frozen=True)
class Like:
    """A tensor's geometry without its values: backward kernels ask for an input they never read."""

    shape: tuple[int, ...]
    stride: tuple[int, ...] | None  # None: contiguous
    dtype: torch.dtype
    device: torch.device

    @staticmethod
    def of(t: Tensor) -> Like:
        dense = t.is_contiguous() or is_dense(t)
        return Like(tuple(t.shape), t.stride() if dense else None, t.dtype, t.device)

    def empty(self) -> Tensor:
        """Uninitialised memory, touched by nobody."""
        if self.stride is None:
            return torch.empty(self.shape, dtype=self.dtype, device=self.device)
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)


def rows_like(c: Tensor, t: Tensor) -> Tensor:
    """c, one number for each row of t, to multiply t by."""
    return c.to(t.dtype).reshape(-1, *[1] * (t.dim() - 1))


def times_rows(t: Tensor, c: Tensor) -> Tensor:
    """t, row n times c_n."""
    return t * rows_like(c, t)


def sum_rows(t: Tensor, c: Tensor) -> Tensor:
    """The sum of t's rows, (B, C), row n times c_n: one product, which autocast must not take."""
    if autocast_casts(t):
        with torch.autocast(t.device.type, enabled=False):
            return sum_rows(t, c)
    return t.t().mv(c.to(t.dtype))
