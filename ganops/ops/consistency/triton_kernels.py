"""The consistency loss in Triton; formulas of csrc/consistency/consistency_math.h.

Each half of the batch is (samples, row); what gives one number for the whole batch sees one sample.
A row is cut into pieces, one program each; sums are finished in a fixed order: same input, same
bits. A row of one piece (the logits of a batch) is finished by the program that sums it.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._autograd import has_dense_rows
from .._triton import cdiv, launch

BLOCK = 1024  # pairs in registers at a time
PIECE = 8 * BLOCK  # pairs per program
SUMS = 128  # pieces finished at a time


@triton.jit
def _load(pointer, offsets, mask, DOUBLE: tl.constexpr):
    v = tl.load(pointer + offsets, mask=mask, other=0.0)
    return v.to(tl.float64) if DOUBLE else v.to(tl.float32)


@triton.jit
def _spread(value, like):
    """A float64 argument in the precision of the computation (a plain float would be float32)."""
    return tl.full(like.shape, value, like.dtype)


@triton.jit
def _places(row, pieces, start, PIECE: tl.constexpr, BLOCK: tl.constexpr):
    """Places in a half of one block of this program's piece, and which of them there are."""
    program = tl.program_id(0).to(tl.int64)
    within = program % pieces * PIECE + start + tl.arange(0, BLOCK)
    return program // pieces * row + within, within < row


@triton.jit
def sum_kernel(
    x, y, out,  # (2, B, row), likewise, (B, pieces)
    row, half, pieces, scale: tl.float64,
    SQUARE: tl.constexpr, DOUBLE: tl.constexpr, PIECE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """scale <Dx, Dy> of each piece."""
    acc = tl.zeros([BLOCK], tl.float64 if DOUBLE else tl.float32)
    for start in range(0, PIECE, BLOCK):
        at, mask = _places(row, pieces, start, PIECE, BLOCK)
        dx = _load(x, at, mask, DOUBLE) - _load(x, half + at, mask, DOUBLE)
        dy = dx
        if not SQUARE:
            dy = _load(y, at, mask, DOUBLE) - _load(y, half + at, mask, DOUBLE)
        acc += dx * dy
    total = tl.sum(acc, 0)
    tl.store(out + tl.program_id(0), total * _spread(scale, total))


@triton.jit
def finish_kernel(
    partial, out,  # (B, pieces), (B,)
    pieces, scale: tl.float64, DOUBLE: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(0).to(tl.int64)
    acc = tl.zeros([SUMS], tl.float64 if DOUBLE else tl.float32)
    first = 0
    while first < pieces:
        k = first + tl.arange(0, SUMS)
        acc += tl.load(partial + sample * pieces + k, mask=k < pieces, other=0.0)
        first += SUMS
    total = tl.sum(acc, 0)
    tl.store(out + sample, total * _spread(scale, total))


@triton.jit
def grad_kernel(
    s, x, out,  # (B,) or (), (2, B, row), likewise
    row, half, pieces, scale: tl.float64,
    DOUBLE: tl.constexpr, PIECE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    factor = tl.load(s + tl.program_id(0).to(tl.int64) // pieces)
    k = _spread(scale, factor) * factor
    for start in range(0, PIECE, BLOCK):
        at, mask = _places(row, pieces, start, PIECE, BLOCK)
        a, b = _load(x, at, mask, DOUBLE), _load(x, half + at, mask, DOUBLE)
        tl.store(out + at, (k * (a - b)).to(out.dtype.element_ty), mask=mask)
        tl.store(out + half + at, (k * (b - a)).to(out.dtype.element_ty), mask=mask)


class _Halves:
    """A batch of pairs as twice (samples, row), and the launch shapes that follow."""

    def __init__(self, x: Tensor, per_sample: bool) -> None:
        self.x = x if has_dense_rows(x) else x.contiguous()
        self.samples = x.shape[0] // 2 if per_sample else 1
        self.half = x.numel() // 2
        self.row = self.half // self.samples
        self.pieces = max(cdiv(self.row, PIECE), 1)
        self.double = x.dtype == torch.float64
        self.sums = (self.samples,) if per_sample else ()

    def launch(self, kernel: Any, *args: Any, **meta: Any) -> None:
        launch(kernel, self.samples * self.pieces, self.x, *args, **meta, DOUBLE=self.double,
               PIECE=PIECE, BLOCK=BLOCK, enable_fp_fusion=True)  # fmt: skip


def consistency(x: Tensor, y: Tensor | None, scale: float, per_sample: bool) -> Tensor:
    """scale <Dx, Dy>: one launch, or two."""
    h = _Halves(x, per_sample)
    if y is None:
        y = h.x
    elif not all(a == b for a, b, n in zip(y.stride(), h.x.stride(), y.shape) if n > 1):
        y = torch.empty_like(h.x).copy_(y)
    out = x.new_empty(h.sums, dtype=torch.float64 if h.double else torch.float32)
    one = h.pieces == 1
    sums = out if one else out.new_empty(h.samples * h.pieces)
    h.launch(sum_kernel, h.x, y, sums, h.row, h.half, h.pieces, scale if one else 1.0,
             SQUARE=y is h.x)  # fmt: skip
    if not one:
        launch(finish_kernel, h.samples, h.x, sums, out, h.pieces, scale, DOUBLE=h.double,
               SUMS=SUMS, enable_fp_fusion=True)  # fmt: skip
    return out


def consistency_grad(s: Tensor, x: Tensor, scale: float) -> Tensor:
    """scale s Lx: one launch."""
    h = _Halves(x, s.dim() == 1)
    out = torch.empty_like(h.x)
    h.launch(grad_kernel, s.contiguous(), h.x, out, h.row, h.half, h.pieces, scale)
    return out
