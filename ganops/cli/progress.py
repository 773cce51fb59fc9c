"""Images per second: a bar on a terminal, a line every few seconds elsewhere, on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any

from ganops.data.extras import require

EVERY = 10.0  # seconds between lines


class Images:
    """``with Images(title, total) as show: show(done)``. Nothing if `quiet`."""

    def __init__(self, title: str, total: int, *, quiet: bool = False) -> None:
        self.title, self.total, self.quiet = title, total, quiet
        self._start = self._said = time.perf_counter()
        self._bar: Any = None
        if not quiet and sys.stderr.isatty():
            progress = require("rich.progress", "the progress bar", "rich")
            self._bar = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(bar_width=24),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[pace]}"),
                progress.TimeRemainingColumn(),
                console=require("rich.console", "the progress bar", "rich").Console(stderr=True),
            )
            self._task = self._bar.add_task(title, total=total, pace="")

    def __enter__(self) -> Images:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def __call__(self, done: int) -> None:
        pace = f"{done / max(self.seconds, 1e-9):.1f} img/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, pace=pace)
        elif not self.quiet and time.perf_counter() - self._said >= EVERY:
            self._said = time.perf_counter()
            print(f"{self.title}  {done}/{self.total}  {pace}", file=sys.stderr)
