"""The benchmarks are no package: their folder goes on the path, as when pytest runs them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


class FakeClock:
    """Time passes only when an arm spends it; `slowdown` is the machine's mood in this round."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slowdown = 1.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.time

    def arm(self, name: str, cost: float, result: Any = None) -> Callable[[], Any]:
        def spend() -> Any:
            self.log.append(name)
            self.time += cost * self.slowdown
            return result

        return spend


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def root() -> Path:
    return ROOT


def spread(median: float) -> dict[str, float]:
    return {"median": median, "low": median * 0.9, "high": median * 1.05}


def a_row(
    op: str, row: str, speedup: float, compiled: float | None = None, **more: Any
) -> dict[str, Any]:
    arms = {
        "stock": {"ms": spread(2.0 * speedup), "over_ours": spread(speedup), "calls": 1},
        "ganops": {"ms": spread(2.0), "over_ours": spread(1.0), "calls": 1},
    }
    if compiled is not None:
        arms["torch.compile"] = {**arms["stock"], "over_ours": spread(compiled)}
    floor = {"label": "copy moving 1 MB", "ms": spread(1.0), "distance": spread(2.0)}
    found = {
        "op": op, "row": row, "clock": "cpu-1", "threads": 1, "rounds": 11, "baseline": "stock",
        "speedup": spread(speedup), "floor": floor, "bytes": 10, "flops": 4, "arms": arms,
        "missing": {}, "preempted_per_s": 3.0, "headline": True, "note": "",
    }  # fmt: skip
    return {**found, **more}


def a_run(allocator: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "device": "cpu", "allocator": allocator, "sizes": "default", "impl": "auto",
        "served_by": {"bias_act": "native"}, "date": "2026-01-02", "revision": None,
        "versions": {"torch": "2.13.0", "cuda": None}, "load_average": [0.1, 0.2],
        "clocks": {"cpu-1": "CPU time, one thread"}, "rows": rows,
        "limits": {"cpu-1": {"copy, 1 MiB moved, GB/s": 80.0}},
    }  # fmt: skip


MACHINE = {
    "slug": "some-cpu-avx2-2c", "cpu": "Some CPU", "architecture": "x86_64", "cores": 2,
    "ram_gib": 8, "isa": ["avx2"], "torch_isa": "AVX2", "gpu": None,
}  # fmt: skip


@pytest.fixture
def document() -> dict[str, Any]:
    """Two runs: one op wins; the other loses, plainly by default, by a hair when retained."""
    absent = {"torch.compile": "InductorError: no compiler"}
    rows = [
        a_row("fast_op", "64x64", 5.0, compiled=0.7),
        a_row("slow_op", "8x8", 0.5, missing=absent, note="why"),
    ]
    kept = [a_row("fast_op", "64x64", 4.0, compiled=0.7), a_row("slow_op", "8x8", 0.98)]
    rows[0]["arms"]["lean"] = rows[0]["arms"]["stock"]
    rows[0]["arms"]["stock"] = {**rows[0]["arms"]["lean"], "over_ours": spread(9.0)}
    rows[0]["baseline"] = "lean"  # faster than stock as written
    runs = [a_run("default", rows), a_run("retained", kept)]
    return copy.deepcopy({"schema": 1, "machine": MACHINE, "runs": runs})
