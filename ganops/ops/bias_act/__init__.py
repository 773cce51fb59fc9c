"""bias_act: bias, activation, gain and clamp in one pass."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ... import _dispatch
from .._autograd import differentiable
from . import reference
from .autograd import BiasAct, Spec

__all__ = ["ACTIVATIONS", "bias_act"]


class Activation(NamedTuple):
    """Defaults of one activation."""

    alpha: float
    gain: float


# Order as in csrc/bias_act/bias_act_math.h. Gains keep the second moment (card: B2).
ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(0.0, 1.0),
    "relu": Activation(0.0, math.sqrt(2)),
    "lrelu": Activation(0.2, math.sqrt(2)),
    "tanh": Activation(0.0, 1.0),
    "sigmoid": Activation(0.0, 1.0),
    "elu": Activation(0.0, 1.0),
    "selu": Activation(0.0, 1.0),
    "softplus": Activation(0.0, 1.0),
    "swish": Activation(0.0, math.sqrt(2)),
}
# Binary digits of a half type, and the exponent of its smallest subnormal number.
_HALF_DIGITS = {torch.bfloat16: (8, -133), torch.float16: (11, -24)}
_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    *,
    impl: str = "auto",
) -> Tensor:
    r"""Adds a bias, applies an activation, scales and clamps, in one pass over memory.

    Equivalent to::

        y = (gain * f(x + b.reshape(1, -1, 1, 1))).clamp(-clamp, clamp)

    .. math:: y = \mathrm{clamp}(g\, f(x + b))

    Args:
        x: any shape and memory format, kept in the result without a copy where x fills its memory
            (slices are copied once). float64, float32, bfloat16 or float16. For half types, y is
            computed in float32 and rounded once.
        b: bias of shape (x.shape[dim],), or None. Another floating dtype is cast to x's.
        dim: the dimension of x that b belongs to; without b the default suits every x.
        act: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus or swish.
        alpha: negative slope of lrelu, default 0.2; no other activation takes one.
        gain: g, finite; default sqrt(2) for relu, lrelu and swish, else 1.
        clamp: limit of |y|, at least 0; None for none. Half types hold the nearest number to it
            that they have, at most their largest (65504 in float16).
        impl: "auto", "reference", "native" or "triton"; see `ganops.use_impl`.

    Returns:
        y, with x's shape, dtype and (dense) strides.

    Derivatives: of order 1 and 2, in reverse and forward mode and under torch.func; order 3 and
    forward mode inside forward mode raise (impl="reference": any order). At a kink the derivative
    is the left one (relu 0, lrelu alpha); where the clamp binds, |y| = clamp included, it is 0.
    linear, relu and lrelu send nothing through the primal network in double backward, where stock
    PyTorch sends zeros.

    Derivatives of half types are computed in float32 from what was kept, and rounded once. Where
    that is y (see below), the slope is that of the rounded y: half a unit of y changes it by as
    much as |f''/f'| times that, and a y that was rounded onto a kink or the clamp counts as there.
    NaN in x gives NaN in y, and in the derivative wherever the reference's is NaN.

    Memory kept for backward: y, which the next layer usually keeps anyway; x for swish, gain <= 0
    and alpha < 0; nothing for linear without clamp. Scratch of native kernels for a bias gradient:
    at most 2^20 partial sums, or one per element of a sample if those are more, in float32 (float64
    for float64). On the CPU, a channel whose elements lie together in runs of 256 and more has one
    float64 per run instead; where runs are shorter, the bias is also laid out over up to a sample.
    Results do not depend on the number of threads.

    Raises:
        ValueError: unknown act, dim out of range, wrong bias shape, alpha without lrelu, alpha or
            gain not finite, clamp negative or NaN. TypeError: x or b is not a floating tensor.
            RuntimeError: impl cannot serve.

    Source: Karras et al. 2020 (StyleGAN2), whose op of this name it follows; card B2.

    Example:
        >>> x = torch.tensor([[-1.0, 2.0]])
        >>> bias_act(x, torch.tensor([0.0, 1.0]), act="lrelu", gain=1.0)
        tensor([[-0.2000,  3.0000]])
    """
    _check(x, b, dim, act, alpha, gain, clamp)
    dim = dim % x.dim() if b is not None else 0
    defaults = ACTIVATIONS[act]
    alpha = defaults.alpha if alpha is None else float(alpha)
    gain = defaults.gain if gain is None else float(gain)
    limit = -1.0 if clamp is None else _in_dtype(float(clamp), x.dtype)
    if b is not None and not (b.dtype == x.dtype and b.is_contiguous()):
        b = b.to(x.dtype).contiguous()
    impl = _dispatch.choose("bias_act", impl, x.device, x.dtype)
    if impl == "reference":
        return reference.bias_act(x, b, dim, act, alpha, gain, limit)
    spec = Spec(impl, dim, _CODES[act], alpha, gain, limit)
    if torch.compiler.is_compiling():
        return differentiable("bias_act", impl)(x, b, *spec.numbers)  # type: ignore[no-any-return]
    return BiasAct.apply(x, b, spec)  # type: ignore[no-any-return]


def _in_dtype(value: float, dtype: torch.dtype) -> float:
    """The clamp as y can hold it: a limit between two numbers, or past the last, is met by none."""
    if not math.isfinite(value):
        return value
    if dtype in _HALF_DIGITS:
        digits, smallest = _HALF_DIGITS[dtype]
        last = max(math.frexp(value)[1] - digits, smallest)  # exponent of value's last bit
        value = math.ldexp(round(math.ldexp(value, -last)), last)
    return min(value, torch.finfo(dtype).max)


def _check(
    x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float | None, gain: float | None,
    clamp: float | None,
) -> None:  # fmt: skip
    if not isinstance(x, Tensor) or x.dtype not in _dispatch.FLOATING:
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"bias_act: expected x as a float tensor, got {got}")
    if x.layout != torch.strided:
        raise TypeError(f"bias_act: expected a dense x, got layout {x.layout}")
    if act not in ACTIVATIONS:
        raise ValueError(f"bias_act: expected act as one of {', '.join(ACTIVATIONS)}; got {act!r}")
    if not isinstance(dim, int):
        raise TypeError(f"bias_act: expected dim as a number, got {type(dim).__name__} {dim!r}")
    if not alpha is gain is clamp is None:
        _check_numbers(act, alpha, gain, clamp)
    if b is None:
        rank = max(x.dim(), 1)
        if dim != 1 and not -rank <= dim < rank:  # 1, the default, suits every x
            raise ValueError(f"bias_act: expected dim within the {x.dim()} dims of x, got {dim}")
        return
    if not isinstance(b, Tensor) or not b.is_floating_point():
        got = b.dtype if isinstance(b, Tensor) else type(b).__name__
        raise TypeError(f"bias_act: expected b as a float tensor or None, got {got}")
    if not -x.dim() <= dim < x.dim():
        raise ValueError(f"bias_act: expected dim within the {x.dim()} dims of x, got {dim}")
    if b.dim() != 1 or b.shape[0] != x.shape[dim]:
        raise ValueError(
            f"bias_act: expected b of shape ({x.shape[dim]},) for dim {dim} of x "
            f"{tuple(x.shape)}, got {tuple(b.shape)}"
        )
    if b.device != x.device:
        raise ValueError(f"bias_act: expected b on {x.device} as x is, got {b.device}")


def _check_numbers(act: str, alpha: float | None, gain: float | None, clamp: float | None) -> None:
    for name, value in (("alpha", alpha), ("gain", gain), ("clamp", clamp)):
        if not isinstance(value, (int, float, type(None))):
            raise TypeError(
                f"bias_act: expected {name} as a number, got {type(value).__name__} {value!r}"
            )
    if alpha is not None and act != "lrelu":
        raise ValueError(f"bias_act: alpha is the slope of lrelu; {act} takes none, got {alpha}")
    for name, value in (("alpha", alpha), ("gain", gain)):
        if value is not None and not math.isfinite(value):
            raise ValueError(f"bias_act: expected {name} as a finite number, got {value}")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"bias_act: expected clamp >= 0 or None, got {clamp}")
