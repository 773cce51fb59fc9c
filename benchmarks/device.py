"""Clocks for the CPU and for CUDA, and what only a GPU can say: launches and peak memory."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from typing import Any

import torch

from ganops._timing import Arm, Now

MS = 1e3


@dataclass(frozen=True)
class Clock:
    name: str
    now: Now
    threads: int
    meaning: str


def reached() -> Any:
    """An event that everything launched so far has passed."""
    event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    event.synchronize()
    return event


class Preemptions:
    """How often the system took a core away from us: a few a second alone, hundreds with a rival.

    Wall time of several threads then measures the scheduler: they wait for the one that lost its
    core.
    """

    def __init__(self) -> None:
        self._start, self._count = time.perf_counter(), self._so_far()

    @staticmethod
    def _so_far() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw

    def per_second(self) -> float:
        return (self._so_far() - self._count) / (time.perf_counter() - self._start)


class CudaClock:
    """Seconds on the device's own clock, read through an event that has been waited for."""

    __name__ = "cuda_events"

    def __init__(self) -> None:
        self._origin: Any = None

    def restart(self) -> None:
        """elapsed_time is a 32-bit number of ms: start near the slices, or lose their digits."""
        self._origin = reached()

    def __call__(self) -> float:
        if self._origin is None:
            self.restart()
        return float(self._origin.elapsed_time(reached())) / MS


def clocks(device: str) -> list[Clock]:
    if device == "cuda":
        return [Clock("cuda", CudaClock(), torch.get_num_threads(), "device time, CUDA events")]
    everyone = torch.get_num_threads()
    return [
        Clock("cpu-1", time.process_time, 1, "CPU time, one thread"),
        Clock("wall", time.perf_counter, everyone, f"wall time, {everyone} threads"),
    ]


def device_facts(arm: Arm) -> dict[str, int]:
    """Launches (kernels, copies and fills on the device) and peak extra memory of one call."""
    arm()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        arm()
        torch.cuda.synchronize()
    launches = sum(event.device_type.name == "CUDA" for event in profile.events())
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    arm()
    torch.cuda.synchronize()
    return {"launches": launches, "peak_bytes": torch.cuda.max_memory_allocated() - before}
