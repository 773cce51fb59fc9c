"""Numbers for how good generated images are, each with its protocol."""

from __future__ import annotations

from ganops.metrics.classifier import Classifier
from ganops.metrics.frechet import frechet_distance, moments
from ganops.metrics.quality import Quality, class_coverage

__all__ = ["Classifier", "Quality", "class_coverage", "frechet_distance", "moments"]
