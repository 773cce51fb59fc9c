"""Fakes of the resize op. It has no derivative: bytes have none."""

from __future__ import annotations

import torch
from torch import Tensor

from .._autograd import register
from .._triton import deferred

# Codes of csrc/common/cuda_launch.h.
DTYPES = {torch.float32: 0, torch.bfloat16: 2, torch.float16: 3}


def empty_result(x: Tensor, height: int, width: int, dtype: int, channels_last: bool) -> Tensor:
    """The result as every kernel returns it, without its numbers."""
    return torch.empty(
        (x.shape[0], 3, height, width),
        dtype=next(d for d, code in DTYPES.items() if code == dtype),
        device=x.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def _fake(
    x: Tensor,
    first_y: Tensor,
    weight_y: Tensor,
    first_x: Tensor,
    weight_x: Tensor,
    shift: float,
    divisor: float,
    dtype: int,
    channels_last: bool,
) -> Tensor:
    return empty_result(x, first_y.shape[0], first_x.shape[0], dtype, channels_last)


register(
    "resize",
    "(Tensor x, Tensor first_y, Tensor weight_y, Tensor first_x, Tensor weight_x, float shift, "
    "float divisor, int dtype, bool channels_last) -> Tensor",
    fake=_fake,
    autograd=None,
    triton=deferred(__package__, "resize"),
)
