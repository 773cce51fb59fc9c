"""What every metric asks of its features, and how a result shows its protocol."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK = 4096  # rows looked at together where nothing but memory depends on it


def checked(name: str, features: Tensor, *, least: int = 1, why: str = "") -> Tensor:
    """`features` (N >= least, d), floating and finite, detached; else TypeError or ValueError."""
    if not isinstance(features, Tensor):
        raise TypeError(f"{name}: expected a tensor (N, d), got {type(features).__name__}")
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"{name}: expected shape (N, d), got {tuple(features.shape)}")
    if not features.is_floating_point():
        raise TypeError(f"{name}: expected floating-point features, got {features.dtype}")
    if len(features) < least:
        raise ValueError(f"{name}: expected {least} rows or more{why}, got {len(features)}")
    features = features.detach()
    parts = [part.isfinite().all(1) for part in features.split(BLOCK)]
    good = torch.cat(parts) if parts else torch.ones(0, dtype=torch.bool)
    if not good.all():
        bad = (~good).nonzero().flatten()
        raise ValueError(
            f"{name}: expected finite features, got NaN or infinity in {len(bad)} of "
            f"{len(features)} rows, the first being row {int(bad[0])}"
        )
    return features


def checked_pair(
    real: Tensor, generated: Tensor, *, least: int = 1, why: str = ""
) -> tuple[Tensor, Tensor]:
    """Both sets `checked`, of one dimension, dtype and device."""
    pair = (
        checked("real", real, least=least, why=why),
        checked("generated", generated, least=least, why=why),
    )
    for what, (a, b) in {
        "feature dimension": (real.shape[1], generated.shape[1]),
        "dtype": (real.dtype, generated.dtype),
        "device": (real.device, generated.device),
    }.items():
        if a != b:
            raise ValueError(f"expected one {what}, got {a} (real) and {b} (generated)")
    return pair


@contextlib.contextmanager
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """No gradients, and no autocast that would round the products."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


class Result:
    """A frozen dataclass that prints as one line: its numbers, then how they were made."""

    def protocol(self) -> str:
        raise NotImplementedError

    def numbers(self) -> dict[str, float]:
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        """Every field, and the protocol in words; for JSON, so what is not finite is None."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        known = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in fields.items()
        }
        return {**known, "protocol": self.protocol()}

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {value:.6g}" for name, value in self.numbers().items())
        return f"{numbers} ({self.protocol()})"
