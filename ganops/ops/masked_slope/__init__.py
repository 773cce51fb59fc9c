"""Piecewise linear activations that keep a byte a number: what engine="tangent" runs.

Where the slope is 1 or one other number, a mask says all that a penalty's derivatives need of an
activation, and x and y are free. One kernel makes y and the mask; one applies the slope.
"""

from __future__ import annotations

from torch import Tensor

from ... import _dispatch
from .autograd import Masked, Slope, Spec
from .reference import KERNELS, VALUES

__all__ = ["masked", "served", "slope"]


def masked(x: Tensor, name: str, a: float = 0.0, b: float = 0.0) -> Tensor:
    """y = f(x), of which the slope's mask alone is kept.

    Args:
        x: any shape and memory format, floating.
        name: relu, leaky_relu (a: its slope), hardtanh (a, b: its limits), threshold (a: the limit,
            b: the value past it) or abs.

    Derivatives: of any order, in reverse and forward mode and under torch.func; forward mode inside
    forward mode raises. Memory kept for backward: one byte a number.
    """
    y: Tensor
    y, _ = Masked.apply(x, Spec(served(x, name), name, a, b))
    return y


def slope(g: Tensor, mask: Tensor, outside: float, impl: str) -> Tensor:
    """s g: s is 1 where the mask is True and `outside` elsewhere; an int8 mask is s itself."""
    y: Tensor = Slope.apply(g, mask, outside, impl)
    return y


def served(x: Tensor, name: str) -> str:
    """The implementation that runs a function, and its slope, for tensors like x."""
    if list(VALUES).index(name) >= KERNELS:
        return "reference"
    return _dispatch.choose("masked_slope", "auto", x.device, x.dtype)
