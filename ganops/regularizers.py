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

__all__ = ["GP", "Regularizer"]


class Batch(Protocol):
    """The part of a phase's batch that the regularisers here read."""

    @property
    def real(self) -> Tensor: ...  # (B, C, H, W) in [-1, 1]
    @property
    def fake(self) -> Tensor: ...  # (B, C, H, W) in [-1, 1]
    @property
    def discriminator(self) -> Callable[[Tensor], Tensor]: ...
    def uniform(self, name: str, *shape: int) -> Tensor: ...


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
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight must be >= 0 and finite, got {self.weight!r}")
        if self.interval < 1:
            raise ValueError(f"interval must be >= 1, got {self.interval!r}")

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
        if not 0 <= self.center < math.inf:
            raise ValueError(f"center must be >= 0 and finite, got {self.center!r}")

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
