"""augment in plain PyTorch: the definition of correct, for the parameters and for the images.

Random numbers are Philox 4x32-10. Sample s = offset + i of a seed has a stream of its own, number
2^63 + s: words 0 ... 15 of it make the parameters, each at a place of its own, and word 16 + e the
noise of element e of the image in (C, H, W) order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..philox.reference import MASK, normals_from_bits, philox4x32
from .policy import Plan

# Columns of the parameters of a sample, all float32.
COLUMNS = (
    "flip", "shift_y", "shift_x", "brightness", "saturation", "contrast",
    "cut_top", "cut_left", "cut_height", "cut_width", "noise",
)  # fmt: skip
# What a policy may do to any sample; kernels skip the rest.
REFLECT, SUBPIXEL, SATURATION, CONTRAST, NOISE = 1, 2, 4, 8, 16
PARAMETER_BLOCKS = 4  # of four words


def sample_words(
    n: int, seed: int, offset: int, first: int, blocks: int, device: torch.device
) -> Tensor:
    """(n, blocks, 4) words of blocks first, first + 1, ... of the streams of n samples."""
    sample = torch.arange(n, dtype=torch.int64, device=device)[:, None] + offset
    block = torch.arange(first, first + blocks, dtype=torch.int64, device=device)[None]
    counter = torch.stack(
        torch.broadcast_tensors(
            block & MASK, block >> 32, sample & MASK, (sample >> 32) | 0x80000000
        ),
        -1,
    )
    key = torch.tensor([seed & MASK, (seed >> 32) & MASK], dtype=torch.int64, device=device)
    return philox4x32(counter, key)


def augment_params(n: int, seed: int, offset: int, plan: Plan, device: torch.device) -> Tensor:
    """(n, len(COLUMNS)) float32: what is drawn for samples offset ... offset + n - 1."""
    words = sample_words(n, seed, offset, 0, PARAMETER_BLOCKS, device).flatten(1).unbind(1)

    def happens(word: int, of_2_to_24: int = plan.gate) -> Tensor:
        return (words[word] >> 8) < of_2_to_24

    def whole(word: int, values: int) -> Tensor:
        """Uniform in {0, ..., values - 1}."""
        return (words[word] * values) >> 32

    def signed(word: int) -> Tensor:
        """Uniform in [-1, 1), multiples of 2^-23."""
        return ((words[word] >> 8) - 2**23).to(torch.float32) * 2.0**-23

    def shift(word: int, most: int, sub: float) -> Tensor:
        moved = (whole(word, 2 * most + 1) - most).to(torch.float32) + signed(word) * sub
        return torch.where(happens(1), moved, 0.0)

    def factor(word: int, strength: float) -> Tensor:
        return torch.where(happens(word), signed(word + 1) * strength + 1.0, 1.0)

    def corner(word: int, side: int, cut: int) -> Tensor:
        return torch.where(cuts, whole(word, side + 1 - cut % 2) - cut // 2, 0)

    cuts = happens(4) & (plan.cut_y > 0 and plan.cut_x > 0)
    columns = (
        happens(0, plan.flip),
        shift(2, plan.shift_y, plan.sub_y),
        shift(3, plan.shift_x, plan.sub_x),
        torch.where(happens(8), signed(9) * plan.brightness, 0.0),
        factor(10, plan.saturation),
        factor(12, plan.contrast),
        corner(5, plan.height, plan.cut_y),
        corner(6, plan.width, plan.cut_x),
        torch.where(cuts, plan.cut_y, 0),
        torch.where(cuts, plan.cut_x, 0),
        torch.where(happens(14), plan.noise, 0.0),
    )
    return torch.stack([c.to(torch.float32) for c in columns], 1)


def _axis(shift: Tensor, side: int, flags: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each tap along an axis: (position, is it inside, weight), each (n, side)."""
    first = shift.floor()
    fraction = (shift - first)[:, None].expand(-1, side)
    start = first.to(torch.int64)[:, None] + torch.arange(side, device=shift.device)
    taps = []
    for tap, weight in enumerate((1 - fraction, fraction)):
        at = start + tap
        if flags & REFLECT:
            at = at.abs()
            at = torch.where(at > side - 1, 2 * (side - 1) - at, at)
        inside = (at >= 0) & (at < side) & (weight != 0)
        taps.append((torch.where(inside, at, 0), inside, weight))
    return taps if flags & SUBPIXEL else taps[:1]


def _box(params: Tensor, height: int, width: int) -> Tensor:
    """(n, 1, height, width): True where a cutout zeroes."""
    inside = []
    for first, count, side in ((6, 8, height), (7, 9, width)):
        at = torch.arange(side, device=params.device) - params[:, first, None]
        inside.append((at >= 0) & (at < params[:, count, None]))
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]


def _noise(x: Tensor, seed: int, offset: int) -> Tensor:
    n, elements = x.shape[0], x[0].numel()
    blocks = -(-elements // 4)
    words = sample_words(n, seed, offset, PARAMETER_BLOCKS, blocks, x.device)
    return normals_from_bits(words.flatten(0, 1)).view(n, -1)[:, :elements].reshape(x.shape)


def to_unit(x: Tensor) -> Tensor:
    """uint8 -> [-1, 1] float32; half types -> float32."""
    if x.dtype == torch.uint8:
        return x.to(torch.float32) / 127.5 - 1
    return x if x.dtype == torch.float64 else x.to(torch.float32)


def augment(
    x: Tensor, params: Tensor, seed: int, offset: int, flags: int, dtype: torch.dtype, pair: bool
) -> Tensor:
    """T(x), or [x ; T(x)]; differentiable to any order."""
    y = original = to_unit(x)
    if x.numel() == 0:
        return torch.cat((y, y) if pair else (y,)).to(dtype)
    flip, shift_y, shift_x, *_ = params.unbind(1)
    bright, saturation, contrast = params[:, 3:6, None, None, None].to(y.dtype).unbind(1)
    y = y + bright
    if flags & SATURATION:
        mean = y.mean(1, keepdim=True)
        y = (y - mean) * saturation + mean
    if flags & CONTRAST:
        mean = y.mean((1, 2, 3), keepdim=True)
        y = (y - mean) * contrast + mean
    n, channels, height, width = x.shape
    batch = torch.arange(n, device=x.device)[:, None, None, None]
    channel = torch.arange(channels, device=x.device)[None, :, None, None]
    moved: Tensor | None = None
    for row, inside_y, weight_y in _axis(shift_y.to(y.dtype), height, flags):
        for column, inside_x, weight_x in _axis(shift_x.to(y.dtype), width, flags):
            column = torch.where(flip[:, None] > 0, width - 1 - column, column)
            inside = (inside_y[:, :, None] & inside_x[:, None, :])[:, None]
            weight = (weight_y[:, :, None] * weight_x[:, None, :])[:, None]
            read = y[batch, channel, row[:, None, :, None], column[:, None, None, :]]
            read = torch.where(inside, read * weight, 0.0)
            moved = read if moved is None else moved + read
    y = y if moved is None else moved
    if flags & NOISE:
        y = y + params[:, 10, None, None, None].to(y.dtype) * _noise(x, seed, offset)
    y = torch.where(_box(params, height, width), 0.0, y)
    layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    y = torch.cat((original, y) if pair else (y,)).to(dtype)
    return y.contiguous(memory_format=layout)


def is_channels_last(x: Tensor) -> bool:
    """Are x's channels innermost in memory (and x not also contiguous in the usual order)?"""
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
