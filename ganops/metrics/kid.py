"""Kernel Inception Distance: the unbiased MMD^2 of the kernel (x.y / d + 1)^3.

Binkowski et al. 2018, arXiv 1801.01401.

Sums over pairs are exact and made tile by tile: memory is linear in the rows. They could be
streamed without keeping rows only through the kernel's own features, all monomials of degree 3 or
less: 1.4e9 numbers for d = 2048. What can be streamed is an average over blocks (`BlockKID`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ganops.metrics._features import Result, checked, checked_pair, plain_arithmetic
from ganops.metrics._tiles import spans, tile_for


@dataclass(frozen=True)
class KID(Result):
    """`value` as it is, not times 1000. `spread` is what `spread_is` says."""

    value: float
    spread: float
    spread_is: str
    estimator: str
    n_real: int
    n_generated: int
    dim: int
    products: str

    def numbers(self) -> dict[str, float]:
        return {"kid": self.value, "+-": self.spread}

    def protocol(self) -> str:
        return (
            f"unbiased MMD^2, {self.estimator}, kernel (x.y/{self.dim} + 1)^3, {self.n_real} real "
            f"and {self.n_generated} generated rows, {self.products} products, +- {self.spread_is}"
        )


def kid(
    real: Tensor,
    generated: Tensor,
    *,
    subsets: int | None = None,
    subset_size: int = 1000,
    seed: int = 2020,
    dtype: torch.dtype = torch.float64,
    tile: int | None = None,
) -> KID:
    """Unbiased squared maximum mean discrepancy of two feature sets; may be below zero.

    sum_{i != j} k(x_i, x_j) / (N (N - 1)) + the same of y - 2 mean k(x_i, y_j), over all pairs; or
    with `subsets`, its mean over that many random subsets of `subset_size` rows of either set,
    which is the same in expectation and noisier.

    The spread of the first is the jackknife's standard error, at least the true one in expectation
    (by a factor up to sqrt 2 where the distributions are equal; nan below 3 rows); of the second
    the population standard deviation over subsets, which overlap: no standard error.

    Subsets are those of torch-fidelity (input 1 = generated, rng_seed = `seed`) and, after
    numpy.random.seed(seed), of clean-fid.

    Args:
        real, generated: features (N, d), (M, d) of one floating dtype and device; N, M >= 2.
        subsets: how many subsets; None for all pairs.
        subset_size: rows of a subset, drawn without replacement.
        seed: of the subsets; the global generators are left alone.
        dtype: of the products and the kernel, float64 or float32; sums are float64.
        tile: rows multiplied at a time.

    Returns: KID.
    Raises: TypeError, ValueError for features that are not (N >= 2, d), floating, finite and alike,
        or fewer than a subset.
    Memory: a few tiles and N + M sums.
    Source: arXiv 1801.01401.
    """
    if dtype not in (torch.float64, torch.float32):
        raise ValueError(f"dtype: expected torch.float64 or torch.float32, got {dtype}")
    real, generated = checked_pair(real, generated, least=2)
    tile = tile_for(real.device, tile, cpu=512)
    if subsets is None:
        value, spread = _all_pairs(real, generated, dtype, tile)
        estimator, spread_is = "all pairs", "jackknife standard error"
    else:
        value, spread = _over_subsets(real, generated, subsets, subset_size, seed, dtype, tile)
        estimator = f"mean over {subsets} subsets of {subset_size}, seed {seed}"
        spread_is = "standard deviation over subsets"
    products = str(dtype).removeprefix("torch.")
    counts = len(real), len(generated), real.shape[1]
    return KID(value, spread, spread_is, estimator, *counts, products)


def _kernel_sums(
    x: Tensor, y: Tensor | None, dtype: torch.dtype, tile: int
) -> tuple[Tensor, Tensor]:
    """Sums of k over the rows' partners -> ((N,) of x, (M,) of y); y None: other rows of x."""
    other = x if y is None else y
    one = torch.ones((), dtype=dtype, device=x.device)
    rows = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    columns = rows if y is None else torch.zeros(len(other), dtype=torch.float64, device=x.device)
    for i in spans(len(x), tile):
        left = x[i].to(dtype)
        for j in spans(len(other), tile):
            if y is None and j.start < i.start:
                continue
            base = torch.addmm(one, left, other[j].to(dtype).T, alpha=1.0 / x.shape[1])
            if y is None and i == j:
                base.fill_diagonal_(0.0)
            kernel = base.square().mul_(base)
            rows[i] += kernel.sum(1, dtype=torch.float64)
            if y is not None or i != j:
                columns[j] += kernel.sum(0, dtype=torch.float64)
    return rows, columns


def _all_pairs(
    x: Tensor, y: Tensor, dtype: torch.dtype, tile: int, *, jackknife: bool = True
) -> tuple[float, float]:
    m, n = len(x), len(y)
    with plain_arithmetic(x.device):
        xx, yy = (_kernel_sums(each, None, dtype, tile)[0] for each in (x, y))
        xy, yx = _kernel_sums(x, y, dtype, tile)
        within_x, within_y, across = xx.sum(), yy.sum(), xy.sum()
        value = within_x / (m * (m - 1)) + within_y / (n * (n - 1)) - 2 * across / (m * n)
        if not jackknife or min(m, n) < 3:
            return float(value), math.nan
        # The estimate without row i, but for terms that no i changes.
        less_x = (within_x - 2 * xx) / ((m - 1) * (m - 2)) - 2 * (across - xy) / ((m - 1) * n)
        less_y = (within_y - 2 * yy) / ((n - 1) * (n - 2)) - 2 * (across - yx) / ((n - 1) * m)
        variance = (m - 1) * less_x.var(correction=0) + (n - 1) * less_y.var(correction=0)
    return float(value), math.sqrt(float(variance))


def _over_subsets(
    real: Tensor,
    generated: Tensor,
    subsets: int,
    size: int,
    seed: int,
    dtype: torch.dtype,
    tile: int,
) -> tuple[float, float]:
    if subsets < 1 or size < 2:
        raise ValueError(f"expected subsets >= 1 of size >= 2, got {subsets} of {size}")
    if size > min(len(real), len(generated)):
        raise ValueError(
            f"expected subset_size <= the rows of either set, got {size} for {len(real)} real and "
            f"{len(generated)} generated"
        )
    draw = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        chosen = []
        for each in (generated, real):
            index = torch.from_numpy(draw.choice(len(each), size, replace=False))
            chosen.append(each[index.to(each.device)])
        values.append(_all_pairs(chosen[1], chosen[0], dtype, tile, jackknife=False)[0])
    return float(np.mean(values)), float(np.std(values))


@dataclass
class BlockKID:
    """KID in constant memory: the mean of unbiased estimates over disjoint blocks as they arrive.

    Zaremba et al. 2013, arXiv 1307.1954. Blocks are independent, so its spread is a standard
    error; it is sqrt(N / block) or so times that of all pairs where distributions are equal. A set
    that runs ahead of the other is kept until the other catches up: feed them in turn.
    """

    dim: int
    block: int = 1000
    values: list[float] = field(default_factory=list)
    _waiting: dict[bool, list[Tensor]] = field(default_factory=lambda: {True: [], False: []})

    def __post_init__(self) -> None:
        if self.dim < 1 or self.block < 2:
            raise ValueError(
                f"expected dim >= 1 and block >= 2, got dim {self.dim} and block {self.block}"
            )

    def update(self, features: Tensor, *, real: bool) -> None:
        """Take in features (N, dim); N may be 0. Rows are used in the order in which they come."""
        features = checked("real" if real else "generated", features, least=0)
        if features.shape[1] != self.dim:
            raise ValueError(f"expected features (N, {self.dim}), got {tuple(features.shape)}")
        if len(features):
            self._waiting[real].append(features.clone())
        while min(self._count(True), self._count(False)) >= self.block:
            x, y = self._take(True), self._take(False)
            tile = tile_for(x.device, None, cpu=512)
            self.values.append(_all_pairs(x, y, torch.float64, tile, jackknife=False)[0])

    def merge(self, other: BlockKID) -> None:
        """Add the blocks and waiting rows of another state of equal dimension and block."""
        if (self.dim, self.block) != (other.dim, other.block):
            raise ValueError(
                f"expected dim {self.dim} and block {self.block}, got {other.dim} and {other.block}"
            )
        self.values += other.values
        for real in (True, False):
            for rows in other._waiting[real]:
                self.update(rows, real=real)

    def compute(self) -> KID:
        """The estimate so far. Raises ValueError before the first full block of both sets."""
        blocks = len(self.values)
        if not blocks:
            raise ValueError(
                f"expected a block of {self.block} rows of both sets, got {self._count(True)} real "
                f"and {self._count(False)} generated"
            )
        error = float(np.std(self.values, ddof=1)) / math.sqrt(blocks) if blocks > 1 else math.nan
        used = blocks * self.block
        return KID(
            float(np.mean(self.values)), error, "standard error over blocks",
            f"mean over {blocks} disjoint blocks of {self.block} ({self._count(True)} real and "
            f"{self._count(False)} generated rows left over)", used, used, self.dim, "float64",
        )  # fmt: skip

    def _count(self, real: bool) -> int:
        return sum(map(len, self._waiting[real]))

    def _take(self, real: bool) -> Tensor:
        rows = torch.cat(self._waiting[real])
        self._waiting[real] = [rows[self.block :].clone()] if len(rows) > self.block else []
        return rows[: self.block]
