"""Piecewise linear functions and their slope by a mask, by torch's own functions.

Names and order of the first four as in csrc/masked_slope/masked_slope_math.h. Of abs the mask is
the slope itself, in int8: it has no kernel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

aten = torch.ops.aten

# ATen's, not torch.nn.functional's: those a penalty would re-route to twins once more.
VALUES: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "relu": lambda x, a, b: aten.relu(x),
    "leaky_relu": lambda x, a, b: aten.leaky_relu(x, a),
    "hardtanh": lambda x, a, b: aten.hardtanh(x, a, b),
    "threshold": lambda x, a, b: aten.threshold(x, a, b),
    "abs": lambda x, a, b: aten.abs(x),
}
MASKS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "relu": lambda x, a, b: x > 0,
    "leaky_relu": lambda x, a, b: x > 0,
    "hardtanh": lambda x, a, b: (x > a) & (x < b),
    "threshold": lambda x, a, b: x > a,
    "abs": lambda x, a, b: x.sgn().to(torch.int8),
}
KERNELS = 4  # of the names above have one


def masked_slope(g: Tensor, mask: Tensor, outside: float) -> Tensor:
    """s g: s is 1 where the mask is True and `outside` elsewhere; an int8 mask is s itself."""
    if mask.dtype == torch.int8:
        return g * mask
    if outside == 0:
        return torch.where(mask, g, 0.0)
    y = outside * g
    return torch.where(mask, g, y, out=y)  # no third tensor: the peak is here
