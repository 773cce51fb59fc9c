"""nn.ShardedBank: two gloo processes with 2 and 3 of K = 5 discriminators, against one process.

This file is also what the two processes run.
"""

from __future__ import annotations

import re
import sys

import pytest
import torch
import torch.distributed as dist
from banks import images, normed, rp, spectral
from torch import nn
from two_processes import meet, run_two

from ganops import losses, ops
from ganops.nn import DiscriminatorBank, ShardedBank

K, B = 5, 4
TIGHT = {"rtol": 1e-9, "atol": 1e-12}
MAKES = {"rp": rp, "batch norm": normed(nn.BatchNorm2d), "spectral norm": spectral}
HOW = [{}, {"chunk": 2, "weighting": "softmax", "alpha": 3.0}, {"weighting": "hypervolume"}]


def penalty(part, real, fake):
    alpha = torch.full(real.shape[:2], 0.3)
    return 10 * ops.gradient_penalty(part, real, fake, alpha=alpha, per_discriminator=True)


PENALTIES = {"rp": penalty}


def steps(bank, how, plus):
    """A step of D and one of G. -> what all ranks must agree on, and its members' own."""
    torch.manual_seed(1)
    generator, latents = nn.Linear(5, 256), torch.randn(B, 5)

    def views(x):
        return torch.stack([x * (k + 1) for k in bank.members])

    optimizer = torch.optim.Adam(bank.parameters(), 1e-2)
    chunk = how.get("chunk")
    real, fake = images(1, 1)[0], generator(latents).unflatten(1, (1, 16, 16))
    d = losses.bank_d_backward(bank, views(real), views(fake), penalty=plus, chunk=chunk)
    own = {f"grad {name}": p.grad.clone() for name, p in bank.named_parameters()}
    optimizer.step()
    fake.retain_grad()
    g = losses.bank_g_backward(bank, views(fake), images=fake, **how)
    own |= {name: t.clone() for name, t in bank.state_dict().items()}
    everyones = {"d": d, "g": g, "images": fake.grad, "generator": generator.weight.grad}
    return everyones, own


def said(call):
    try:
        call()
    except ValueError as error:
        return str(error)
    return "nothing"


def exchange(bank, rank):
    """Discriminator 4 of rank 1 goes over discriminator 0 of rank 0."""
    sent = [bank.member_state_dict(4) if rank else None]
    dist.broadcast_object_list(sent, src=1)
    if not rank:
        bank.load_member_state_dict(0, sent[0])
        return bank.member_state_dict(-K)
    return bank.unbind(4).state_dict()


def mistakes(bank, rank):
    x = torch.randn(B, 1, 16, 16, generator=torch.Generator().manual_seed(rank)).requires_grad_()
    v = x.expand(len(bank.members), *x.shape)
    same = torch.ones_like(x).requires_grad_()
    g = losses.bank_g_backward
    alone = dist.new_group([0])
    return {
        "few": said(lambda: ShardedBank(rp, 1, seed=0)),
        "seed": said(lambda: ShardedBank(rp, K, seed=None)),
        "seeds": said(lambda: ShardedBank(rp, K, seed=[1, 2])),
        "group": said(lambda: ShardedBank(rp, K, seed=0, group=alone)) if rank else "",
        "index": said(lambda: bank.unbind(0 if rank else 2)),
        "range": said(lambda: bank.unbind(5)),
        "different": said(lambda: g(bank, v, images=x)),
        "sizes": said(lambda: g(bank, v, images=same[rank:])),
        "no images": said(lambda: g(bank, v)),
        "no graph": said(lambda: g(bank, v, images=x.detach())),
        "other images": said(lambda: g(bank, v, images=same)),
    }


def main(rank, folder):
    torch.set_default_dtype(torch.float64)
    meet(rank, folder)
    found, sizes, stock = {}, [], dist.all_reduce

    def counted(tensor, *args, **kwargs):
        sizes.append(tensor.numel())
        return stock(tensor, *args, **kwargs)

    dist.all_reduce = counted
    for name, make in MAKES.items():
        for i, how in enumerate(HOW):
            bank = ShardedBank(make, K, seed=7, execution="batched")
            sizes.clear()
            found[name, i] = *steps(bank, how, PENALTIES.get(name)), list(sizes)
    dist.all_reduce = stock
    bank = ShardedBank(rp, K, seed=[9, 8, 7, 6, 5])
    found["start"] = {k: bank.member_state_dict(k) for k in bank.members}
    found["repr"] = bank.extra_repr()
    found["mistakes"] = mistakes(bank, rank)
    found["exchanged"] = exchange(bank, rank)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_two(__file__, tmp_path_factory.mktemp("sharded"))


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("how", range(len(HOW)))
@pytest.mark.parametrize("make", MAKES)
def test_two_ranks_are_one_process_to_rounding(ranks, make, how):
    """All losses, gradients to images and generator, D's gradients, its state after Adam's step."""
    bank = DiscriminatorBank(MAKES[make], K, seed=7, execution="batched")
    everyones, own = steps(bank, HOW[how], PENALTIES.get(make))
    assert everyones["d"].shape == everyones["g"].shape == (K,)
    for rank in ranks:
        torch.testing.assert_close(rank[make, how][0], everyones, **TIGHT)
    for name, t in own.items():
        parts = [rank[make, how][1][name] for rank in ranks]
        assert [len(p) for p in parts] == [2, 3]
        torch.testing.assert_close(torch.cat(parts), t, **TIGHT, msg=name)


def test_the_images_gradient_is_one_all_reduce(ranks):
    """Else K losses of D and G, and three numbers a rank: are the images the same?"""
    for rank in ranks:
        assert rank["rp", 0][2] == [K, 6, K, B * 256]


def test_seeds_are_those_of_the_whole_banks_members(ranks):
    bank = DiscriminatorBank(rp, K, seed=[9, 8, 7, 6, 5])
    found = {**ranks[0]["start"], **ranks[1]["start"]}
    assert [list(r["start"]) for r in ranks] == [[0, 1], [2, 3, 4]]
    for k in range(K):
        for name, t in bank.member_state_dict(k).items():
            assert torch.equal(found[k][name], t)
    assert ranks[1]["repr"].startswith("2 to 4 of 5, ")


def test_a_discriminator_moves_between_ranks_by_its_number(ranks):
    first, last = (r["exchanged"] for r in ranks)
    assert first.keys() == last.keys()
    assert all(torch.equal(first[name], last[name]) for name in first)
    assert all(torch.equal(t, ranks[1]["start"][4][name]) for name, t in last.items())


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("few", "or more for each of 2 ranks, got K of 1"),
        ("seed", "expected a seed,.* got None"),
        ("seeds", "expected 5 seeds, got 2"),
        ("index", "this rank's discriminators, (0 to 1, got 2|2 to 4, got 0)"),
        ("range", "one of 5 discriminators, got 5"),
        ("different", "the same images on every rank"),
        ("sizes", "the same images on every rank"),
        ("no images", "expected images with a graph to the generator.* got none"),
        ("no graph", "got some without a graph"),
        ("other images", "expected views made from the images"),
    ],
)
def test_mistakes_are_named_on_every_rank(ranks, mistake, sentence):
    for rank in ranks:
        assert re.search(sentence, rank["mistakes"][mistake])


def test_a_process_outside_of_the_group_is_told(ranks):
    assert "got one outside of it" in ranks[1]["mistakes"]["group"]


def test_without_a_group_it_is_refused():
    with pytest.raises(ValueError, match=r"torch\.distributed to have begun"):
        ShardedBank(rp, K, seed=0)
    with pytest.raises(TypeError, match=r"K as an int, got 2\.0"):
        ShardedBank(rp, 2.0, seed=0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
