"""ganops: the performance layer for adversarial training in PyTorch.

`ganops.ops` are drop-in functions for your own code; `ganops.Trainer` and the `ganops` command run
whole methods. Nothing is compiled at import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import nn, ops
    from ._dispatch import use_impl
    from .methods import recipe
    from .nn import optimize
    from .trainers import Trainer

# Loaded when first used: the ops alone must not pay for the trainers, nor `--version` for the ops.
_LAZY = {
    "ops": ("ganops.ops", None),
    "nn": ("ganops.nn", None),
    "optimize": ("ganops.nn", "optimize"),
    "use_impl": ("ganops._dispatch", "use_impl"),
    "metrics": ("ganops.metrics", None),
    "data": ("ganops.data", None),
    "losses": ("ganops.losses", None),
    "methods": ("ganops.methods", None),
    "reg": ("ganops.regularizers", None),
    "Trainer": ("ganops.trainers", "Trainer"),
    "recipe": ("ganops.methods", "recipe"),
}

__all__ = ["Trainer", "__version__", "nn", "ops", "optimize", "recipe", "use_impl"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ganops' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    loaded = importlib.import_module(module)
    value = loaded if attribute is None else getattr(loaded, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
