"""Numbers for how good generated images are, each with its protocol."""

from __future__ import annotations

from typing import Any

from ganops.metrics.classifier import Classifier
from ganops.metrics.feature_stats import FeatureStats
from ganops.metrics.frechet import (
    frechet_distance,
    frechet_distance_from_features,
    frechet_distance_infinity,
    moments,
)
from ganops.metrics.quality import Quality, class_coverage

__all__ = [
    "FID",
    "Classifier",
    "FeatureStats",
    "Quality",
    "class_coverage",
    "frechet_distance",
    "frechet_distance_from_features",
    "frechet_distance_infinity",
    "moments",
]


def __getattr__(name: str) -> Any:
    if name == "FID":  # imports torchmetrics where that is installed
        from ganops.metrics.fid import FID

        return FID
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
