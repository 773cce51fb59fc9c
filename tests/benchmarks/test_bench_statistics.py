"""The arithmetic of timing, on a clock that only moves when told to."""

from __future__ import annotations

import gc
import itertools
import statistics

import pytest
import torch

from ganops import _timing as timing


def test_quantiles_are_linear_between_neighbours():
    assert timing.quantile([4.0, 1.0, 2.0, 3.0], 0.5) == 2.5
    assert timing.quantile([5.0], 0.2) == 5.0
    assert timing.quantile([0.0, 10.0], 0.2) == pytest.approx(2.0)
    found = timing.spread([float(i) for i in range(11)])
    assert (found.median, found.low, found.high) == (5.0, 2.0, 8.0)
    with pytest.raises(ValueError, match="at least one value"):
        timing.quantile([], 0.5)


def test_a_ratio_is_taken_inside_each_round():
    # Three rounds on a machine that slows down tenfold: the ratio of medians would be 0.3 or 30.
    ours, stock = [1.0, 10.0, 10.0], [3.0, 3.0, 30.0]
    assert timing.paired(stock, ours).median == 3.0
    assert statistics.median(stock) / statistics.median(ours) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="got 1 and 2"):
        timing.paired([1.0], [1.0, 2.0])


def test_arms_alternate_and_take_turns_at_going_first(clock):
    arms = {name: clock.arm(name, cost) for name, cost in (("a", 1.0), ("b", 2.0), ("c", 3.0))}
    times = timing.interleave(arms, now=clock, rounds=3)
    assert times == {"a": [1.0] * 3, "b": [2.0] * 3, "c": [3.0] * 3}
    # each slice is one untimed and one timed call; every arm opens one of the three rounds
    slices = [name for name, _ in itertools.groupby(clock.log)]
    assert len(clock.log) == 18
    assert clock.log[0::6] == ["a", "b", "c"]
    assert slices == list("abcbcacab")


def test_the_untimed_call_is_not_counted(clock):
    costs = iter([100.0, 1.0, 1.0])

    def cold_then_warm() -> None:
        clock.time += next(costs)

    assert timing.slice_seconds(cold_then_warm, 2, clock) == 1.0


def test_short_arms_are_called_until_a_slice_is_long_enough(clock):
    calls, seconds = timing.calibrate(clock.arm("short", 1e-5), clock, target=2e-3)
    assert calls == pytest.approx(200, abs=1)
    assert seconds == pytest.approx(1e-5)
    assert timing.calibrate(clock.arm("long", 1.0), clock, target=2e-3)[0] == 1
    assert timing.calibrate(clock.arm("free", 0.0), clock, target=2e-3, limit=64)[0] == 64


def test_rounds_fit_the_budget_and_are_odd():
    assert timing.rounds_for(0.1, 2.0) == 21
    assert timing.rounds_for(10.0, 2.0) == 7  # never fewer than give a spread
    assert timing.rounds_for(1e-9, 2.0) == timing.rounds_for(0.0, 2.0) == 61
    assert all(timing.rounds_for(cost / 100, 2.0) % 2 for cost in range(1, 40))


def test_garbage_collection_is_off_inside_and_back_after_an_error():
    def fail() -> None:
        with timing.no_garbage_collection():
            assert not gc.isenabled()
            raise KeyError

    assert gc.isenabled()
    with pytest.raises(KeyError):
        fail()
    assert gc.isenabled()


def test_threads_are_set_inside_and_back_after_an_error():
    before = torch.get_num_threads()

    def fail() -> None:
        with timing.torch_threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_floors_move_the_bytes_they_are_asked_for(dtype):
    copied = timing.copy_arm(4096, dtype)()
    assert copied.nbytes == 2048
    assert copied.eq(1).all()
    assert timing.fill_arm(4096, dtype)().nbytes == 4096
