"""Piecewise linear activations that send nothing to the primal network in double backward.

Values and first derivatives are torch's own kernels, which read and write each number once and so
are at the limit already; there is no kernel to add. What differs is the second derivative with
respect to x: it is zero, stock PyTorch says so with a tensor of zeros, and autograd then runs the
whole backward of the primal network on it (2 of the 6 network passes of a gradient penalty). These
say nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import masked_slope
from .._arguments import worded
from .._input_pass import InputPass
from .._twins import serves
from .autograd import Activation, InPlace, MaskedInPlace, PReLU, Spec

__all__ = ["abs", "hardtanh", "leaky_relu", "prelu", "relu", "relu6", "threshold"]


@worded
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    r"""max(0, x), elementwise.

    Equivalent to ``torch.nn.functional.relu(input, inplace)``, bit for bit, first derivative
    included.

    Args:
        input: any shape and memory format. Integer and complex tensors, tensor subclasses, and
            calls inside torch.compile go to torch's own function.
        inplace: write the result into `input`.

    Derivatives: of any order, in reverse and forward mode and under torch.func; 0 at the kink.
    Order 2 sends nothing to `input`. Forward mode inside forward mode raises.
    Memory kept for backward: the result.
    Source: card arch_building_blocks; on zeros in double backward, chainer/chainer#3175.

    Example:
        >>> relu(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """
    if not serves(input):
        return F.relu(input, inplace)
    return _activation(input, Spec("relu", (), inplace))


@worded
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    r"""x where x > 0, else negative_slope * x, elementwise.

    Equivalent to ``torch.nn.functional.leaky_relu(input, negative_slope, inplace)``; everything
    else as in `relu`. Memory kept for backward: the result; the input for a negative slope.
    """
    if not serves(input) or (inplace and negative_slope < 0):
        return F.leaky_relu(input, negative_slope, inplace)
    return _activation(input, Spec("leaky_relu", (float(negative_slope),), inplace))


@worded
def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    r"""x clamped to [min_val, max_val], elementwise.

    Equivalent to ``torch.nn.functional.hardtanh(input, min_val, max_val, inplace)``; everything
    else as in `relu`. The derivative is 0 at and beyond the limits. Memory kept for backward: the
    input (in place: the result).
    """
    if not serves(input):
        return F.hardtanh(input, min_val, max_val, inplace)
    return _activation(input, Spec("hardtanh", (float(min_val), float(max_val)), inplace))


@worded
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """x clamped to [0, 6]: `hardtanh` with these limits."""
    return hardtanh(input, 0.0, 6.0, inplace)


@worded
def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    r"""x where x > threshold, else value, elementwise.

    Equivalent to ``torch.nn.functional.threshold(input, threshold, value, inplace)``; everything
    else as in `relu`. Memory kept for backward: the input. In place it is torch's own, zeros
    included: the result does not tell the slope.
    """
    if not serves(input) or inplace:
        return F.threshold(input, threshold, value, inplace)
    return _activation(input, Spec("threshold", (float(threshold), float(value))))


@worded
def abs(input: Tensor) -> Tensor:
    r"""|x|, elementwise.

    Equivalent to ``torch.abs(input)``; everything else as in `relu`. The derivative at 0 is 0.
    Memory kept for backward: the input.
    """
    return _activation(input, Spec("abs")) if serves(input) else torch.abs(input)


@worded
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    r"""x where x > 0, else weight * x; weight along dim 1, or a single number.

    Equivalent to ``torch.nn.functional.prelu(input, weight)``; everything else as in `relu`. The
    function is bilinear where x < 0: order 2 sends `input` what comes through the gradient of
    `weight`, and nothing else. Memory kept for backward: both arguments.
    """
    if not serves(input, weight) or input.dtype != weight.dtype:
        return torch.prelu(input, weight)
    y: Tensor = PReLU.apply(input, weight)
    return y


def masked(x: Tensor, inplace: bool = False) -> Tensor:
    """relu as it runs where a penalty keeps masks alone."""
    with InputPass(x, "masks"):
        return relu(x, inplace)


def _activation(x: Tensor, spec: Spec) -> Tensor:
    masks = InputPass.keeping("masks") is not None
    if masks and not spec.inplace:
        return masked_slope.masked(x, spec.name, *spec.numbers)
    in_place = MaskedInPlace if masks else InPlace
    y: Tensor = (in_place if spec.inplace else Activation).apply(x, spec)
    return y
