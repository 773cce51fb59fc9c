"""Methods: one file each, a recipe and nothing else. ``recipe(name)`` gives its settings."""

from __future__ import annotations

from typing import Any

from ganops.methods.base import EMA, Adam, ImageSpec, Method, Phase, Progress, Recipe, recipe_class
from ganops.methods.wgan_gp import WGANGP

__all__ = [
    "EMA", "WGANGP", "Adam", "ImageSpec", "Method", "Phase", "Progress", "Recipe", "recipe",
]  # fmt: skip


def recipe(name: str, /, **changes: Any) -> Recipe:
    """The recipe called `name`, with settings changed. Raises ValueError with the nearest name."""
    return recipe_class(name)().replace(**changes)
