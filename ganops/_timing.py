"""Fair timing on a shared machine: arms interleaved round by round, compared inside a round.

A neighbour that slows a whole round slows every arm of it, so ratios taken within rounds hold
where absolute times do not. Each timed slice follows one untimed call of the same arm: what ran
before it, and so what it finds in the cache, is the same for all. Used by ``ganops bench`` and by
``benchmarks/``.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Arm = Callable[[], object]
Now = Callable[[], float]


@dataclass(frozen=True)
class Spread:
    """A median with its 20 % and 80 % quantiles."""

    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> Spread:
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def as_dict(self) -> dict[str, float]:
        return {"median": self.median, "low": self.low, "high": self.high}


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile, linear between neighbours."""
    if not values:
        raise ValueError("quantile: expected at least one value, got none")
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def spread(values: Sequence[float]) -> Spread:
    return Spread(quantile(values, 0.5), quantile(values, 0.2), quantile(values, 0.8))


def paired(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """Spread of the ratios taken round by round (not the ratio of two medians)."""
    if len(numerator) != len(denominator):
        raise ValueError(
            f"paired: expected as many rounds on both sides, got {len(numerator)} and "
            f"{len(denominator)}"
        )
    return spread([a / b for a, b in zip(numerator, denominator, strict=True)])


def repeat(arm: Arm, calls: int) -> None:
    for _ in range(calls):
        arm()


def slice_seconds(arm: Arm, calls: int, now: Now) -> float:
    """Seconds a call over `calls` calls, after one that is not timed."""
    arm()
    start = now()
    repeat(arm, calls)
    return (now() - start) / calls


def calibrate(arm: Arm, now: Now, target: float, *, limit: int = 10_000) -> tuple[int, float]:
    """(calls that fill `target` seconds, seconds a call): doubles until a slice is long enough."""
    calls = 1
    while True:
        seconds = slice_seconds(arm, calls, now)
        if seconds * calls >= target / 4 or calls >= limit:
            break
        calls = min(calls * 4, limit)
    wanted = limit if seconds <= 0 else math.ceil(target / seconds)
    return max(1, min(wanted, limit)), seconds


def rounds_for(seconds_a_round: float, budget: float, *, least: int = 7, most: int = 61) -> int:
    """An odd number of rounds within the budget, so that the median is one of them."""
    wanted = most if seconds_a_round <= 0 else int(budget / seconds_a_round)
    return max(least, min(wanted, most)) | 1


def one_round(
    arms: Mapping[str, Arm], calls: Mapping[str, int], now: Now, turn: int = 0
) -> dict[str, float]:
    """Time every arm once; `turn` rotates who goes first."""
    names = list(arms)
    shift = turn % len(names) if names else 0
    return {
        name: slice_seconds(arms[name], calls[name], now) for name in names[shift:] + names[:shift]
    }


def interleave(
    arms: Mapping[str, Arm],
    *,
    now: Now = time.process_time,
    rounds: int = 21,
    calls: Mapping[str, int] | None = None,
) -> dict[str, list[float]]:
    """Seconds a call of each arm in each round."""
    counts = calls if calls is not None else dict.fromkeys(arms, 1)
    times: dict[str, list[float]] = {name: [] for name in arms}
    with no_garbage_collection():
        for turn in range(rounds):
            for name, seconds in one_round(arms, counts, now, turn).items():
                times[name].append(seconds)
    return times


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a slice would be charged to whichever arm it hit."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def copy_arm(
    nbytes: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Arm:
    """A copy that moves `nbytes` in all: half of them read, half of them written."""
    source = torch.ones(max(1, nbytes // 2 // dtype.itemsize), dtype=dtype, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def fill_arm(
    nbytes: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Arm:
    """A fill that writes `nbytes`: the floor of an op that reads nothing."""
    target = torch.empty(max(1, nbytes // dtype.itemsize), dtype=dtype, device=device)
    return lambda: target.fill_(1.0)
