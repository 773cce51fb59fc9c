"""CR, bCR, zCR and ICR as parts of recipes: against the functions, in a step, and resumed."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

import ganops
from ganops import ops, reg
from ganops.methods import Recipe, recipe
from ganops.trainers import Trainer, checkpoint

sys.path.insert(0, str(Path(__file__).parents[1] / "trainers"))
from toy import Position, toy_method, toy_stepper, weights

ALL = {
    "cr": reg.CR(), "bcr": reg.BCR(weight_fake=3.0), "zcr": reg.ZCR(), "zcr-g": reg.ZCRGenerator(),
    "icr": reg.ICR(policy="color", weight=0.5), "cr apart": reg.CR(weight=2.0, joint=False),
}  # fmt: skip


def turn_of(phase: str, step: int = 0, seed: int = 0):
    method = toy_method()
    stepper = toy_stepper(method, batch=6, seed=seed)
    (chosen,) = (p for p in method.phases if p.name == phase)
    stepper._train_only(frozenset(chosen.modules))
    return stepper._turn(chosen, Position(step=step), 0, 6)


def by_hand(kind: str, turn) -> torch.Tensor:
    """The formulas, from the turn's own numbers."""
    D, x, fake = turn.discriminator, turn.real, turn.fake
    near = turn.generator(turn.z + 0.05 * turn.normal("near", 6, 2))

    def apart(a, b):
        return (D(a) - D(b)).square().mean()

    def pair(images, policy, seed):
        return apart(images, ops.augment(images, policy, seed=seed))

    seed = turn.seed_of(kind.split()[0])
    if kind.startswith("cr"):
        return pair(x, "cr", seed)
    if kind == "zcr":
        return apart(fake, near)
    if kind == "zcr-g":
        return -(fake - near).square().mean()
    policy = "color" if kind == "icr" else "cr"
    both = 10 * pair(x, policy, seed)
    both = both + (3.0 if kind == "bcr" else 10.0) * pair(fake, policy, ~seed)
    return both + (20 * apart(fake, near) if kind == "icr" else 0)


@pytest.mark.parametrize("kind", ALL)
def test_penalties_are_the_formulas(kind):
    part, phase = ALL[kind], "g" if kind == "zcr-g" else "d"
    turn = turn_of(phase)
    moved = (turn.generator if phase == "g" else turn.discriminator).parameters()
    got, expected = part.penalty(turn), by_hand(kind, turn)
    assert part.phase == phase
    assert part.tag == kind.split()[0]
    assert abs(got.item()) > 1e-6
    torch.testing.assert_close(got, expected)
    moved = list(moved)
    grads = [torch.autograd.grad(v, moved, retain_graph=True) for v in (got, expected)]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("kind", "apart"), [("cr", 2), ("bcr", 4), ("zcr", 2), ("icr", 5)])
def test_one_call_or_one_a_part(kind, apart):
    for joint, calls in ((True, 1), (False, apart)):
        turn = turn_of("d")
        seen: list[None] = []
        turn.discriminator.register_forward_hook(lambda *_, to=seen: to.append(None))
        dataclasses.replace(ALL[kind], joint=joint).penalty(turn)
        assert len(seen) == calls


def test_weights_are_the_cards():
    assert (reg.CR().weight, reg.ZCR().weight, reg.ZCRGenerator().weight) == (10, 20, 0.5)
    icr = reg.ICR()
    assert (icr.weight, icr.weight_real, icr.weight_fake, icr.weight_latent) == (1, 10, 10, 20)
    assert icr.sigma == reg.ZCR().sigma == reg.ZCRGenerator().sigma == 0.05


def test_seeds_belong_to_draw_name_step_and_run():
    """Known for ever: resumed runs and other machines must draw the same."""
    turn = turn_of("d")
    assert turn.seed_of("cr") == 0x1FCF14CDD5CEA93D
    others = [turn.seed_of("bcr"), turn_of("g").seed_of("cr"), turn_of("d", step=1).seed_of("cr"),
              turn_of("d", seed=1).seed_of("cr")]  # fmt: skip
    assert len({turn.seed_of("cr"), *others}) == 5
    assert turn.seed_of("cr") == turn_of("d").seed_of("cr")
    turn.draw._attempt = 1  # after a rollback
    assert turn.seed_of("cr") != turn_of("d").seed_of("cr")


def test_a_near_fake_reads_no_data_and_keeps_z():
    turn = turn_of("d")
    z, near = turn.z.clone(), turn.fake_near(0.05)
    assert turn.generator.calls == 1
    assert torch.equal(turn.fake_near(0.05), near)  # once a draw
    assert torch.equal(turn.z, z)
    assert torch.equal(turn.fake_near(0.0), turn.fake)
    assert not near.requires_grad
    assert turn.draw._sources["data"].state_dict() == {"position": 0}
    assert turn_of("g").fake_near(0.05).requires_grad


@pytest.mark.parametrize("kind", ALL)
def test_a_step_with_it_moves_the_weights_otherwise(kind):
    def stepped(*parts):
        method = toy_method(regularizers=parts)
        stepper = toy_stepper(method, batch=6)
        for _ in range(2):
            stepper.step(Position())
        return torch.cat([weights(n) for n in method.networks.values()]), stepper

    plain, _ = stepped()
    with_it, stepper = stepped(ALL[kind])
    assert with_it.isfinite().all()
    assert not torch.equal(with_it, plain)
    values, _ = stepper.statistics.read()
    assert (values[f"penalty/{ALL[kind].tag}"] < 0) == (kind == "zcr-g")
    assert torch.equal(stepped(dataclasses.replace(ALL[kind], weight=0.0))[0], plain)


def test_recipes_compose_and_survive_yaml():
    yaml = pytest.importorskip("yaml")
    made = ganops.recipe("wgan-gp") + ganops.reg.CR(weight=3, policy="diffaug")
    made = made + reg.ICR(joint=False, interval=2) + reg.ZCRGenerator(sigma=0.03)
    assert Recipe.from_dict(yaml.safe_load(made.to_yaml())) == made


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: reg.CR(weight=-1.0), "weight must be >= 0 and finite, got -1.0"),
        (lambda: reg.CR(policy="cra"), "expected policy as one of cr, .*got 'cra'"),
        (lambda: reg.ICR(policy="cra"), "got 'cra'"),
        (lambda: reg.BCR(weight_fake=-1.0), "weight_fake must be >= 0"),
        (lambda: reg.ICR(weight_latent=float("nan")), "weight_latent must be >= 0"),
        (lambda: reg.ZCR(sigma=-0.1), "sigma must be >= 0"),
        (lambda: reg.ZCRGenerator(sigma=float("inf")), "sigma must be >= 0 and finite"),
        (lambda: Recipe.from_dict({"method": "wgan-gp", "regularizers": [{"name": "cr",
         "policy": "x"}]}), r"regularizers\[0\]"),
    ],
)  # fmt: skip
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": ops.AugmentPolicy()}, r"policy must be a string, got AugmentPolicy\("),
        ({"weight": "a"}, "weight must be a number, got 'a'"),
        ({"weight": True}, "weight must be a number, got True"),
        ({"interval": 1.5}, "interval must be a whole number, got 1.5"),
        ({"joint": "no"}, "joint must be True or False, got 'no'"),
    ],
)
def test_settings_that_no_file_could_hold(settings, message):
    """A run with them could be started and not resumed."""
    with pytest.raises(TypeError, match=message):
        reg.CR(**settings)


def test_a_resumed_run_is_the_run(tmp_path):
    small = {"generator.width": 4, "critic.width": 4, "critic.hidden": 8, "generator.z_dim": 8}
    made = recipe("wgan-gp").replace(n_critic=1, **small) + reg.ICR() + reg.ZCRGenerator()
    settings = {"batch": 6, "device": "cpu", "checkpoint_every": 0, "sample_every": 0,
                "quiet": True}  # fmt: skip
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    Trainer(made, out=whole, steps=3, **settings).fit()
    Trainer(made, out=parts, steps=1, **settings).fit()
    torch.manual_seed(99)
    Trainer.resume(parts, steps=3, quiet=True).fit()
    files = [
        {p.name: p.read_bytes() for p in Path(checkpoint.latest(run)).iterdir()}
        for run in (whole, parts)
    ]
    assert files[0] == files[1]
