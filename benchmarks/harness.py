"""What a benchmark is: a case, its arms, its floor, and how one row of the results is measured.

pytest-benchmark times our arm, in pedantic mode. Its `setup` hook, called before every round and
not timed by it, runs one round of every other arm with the same clock: so all arms are interleaved,
and every ratio is taken between neighbours in time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from device import Clock, CudaClock, Preemptions, device_facts

from ganops._timing import (
    Arm,
    calibrate,
    copy_arm,
    fill_arm,
    no_garbage_collection,
    one_round,
    paired,
    repeat,
    rounds_for,
    spread,
    torch_threads,
)

OURS = "ganops"
FLOOR = "floor"
MS = 1e3


@dataclass(frozen=True)
class Size:
    """A tensor's shape, dtype and memory format, written "64x3x32x32 bfloat16 channels_last"."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    @classmethod
    def parse(cls, text: str) -> Size:
        shape, *words = text.split()
        channels_last = "channels_last" in words
        names = [word for word in words if word != "channels_last"]
        dtype = getattr(torch, names[0] if names else "float32", None)
        if len(names) > 1 or not isinstance(dtype, torch.dtype):
            raise ValueError(f"size: expected 'SHAPE [DTYPE] [channels_last]', got {text!r}")
        return cls(tuple(int(side) for side in shape.split("x")), dtype, channels_last)

    def __str__(self) -> str:
        words = ["x".join(map(str, self.shape)), str(self.dtype).removeprefix("torch.")]
        return " ".join(words + ["channels_last"] * self.channels_last)

    @property
    def count(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    def randn(self, seed: int, device: str, *, requires_grad: bool = False) -> torch.Tensor:
        values = torch.randn(self.shape, generator=torch.Generator().manual_seed(seed))
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        moved = values.to(device=device, dtype=self.dtype, memory_format=layout)
        return moved.requires_grad_(requires_grad)


@dataclass(frozen=True)
class Floor:
    """The least time a row could take: `scale` times a measured arm, interleaved too."""

    label: str
    arm: Arm
    scale: float = 1.0

    @classmethod
    def copy(cls, nbytes: int, like: Size, device: str) -> Floor:
        return cls(f"copy moving {nbytes / 1e6:.4g} MB", copy_arm(nbytes, like.dtype, device))

    @classmethod
    def fill(cls, nbytes: int, like: Size, device: str) -> Floor:
        return cls(f"fill writing {nbytes / 1e6:.4g} MB", fill_arm(nbytes, like.dtype, device))


@dataclass
class Case:
    """One row: our arm, the forms of stock PyTorch (the fastest is the baseline), other peers."""

    op: str
    row: str
    ours: Arm
    stock: Mapping[str, Arm]
    floor: Floor
    nbytes: int
    flops: int
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    peers: Mapping[str, Arm] = field(default_factory=dict)  # must work
    optional: Mapping[str, Arm] = field(default_factory=dict)  # may be missing, with the reason
    tolerance: float | None = None  # relative, in norm; None: by dtype
    comparable: bool = True  # False where the arms are not meant to give the same numbers
    headline: bool = False  # shown in the README
    note: str = ""


def reason(error: BaseException) -> str:
    """The first line of an error, without the paths of this machine."""
    text = str(error).strip().splitlines()
    first = re.sub(r"(?<!\w)(/[\w.+-]+){2,}", "<path>", text[0]) if text else "no message"
    return f"{type(error).__name__}: {first[:160]}"


def outputs(arm: Arm) -> list[torch.Tensor | None]:
    result = arm()
    found = result if isinstance(result, (tuple, list)) else [result]
    return [item.detach() if isinstance(item, torch.Tensor) else None for item in found]


def disagreement(case: Case, arm: Arm, expected: list[torch.Tensor | None]) -> str | None:
    """Why an arm's numbers are not those of stock PyTorch, or None. A missing gradient is zeros."""
    got = outputs(arm)
    if not case.comparable:
        return None
    if len(got) != len(expected):
        return f"expected {len(expected)} outputs, got {len(got)}"
    limit = case.tolerance or {torch.float64: 1e-10, torch.float32: 1e-4}.get(case.dtype, 3e-2)
    zero = torch.zeros((), dtype=torch.float64, device=case.device)
    for index, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
        a, b = (zero if each is None else each.double() for each in (mine, theirs))
        if mine is not None and theirs is not None and a.shape != b.shape:
            return f"output {index}: expected shape {tuple(b.shape)}, got {tuple(a.shape)}"
        error = float((a - b).norm() / b.norm().clamp_min(1e-30))
        if not error <= limit:  # also when it is NaN
            return f"output {index} is off by {error:.2g} in norm (limit {limit:g})"
    return None


def checked_peers(case: Case, *, quick: bool) -> tuple[dict[str, Arm], dict[str, str]]:
    """Run and compare every arm once: (all but ours, why optional ones among them cannot serve)."""
    first, *others = case.stock
    expected = outputs(case.stock[first])
    must = {OURS: case.ours, **{name: case.stock[name] for name in others}, **case.peers}
    for name, arm in must.items():
        wrong = disagreement(case, arm, expected)
        if wrong:
            raise AssertionError(f"{case.op}, {case.row}: {name}: {wrong}")
    peers, missing = {**case.stock, **case.peers}, {}
    for name, arm in case.optional.items():
        if quick:
            missing[name] = "not compiled at --sizes tiny"
            continue
        try:
            wrong = disagreement(case, arm, expected)
        except Exception as error:  # a compiler may fail in any way; the row says how
            wrong = reason(error)
        if wrong:
            missing[name] = wrong
        else:
            peers[name] = arm
    return peers, missing


def measure(
    case: Case,
    clock: Clock,
    benchmark: Any,
    *,
    quick: bool,
    budget: float = 2.0,
    slice_target: float = 2e-3,
) -> dict[str, Any] | None:
    """Time a case with pytest-benchmark's fixture; one row of the results (None if disabled).

    `quick` checks that every arm runs and agrees, with too few rounds for a number to mean much.
    """
    with torch_threads(clock.threads):
        peers, missing = checked_peers(case, quick=quick)
        peers[FLOOR] = case.floor.arm
        calls = dict.fromkeys([*peers, OURS], 1)
        rounds = 3
        if not quick:
            cost = 0.0
            for name, arm in {**peers, OURS: case.ours}.items():
                calls[name], seconds = calibrate(arm, clock.now, slice_target)
                cost += seconds * (calls[name] + 1)
            rounds = rounds_for(cost, budget)
        history: list[dict[str, float]] = []
        busy = Preemptions()

        def peers_first() -> None:
            if isinstance(clock.now, CudaClock):
                clock.now.restart()
            history.append(one_round(peers, calls, clock.now, len(history)))
            case.ours()  # every timed slice follows an untimed call

        with no_garbage_collection():
            benchmark.pedantic(
                repeat, args=(case.ours, calls[OURS]), setup=peers_first, rounds=rounds
            )
        preempted = busy.per_second()
    if benchmark.stats is None:
        return None
    ours = [seconds / calls[OURS] for seconds in benchmark.stats.stats.data]
    times = {name: [turn[name] for turn in history] for name in peers}
    row = summary(case, clock, {**times, OURS: ours}, calls, missing)
    row["preempted_per_s"] = preempted
    if case.device == "cuda":
        for name, arm in {**peers, OURS: case.ours}.items():
            if name != FLOOR:
                row["arms"][name].update(device_facts(arm))
    benchmark.extra_info.update(row)
    return row


def summary(
    case: Case,
    clock: Clock,
    times: Mapping[str, list[float]],
    calls: Mapping[str, int],
    missing: Mapping[str, str],
) -> dict[str, Any]:
    """One row of the results from the seconds of each arm in each round."""
    ours = times[OURS]
    baseline = min(case.stock, key=lambda name: spread(times[name]).median)
    floor = [seconds * case.floor.scale for seconds in times[FLOOR]]
    arms = {
        name: {
            "ms": spread(seconds).scaled(MS).as_dict(),
            "over_ours": paired(seconds, ours).as_dict(),
            "calls": calls[name],
        }
        for name, seconds in times.items()
        if name != FLOOR
    }
    return {
        "op": case.op,
        "row": case.row,
        "clock": clock.name,
        "threads": clock.threads,
        "rounds": len(ours),
        "baseline": baseline,
        "speedup": paired(times[baseline], ours).as_dict(),
        "floor": {
            "label": case.floor.label,
            "ms": spread(floor).scaled(MS).as_dict(),
            "distance": paired(ours, floor).as_dict(),
        },
        "bytes": case.nbytes,
        "flops": case.flops,
        "arms": arms,
        "missing": dict(missing),
        "headline": case.headline,
        "note": case.note,
    }
