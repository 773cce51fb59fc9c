"""spectral_norm in Triton: formulas of csrc/spectral_norm/spectral_norm_math.h, weight by weight.

A weight is a contiguous matrix here: those of transposed convolutions, and channels_last ones, are
copied. Sums are finished by one program in a fixed order: same input, same bits.

Loops up to an argument are `while`: the interpreter of Triton 3.6 has no range() over one with
NumPy 2.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import cdiv, launch
from . import reference

BLOCK = 1024
ROWS, COLUMNS = 16, 64  # of the tiles that W^T s is summed in


@triton.jit
def _load(pointer, offsets, mask, DOUBLE: tl.constexpr):
    v = tl.load(pointer + offsets, mask=mask, other=0.0)
    return v.to(tl.float64) if DOUBLE else v.to(tl.float32)


@triton.jit
def products_kernel(w, v, s, columns, DOUBLE: tl.constexpr, BLOCK: tl.constexpr):
    """s = W v, a program for each row."""
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK], tl.float64 if DOUBLE else tl.float32)
    start = 0
    while start < columns:
        at = start + tl.arange(0, BLOCK)
        mask = at < columns
        total += _load(w, row * columns + at, mask, DOUBLE) * _load(v, at, mask, DOUBLE)
        start += BLOCK
    tl.store(s + row, tl.sum(total, 0))


@triton.jit
def transposed_kernel(
    w, s, t, rows, columns, DOUBLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """t = W^T s, a program for every COLUMNS columns."""
    column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    total = tl.zeros([ROWS, COLUMNS], tl.float64 if DOUBLE else tl.float32)
    start = 0
    while start < rows:
        row = (start + tl.arange(0, ROWS))[:, None]
        mask = (row < rows) & (column < columns)
        k = _load(s, row, row < rows, DOUBLE)
        total += k * _load(w, row.to(tl.int64) * columns + column, mask, DOUBLE)
        start += ROWS
    at = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    tl.store(t + at, tl.sum(total, 0), mask=at < columns)


@triton.jit
def _norm(a, n, k, DOUBLE: tl.constexpr, BLOCK: tl.constexpr):
    """|k a|."""
    total = tl.zeros([BLOCK], tl.float64 if DOUBLE else tl.float32)
    start = 0
    while start < n:
        at = start + tl.arange(0, BLOCK)
        x = k * _load(a, at, at < n, DOUBLE)
        total += x * x
        start += BLOCK
    return tl.sqrt(tl.sum(total, 0))


@triton.jit
def _times(a, k, b, n, DOUBLE: tl.constexpr, BLOCK: tl.constexpr):
    start = 0
    while start < n:
        at = start + tl.arange(0, BLOCK)
        tl.store(b + at, k * _load(a, at, at < n, DOUBLE), mask=at < n)
        start += BLOCK


@triton.jit
def finish_kernel(
    s, t, u, v, sigma, rows, columns, eps: tl.float64,
    DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """u, v and sigma from s and t: one program."""
    least = tl.full([1], eps, tl.float64 if DOUBLE else tl.float32)
    norm = _norm(s, rows, tl.full([1], 1.0, least.dtype), DOUBLE, BLOCK)
    unit = 1.0 / tl.where(norm < least, least, norm)
    _times(s, unit, u, rows, DOUBLE, BLOCK)
    norm = _norm(t, columns, unit, DOUBLE, BLOCK)
    other = 1.0 / tl.where(norm < least, least, norm)
    _times(t, unit * other, v, columns, DOUBLE, BLOCK)
    tl.store(sigma + tl.arange(0, 1), norm * (norm * other))


@triton.jit
def dot_kernel(a, b, out, n, DOUBLE: tl.constexpr, BLOCK: tl.constexpr):
    """<a, b> of each block; of all where there is one program, which then loops."""
    total = tl.zeros([BLOCK], tl.float64 if DOUBLE else tl.float32)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    while start < n:
        at = start + tl.arange(0, BLOCK)
        total += _load(a, at, at < n, DOUBLE) * _load(b, at, at < n, DOUBLE)
        start += tl.num_programs(0) * BLOCK
    tl.store(out + tl.program_id(0), tl.sum(total, 0))


@triton.jit
def scale_kernel(w, sigma, y, n, DOUBLE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = _load(w, at, at < n, DOUBLE) / tl.load(sigma)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=at < n)


@triton.jit
def grad_kernel(
    g, u, v, sigma, partial, out, columns, n, pieces, DOUBLE: tl.constexpr, BLOCK: tl.constexpr
):
    """dW = (G - <G, Y> u v^T) / sigma."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    k = tl.load(sigma)
    dot = k * 0.0
    piece = 0
    while piece < pieces:
        dot += tl.load(partial + piece)
        piece += 1
    direction = _load(u, at // columns, mask, DOUBLE) * _load(v, at % columns, mask, DOUBLE)
    value = (_load(g, at, mask, DOUBLE) - dot * direction) / k
    tl.store(out + at, value.to(out.dtype.element_ty), mask=mask)


MOST_PIECES = 256  # of a dot product: summed again by every program that needs it


class _Weight:
    """A weight as a contiguous matrix, and the launch shapes that follow."""

    def __init__(self, w: Tensor, dim: int) -> None:
        self.w = reference.matrix(w, dim).contiguous()
        self.rows, self.columns = self.w.shape
        self.n = w.numel()
        self.meta = {"DOUBLE": w.dtype == torch.float64, "enable_fp_fusion": True}
        self.wide = reference.reduced(w)

    def launch(self, kernel: Any, programs: int, *args: Any, **meta: int) -> None:
        launch(kernel, programs, self.w, *args, **(meta or {"BLOCK": BLOCK}), **self.meta)

    def empty(self, *shape: int) -> Tensor:
        return self.w.new_empty(shape, dtype=self.wide)

    def products(self, v: Tensor) -> Tensor:
        s = self.empty(self.rows)
        self.launch(products_kernel, self.rows, self.w, v, s, self.columns)
        return s

    def iterate(self, v: Tensor, sigma: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        s, t, u, v_next = (*(self.products(v), self.empty(self.columns)),
                           *(self.empty(self.rows), self.empty(self.columns)))  # fmt: skip
        self.launch(transposed_kernel, cdiv(self.columns, COLUMNS), self.w, s, t, self.rows,
                    self.columns, ROWS=ROWS, COLUMNS=COLUMNS)  # fmt: skip
        self.launch(finish_kernel, 1, s, t, u, v_next, sigma, self.rows, self.columns, eps)
        return u, v_next

    def placed(self, rows: Tensor, like: Tensor, dim: int) -> Tensor:
        """A matrix as a tensor of the shape and strides of `like`."""
        plain = dim % like.dim() == 0 and like.is_contiguous()
        out = reference.unmatrix(rows, like, dim)
        return out if plain else torch.empty_like(like).copy_(out)


def spectral_norm(
    ws: Sequence[Tensor], us: Sequence[Tensor], vs: Sequence[Tensor],
    n_iterations: int, eps: float, dim: int,
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:  # fmt: skip
    """Three launches a step and weight, and one for W / sigma."""
    sigmas = ws[0].new_empty(len(ws), dtype=reference.reduced(ws[0]))
    ys, new_us, new_vs = [], [], []
    for i, w in enumerate(ws):
        k, sigma = _Weight(w, dim), sigmas[i : i + 1]
        u, v = us[i].contiguous().clone(), vs[i].contiguous().clone()
        for _ in range(n_iterations):
            u, v = k.iterate(v, sigma, eps)
        if not n_iterations:
            k.launch(dot_kernel, 1, u, k.products(v), sigma, k.rows)
        y = torch.empty_like(k.w)
        k.launch(scale_kernel, cdiv(k.n, BLOCK), k.w, sigma, y, k.n)
        ys.append(k.placed(y, w, dim))
        new_us.append(u)
        new_vs.append(v)
    return ys, new_us, new_vs, sigmas


def spectral_norm_grad(
    gs: Sequence[Tensor], ys: Sequence[Tensor], us: Sequence[Tensor], vs: Sequence[Tensor],
    sigmas: Tensor, dim: int,
) -> list[Tensor]:  # fmt: skip
    """Two launches a weight."""
    found = []
    for i, (g, y, u, v) in enumerate(zip(gs, ys, us, vs)):
        k, wide_y = _Weight(g, dim), _Weight(y, dim).w
        pieces = min(cdiv(k.n, BLOCK), MOST_PIECES)
        partial, out = k.empty(pieces), torch.empty_like(k.w)
        k.launch(dot_kernel, pieces, k.w, wide_y, partial, k.n)
        k.launch(grad_kernel, cdiv(k.n, BLOCK), k.w, u.contiguous(), v.contiguous(),
                 sigmas[i : i + 1], partial, out, k.columns, k.n, pieces)  # fmt: skip
        found.append(k.placed(out, y, dim))
    return found
