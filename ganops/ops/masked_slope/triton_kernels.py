"""masked_slope in Triton: csrc/masked_slope/masked_slope_math.h, one program per block.

Masks are read and written as bytes. Everything is computed in float32 (float64 for float64):
Triton's interpreter has no bfloat16 arithmetic.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._autograd import is_dense
from .._triton import cdiv, launch
from .reference import KERNELS

BLOCK = 1024


@triton.jit
def _load(pointer, offsets, mask, DOUBLE: tl.constexpr):
    v = tl.load(pointer + offsets, mask=mask, other=0.0)
    return v.to(tl.float64) if DOUBLE else v.to(tl.float32)


@triton.jit
def value_kernel(
    x, y, inside,  # all (numel,)
    numel, a: tl.float64, b: tl.float64,
    ACT: tl.constexpr, DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < numel
    v = _load(x, offsets, mask, DOUBLE)
    a = tl.full(v.shape, a, v.dtype)
    b = tl.full(v.shape, b, v.dtype)
    if ACT == 1:  # leaky_relu
        found, value = v > 0, tl.where(v > 0, v, a * v)
    elif ACT == 2:  # hardtanh
        found, value = (v > a) & (v < b), tl.where(v < a, a, tl.where(v > b, b, v))
    elif ACT == 3:  # threshold
        found, value = v > a, tl.where(v <= a, b, v)
    else:
        found, value = v > 0, tl.where(v <= 0, 0.0, v)
    tl.store(y + offsets, value.to(y.dtype.element_ty), mask=mask)
    tl.store(inside + offsets, found.to(tl.uint8), mask=mask)


@triton.jit
def slope_kernel(
    g, inside, out,  # all (numel,)
    numel, outside: tl.float64,
    ZERO: tl.constexpr, DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < numel
    v = _load(g, offsets, mask, DOUBLE)
    found = tl.load(inside + offsets, mask=mask, other=0) != 0
    if ZERO:  # keeps infinities and NaN out
        value = tl.where(found, v, 0.0)
    else:
        value = tl.where(found, v, tl.full(v.shape, outside, v.dtype) * v)
    tl.store(out + offsets, value.to(out.dtype.element_ty), mask=mask)


def masked_slope_value(x: Tensor, act: int, a: float, b: float) -> tuple[Tensor, Tensor]:
    """y, and where its slope is 1."""
    if not 0 <= act < KERNELS:
        raise ValueError(f"masked_slope: no activation {act}")
    x = x if is_dense(x) else x.clone()
    y, inside = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
    launch(
        value_kernel, cdiv(x.numel(), BLOCK), x,
        x, y, inside.view(torch.uint8), x.numel(), a, b, ACT=act,
        DOUBLE=x.dtype == torch.float64, BLOCK=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return y, inside


def masked_slope(g: Tensor, mask: Tensor, outside: float) -> Tensor:
    """s g, in the memory order of the mask."""
    if mask.dtype != torch.bool:
        raise TypeError(f"masked_slope: mask must be bool, got {mask.dtype}")
    if mask.shape != g.shape:
        raise ValueError(
            f"masked_slope: mask must have the shape of g, {tuple(g.shape)}, "
            f"got {tuple(mask.shape)}"
        )
    mask = mask if is_dense(mask) else mask.contiguous()
    out = torch.empty_like(mask, dtype=g.dtype)
    same = all(m == n for m, n, size in zip(g.stride(), mask.stride(), g.shape) if size > 1)
    g = g if same else torch.empty_like(out).copy_(g)
    launch(
        slope_kernel, cdiv(g.numel(), BLOCK), g,
        g, mask.view(torch.uint8), out, g.numel(), outside, ZERO=outside == 0,
        DOUBLE=g.dtype == torch.float64, BLOCK=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return out
