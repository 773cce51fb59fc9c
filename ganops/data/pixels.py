"""Between bytes and numbers: 0 ... 255 <-> [-1, 1], by the mapping of the StyleGAN code bases."""

from __future__ import annotations

import torch
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """uint8 u -> float32 u / 127.5 - 1 in [-1, 1]; floating images pass unchanged."""
    if images.dtype == torch.uint8:
        return images.to(torch.float32).div_(127.5).sub_(1.0)
    return images


def to_uint8(images: Tensor) -> Tensor:
    """Float in [-1, 1] -> uint8 by trunc(clamp(127.5 x + 128)): the exact inverse of `to_float`."""
    return images.detach().float().mul(127.5).add_(128.0).clamp_(0.0, 255.0).to(torch.uint8)
