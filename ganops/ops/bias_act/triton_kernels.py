"""bias_act in Triton: the three orders of csrc/bias_act/bias_act_math.h, one program per block.

Everything is computed in float32 (float64 for float64) right after the load: Triton's interpreter
has no bfloat16 arithmetic, and the GPU rounds once this way.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._autograd import is_dense
from .._triton import cdiv, launch

BLOCK = 1024
SELU_SCALE = tl.constexpr(1.0507009873554804934193349852946)
SELU_ALPHA = tl.constexpr(1.6732632423543772848170429916717)


@triton.jit
def _expm1(t):
    """exp(t) - 1 for t <= 0, by Kahan's (u - 1) t / log(u), u = exp(t), where that would cancel."""
    u = tl.exp(t)
    usable = (u > 0.5) & (u < 1.0)
    log_u = tl.log(tl.where(usable, u, 0.75))
    return tl.where(usable, (u - 1.0) * t / log_u, tl.where(u == 1.0, t, u - 1.0))


@triton.jit
def _log1p(e):
    """log(1 + e) for 0 <= e <= 1, by the same trick."""
    u = 1.0 + e
    usable = u != 1.0
    return tl.where(usable, tl.log(u) * e / tl.where(usable, u - 1.0, 1.0), e)


@triton.jit
def _jet(t, alpha, ACT: tl.constexpr):
    """f, f', f'' at t; codes and formulas of csrc/bias_act/bias_act_math.h."""
    zero = tl.zeros_like(t)
    one = zero + 1.0
    if ACT == 0:  # linear
        f, d1, d2 = t, one, zero
    elif ACT == 1:  # relu; comparisons are such that NaN comes through, as in the reference
        f, d1, d2 = tl.where(t <= 0, 0.0, t), tl.where(t <= 0, 0.0, one), zero
    elif ACT == 2:  # lrelu
        f, d1, d2 = tl.where(t > 0, t, alpha * t), tl.where(t > 0, one, alpha), zero
    elif ACT == 3:  # tanh, by expm1(-2|t|)
        e = _expm1(-2.0 * tl.abs(t))
        y = -e / (e + 2.0)
        f = tl.where(t < 0, -y, y)
        d1 = 1.0 - f * f
        d2 = -2.0 * f * d1
    elif ACT == 5:  # elu
        low = tl.where(t > 0, 0.0, t)
        e = tl.exp(low)
        f, d1, d2 = (
            tl.where(t > 0, t, _expm1(low)),
            tl.where(t > 0, one, e),
            tl.where(t > 0, 0.0, e),
        )
    elif ACT == 6:  # selu
        low = tl.where(t > 0, 0.0, t)
        scale = one * SELU_SCALE
        e = scale * SELU_ALPHA * tl.exp(low)
        f = scale * tl.where(t > 0, t, SELU_ALPHA * _expm1(low))
        d1, d2 = tl.where(t > 0, scale, e), tl.where(t > 0, 0.0, e)
    else:  # built on the logistic s(t), from exp(-|t|) <= 1
        e = tl.exp(-tl.abs(t))
        p = 1.0 / (1.0 + e)
        q = e * p
        s = tl.where(t < 0, q, p)
        r = tl.where(t < 0, p, q)
        ds = p * q
        if ACT == 4:  # sigmoid
            f, d1, d2 = s, ds, ds * (r - s)
        elif ACT == 7:  # softplus
            f, d1, d2 = tl.where(t <= 0, 0.0, t) + _log1p(e), s, ds
        else:  # swish
            f, d1, d2 = t * s, s + t * ds, 2.0 * ds + t * ds * (r - s)
    return f, d1, d2


@triton.jit
def _load(pointer, offsets, mask, DOUBLE: tl.constexpr):
    v = tl.load(pointer + offsets, mask=mask, other=0.0)
    return v.to(tl.float64) if DOUBLE else v.to(tl.float32)


@triton.jit
def _spread(value, like):
    """A float64 argument in the precision of the computation (a plain float would be float32)."""
    return tl.full(like.shape, value, like.dtype)


@triton.jit
def _open(y, clamp):
    """Is y out of the clamp's reach? NaN is."""
    return (clamp < 0) | ~(tl.abs(y) >= clamp)


@triton.jit
def value_kernel(
    x, b, y,  # (numel,), (channels,), (numel,)
    numel, channels, inner, alpha: tl.float64, gain: tl.float64, clamp: tl.float64,
    ACT: tl.constexpr, HAS_BIAS: tl.constexpr, DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < numel
    t = _load(x, offsets, mask, DOUBLE)
    alpha, gain, clamp = _spread(alpha, t), _spread(gain, t), _spread(clamp, t)
    if HAS_BIAS:
        t += _load(b, offsets // inner % channels, mask, DOUBLE)
    f, _, _ = _jet(t, alpha, ACT)
    v = gain * f
    v = tl.where((clamp >= 0) & (v > clamp), clamp, v)
    v = tl.where((clamp >= 0) & (v < -clamp), -clamp, v)
    tl.store(y + offsets, v.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _output_slope(y, alpha, gain, ACT: tl.constexpr):
    """s = gain f' and ds/dy as functions of y."""
    one = tl.full(y.shape, 1.0, y.dtype)
    u = y / gain
    if ACT <= 2:  # piecewise linear
        _, d1, s2 = _jet(y, alpha, ACT)
        s1 = gain * d1
    elif ACT == 3:  # tanh
        s1, s2 = gain * (1.0 - u * u), -2.0 * u
    elif ACT == 4:  # sigmoid
        s1, s2 = gain * (u * (1.0 - u)), 1.0 - 2.0 * u
    elif ACT == 5:  # elu
        s1, s2 = tl.where(u > 0, gain, y + gain), tl.where(u > 0, 0.0, one)
    elif ACT == 6:  # selu
        scaled = gain * SELU_SCALE
        s1, s2 = tl.where(u > 0, scaled, y + scaled * SELU_ALPHA), tl.where(u > 0, 0.0, one)
    else:  # softplus
        s1, s2 = -gain * _expm1(-u), tl.exp(-u)
    return s1, s2


@triton.jit
def grad_kernel(
    v, dy, ref, b, out,  # all (numel,) but b (channels,); v is used by order 2 alone
    numel, channels, inner, alpha: tl.float64, gain: tl.float64, clamp: tl.float64,
    ACT: tl.constexpr, HAS_BIAS: tl.constexpr, FROM_OUTPUT: tl.constexpr, ORDER: tl.constexpr,
    DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < numel
    t = _load(ref, offsets, mask, DOUBLE)
    alpha, gain, clamp = _spread(alpha, t), _spread(gain, t), _spread(clamp, t)
    if FROM_OUTPUT:
        y = t
        s1, s2 = _output_slope(t, alpha, gain, ACT)
    else:
        if HAS_BIAS:
            t += _load(b, offsets // inner % channels, mask, DOUBLE)
        f, d1, d2 = _jet(t, alpha, ACT)
        y, s1, s2 = gain * f, gain * d1, gain * d2
    g = (s1 if ORDER == 1 else s2) * _load(dy, offsets, mask, DOUBLE)
    if ORDER == 2:
        g *= _load(v, offsets, mask, DOUBLE)
    g = tl.where(_open(y, clamp), g, 0.0)
    tl.store(out + offsets, g.to(out.dtype.element_ty), mask=mask)


def _layout(x: Tensor, b: Tensor | None, dim: int) -> tuple[int, int, int]:
    """numel, channels, inner: position p of x's memory is in channel p // inner % channels."""
    if b is None or x.shape[dim] == 1:
        return x.numel(), 1, max(x.numel(), 1)
    return x.numel(), x.shape[dim], max(x.stride(dim), 1)


def _dense(t: Tensor) -> Tensor:
    return t if is_dense(t) else t.contiguous()


def _like(t: Tensor, like: Tensor) -> Tensor:
    """t in the memory order of `like`."""
    same = all(a == b for a, b, n in zip(t.stride(), like.stride(), t.shape) if n > 1)
    return t if same else torch.empty_like(like).copy_(t)


def _launch(kernel: Any, x: Tensor, *args: Any, **meta: Any) -> None:
    double = x.dtype == torch.float64
    launch(kernel, cdiv(x.numel(), BLOCK), x, *args, **meta, DOUBLE=double, BLOCK=BLOCK,
           enable_fp_fusion=True)  # fmt: skip


def bias_act(
    x: Tensor, b: Tensor | None, dim: int, act: int, alpha: float, gain: float, clamp: float
) -> Tensor:
    """Order 0."""
    x = _dense(x)
    y = torch.empty_like(x)
    layout = _layout(x, b, dim)
    _launch(value_kernel, x, x, x if b is None else b, y, *layout, alpha, gain, clamp,
            ACT=act, HAS_BIAS=b is not None)  # fmt: skip
    return y


def _grad(
    order: int, v: Tensor, dy: Tensor, ref: Tensor, b: Tensor | None, dim: int, act: int,
    alpha: float, gain: float, clamp: float, from_output: bool,
) -> Tensor:  # fmt: skip
    ref = _dense(ref)
    dy, v = _like(dy, ref), _like(v, ref)
    out = torch.empty_like(ref)
    _launch(grad_kernel, ref, v, dy, ref, ref if b is None else b, out,
            *_layout(ref, b, dim), alpha, gain, clamp, ACT=act, HAS_BIAS=b is not None,
            FROM_OUTPUT=from_output, ORDER=order)  # fmt: skip
    return out


def bias_act_grad(
    dy: Tensor, ref: Tensor, b: Tensor | None, dim: int, act: int, alpha: float, gain: float,
    clamp: float, from_output: bool, want_db: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Order 1. The bias gradient is torch's own reduction of dx."""
    dx = _grad(1, dy, dy, ref, b, dim, act, alpha, gain, clamp, from_output)
    if b is None or not want_db:
        return dx, dx.new_empty(0)
    others = [d for d in range(dx.dim()) if d != dim]
    return dx, dx.sum(others) if others else dx.clone()


def bias_act_grad2(
    v: Tensor, dy: Tensor, ref: Tensor, b: Tensor | None, dim: int, act: int, alpha: float,
    gain: float, clamp: float, from_output: bool,
) -> Tensor:  # fmt: skip
    """Order 2, with respect to ref."""
    return _grad(2, v, dy, ref, b, dim, act, alpha, gain, clamp, from_output)
