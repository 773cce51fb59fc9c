"""Numbers for how good generated images are, each with its protocol."""

from __future__ import annotations

from typing import Any

from ganops.metrics.balance import BeganConvergence, RealnessGap, began_convergence, realness_gap
from ganops.metrics.classifier import Classifier
from ganops.metrics.extractors import Extractor, as_extractor, digits_extractor
from ganops.metrics.feature_stats import FeatureStats
from ganops.metrics.frechet import (
    frechet_distance,
    frechet_distance_from_features,
    frechet_distance_infinity,
    moments,
)
from ganops.metrics.inception import InceptionFeatures
from ganops.metrics.inception_score import InceptionScore, StreamingInceptionScore, inception_score
from ganops.metrics.kid import KID, BlockKID, kid
from ganops.metrics.mifid import MiFID, memorisation_distance, mifid
from ganops.metrics.neighbours import (
    PRDC,
    DensityCoverage,
    PrecisionRecall,
    density_coverage,
    prdc,
    precision_recall,
)
from ganops.metrics.perceptual_path import PathLength, perceptual_path_length
from ganops.metrics.quality import Quality, class_coverage
from ganops.metrics.separability import Separability, linear_separability

__all__ = [
    "FID",
    "KID",
    "PRDC",
    "BeganConvergence",
    "BlockKID",
    "Classifier",
    "DensityCoverage",
    "Extractor",
    "FeatureStats",
    "InceptionFeatures",
    "InceptionScore",
    "MiFID",
    "PathLength",
    "PrecisionRecall",
    "Quality",
    "RealnessGap",
    "Separability",
    "StreamingInceptionScore",
    "as_extractor",
    "began_convergence",
    "class_coverage",
    "density_coverage",
    "digits_extractor",
    "frechet_distance",
    "frechet_distance_from_features",
    "frechet_distance_infinity",
    "inception_score",
    "kid",
    "linear_separability",
    "memorisation_distance",
    "mifid",
    "moments",
    "perceptual_path_length",
    "prdc",
    "precision_recall",
    "realness_gap",
]


def __getattr__(name: str) -> Any:
    if name == "FID":  # imports torchmetrics where that is installed
        from ganops.metrics.fid import FID

        return FID
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
