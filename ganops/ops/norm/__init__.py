"""Norms, ready for a second derivative.

Orders 0 and 1 are torch's own kernels, which run at the limit of memory. What stock PyTorch lacks
is a second derivative: it composes each from some seventy elementary operations, 44 to 107 passes
over memory. These have one kernel for it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import _dispatch
from .._arguments import number, worded
from . import reference
from .kinds import HALVES, Batch, Group, Instance, Layer, RootMeanSquare
from .serving import all_shaped, apply, autocast, both, running, served

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "pixel_norm", "rms_norm"]

_stock: Any = F  # its type hints are narrower than what it takes


@worded
def layer_norm(
    input: Tensor,
    normalized_shape: list[int] | tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    impl: str = "auto",
) -> Tensor:
    r"""Layer normalisation with a fused double backward.

    Equivalent to ``torch.nn.functional.layer_norm`` with the same arguments, bit for bit, first
    derivatives included.

    .. math:: y = w \frac{x - \mathrm{mean}(x)}{\sqrt{\mathrm{var}(x) + \epsilon}} + b

    Args:
        input: any shape that ends in normalized_shape, any strides. float64, float32, bfloat16 or
            float16; half types are computed in float32. Under CUDA autocast, cast to float32 as
            torch does. Tensor subclasses and calls inside torch.compile go to torch's own function.
        normalized_shape: the trailing dims that share their statistics.
        weight, bias: of normalized_shape, or None; input's dtype, or float32 beside a half input.
        eps: added to the variance.
        impl: "auto", "reference", "native" or "triton", for order 2; see `ganops.use_impl`.

    Returns:
        y, with input's shape and dtype.

    Derivatives: of order 1 and 2, in reverse and forward mode and under torch.func; order 3 raises
    (impl="reference": any order; torch's own third derivative is wrong). Memory kept for backward:
    input, weight and a mean and rstd for each row.

    Raises:
        RuntimeError: shapes or dtypes that do not fit, from torch; impl cannot serve.

    Source: Ba et al. 2016; double backward: card gradient_penalties_r1_r2.

    Example:
        >>> layer_norm(torch.tensor([[1.0, 3.0]]), (2,), eps=0.0)
        tensor([[-1.,  1.]])
    """
    shape = tuple(normalized_shape)
    trailing = tuple(input.shape[input.dim() - len(shape) :])
    fits = len(shape) > 0 and trailing == shape and all_shaped(shape, weight, bias)
    if not (fits and served(input, weight, bias)):
        return _stock.layer_norm(input, normalized_shape, weight, bias, eps)
    return apply(*autocast(input, weight, bias), lambda i: Layer(i, eps, shape), impl)


@worded
def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    impl: str = "auto",
) -> Tensor:
    r"""Group normalisation with a fused double backward.

    Equivalent to ``torch.nn.functional.group_norm`` with the same arguments, bit for bit. A group
    of C / num_groups channels of one sample shares its statistics; everything else as in
    `layer_norm`.

    Args:
        input: (B, C, ...). num_groups: divides C. weight, bias: (C,) or None.
        eps, impl: as in `layer_norm`.

    Returns:
        y, with input's shape and dtype; channels last stays so on the CPU, as with torch.

    Raises:
        ValueError: one number per group. RuntimeError: shapes that do not fit, from torch.

    Source: Wu and He 2018.
    """
    fits = (
        input.dim() >= 2
        and num_groups > 0
        and input.shape[1] % num_groups == 0
        and input.numel() > input.shape[0] * num_groups
        and all_shaped(input.shape[1:2], weight, bias)
    )
    if not (fits and served(input, weight, bias)):
        return _stock.group_norm(input, num_groups, weight, bias, eps)
    return apply(*autocast(input, weight, bias), lambda i: Group(i, eps, num_groups), impl)


@worded
def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    impl: str = "auto",
) -> Tensor:
    r"""Instance normalisation with a fused double backward.

    Equivalent to ``torch.nn.functional.instance_norm`` with the same arguments: bit for bit with
    use_input_stats on the CPU, to rounding otherwise. A channel of one sample shares its
    statistics; everything else as in `batch_norm`.

    Args:
        input: (B, C, ...) with at least one axis after C. running_mean, running_var: (C,) or None.
        weight, bias: (C,) or None.
        use_input_stats: False: normalise by the running statistics, as `batch_norm` in eval.
        momentum, eps, impl: as in `batch_norm`.

    Returns:
        y, with input's shape and dtype, contiguous.

    Raises:
        ValueError: one position per channel. RuntimeError: shapes that do not fit, from torch.

    Source: Ulyanov et al. 2016.
    """
    stats = (running_mean, running_var)
    fits = input.dim() >= 3 and (not use_input_stats or input[:1, :1].numel() > 1)
    if not (fits and running(input, stats, weight, bias, not use_input_stats)):
        return _stock.instance_norm(
            input, *stats, weight, bias, use_input_stats, momentum, eps
        )  # fmt: skip
    if not use_input_stats:
        return reference.fixed(input, *both(stats), weight, bias, eps)
    channels = input.shape[1]
    flat = input.contiguous().view(1, -1, *input.shape[2:])
    y = apply(flat, weight, bias, lambda i: Instance(i, eps, momentum, stats, channels), impl)
    return y.view(input.shape)


@worded
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    impl: str = "auto",
) -> Tensor:
    r"""Batch normalisation with a fused double backward.

    Equivalent to ``torch.nn.functional.batch_norm`` with the same arguments: bit for bit in
    training on the CPU, to rounding otherwise. Not evaluated, it is linear in input, and sends
    nothing but what is there through the primal network.

    Args:
        input: (B, C, ...), any strides; dtypes as in `layer_norm`, but autocast leaves it alone.
        running_mean, running_var: (C,) or None in training, where they are moved once, by
            (1 - momentum) old + momentum new; required otherwise.
        weight, bias: (C,) or None.
        training: normalise by the batch's own statistics.
        momentum, eps, impl: as in torch; as in `layer_norm`.

    Returns:
        y, with input's shape and dtype.

    Derivatives: in training those of `layer_norm`; otherwise of any order.

    Raises:
        ValueError: one number per channel in training. RuntimeError: shapes that do not fit, from
            torch; impl cannot serve.

    Source: Ioffe and Szegedy 2015.
    """
    stats = (running_mean, running_var)
    fits = input.dim() >= 2 and (not training or input.numel() > input.shape[1])
    if not (fits and running(input, stats, weight, bias, not training)):
        return _stock.batch_norm(input, *stats, weight, bias, training, momentum, eps)
    if not training:
        return reference.fixed(input, *both(stats), weight, bias, eps)
    return apply(input, weight, bias, lambda i: Batch(i, eps, momentum, stats), impl)


@worded
def rms_norm(
    input: Tensor,
    normalized_shape: list[int] | tuple[int, ...],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    impl: str = "auto",
) -> Tensor:
    r"""RMS normalisation with a fused double backward.

    Equivalent to ``torch.nn.functional.rms_norm`` with the same arguments, to rounding.

    .. math:: y = w \frac{x}{\sqrt{\mathrm{mean}(x^2) + \epsilon}}

    Args:
        input, normalized_shape, weight, impl: as in `layer_norm`; weight in input's dtype.
        eps: default the machine epsilon of the dtype computed in.

    Returns:
        y, with input's shape and dtype.

    Raises:
        RuntimeError: shapes that do not fit, from torch; impl cannot serve.

    Source: Zhang and Sennrich 2019.
    """
    shape = tuple(normalized_shape)
    trailing = tuple(input.shape[input.dim() - len(shape) :])
    fits = len(shape) > 0 and trailing == shape and all_shaped(shape, weight)
    x, w, _ = autocast(input, weight, None)
    same = w is None or w.dtype == x.dtype
    if not (fits and same and served(input, weight, None)):
        return _stock.rms_norm(input, normalized_shape, weight, eps)
    eps = torch.finfo(torch.float32 if x.dtype in HALVES else x.dtype).eps if eps is None else eps
    return apply(x, w, None, lambda i: RootMeanSquare(i, eps, len(shape)), impl)


@worded
def pixel_norm(x: Tensor, eps: float = 1e-8, *, impl: str = "auto") -> Tensor:
    r"""Each pixel's channels divided by their root mean square, with a fused double backward.

    Equivalent to::

        y = x * (x.square().mean(1, keepdim=True) + eps).rsqrt()

    Args:
        x: (B, C, ...), any strides. float64, float32, bfloat16 or float16; half types are computed
            in float32 and rounded once.
        eps: added to the mean square. impl: as in `layer_norm`.

    Returns:
        y, with x's shape and dtype.

    Derivatives: those of `layer_norm`.

    Raises:
        ValueError: x has no dim 1, eps is negative or not finite. TypeError: x is not a floating
            tensor, eps not a number.
        RuntimeError: impl cannot serve.

    Source: Karras et al. 2018 (ProGAN).

    Example:
        >>> pixel_norm(torch.tensor([[3.0, 4.0]]), eps=0.0)
        tensor([[0.8485, 1.1314]])
    """
    if not isinstance(x, Tensor) or x.dtype not in _dispatch.FLOATING:
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"pixel_norm: expected x as a float tensor, got {got}")
    if x.dim() < 2:
        raise ValueError(f"pixel_norm: expected x as (B, C, ...), got {tuple(x.shape)}")
    eps = number("pixel_norm", "eps", eps, 0.0)
    if not served(x, None, None):
        return reference.norm(x, None, None, RootMeanSquare("reference", eps, 0))
    return apply(x, None, None, lambda i: RootMeanSquare(i, eps, 0), impl)
