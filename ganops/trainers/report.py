"""What a person sees while a run goes: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from ganops.data.extras import require


def pace(seconds_per_kimg: float, values: dict[str, float]) -> str:
    shown = "  ".join(f"{k.split('/', 1)[-1]} {v:.4g}" for k, v in values.items())
    return f"{seconds_per_kimg:.2f} s/kimg  {shown}"


class Reporter:
    """``with Reporter(total, ...) as r: r.advance(step); r.show(step, s_per_kimg, values)``."""

    def __init__(self, total: int, start: int, *, title: str, quiet: bool = False) -> None:
        self.total, self.title, self.quiet = total, title, quiet
        self._bar: Any = None
        if not quiet and sys.stderr.isatty():
            progress = require("rich.progress", "the progress bar", "rich")
            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(bar_width=24),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[pace]}"),
                console=require("rich.console", "the progress bar", "rich").Console(stderr=True),
            )
            self._task = self._bar.add_task(title, total=total, completed=start, pace="")

    def __enter__(self) -> Reporter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def show(self, step: int, seconds_per_kimg: float, left: float, values: dict[str, Any]) -> None:
        """A log line's worth of numbers; `left`: estimated seconds to the end."""
        text = pace(seconds_per_kimg, values)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, pace=text)
        elif not self.quiet:
            eta = f"{int(left) // 60}:{int(left) % 60:02d}"
            print(f"{self.title}  step {step}/{self.total}  eta {eta}  {text}", file=sys.stderr)

    def say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False)
        elif not self.quiet:
            print(text, file=sys.stderr)
