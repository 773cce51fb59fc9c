"""Convolutions and the linear layer, ready for a second derivative.

The kernels are the vendors' (oneDNN, cuDNN, through torch): a convolution runs at their limit, and
nothing here competes with it. What stock PyTorch wastes is structure. Its double backward computes
the weight gradient as a convolution whose kernel is the whole image, group by group; these call the
real weight-gradient kernel, once. torch's linear layer has no such flaw and is used as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from operator import index
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._arguments import worded
from .._twins import autocast_casts, serves
from .autograd import Conv
from .spec import LinearSpec, Spec
from .taps import convolve

__all__ = ["conv2d", "conv_transpose2d", "linear"]

_Pair = int | Sequence[int]
_stock: Any = F  # its type hints are narrower than what it takes


@worded
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Pair = 1,
    padding: str | _Pair = 0,
    dilation: _Pair = 1,
    groups: int = 1,
) -> Tensor:
    r"""2-D convolution with a double backward at the floor.

    Equivalent to ``torch.nn.functional.conv2d`` with the same arguments, bit for bit, first
    derivatives included; but on the CPU two of them equal torch's to rounding, by a faster way: the
    gradient to an `input` of up to 8 channels, with a stride (sub_pixel.py), and to a `weight` with
    no fewer taps than the output has pixels (small_output.py).

    Args:
        input: (B, Cin, H, W) or (Cin, H, W), any memory format. Integer and complex tensors, tensor
            subclasses and calls inside torch.compile go to torch's own function. Under autocast the
            arguments are cast as torch casts them.
        weight: (Cout, Cin / groups, kh, kw). bias: (Cout,) or None.
        stride, dilation: one number or one per axis, >= 1. groups: divides Cin and Cout.
        padding: likewise, >= 0; or "valid", or "same" (stride 1; an odd total pads one more at the
            end).

    Returns:
        (B, Cout, H', W') or (Cout, H', W').

    Derivatives: of any order, in reverse and forward mode and under torch.func. Order 2 is one
    forward convolution and one weight gradient, for any number of groups. Forward mode inside
    forward mode raises. Where the input and the weights require grad, a call is two autograd nodes,
    so that `autograd.grad(..., input)` computes no weight gradient (taps.py). Memory kept for
    backward: `input` where `weight` or its source requires grad, `weight` where `input` does.

    Raises:
        ValueError: an unknown padding string, or "same" with a stride.
        RuntimeError: shapes that do not fit, from torch.

    Source: the idea is NVIDIA's conv2d_gradfix; card gradient_penalties_r1_r2.
    """
    tensors = _cast(input, weight, bias)
    if not _plain(4, *tensors):
        return _stock.conv2d(input, weight, bias, stride, padding, dilation, groups)
    x, w, b = tensors
    steps, holes = _pair(stride), _pair(dilation)
    if isinstance(padding, str):
        x, around = _padded(x, w, padding, steps, holes)
    else:
        around = _pair(padding)
    spec = Spec(steps, around, holes, False, (0, 0), groups)
    return _apply(x, w, b, spec)


@worded
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Pair = 1,
    padding: _Pair = 0,
    output_padding: _Pair = 0,
    groups: int = 1,
    dilation: _Pair = 1,
) -> Tensor:
    r"""2-D transposed convolution with a double backward at the floor.

    Equivalent to ``torch.nn.functional.conv_transpose2d`` with the same arguments, bit for bit,
    first derivatives included; everything else as in `conv2d`.

    Args:
        input: (B, Cin, H, W) or (Cin, H, W). weight: (Cin, Cout / groups, kh, kw).
        bias: (Cout,) or None. The numbers: one, or one per axis.
    """
    tensors = _cast(input, weight, bias)
    if not _plain(4, *tensors):
        return _stock.conv_transpose2d(
            input, weight, bias, stride, padding, output_padding, groups, dilation
        )
    extra = _pair(output_padding)
    spec = Spec(_pair(stride), _pair(padding), _pair(dilation), True, extra, groups)
    return _apply(*tensors, spec)


@worded
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""x W' + b.

    Equivalent to ``torch.nn.functional.linear(input, weight, bias)``, and it is that function: its
    double backward is two matrix products, sends nothing to the primal network, and skips what is
    not asked for, so there is nothing to gain. Here so that a network can be written in one
    vocabulary.

    Args:
        input: (..., Cin). weight: (Cout, Cin). bias: (Cout,) or None.

    Derivatives: of any order, all modes.
    """
    return F.linear(input, weight, bias)


def linear_twin(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` for the penalties that need more of it than torch's records."""
    x, w, b = _cast(input, weight, bias)
    same = all(t is None or (t.dtype, t.device) == (w.dtype, w.device) for t in (x, b))
    if not (serves(x, w, b) and same and w.dim() == 2 and x.dim() >= 2):
        return F.linear(input, weight, bias)
    y: Tensor = Conv.apply(x, w, b, LinearSpec())
    return y


def _apply(x: Tensor, w: Tensor, b: Tensor | None, spec: Spec) -> Tensor:
    batched = x.dim() == 4
    y = convolve(x if batched else x.unsqueeze(0), w, b, spec)
    return y if batched else y.squeeze(0)


def _plain(dims: int, x: Tensor, w: Tensor, b: Tensor | None) -> bool:
    """One floating dtype and device, and dimensions that make sense; torch words the errors."""
    same = all(t is None or (t.dtype, t.device) == (w.dtype, w.device) for t in (x, b))
    return serves(x, w, b) and same and w.dim() == dims and x.dim() in (dims, dims - 1)


def _cast(x: Tensor, w: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """What autocast would do: inside a Function it would come too late."""
    if torch.compiler.is_compiling() or not autocast_casts(x):
        return x, w, b  # when compiling, torch's own function runs, and casts
    dtype = torch.get_autocast_dtype(x.device.type)

    def cast(t: Tensor) -> Tensor:
        return t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t

    return cast(x), cast(w), None if b is None else cast(b)


def _padded(
    x: Tensor, w: Tensor, how: str, stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[Tensor, tuple[int, ...]]:
    """x and the symmetric padding that is left to do."""
    if how == "valid":
        return x, (0, 0)
    if how != "same":
        raise ValueError(f"conv2d: expected padding 'valid', 'same' or numbers, got {how!r}")
    if any(s != 1 for s in stride):
        raise ValueError(f"conv2d: padding='same' needs stride 1, got {stride}")
    total = [d * (k - 1) for d, k in zip(dilation, w.shape[2:])]
    odd = [t % 2 for t in total]
    if any(odd):
        x = F.pad(x, [0, odd[1], 0, odd[0]])
    return x, tuple(t // 2 for t in total)


def _pair(n: _Pair) -> tuple[int, ...]:
    """Two numbers from one, or what was given; the op checks it."""
    if isinstance(n, (int, Integral, Tensor)):  # as torch: numpy's too, and tensors of one number
        return index(n), index(n)
    return tuple(n) * 2 if len(n) == 1 else tuple(n)
