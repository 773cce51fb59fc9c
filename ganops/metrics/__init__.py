"""Numbers for how good generated images are, each with its protocol."""

from __future__ import annotations

from ganops.metrics.balance import BeganConvergence, RealnessGap, began_convergence, realness_gap
from ganops.metrics.classifier import Classifier
from ganops.metrics.frechet import frechet_distance, moments
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
    "KID",
    "PRDC",
    "BeganConvergence",
    "BlockKID",
    "Classifier",
    "DensityCoverage",
    "InceptionScore",
    "MiFID",
    "PathLength",
    "PrecisionRecall",
    "Quality",
    "RealnessGap",
    "Separability",
    "StreamingInceptionScore",
    "began_convergence",
    "class_coverage",
    "density_coverage",
    "frechet_distance",
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
