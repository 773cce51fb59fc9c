"""ADA's geometry and colour composed of stock PyTorch, step by step as its paper's code goes.

Reflection padding by the largest margin in the batch, read by the host; upsampling, bilinear
sampling and downsampling; then a matrix product per pixel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
PAD = len(SYM6) // 4


def matrix(rows: list[list[float]], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def scale(x: float, y: float, like: Tensor) -> Tensor:
    return matrix([[x, 0, 0], [0, y, 0], [0, 0, 1]], like)


def translate(x: float, y: float, like: Tensor) -> Tensor:
    return matrix([[1, 0, x], [0, 1, y], [0, 0, 1]], like)


def margins(g: Tensor, width: int, height: int) -> list[int]:
    cx, cy = (width - 1) / 2, (height - 1) / 2
    corners = g @ matrix([[-cx, cx, cx, -cx], [-cy, -cy, cy, cy], [1, 1, 1, 1]], g)
    reach = corners[:, :2].permute(1, 0, 2).flatten(1)
    margin = torch.cat((-reach, reach)).amax(1) + matrix([2 * PAD - cx, 2 * PAD - cy] * 2, g)
    most = matrix([width - 1, height - 1] * 2, g)
    return [int(m) for m in margin.clamp_min(0).minimum(most).ceil().tolist()]


def geometry(images: Tensor, affine: Tensor) -> Tensor:
    """(B, C, H, W) by the inverse maps (B, 2, 3) of centred pixel coordinates."""
    b, c, height, width = images.shape
    last = affine.new_tensor([0, 0, 1]).expand(b, 1, 3)
    g = torch.cat((affine, last), 1)
    x0, y0, x1, y1 = margins(g, width, height)
    images = F.pad(images, [x0, x1, y0, y1], mode="reflect")
    g = translate((x0 - x1) / 2, (y0 - y1) / 2, g) @ g
    taps = images.new_tensor(SYM6)
    taps = taps / taps.sum()
    one = images.flatten(0, 1)[:, None]
    up = F.conv_transpose2d(one, 2 * taps.view(1, 1, -1, 1), stride=(2, 1), padding=(5, 0))
    up = F.conv_transpose2d(up, 2 * taps.view(1, 1, 1, -1), stride=(1, 2), padding=(0, 5))
    up = up.view(b, c, *up.shape[2:])
    g = scale(2, 2, g) @ g @ scale(0.5, 0.5, g)
    g = translate(-0.5, -0.5, g) @ g @ translate(0.5, 0.5, g)
    h, w = (height + 2 * PAD) * 2, (width + 2 * PAD) * 2
    g = scale(2 / up.shape[3], 2 / up.shape[2], g) @ g @ scale(w / 2, h / 2, g)
    grid = F.affine_grid(g[:, :2].to(images.dtype), [b, c, h, w], align_corners=False)
    at = F.grid_sample(up, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    at = at.flatten(0, 1)[:, None, 1:-1, 1:-1]
    down = F.conv2d(at, taps.view(1, 1, -1, 1), stride=(2, 1))
    return F.conv2d(down, taps.view(1, 1, 1, -1), stride=(1, 2)).view(b, c, height, width)


def color(images: Tensor, c: Tensor) -> Tensor:
    """(B, 3, H, W) by (B, 3, 4)."""
    flat = images.flatten(2)
    return (c[:, :, :3].to(flat) @ flat + c[:, :, 3:].to(flat)).view(images.shape)
