"""Fakes of the philox op. It has no derivative: no tensor enters its numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from .._autograd import register
from .._triton import deferred


def _fake(like: Tensor, n: int, seed: int, offset: int, stream: int, kind: int) -> Tensor:
    return like.new_empty(n, dtype=torch.int64 if kind == 0 else torch.float32)


register(
    "philox",
    "(Tensor like, int n, int seed, int offset, int stream, int kind) -> Tensor",
    fake=_fake,
    autograd=None,
    triton=deferred(__package__, "philox"),
)
