"""Which calls of a norm are served here, and how they are run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ... import _dispatch
from .._twins import serves
from . import reference
from .autograd import Norm
from .kinds import HALVES, Kind


def apply(
    x: Tensor, w: Tensor | None, b: Tensor | None, kind: Callable[[str], Kind], impl: str
) -> Tensor:
    """By the implementation chosen; `kind` is told its name."""
    impl = _dispatch.choose("norm", impl, x.device, x.dtype)
    if impl == "reference":
        return reference.norm(x, w, b, kind(impl))
    y: Tensor = Norm.apply(x, w, b, kind(impl))[0]
    return y


def all_shaped(shape: tuple[int, ...], *tensors: Tensor | None) -> bool:
    return all(t is None or tuple(t.shape) == tuple(shape) for t in tensors)


def served(x: Tensor, w: Tensor | None, b: Tensor | None) -> bool:
    """Tensors that the kernels take; for others torch's own function runs, or words the error."""
    given = [t for t in (w, b) if t is not None]
    return (
        serves(x, w, b)
        and x.numel() > 0
        and x.device.type in ("cpu", "cuda")
        and all(t.device == x.device for t in given)
        and len({t.dtype for t in given}) < 2
        and all(t.dtype == x.dtype or _mixed(x, t) for t in given)
    )


def _mixed(x: Tensor, w: Tensor) -> bool:
    return x.dtype in HALVES and w.dtype == torch.float32


def running(
    x: Tensor, stats: tuple[Tensor | None, Tensor | None], w: Tensor | None, b: Tensor | None,
    required: bool,
) -> bool:  # fmt: skip
    """The same for norms with running statistics."""
    given = [t for t in stats if t is not None]
    return (
        served(x, w, b)
        and (len(given) == 2 or (not given and not required))
        and all_shaped(x.shape[1:2], w, b, *stats)
        and serves(*given)
        and not any(t.requires_grad for t in given)
    )


def both(stats: tuple[Tensor | None, Tensor | None]) -> tuple[Tensor, Tensor]:
    mean, var = stats
    if mean is None or var is None:
        raise ValueError("norm: expected both running statistics, got one or none")
    return mean, var


def autocast(
    x: Tensor, w: Tensor | None, b: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What CUDA autocast does to layer, group and RMS norm: float32. CPU autocast does nothing."""
    if x.device.type != "cuda" or not torch.is_autocast_enabled("cuda"):
        return x, w, b

    def cast(t: Tensor) -> Tensor:
        return t.float() if t.dtype in HALVES else t

    return cast(x), None if w is None else cast(w), None if b is None else cast(b)
