"""Other libraries' metrics, for comparison where they are installed."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


def peer(module: str) -> ModuleType:
    """The module, or skip the test and say why."""
    try:
        return importlib.import_module(module)
    except ImportError as error:  # itself, or something that it needs
        pytest.skip(f"{module} cannot be imported here: {error}")
