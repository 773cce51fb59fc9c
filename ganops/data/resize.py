"""One resize, antialiased: centre crop to the short side, then Lanczos (Pillow)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganops.data.extras import require


def fit(image: Any, res: int) -> Any:
    """A Pillow image -> res x res: square centre crop, then one Lanczos resize."""
    resampling = require("PIL.Image", "resizing images", "pillow").Resampling
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square if side == res else square.resize((res, res), resampling.LANCZOS)


def resize_batch(images: Tensor, res: int) -> Tensor:
    """uint8 (N, C, H, W) -> uint8 (N, C, res, res), each channel by `fit`."""
    pillow = require("PIL.Image", "resizing images", "pillow")
    planes = images.flatten(0, 1).numpy()
    fitted = [as_tensor(fit(pillow.fromarray(plane), res)) for plane in planes]
    return torch.cat(fitted).reshape(*images.shape[:2], res, res)


def as_tensor(image: Any) -> Tensor:
    """A Pillow image in mode L or RGB -> uint8 (C, H, W)."""
    import numpy as np

    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
