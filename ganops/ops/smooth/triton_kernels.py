"""smooth in Triton: the second order of csrc/smooth/smooth_math.h, one program per block.

Everything is computed in float32 (float64 for float64) right after the load: Triton's interpreter
has no bfloat16 arithmetic, and the GPU rounds once this way.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._autograd import is_dense
from .._triton import cdiv, launch

BLOCK = 1024


@triton.jit
def _slopes(ref, a, b, ACT: tl.constexpr):
    """s and ds/d ref; codes and formulas of csrc/smooth/smooth_math.h."""
    zero = tl.where(ref == ref, 0.0, ref)  # NaN where ref is: it must not be lost
    if ACT == 5:  # tanh
        s, d = 1.0 - ref * ref, -2.0 * ref
    elif ACT == 6:  # sigmoid
        s, d = ref * (1.0 - ref), 1.0 - 2.0 * ref
    elif ACT == 4:  # elu
        e = a * tl.exp(tl.where(ref < 0, ref, zero))
        s, d = tl.where(ref > 0, b, e), tl.where(ref > 0, 0.0, e)
    elif ACT == 8:  # hardswish
        line = tl.where(ref <= -3, 0.0, tl.where(ref >= 3, 1.0, ref / 3.0 + 0.5))
        s, d = line, tl.where((ref > -3) & (ref < 3), zero + 1.0, 0.0) / 3.0
    elif (ACT == 1) | (ACT == 2):  # gelu
        x = tl.where(ref < -40, -40.0, tl.where(ref > 40, 40.0, ref))
        z = x * x
        if ACT == 1:
            # In the precision of ref: a plain float would be float32.
            phi = tl.exp(-0.5 * z) * tl.full(ref.shape, 0.39894228040143267794, ref.dtype)
            cdf = 0.5 + 0.5 * tl.erf(x * tl.full(ref.shape, 0.70710678118654752440, ref.dtype))
            s, d = cdf + x * phi, phi * (2.0 - z)
        else:
            k = tl.full(ref.shape, 0.79788456080286535588, ref.dtype)
            c = tl.full(ref.shape, 0.044715, ref.dtype)
            u, du, ddu = k * x * (1.0 + c * z), k * (1.0 + 3.0 * c * z), 6.0 * k * c * x
            e = tl.exp(-2.0 * tl.abs(u))
            p = 1.0 / (1.0 + e)
            t, dt = tl.where(u < 0, e - 1.0, 1.0 - e) * p, 4.0 * e * p * p
            s = 0.5 * (1.0 + t) + 0.5 * x * dt * du
            d = dt * (du + 0.5 * x * (ddu - 2.0 * t * du * du))
    else:  # built on the logistic, from exp(-|z|) <= 1
        z = ref
        if ACT == 3:
            z = a * ref
        e = tl.exp(-tl.abs(z))
        p = 1.0 / (1.0 + e)
        q = e * p
        logistic, r, ds = tl.where(z < 0, q, p), tl.where(z < 0, p, q), p * q
        if ACT == 3:  # softplus
            s, d = tl.where(z > b, 1.0, logistic), tl.where(z > b, 0.0, a * ds)
        elif ACT == 7:  # mish
            n = tl.where(z < 0, e * (e + 2.0), 1.0 + 2.0 * e)
            m = tl.where(z < 0, zero + 2.0, 2.0 * e * e)
            t = n / (n + m)
            dt = logistic * (m / (n + m)) * (1.0 + t)
            s, d = t + z * dt, dt * (2.0 + z * (r - 2.0 * t * logistic))
        else:  # silu
            s, d = logistic + z * ds, 2.0 * ds + z * ds * (r - logistic)
    return s, d


@triton.jit
def _load(pointer, offsets, mask, DOUBLE: tl.constexpr):
    v = tl.load(pointer + offsets, mask=mask, other=0.0)
    return v.to(tl.float64) if DOUBLE else v.to(tl.float32)


@triton.jit
def grad2_kernel(
    v, dy, ref, d_dy, d_ref,  # all (numel,)
    numel, a: tl.float64, b: tl.float64,
    ACT: tl.constexpr, DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < numel
    r = _load(ref, offsets, mask, DOUBLE)
    s, d = _slopes(r, tl.full(r.shape, a, r.dtype), tl.full(r.shape, b, r.dtype), ACT)
    w = _load(v, offsets, mask, DOUBLE)
    tl.store(d_dy + offsets, (s * w).to(d_dy.dtype.element_ty), mask=mask)
    curved = d * (w * _load(dy, offsets, mask, DOUBLE))
    tl.store(d_ref + offsets, curved.to(d_ref.dtype.element_ty), mask=mask)


def _like(t: Tensor, like: Tensor) -> Tensor:
    """t in the memory order of `like`."""
    same = all(a == b for a, b, n in zip(t.stride(), like.stride(), t.shape) if n > 1)
    return t if same else torch.empty_like(like).copy_(t)


def smooth_grad2(
    v: Tensor, dy: Tensor, ref: Tensor, act: int, a: float, b: float
) -> tuple[Tensor, Tensor]:
    """Order 2, with respect to dy and ref."""
    ref = ref if is_dense(ref) else ref.contiguous()
    dy, v = _like(dy, ref), _like(v, ref)
    d_dy, d_ref = torch.empty_like(ref), torch.empty_like(ref)
    launch(
        grad2_kernel, cdiv(ref.numel(), BLOCK), ref,
        v, dy, ref, d_dy, d_ref, ref.numel(), a, b, ACT=act,
        DOUBLE=ref.dtype == torch.float64, BLOCK=BLOCK, enable_fp_fusion=True,
    )  # fmt: skip
    return d_dy, d_ref
