"""DRAGAN's penalty: the gradient norm around real samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._arguments import number
from ..philox import random_normal, random_uniform, seed_from
from .critic import Critic, differentiable_leaf, leaf
from .reduction import penalty_from_gradient

__all__ = ["dragan_penalty"]

NOISES = ("code", "paper", "compare_gan")


def dragan_penalty(
    critic: Callable[..., Any],
    real: Tensor,
    *,
    center: float = 1.0,
    one_sided: bool = False,
    noise: str = "code",
    variance: float | None = None,
    generator: torch.Generator | None = None,
    output: Callable[[Any], Tensor] | None = None,
    critic_args: tuple[Any, ...] = (),
    critic_kwargs: dict[str, Any] | None = None,
    engine: str = "auto",
) -> Tensor:
    r"""E (|grad D(x_hat)|_2 - center)^2 at noisy copies x_hat of real samples.

    .. math:: \frac1B \sum_b \left(\|\nabla D(\hat x_b)\|_2 - c\right)^2

    with s the standard deviation of all numbers in `real` (over n, not n - 1, as in the authors'
    code), u ~ U[0, 1) per pixel and a ~ U[0, 1) per sample:

    =============  =========================================================================
    noise          x_hat
    =============  =========================================================================
    "code"         x + a (s u / 2): the authors' code; the noise has a mean of s / 8
    "paper"        x + N(0, variance): the paper; it fixes no variance, so it must be given
    "compare_gan"  x + s (u - 1/2), clamped to [0, 1], the range images must be in
    =============  =========================================================================

    The caller multiplies by lambda (10 in the code). The critic's output is a logit.

    Args:
        critic, output, critic_args, critic_kwargs, engine: as in `gradient_penalty`.
        real: (B, ...) float images, B >= 1.
        center, one_sided: as in `penalty_from_gradient`; the authors keep the centre at 1.
        noise: "code", "paper" or "compare_gan".
        variance: of the paper's noise, > 0; None with the others.
        generator: draws the seed of the noise, as in `interpolate`.

    Returns:
        A scalar with a graph to the critic's parameters.

    Raises:
        ValueError: an unknown noise, or a variance missing, not positive, or given where there is
            none. Otherwise as `gradient_penalty`.

    Source: Kodali et al. 2017, arXiv 1705.07215; card dragan.

    Example:
        >>> critic = torch.nn.Linear(2, 1, bias=False)
        >>> _ = critic.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
        >>> dragan_penalty(critic, torch.zeros(8, 2)).item()
        16.0
    """
    called = Critic("dragan_penalty", critic, output, critic_args, critic_kwargs, engine)
    _check_noise(noise, variance)
    x = leaf("dragan_penalty", "real", real).detach()
    points = differentiable_leaf(_around(x, noise, variance, generator))
    grad = called.input_gradient(points)
    return penalty_from_gradient(grad, center=center, one_sided=one_sided)


def _around(
    x: Tensor, noise: str, variance: float | None, generator: torch.Generator | None
) -> Tensor:
    seed = seed_from(generator)
    if variance is not None:
        normal = random_normal(x.shape, seed=seed, device=x.device).to(x.dtype)
        return x + math.sqrt(variance) * normal
    std = x.std(correction=0)
    u = random_uniform(x.shape, seed=seed, device=x.device).to(x.dtype)
    if noise == "compare_gan":
        return (x + std * (u - 0.5)).clamp(0, 1)
    alpha = random_uniform((x.shape[0],), seed=seed, stream=1, device=x.device).to(x.dtype)
    return x + alpha.reshape(-1, *[1] * (x.dim() - 1)) * (0.5 * std * u)


def _check_noise(noise: str, variance: float | None) -> None:
    if noise not in NOISES:
        raise ValueError(
            f"dragan_penalty: expected noise as one of {', '.join(NOISES)}; got {noise!r}"
        )
    if (noise == "paper") != (variance is not None):
        raise ValueError(
            "dragan_penalty: noise='paper' needs a variance, and no other noise takes one; got "
            f"noise={noise!r}, variance={variance}"
        )
    if variance is not None and number("dragan_penalty", "variance", variance) <= 0:
        raise ValueError(f"dragan_penalty: expected a finite variance > 0, got {variance}")
