"""Filters for upfirdn2d and its relatives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .arguments import check_gain


def setup_filter(
    f: Any,
    device: torch.device | str | None = None,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """A filter as `upfirdn2d` takes it.

    Args:
        f: numbers, a tensor or an array: of two dims, of one dim for both axes, or one number; None
            for the identity.
        device: where the filter will be used; default the CPU.
        normalize: divide by the sum of the taps, so that constant images stay as they are.
        flip_filter: reverse the taps.
        gain: the result's factor.
        separable: keep one dim, to be applied along each axis; default if there is one of 8 taps
            and more. Otherwise one dim becomes the outer product with itself.

    Returns:
        A float32 filter of one dim (taps,) or two (rows, columns). Computed in float64.

    Raises:
        ValueError: no taps, more than two dims, separable with two, normalize of taps whose sum is
            0 or not finite, a gain that is not finite, or a separable filter with a negative one.
            TypeError: not real numbers.

    Source: Karras et al. 2020 (StyleGAN2), whose function of this name it follows.

    Example:
        >>> setup_filter([1, 2, 1])[1]
        tensor([0.1250, 0.2500, 0.1250])
    """
    check_gain("setup_filter", gain)
    try:
        g = torch.as_tensor(1.0 if f is None else f).detach()
        if g.is_complex():
            raise TypeError("it is complex")
        g = g.to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"setup_filter: expected f as numbers, got {f!r} ({error})") from None
    g = g.reshape(1) if g.dim() == 0 else g
    if g.dim() > 2 or g.numel() == 0:
        raise ValueError(
            f"setup_filter: expected taps in one or two dims, got shape {tuple(g.shape)}"
        )
    if separable is None:
        separable = g.dim() == 1 and g.numel() >= 8
    if separable and g.dim() == 2:
        raise ValueError(
            f"setup_filter: expected f of one dim to be separable, got shape {tuple(g.shape)}"
        )
    if g.dim() == 1 and not separable:
        g = g.outer(g)
    if normalize:
        total = g.sum().item()
        if total == 0 or not math.isfinite(total):
            raise ValueError(
                f"setup_filter: expected taps of finite sum other than 0 to normalize, got {total}"
            )
        g = g / total
    if flip_filter:
        g = g.flip(tuple(range(g.dim())))
    if separable and gain < 0:
        raise ValueError(f"setup_filter: expected gain >= 0 for a separable filter, got {gain}")
    # Along each of two axes once: the square root.
    return (g * float(gain) ** (g.dim() / 2)).to(device or "cpu", torch.float32)
