"""Gradient penalties: the fused reduction, and the penalties on top of it.

`gradient_penalty` is WGAN-GP's, `r1_penalty` and `r2_penalty` the zero-centred ones,
`dragan_penalty` DRAGAN's, `path_length_penalty` StyleGAN2's; `loss_and_r1` and `wgan_gp_loss` are a
critic's whole losses; `penalty_from_gradient`, `penalty_and_gradient` the reduction alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..philox import random_uniform, seed_from
from .critic import Critic, differentiable_leaf
from .dragan import dragan_penalty
from .path_length import path_length_penalty
from .reduction import penalty_and_gradient, penalty_from_gradient, reduced
from .shared_delta import loss_and_r1
from .wgan_gp import wgan_gp_loss
from .zero_centered import r1_penalty, r2_penalty

__all__ = [
    "dragan_penalty",
    "gradient_penalty",
    "interpolate",
    "loss_and_r1",
    "path_length_penalty",
    "penalty_and_gradient",
    "penalty_from_gradient",
    "r1_penalty",
    "r2_penalty",
    "wgan_gp_loss",
]


def interpolate(
    real: Tensor,
    fake: Tensor,
    *,
    generator: torch.Generator | None = None,
    alpha: Tensor | None = None,
) -> Tensor:
    r"""Points between real and fake samples: alpha * real + (1 - alpha) * fake.

    Equivalent to ``torch.lerp(fake, real, alpha.reshape(-1, 1, 1, 1))``.

    Args:
        real, fake: (B, ...), same shape, dtype and device.
        generator: draws the seed of alpha ~ U[0, 1), one per sample, from Philox: the same seed
            gives the same alpha on every device. None: torch's global generator.
        alpha: (B,) weights on `real`, instead of drawing them.

    Returns:
        (B, ...), detached from `fake` and `real` (the penalty is a function of the critic alone),
        with requires_grad set.

    Raises:
        ValueError: shapes, dtypes or devices differ, or alpha is not (B,).
        TypeError: the images are not floating tensors, or alpha is not a tensor.

    Source: Gulrajani et al. 2017, Algorithm 1; card wgan_gp (one scalar per sample).
    """
    _check_pair(real, fake)
    batch = real.shape[0]
    if alpha is None:
        alpha = random_uniform((batch,), seed=seed_from(generator), device=real.device)
    elif not isinstance(alpha, Tensor):
        raise TypeError(
            f"interpolate: expected alpha as a ({batch},) tensor, one weight per sample, "
            f"got {type(alpha).__name__}"
        )
    elif alpha.shape != (batch,):
        raise ValueError(
            f"interpolate: expected alpha of shape ({batch},), one weight per sample, "
            f"got {tuple(alpha.shape)}"
        )
    weight = alpha.to(real).reshape(-1, *[1] * (real.dim() - 1))
    return differentiable_leaf(torch.lerp(fake.detach(), real.detach(), weight))


def gradient_penalty(
    critic: Callable[..., Any],
    real: Tensor,
    fake: Tensor,
    *,
    center: float = 1.0,
    one_sided: bool = False,
    generator: torch.Generator | None = None,
    alpha: Tensor | None = None,
    output: Callable[[Any], Tensor] | None = None,
    critic_args: tuple[Any, ...] = (),
    critic_kwargs: dict[str, Any] | None = None,
    engine: str = "auto",
    per_discriminator: bool = False,
) -> Tensor:
    r"""WGAN-GP's penalty: E (|grad D(x_hat)|_2 - center)^2 at random points between the batches.

    .. math:: \frac1B \sum_b \left(\Big\|\nabla_{\hat x_b} \sum_i D(\hat x)_i\Big\|_2 - c\right)^2,
              \qquad \hat x = \alpha x + (1 - \alpha) G(z)

    The caller multiplies by lambda (10 in the paper) and calls ``backward()`` on the whole loss.
    The gradient is taken of the sum over samples, which is per sample only if D couples none of
    them: no batch normalisation in training mode.

    Where D is piecewise linear (convolutions, linear layers, relu and its kin, pools, pads), the
    penalty and its backward together cost four forwards of D, the least possible, and six in stock
    PyTorch: with engine="auto" the torch functions that D calls run as their `ganops.ops` twins.
    The critic itself is not touched, and nothing outlives the call.

    Args:
        critic: any callable on (B, ...) images.
        real, fake: (B, ...) images in the critic's range; fake needs no graph and gets none.
        center, one_sided: as in `penalty_from_gradient`.
        generator, alpha: as in `interpolate`.
        output: picks the scores from what the critic returns, where that is a tuple or a dict.
        critic_args, critic_kwargs: passed on to the critic after the images.
        engine: "auto" runs what the critic calls by twins; "autograd" leaves it all to PyTorch.
            "tangent" is "auto" with less memory and, on the CPU, a tenth to a fifth more time: it
            keeps the masks of a piecewise linear D instead of its activations, and refuses any
            other D.
            Same numbers from all. "auto" is "autograd" where saved-tensor hooks are active around
            the call, and refuses critics that set such hooks (activation checkpointing): those need
            "autograd". Parameters that the penalty does not depend on, such as biases before
            piecewise linear activations, get no gradient from it, where stock PyTorch sends zeros.
        per_discriminator: of K discriminators (`ganops.nn.DiscriminatorBank`), each has its own
            penalty at its own images: real and fake are (K, B, ...), alpha (K, B), scores
            (K, B, ...). False: scores may be (K, B) of one batch (B, ...), and the gradient is that
            of their sum over K.

    Returns:
        A scalar with a graph to the critic's parameters; with per_discriminator (K,).

    Raises:
        ValueError: shapes that differ, an unknown engine, an output that is no (B, ...) tensor or
            does not depend on the images.
        TypeError: integer images, or an output that is not a tensor.
        RuntimeError: a critic compiled by torch.compile: such regions have no double backward, and
            lose the penalty's gradient without an error in some cases. A critic with checkpointing
            under engine="auto"; one that engine="tangent" cannot serve, with the reason.

    Source: Gulrajani et al. 2017, arXiv 1704.00028; card wgan_gp. Two-sided is the paper's default.

    Example:
        >>> critic = torch.nn.Linear(2, 1, bias=False)
        >>> _ = critic.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
        >>> gradient_penalty(critic, torch.ones(8, 2), torch.zeros(8, 2)).item()
        16.0
    """
    called = Critic("gradient_penalty", critic, output, critic_args, critic_kwargs, engine,
                    per_discriminator=per_discriminator)  # fmt: skip
    if per_discriminator:
        points = _points_of_each(real, fake, generator, alpha)
    else:
        points = interpolate(real, fake, generator=generator, alpha=alpha)
    grad = called.input_gradient(points)
    return reduced(called, grad, center=center, one_sided=one_sided)


def _points_of_each(
    real: Tensor, fake: Tensor, generator: torch.Generator | None, alpha: Tensor | None
) -> Tensor:
    """`interpolate` of (K, B, ...), one alpha for each discriminator and sample."""
    _check_pair(real, fake)
    if real.dim() < 2 or real.shape[1] == 0:
        raise ValueError(
            f"gradient_penalty: expected images of shape (K, B, ...), got {tuple(real.shape)}"
        )
    if isinstance(alpha, Tensor):
        if alpha.shape != real.shape[:2]:
            raise ValueError(
                f"gradient_penalty: expected alpha of shape {tuple(real.shape[:2])}, one weight "
                f"per discriminator and sample, got {tuple(alpha.shape)}"
            )
        alpha = alpha.flatten()
    rows = interpolate(real.flatten(0, 1), fake.flatten(0, 1), generator=generator, alpha=alpha)
    return differentiable_leaf(rows.detach().unflatten(0, real.shape[:2]))


def _check_pair(real: Tensor, fake: Tensor) -> None:
    for name, x in (("real", real), ("fake", fake)):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"interpolate: expected {name} as a float tensor, got {got}")
    if real.dim() == 0 or real.shape[0] == 0:
        raise ValueError(f"interpolate: expected at least one sample, got {tuple(real.shape)}")
    for what in ("shape", "dtype", "device"):
        a, b = getattr(real, what), getattr(fake, what)
        if a != b:
            raise ValueError(f"interpolate: expected fake with {what} {a} as real has, got {b}")
