"""The smooth activations by torch's own functions: the definition of correct, of any order.

impl="reference" is these, so it is what a user would have had. Their second derivatives are written
out by torch in 8 to 10 elementwise kernels; ganops.ops.smooth does the same in one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Klambauer et al. 2017, "Self-normalizing neural networks".
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934, 1.6732632423543772848

# Names and order as in csrc/smooth/smooth_math.h. The two numbers: softplus beta and threshold; elu
# the scale below 0 and above it.
VALUES: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "silu": lambda x, a, b: F.silu(x),
    "gelu": lambda x, a, b: F.gelu(x),
    "gelu_tanh": lambda x, a, b: F.gelu(x, approximate="tanh"),
    "softplus": lambda x, a, b: F.softplus(x, a, b),
    "elu": lambda x, a, b: torch.selu(x) if b != 1 else F.elu(x, a),
    "tanh": lambda x, a, b: torch.tanh(x),
    "sigmoid": lambda x, a, b: torch.sigmoid(x),
    "mish": lambda x, a, b: F.mish(x),
    "hardswish": lambda x, a, b: F.hardswish(x),
}
