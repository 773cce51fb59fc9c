"""The quality numbers of a small labelled set: Frechet distance in classifier features, coverage.

Protocol. The reference is one random half of the real images. Every other set has as many images as
the other half: generated ones, that half itself (real against real) and uniform noise. All sizes
being equal, so is the distance's upward bias. The classifier is trained on all real images, so both
halves are equally familiar to it.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from ganops.metrics.classifier import Classifier, cached_classifier
from ganops.metrics.frechet import frechet_distance, moments

CONFIDENCE = 0.9  # a sample counts for a class if the classifier gives it at least this
SHARE = 0.01  # a class appears if at least this share of all samples counts for it
LIMIT = 10_000  # images used per half


def class_coverage(
    probabilities: Tensor, *, confidence: float = CONFIDENCE, share: float = SHARE
) -> int:
    """Classes that at least `share` of the samples are with probability >= `confidence`.

    probabilities: (N, classes).
    """
    best, winner = probabilities.max(1)
    counts = torch.bincount(winner[best >= confidence], minlength=probabilities.shape[1])
    return int((counts >= share * len(probabilities)).sum())


class Quality:
    """``Quality(images, labels, name).measure(fakes)`` -> its two numbers.

    images (N, C, H, W) uint8, labels (N,) classes. `count`: how many fakes to give.
    """

    def __init__(self, images: Tensor, labels: Tensor, *, name: str, cache: str) -> None:
        self.label = f"{name}-cnn"
        self.classifier: Classifier = cached_classifier(
            images, labels, cache=cache, name=self.label
        )
        self.classes = int(labels.max()) + 1
        shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        self.count = min(len(images) // 2, LIMIT)
        self._half = images[shuffled[: self.count]]
        self._other = images[shuffled[self.count : 2 * self.count]]
        self._reference = moments(self.classifier.features(self._half))

    @classmethod
    def of(cls, source: Any, cache: str) -> Quality:
        """For a labelled set of known length. Raises as `check` does."""
        cls.check(source)
        images = source.read(torch.arange(len(source)))
        stem = os.path.basename(os.path.normpath(source.name)).split(".")[0]
        return cls(images, source.labels, name=stem, cache=cache)

    @staticmethod
    def check(source: Any) -> None:
        """Raises ValueError unless these data can be measured: four labelled uint8 images or more.

        Reads one image and writes nothing, so that a run can ask before it begins.
        """
        labels = getattr(source, "labels", None)
        if labels is None or not source.classes or not hasattr(source, "read"):
            raise ValueError(
                f"measuring quality needs labelled images of a set of known length, and data "
                f"{source.name!r} has no class labels"
            )
        if len(source) < 4:
            raise ValueError(f"measuring quality needs 4 images or more, data have {len(source)}")
        dtype = source.read(torch.arange(1)).dtype
        if dtype != torch.uint8:
            raise ValueError(f"measuring quality needs uint8 images, data give {dtype}")

    def measure(self, images: Tensor) -> dict[str, float]:
        """Numbers for a set of `count` uint8 images."""
        features = self.classifier.features(images)
        covered = class_coverage(self.classifier.probabilities(features))
        distance = float(frechet_distance(self._reference, moments(features)))
        return {f"quality/fd-{self.label}": distance, "quality/classes": float(covered)}

    def real_against_real(self) -> dict[str, float]:
        """The numbers of the other half of the real images: what perfect samples would get."""
        return self.measure(self._other)

    def noise_against_real(self) -> dict[str, float]:
        """The numbers of uniform noise: what no training at all could be worse than by much."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randint(256, self._half.shape, generator=generator, dtype=torch.int64)
        return self.measure(noise.to(torch.uint8))

    def protocol(self) -> str:
        return (
            f"{self.count} images against {self.count} others that are real; features of "
            f"{self.label}, a small classifier of this data set (not Inception, no FID); a class "
            f"appears if >= {SHARE:.0%} of the images are it with confidence >= {CONFIDENCE}"
        )
