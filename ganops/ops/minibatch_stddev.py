"""Minibatch standard deviation: a map that shows a discriminator how varied its batch is.

Composed of torch's operations: it stands before the last 4 x 4 block of a critic, where a kernel of
its own would have nothing to save.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._arguments import whole
from ._autograd import transformed

__all__ = ["minibatch_stddev"]

EPS = 1e-8


def minibatch_stddev(x: Tensor, group_size: int = 4, num_channels: int = 1) -> Tensor:
    r"""Appends the average standard deviation within groups of samples, as constant maps.

    With g = min(group_size, N) and M = N / g groups: the members of sample n's group are n mod M,
    n mod M + M, ... (stride M, not neighbours). Channels are split into F = num_channels runs;

    .. math:: s_{mf} = \operatorname*{mean}_{c \in f,\, h,\, w}
              \sqrt{\tfrac 1 g \sum_i (x_{ichw} - \mu_{mchw})^2 + 10^{-8}}

    Args:
        x: (N, C, H, W), or any (N, C, ...), of any memory format; float64, float32, bfloat16 or
            float16. Half types are reduced in float32 and rounded once.
        group_size: g, at least 1; the whole batch if it is smaller.
        num_channels: F, at least 1.

    Returns:
        (N, C + F, H, W): x, then the map s of each sample's group, constant over (H, W); x's dtype.

    Derivatives: of any order, in every mode: torch's own. A batch of equal samples has s = 1e-4 and
    gradient 0. Samples are coupled: the gradient of the sum of all scores is not that of each.
    Memory kept for backward: two tensors of x's size (float32 for half types).
    Under data parallelism a group stays within its rank.

    Raises:
        ValueError: fewer than two dimensions, group_size or num_channels below 1, N not divisible
            by g, C not divisible by F. TypeError: x is not a floating tensor, a number
            no integer.

    Source: Karras et al. 2017 (ProGAN), arXiv 1710.10196; grouping as in its code.

    Example:
        >>> x = torch.arange(16.0).reshape(4, 2, 2, 1)
        >>> minibatch_stddev(x, group_size=2)[:, 2, 0, 0]
        tensor([4., 4., 4., 4.])
    """
    _check(x, group_size, num_channels)
    n, c = x.shape[:2]
    if n == 0:
        return x.new_empty(0, c + num_channels, *x.shape[2:])
    g = min(group_size, n)
    wide = x if x.dtype == torch.float64 else x.float()
    groups = wide.unflatten(0, (g, n // g))  # (g, M, C, H, W): a view in any memory format
    # Not torch.var: over a leading dimension it takes six times as long on the CPU.
    centred = groups - groups.mean(0)
    deviation = (centred.square().mean(0) + EPS).sqrt()  # (M, C, H, W)
    s = deviation.reshape(n // g, num_channels, -1).mean(-1).to(x.dtype)  # (M, F)
    maps = s.repeat(g, 1).reshape(n, num_channels, *[1] * (x.dim() - 2))
    maps = maps.expand(-1, -1, *x.shape[2:])
    last = torch.channels_last
    told = torch.compiler.is_compiling() or not transformed()  # vmap cannot tell memory formats
    plain = x.dim() == 4 and told
    if plain and x.is_contiguous(memory_format=last) and not x.is_contiguous():
        maps = maps.contiguous(memory_format=last)  # cat keeps the memory format that all have
    return torch.cat((x, maps), 1)


def _check(x: Tensor, group_size: int, num_channels: int) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"minibatch_stddev: expected x as a float tensor, got {got}")
    if x.dim() < 2:
        raise ValueError(f"minibatch_stddev: expected x of shape (N, C, ...), got {tuple(x.shape)}")
    whole("minibatch_stddev", "group_size", group_size, 1)
    whole("minibatch_stddev", "num_channels", num_channels, 1)
    n, c = x.shape[:2]
    if n and n % min(group_size, n):
        raise ValueError(
            f"minibatch_stddev: expected a batch divisible by group_size {group_size}, got {n}"
        )
    if c % num_channels:
        raise ValueError(
            f"minibatch_stddev: expected channels divisible by num_channels {num_channels}, got {c}"
        )
