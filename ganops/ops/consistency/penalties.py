"""Consistency penalties: CR and zCR, and the noise and the generator's term of zCR."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..augment import AugmentPolicy
from ..gradient_penalty.critic import Critic
from ..philox import random_normal, seed_from
from .loss import consistency_loss
from .passes import Labels, Passes, Twins, check_images, check_weight

__all__ = ["cr_penalty", "perturb_latent", "zcr_d_penalty", "zcr_g_penalty"]


def cr_penalty(
    critic: Callable[..., Any],
    real: Tensor,
    *,
    policy: str | AugmentPolicy = "cr",
    augment: Callable[[Tensor], Tensor] | None = None,
    weight: float = 10.0,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    offset: int | None = None,
    output: Callable[[Any], Tensor] | None = None,
    labels: Labels = None,
    critic_args: tuple[Any, ...] = (),
    critic_kwargs: dict[str, Any] | None = None,
    joint: bool = True,
) -> Tensor:
    r"""CR: the critic should say the same of a real image and of its augmented twin.

    .. math:: \frac\lambda B \sum_b \left(D(x_b) - D(T(x_b))\right)^2

    Gradients flow to the critic through both branches; T is not applied to what the critic's own
    loss sees. `consistency_scores` shares the calls of the critic with that loss.

    Args:
        critic: any callable on (N, ...) images, of one or more outputs per image.
        real: (B, ...) images, without a gradient. A policy takes what `consistency_pair` does.
        policy: T, as in `consistency_pair`.
        augment: a function (B, ...) -> (B, ...) that is T, instead of a policy.
        weight: lambda, >= 0.
        generator, seed, offset: as in `consistency_pair`; with a policy only.
        output: picks the scores from what the critic returns, where that is a tuple or a dict; for
            a bank with scores (K, N), ``lambda scores: scores.mT``.
        labels: what the critic takes per image: a tensor of B rows or a tuple of them, passed on
            after the images, or a dict, by name. They are repeated for the augmented images.
        critic_args, critic_kwargs: passed on as they are, after labels: the same for every image.
        joint: True: the critic sees [x ; T(x)] in one call, so it must treat images one by one, as
            convolutions, instance and group norm do. Batch norm in training mode and
            minibatch-stddev do not: with joint=False D(x) and D(T(x)) are calls of their own, each
            with its own statistics. What moves once a call (the power iteration of spectral norm,
            running statistics) moves once with True and twice with False.

    Returns:
        A scalar with a graph to the critic's parameters.

    Derivatives: the critic's own, of any order. Extra memory: the batch [x ; T(x)].

    Raises:
        ValueError: no image, a negative weight, labels of another batch size, scores that are no
            (N, ...) tensor, an augment that changes the shape; with joint=True, a tensor of B rows
            in critic_args or critic_kwargs.
        TypeError: integer images without a policy, or an output that is no tensor.

    Source: Zhang et al. 2020, arXiv 1910.12027; card cr_gan (weight 10, last layer only).

    Example:
        >>> critic = torch.nn.Flatten()
        >>> cr_penalty(critic, torch.ones(4, 1), augment=lambda x: x + 0.5)
        tensor(2.5000)
    """
    check_weight("cr_penalty", "weight", weight)
    real = check_images("cr_penalty", "real", real)
    twins = Twins("cr_penalty", policy, augment, generator, seed, offset)
    called = Critic("cr_penalty", critic, output, critic_args, critic_kwargs)
    passes = Passes(called, joint=joint)
    first = passes.add(twins.pair(real), labels, parts=2)
    passes.run()
    return weight * consistency_loss(passes.pair(first))


def zcr_d_penalty(
    critic: Callable[..., Any],
    fake: Tensor,
    fake_perturbed: Tensor,
    *,
    weight: float = 20.0,
    output: Callable[[Any], Tensor] | None = None,
    labels: Labels = None,
    critic_args: tuple[Any, ...] = (),
    critic_kwargs: dict[str, Any] | None = None,
    joint: bool = True,
) -> Tensor:
    r"""zCR, the critic's part: it should not see a small change of the latent.

    .. math:: \frac\lambda B \sum_b \left(D(G(z_b)) - D(G(z_b + \delta_b))\right)^2

    Args:
        critic: any callable on (N, ...) images.
        fake, fake_perturbed: (B, ...) float images G(z) and G(z + dz), `perturb_latent` giving
            z + dz; without a gradient.
        weight: lambda, >= 0. 20 is StudioGAN's for ICR; code for zCR alone has 5.
        output, labels, critic_args, critic_kwargs, joint: as in `cr_penalty`.

    Returns:
        A scalar with a graph to the critic's parameters.

    Derivatives: the critic's own, of any order. Extra memory: the batch of both.

    Raises:
        ValueError: images of different shapes. Otherwise, as TypeError, as `cr_penalty`.

    Source: Zhao et al. 2021, arXiv 2002.04724; card cr_gan.

    Example:
        >>> critic = torch.nn.Flatten()
        >>> zcr_d_penalty(critic, torch.ones(4, 1), torch.zeros(4, 1))
        tensor(20.)
    """
    check_weight("zcr_d_penalty", "weight", weight)
    fake = check_images("zcr_d_penalty", "fake", fake)
    perturbed = check_images("zcr_d_penalty", "fake_perturbed", fake_perturbed, fake, each=True)
    passes = Passes(
        Critic("zcr_d_penalty", critic, output, critic_args, critic_kwargs), joint=joint
    )
    first = passes.add(perturbed, labels)
    passes.add(fake, labels)
    passes.run()
    return weight * consistency_loss(passes.pair(first))


def zcr_g_penalty(fake: Tensor, fake_perturbed: Tensor, *, weight: float = 0.5) -> Tensor:
    r"""zCR, the generator's part, to ADD to its loss: minus the change that a new latent makes.

    .. math:: -\lambda \frac{1}{B n} \sum_{b,i} \left(G(z_b)_i - G(z_b + \delta_b)_i\right)^2

    It is negative, and minimising it spreads the images: the generator is to see what the critic
    is not to. The mean is over samples and over the n pixels of each.

    Args:
        fake, fake_perturbed: (B, ...) float images G(z) and G(z + dz); both with their gradient.
        weight: lambda, >= 0.

    Returns:
        A scalar <= 0; float64 for float64 images, else float32.

    Derivatives: of any order. Extra memory: two tensors of fake's size.

    Raises:
        ValueError: images of different shapes, none, or a negative weight.
        TypeError: images that are no float tensors.

    Source: Zhao et al. 2021, arXiv 2002.04724; card cr_gan, weight and mean of StudioGAN.

    Example:
        >>> zcr_g_penalty(torch.ones(4, 3), torch.zeros(4, 3))
        tensor(-0.5000)
    """
    check_weight("zcr_g_penalty", "weight", weight)
    check_images("zcr_g_penalty", "fake", fake, floating=True)
    check_images("zcr_g_penalty", "fake_perturbed", fake_perturbed, fake, each=True, floating=True)
    pair = [t if t.dtype == torch.float64 else t.float() for t in (fake, fake_perturbed)]
    return -weight * (pair[0] - pair[1]).square().mean()


def perturb_latent(
    z: Tensor,
    sigma: float = 0.05,
    *,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    offset: int = 0,
    noise: Tensor | None = None,
) -> Tensor:
    """z + dz with dz ~ N(0, sigma^2 I): the neighbour that zCR compares G(z) with.

    Args:
        z: (B, ...) float latents.
        sigma: >= 0; 0.05 is StudioGAN's, for z ~ N(0, I).
        generator: draws the seed, from Philox: the same noise on every device.
        seed, offset: instead of a generator; offset counts samples, so that a batch drawn in parts
            equals the batch drawn in one.
        noise: a tensor of z's shape that is N(0, 1), instead of drawing it.

    Returns:
        A tensor like z, with z's gradient.

    Raises:
        ValueError: a negative sigma, no sample, noise of another shape, or more than one of
            generator, seed and noise.
        TypeError: z is no float tensor.

    Source: Zhao et al. 2021, arXiv 2002.04724; card cr_gan.

    Example:
        >>> z = torch.zeros(4, 2)
        >>> both = perturb_latent(z, seed=1)
        >>> torch.equal(both[3:], perturb_latent(z[3:], seed=1, offset=3))
        True
    """
    check_weight("perturb_latent", "sigma", sigma)
    check_images("perturb_latent", "z", z, floating=True)
    if sum(each is not None for each in (generator, seed, noise)) > 1:
        raise ValueError("perturb_latent: expected one of generator, seed and noise, got more")
    if noise is None:
        first = offset * math.prod(z.shape[1:])
        drawn = seed_from(generator) if seed is None else seed
        noise = random_normal(z.shape, seed=drawn, offset=first, device=z.device)
    elif not isinstance(noise, Tensor) or noise.shape != z.shape:
        got = tuple(noise.shape) if isinstance(noise, Tensor) else type(noise).__name__
        raise ValueError(f"perturb_latent: expected noise of shape {tuple(z.shape)}, got {got}")
    return z + sigma * noise.to(z)
