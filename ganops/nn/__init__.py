"""Thin modules over `ganops.ops`, and `optimize`, which puts them into a critic."""

from . import layers
from .adaptive_augment import AdaptiveAugment
from .bank import DiscriminatorBank
from .bank_part import BankPart
from .bank_sharded import ShardedBank
from .layers import *  # noqa: F403
from .minibatch_stddev import MinibatchStdDev
from .optimize import Report, optimize, report
from .random_projection import RandomProjection
from .spectral_norm import batch_spectral_norm

__all__ = [
    "AdaptiveAugment",
    "BankPart",
    "DiscriminatorBank",
    "MinibatchStdDev",
    "RandomProjection",
    "Report",
    "ShardedBank",
    "batch_spectral_norm",
    "optimize",
    "report",
    *layers.__all__,
]
