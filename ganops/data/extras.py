"""Optional packages, asked for by name so that a missing one gives one clear sentence."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str, purpose: str, package: str | None = None) -> Any:
    """Import `module`, or raise ModuleNotFoundError saying what needs it and how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = package or module.partition(".")[0]
        raise ModuleNotFoundError(
            f"{purpose} needs the package {name!r}: pip install 'ganops[train]'", name=error.name
        ) from error
