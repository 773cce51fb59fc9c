"""Modules over `ganops.ops`."""

from .spectral_norm import batch_spectral_norm

__all__ = ["batch_spectral_norm"]
