"""Which implementation of an op runs, and why not the others.

Three implementations: ``reference`` (plain PyTorch, any device, any order), ``native`` (C++ on the
CPU, CUDA C++ on a GPU) and ``triton``. The choice is, in this order: the argument ``impl=`` of the
call, `ganops.use_impl(...)`, the environment variable GANOPS_IMPL, and then ``auto``, which takes
the first that can serve from `AUTO`. Whatever was asked for by name is used or refused, never
replaced.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from . import _library

IMPLS = ("reference", "native", "triton")
FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

# What `auto` prefers on each device, best first. Both CUDA columns await a measurement on a GPU.
AUTO: dict[str, dict[str, tuple[str, ...]]] = {
    "ada": {"cpu": ("native", "reference"), "cuda": ("native", "triton", "reference")},
    "augment": {"cpu": ("native", "reference"), "cuda": ("native", "triton", "reference")},
    "bias_act": {"cpu": ("native", "reference"), "cuda": ("native", "triton", "reference")},
    "consistency": {"cpu": ("native", "reference"), "cuda": ("native", "triton", "reference")},
    # Both only centre; where Triton is, torch's addmm_ adds in place what C++ adds by a temporary.
    "feature_stats": {"cpu": ("native", "reference"), "cuda": ("triton", "native", "reference")},
    "gradient_penalty": {"cpu": ("native", "reference"), "cuda": ("native", "triton", "reference")},
    "masked_slope": {"cpu": ("native", "reference"), "cuda": ("native", "triton", "reference")},
    "norm": {"cpu": ("native", "reference"), "cuda": ("native", "triton", "reference")},
    "philox": {"cpu": ("native", "reference"), "cuda": ("native", "triton", "reference")},
    "resize": {"cpu": ("native", "reference"), "cuda": ("native", "triton", "reference")},
    "smooth": {"cpu": ("native", "reference"), "cuda": ("native", "triton", "reference")},
    "spectral_norm": {"cpu": ("native", "reference"), "cuda": ("native", "triton", "reference")},
    "upfirdn2d": {"cpu": ("native", "reference"), "cuda": ("native", "triton", "reference")},
}

_OTHER_DEVICES = ("reference",)


def _check_name(impl: str, where: str) -> str:
    if impl != "auto" and impl not in IMPLS:
        raise ValueError(f"{where}: expected one of auto, {', '.join(IMPLS)}; got {impl!r}")
    return impl


_default = _check_name(os.environ.get("GANOPS_IMPL", "auto"), "GANOPS_IMPL")
_warned: set[tuple[str, str]] = set()


@contextmanager
def use_impl(impl: str) -> Iterator[None]:
    """Run every ganops op inside the block by this implementation, process-wide.

    Args:
        impl: "reference", "native", "triton", or "auto".

    Raises:
        ValueError: no such implementation. An op that cannot serve it raises when it is called.

    Example:
        >>> import torch, ganops
        >>> with ganops.use_impl("reference"):
        ...     y = ganops.ops.bias_act(torch.ones(1, 2), act="relu", gain=1.0)
        >>> y
        tensor([[1., 1.]])
    """
    global _default
    before, _default = _default, _check_name(impl, "use_impl")
    try:
        yield
    finally:
        _default = before


def triton_interprets() -> bool:
    """Does Triton run its kernels on CPU tensors (TRITON_INTERPRET=1)? A debugging mode."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@functools.cache
def triton_importable() -> bool:
    """Is there a Triton to import? It is imported only when a kernel is first launched."""
    return importlib.util.find_spec("triton") is not None


def why_not(op: str, impl: str, device: str, dtype: torch.dtype | None = None) -> str | None:
    """The reason why `impl` cannot run `op` on this kind of device, or None if it can."""
    if impl == "reference":
        return None
    if dtype is not None and dtype not in FLOATING:
        return f"{impl} kernels take float64, float32, bfloat16 and float16, not {dtype}"
    if impl == "native":
        if device not in ("cpu", "cuda"):
            return f"there is no native kernel for {device} tensors"
        if not _library.NATIVE.loaded:
            return _library.NATIVE.missing
        return None if device == "cpu" else _library.CUDA.missing
    if not triton_importable():
        return "triton is not installed (pip install triton)"
    if device == "cpu" and not triton_interprets():
        return "Triton runs on CPU tensors only in its interpreter (set TRITON_INTERPRET=1)"
    if device not in ("cpu", "cuda"):
        return f"there is no Triton kernel for {device} tensors"
    return None


def choose(op: str, impl: str, device: torch.device, dtype: torch.dtype | None = None) -> str:
    """The implementation that serves this call.

    Raises:
        ValueError: `impl` is no implementation.
        RuntimeError: the one asked for cannot serve; the message says why and what to do.
    """
    impl = _check_name(impl, f"{op}: impl")
    asked = _default if impl == "auto" else impl
    if asked != "auto":
        reason = why_not(op, asked, device.type, dtype)
        if reason is not None:
            raise RuntimeError(
                f"{op}: impl={asked!r} cannot serve {device.type} tensors: {reason}. "
                f'impl="reference" always can; `ganops doctor` shows all.'
            )
        return asked
    order = AUTO[op].get(device.type, _OTHER_DEVICES)
    for candidate in order:
        if why_not(op, candidate, device.type, dtype) is None:
            break
    if candidate == "reference" and device.type != "cpu" and (op, device.type) not in _warned:
        _warned.add((op, device.type))
        reasons = "; ".join(
            f"{i}: {why_not(op, i, device.type, dtype)}" for i in IMPLS if i != "reference"
        )
        warnings.warn(
            f"ganops: {op} runs its slow reference on {device.type} ({reasons}). "
            "This is said once.",
            RuntimeWarning,
            stacklevel=3,
        )
    return candidate
