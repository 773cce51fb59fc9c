"""The consistency loss itself: how far a critic's outputs for x and T(x) are apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import _dispatch
from .._autograd import differentiable
from . import reference
from .autograd import Spec, Square

__all__ = ["consistency_loss"]

_REDUCTIONS = ("mean", "sum", "none")


def consistency_loss(
    d_out: Any,
    *,
    reduction: str = "mean",
    output: Callable[[Any], Tensor] | None = None,
    impl: str = "auto",
) -> Tensor:
    r"""How far a critic's outputs for images and for their augmented twins are apart.

    Equivalent to::

        a, b = d_out.chunk(2)
        (a - b).square().flatten(1).sum(1).mean()

    .. math:: \frac1B \sum_b \sum_i \left(D(x_b)_i - D(T(x_b))_i\right)^2

    The sum runs over all dimensions but the first. Both halves get a gradient.

    Args:
        d_out: (2 B, ...) with B >= 1, what the critic returned for the batch [x ; T(x)]: logits,
            patch maps or features, any memory format. float64, float32, bfloat16, float16.
        reduction: "mean" over samples, "sum", or "none".
        output: picks that tensor from what the critic returned, where it is a tuple or a dict.
        impl: "auto", "reference", "native" or "triton".

    Returns:
        A scalar, or (B,) for "none"; float64 for float64 input, else float32: sums run in float32
        blocks and float64 totals on the CPU and in CUDA C++, in float32 by Triton.

    Derivatives: of every order, in reverse mode, forward over reverse and under torch.func; forward
    mode inside forward mode, in which PyTorch would lose tangents, raises.
    Extra memory: none of d_out's size. The same input gives the same bits, for any thread count.

    Raises:
        ValueError: a first dimension that is odd or zero, or an unknown reduction.
        TypeError: no floating tensor. RuntimeError: impl cannot serve.

    Source: Zhang et al. 2020, arXiv 1910.12027; card cr_gan (last layer only, mean over samples).

    Example:
        >>> consistency_loss(torch.tensor([[1.0], [2.0], [1.5], [0.0]]))
        tensor(2.1250)
    """
    x = d_out if output is None else output(d_out)
    _check(x, reduction)
    impl = _dispatch.choose("consistency", impl, x.device, x.dtype)
    if impl == "reference":
        return reference.consistency_loss(x, reduction)
    scale = 2.0 / x.shape[0] if reduction == "mean" else 1.0
    per_sample = reduction == "none"
    if torch.compiler.is_compiling():
        out: Tensor = differentiable("consistency", impl)(x, None, scale, per_sample)
        return out
    return Square.apply(x, Spec(impl, scale, per_sample))  # type: ignore[no-any-return]


def _check(x: Any, reduction: str) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"consistency_loss: expected a tensor, got {type(x).__name__}; pick one with output="
        )
    if x.dtype not in _dispatch.FLOATING or x.layout != torch.strided:
        raise TypeError(
            f"consistency_loss: expected a dense float tensor, got {x.dtype}, {x.layout}"
        )
    if x.dim() == 0 or x.shape[0] == 0 or x.shape[0] % 2:
        raise ValueError(
            "consistency_loss: expected (2 B, ...) outputs for [x ; T(x)] with B >= 1, "
            f"got {tuple(x.shape)}"
        )
    if reduction not in _REDUCTIONS:
        raise ValueError(
            f"consistency_loss: expected reduction 'mean', 'sum' or 'none', got {reduction!r}"
        )
