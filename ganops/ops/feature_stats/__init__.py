"""Streaming mean and centred second moment of rows of features."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _dispatch
from .._autograd import kernel
from . import autograd as _registered  # noqa: F401
from . import reference

__all__ = ["feature_stats_"]


def feature_stats_(
    rows: Tensor, mean: Tensor, m2: Tensor, count: int, *, fast: bool = False, impl: str = "auto"
) -> Tensor:
    r"""Adds a block of rows to the mean and centred second moment of the rows before them.

    Equivalent to (see Chan, Golub, LeVeque)::

        own = rows.double().mean(0)
        block, way = rows.double() - own, own - mean
        m2 += block.T @ block + (count * n / (count + n)) * torch.outer(way, way)
        return mean + n / (count + n) * way

    .. math:: M_2 \leftarrow M_2 + \sum_i (x_i - \bar x)(x_i - \bar x)'
              + \tfrac{c\,n}{c + n}\, w w',\quad w = \bar x - \mu

    Args:
        rows: (n, d), n >= 1, float64, float32, bfloat16 or float16; finite (not checked).
        mean: (d,) float64, of the `count` rows so far; anything finite for count 0.
        m2: (d, d) float64, contiguous, changed in place. Only its upper triangle is defined.
        count: rows so far, >= 0.
        fast: centre in float64, multiply in float32, add up in float64: about 1e-7 relative.
        impl: "auto", "native", "triton" or "reference".

    Returns:
        The new mean (d,) float64. Not differentiable. The CPU kernel adds each element in the order
        of the rows by fused multiply-adds: the same bits with any number of threads and any
        instruction set. Extra memory: the block, centred.

    Raises:
        ValueError: shapes that do not fit, n < 1, count < 0, or m2 that is not contiguous.
        TypeError: a dtype other than those above.

    Source: Chan, Golub, LeVeque 1979; card metric_fid.

    Example:
        >>> mean, m2 = torch.zeros(1).double(), torch.zeros(1, 1).double()
        >>> mean = feature_stats_(torch.tensor([[1.0], [3.0]]), mean, m2, 0)
        >>> feature_stats_(torch.tensor([[7.0], [9.0]]), mean, m2, 2).item(), m2.item()
        (5.0, 40.0)
    """
    if rows.dtype not in _dispatch.FLOATING:
        raise TypeError(f"feature_stats_: expected floating rows, got {rows.dtype}")
    if mean.dtype != torch.float64 or m2.dtype != torch.float64:
        raise TypeError(
            f"feature_stats_: expected float64 mean and m2, got {mean.dtype} and {m2.dtype}"
        )
    d = mean.shape[0] if mean.ndim == 1 else -1
    if rows.ndim != 2 or rows.shape[0] < 1 or rows.shape[1] != d or m2.shape != (d, d):
        raise ValueError(
            f"feature_stats_: expected rows (n >= 1, d), mean (d,) and m2 (d, d), got "
            f"{tuple(rows.shape)}, {tuple(mean.shape)} and {tuple(m2.shape)}"
        )
    if not (mean.is_contiguous() and m2.is_contiguous()):
        raise ValueError("feature_stats_: expected contiguous mean and m2, got other strides")
    if count < 0:
        raise ValueError(f"feature_stats_: expected count >= 0, got {count}")
    if len({rows.device, mean.device, m2.device}) > 1:
        raise ValueError(
            f"feature_stats_: expected one device, got {rows.device}, {mean.device}, {m2.device}"
        )
    impl = _dispatch.choose("feature_stats", impl, rows.device, rows.dtype)
    rows = rows.detach()
    if impl == "reference":
        return reference.feature_stats(rows, mean, m2, count, fast)
    merged: Tensor = kernel("feature_stats", impl)(rows, mean, m2, count, fast)
    return merged
