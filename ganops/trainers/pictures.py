"""Image files: grids of samples, and curves of the log."""

from __future__ import annotations

import io
import math
import os
from typing import Any

import torch
from torch import Tensor

from ganops.data.extras import require
from ganops.trainers.checkpoint import write_atomically

TILE = 48  # small images are enlarged by whole factors to about this side
GAP_SHADE = 64
JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95}
FORMATS: dict[str, dict[str, Any]] = {".png": {"format": "PNG"}, ".jpg": JPEG, ".jpeg": JPEG}


def grid(images: Tensor, *, columns: int | None = None, tile: int = TILE) -> Tensor:
    """uint8 (N, C, H, W) -> uint8 (H', W', 3): rows of images, enlarged, with gaps."""
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    colour = images[:, :3] if channels >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    factor = max(1, tile // max(height, width))
    gap = max(2, factor)
    colour = colour.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    height, width = height * factor, width * factor
    size = rows * (height + gap) + gap, columns * (width + gap) + gap, 3
    canvas = torch.full(size, GAP_SHADE, dtype=torch.uint8)
    for i, image in enumerate(colour):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)
    return canvas


def encode(pixels: Tensor, suffix: str = ".png") -> bytes:
    """uint8 (H, W, 3), (H, W, 1) or (H, W) -> the bytes of an image file of one of `FORMATS`."""
    pillow = require("PIL.Image", "writing image files", "pillow")
    flat = pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels
    stream = io.BytesIO()
    pillow.fromarray(flat.contiguous().numpy()).save(stream, **FORMATS[suffix])
    return stream.getvalue()


def save_grid(path: str, images: Tensor) -> None:
    """A grid in the format that the suffix of `path` names."""
    write_atomically(path, encode(grid(images), os.path.splitext(path)[1].lower()))


def save_curves(path: str, lines: list[dict[str, Any]], title: str) -> None:
    """Losses, penalties and metrics against kimg, one panel each, from the lines of the log."""
    require("matplotlib", "drawing curves")
    from matplotlib.figure import Figure

    groups: dict[str, list[str]] = {}  # one panel each; every measurement has its own
    for key in dict.fromkeys(key for line in lines for key in line if "/" in key):
        group, name = key.split("/", 1)
        groups.setdefault(name if group == "quality" else group, []).append(key)
    if not groups:
        return
    figure = Figure(figsize=(4.2 * len(groups), 3.2), layout="constrained")
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    for axis, (group, keys) in zip(axes, groups.items(), strict=True):
        for key in keys:
            points = [(line["kimg"], line[key]) for line in lines if key in line]
            axis.plot(*zip(*points, strict=True), linewidth=1.2, label=key.split("/", 1)[1])
        values = [line[key] for key in keys for line in lines if key in line]
        if min(values) > 0 and max(values) > 50 * min(values):
            axis.set_yscale("log")
        axis.set(title=group, xlabel="kimg (batch x steps / 1000)")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    write_atomically(path, stream.getvalue())
