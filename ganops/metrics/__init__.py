"""Numbers for how good generated images are, each with its protocol."""

from __future__ import annotations

from ganops.metrics.classifier import Classifier
from ganops.metrics.extractors import Extractor, as_extractor, digits_extractor
from ganops.metrics.frechet import frechet_distance, moments
from ganops.metrics.inception import InceptionFeatures
from ganops.metrics.quality import Quality, class_coverage

__all__ = [
    "Classifier", "Extractor", "InceptionFeatures", "Quality", "as_extractor", "class_coverage",
    "digits_extractor", "frechet_distance", "moments",
]  # fmt: skip
