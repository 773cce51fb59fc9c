"""The gradient penalty's reduction in Triton; formulas of gradient_penalty_math.h.

A row is cut into pieces, one program each, so that few long rows fill a GPU as well as many short
ones do. Sums are finished by one program in a fixed order: same input, same bits.

Loops up to an argument are `while`: the interpreter of Triton 3.6 has no range() over one with
NumPy 2.4.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._autograd import has_dense_rows
from .._triton import cdiv, launch

BLOCK = 1024  # elements in registers at a time
PIECE = 8 * BLOCK  # elements per program
SAMPLES = 128  # samples finished at a time


@triton.jit
def _load(pointer, offsets, mask, DOUBLE: tl.constexpr):
    v = tl.load(pointer + offsets, mask=mask, other=0.0)
    return v.to(tl.float64) if DOUBLE else v.to(tl.float32)


@triton.jit
def _spread(value, like):
    """A float64 argument in the precision of the computation (a plain float would be float32)."""
    return tl.full(like.shape, value, like.dtype)


@triton.jit
def _small(like, DOUBLE: tl.constexpr):
    """Norms below which a sample is scaled, and by what: SmallNorm of gradient_penalty_math.h."""
    below = _spread(2.0**-400 if DOUBLE else 2.0**-50, like)
    return below, _spread(2.0**800 if DOUBLE else 2.0**100, like)


@triton.jit
def _scale(n, center, DOUBLE: tl.constexpr):
    below, scale = _small(n, DOUBLE)
    return tl.where((center != 0.0) & (n < below), scale, _spread(1.0, n))


@triton.jit
def _flat(n, center, one_sided):
    return ((one_sided != 0) & (n <= center)) | ((n == 0.0) & (center != 0.0))


@triton.jit
def _k1(n, scaled_n, center, one_sided):
    k = 2.0 * (n - center) / tl.where(n == 0.0, 1.0, scaled_n)
    return tl.where(center == 0.0, 2.0, tl.where(_flat(n, center, one_sided), 0.0, k))


@triton.jit
def _k2(n, scaled_n, dot, center, one_sided):
    safe = tl.where(n == 0.0, 1.0, scaled_n)
    flat = _flat(n, center, one_sided) | (center == 0.0)
    return tl.where(flat, 0.0, 2.0 * center / safe * (dot / safe) / safe)


@triton.jit
def _within(pieces, start, PIECE: tl.constexpr, BLOCK: tl.constexpr):
    """Places in its sample of one block of this program's piece."""
    piece = tl.program_id(0).to(tl.int64) % pieces
    return piece * PIECE + start + tl.arange(0, BLOCK)


@triton.jit
def squares_kernel(
    g, partial,  # (B, row), (2, B, pieces)
    samples, row, pieces, DOUBLE: tl.constexpr, PIECE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """|g|^2 of each piece, and |s g|^2 for samples that turn out to be small."""
    program = tl.program_id(0).to(tl.int64)
    plain = tl.zeros([BLOCK], tl.float64 if DOUBLE else tl.float32)
    scaled = plain
    _, scale = _small(plain, DOUBLE)
    for start in range(0, PIECE, BLOCK):
        within = _within(pieces, start, PIECE, BLOCK)
        x = _load(g, program // pieces * row + within, within < row, DOUBLE)
        plain += x * x
        x *= scale
        scaled += x * x
    tl.store(partial + program, tl.sum(plain, 0))
    tl.store(partial + program + samples * pieces, tl.sum(scaled, 0))


@triton.jit
def dots_kernel(
    v, g, norms, partial,  # (B, row), (B, row), (B,), (B, pieces)
    row, pieces, center: tl.float64,
    DOUBLE: tl.constexpr, PIECE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """<v, s g> of each piece."""
    program = tl.program_id(0).to(tl.int64)
    n = tl.load(norms + program // pieces)
    s = _scale(n, _spread(center, n), DOUBLE)
    acc = tl.zeros([BLOCK], tl.float64 if DOUBLE else tl.float32)
    for start in range(0, PIECE, BLOCK):
        within = _within(pieces, start, PIECE, BLOCK)
        mask = within < row
        offsets = program // pieces * row + within
        acc += _load(v, offsets, mask, DOUBLE) * (s * _load(g, offsets, mask, DOUBLE))
    tl.store(partial + program, tl.sum(acc, 0))


@triton.jit
def value_kernel(
    partial, norms, value,  # (2, B, pieces), (B,), ()
    samples, pieces, center: tl.float64, one_sided, DOUBLE: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    total = tl.zeros([SAMPLES], tl.float64 if DOUBLE else tl.float32)
    center = _spread(center, total)
    below, scale = _small(total, DOUBLE)
    first = 0
    while first < samples:
        b = (first + tl.arange(0, SAMPLES)).to(tl.int64)
        mask = b < samples
        squares = tl.zeros([SAMPLES], tl.float64 if DOUBLE else tl.float32)
        scaled = squares
        piece = 0
        while piece < pieces:
            squares += tl.load(partial + b * pieces + piece, mask=mask, other=0.0)
            scaled += tl.load(partial + (samples + b) * pieces + piece, mask=mask, other=0.0)
            piece += 1
        n = tl.where(squares < below * below, tl.sqrt(scaled) / scale, tl.sqrt(squares))
        tl.store(norms + b, n, mask=mask)
        d = n - center
        d = tl.where((one_sided != 0) & (d < 0.0), 0.0, d)
        total += tl.where(mask, d * d, 0.0)
        first += SAMPLES
    tl.store(value, tl.sum(total, 0) / samples)


@triton.jit
def grad_kernel(
    go, g, norms, out,  # (), (B, row), (B,), (B, row)
    samples, row, pieces, center: tl.float64, one_sided,
    DOUBLE: tl.constexpr, PIECE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(0).to(tl.int64) // pieces
    n = tl.load(norms + sample)
    center = _spread(center, n)
    s = _scale(n, center, DOUBLE)
    k = tl.load(go) / samples * _k1(n, s * n, center, one_sided)
    for start in range(0, PIECE, BLOCK):
        within = _within(pieces, start, PIECE, BLOCK)
        mask = within < row
        offsets = sample * row + within
        u = k * (s * _load(g, offsets, mask, DOUBLE))
        tl.store(out + offsets, u.to(out.dtype.element_ty), mask=mask)


@triton.jit
def grad2_kernel(
    v, go, g, norms, partial, out,  # (B, row), (), (B, row), (B,), (B, pieces), (B, row)
    samples, row, pieces, center: tl.float64, one_sided,
    DOUBLE: tl.constexpr, PIECE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(0).to(tl.int64) // pieces
    scale = tl.load(go) / samples
    n = tl.load(norms + sample)
    center = _spread(center, n)
    s = _scale(n, center, DOUBLE)
    dot = _spread(0.0, n)
    p = 0
    while p < pieces:
        dot += tl.load(partial + sample * pieces + p)
        p += 1
    kv = scale * _k1(n, s * n, center, one_sided)
    kg = scale * _k2(n, s * n, dot, center, one_sided)
    for start in range(0, PIECE, BLOCK):
        within = _within(pieces, start, PIECE, BLOCK)
        mask = within < row
        offsets = sample * row + within
        u = kv * _load(v, offsets, mask, DOUBLE) + kg * (s * _load(g, offsets, mask, DOUBLE))
        tl.store(out + offsets, (s * u).to(out.dtype.element_ty), mask=mask)


@triton.jit
def go_kernel(
    partial, norms, d_go,  # (B, pieces), (B,), ()
    samples, pieces, center: tl.float64, one_sided, DOUBLE: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    total = tl.zeros([SAMPLES], tl.float64 if DOUBLE else tl.float32)
    center = _spread(center, total)
    first = 0
    while first < samples:
        b = (first + tl.arange(0, SAMPLES)).to(tl.int64)
        mask = b < samples
        dot = tl.zeros([SAMPLES], tl.float64 if DOUBLE else tl.float32)
        piece = 0
        while piece < pieces:
            dot += tl.load(partial + b * pieces + piece, mask=mask, other=0.0)
            piece += 1
        n = tl.load(norms + b, mask=mask, other=1.0)
        k = _k1(n, _scale(n, center, DOUBLE) * n, center, one_sided)
        total += tl.where(mask, k * dot, 0.0)
        first += SAMPLES
    tl.store(d_go, tl.sum(total, 0) / samples)


class _Rows:
    """A gradient as (samples, row) and the launch shapes that follow."""

    def __init__(self, grad: Tensor) -> None:
        self.g = grad if has_dense_rows(grad) else grad.contiguous()
        self.samples = grad.shape[0]
        self.row = grad.numel() // self.samples
        self.pieces = max(cdiv(self.row, PIECE), 1)
        self.double = grad.dtype == torch.float64
        self.dtype = torch.float64 if self.double else torch.float32

    def launch(self, kernel: Any, *args: Any) -> None:
        launch(kernel, self.samples * self.pieces, self.g, *args, DOUBLE=self.double, PIECE=PIECE,
               BLOCK=BLOCK, enable_fp_fusion=True)  # fmt: skip

    def finish(self, kernel: Any, *args: Any) -> None:
        launch(kernel, 1, self.g, *args, DOUBLE=self.double, SAMPLES=SAMPLES,
               enable_fp_fusion=True)  # fmt: skip

    def partial(self, *sums: int) -> Tensor:
        return self.g.new_empty((*sums, self.samples, self.pieces), dtype=self.dtype)


def gradient_penalty(grad: Tensor, center: float, one_sided: bool) -> tuple[Tensor, Tensor]:
    """Order 0: two launches."""
    r = _Rows(grad)
    norms = r.g.new_empty(r.samples, dtype=r.dtype)
    value = r.g.new_empty((), dtype=r.dtype)
    partial = r.partial(2)
    r.launch(squares_kernel, r.g, partial, r.samples, r.row, r.pieces)
    r.finish(value_kernel, partial, norms, value,
             r.samples, r.pieces, center, int(one_sided))  # fmt: skip
    return value, norms


def gradient_penalty_grad(
    go: Tensor, grad: Tensor, norms: Tensor, center: float, one_sided: bool
) -> Tensor:
    """Order 1: one launch."""
    r = _Rows(grad)
    out = torch.empty_like(r.g)
    r.launch(grad_kernel, go, r.g, norms, out,
             r.samples, r.row, r.pieces, center, int(one_sided))  # fmt: skip
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
    partial = r.partial()
    r.launch(dots_kernel, v, r.g, norms, partial, r.row, r.pieces, center)
    r.finish(go_kernel, partial, norms, d_go, r.samples, r.pieces, center, int(one_sided))
    r.launch(grad2_kernel, v, go, r.g, norms, partial, out,
             r.samples, r.row, r.pieces, center, int(one_sided))  # fmt: skip
    return d_go, out
