"""The filters of random projections: Gaussian, of unit norm, the same bits everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ._arguments import pair, whole
from .philox import random_normal

__all__ = ["random_filters"]


def random_filters(
    K: int,
    out_channels: int,
    in_channels: int,
    kernel_size: int | Sequence[int],
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    r"""Gaussian filters of unit norm, for `random_projection`.

    .. math:: W_{kc} = N_{kc} / \lVert N_{kc} \rVert_2, \qquad N_{kchij} \sim \mathcal N(0, 1)

    each output filter by its own norm, over (h, w, c_in), so that white noise keeps its variance.
    N is `random_normal(seed=seed)` in row-major order: the filters of a smaller K are the first of
    a larger. Norms are added up in float64 in an order of our own, and all else is exactly rounded:
    the same bits on every device and backend.

    Args:
        K: number of discriminators, at least 1.
        out_channels, in_channels: C and Cin, at least 1.
        kernel_size: one number or (kh, kw), at least 1; the same for all K.
        seed: 64-bit key.
        dtype: float64, float32, bfloat16 or float16; rounded once, at the end.
        device: where they are made.

    Returns:
        (K, C, Cin, kh, kw), contiguous. No derivatives: it depends on no tensor.

    Raises:
        ValueError: a size below 1, a kernel_size of another length than 2, a seed beyond 64 bits.
        TypeError: a size or seed that is no integer, dtype is not a floating dtype.

    Source: Neyshabur et al. 2017, arXiv 1705.07831; card random_projection_gan.

    Example:
        >>> random_filters(48, 1, 3, 8, seed=0).shape
        torch.Size([48, 1, 3, 8, 8])
    """
    for name, value in (("K", K), ("out_channels", out_channels), ("in_channels", in_channels)):
        whole("random_filters", name, value, 1)
    kernel = pair("random_filters", "kernel_size", kernel_size, 1)
    whole("random_filters", "seed", seed)
    shape = (K, out_channels, in_channels, *kernel)
    # The dtype is checked there; half types would round before the norm is known.
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    normal = random_normal(shape, seed=seed, dtype=wide, device=device).double()
    squares = normal.square().flatten(2)
    size = 1 << (squares.shape[2] - 1).bit_length()
    squares = F.pad(squares, [0, size - squares.shape[2]])
    while size > 1:  # torch's own sum adds in an order that depends on the machine
        size //= 2
        squares = squares[..., :size] + squares[..., size:]
    return (normal / squares.sqrt()[..., None, None]).to(dtype)
