"""Smooth activations whose double backward is one kernel.

Values and first derivatives are torch's own kernels, bit for bit, which read and write each number
once and so are at the limit already. What differs is what a gradient penalty makes of them: under
create_graph stock PyTorch writes some derivatives out in elementary operations (SiLU: 8), and the
double backward of all of them (SiLU: 10 kernels, 29 passes over memory). Here the first stays one
kernel, and the second reads three tensors and writes two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import _dispatch
from .._arguments import worded
from .._twins import serves
from .autograd import Smooth, Spec
from .reference import SELU_ALPHA, SELU_SCALE

__all__ = ["elu", "gelu", "hardswish", "mish", "selu", "sigmoid", "silu", "softplus", "tanh"]


@worded
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    r"""x sigmoid(x), elementwise; also called swish.

    Equivalent to ``torch.nn.functional.silu(input, inplace)``, bit for bit, first derivative
    included; the second agrees to rounding.

    Args:
        input: any shape and memory format; float64, float32, bfloat16 or float16, the second
            derivative of half types computed in float32 and rounded once.
        inplace: write the result into `input`; that is torch's own function, all orders.

    Returns:
        y, with the shape, dtype and strides that torch gives it.

    Derivatives: of order 1 and 2, in reverse and forward mode and under torch.func; order 3 and
    forward mode inside forward mode raise. Integer and complex tensors, tensor subclasses, calls
    inside torch.compile and inside ``use_impl("reference")`` go to torch's own function, which has
    any order.
    Memory kept for backward: `input`, as in torch.

    Raises:
        RuntimeError: the implementation asked for by `ganops.use_impl` cannot serve.

    Source: Ramachandran et al. 2017; KERNELS: what stock second derivatives cost.

    Example:
        >>> silu(torch.tensor([-1.0, 2.0]))
        tensor([-0.2689,  1.7616])
    """
    impl = None if inplace else _impl(input)
    return F.silu(input, inplace) if impl is None else _smooth(input, Spec(impl, "silu"))


@worded
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    r"""x times the normal distribution function at x, exact or by tanh.

    Equivalent to ``torch.nn.functional.gelu(input, approximate=approximate)``; everything else as
    in `silu`. Source: Hendrycks, Gimpel 2016.
    """
    names = {"none": "gelu", "tanh": "gelu_tanh"}
    impl = _impl(input) if approximate in names else None  # torch says what it expects
    if impl is None:
        return F.gelu(input, approximate=approximate)
    return _smooth(input, Spec(impl, names[approximate]))


@worded
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    r"""log(1 + exp(beta x)) / beta, and x where beta x > threshold.

    Equivalent to ``torch.nn.functional.softplus(input, beta, threshold)``; everything else as in
    `silu`. The second derivative is 0 past the threshold.
    """
    impl = _impl(input)
    if impl is None:
        return F.softplus(input, beta, threshold)
    return _smooth(input, Spec(impl, "softplus", float(beta), float(threshold)))


@worded
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    r"""x where x > 0, else alpha (exp(x) - 1).

    Equivalent to ``torch.nn.functional.elu(input, alpha, inplace)``; everything else as in `silu`.
    At 0 the derivatives are those from the left. Source: Clevert et al. 2015.
    """
    impl = None if inplace else _impl(input)
    if impl is None:
        return F.elu(input, alpha, inplace)
    return _smooth(input, Spec(impl, "elu", float(alpha), 1.0))


@worded
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    r"""1.0507 times `elu` with alpha 1.6733: the fixed point of mean 0 and variance 1.

    Equivalent to ``torch.nn.functional.selu(input, inplace)``; everything else as in `silu`.
    Source: Klambauer et al. 2017.
    """
    impl = None if inplace else _impl(input)
    if impl is None:
        return F.selu(input, inplace)
    return _smooth(input, Spec(impl, "elu", SELU_ALPHA * SELU_SCALE, SELU_SCALE))


@worded
def tanh(input: Tensor) -> Tensor:
    r"""tanh x, elementwise.

    Equivalent to ``torch.tanh(input)``; everything else as in `silu`. Memory kept for backward: the
    result, as in torch.
    """
    impl = _impl(input)
    return torch.tanh(input) if impl is None else _smooth(input, Spec(impl, "tanh"))


@worded
def sigmoid(input: Tensor) -> Tensor:
    r"""1 / (1 + exp(-x)), elementwise.

    Equivalent to ``torch.sigmoid(input)``; everything else as in `silu`. Memory kept for backward:
    the result, as in torch.
    """
    impl = _impl(input)
    return torch.sigmoid(input) if impl is None else _smooth(input, Spec(impl, "sigmoid"))


@worded
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    r"""x tanh(softplus(x)), elementwise.

    Equivalent to ``torch.nn.functional.mish(input, inplace)``; everything else as in `silu`.
    Source: Misra 2019.
    """
    impl = None if inplace else _impl(input)
    return F.mish(input, inplace) if impl is None else _smooth(input, Spec(impl, "mish"))


@worded
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    r"""x clamp(x + 3, 0, 6) / 6, elementwise.

    Equivalent to ``torch.nn.functional.hardswish(input, inplace)``; everything else as in `silu`.
    The second derivative is 0 at and beyond -3 and 3. Source: Howard et al. 2019.
    """
    impl = None if inplace else _impl(input)
    return F.hardswish(input, inplace) if impl is None else _smooth(input, Spec(impl, "hardswish"))


def _impl(x: Tensor) -> str | None:
    """The compiled implementation that serves x, or None: torch's own function does."""
    if not serves(x) or x.dtype not in _dispatch.FLOATING:
        return None
    impl = _dispatch.choose("smooth", "auto", x.device, x.dtype)
    return None if impl == "reference" else impl


def _smooth(x: Tensor, spec: Spec) -> Tensor:
    y: Tensor = Smooth.apply(x, spec)
    return y


# torch's function, for each way to write it -> what serves it. In-place forms that are functions of
# their own (torch.tanh_, F.elu_, Tensor.sigmoid_) are left to torch.
TWINS: dict[Any, Callable[..., Any]] = {
    F.silu: silu,
    F.gelu: gelu,
    F.softplus: softplus,
    F.elu: elu,
    F.selu: selu,
    torch.selu: selu,
    torch.tanh: tanh,
    Tensor.tanh: tanh,
    torch.sigmoid: sigmoid,
    Tensor.sigmoid: sigmoid,
    torch.special.expit: sigmoid,
    F.mish: mish,
    F.hardswish: hardswish,
}
