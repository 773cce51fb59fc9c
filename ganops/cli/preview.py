"""``ganops augment``: a picture of what augmentation policies do."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganops.data import open_data
from ganops.data.extras import require
from ganops.ops import AugmentPolicy, augment
from ganops.trainers import pictures
from ganops.trainers.checkpoint import write_atomically

OFF: dict[str, Any] = {"flip": 0.0, "shift": 0.0}
# One transform each, strong enough to be seen; presets follow as they are.
SINGLE: dict[str, AugmentPolicy] = {
    "flip": AugmentPolicy(flip=1.0, shift=0.0),
    "shift, reflect": AugmentPolicy(flip=0.0, shift=0.25),
    "shift, zero": AugmentPolicy(flip=0.0, shift=0.25, padding="zero"),
    "shift, sub-pixel": AugmentPolicy(flip=0.0, shift=0.25, subpixel=True),
    "cutout": AugmentPolicy(**OFF, cutout=0.5),
    "brightness": AugmentPolicy(**OFF, brightness=0.5),
    "saturation": AugmentPolicy(**OFF, saturation=1.0),
    "contrast": AugmentPolicy(**OFF, contrast=0.5),
    "noise": AugmentPolicy(**OFF, noise=0.2),
}


def rows(images: Tensor, policies: Sequence[str], seed: int) -> dict[str, Tensor]:
    """uint8 (n, C, H, W) -> by name, uint8 images of the same shape: the originals, then T(x)."""
    found = {"original": images}
    for name in dict.fromkeys(policies or SINGLE):
        shown = augment(images, SINGLE.get(name, name), seed=seed)
        found[name] = ((shown + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return found


def preview(
    data: str, policies: Sequence[str], out: str, *, n: int, seed: int, res: int | None
) -> int:
    suffix = os.path.splitext(out)[1].lower()
    if suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"augment: expected out as a .png, .svg or .pdf file, got {out!r}")
    if n < 1:
        raise ValueError(f"augment: expected n of at least 1, got {n}")
    images, _ = open_data(data, res=res, seed=seed).take(n)
    found = rows(images, policies, seed)
    write_atomically(out, figure(found, n, suffix))
    print(f"{out}: {n} images under {len(found) - 1} policies")
    return 0


def figure(found: dict[str, Tensor], columns: int, suffix: str) -> bytes:
    """One labelled row for each name."""
    require("matplotlib", "drawing a picture")
    from matplotlib.figure import Figure

    drawn = pictures.grid(torch.cat(list(found.values())), columns=columns, tile=64)
    height, width = drawn.shape[:2]
    page = Figure(figsize=((width + 160) / 100, height / 100), dpi=100)
    axis = page.add_axes((160 / (width + 160), 0, width / (width + 160), 1))
    axis.imshow(drawn.numpy(), interpolation="nearest", aspect="auto")
    axis.set_xticks([])
    axis.set_yticks([height / len(found) * (i + 0.5) for i in range(len(found))], list(found))
    stream = io.BytesIO()
    page.savefig(stream, format=suffix[1:])
    return stream.getvalue()
