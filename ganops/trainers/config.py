"""Settings of a run, apart from the method's own."""

from __future__ import annotations

import dataclasses
from typing import Literal

from ganops.methods.config import check_range

# What a resumed run may change freely: how long, how often it reports, where it computes.
FREE_TO_CHANGE = frozenset(
    {
        "train.steps", "train.log_every", "train.sample_every", "train.checkpoint_every",
        "train.eval_every", "train.keep", "train.device",
    }
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long to train, on what, and what to write down. An interval of 0 means never."""

    data: str = "digits"
    """Name of a data set, a folder of images, a .zip with dataset.json, or an IDX file."""
    steps: int = 10_000
    """Generator updates."""
    batch: int = 64
    """Global batch: images per draw, over all processes."""
    res: int | None = None
    """Square side to crop and resize images to; default: as they are."""
    seed: int = 0
    """All randomness follows from it."""
    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto takes a GPU if there is one."""
    log_every: int = 50
    """Steps between log lines (the only host synchronisation of an ordinary step)."""
    sample_every: int = 500
    """Steps between sample grids."""
    checkpoint_every: int = 500
    """Steps between checkpoints; one is always written at the start and at the end."""
    eval_every: int = 0
    """Steps between quality measurements in the log (needs labelled data)."""
    keep: int = 3
    """Newest checkpoints to keep; 0 keeps all."""
    nan: Literal["error", "skip", "rollback"] = "error"
    """Non-finite loss: stop with a dump; skip the update; or go back to the last checkpoint."""
    nan_limit: int = 10
    """Skips in a row, or rollbacks in a run, before giving up."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "log_every", "nan_limit"):
            check_range(name, getattr(self, name), 1)
        for name in ("sample_every", "checkpoint_every", "eval_every", "keep"):
            check_range(name, getattr(self, name), 0)
        check_range("seed", self.seed, 0, 2**63 - 1)
        if self.res is not None:
            check_range("res", self.res, 1)
