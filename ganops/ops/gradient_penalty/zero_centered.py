"""R1 and R2: the squared gradient norm at real or at fake samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .critic import Critic, leaf
from .reduction import reduced

__all__ = ["r1_penalty", "r2_penalty"]


def r1_penalty(
    critic: Callable[..., Any],
    real: Tensor,
    *,
    output: Callable[[Any], Tensor] | None = None,
    critic_args: tuple[Any, ...] = (),
    critic_kwargs: dict[str, Any] | None = None,
    engine: str = "auto",
    per_discriminator: bool = False,
) -> Tensor:
    r"""R1: half the mean squared norm of the critic's gradient at real samples.

    Equivalent to::

        (grad,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
        grad.flatten(1).square().sum(1).mean() / 2

    .. math:: \frac{1}{2B} \sum_b \|\nabla D(x_b)\|_2^2

    The caller multiplies by gamma. Code that has no factor 1/2 (GAN_stability) calls gamma / 2 its
    weight. The sum runs over pixels, the mean over samples.

    Args:
        critic, output, critic_args, critic_kwargs, engine, per_discriminator: as in
            `gradient_penalty`.
        real: (B, ...) float images, B >= 1. Detached: for R1 through an augmentation, call the
            augmentation in the critic.

    Returns:
        A scalar, or (K,) of a bank, with a graph to the critic's parameters.

    Raises:
        ValueError, TypeError, RuntimeError: as `gradient_penalty`.

    Source: Mescheder et al. 2018, arXiv 1801.04406; card gradient_penalties_r1_r2.

    Example:
        >>> import torch
        >>> critic = torch.nn.Linear(2, 1, bias=False)
        >>> _ = critic.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
        >>> r1_penalty(critic, torch.zeros(8, 2)).item()
        12.5
    """
    called = Critic("r1_penalty", critic, output, critic_args, critic_kwargs, engine,
                    per_discriminator=per_discriminator)  # fmt: skip
    return _half_squared_norm(called, leaf("r1_penalty", "real", real))


def r2_penalty(
    critic: Callable[..., Any],
    fake: Tensor,
    *,
    output: Callable[[Any], Tensor] | None = None,
    critic_args: tuple[Any, ...] = (),
    critic_kwargs: dict[str, Any] | None = None,
    engine: str = "auto",
    per_discriminator: bool = False,
) -> Tensor:
    """R2: E |grad D(G(z))|_2^2 / 2, `r1_penalty` at fake samples.

    Args:
        critic: any callable on (B, ...) images.
        fake: (B, ...) generated images; they need no graph and get none.
        output, critic_args, critic_kwargs, engine, per_discriminator: as in `gradient_penalty`.

    Returns:
        A scalar with a graph to the critic's parameters; the caller multiplies by gamma.

    Raises:
        ValueError, TypeError, RuntimeError: as `gradient_penalty`.

    Source: Mescheder et al. 2018, arXiv 1801.04406; card gradient_penalties_r1_r2.
    """
    called = Critic("r2_penalty", critic, output, critic_args, critic_kwargs, engine,
                    per_discriminator=per_discriminator)  # fmt: skip
    return _half_squared_norm(called, leaf("r2_penalty", "fake", fake))


def _half_squared_norm(critic: Critic, x: Tensor) -> Tensor:
    return reduced(critic, critic.input_gradient(x), center=0.0, one_sided=False) / 2
