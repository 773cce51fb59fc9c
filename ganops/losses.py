"""Adversarial losses: small objects with one function per player.

``loss.d(real_logits, fake_logits)`` is what the discriminator minimises and
``loss.g(fake_logits, real_logits=None)`` what the generator minimises. Logits have any shape with
one or more entries per sample; losses are means over all entries and differentiable to any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from .nn import BankPart, DiscriminatorBank

__all__ = [
    "NonSaturatingBank", "Wasserstein", "bank", "bank_d_backward", "bank_g_backward", "combine",
    "wasserstein",
]  # fmt: skip


class Wasserstein:
    """Critic loss without a link function (Arjovsky, Chintala, Bottou 2017, arXiv 1701.07875).

    L_D = mean f(G(z)) - mean f(x),  L_G = -mean f(G(z)).

    Meaningful only for a critic kept near 1-Lipschitz, by a gradient penalty or by clipping. The
    scores f are unbounded reals: no sigmoid, and only their differences carry meaning.
    """

    def d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Negative estimate of the Wasserstein distance, minimised by the critic. -> scalar"""
        return fake_logits.mean() - real_logits.mean()

    def g(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """Minimised by the generator; `real_logits` is unused here. -> scalar"""
        return -fake_logits.mean()


wasserstein = Wasserstein()


class NonSaturatingBank:
    """Of K discriminators, each one's own loss: logits (K, B, ...) -> (K,).

    L_{D_k} = (mean softplus(-s_k(x)) + mean softplus(s_k(G(z)))) / 2,
    L_{G,k} = mean softplus(-s_k(G(z))): the non-saturating loss, D's halved as in the code of
    Neyshabur et al. 2017, arXiv 1705.07831 (card random_projection_gan). Zero logits give ln 2.

    Train the discriminators on the sum over k, which gives each the gradient of its own loss, and
    the generator on `combine`.
    """

    def d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Each discriminator minimises its own. -> (K,)"""
        real, fake = _each(F.softplus(-real_logits)), _each(F.softplus(fake_logits))
        return 0.5 * (real + fake)

    def g(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """What the generator loses to each; `real_logits` is unused here. -> (K,)"""
        return _each(F.softplus(-fake_logits))


bank = NonSaturatingBank()


def combine(
    losses: Tensor, weighting: str = "mean", *, alpha: float = 1.0, slack: float = 1.1
) -> Tensor:
    r"""The generator's one loss of its K losses to a bank.

    "mean": their average (the card). "softmax": sum_k w_k l_k, w = softmax(alpha l), a constant:
    the harder a discriminator is to fool, the more it counts (GMAN); "softmin": softmax(-alpha l).
    "hypervolume": -sum_k log(eta - l_k) with eta = slack max_k l_k, a constant, whose gradient has
    the weights 1 / (eta - l_k) (hGAN, Albuquerque et al. 2019, arXiv 1901.08680; the numbers of its
    code were not at hand).

    Args:
        losses: (K,), positive for "hypervolume".
        alpha: how sharp softmax is. slack: above 1.
    """
    if losses.dim() != 1 or len(losses) == 0:
        raise ValueError(f"combine: expected losses of shape (K,), got {tuple(losses.shape)}")
    if weighting == "mean":
        return losses.mean()
    if weighting in ("softmax", "softmin"):
        if not math.isfinite(alpha):
            raise ValueError(f"combine: expected a finite alpha, got {alpha}")
        sign = alpha if weighting == "softmax" else -alpha
        return losses @ (sign * losses.detach()).softmax(0)
    if weighting != "hypervolume":
        raise ValueError(
            "combine: expected weighting 'mean', 'softmax', 'softmin' or 'hypervolume', got "
            f"{weighting!r}"
        )
    if not slack > 1:
        raise ValueError(f"combine: expected slack above 1, got {slack}")
    return -(slack * losses.detach().max() - losses).log().sum()


def bank_d_backward(
    discriminators: DiscriminatorBank,
    real: Tensor,
    fake: Tensor,
    *,
    loss: Any = bank,
    penalty: Callable[[BankPart, Tensor, Tensor], Tensor] | None = None,
    chunk: int | None = None,
    shared: bool = False,
) -> Tensor:
    """Backward of every discriminator's own loss; the optimiser's step is the caller's.

    Args:
        real, fake: (K, B, ...), or with shared=True (B, ...); fake gets no gradient.
        loss: an object with d(real_logits, fake_logits) -> (K,).
        penalty: adds (k,) to the losses of a part of the bank:
            ``lambda part, x, y: 10 * ops.gradient_penalty(part, x, y, per_discriminator=True)``.
        chunk: discriminators at a time; the same results to rounding, and memory for activations
            that grows with chunk instead of K.

    Returns:
        (K,) losses, penalties included, without a graph. Gradients are added to the parameters'.
        Of a `nn.ShardedBank`, which takes its own members' images, the losses are those of all K.
    """
    fake, real = fake.detach(), real.detach()
    found = []
    for members, part in discriminators.parts(chunk):
        x, y = (real, fake) if shared else (real[members], fake[members])
        losses = loss.d(part(x, shared=shared), part(y, shared=shared))
        if penalty is not None:
            losses = losses + penalty(part, x, y)
        losses.sum().backward()
        found.append(losses.detach())
    return discriminators.of_all(torch.cat(found))


def bank_g_backward(
    discriminators: DiscriminatorBank,
    views: Tensor,
    *,
    images: Tensor | None = None,
    loss: Any = bank,
    weighting: str = "mean",
    alpha: float = 1.0,
    slack: float = 1.1,
    chunk: int | None = None,
) -> Tensor:
    """Backward of `combine`'s loss to the generator: through the bank, then once through `views`.

    Args:
        views: (K, B, ...), what each discriminator sees, with a graph to the generator;
            ``images.expand(K, *images.shape)`` where all see the same.
        images: what the views were made from, the same on every rank; only a `nn.ShardedBank` needs
            it, which sums the gradient to it over ranks, views being of its own members. Parameters
            between images and views get the rank's own gradient.
        loss: an object with g(fake_logits) -> (K,).
        weighting, alpha, slack: as in `combine`.
        chunk: as in `bank_d_backward`.

    Returns:
        (K,) losses without a graph. The discriminators get no gradient.
    """
    if not views.requires_grad:
        raise ValueError("bank_g_backward: expected views with a graph to the generator, got none")
    found, slopes = [], []
    with discriminators.summing(images):
        for members, part in discriminators.parts(chunk, trainable=False):
            leaf = views.detach()[members].requires_grad_()
            losses = loss.g(part(leaf))
            slopes.append(torch.autograd.grad(losses.sum(), leaf)[0])
            found.append(losses.detach())
        # Each loss depends on its own view alone, so its weight may come afterwards.
        each = discriminators.of_all(torch.cat(found)).requires_grad_()
        (weights,) = torch.autograd.grad(combine(each, weighting, alpha=alpha, slack=slack), each)
        own = weights[discriminators.members.start : discriminators.members.stop]
        gradient = torch.cat(slopes)
        views.backward(gradient * own.to(gradient).view(-1, *[1] * (views.dim() - 1)))
    return each.detach()


def _each(values: Tensor) -> Tensor:
    if values.dim() < 2:
        raise ValueError(f"bank: expected logits of shape (K, B, ...), got {tuple(values.shape)}")
    return values.flatten(1).mean(1)
