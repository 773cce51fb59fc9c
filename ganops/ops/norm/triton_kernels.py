"""The second order of norms in Triton: formulas and layouts of csrc/norm/norm_{math,layout}.h.

Three launches. Cells (segments, batch, columns): the five sums of each cell, then each row's eight
numbers and its cells' coefficients, then the results. Rows (triton_rows.py): the seven sums of each
row, the results, and d_w if wanted. Sums are finished in a fixed order: same input, same bits.
Loops up to an argument are `while`, as in gradient_penalty.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import cdiv, launch
from .geometry import BATCH, COLUMNS, ROWS

BLOCK = 1024  # numbers in registers at a time
PIECE = 8 * BLOCK  # numbers per program
LANES = 128  # columns, or cells, per program
LINES = 64  # lines of columns per program, at least
TILE = 512  # positions per program of d_w
SUMS: Any = tl.constexpr(5)
ROW_SUMS: Any = tl.constexpr(7)


@triton.jit
def _load(pointer, offsets, mask, DOUBLE: tl.constexpr):
    v = tl.load(pointer + offsets, mask=mask, other=0.0)
    return v.to(tl.float64) if DOUBLE else v.to(tl.float32)


@triton.jit
def _over(n, like):
    """1 / n in the precision of `like`."""
    return 1.0 / tl.full(like.shape, n, like.dtype)


@triton.jit
def _row(g, v, gx, vx, vg, ad, adx, r, CENTERED: tl.constexpr):
    """norm_row: T(v) = r v + tx xhat + t1; d_x = kg g + kv v + r a dy + kx xhat + k1."""
    if CENTERED:
        kx = -r * r * (vg - g * v - 3.0 * gx * vx) - r * adx
        k1 = r * r * (vx * g + gx * v) - r * ad
        t1 = -r * v
    else:
        kx = -r * r * (vg - 3.0 * gx * vx) - r * adx
        k1 = r * 0.0
        t1 = r * 0.0
    return -r * vx, t1, -r * r * vx, -r * r * gx, kx, k1


@triton.jit
def segment_sums_kernel(
    v, dy, x, mean, rstd, partial,  # (cells, n) x 3, (rows,) x 2, (pieces, SUMS, cells)
    n, cells, rows, members,
    IS_BATCH: tl.constexpr, CENTERED: tl.constexpr, DOUBLE: tl.constexpr,
    PIECE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    cell, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row = cell % rows if IS_BATCH else cell // members
    r = tl.load(rstd + row)
    m = tl.load(mean + row) if CENTERED else r * 0.0
    zero = tl.zeros([BLOCK], tl.float64 if DOUBLE else tl.float32)
    sd, sv, sdx, svx, svd = zero, zero, zero, zero, zero
    for start in range(0, PIECE, BLOCK):
        within = piece * PIECE + start + tl.arange(0, BLOCK)
        mask = within < n
        at = cell * n + within
        d, u = _load(dy, at, mask, DOUBLE), _load(v, at, mask, DOUBLE)
        h = (_load(x, at, mask, DOUBLE) - m) * r
        sd += d
        sv += u
        sdx += d * h
        svx += u * h
        svd += u * d
    to = partial + piece.to(tl.int64) * SUMS * cells + cell
    tl.store(to, tl.sum(sd, 0))
    tl.store(to + cells, tl.sum(sv, 0))
    tl.store(to + 2 * cells, tl.sum(sdx, 0))
    tl.store(to + 3 * cells, tl.sum(svx, 0))
    tl.store(to + 4 * cells, tl.sum(svd, 0))


@triton.jit
def column_sums_kernel(
    v, dy, x, mean, rstd, partial,  # (O, n, inner) x 3, (rows,) x 2, (pieces, SUMS, cells)
    n, inner, cells, members,
    CENTERED: tl.constexpr, DOUBLE: tl.constexpr, LINES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    outer, piece = tl.program_id(1).to(tl.int64), tl.program_id(2)
    column = tl.program_id(0) * LANES + tl.arange(0, LANES)
    inside = column < inner
    cell = outer * inner + column
    r = tl.load(rstd + cell // members, mask=inside, other=0.0)
    m = tl.load(mean + cell // members, mask=inside, other=0.0) if CENTERED else r * 0.0
    sd, sv, sdx, svx, svd = r * 0.0, r * 0.0, r * 0.0, r * 0.0, r * 0.0
    for i in range(0, LINES):
        line = piece * LINES + i
        mask = inside & (line + 0 * column < n)
        at = (outer * n + line) * inner + column
        d, u = _load(dy, at, mask, DOUBLE), _load(v, at, mask, DOUBLE)
        h = (_load(x, at, mask, DOUBLE) - m) * r
        sd += d
        sv += u
        sdx += d * h
        svx += u * h
        svd += u * d
    to = partial + piece.to(tl.int64) * SUMS * cells + cell
    tl.store(to, sd, mask=inside)
    tl.store(to + cells, sv, mask=inside)
    tl.store(to + 2 * cells, sdx, mask=inside)
    tl.store(to + 3 * cells, svx, mask=inside)
    tl.store(to + 4 * cells, svd, mask=inside)


@triton.jit
def _cell_sums(partial, cell, mask, cells, pieces, like):
    d, v, dx, vx, vd = like * 0.0, like * 0.0, like * 0.0, like * 0.0, like * 0.0
    piece = 0
    while piece < pieces:
        at = partial + piece * SUMS * cells + cell
        d += tl.load(at, mask=mask, other=0.0)
        v += tl.load(at + cells, mask=mask, other=0.0)
        dx += tl.load(at + 2 * cells, mask=mask, other=0.0)
        vx += tl.load(at + 3 * cells, mask=mask, other=0.0)
        vd += tl.load(at + 4 * cells, mask=mask, other=0.0)
        piece += 1
    return d, v, dx, vx, vd


@triton.jit
def combine_kernel(
    partial, rstd, w, a, c, out, dw,  # ..., (weights,) x 3, (7, cells), (cells,)
    rows, members, cells, pieces, n, weights,
    IS_BATCH: tl.constexpr, CENTERED: tl.constexpr, HAS_W: tl.constexpr, HAS_A: tl.constexpr,
    HAS_C: tl.constexpr, WANT_W: tl.constexpr, R: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0).to(tl.int64) * R + tl.arange(0, R))[:, None]
    r = tl.load(rstd + row, mask=row < rows, other=0.0)
    zero = r * 0.0 + tl.zeros([R, M], rstd.dtype.element_ty)
    sg, sv, sgx, svx, svg, sad, sadx = zero, zero, zero, zero, zero, zero, zero
    first = 0
    while first < members:
        j = (first + tl.arange(0, M))[None, :]
        mask = (row < rows) & (j < members)
        cell = row + j * rows if IS_BATCH else row * members + j
        d, v, dx, vx, vd = _cell_sums(partial, cell, mask, cells, pieces, zero)
        wj = tl.load(w + cell % weights, mask=mask, other=0.0) if HAS_W else zero + 1.0
        aj = tl.load(a + cell % weights, mask=mask, other=0.0) if HAS_A else zero
        sg += wj * d
        sv += v
        sgx += wj * dx
        svx += vx
        svg += wj * vd
        sad += aj * d
        sadx += aj * dx
        first += M
    k = _over(members, r) * _over(n, r)
    tx, t1, kg, kv, kx, k1 = _row(
        tl.sum(sg, 1)[:, None] * k, tl.sum(sv, 1)[:, None] * k, tl.sum(sgx, 1)[:, None] * k,
        tl.sum(svx, 1)[:, None] * k, tl.sum(svg, 1)[:, None] * k, tl.sum(sad, 1)[:, None] * k,
        tl.sum(sadx, 1)[:, None] * k, r, CENTERED,
    )  # fmt: skip
    first = 0
    while first < members:
        j = (first + tl.arange(0, M))[None, :]
        mask = (row < rows) & (j < members)
        cell = row + j * rows if IS_BATCH else row * members + j
        wj = tl.load(w + cell % weights, mask=mask, other=0.0) if HAS_W else zero + 1.0
        aj = tl.load(a + cell % weights, mask=mask, other=0.0) if HAS_A else zero
        cj = tl.load(c + cell % weights, mask=mask, other=0.0) if HAS_C else zero
        tl.store(out + cell, wj * r, mask=mask)
        tl.store(out + cells + cell, wj * tx + aj, mask=mask)
        tl.store(out + 2 * cells + cell, wj * t1 + cj, mask=mask)
        tl.store(out + 3 * cells + cell, wj * kg + aj * r, mask=mask)
        tl.store(out + 4 * cells + cell, kv + zero, mask=mask)
        tl.store(out + 5 * cells + cell, kx + zero, mask=mask)
        tl.store(out + 6 * cells + cell, k1 + zero, mask=mask)
        if WANT_W:
            d, v, dx, vx, vd = _cell_sums(partial, cell, mask, cells, pieces, zero)
            tl.store(dw + cell, r * vd + tx * dx + t1 * d, mask=mask)
        first += M


@triton.jit
def segment_write_kernel(
    v, dy, x, mean, rstd, e, d_dy, d_x,  # e: (7, cells)
    n, cells, rows, members,
    IS_BATCH: tl.constexpr, CENTERED: tl.constexpr, DOUBLE: tl.constexpr,
    PIECE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    cell, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row = cell % rows if IS_BATCH else cell // members
    r = tl.load(rstd + row)
    m = tl.load(mean + row) if CENTERED else r * 0.0
    ev, ex, e1 = tl.load(e + cell), tl.load(e + cells + cell), tl.load(e + 2 * cells + cell)
    fd, fv = tl.load(e + 3 * cells + cell), tl.load(e + 4 * cells + cell)
    fx, f1 = tl.load(e + 5 * cells + cell), tl.load(e + 6 * cells + cell)
    for start in range(0, PIECE, BLOCK):
        within = piece * PIECE + start + tl.arange(0, BLOCK)
        mask = within < n
        at = cell * n + within
        d, u = _load(dy, at, mask, DOUBLE), _load(v, at, mask, DOUBLE)
        h = (_load(x, at, mask, DOUBLE) - m) * r
        tl.store(d_dy + at, (ev * u + ex * h + e1).to(d_dy.dtype.element_ty), mask=mask)
        tl.store(d_x + at, (fd * d + fv * u + fx * h + f1).to(d_x.dtype.element_ty), mask=mask)


@triton.jit
def column_write_kernel(
    v, dy, x, mean, rstd, e, d_dy, d_x,
    n, inner, cells, members,
    CENTERED: tl.constexpr, DOUBLE: tl.constexpr, LINES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    outer, piece = tl.program_id(1).to(tl.int64), tl.program_id(2)
    column = tl.program_id(0) * LANES + tl.arange(0, LANES)
    inside = column < inner
    cell = outer * inner + column
    r = tl.load(rstd + cell // members, mask=inside, other=0.0)
    m = tl.load(mean + cell // members, mask=inside, other=0.0) if CENTERED else r * 0.0
    e += cell
    ev, ex = tl.load(e, mask=inside), tl.load(e + cells, mask=inside)
    e1, fd = tl.load(e + 2 * cells, mask=inside), tl.load(e + 3 * cells, mask=inside)
    fv, fx = tl.load(e + 4 * cells, mask=inside), tl.load(e + 5 * cells, mask=inside)
    f1 = tl.load(e + 6 * cells, mask=inside)
    for i in range(0, LINES):
        line = piece * LINES + i
        mask = inside & (line + 0 * column < n)
        at = (outer * n + line) * inner + column
        d, u = _load(dy, at, mask, DOUBLE), _load(v, at, mask, DOUBLE)
        h = (_load(x, at, mask, DOUBLE) - m) * r
        tl.store(d_dy + at, (ev * u + ex * h + e1).to(d_dy.dtype.element_ty), mask=mask)
        tl.store(d_x + at, (fd * d + fv * u + fx * h + f1).to(d_x.dtype.element_ty), mask=mask)


class _Cells:
    """Launches for what is made of cells: sums, combine, write."""

    def __init__(self, x: Tensor, rstd: Tensor, kind: int) -> None:
        self.columns, self.batch = kind == COLUMNS, kind == BATCH
        outer, a, b = x.shape
        self.n, self.inner = (a, b) if self.columns else (b, a)
        self.cells = outer * self.inner
        self.rows = rstd.numel()
        self.members = self.cells // self.rows
        # A grid's last dims are short: at most some thousand programs.
        self.lines = max(LINES, 1 << (cdiv(self.n, 1024) - 1).bit_length())
        self.pieces = cdiv(self.n, self.lines if self.columns else PIECE)
        if self.columns:
            self.grid: tuple[int, ...] = (cdiv(self.inner, LANES), outer, self.pieces)
            self.sizes: tuple[int, ...] = (self.n, self.inner, self.cells, self.members)
        else:
            self.grid = (self.cells, self.pieces)
            self.sizes = (self.n, self.cells, self.rows, self.members)

    def stream(self, kernels: tuple[Any, Any], centered: bool, *tensors: Tensor) -> None:
        """The kernel that goes through the numbers: (of segments, of columns)."""
        meta: dict[str, Any] = {"CENTERED": centered, "DOUBLE": tensors[0].dtype == torch.float64}
        if self.columns:
            meta |= {"LINES": self.lines, "LANES": LANES}
        else:
            meta |= {"IS_BATCH": self.batch, "PIECE": PIECE, "BLOCK": BLOCK}
        launch(kernels[self.columns], self.grid, tensors[0], *tensors, *self.sizes, **meta,
               enable_fp_fusion=True)  # fmt: skip


def norm_grad2(
    v: Tensor, dy: Tensor, x: Tensor, mean: Tensor | None, rstd: Tensor, w: Tensor | None,
    v_w: Tensor | None, v_b: Tensor | None, weights: int, kind: int, want_w: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Order 2: three launches, and torch's sum of d_w over repetitions of the weights."""
    v, dy, x = v.contiguous(), dy.contiguous(), x.contiguous()
    d_dy, d_x = torch.empty_like(x), torch.empty_like(x)
    if x.numel() == 0:
        return d_dy, d_x, rstd.new_zeros(weights if want_w else 0)
    if kind == ROWS:
        from .triton_rows import rows

        d_w = rows(v, dy, x, mean, rstd, w, v_w, v_b, d_dy, d_x, weights, want_w)
        return d_dy, d_x, d_w
    k, centered = _Cells(x, rstd, kind), mean is not None
    m = rstd if mean is None else mean
    partial = rstd.new_empty(k.pieces * 5 * k.cells)
    e, dw = rstd.new_empty(7 * k.cells), rstd.new_empty(k.cells if want_w else 0)
    k.stream((segment_sums_kernel, column_sums_kernel), centered, v, dy, x, m, rstd, partial)
    per = min(LANES, 1 << (k.members - 1).bit_length())
    launch(
        combine_kernel, cdiv(k.rows, LANES // per), x,
        partial, rstd, *(rstd if t is None else t for t in (w, v_w, v_b)), e, dw,
        k.rows, k.members, k.cells, k.pieces, k.n, max(weights, 1),
        IS_BATCH=k.batch, CENTERED=centered, HAS_W=w is not None, HAS_A=v_w is not None,
        HAS_C=v_b is not None, WANT_W=want_w, R=LANES // per, M=per, enable_fp_fusion=True,
    )  # fmt: skip
    k.stream((segment_write_kernel, column_write_kernel), centered,
             v, dy, x, m, rstd, e, d_dy, d_x)  # fmt: skip
    return d_dy, d_x, dw.view(-1, weights).sum(0) if want_w else dw
