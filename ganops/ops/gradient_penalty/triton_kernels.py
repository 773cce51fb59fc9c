"""The gradient penalty's reduction in Triton; formulas of gradient_penalty_math.h.

A row is cut into pieces, one program each, so that few long rows fill a GPU as well as many short
ones do. Sums are finished by one program in a fixed order: same input, same bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._autograd import is_dense
from .._triton import cdiv, jit, tl

BLOCK = 1024  # elements in registers at a time
PIECE = 8 * BLOCK  # elements per program
SAMPLES = 128  # samples finished at a time


@jit
def _load(pointer, offsets, mask, DOUBLE: tl.constexpr):
    v = tl.load(pointer + offsets, mask=mask, other=0.0)
    return v.to(tl.float64) if DOUBLE else v.to(tl.float32)


@jit
def _spread(value, like):
    """A float64 argument in the precision of the computation (a plain float would be float32)."""
    return tl.full(like.shape, value, like.dtype)


@jit
def _flat(n, center, one_sided):
    return ((one_sided != 0) & (n <= center)) | ((n == 0.0) & (center != 0.0))


@jit
def _k1(n, center, one_sided):
    flat = _flat(n, center, one_sided)
    k = 2.0 * (n - center) / tl.where(n == 0.0, 1.0, n)
    return tl.where(center == 0.0, 2.0, tl.where(flat, 0.0, k))


@jit
def _k2(n, center, one_sided):
    safe = tl.where(n == 0.0, 1.0, n)
    flat = _flat(n, center, one_sided) | (center == 0.0)
    return tl.where(flat, 0.0, 2.0 * center / safe / safe)


@jit
def dots_kernel(
    a, b, partial,  # (B, row), (B, row), (B, pieces)
    row, pieces, DOUBLE: tl.constexpr, PIECE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    sample, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    acc = tl.zeros([BLOCK], tl.float64 if DOUBLE else tl.float32)
    for start in range(0, PIECE, BLOCK):
        within = piece * PIECE + start + tl.arange(0, BLOCK)
        mask = within < row
        offsets = sample * row + within
        acc += _load(a, offsets, mask, DOUBLE) * _load(b, offsets, mask, DOUBLE)
    tl.store(partial + sample * pieces + piece, tl.sum(acc, 0))


@jit
def value_kernel(
    partial, norms, value,  # (B, pieces), (B,), ()
    samples, pieces, center: tl.float64, one_sided, DOUBLE: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    total = tl.zeros([SAMPLES], tl.float64 if DOUBLE else tl.float32)
    center = _spread(center, total)
    for first in range(0, samples, SAMPLES):
        b = first + tl.arange(0, SAMPLES)
        mask = b < samples
        squares = tl.zeros([SAMPLES], tl.float64 if DOUBLE else tl.float32)
        for piece in range(0, pieces):
            squares += tl.load(partial + b * pieces + piece, mask=mask, other=0.0)
        n = tl.sqrt(squares)
        tl.store(norms + b, n, mask=mask)
        d = n - center
        d = tl.where((one_sided != 0) & (d < 0.0), 0.0, d)
        total += tl.where(mask, d * d, 0.0)
    tl.store(value, tl.sum(total, 0) / samples)


@jit
def grad_kernel(
    go, g, norms, out,  # (), (B, row), (B,), (B, row)
    samples, row, center: tl.float64, one_sided,
    DOUBLE: tl.constexpr, PIECE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    sample, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    n = tl.load(norms + sample)
    k = tl.load(go) / samples * _k1(n, _spread(center, n), one_sided)
    for start in range(0, PIECE, BLOCK):
        within = piece * PIECE + start + tl.arange(0, BLOCK)
        mask = within < row
        offsets = sample * row + within
        u = k * _load(g, offsets, mask, DOUBLE)
        tl.store(out + offsets, u.to(out.dtype.element_ty), mask=mask)


@jit
def grad2_kernel(
    v, go, g, norms, partial, out,  # (B, row), (), (B, row), (B,), (B, pieces), (B, row)
    samples, row, pieces, center: tl.float64, one_sided,
    DOUBLE: tl.constexpr, PIECE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    sample, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    scale = tl.load(go) / samples
    n = tl.load(norms + sample)
    center = _spread(center, n)
    dot = scale * 0.0
    for p in range(0, pieces):
        dot += tl.load(partial + sample * pieces + p)
    kv = scale * _k1(n, center, one_sided)
    kg = scale * _k2(n, center, one_sided) * (dot / tl.where(n == 0.0, 1.0, n))
    for start in range(0, PIECE, BLOCK):
        within = piece * PIECE + start + tl.arange(0, BLOCK)
        mask = within < row
        offsets = sample * row + within
        u = kv * _load(v, offsets, mask, DOUBLE) + kg * _load(g, offsets, mask, DOUBLE)
        tl.store(out + offsets, u.to(out.dtype.element_ty), mask=mask)


@jit
def go_kernel(
    partial, norms, d_go,  # (B, pieces), (B,), ()
    samples, pieces, center: tl.float64, one_sided, DOUBLE: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    total = tl.zeros([SAMPLES], tl.float64 if DOUBLE else tl.float32)
    center = _spread(center, total)
    for first in range(0, samples, SAMPLES):
        b = first + tl.arange(0, SAMPLES)
        mask = b < samples
        dot = tl.zeros([SAMPLES], tl.float64 if DOUBLE else tl.float32)
        for piece in range(0, pieces):
            dot += tl.load(partial + b * pieces + piece, mask=mask, other=0.0)
        k = _k1(tl.load(norms + b, mask=mask, other=1.0), center, one_sided)
        total += tl.where(mask, k * dot, 0.0)
    tl.store(d_go, tl.sum(total, 0) / samples)


class _Rows:
    """A gradient as (samples, row) and the launch shapes that follow."""

    def __init__(self, grad: Tensor) -> None:
        dense = is_dense(grad, 1) and (
            grad.shape[0] <= 1 or grad.stride(0) == grad.numel() // grad.shape[0]
        )
        self.g = grad if dense else grad.contiguous()
        self.samples = grad.shape[0]
        self.row = grad.numel() // self.samples
        self.pieces = max(cdiv(self.row, PIECE), 1)
        self.double = grad.dtype == torch.float64
        self.dtype = torch.float64 if self.double else torch.float32

    def launch(self, kernel: Any, *args: Any) -> None:
        kernel[(self.samples, self.pieces)](
            *args, DOUBLE=self.double, PIECE=PIECE, BLOCK=BLOCK, enable_fp_fusion=True
        )

    def finish(self, kernel: Any, *args: Any) -> None:
        kernel[(1,)](*args, DOUBLE=self.double, SAMPLES=SAMPLES, enable_fp_fusion=True)

    def dots(self, a: Tensor, b: Tensor) -> Tensor:
        partial = self.g.new_empty((self.samples, self.pieces), dtype=self.dtype)
        self.launch(dots_kernel, a, b, partial, self.row, self.pieces)
        return partial


def gradient_penalty(grad: Tensor, center: float, one_sided: bool) -> tuple[Tensor, Tensor]:
    """Order 0: two launches."""
    r = _Rows(grad)
    norms = r.g.new_empty(r.samples, dtype=r.dtype)
    value = r.g.new_empty((), dtype=r.dtype)
    r.finish(value_kernel, r.dots(r.g, r.g), norms, value,
             r.samples, r.pieces, center, int(one_sided))  # fmt: skip
    return value, norms


def gradient_penalty_grad(
    go: Tensor, grad: Tensor, norms: Tensor, center: float, one_sided: bool
) -> Tensor:
    """Order 1: one launch."""
    r = _Rows(grad)
    out = torch.empty_like(r.g)
    r.launch(grad_kernel, go, r.g, norms, out, r.samples, r.row, center, int(one_sided))
    return out


def gradient_penalty_fused(
    grad: Tensor, center: float, one_sided: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Value and gradient: three launches; the second read of grad finds it in L2."""
    value, norms = gradient_penalty(grad, center, one_sided)
    go = torch.full_like(value, scale)
    return value, gradient_penalty_grad(go, grad, norms, center, one_sided)


def gradient_penalty_grad2(
    v: Tensor, go: Tensor, grad: Tensor, norms: Tensor, center: float, one_sided: bool
) -> tuple[Tensor, Tensor]:
    """Order 2: three launches."""
    r = _Rows(grad)
    same = all(a == b for a, b, n in zip(v.stride(), r.g.stride(), v.shape) if n > 1)
    v = v if same else torch.empty_like(r.g).copy_(v)
    out, d_go = torch.empty_like(r.g), torch.empty_like(go)
    partial = r.dots(v, r.g)
    r.finish(go_kernel, partial, norms, d_go, r.samples, r.pieces, center, int(one_sided))
    r.launch(grad2_kernel, v, go, r.g, norms, partial, out,
             r.samples, r.row, r.pieces, center, int(one_sided))  # fmt: skip
    return d_go, out
