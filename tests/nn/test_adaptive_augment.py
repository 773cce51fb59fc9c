"""ADA's controller, in one process and in two."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from two_processes import meet, run_two

from ganops import nn, ops


def steps(augment, logits, n):
    for _ in range(n):
        augment.observe(logits)
        augment.update()
    return augment.p.item()


def test_it_rises_by_images_over_kimg():
    augment = nn.AdaptiveAugment()
    logits = torch.full((64, 1), 2.0)
    assert steps(augment, logits, 3) == 0
    assert steps(augment, logits, 1) == pytest.approx(64 * 4 / 500_000, rel=1e-12)
    assert steps(augment, -logits, 4) == 0  # down by the same, not below 0
    assert steps(augment, -logits, 4) == 0


def test_it_ends_at_one_after_500_kimg():
    augment = nn.AdaptiveAugment(batch=25_000)
    logits = torch.ones(2)
    assert steps(augment, logits, 16) == pytest.approx(0.8, rel=1e-12)
    assert steps(augment, logits, 8) == 1
    assert steps(augment, -logits, 4) == pytest.approx(0.8, rel=1e-12)


def test_at_the_target_it_stays():
    augment = nn.AdaptiveAugment(target=0.5, interval=2, kimg=1)
    steps(augment, torch.ones(10), 2)
    before = augment.p.item()
    assert before > 0
    assert steps(augment, torch.tensor([1.0, 1, 1, -1]), 2) == before
    assert steps(augment, torch.tensor([1.0, 1, -1, -1]), 2) < before


def test_the_mean_is_over_all_logits_of_the_interval():
    augment = nn.AdaptiveAugment(target=0.0, interval=2, kimg=1)
    augment.observe(torch.ones(3))
    augment.update()
    augment.observe(torch.full((4,), -9.0))
    augment.update()
    assert augment.p == 0
    augment.observe(torch.ones(6, 1, 4, 4))  # a patch critic: six images
    augment.update()
    augment.update()
    assert augment.p.item() == pytest.approx(6 / 1000)


def test_without_observations_it_stays():
    augment = nn.AdaptiveAugment(interval=1, batch=64)
    augment.update()
    assert augment.p == 0


def test_state_dict_round_trip_amid_an_interval():
    one, two = nn.AdaptiveAugment(kimg=1), nn.AdaptiveAugment(kimg=1)
    logits = torch.ones(7)
    steps(one, logits, 6)
    two.load_state_dict(one.state_dict())
    assert steps(one, logits, 2) == steps(two, logits, 2) == pytest.approx(2 * 4 * 7 / 1000)


def test_forward_is_the_op_at_p():
    augment = nn.AdaptiveAugment("ada-bg")
    x = torch.randn(4, 2, 6, 6)
    assert torch.equal(augment(x), x)
    augment.p.fill_(0.8)
    assert torch.equal(augment(x, seed=3, offset=2),
                       ops.ada_augment(x, "ada-bg", 0.8, seed=3, offset=2))  # fmt: skip
    assert not torch.equal(augment(x), x)


class Reads(TorchDispatchMode):
    """What brings a number to the host."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "_unique2"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_by_the_host():
    augment = nn.AdaptiveAugment("ada-bgcfnc", interval=1)
    augment.p.fill_(0.5)
    x = torch.randn(2, 3, 6, 6, requires_grad=True)
    with Reads() as reads:
        augment(x, seed=3).sum().backward()
        ops.ada_augment(x, "ada-bgcfnc", augment.p, seed=3, impl="reference")
        augment.observe(torch.ones(3))
        augment.update()
    assert reads.names == []
    with Reads() as reads:
        augment.p.item()
    assert reads.names == ["_local_scalar_dense"]


@pytest.mark.parametrize("change", [
    {"target": 2}, {"kimg": 0}, {"kimg": float("inf")}, {"interval": 0}, {"batch": 0},
    {"interval": 1.5}, {"interval": None}, {"policy": "bgc"},
])  # fmt: skip
def test_bad_arguments(change):
    with pytest.raises(ValueError, match="expected"):
        nn.AdaptiveAugment(**change)
    for logits in (torch.ones(0), torch.ones(2, dtype=torch.int64)):
        with pytest.raises(ValueError, match="expected floating logits"):
            nn.AdaptiveAugment().observe(logits)


def test_wrong_types():
    for change in ({"target": "a"}, {"kimg": None}):
        with pytest.raises(TypeError, match="as a number, got"):
            nn.AdaptiveAugment(**change)
    with pytest.raises(TypeError, match="logits as a tensor, got"):
        nn.AdaptiveAugment().observe([1.0])


def test_half_types_would_lose_the_steps():
    augment = nn.AdaptiveAugment().bfloat16()
    with pytest.raises(TypeError, match=r"p in float64 or float32.*bfloat16"):
        augment.update()


# ---- two processes -----------------------------------------------------------------------------

# Alone, each rank would go its own way: signs of the whole are above the target.
LOGITS = torch.tensor([1.0, 1, 1, 1, 1, 1, -1, 1])


def process(rank, folder):
    meet(rank, folder)
    augment = nn.AdaptiveAugment(kimg=1, interval=2, target=0.7)
    for _ in range(2):
        augment.observe(LOGITS[4 * rank :][:4])
        augment.update()
    torch.save(augment.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_count_together(tmp_path):
    found = run_two(__file__, tmp_path)
    alone = nn.AdaptiveAugment(kimg=1, interval=2, target=0.7)
    assert steps(alone, LOGITS, 2) == pytest.approx(16 / 1000)
    for state in found:
        assert torch.equal(state["p"], alone.p)


if __name__ == "__main__":
    process(int(sys.argv[1]), sys.argv[2])
