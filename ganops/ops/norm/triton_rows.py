"""The second order of norms whose weights differ from number to number, in Triton."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import cdiv, launch
from .triton_kernels import BLOCK, PIECE, ROW_SUMS, TILE, _load, _over, _row


@triton.jit
def _weights(w, a, at, mask, like, HAS_W: tl.constexpr, HAS_A: tl.constexpr):
    one, none = like * 0.0 + 1.0, like * 0.0
    return (
        tl.load(w + at, mask=mask, other=0.0) if HAS_W else one,
        tl.load(a + at, mask=mask, other=0.0) if HAS_A else none,
    )


@triton.jit
def row_sums_kernel(
    v, dy, x, mean, rstd, w, a, partial,  # (rows, n) x 3, ..., (rows, pieces, ROW_SUMS)
    n, period, pieces,
    CENTERED: tl.constexpr, HAS_W: tl.constexpr, HAS_A: tl.constexpr, DOUBLE: tl.constexpr,
    PIECE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    r = tl.load(rstd + row)
    m = tl.load(mean + row) if CENTERED else r * 0.0
    zero = tl.zeros([BLOCK], tl.float64 if DOUBLE else tl.float32)
    sg, sv, sgx, svx, svg, sad, sadx = zero, zero, zero, zero, zero, zero, zero
    for start in range(0, PIECE, BLOCK):
        within = piece * PIECE + start + tl.arange(0, BLOCK)
        mask = within < n
        at = row * n + within
        d, u = _load(dy, at, mask, DOUBLE), _load(v, at, mask, DOUBLE)
        h = (_load(x, at, mask, DOUBLE) - m) * r
        wi, ai = _weights(w, a, row % period * n + within, mask, d, HAS_W, HAS_A)
        if HAS_A:  # first: Triton 3.6 runs out of registers on sm_100 where it comes last
            o = ai * d
            sad += o
            sadx += o * h
        g = wi * d
        sg += g
        sgx += g * h
        sv += u
        svx += u * h
        svg += u * g
    to = partial + (row * pieces + piece) * ROW_SUMS
    tl.store(to, tl.sum(sg, 0))
    tl.store(to + 1, tl.sum(sv, 0))
    tl.store(to + 2, tl.sum(sgx, 0))
    tl.store(to + 3, tl.sum(svx, 0))
    tl.store(to + 4, tl.sum(svg, 0))
    tl.store(to + 5, tl.sum(sad, 0))
    tl.store(to + 6, tl.sum(sadx, 0))


@triton.jit
def row_write_kernel(
    v, dy, x, mean, rstd, w, a, c, partial, e, d_dy, d_x,  # e: (rows, 2), tx and t1 for d_w
    n, period, pieces,
    CENTERED: tl.constexpr, HAS_W: tl.constexpr, HAS_A: tl.constexpr, HAS_C: tl.constexpr,
    DOUBLE: tl.constexpr, PIECE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    r = tl.load(rstd + row)
    m = tl.load(mean + row) if CENTERED else r * 0.0
    g, u1, gx, vx = r * 0.0, r * 0.0, r * 0.0, r * 0.0
    vg, ad, adx = r * 0.0, r * 0.0, r * 0.0
    p = 0
    while p < pieces:
        at_sum = partial + (row * pieces + p) * ROW_SUMS
        g += tl.load(at_sum)
        u1 += tl.load(at_sum + 1)
        gx += tl.load(at_sum + 2)
        vx += tl.load(at_sum + 3)
        vg += tl.load(at_sum + 4)
        ad += tl.load(at_sum + 5)
        adx += tl.load(at_sum + 6)
        p += 1
    k = _over(n, r)
    tx, t1, kg, kv, kx, k1 = _row(
        g * k, u1 * k, gx * k, vx * k, vg * k, ad * k, adx * k, r, CENTERED
    )
    if piece == 0:
        tl.store(e + 2 * row, tx)
        tl.store(e + 2 * row + 1, t1)
    for start in range(0, PIECE, BLOCK):
        within = piece * PIECE + start + tl.arange(0, BLOCK)
        mask = within < n
        at = row * n + within
        d, u = _load(dy, at, mask, DOUBLE), _load(v, at, mask, DOUBLE)
        h = (_load(x, at, mask, DOUBLE) - m) * r
        wi, ai = _weights(w, a, row % period * n + within, mask, d, HAS_W, HAS_A)
        to = wi * (r * u + tx * h + t1) + ai * h
        if HAS_C:
            to += tl.load(c + row % period * n + within, mask=mask, other=0.0)
        tl.store(d_dy + at, to.to(d_dy.dtype.element_ty), mask=mask)
        to = (kg * wi + r * ai) * d + kv * u + kx * h + k1
        tl.store(d_x + at, to.to(d_x.dtype.element_ty), mask=mask)


@triton.jit
def row_dw_kernel(
    v, dy, x, mean, rstd, e, out,  # out: (chunks, period, n)
    n, rows, period, lines,
    CENTERED: tl.constexpr, DOUBLE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    residue, chunk = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    within = tl.program_id(0) * TILE + tl.arange(0, TILE)
    total = tl.zeros([TILE], tl.float64 if DOUBLE else tl.float32)
    i = 0
    while i < lines:
        row = (chunk * lines + i) * period + residue
        mask = (within < n) & (row + 0 * within < rows)
        own = tl.minimum(row, rows - 1)  # beyond the last row, dy is masked to zero
        r = tl.load(rstd + own)
        m = tl.load(mean + own) if CENTERED else r * 0.0
        tx, t1 = tl.load(e + 2 * own), tl.load(e + 2 * own + 1)
        at = row * n + within
        h = (_load(x, at, mask, DOUBLE) - m) * r
        t = r * _load(v, at, mask, DOUBLE) + tx * h + t1
        total += _load(dy, at, mask, DOUBLE) * t
        i += 1
    tl.store(out + (chunk * period + residue) * n + within, total, mask=within < n)


def rows(
    v: Tensor, dy: Tensor, x: Tensor, mean: Tensor | None, rstd: Tensor, w: Tensor | None,
    v_w: Tensor | None, v_b: Tensor | None, d_dy: Tensor, d_x: Tensor, weights: int, want_w: bool,
) -> Tensor:  # fmt: skip
    """Writes d_dy and d_x, and returns d_w."""
    count, n = x.shape[0] * x.shape[1], x.shape[2]
    period, pieces = max(weights // n, 1), cdiv(n, PIECE)
    m, centered = rstd if mean is None else mean, mean is not None
    meta: dict[str, Any] = {"CENTERED": centered, "DOUBLE": x.dtype == torch.float64}
    block = {"HAS_W": w is not None, "HAS_A": v_w is not None, "PIECE": PIECE, "BLOCK": BLOCK}
    partial, e = rstd.new_empty(count * pieces * 7), rstd.new_empty(2 * count)
    w, a, c = (rstd if t is None else t for t in (w, v_w, v_b))
    launch(
        row_sums_kernel, (count, pieces), x,
        v, dy, x, m, rstd, w, a, partial, n, period, pieces, **meta, **block,
        enable_fp_fusion=True,
    )  # fmt: skip
    launch(
        row_write_kernel, (count, pieces), x,
        v, dy, x, m, rstd, w, a, c, partial, e, d_dy, d_x, n, period, pieces,
        HAS_C=v_b is not None, **meta, **block, enable_fp_fusion=True,
    )  # fmt: skip
    if not want_w:
        return rstd.new_empty(0)
    repeats = count // period
    lines = max(16, cdiv(repeats, 32))
    chunks = cdiv(repeats, lines)
    out = rstd.new_empty(chunks, weights)
    launch(
        row_dw_kernel, (cdiv(n, TILE), period, chunks), x,
        v, dy, x, m, rstd, e, out, n, count, period, lines, TILE=TILE, **meta,
        enable_fp_fusion=True,
    )  # fmt: skip
    return out.sum(0)
