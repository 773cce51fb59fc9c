"""Loads the native libraries, once, and knows what they are.

``_C`` holds every schema and the CPU kernels and loads under any torch >= 2.11; ``_C_cuda`` holds
the CUDA kernels and is loaded only where torch itself has CUDA. Both are optional: what is missing,
and why, is kept for `ganops doctor` and for the error of whoever asks for it by name.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Library:
    """One shared library: where it is, or why it does not serve."""

    name: str
    path: Path
    missing: str | None  # None: loaded

    @property
    def loaded(self) -> bool:
        return self.missing is None


def read_build_info(folder: Path = PACKAGE) -> dict[str, Any]:
    """What setup.py wrote beside the libraries; empty if the package was never built."""
    path = folder / "_build_info.json"
    if not path.exists():
        return {}
    info: dict[str, Any] = json.loads(path.read_text())
    return info


def _load(name: str, absent: str, skip: str | None = None) -> Library:
    path = PACKAGE / f"{name}.so"
    if not path.exists():
        return Library(name, path, absent)
    if skip is not None:
        return Library(name, path, skip)
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        reason = f"{path.name} was built but does not load under torch {torch.__version__}: {error}"
        warnings.warn(f"ganops: {reason}. Rebuild it: pip install --no-build-isolation .",
                      RuntimeWarning, stacklevel=2)  # fmt: skip
        return Library(name, path, reason)
    return Library(name, path, None)


BUILD_INFO = read_build_info()
NATIVE = _load(
    "_C",
    BUILD_INFO.get("native_reason")
    or "the native library was not built (run: pip install --no-build-isolation .)",
)
CUDA = _load(
    "_C_cuda",
    BUILD_INFO.get("cuda_reason") or "the CUDA library was not built",
    skip=None if torch.version.cuda else f"torch {torch.__version__} has no CUDA",
)
