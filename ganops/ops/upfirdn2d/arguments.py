"""What a caller may pass to upfirdn2d and its relatives, and the sentences about the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import _dispatch

Pair = int | Sequence[int]
Four = tuple[int, int, int, int]


def check_images(op: str, x: Any) -> None:
    if not isinstance(x, Tensor) or x.dtype not in _dispatch.FLOATING or x.layout != torch.strided:
        got = f"{x.layout} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"{op}: expected x as a dense float64, float32, bfloat16 or float16 tensor, got {got}"
        )
    if x.dim() != 4 or min(x.shape[2:]) < 1:
        raise ValueError(
            f"{op}: expected x of shape (N, C, H, W) with at least one pixel, got {tuple(x.shape)}"
        )


def check_gain(op: str, gain: Any) -> None:
    if not isinstance(gain, (int, float)) or not math.isfinite(gain):
        raise ValueError(f"{op}: expected gain as a finite number, got {gain!r}")


def taps_of(op: str, x: Tensor, f: Any) -> tuple[int, int]:
    """(x, y): how many taps f has along each axis."""
    if f is None:
        return 1, 1
    if not isinstance(f, Tensor) or not f.is_floating_point():
        got = f.dtype if isinstance(f, Tensor) else type(f).__name__
        raise TypeError(f"{op}: expected f as a float tensor (see setup_filter) or None, got {got}")
    if f.dim() not in (1, 2) or f.numel() == 0:
        raise ValueError(
            f"{op}: expected f of shape (taps,) or (rows, columns), not empty, got {tuple(f.shape)}"
        )
    if f.device != x.device:
        raise ValueError(f"{op}: expected f on {x.device} as x is, got {f.device}")
    return f.shape[-1], f.shape[0]


def _integers(op: str, name: str, value: Any, lengths: tuple[int, ...]) -> tuple[int, ...]:
    if type(value) is int:  # as most are
        return (value,)
    values = tuple(value) if isinstance(value, (tuple, list, torch.Size)) else (value,)
    if any(isinstance(v, bool) or not isinstance(v, (int, torch.SymInt)) for v in values):
        raise TypeError(f"{op}: expected {name} as integers, got {value!r}")
    if len(values) not in lengths:
        *most, last = (str(n) for n in lengths if n > 1)
        counts = f"{', '.join(most)} or {last}" if most else last
        raise ValueError(f"{op}: expected {name} as one integer or {counts} of them, got {value!r}")
    return values


def factors_of(op: str, name: str, value: Any) -> tuple[int, int]:
    """(x, y)"""
    values = _integers(op, name, value, (1, 2))
    if min(values) < 1:
        raise ValueError(f"{op}: expected {name} of at least 1, got {value!r}")
    return values[0], values[-1]


def padding_of(op: str, value: Any) -> Four:
    """(x0, x1, y0, y1)"""
    values = _integers(op, "padding", value, (1, 2, 4))
    if len(values) == 4:
        return values[0], values[1], values[2], values[3]
    return values[0], values[0], values[-1], values[-1]


def padding_beyond(op: str, value: Any, sides: Sequence[tuple[int, int]]) -> Four:
    """The caller's padding on top of what the op itself needs at the sides of x and y."""
    x0, x1, y0, y1 = padding_of(op, value)
    (left, right), (top, bottom) = sides
    return x0 + left, x1 + right, y0 + top, y1 + bottom
