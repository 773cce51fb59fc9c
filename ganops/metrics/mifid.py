"""Memorisation-informed FID: the Frechet distance, divided by how near to real rows samples lie.

Bai et al. 2021, arXiv 2106.03062.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ganops.metrics._features import BLOCK, Result, checked_pair, plain_arithmetic
from ganops.metrics._tiles import spans, tile_for
from ganops.metrics.frechet import frechet_distance, moments


@dataclass(frozen=True)
class MiFID(Result):
    """`value` = `frechet` / `memorisation` where that is below `threshold`, else `frechet`."""

    value: float
    frechet: float
    memorisation: float
    threshold: float
    over: str
    n_real: int
    n_generated: int
    dim: int

    def numbers(self) -> dict[str, float]:
        return {
            "mifid": self.value,
            "frechet distance": self.frechet,
            "memorisation distance": self.memorisation,
        }

    def protocol(self) -> str:
        return (
            f"{self.n_real} real and {self.n_generated} generated rows of {self.dim} features, "
            f"least 1 - |cos| averaged over {self.over} rows, threshold {self.threshold:g}"
        )


def mifid(
    real: Tensor,
    generated: Tensor,
    *,
    threshold: float = 0.1,
    over: Literal["generated", "real"] = "generated",
    frechet: float | None = None,
    tile: int | None = None,
) -> MiFID:
    """Frechet distance / m if m < threshold, else Frechet distance; m = `memorisation_distance`.

    m is the mean over generated rows of the least 1 - |cos| to a real row, as in the paper;
    ``over="real"`` averages over real rows, as torchmetrics does. The value is infinite at m = 0:
    nothing but copies.

    Args:
        real, generated: features (N, d), (M, d) of one floating dtype and device; N, M >= 2.
        threshold: on m, >= 0.
        frechet: the Frechet distance if it is known; else it is computed from these rows.
        over, tile: as in `memorisation_distance`.

    Returns: MiFID.
    Raises: TypeError, ValueError as `prdc` does.
    Memory: two covariances, normalised copies of both sets and a few tiles.
    Source: arXiv 2106.03062.
    """
    if not threshold >= 0:
        raise ValueError(f"threshold: expected a number >= 0, got {threshold!r}")
    real, generated = checked_pair(real, generated, least=2)
    near = memorisation_distance(real, generated, over=over, tile=tile)
    if frechet is None:
        with plain_arithmetic(real.device):
            frechet = frechet_distance(moments(real), moments(generated))
    value = frechet if near >= threshold else (frechet / near if near else math.inf)
    counts = len(real), len(generated), real.shape[1]
    return MiFID(value, frechet, near, threshold, over, *counts)


def memorisation_distance(
    real: Tensor,
    generated: Tensor,
    *,
    over: Literal["generated", "real"] = "generated",
    tile: int | None = None,
) -> float:
    """Mean over the rows of one set of the least 1 - |cos| to a row of the other. -> [0, 1]

    The nearest row is found by tiled products; its 1 - |cos| is |u -+ v|^2 / 2 of the unit rows in
    float64, so copies are at 0 and near copies are not lost to rounding. A row of zeros is at 1
    from everything. Arguments and errors as in `mifid`.
    """
    if over not in ("generated", "real"):
        raise ValueError(f"over: expected 'generated' or 'real', got {over!r}")
    real, generated = checked_pair(real, generated)
    a, b = (generated, real) if over == "generated" else (real, generated)
    with plain_arithmetic(a.device):
        unit_a, unit_b = _units(a), _units(b)
        best = unit_a.new_full((len(a),), -1.0)
        nearest = torch.zeros(len(a), dtype=torch.int64, device=a.device)
        step = tile_for(a.device, tile)
        for j in spans(len(b), step):
            for i in spans(len(a), step):
                value, where = (unit_a[i] @ unit_b[j].T).abs_().max(1)
                better = value > best[i]
                best[i] = torch.where(better, value, best[i])
                nearest[i] = torch.where(better, where + j.start, nearest[i])
        total = torch.zeros((), dtype=torch.float64, device=a.device)
        for rows in torch.arange(len(a), device=a.device).split(1024):
            u, v = _unit(a[rows].double()), _unit(b[nearest[rows]].double())
            sign = torch.where((u * v).sum(1, keepdim=True) < 0, -1.0, 1.0)
            zero = (u == 0).all(1) | (v == 0).all(1)
            half = (u - sign * v).square().sum(1) / 2
            total += torch.where(zero, 1.0, half).sum()
    return float(total) / len(a)


def _units(features: Tensor) -> Tensor:
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    return torch.cat([_unit(rows.double()).to(dtype) for rows in features.split(BLOCK // 4)])


def _unit(rows: Tensor) -> Tensor:
    largest = rows.abs().amax(1, keepdim=True)  # first, so that no square over- or underflows
    rows = rows / torch.where(largest > 0, largest, 1.0)
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norm > 0, norm, 1.0)
