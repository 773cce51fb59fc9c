"""Pools and border pads that send nothing to the primal network in double backward.

All run torch's own kernels, which move each number once and so are at the limit; there is no kernel
to add. As in `ganops.ops.piecewise_linear`, what differs from torch is that the second derivative
with respect to x, which is zero, is not sent as a tensor of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from operator import index
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .._arguments import worded
from .._twins import serves
from .autograd import AdaptiveAverage, Fixed, LinearMap, Maximum, MaxPool

__all__ = ["adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d", "pad"]

_Pair = int | Sequence[int]
_stock: Any = F  # its type hints are narrower than what it takes
_BORDERS = {"reflect": "reflection", "replicate": "replication"}


@worded
def avg_pool2d(
    input: Tensor,
    kernel_size: _Pair,
    stride: _Pair | None = None,
    padding: _Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    r"""Means over windows.

    Equivalent to ``torch.nn.functional.avg_pool2d`` with the same arguments, bit for bit, first
    derivative included.

    Args:
        input: (B, C, H, W) or (C, H, W), any memory format. Tensor subclasses, integer tensors and
            calls inside torch.compile go to torch's own function.

    Derivatives: of any order, in reverse and forward mode and under torch.func. Order 2 sends
    nothing to `input`. Forward mode inside forward mode raises. Memory kept for backward: none.
    Source: card arch_building_blocks.
    """
    if not serves(input):
        return _stock.avg_pool2d(
            input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        )
    size = _pair(kernel_size)
    steps = size if stride is None or stride == () else _pair(stride)
    args = (size, steps, _pair(padding), bool(ceil_mode), bool(count_include_pad))
    y: Tensor = LinearMap.apply(input, Fixed("avg_pool2d", (*args, divisor_override)))
    return y


@worded
def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    r"""Means over output_size windows that tile the image.

    Equivalent to ``torch.nn.functional.adaptive_avg_pool2d(input, output_size)``, values bit for
    bit, derivatives to rounding; everything else as in `avg_pool2d`.
    """
    if not serves(input) or input.dim() not in (3, 4):
        return _stock.adaptive_avg_pool2d(input, output_size)
    size = _output_size(input, output_size)
    if size == (1, 1):  # torch runs a mean there, which sends nothing
        return _stock.adaptive_avg_pool2d(input, size)
    y: Tensor = LinearMap.apply(input, AdaptiveAverage(size))
    return y


@worded
def max_pool2d(
    input: Tensor,
    kernel_size: _Pair,
    stride: _Pair | None = None,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""The largest number of each window.

    Equivalent to ``torch.nn.functional.max_pool2d`` with the same arguments, bit for bit, first
    derivative included; everything else as in `avg_pool2d`. Memory kept for backward: the indices.
    """
    if not serves(input):
        return _stock.max_pool2d(
            input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
        )
    size = _pair(kernel_size)
    steps = size if stride is None or stride == () else _pair(stride)
    pool = Maximum(False, (size, steps, _pair(padding), _pair(dilation), bool(ceil_mode)))
    y, indices = MaxPool.apply(input, pool)
    return (y, indices) if return_indices else y


@worded
def adaptive_max_pool2d(
    input: Tensor, output_size: int | Sequence[int | None], return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    r"""The largest number of each of output_size windows that tile the image.

    Equivalent to ``torch.nn.functional.adaptive_max_pool2d`` with the same arguments; everything
    else as in `max_pool2d`.
    """
    if not serves(input) or input.dim() not in (3, 4):
        return _stock.adaptive_max_pool2d(input, output_size, return_indices)
    pool = Maximum(True, (_output_size(input, output_size),))
    y, indices = MaxPool.apply(input, pool)
    return (y, indices) if return_indices else y


@worded
def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    r"""Pads the last dimensions.

    Equivalent to ``torch.nn.functional.pad(input, pad, mode, value)``, bit for bit, first
    derivative included. The modes "reflect" and "replicate" send nothing to `input` in order 2, and
    keep nothing; "constant" and "circular" are torch's own, which do so already. Everything else as
    in `avg_pool2d`.
    """
    sides = len(pad) // 2
    batched = sides + 2 == input.dim() or sides + 1 == input.dim()
    if mode not in _BORDERS or not serves(input) or not batched or len(pad) % 2 or value:
        return _stock.pad(input, pad, mode, value)
    fixed = Fixed(f"{_BORDERS[mode]}_pad{sides}d", (tuple(pad),))
    y: Tensor = LinearMap.apply(input, fixed)
    return y


def _pair(n: _Pair) -> tuple[int, ...]:
    """Two numbers from one, or what was given; the op checks it."""
    if isinstance(n, (int, Integral, Tensor)):  # as torch: numpy's too, and tensors of one number
        return index(n), index(n)
    return tuple(n) * 2 if len(n) == 1 else tuple(n)


def _output_size(x: Tensor, size: int | Sequence[int | None]) -> tuple[int, int]:
    """None means as in x."""
    h, w = (size, size) if isinstance(size, (int, Integral)) or size is None else size
    return x.shape[-2] if h is None else h, x.shape[-1] if w is None else w
