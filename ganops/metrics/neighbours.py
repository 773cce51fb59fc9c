"""Precision, recall, density and coverage from nearest neighbours, without an N x N matrix.

Kynkaanniemi et al. 2019, arXiv 1904.06991; Naeem et al. 2020, arXiv 2002.09797.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from torch import Tensor

from ganops.metrics._features import Result, checked_pair, plain_arithmetic
from ganops.metrics._tiles import Inside, radii, rows_of, tile_for


@dataclass(frozen=True)
class Neighbours(Result):
    """What all results about neighbours say of how they were made."""

    k: int
    n_real: int
    n_generated: int
    dim: int
    closed: bool

    def protocol(self) -> str:
        balls = "closed" if self.closed else "open"
        return (
            f"k = {self.k}, {self.n_real} real and {self.n_generated} generated rows of "
            f"{self.dim} features, {balls} balls, exact"
        )


@dataclass(frozen=True)
class PrecisionRecall(Neighbours):
    precision: float
    recall: float

    def numbers(self) -> dict[str, float]:
        return {"precision": self.precision, "recall": self.recall}


@dataclass(frozen=True)
class DensityCoverage(Neighbours):
    density: float
    coverage: float

    @property
    def coverage_if_equal(self) -> float:
        """The coverage expected of equal distributions, 1 - prod_j (N - j) / (N + M - j)."""
        missed = 1.0
        for j in range(1, self.k + 1):
            missed *= (self.n_real - j) / (self.n_real + self.n_generated - j)
        return 1.0 - missed

    def numbers(self) -> dict[str, float]:
        return {"density": self.density, "coverage": self.coverage}

    def protocol(self) -> str:
        return f"{super().protocol()}; equal distributions cover {self.coverage_if_equal:.4g}"


@dataclass(frozen=True)
class PRDC(DensityCoverage):
    precision: float
    recall: float

    def numbers(self) -> dict[str, float]:
        return {"precision": self.precision, "recall": self.recall, **super().numbers()}


@overload
def prdc(
    real: Tensor, generated: Tensor, *, k: int = 5, closed: bool = True, tile: int | None = None
) -> PRDC: ...


@overload
def prdc(
    real: Tensor,
    generated: Tensor,
    *,
    k: Sequence[int],
    closed: bool = True,
    tile: int | None = None,
) -> tuple[PRDC, ...]: ...


def prdc(
    real: Tensor,
    generated: Tensor,
    *,
    k: int | Sequence[int] = 5,
    closed: bool = True,
    tile: int | None = None,
) -> PRDC | tuple[PRDC, ...]:
    """Precision, recall, density and coverage in one pass, for one k or several.

    With r(x) the distance from x to its k-th nearest other row of its own set:
    precision = share of generated rows within r(x) of some real x; recall = the same with the roles
    exchanged; density = pairs (real x, generated y within r(x)) / (k M); coverage = share of
    real x with a generated row within r(x).

    Numbers are those of float64 differences: fast products decide only what their rounding cannot
    change. A row's k-th neighbour lies on its ball: closed balls (<=, Kynkaanniemi's) count it,
    open ones (<, Naeem's code) do not, which shows only where distances tie, as in equal sets.

    Args:
        real, generated: features (N, d), (M, d) of one floating dtype and device; N, M > k.
        k: neighbours; a sequence shares one pass and gives a tuple of results.
        closed: whether a ball contains its boundary.
        tile: rows multiplied at a time (1024 on CPU, 4096 else); results do not depend on it.

    Returns: PRDC. Precision and recall depend on N and M and on the feature network.
    Raises: TypeError, ValueError for features that are not (N > k, d), floating, finite and alike.
    Memory: centred copies of both sets and a few tiles.
    Source: the papers named above; exactness by rechecking in float64 is ours.
    """
    ks, counts, found, reached = _measure(real, generated, k, closed, tile, both=True)
    results = tuple(
        PRDC(
            k=each, **counts, closed=closed,
            density=int(found.counts[at].sum()) / (each * len(generated)),
            coverage=float((found.counts[at] > 0).double().mean()),
            precision=float(found.covered[at].double().mean()),
            recall=float(reached[at].double().mean()),
        )
        for at, each in enumerate(ks)
    )  # fmt: skip
    return results[0] if isinstance(k, int) else results


def precision_recall(
    real: Tensor, generated: Tensor, *, k: int = 3, closed: bool = True, tile: int | None = None
) -> PrecisionRecall:
    """Improved precision and recall; definitions, arguments and errors as in `prdc`."""
    both = prdc(real, generated, k=k, closed=closed, tile=tile)
    return PrecisionRecall(
        both.k, both.n_real, both.n_generated, both.dim, closed, both.precision, both.recall
    )


def density_coverage(
    real: Tensor, generated: Tensor, *, k: int = 5, closed: bool = True, tile: int | None = None
) -> DensityCoverage:
    """Density and coverage; as in `prdc`, without the generated rows' own neighbours."""
    (each,), counts, found, _ = _measure(real, generated, k, closed, tile, both=False)
    return DensityCoverage(
        k=each, **counts, closed=closed,
        density=int(found.counts.sum()) / (each * len(generated)),
        coverage=float((found.counts > 0).double().mean()),
    )  # fmt: skip


def _measure(
    real: Tensor,
    generated: Tensor,
    k: int | Sequence[int],
    closed: bool,
    tile: int | None,
    *,
    both: bool,
) -> tuple[list[int], dict[str, int], Inside, Tensor]:
    ks = [k] if isinstance(k, int) else list(k)
    if not ks or not all(isinstance(each, int) and each >= 1 for each in ks):
        raise ValueError(f"k: expected integers >= 1, got {k!r}")
    why = f" (more than k = {max(ks)})"
    real, generated = checked_pair(real, generated, least=max(ks) + 1, why=why)
    step = tile_for(real.device, tile)
    with plain_arithmetic(real.device):
        a, b = rows_of(real, generated)
        radii_b = radii(b, ks, step) if both else None
        found = Inside(a, b, radii(a, ks, step), radii_b, closed, step)
    counts = {"n_real": len(real), "n_generated": len(generated), "dim": real.shape[1]}
    return ks, counts, found, found.reached
