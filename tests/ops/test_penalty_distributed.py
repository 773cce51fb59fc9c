"""Penalties under DistributedDataParallel and FSDP2: two gloo processes against one.

The recipes of docs/second_order.md. This file is also what the two processes run; each scenario
makes three optimiser steps on its half of the batch, and says how far its gradients were from those
of one process on the whole batch.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager

import critics
import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from two_processes import meet, run_two

from ganops import ops

BATCH = 4
PENALTIES = {
    "gp": lambda critic, real, fake, alpha, engine: 10 * ops.gradient_penalty(
        critic, real, fake, alpha=alpha, engine=engine),
    "r1": lambda critic, real, fake, alpha, engine: ops.r1_penalty(critic, real, engine=engine),
}  # fmt: skip


def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, BATCH, 3, 12, 12, generator=generator, dtype=torch.float64)
    return (*images, torch.linspace(0.1, 0.9, BATCH, dtype=torch.float64))


def wgan_loss(critic, real, fake):
    return critic(fake).mean() - critic(real).mean()


def no_loss(critic, real, fake):
    """For a penalty in a backward of its own: the wrapper must see one forward in it."""
    return 0 * critic(real).sum()


# ---- the recipes ------------------------------------------------------------------------------


class DDP:
    """Scores by the wrapper, the penalty by its module, one backward."""

    def __init__(self, critic, penalise="module", **how):
        self.net, self.parameters = DistributedDataParallel(critic, **how), [*critic.parameters()]
        self.penalised = self.net.module if penalise == "module" else self.net

    def total(self, loss, penalty, real, fake, alpha, engine):
        value = loss(self.net, real, fake)
        return value + penalty(self.penalised, real, fake, alpha, engine)


class FSDP:
    """Scores first; the unsharded weights are kept for the penalty's call and no longer."""

    def __init__(self, critic, layers, for_ever=False):
        self.for_ever = for_ever
        mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in critic if layers else ():
            if any(True for _ in layer.parameters()):
                fully_shard(layer, mesh=mesh)
        self.net = fully_shard(critic, mesh=mesh)
        self.parameters = [*critic.parameters()]

    @contextmanager
    def weights_kept(self):
        self.net.set_reshard_after_backward(False)
        try:
            yield
        finally:
            self.net.set_reshard_after_backward(not self.for_ever)

    def total(self, loss, penalty, real, fake, alpha, engine):
        value = loss(self.net, real, fake)
        with self.weights_kept():
            value = value + penalty(self.net, real, fake, alpha, engine)
        return value


SCENARIOS = {
    **{f"ddp {mode} {critic} {engine} {penalty} {loss.__name__}":
       (lambda c, how=how: DDP(c, **how), critic, engine, penalty, loss)
       for mode, how in {"default": {}, "unused": {"find_unused_parameters": True},
                         "static": {"static_graph": True}}.items()
       for critic, engine, penalty, loss in [
           ("dcgan", "auto", "gp", wgan_loss), ("dcgan", "autograd", "gp", wgan_loss),
           ("group-norm", "auto", "r1", wgan_loss), ("dcgan", "auto", "gp", no_loss)]},
    "ddp wrapper dcgan auto gp wgan_loss":
        (lambda c: DDP(c, penalise="wrapper"), "dcgan", "auto", "gp", wgan_loss),
    **{f"fsdp {'layers' if layers else 'whole'} {critic} {engine} {penalty} {loss.__name__}":
       (lambda c, layers=layers: FSDP(c, layers), critic, engine, penalty, loss)
       for layers in (False, True)
       for critic, engine, penalty, loss in [
           ("dcgan", "auto", "gp", wgan_loss), ("dcgan", "autograd", "gp", wgan_loss),
           ("group-norm", "auto", "r1", wgan_loss), ("dcgan", "auto", "gp", no_loss)]},
}  # fmt: skip


# What the page warns of: torch 2.13 gives these wrong gradients without an error.
HAZARDS = {
    "weights kept for ever": lambda c: FSDP(c, layers=False, for_ever=True),
}


# ---- one process of the two -------------------------------------------------------------------


def whole(grad):
    return grad.full_tensor() if hasattr(grad, "full_tensor") else grad


def distance(ours, expected):
    """Of all gradients as one vector, relative; None counts as zeros."""
    difference, size = 0.0, 0.0
    for p, q in zip(ours, expected):
        g = torch.zeros_like(q) if p.grad is None else whole(p.grad)
        e = torch.zeros_like(q) if q.grad is None else q.grad
        difference, size = difference + (g - e).square().sum(), size + e.square().sum()
    return (difference / size).sqrt().item()


def run(make, critic, engine, penalty, loss):
    """The largest error of three steps."""
    ours, single = make(critics.make(critic)), critics.make(critic)
    theirs = [*single.parameters()]
    images = batch()
    share = BATCH // dist.get_world_size()
    mine = [t[dist.get_rank() * share :][:share] for t in images]
    optimizers = [torch.optim.SGD(ps, lr=1e-2) for ps in (ours.parameters, theirs)]
    worst = 0.0
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.zero_grad()
        ours.total(loss, PENALTIES[penalty], *mine, engine).backward()
        value = loss(single, *images[:2]) + PENALTIES[penalty](single, *images, "autograd")
        value.backward()
        worst = max(worst, distance(ours.parameters, theirs))
        for optimizer in optimizers:
            optimizer.step()
    return worst


def static_wrapper(engine):
    """What is said of a penalty of a wrapper whose graph is static: by torch alone, it is wrong."""
    net = DDP(critics.make("dcgan"), penalise="wrapper", static_graph=True)
    try:
        net.total(wgan_loss, PENALTIES["gp"], *(t[:2] for t in batch()), engine).backward()
    except RuntimeError as error:
        return str(error)
    return "nothing"


def penalty_alone():
    """What torch says to a penalty in its own backward through the wrapper, biases unreached."""
    net = DistributedDataParallel(critics.make("dcgan"))
    real = batch()[0][:2]
    try:
        for _ in range(2):
            ops.r1_penalty(net, real).backward()
    except RuntimeError as error:
        return str(error)
    return "nothing"


def process(rank, folder):
    meet(rank, folder)
    found = {name: run(*scenario) for name, scenario in SCENARIOS.items()}
    found |= {name: run(make, "dcgan", "auto", "gp", wgan_loss) for name, make in HAZARDS.items()}
    found["static"] = [static_wrapper(engine) for engine in ("auto", "autograd")]
    found["alone"] = penalty_alone()
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


# ---- the tests --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run_two(__file__, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_processes_equal_one(found, name):
    assert max(rank[name] for rank in found) < 1e-12


@pytest.mark.parametrize("name", HAZARDS)
def test_what_the_page_warns_of(found, name):
    """Should one be right or refused one day, mend the page."""
    assert min(rank[name] for rank in found) > 1e-3


def test_a_penalty_alone_is_told_that_parameters_are_missing(found):
    """In the wrapper's own words, at the next forward: hence no_loss above."""
    assert all("Expected to have finished reduction" in rank["alone"] for rank in found)


if __name__ == "__main__":
    process(int(sys.argv[1]), sys.argv[2])


def test_a_static_wrapper_is_refused(found):
    for rank in found:
        for said in rank["static"]:
            assert "Pass its .module" in said
