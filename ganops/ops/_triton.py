"""How Triton kernels are reached: imported by the first launch, run on their tensors' device.

Importing Triton takes three times as long as importing all of ganops' ops, and it need not be
installed; `ganops._dispatch` refuses with a reason where it is not.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOST_PROGRAMS = 2**31 - 1  # the limit of a CUDA grid's first dimension; of the others 65535


def deferred(package: str, name: str) -> Callable[..., Any]:
    """Function `name` of the package's triton_kernels.py, imported when first called."""

    def call(*args: Any) -> Any:
        return getattr(importlib.import_module(f"{package}.triton_kernels"), name)(*args)

    return call


def cdiv(a: int, b: int) -> int:
    """Blocks of b that cover a."""
    return -(-a // b)


def launch(kernel: Any, programs: int, like: Tensor, *args: Any, **meta: Any) -> None:
    """Runs `programs` programs on the device of `like` and that device's current stream.

    Triton itself launches on the current device, whatever its arguments are on.
    """
    if programs > MOST_PROGRAMS:
        raise ValueError(
            f"expected a tensor that {MOST_PROGRAMS} Triton programs cover, got {tuple(like.shape)}"
        )
    if programs:
        with torch.cuda.device_of(like):  # does nothing for a CPU tensor
            kernel[(programs,)](*args, **meta)
