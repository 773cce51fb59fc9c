"""How a case becomes a row: interleaving, baselines, agreement, and what is missing."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from device import Clock
from harness import Case, Floor, Size, measure, reason


class FakeBenchmark:
    """pytest-benchmark's pedantic mode as far as `measure` relies on it."""

    def __init__(self, clock, moods=(), enabled=True):
        self.clock, self.moods, self.enabled = clock, moods, enabled
        self.extra_info, self.stats = {}, None

    def pedantic(self, target, args, setup, rounds):
        data = []
        for turn in range(rounds):
            self.clock.slowdown = self.moods[turn % len(self.moods)] if self.moods else 1.0
            setup()
            start = self.clock()
            target(*args)
            data.append(self.clock() - start)
        if self.enabled:
            self.stats = SimpleNamespace(stats=SimpleNamespace(data=data))


ONE = torch.ones(3)


def a_case(clock, **changes):
    settings = {
        "op": "op",
        "row": "3 float32",
        "ours": clock.arm("ours", 2.0, ONE),
        "stock": {"slow": clock.arm("slow", 8.0, ONE), "lean": clock.arm("lean", 6.0, ONE)},
        "floor": Floor("half a copy", clock.arm("floor", 2.0), scale=0.5),
        "nbytes": 24,
        "flops": 3,
    }
    return Case(**{**settings, **changes})


def run(case, clock, **changes):
    settings = {"quick": False, "budget": 1.0, **changes}
    benchmark = settings.pop("benchmark", FakeBenchmark(clock))
    return measure(case, Clock("fake", clock, 1, "fake"), benchmark, **settings)


def test_ratios_survive_a_machine_that_slows_down_tenfold(clock):
    benchmark = FakeBenchmark(clock, moods=(1.0, 10.0, 3.0))
    row = run(a_case(clock), clock, benchmark=benchmark)
    assert row["speedup"] == {"median": 3.0, "low": 3.0, "high": 3.0}
    assert row["floor"]["distance"]["median"] == 2.0  # ours 2 over half of a copy of 2
    assert row["arms"]["ganops"]["ms"]["high"] > 5 * row["arms"]["ganops"]["ms"]["low"]
    assert benchmark.extra_info == row


def test_the_fastest_stock_form_is_the_baseline_and_all_forms_are_kept(clock):
    row = run(a_case(clock, peers={"reference": clock.arm("reference", 20.0, ONE)}), clock)
    assert row["baseline"] == "lean"
    assert row["arms"]["slow"]["over_ours"]["median"] == 4.0
    assert row["arms"]["reference"]["over_ours"]["median"] == 10.0
    assert set(row["arms"]) == {"slow", "lean", "reference", "ganops"}


def test_a_losing_row_is_recorded_as_one(clock):
    row = run(a_case(clock, ours=clock.arm("ours", 12.0, ONE)), clock)
    assert row["speedup"]["median"] == 0.5


def test_every_round_times_every_arm(clock):
    row = run(a_case(clock), clock, quick=True)
    checks = ["slow", "ours", "lean"]  # the agreement check comes first
    first = ["slow", "slow", "lean", "lean", "floor", "floor", "ours", "ours"]
    second = ["lean", "lean", "floor", "floor", "slow", "slow", "ours", "ours"]
    assert clock.log[:19] == checks + first + second
    assert row["rounds"] == 3


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (ONE * 1.1, "off by 0.1 in norm"),
        (ONE * math.nan, "off by nan"),
        ((ONE, ONE), "expected 1 outputs, got 2"),
        (ONE[:1], r"expected shape \(3,\), got \(1,\)"),
        (None, "off by 1 in norm"),
    ],
)
def test_our_arm_must_give_stock_numbers(clock, result, said):
    case = a_case(clock, ours=clock.arm("ours", 1.0, result))
    with pytest.raises(AssertionError, match=f"ganops: .*{said}"):
        run(case, clock)
    if isinstance(result, torch.Tensor):
        case.comparable = False
        assert run(case, clock) is not None


def test_a_missing_gradient_counts_as_zeros(clock):
    zeros = {"stock": clock.arm("stock", 1.0, (ONE, torch.zeros(3)))}
    assert run(a_case(clock, stock=zeros, ours=clock.arm("ours", 1.0, (ONE, None))), clock)


def test_an_optional_arm_that_fails_or_disagrees_is_missing_with_the_reason(clock):
    def broken():
        raise RuntimeError("no compiler in /usr/some/place/c++\nand a long trace")

    optional = {"torch.compile": broken, "wrong": clock.arm("wrong", 1.0, ONE * 2)}
    row = run(a_case(clock, optional=optional), clock)
    assert row["missing"] == {
        "torch.compile": "RuntimeError: no compiler in <path>",
        "wrong": "output 0 is off by 1 in norm (limit 0.0001)",
    }
    assert not {"torch.compile", "wrong"} & set(row["arms"])


def test_nothing_is_recorded_when_pytest_benchmark_is_disabled(clock):
    assert run(a_case(clock), clock, benchmark=FakeBenchmark(clock, enabled=False)) is None


def test_reasons_hold_no_paths():
    assert reason(OSError("cannot open /home/someone/.cache/x: denied")) == (
        "OSError: cannot open <path>: denied"
    )
    assert reason(ValueError()) == "ValueError: no message"


def test_sizes_are_read_as_they_are_written():
    for text in ("64x3x8x8 float32", "2x3x4x4 bfloat16 channels_last", "7 float64"):
        assert str(Size.parse(text)) == text
    size = Size.parse("2x3x4x5 bfloat16 channels_last")
    assert (size.count, size.nbytes) == (120, 240)
    assert size.randn(0, "cpu").is_contiguous(memory_format=torch.channels_last)
    assert str(Size.parse("2x3")) == "2x3 float32"
    for text in ("2x3 float33", "2x3 float32 float32", "2x3 tensor"):
        with pytest.raises(ValueError, match="expected 'SHAPE"):
            Size.parse(text)
