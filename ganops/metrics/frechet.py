"""Frechet distance between Gaussians, without ever squaring what it takes roots of.

Heusel et al. 2017, arXiv 1706.08500 (FID applies it to Inception features).
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ganops.metrics.factors import Factor, NuclearNorm, is_steep, is_upper, upper_times_lower
from ganops.metrics.feature_stats import FeatureStats
from ganops.metrics.provenance import Provenance

Moments = tuple[Tensor, Tensor]  # mean (d,), covariance (d, d)
_warned: set[str] = set()


def moments(features: Tensor) -> Moments:
    """features (N, d), N >= 2 -> mean (d,) and covariance (d, d) in float64, divided by N - 1."""
    if features.ndim != 2 or features.shape[0] < 2:
        raise ValueError(f"features must be (N >= 2, d), got shape {tuple(features.shape)}")
    stats = FeatureStats(features.shape[1], device=features.device)
    stats.update(features)
    return stats.moments()


def frechet_distance(
    a: FeatureStats | Moments | str | os.PathLike[str],
    b: FeatureStats | Moments | str | os.PathLike[str],
) -> Any:
    r"""Squared Frechet (Wasserstein-2) distance between two Gaussians, in float64.

    .. math:: |\mu_a - \mu_b|^2 + \operatorname{tr} \Sigma_a + \operatorname{tr} \Sigma_b
              - 2 \operatorname{tr} (\Sigma_a \Sigma_b)^{1/2}

    The last trace is the nuclear norm of F_a' F_b for factors S = F F' by Cholesky, pivoted where
    S is singular; exact to rounding for rank-deficient, collapsed and steep spectra. The product
    S_a S_b is never formed.

    Args:
        a, b: `FeatureStats`, (mean (d,), covariance (d, d)), or an npz file of them.

    Returns:
        A float >= 0, exactly 0 for equal moments; a 0-d float64 tensor where an input needs a
        gradient. Once differentiable in means and covariances; in a singular covariance along its
        range, as functions of its factor are; at equal moments the gradient is zero. The work is
        done on the device of a, in 5 d^2 numbers of memory.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, covariances that are not
            symmetric and positive semidefinite, fewer than two rows, or features of known and
            different provenance.

    Warns once where there are no more rows than dimensions: the distance is biased upwards, about
    as 1 / N, so that only equal N compare; see `frechet_distance_infinity`.

    Source: Heusel et al. 2017, arXiv 1706.08500; card metric_fid.
    """
    return _result(_distance(*_pair(_gaussian(a), _gaussian(b))))


def frechet_distance_from_features(x: Tensor, y: Tensor) -> Any:
    """`frechet_distance` of features (N, d) and (M, d), N, M >= 2, differentiable in both.

    A set of N <= d rows is its own factor: no covariance is formed, and with two such sets the work
    is a product and the singular values of (N, M), a twentieth of the whole at N = 500, d = 2048.
    """
    return _result(_distance(*_pair(_of_features(x), _of_features(y))))


def frechet_distance_infinity(
    features: Tensor,
    reference: FeatureStats | Moments | str | os.PathLike[str],
    *,
    points: int = 15,
    smallest: int | None = None,
    generator: torch.Generator | None = None,
) -> float:
    """FID-infinity: the distance extrapolated to N = infinity, where its bias in N is gone.

    The distances of random subsets of `points` sizes from `smallest` to N are fitted by a line in
    1 / N; this is where it meets 0. It may be slightly negative. The bias of the reference, if it
    is of few rows itself, stays.

    Args:
        features: (N, d), of the generator; in random order or not.
        reference: what `frechet_distance` takes.
        points: distances to compute, >= 2.
        smallest: rows of the smallest subset. None: 5000, at most N / 2.
        generator: draws the subsets, on the CPU. None: one of its own with seed 0.

    Source: Chong and Forsyth 2020, arXiv 1911.07023.
    """
    n = len(features)
    smallest = min(5000, n // 2) if smallest is None else smallest
    if points < 2 or not 2 <= smallest < n:
        raise ValueError(
            f"frechet_distance_infinity: expected points >= 2 and 2 <= smallest < N, got "
            f"points={points}, smallest={smallest}, N={n}"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    sizes = torch.linspace(smallest, n, points, dtype=torch.float64).round()
    other = _gaussian(reference)
    other.factor()
    distances = []
    for size in sizes.tolist():
        chosen = torch.randperm(n, generator=generator)[: int(size)].to(features.device)
        some = _of_features(features.detach()[chosen])
        distances.append(_distance(*_pair(some, other, warn=False)).cpu())
    line = torch.stack((torch.ones_like(sizes), 1 / sizes), 1)
    return float(torch.linalg.lstsq(line, torch.stack(distances)[:, None]).solution[0])


@dataclass
class _Gaussian:
    """Mean and covariance, or a factor (r, d) of that: at least one of both."""

    mean: Tensor
    cov: Tensor | None = None
    root: Tensor | None = None
    n: int | None = None
    origin: Provenance = field(default_factory=Provenance)

    def trace(self) -> Tensor:
        if self.cov is not None:
            return self.cov.diagonal().sum()
        return self.factor().square().sum()

    def factor(self) -> Tensor:
        if self.root is None:
            self.root = Factor.apply(self.cov)
        return self.root

    def to(self, device: torch.device) -> _Gaussian:
        cov, root = (None if t is None else t.to(device) for t in (self.cov, self.root))
        return _Gaussian(self.mean.to(device), cov, root, self.n, self.origin)

    def same(self, other: _Gaussian) -> bool:
        if self.cov is None or other.cov is None:
            return False
        return torch.equal(self.mean, other.mean) and torch.equal(self.cov, other.cov)


def _gaussian(given: Any) -> _Gaussian:
    if isinstance(given, (str, os.PathLike)):
        given = FeatureStats.load(given)
    if isinstance(given, FeatureStats):
        return _Gaussian(*given.moments(), n=given.count, origin=given.provenance)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError(
            f"frechet_distance: expected FeatureStats, (mean, covariance) or an npz file, got "
            f"{type(given).__name__}"
        )
    mean, cov = (torch.as_tensor(t).to(torch.float64) for t in given)
    if mean.ndim != 1 or cov.shape != (mean.shape[0], mean.shape[0]) or not len(mean):
        raise ValueError(
            f"expected mean (d,) and covariance (d, d), got {tuple(mean.shape)} and "
            f"{tuple(cov.shape)}"
        )
    if not bool(mean.sum().isfinite() and cov.sum().isfinite()) and not bool(
        mean.isfinite().all() and cov.isfinite().all()
    ):
        raise ValueError("mean and covariance must be finite")
    if bool((cov - cov.mT).abs().max() > 1e-5 * cov.abs().max()):
        raise ValueError("frechet_distance: expected symmetric covariances, got one that is not")
    return _Gaussian(mean, cov)


def _of_features(features: Tensor) -> _Gaussian:
    if features.ndim != 2 or features.shape[0] < 2 or not features.is_floating_point():
        raise ValueError(
            f"expected floating features (N >= 2, d), got {features.dtype} {tuple(features.shape)}"
        )
    if not bool(features.isfinite().all()):
        raise ValueError("frechet_distance: expected finite features, got NaN or infinity")
    n, d = features.shape
    if n > d and not features.requires_grad:
        return _Gaussian(*moments(features), n=n)
    wide = features.to(torch.float64)
    mean = wide.mean(0)
    root = (wide - mean) / (n - 1) ** 0.5
    if n > d:
        return _Gaussian(mean, root.mT @ root, n=n)
    return _Gaussian(mean, root=root, n=n)


def _pair(a: _Gaussian, b: _Gaussian, warn: bool = True) -> tuple[_Gaussian, _Gaussian]:
    d = len(a.mean)
    if d != len(b.mean):
        raise ValueError(f"dimensions differ: {d} and {len(b.mean)}")
    differ = a.origin.differences(b.origin, unknown_differs=False)
    if differ:
        raise ValueError(f"frechet_distance: features differ in {'; '.join(differ)}")
    rows = [x.n for x in (a, b) if x.n is not None]
    if warn and rows and min(rows) <= d and "rows" not in _warned:
        _warned.add("rows")
        warnings.warn(
            f"frechet_distance: {min(rows)} rows of {d} dimensions: the distance is exact for these"
            " moments, but biased upwards, about as 1/N; compare it at equal N only, or take "
            "frechet_distance_infinity. This is said once.",
            UserWarning,
            stacklevel=3,
        )
    return a, b.to(a.mean.device)


def _distance(a: _Gaussian, b: _Gaussian) -> Tensor:
    difference = (a.mean - b.mean).square().sum()
    if a.same(b):
        return difference + (a.trace() - b.trace()) * 0.0
    traces = difference + a.trace() + b.trace()
    f, g = a.factor(), b.factor()
    if not f.shape[0] or not g.shape[0]:  # a point has no cross term
        return traces
    steep = is_steep(f) or is_steep(g)
    plain = f.requires_grad or g.requires_grad or not (is_upper(f) and is_upper(g))
    product = f @ g.mT if plain else upper_times_lower(f, g)
    cross: Tensor = NuclearNorm.apply(product, float(traces.detach()), steep)
    return (traces - 2.0 * cross).clamp_min(0.0)


def _result(distance: Tensor) -> Any:
    return distance if distance.requires_grad else float(distance)
