"""The block update of streaming mean and covariance in plain PyTorch: its definition.

Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
1979. The way between the means enters the product as one more row, so that one product does it all.
"""

from __future__ import annotations

import torch
from torch import Tensor


def centred(rows: Tensor, mean: Tensor, count: int, fast: bool) -> tuple[Tensor, Tensor]:
    """(n + 1, d) centred rows and the way from the old mean; the new mean (d,)."""
    n = rows.shape[0]
    wide = rows.to(torch.float64)
    own = wide.mean(0)
    step = n / (count + n)
    way = own - mean
    block = torch.cat((wide - own, way[None] * (count * step) ** 0.5))
    return block.to(torch.float32 if fast else torch.float64), mean + step * way


def feature_stats(rows: Tensor, mean: Tensor, m2: Tensor, count: int, fast: bool) -> Tensor:
    """m2 += the block's centred product, in place. -> the new mean.

    rows (n, d) floating, n >= 1; mean (d,) and m2 (d, d) float64, of `count` rows before these.
    """
    block, merged = centred(rows, mean, count, fast)
    add_product(m2, block)
    return merged


def add_product(m2: Tensor, block: Tensor) -> None:
    """m2 += block' block, in place: in float64 by one addmm_, in float32 by a temporary."""
    if block.dtype == m2.dtype:
        m2.addmm_(block.T, block)
    else:
        m2.add_(block.T @ block)
