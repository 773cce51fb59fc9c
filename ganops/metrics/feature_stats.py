"""Streaming count, mean and covariance of features, in float64, mergeable."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from ganops.metrics import provenance, triangle
from ganops.metrics.finite import check_finite
from ganops.metrics.provenance import Provenance
from ganops.ops import feature_stats_

BLOCK = {"exact": 512, "fast": 1024}  # rows
OUTLIVING = torch.inference_mode(mode=False)  # the state outlives an inference mode it is fed in
FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class FeatureStats:
    r"""Count, mean and centred second moment of (N, d) features, one pass, O(d^2) memory.

    .. math:: \mu = \frac1n \sum_i x_i,\quad
              \Sigma = \frac{1}{n-1} \sum_i (x_i - \mu)(x_i - \mu)'

    Rows are gathered to blocks; a full block is centred by its own mean, multiplied, and merged
    (Chan, Golub, LeVeque 1979): no large mean is ever squared, and small batches are cheap. Blocks
    begin at multiples of `block` rows after the last merge, however rows came in batches: so the
    same rows in the same order give the same bits, also with any number of threads, and reading
    between changes nothing. A fixed order of merges gives the same bits each time.

    Args:
        dim: d, >= 1.
        device: of the state, and of the work. None: CPU. float64 is needed (not MPS).
        mode: "exact": products and sums in float64. "fast": centred products in float32 a block,
            sums in float64, about 1e-7 relative; features within 1e18 of their mean.
        block: rows a block. None: 512, fast 1024.
        extractor, weights_sha256, resize, dtype: what the features came from (`Provenance`); kept
            in files, compared at merges and distances.

    Memory: 8 d^2 + (4 or 8) block d bytes (38 MB at d = 2048), and 8 block d while a block is
    merged; reading `cov` with a block begun copies the square once.
    """

    @OUTLIVING
    def __init__(
        self,
        dim: int,
        *,
        device: torch.device | str | None = None,
        mode: str = "exact",
        block: int | None = None,
        extractor: str | None = None,
        weights_sha256: str | None = None,
        resize: str | None = None,
        dtype: str | None = None,
    ) -> None:
        if mode not in BLOCK:
            raise ValueError(f"FeatureStats: expected mode 'exact' or 'fast', got {mode!r}")
        block = BLOCK[mode] if block is None else block
        for name, value in (("dim", dim), ("block", block)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"FeatureStats: expected {name} as an int >= 1, got {value!r}")
        self.dim, self.mode, self.block = dim, mode, block
        self.provenance = Provenance(extractor, weights_sha256, resize, dtype)
        self._mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self._m2 = torch.zeros(dim, dim, dtype=torch.float64, device=device)  # upper triangle
        self._merged: int | None = 0  # rows in these; None: unknown, of another tool's file
        self._rows = torch.empty(0, dim, device=device)  # the block begun, once there is one
        self._held = 0  # rows in it

    @property
    def device(self) -> torch.device:
        return self._mean.device

    @property
    def count(self) -> int | None:
        """Rows so far; None after loading a file that does not say."""
        return None if self._merged is None else self._merged + self._held

    @OUTLIVING
    def update(self, features: Tensor) -> None:
        """Adds rows (N, d), N >= 0, in float64, float32, bfloat16 or float16, from any device.

        Raises ValueError for another shape or for a number that is not finite, naming its row, and
        TypeError for another dtype; the state is then as it was.
        """
        n = self._known("update")
        if not isinstance(features, Tensor) or features.dtype not in FLOATING:
            got = features.dtype if isinstance(features, Tensor) else type(features).__name__
            raise TypeError(f"FeatureStats: expected a tensor of floating features, got {got}")
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(
                f"FeatureStats: expected features (N, {self.dim}), got {tuple(features.shape)}"
            )
        features = features.detach()
        check_finite(features, n)
        features = features.to(self.device)
        at = 0
        while at < len(features):
            taken = min(self.block - self._held, len(features) - at)
            rows = features[at : at + taken]
            if taken == self.block:
                self._add(rows)
            else:
                self._hold(rows)
            at += taken

    def _hold(self, rows: Tensor) -> None:
        wide = rows.dtype == torch.float64
        if not len(self._rows):
            kept = torch.float64 if wide else torch.float32
            self._rows = self._rows.new_empty(self.block, self.dim, dtype=kept)
        elif wide:
            self._rows = self._rows.double()
        self._rows[self._held : self._held + len(rows)] = rows
        self._held += len(rows)
        if self._held == self.block:
            self._flush()

    def _add(self, rows: Tensor) -> None:
        count = self._known("update") - self._held
        self._mean = feature_stats_(rows, self._mean, self._m2, count, fast=self.mode == "fast")
        self._merged = count + len(rows)

    def _flush(self) -> None:
        """Merges the block begun, if any; the next row begins another."""
        held, self._held = self._held, 0
        if held:
            self._add(self._rows[:held])

    def _known(self, doing: str) -> int:
        if self.count is None:
            raise ValueError(
                f"FeatureStats: cannot {doing} statistics of an unknown number of rows: their file "
                "has mu and sigma but no n"
            )
        return self.count

    def _settled(self) -> tuple[Tensor, Tensor]:
        """Mean and m2 of all rows, the block begun among them, leaving the state as it is."""
        if not self._held:
            return self._mean, self._m2
        m2 = self._m2.clone()
        merged = self._known("read") - self._held
        rows = self._rows[: self._held]
        return feature_stats_(rows, self._mean, m2, merged, fast=self.mode == "fast"), m2

    def moments(self) -> tuple[Tensor, Tensor]:
        """(mean (d,), covariance (d, d)), float64, divided by n - 1.

        Raises ValueError below two rows, or where squares overflowed.
        """
        if self.count is not None and self.count < 2:
            raise ValueError(f"FeatureStats: a covariance needs 2 rows or more, got {self.count}")
        mean, m2 = self._settled()
        scale = 1.0 if self.count is None else self.count - 1.0
        cov = triangle.mirrored(m2).div_(scale)
        if not bool(cov.diagonal().sum().isfinite()):
            raise ValueError(f"FeatureStats: squared features overflow in mode {self.mode!r}")
        return mean.clone(), cov

    @property
    def mean(self) -> Tensor:
        """(d,) float64. Raises ValueError without a row."""
        if self.count == 0:
            raise ValueError("FeatureStats: a mean needs a row or more, got 0")
        return self._settled()[0].clone()

    @property
    def cov(self) -> Tensor:
        """(d, d) float64, divided by n - 1; as `moments`."""
        return self.moments()[1]

    @OUTLIVING
    def merge(self, other: FeatureStats) -> FeatureStats:
        """Adds the rows of another, which stays as it is. -> self

        Associative and commutative to rounding; begins a new block. Raises ValueError if dim, mode
        or provenance differ, or a count is unknown.
        """
        for name in ("dim", "mode"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"FeatureStats: cannot merge {name} {mine!r} and {theirs!r}")
        differ = self.provenance.differences(other.provenance, unknown_differs=True)
        if differ:
            raise ValueError(f"FeatureStats: cannot merge, features differ in {'; '.join(differ)}")
        if other is self:
            other = self.copy()
        a, b = self._known("merge"), other._known("merge") - other._held
        self._flush()
        if b:
            way, step = other._mean.to(self.device) - self._mean, b / (a + b)
            self._m2 += other._m2.to(self.device)
            self._m2.addr_(way, way, alpha=a * step)
            self._mean = self._mean + step * way
            self._merged = a + b
        if other._held:
            self._add(other._rows[: other._held].to(self.device))
        return self

    @OUTLIVING
    def all_reduce(self, group: Any = None) -> FeatureStats:
        """Every rank's state becomes that of all ranks' rows; counts may differ or be 0. -> self

        The ranks' means are gathered, each moves its second moment to the common mean, and one
        triangle (17 MB at d = 2048) is summed: a second call would count rows again. Same bits on
        every rank. Collective: every rank of `group` (None: all) calls it.
        """
        from torch import distributed

        self._known("reduce")
        self._flush()
        world = distributed.get_world_size(group)
        mine = torch.cat((self._mean.new_tensor([float(self._known("reduce"))]), self._mean))
        each = [torch.empty_like(mine) for _ in range(world)]
        distributed.all_gather(each, mine, group=group)
        counts = torch.stack([one[0] for one in each])
        total = counts.sum()
        if not bool(total):
            return self
        mean = (torch.stack([one[1:] for one in each]) * (counts / total)[:, None]).sum(0)
        way = self._mean - mean
        folded = triangle.folded(self._m2.addr(way, way, alpha=float(self._known("reduce"))))
        distributed.all_reduce(folded, group=group)
        self._m2, self._mean = triangle.unfolded(folded, self.dim), mean
        self._merged = int(total)
        return self

    def to(self, device: torch.device | str) -> FeatureStats:
        """Moves the state. -> self"""
        for name in ("_mean", "_m2", "_rows"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    @OUTLIVING
    def copy(self) -> FeatureStats:
        """An independent one of the same state."""
        other = FeatureStats.__new__(FeatureStats)
        other.__dict__.update(self.__dict__)
        for name in ("_mean", "_m2", "_rows"):
            setattr(other, name, getattr(self, name).clone())
        return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """npz with mu and sigma, which other tools read, n and provenance; whole or not at all.

        Raises ValueError below two rows.
        """
        provenance.write(path, *self.moments(), self.count, self.provenance)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: torch.device | str | None = None,
        mode: str = "exact",
        block: int | None = None,
    ) -> FeatureStats:
        """From an npz of `save`, or of another tool (mu and sigma): that one cannot go on or merge.

        Raises ValueError for a file that is none, with the keys or shapes it lacks.
        """
        mean, cov, n, origin = provenance.read(path)
        stats = cls(len(mean), device=device, mode=mode, block=block)
        stats.provenance, stats._merged = origin, n
        stats._mean.copy_(mean)
        stats._m2.copy_(cov.triu() if n is None else cov.triu() * (n - 1))
        return stats

    def state_dict(self) -> dict[str, Any]:
        """All of the state, to the bit, with the block begun; made of tensors, numbers and text."""
        return {
            "dim": self.dim, "mode": self.mode, "block": self.block, "merged": self._merged,
            "provenance": dict(vars(self.provenance)),
            "mean": self._mean.clone(), "m2": self._m2.clone(),
            "rows": self._rows[: self._held].clone(),
        }  # fmt: skip

    @OUTLIVING
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken. ValueError if dim, mode or block differ."""
        for name in ("dim", "mode", "block"):
            mine, theirs = getattr(self, name), state[name]
            if mine != theirs:
                raise ValueError(f"FeatureStats: expected a state of {name} {mine}, got {theirs}")
        self.provenance = Provenance(**state["provenance"])
        self._mean = state["mean"].to(self.device, copy=True)
        self._m2 = state["m2"].to(self.device, copy=True)
        self._merged, self._held = state["merged"], 0
        self._rows = torch.empty(0, self.dim, device=self.device)
        if len(state["rows"]):
            self._hold(state["rows"].to(self.device))
