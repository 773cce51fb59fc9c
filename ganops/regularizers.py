"""Regularisers as data: which phase they join, how strongly, how often, and the penalty itself.

A regulariser adds ``weight * interval * penalty`` to the loss of its phase on every step that
`interval` divides (the lazy schedule of Karras et al. 2020, arXiv 1912.04958: the expected gradient
does not depend on the interval). New kinds need a dataclass here and nothing in the loop.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BCR", "CR", "GP", "ICR", "ZCR", "Regularizer", "ZCRGenerator"]


_KINDS = {float: "a number", int: "a whole number", bool: "True or False", str: "a string"}


class Batch(Protocol):
    """The part of a phase's batch that the regularisers here read."""

    @property
    def real(self) -> Tensor: ...  # (B, C, H, W) in [-1, 1]
    @property
    def fake(self) -> Tensor: ...  # (B, C, H, W) in [-1, 1]
    @property
    def discriminator(self) -> Callable[[Tensor], Tensor]: ...
    def fake_near(self, sigma: float) -> Tensor: ...  # G(z + sigma n), like fake
    def uniform(self, name: str, *shape: int) -> Tensor: ...
    def seed_of(self, name: str) -> int: ...


@dataclasses.dataclass(frozen=True)
class Regularizer:
    """Base of all regularisers. `weight` >= 0, `interval` >= 1, `phase` is the phase it joins."""

    weight: float = 1.0
    interval: int = 1
    phase: str = "d"
    tag: ClassVar[str] = ""
    known: ClassVar[dict[str, type[Regularizer]]] = {}

    def __init_subclass__(cls) -> None:
        Regularizer.known[cls.tag] = cls

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # what YAML could not give back is refused here
            value, kind = getattr(self, field.name), type(field.default)
            takes = (int, float) if kind is float else kind
            wrong_bool = isinstance(value, bool) and kind is not bool
            if kind in _KINDS and (wrong_bool or not isinstance(value, takes)):
                raise TypeError(f"{field.name} must be {_KINDS[kind]}, got {value!r}")
        self._check_weights("weight")
        if self.interval < 1:
            raise ValueError(f"interval must be >= 1, got {self.interval!r}")

    def _check_weights(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {value!r}")

    def penalty(self, batch: Any) -> Tensor:
        """The unweighted penalty, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} does not define penalty()")


@dataclasses.dataclass(frozen=True)
class GP(Regularizer):
    """Gradient penalty of WGAN-GP: E (|grad_xhat f(xhat)|_2 - center)^2, weight 10.

    xhat = eps * x + (1 - eps) * G(z), one eps ~ U[0, 1) per sample, one norm per sample over all
    its other dimensions. `one_sided` penalises max(0, |grad| - center) only. Images in [-1, 1]: in
    [0, 1] the same function has twice the gradient, so the weight does not carry over.
    Gulrajani et al. 2017, arXiv 1704.00028.
    """

    weight: float = 10.0
    center: float = 1.0
    one_sided: bool = False
    tag: ClassVar[str] = "gp"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_weights("center")

    def penalty(self, batch: Batch) -> Tensor:
        from ganops.ops import gradient_penalty

        real = batch.real
        return gradient_penalty(
            batch.discriminator,
            real,
            batch.fake,
            center=self.center,
            one_sided=self.one_sided,
            alpha=batch.uniform(f"{self.tag}/alpha", real.shape[0]),
        )


def _check_policy(name: str) -> None:
    from ganops.ops.augment.policy import resolve

    resolve(name)


@dataclasses.dataclass(frozen=True)
class CR(Regularizer):
    """Consistency: E (D(x) - D(T(x)))^2 on reals, weight 10.

    `policy` names T as `ops.consistency_pair` does. The discriminator is called once on [x ; T(x)],
    besides its own loss; ``joint=False`` makes it a call for each, which batch norm in training
    mode and minibatch-stddev need. Zhang et al. 2020, arXiv 1910.12027.
    """

    weight: float = 10.0
    policy: str = "cr"
    joint: bool = True
    tag: ClassVar[str] = "cr"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_policy(self.policy)

    def penalty(self, batch: Batch) -> Tensor:
        from ganops.ops import cr_penalty

        seed = batch.seed_of(self.tag)
        return cr_penalty(
            batch.discriminator, batch.real, policy=self.policy, weight=1.0, seed=seed,
            joint=self.joint,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class BCR(Regularizer):
    """Balanced consistency: CR on reals and on fakes, weights 10 and 10; `weight` scales both.

    One call of the discriminator on [x ; T(x) ; G(z) ; T(G(z))]; `policy` and `joint` as in `CR`.
    Zhao et al. 2021, arXiv 2002.04724.
    """

    weight: float = 1.0
    weight_real: float = 10.0
    weight_fake: float = 10.0
    policy: str = "cr"
    joint: bool = True
    tag: ClassVar[str] = "bcr"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_weights("weight_real", "weight_fake")
        _check_policy(self.policy)

    def penalty(self, batch: Batch) -> Tensor:
        return self._scored(batch)

    def _scored(self, batch: Batch, near: Tensor | None = None, latent: float = 0.0) -> Tensor:
        from ganops.ops import consistency_scores

        return consistency_scores(
            batch.discriminator, batch.real, batch.fake, near, policy=self.policy,
            weight_real=self.weight_real, weight_fake=self.weight_fake, joint=self.joint,
            weight_latent=latent, seed=batch.seed_of(self.tag),
        ).penalty  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ZCR(Regularizer):
    """Latent consistency: E (D(G(z)) - D(G(z + sigma n)))^2, n ~ N(0, I), weight 20.

    The discriminator is not to see a small change of z; `ZCRGenerator` is the generator's half. One
    call on both batches; `joint` as in `CR`. Zhao et al. 2021, arXiv 2002.04724, StudioGAN's
    weight of ICR; code for zCR alone has 5.
    """

    weight: float = 20.0
    sigma: float = 0.05
    joint: bool = True
    tag: ClassVar[str] = "zcr"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_weights("sigma")

    def penalty(self, batch: Batch) -> Tensor:
        from ganops.ops import zcr_d_penalty

        near = batch.fake_near(self.sigma)
        return zcr_d_penalty(batch.discriminator, batch.fake, near, weight=1.0, joint=self.joint)


@dataclasses.dataclass(frozen=True)
class ZCRGenerator(Regularizer):
    """The generator's half of `ZCR`: -E mean (G(z) - G(z + sigma n))^2, which spreads images.

    Negative, in the generator's phase, weight 0.5, the mean over samples and pixels. Zhao et al.
    2021, arXiv 2002.04724.
    """

    weight: float = 0.5
    phase: str = "g"
    sigma: float = 0.05
    tag: ClassVar[str] = "zcr-g"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_weights("sigma")

    def penalty(self, batch: Batch) -> Tensor:
        from ganops.ops import zcr_g_penalty

        return zcr_g_penalty(batch.fake, batch.fake_near(self.sigma), weight=1.0)


@dataclasses.dataclass(frozen=True)
class ICR(BCR):
    """The discriminator's half of ICR: `BCR` and `ZCR` from one call; add `ZCRGenerator` to it.

    Zhao et al. 2021, arXiv 2002.04724.
    """

    weight_latent: float = 20.0
    sigma: float = 0.05
    tag: ClassVar[str] = "icr"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_weights("weight_latent", "sigma")

    def penalty(self, batch: Batch) -> Tensor:
        return self._scored(batch, batch.fake_near(self.sigma), self.weight_latent)
