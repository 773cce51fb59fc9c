"""Thin modules over `ganops.ops`, and `optimize`, which puts them into a critic."""

from . import layers
from .layers import *  # noqa: F403
from .optimize import Report, optimize, report

__all__ = ["Report", "optimize", "report", *layers.__all__]
