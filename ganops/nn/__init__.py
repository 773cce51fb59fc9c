"""Thin modules over `ganops.ops`, and `optimize`, which puts them into a critic."""

from . import layers
from .adaptive_augment import AdaptiveAugment
from .layers import *  # noqa: F403
from .minibatch_stddev import MinibatchStdDev
from .optimize import Report, optimize, report
from .random_projection import RandomProjection
from .spectral_norm import batch_spectral_norm

__all__ = [
    "AdaptiveAugment",
    "MinibatchStdDev",
    "RandomProjection",
    "Report",
    "batch_spectral_norm",
    "optimize",
    "report",
    *layers.__all__,
]
