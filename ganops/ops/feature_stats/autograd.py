"""The fake of the feature_stats op. It has no derivative: statistics are kept, not trained."""

from __future__ import annotations

import torch
from torch import Tensor

from .._autograd import register
from .._triton import deferred


def _fake(rows: Tensor, mean: Tensor, m2: Tensor, count: int, fast: bool) -> Tensor:
    return torch.empty_like(mean)


register(
    "feature_stats",
    "(Tensor rows, Tensor mean, Tensor(a!) m2, int count, bool fast) -> Tensor",
    fake=_fake,
    autograd=None,
    triton=deferred(__package__, "feature_stats"),
)
