"""The consistency loss in plain PyTorch, differentiable to any order."""

from __future__ import annotations

import torch
from torch import Tensor


def consistency_loss(x: Tensor, reduction: str) -> Tensor:
    """Sums of squared differences of the halves of x, (2B, ...) -> () or (B,)."""
    x = x if x.dtype == torch.float64 else x.float()
    a, b = x.reshape(2, x.shape[0] // 2, -1)
    squares = (a - b).square().sum(1)
    return {"mean": squares.mean, "sum": squares.sum, "none": squares.clone}[reduction]()
