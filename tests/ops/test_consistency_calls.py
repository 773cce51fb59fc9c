"""How a consistency penalty calls its critic: how often, in which order, with which labels."""

from __future__ import annotations

import pytest
import torch
from pairs import FAKE, NEAR, REAL, B, Calls, Conditional, assert_same, flip, make, stock_cr

from ganops import ops
from ganops.ops.consistency import passes


def test_a_whole_step_is_one_call():
    icr = ops.consistency_scores
    for fake_perturbed, weights, parts in (
        (None, {}, 4), (NEAR, {}, 5), (None, {"weight_fake": 0}, 3), (None, {"weight_real": 0}, 3),
        (NEAR, {"weight_latent": 0}, 4), (NEAR, {"weight_real": 0, "weight_fake": 0}, 3),
        (None, {"weight_real": 0, "weight_fake": 0}, 2),
    ):  # fmt: skip
        for joint in (True, False):
            critic = Calls(make())
            seen = icr(critic, REAL, FAKE, fake_perturbed, augment=flip, joint=joint, **weights)
            assert critic.sizes == ([B * parts] if joint else [B] * parts)
            torch.testing.assert_close(seen.real, critic.critic(REAL))
            torch.testing.assert_close(seen.fake, critic.critic(FAKE))
            total = sum(
                weights.get(f"weight_{k}", {"latent": 20}.get(k, 10)) * t
                for k, t in seen.terms.items()
            )
            torch.testing.assert_close(seen.penalty, torch.as_tensor(total).to(seen.penalty))


def test_the_penalties_alone_are_one_call():
    for f, parts in (
        (lambda c: ops.cr_penalty(c, REAL, augment=flip), 2),
        (lambda c: ops.bcr_penalty(c, REAL, FAKE, augment=flip), 4),
        (lambda c: ops.zcr_d_penalty(c, FAKE, NEAR), 2),
    ):
        critic = Calls(make())
        f(critic)
        assert critic.sizes == [B * parts]


def test_the_order_of_the_one_batch():
    batch = []
    critic = lambda x: batch.append(x) or x.flatten(1).sum(1)  # noqa: E731
    ops.consistency_scores(critic, REAL, FAKE, NEAR, augment=flip)
    wanted = torch.cat((REAL, flip(REAL), NEAR, FAKE, flip(FAKE)))
    assert torch.equal(batch[0], wanted)


@pytest.mark.parametrize("joint", [True, False])
def test_fewer_fakes_than_reals(joint):
    critic, fake, near = make(), FAKE[:2], NEAR[:2]
    seen = ops.consistency_scores(critic, REAL, fake, near, augment=flip, joint=joint)
    wanted = (
        10 * stock_cr(critic, REAL, flip(REAL)) + 10 * stock_cr(critic, fake, flip(fake))
        + 20 * stock_cr(critic, fake, near)
    )  # fmt: skip
    assert_same(critic, seen.penalty, wanted)
    torch.testing.assert_close(seen.fake, critic(fake))


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("given", ["tensor", "tuple", "dict"])
def test_labels_go_with_their_images(given, joint):
    critic = Conditional()
    of_real, of_fake, more = torch.tensor([0, 1, 2]), torch.tensor([3, 1, 0]), {"shared": 2.0}
    if given == "tensor":
        labels, how = lambda y: y, {"critic_args": (2.0,)}
    elif given == "tuple":
        labels, how = lambda y: (y,), {"critic_kwargs": more}
    else:
        labels, how = lambda y: {"labels": y * 0, "y": y}, {"critic_kwargs": more}
    how |= {"joint": joint}
    real, fake, latent = (
        (critic(a, y, 2.0) - critic(b, y, 2.0)).square().mean()
        for a, b, y in ((REAL, flip(REAL), of_real), (FAKE, flip(FAKE), of_fake),
                        (FAKE, NEAR, of_fake))
    )  # fmt: skip
    one = ops.cr_penalty(critic, REAL, augment=flip, labels=labels(of_real), **how)
    assert_same(critic, one, 10 * real)
    zcr = ops.zcr_d_penalty(critic, FAKE, NEAR, labels=labels(of_fake), **how)
    assert_same(critic, zcr, 20 * latent)
    both = {"labels": labels(of_real), "fake_labels": labels(of_fake), **how}
    assert_same(
        critic, ops.bcr_penalty(critic, REAL, FAKE, augment=flip, **both), 10 * (real + fake)
    )
    seen = ops.consistency_scores(critic, REAL, FAKE, NEAR, augment=flip, **both)
    assert_same(critic, seen.penalty, 10 * real + 10 * fake + 20 * latent)
    torch.testing.assert_close(seen.fake, critic(FAKE, of_fake, 2.0))


def test_outputs_that_are_picked():
    critic = make()
    wanted = 10 * stock_cr(critic, REAL, flip(REAL))
    pick = {"output": lambda d: d["logits"]}
    given = lambda x: {"logits": critic(x), "features": x}  # noqa: E731
    assert_same(critic, ops.cr_penalty(given, REAL, augment=flip, **pick), wanted)
    seen = ops.consistency_scores(given, REAL, FAKE, augment=flip, weight_fake=0, **pick)
    assert_same(critic, seen.penalty, wanted)
    bank = lambda x: torch.stack((critic(x), 2 * critic(x)))[..., 0]  # noqa: E731  (K, N)
    found = ops.cr_penalty(bank, REAL, augment=flip, output=lambda d: d.mT)
    assert_same(critic, found, 5 * wanted)


def test_policies_are_drawn_apart_for_reals_and_fakes(monkeypatch):
    """What consistency_pair is asked for; what it gives is another file's."""
    asked = []

    def pair(x, policy, **drawn):
        asked.append((policy, drawn))
        x = x.double()
        return torch.cat((x, x.flip(-1)))

    monkeypatch.setattr(passes, "consistency_pair", pair)
    critic, generator = make(), torch.Generator()
    expected = ops.bcr_penalty(critic, REAL, FAKE, augment=flip)
    found = ops.bcr_penalty(critic, REAL, FAKE, seed=6, offset=9)
    assert_same(critic, found, expected)
    assert asked == [("cr", {"seed": 6, "offset": 9}), ("cr", {"seed": ~6, "offset": 9})]
    asked.clear()
    ops.consistency_scores(critic, REAL, FAKE, policy="flip", generator=generator)
    assert asked == [("flip", {"generator": generator})] * 2
    asked.clear()
    ops.cr_penalty(critic, REAL.byte(), policy="zero", seed=0)
    assert asked == [("zero", {"seed": 0})]


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1, -5])
def test_every_64_bit_seed_serves(seed):
    critic = make()
    signed = seed - 2**64 if seed >= 2**63 else seed
    assert ops.bcr_penalty(critic, REAL, FAKE, seed=seed).equal(
        ops.bcr_penalty(critic, REAL, FAKE, seed=signed)
    )


def test_a_step_is_one_graph():
    critic, labels = Conditional(), {"labels": torch.arange(3), "fake_labels": torch.arange(3)}

    def loss(real, fake):
        seen = ops.consistency_scores(critic, real, fake, augment=flip, **labels)
        return seen.penalty + seen.real.mean() - seen.fake.mean()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_same(critic, compiled(REAL, FAKE), loss(REAL, FAKE))


C = make()
TWO = torch.tensor([0, 1])
CALLS = [
    (lambda: ops.cr_penalty(C, REAL, augment=flip, weight=-1.0), ValueError,
     "cr_penalty: expected a finite weight >= 0, got -1.0"),
    (lambda: ops.bcr_penalty(C, REAL, FAKE, augment=flip, weight_fake="1"), TypeError,
     "expected weight_fake as a number, got '1'"),
    (lambda: ops.cr_penalty(C, REAL, augment=3), TypeError, "augment as a function, got 3"),
    (lambda: ops.perturb_latent(FAKE, None), TypeError, "sigma as a number, got None"),
    (lambda: ops.perturb_latent(FAKE, generator=3), TypeError, "as a torch.Generator, got 3"),
    (lambda: ops.bcr_penalty(C, REAL, FAKE, augment=flip, weight_fake=float("nan")), ValueError,
     "expected a finite weight_fake >= 0, got nan"),
    (lambda: ops.cr_penalty(C, REAL[:0], augment=flip), ValueError, "at least one sample"),
    (lambda: ops.cr_penalty(C, None, augment=flip), TypeError, "real as a .*tensor, got NoneType"),
    (lambda: ops.cr_penalty(C, REAL.long(), augment=flip), TypeError,
     "expected float images, got torch.int64"),
    (lambda: ops.cr_penalty(C, REAL, augment=lambda x: x[..., 1:]), ValueError,
     r"expected augment\(x\) of shape \(3, 3, 12, 12\), got \(3, 3, 12, 11\)"),
    (lambda: ops.cr_penalty(C, REAL, augment=flip, seed=1), ValueError,
     "seed and offset with a policy only"),
    (lambda: ops.cr_penalty(lambda x: x.sum(), REAL, augment=flip), ValueError,
     r"expected scores of shape \(6, ...\)"),
    (lambda: ops.cr_penalty(lambda x: (x,), REAL, augment=flip), TypeError, "with output="),
    (lambda: ops.cr_penalty(Conditional(), REAL, augment=flip, labels=TWO), ValueError,
     r"labels as tensors of 3 rows, one for each image, got \(2,\)"),
    (lambda: ops.cr_penalty(Conditional(), REAL, augment=flip, critic_args=(torch.arange(3),)),
     ValueError, r"belongs to single images as labels=.*got \(3,\) in critic_args"),
    (lambda: ops.bcr_penalty(C, REAL, FAKE[..., 1:], augment=flip), ValueError,
     r"expected fake of shape \(N, 3, 12, 12\), got \(3, 3, 12, 11\)"),
    (lambda: ops.bcr_penalty(C, REAL, FAKE, augment=flip, labels=TWO), ValueError,
     "expected labels and fake_labels, or neither, got labels alone"),
    (lambda: ops.bcr_penalty(Conditional(), REAL, FAKE, augment=flip, fake_labels=torch.arange(3),
                             labels={"labels": torch.arange(3)}), ValueError,
     r"the same labels for real and for fake images, got \['labels'\] and \[0\]"),
    (lambda: ops.cr_penalty(Conditional(), REAL, augment=flip, critic_kwargs={"labels": 1},
                            labels={"labels": torch.arange(3)}), ValueError,
     r"each argument once, got \['labels'\] both in labels"),
    (lambda: ops.zcr_d_penalty(C, FAKE, NEAR[:2]), ValueError,
     r"expected fake_perturbed of shape \(3, 3, 12, 12\), got \(2,"),
    (lambda: ops.zcr_g_penalty(FAKE, NEAR[:2]), ValueError, "fake_perturbed of shape"),
    (lambda: ops.zcr_g_penalty(FAKE.long(), NEAR), TypeError, "fake as a float tensor"),
    (lambda: ops.perturb_latent(FAKE, -0.1), ValueError, "a finite sigma >= 0, got -0.1"),
    (lambda: ops.perturb_latent(TWO), TypeError, "z as a float tensor, got torch.int64"),
    (lambda: ops.perturb_latent(FAKE, seed=1, noise=FAKE), ValueError, "one of generator, seed"),
    (lambda: ops.perturb_latent(FAKE, noise=FAKE[:1]), ValueError, "expected noise of shape"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), CALLS)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_arguments_per_batch_serve_calls_of_one_part():
    critic, labels = Conditional(), torch.arange(3)
    apart = ops.cr_penalty(critic, REAL, augment=flip, critic_args=(labels,), joint=False)
    assert_same(critic, apart, ops.cr_penalty(critic, REAL, augment=flip, labels=labels))
