"""How balanced a training is: BEGAN's convergence measure, and the gap of realness scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ganops.metrics._features import Result


@dataclass(frozen=True)
class BeganConvergence(Result):
    """`m` is lower for better; `balance` and `ratio` should approach 0 and gamma."""

    m: float
    balance: float
    ratio: float
    gamma: float

    def numbers(self) -> dict[str, float]:
        return {"began m": self.m, "balance": self.balance, "ratio": self.ratio}

    def protocol(self) -> str:
        return f"gamma {self.gamma:g}; comparable at one pixel scale and resolution only"


def began_convergence(
    real_loss: float | Tensor, generated_loss: float | Tensor, *, gamma: float = 0.5
) -> BeganConvergence:
    """M = L(x) + |gamma L(x) - L(G(z))| of the autoencoder's losses (arXiv 1703.10717).

    real_loss, generated_loss: mean |v - D(v)| over all elements, >= 0. M = 0 also of an autoencoder
    that copies anything: no success by itself. Raises ValueError for losses that are negative or
    not finite, or gamma < 0.
    """
    real, generated = float(real_loss), float(generated_loss)
    if not (0 <= real < math.inf and 0 <= generated < math.inf):
        raise ValueError(f"expected finite losses >= 0, got {real} and {generated}")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma: expected a finite number >= 0, got {gamma}")
    balance = gamma * real - generated
    ratio = generated / real if real else (math.nan if generated == 0 else math.inf)
    return BeganConvergence(real + abs(balance), balance, ratio, gamma)


@dataclass(frozen=True)
class RealnessGap(Result):
    """Real minus generated scores of a discriminator; see `realness_gap`."""

    auc: float
    logit_gap: float
    probability_gap: float
    effect_size: float
    real_sign: float
    generated_sign: float
    n_real: int
    n_generated: int

    def numbers(self) -> dict[str, float]:
        shown = {"auc": self.auc, "gap": self.logit_gap, "effect size": self.effect_size}
        if not math.isnan(self.probability_gap):
            shown["probability gap"] = self.probability_gap
        return shown

    def protocol(self) -> str:
        return (
            f"scores of {self.n_real} real and {self.n_generated} generated images, exact AUC with "
            "ties counted half; this project's definition"
        )


@torch.no_grad()
def realness_gap(real: Tensor, generated: Tensor, *, logits: bool = True) -> RealnessGap:
    """How far a discriminator tells real from generated images, from its scores of both.

    auc = P(s > t) + P(s = t) / 2 for a real s and a generated t, over all pairs by sorting: 0.5 is
    balance, 1 is a discriminator that always wins. It survives any increasing change of the scores,
    so it compares losses; the others do not. logit_gap = mean s - mean t; probability_gap = the
    same of sigmoids (nan with ``logits=False``, for critics); effect_size = logit_gap /
    sqrt((var s + var t) / 2), variances by N - 1 (0 or infinite where both are 0); *_sign = mean
    sign. Gap 0 is also what a dead discriminator has: show it beside a distance.

    real, generated: scores (N,) or (N, 1), (M,) or (M, 1), floating, finite. Raises TypeError or
    ValueError otherwise. Everything is computed in float64; memory is linear.
    """
    s, t = (_scores(name, x) for name, x in (("real", real), ("generated", generated)))
    t = t.to(s.device)
    ordered = t.sort().values
    below = torch.searchsorted(ordered, s).sum()  # exact: integers
    not_above = torch.searchsorted(ordered, s, right=True).sum()
    gap = float(s.mean() - t.mean())
    deviation = math.sqrt(0.5 * (_variance(s) + _variance(t)))
    effect = gap / deviation if deviation else (0.0 if gap == 0 else math.copysign(math.inf, gap))
    probability = float(s.sigmoid().mean() - t.sigmoid().mean()) if logits else math.nan
    return RealnessGap(
        auc=int(below + not_above) / (2 * len(s) * len(t)),
        logit_gap=gap,
        probability_gap=probability,
        effect_size=effect,
        real_sign=float(s.sign().mean()),
        generated_sign=float(t.sign().mean()),
        n_real=len(s),
        n_generated=len(t),
    )


def _variance(x: Tensor) -> float:
    return float(x.var()) if len(x) > 1 else 0.0


def _scores(name: str, x: Tensor) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name}: expected floating-point scores, got {got}")
    if not (x.ndim == 1 or (x.ndim == 2 and x.shape[1] == 1)) or x.numel() == 0:
        raise ValueError(f"{name}: expected one score an image, got shape {tuple(x.shape)}")
    flat = x.detach().reshape(-1).double()
    bad = (~flat.isfinite()).nonzero().flatten()
    if len(bad):
        raise ValueError(f"{name}: expected finite scores, got {flat[bad[0]]} at {int(bad[0])}")
    return flat
