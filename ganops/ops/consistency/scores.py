"""A critic's step with consistency regularisation: its scores and penalties from one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..augment import AugmentPolicy
from ..gradient_penalty.critic import Critic
from .loss import consistency_loss
from .passes import Labels, Passes, Twins, check_images, check_weight

__all__ = ["ConsistencyScores", "bcr_penalty", "consistency_scores"]


class ConsistencyScores(NamedTuple):
    """What `consistency_scores` returns.

    ``real`` and ``fake`` are the critic's scores, (B, ...) each. ``penalty`` is the weighted sum to
    add to its loss. ``terms`` are the penalties without weights: "real", "fake" and "latent", those
    whose weight is not 0.

    Args: as named. Returns: a tuple. Raises: nothing. Source: `consistency_scores`.
    """

    real: Tensor
    fake: Tensor
    penalty: Tensor
    terms: dict[str, Tensor]


def consistency_scores(
    critic: Callable[..., Any],
    real: Tensor,
    fake: Tensor,
    fake_perturbed: Tensor | None = None,
    *,
    policy: str | AugmentPolicy = "cr",
    augment: Callable[[Tensor], Tensor] | None = None,
    weight_real: float = 10.0,
    weight_fake: float = 10.0,
    weight_latent: float = 20.0,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    offset: int | None = None,
    output: Callable[[Any], Tensor] | None = None,
    labels: Labels = None,
    fake_labels: Labels = None,
    critic_args: tuple[Any, ...] = (),
    critic_kwargs: dict[str, Any] | None = None,
    joint: bool = True,
) -> ConsistencyScores:
    r"""The scores of a critic's step and its consistency penalties, from one call of the critic.

    .. math:: \frac{\lambda_r}B \sum_b (D(x_b) - D(T(x_b)))^2
              + \frac{\lambda_f}B \sum_b (D(\tilde x_b) - D(T(\tilde x_b)))^2
              + \frac{\lambda_z}B \sum_b (D(\tilde x_b) - D(\tilde x'_b))^2

    for fakes G(z) and, perturbed, G(z + dz). All three are ICR; without `fake_perturbed` it is bCR,
    with weight_fake=0 besides CR. A penalty of weight 0 costs nothing: its images are left out. The
    scores are those of images without T, as the method wants them in the critic's own loss::

        seen = ops.consistency_scores(D, x, G(z))
        loss = losses.hinge.d(seen.real, seen.fake) + seen.penalty

    Args:
        critic: any callable on (N, ...) images.
        real: (B, ...) images; fake: (B', ...), often B' = B; fake_perturbed: one for each of
            `fake`. None gets a gradient.
        policy, augment: T, as in `cr_penalty`, drawn for reals and fakes independently.
        weight_real, weight_fake, weight_latent: lambda, each >= 0.
        generator, seed, offset: as in `cr_penalty`; a generator draws two seeds, reals first, and
            fakes use ``~seed``.
        output, critic_args, critic_kwargs: as in `cr_penalty`.
        labels, fake_labels: as there, for real and for fake images; both or neither.
        joint: True: the critic sees [x ; T(x) ; G(z + dz) ; G(z) ; T(G(z))] in one call, so it must
            treat images one by one. False: every part is a call of its own, in this order, which
            batch norm in training mode and minibatch-stddev need: statistics of reals, fakes and
            augmented images then stay apart. What moves once a call (the power iteration of
            spectral norm, running statistics) moves once with True, once a part with False.

    Returns:
        `ConsistencyScores`: (real, fake, penalty, terms), with a graph to the critic's parameters.

    Derivatives: the critic's own, of any order. Extra memory: the batch of all images.

    Raises:
        ValueError: images of different shapes, labels for one of real and fake alone, and as
            `cr_penalty`.
        TypeError: as `cr_penalty`.

    Source: Zhao et al. 2021, arXiv 2002.04724; card cr_gan, weights of StudioGAN's ICR.

    Example:
        >>> critic = torch.nn.Flatten()
        >>> seen = consistency_scores(critic, torch.ones(2, 1), torch.zeros(2, 1),
        ...                           augment=lambda x: x + 0.5, weight_fake=2.0)
        >>> seen.real.flatten(), seen.penalty
        (tensor([1., 1.]), tensor(3.))
    """
    name = "consistency_scores"
    weights = {"real": weight_real, "fake": weight_fake, "latent": weight_latent}
    for key, weight in weights.items():
        check_weight(name, f"weight_{key}", weight)
    if (labels is None) != (fake_labels is None):
        raise ValueError(
            f"{name}: expected labels and fake_labels, or neither, "
            f"got {'fake_labels' if labels is None else 'labels'} alone"
        )
    real = check_images(name, "real", real)
    fake = check_images(name, "fake", fake, real)
    twins = Twins(name, policy, augment, generator, seed, offset)
    passes = Passes(Critic(name, critic, output, critic_args, critic_kwargs), joint=joint)
    pairs: dict[str, int] = {}  # each of two parts that follow each other
    if weight_real:
        of_real = pairs["real"] = passes.add(twins.pair(real), labels, parts=2)
    else:
        of_real = passes.add(real, labels)
    if weight_latent and fake_perturbed is not None:
        perturbed = check_images(name, "fake_perturbed", fake_perturbed, fake, each=True)
        pairs["latent"] = passes.add(perturbed, fake_labels)
    if weight_fake:
        of_fake = pairs["fake"] = passes.add(twins.of_fakes().pair(fake), fake_labels, parts=2)
    else:
        of_fake = passes.add(fake, fake_labels)
    passes.run()
    terms = {key: consistency_loss(passes.pair(first)) for key, first in pairs.items()}
    weighted = [weights[key] * term for key, term in terms.items()]
    scores = passes.part(of_real)
    penalty = sum(weighted[1:], weighted[0]) if weighted else scores.new_zeros(())
    return ConsistencyScores(scores, passes.part(of_fake), penalty, terms)


def bcr_penalty(
    critic: Callable[..., Any],
    real: Tensor,
    fake: Tensor,
    *,
    policy: str | AugmentPolicy = "cr",
    augment: Callable[[Tensor], Tensor] | None = None,
    weight_real: float = 10.0,
    weight_fake: float = 10.0,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    offset: int | None = None,
    output: Callable[[Any], Tensor] | None = None,
    labels: Labels = None,
    fake_labels: Labels = None,
    critic_args: tuple[Any, ...] = (),
    critic_kwargs: dict[str, Any] | None = None,
    joint: bool = True,
) -> Tensor:
    r"""bCR: CR's penalty on real and on generated images, from one call of the critic.

    .. math:: \frac{\lambda_r}B \sum_b (D(x_b) - D(T(x_b)))^2
              + \frac{\lambda_f}B \sum_b (D(\tilde x_b) - D(T(\tilde x_b)))^2

    Strong T leak into what G makes: flips and small shifts are meant. `consistency_scores` returns
    the scores for the critic's own loss too, and is what a training step should call.

    Args:
        critic, real, fake, policy, augment, generator, seed, offset, output, labels, fake_labels,
            critic_args, critic_kwargs, joint: as in `consistency_scores`.
        weight_real, weight_fake: lambda, each >= 0.

    Returns:
        A scalar with a graph to the critic's parameters.

    Raises:
        ValueError, TypeError: as `consistency_scores`.

    Source: Zhao et al. 2021, arXiv 2002.04724; card cr_gan.

    Example:
        >>> critic = torch.nn.Flatten()
        >>> x = torch.ones(4, 1)
        >>> bcr_penalty(critic, x, -x, augment=lambda x: 2 * x, weight_fake=1.0)
        tensor(11.)
    """
    return consistency_scores(
        critic, real, fake, policy=policy, augment=augment, weight_real=weight_real,
        weight_fake=weight_fake, generator=generator, seed=seed, offset=offset, output=output,
        labels=labels, fake_labels=fake_labels, critic_args=critic_args,
        critic_kwargs=critic_kwargs, joint=joint,
    ).penalty  # fmt: skip
