"""Frechet distance between Gaussians, without ever squaring what it takes roots of.

Heusel et al. 2017, arXiv 1706.08500 (FID applies it to Inception features).
"""

from __future__ import annotations

import torch
from torch import Tensor

Moments = tuple[Tensor, Tensor]  # mean (d,), covariance (d, d)


def moments(features: Tensor) -> Moments:
    """features (N, d), N >= 2 -> mean (d,) and covariance (d, d) in float64, divided by N - 1."""
    if features.ndim != 2 or features.shape[0] < 2:
        raise ValueError(f"features must be (N >= 2, d), got shape {tuple(features.shape)}")
    wide = features.to(torch.float64)
    mean = wide.mean(0)
    centred = wide - mean
    return mean, centred.T @ centred / (features.shape[0] - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mu_a - mu_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2), in float64. -> float >= 0

    The last trace is the nuclear norm of F_a' F_b for any factors S = F F'. The factors come from
    eigendecompositions with the null directions removed, so singular covariances are exact to
    rounding; the product S_a S_b, whose eigenvalues carry errors of order eps |S|^2 under the root,
    is never formed. Raises ValueError for shapes that do not fit or values that are not finite.
    """
    (mean_a, cov_a), (mean_b, cov_b) = (_checked(x) for x in (a, b))
    if mean_a.shape != mean_b.shape:
        raise ValueError(f"dimensions differ: {mean_a.shape[0]} and {mean_b.shape[0]}")
    cross = torch.linalg.svdvals(_factor(cov_a).T @ _factor(cov_b)).sum()
    difference = (mean_a - mean_b).square().sum()
    distance = difference + cov_a.trace() + cov_b.trace() - 2.0 * cross
    return max(float(distance), 0.0)


def _factor(covariance: Tensor) -> Tensor:
    """F (d, d) with covariance = F F'.

    Eigenvalues within the rounding error of the largest are null directions of a singular matrix:
    left in, each would add the square root of that error to the nuclear norm.
    """
    values, vectors = torch.linalg.eigh(covariance)
    rounding = values[-1] * len(values) * torch.finfo(torch.float64).eps
    root = torch.where(values > rounding, values, 0.0).clamp_min(0.0).sqrt()
    factor: Tensor = vectors * root
    return factor


def _checked(pair: Moments) -> Moments:
    mean, covariance = (torch.as_tensor(t, dtype=torch.float64).cpu() for t in pair)
    if mean.ndim != 1 or covariance.shape != (mean.shape[0], mean.shape[0]):
        raise ValueError(
            f"expected mean (d,) and covariance (d, d), got {tuple(mean.shape)} and "
            f"{tuple(covariance.shape)}"
        )
    if not (torch.isfinite(mean).all() and torch.isfinite(covariance).all()):
        raise ValueError("mean and covariance must be finite")
    return mean, covariance
