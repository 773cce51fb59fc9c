"""Upper triangles of square matrices: mirrored to both sides, and folded to half the memory."""

from __future__ import annotations

import torch
from torch import Tensor


def mirrored(m: Tensor) -> Tensor:
    """The symmetric matrix whose upper triangle is that of m (d, d). A new tensor."""
    upper = m.triu()
    return upper.add_(upper.mT.tril(-1))


def folded(m: Tensor) -> Tensor:
    """Upper triangle of m (d, d) -> (ceil(d / 2), d + 1): row i of it, behind row d - 1 - i."""
    half = (len(m) + 1) // 2
    box = m.new_zeros(half, len(m) + 1)
    box[:, 1:] = m[:half].triu()
    box[:, :-1] += m.flip(0, 1)[:half].tril()
    return box


def unfolded(box: Tensor, d: int) -> Tensor:
    """The upper triangle that `folded` folded, zeros below. -> (d, d)"""
    half = len(box)
    m = box.new_zeros(d, d)
    m[: d - half] = box[: d - half, 1:].triu()
    lower = torch.cat((box[:, :-1].tril(), box.new_zeros(d - half, d)))
    m[d - half :] = lower.flip(0, 1)[d - half :]
    return m
