"""Adversarial losses: small objects with one function per player.

``loss.d(real_logits, fake_logits)`` is what the discriminator minimises and
``loss.g(fake_logits, real_logits=None)`` what the generator minimises. Logits have any shape with
one or more entries per sample; losses are means over all entries and differentiable to any order.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["Wasserstein", "wasserstein"]


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
