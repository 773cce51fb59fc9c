"""Batches: fresh or shared, joint updates, hooks, states, and networks beyond the usual two."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from toy import Position, d_loss, g_loss, toy_images, toy_method, toy_stepper, weights

from ganops.data import to_float
from ganops.methods import Adam, Phase


def test_every_critic_turn_sees_a_fresh_batch_and_z() -> None:
    reals, zs = [], []

    def loss(turn):
        reals.append(turn.real.clone())
        zs.append(turn.z.clone())
        return d_loss(turn)

    phases = (
        Phase("d", ("discriminator",), loss, repeat=3),
        Phase("g", ("generator",), lambda t: (zs.append(t.z.clone()), g_loss(t))[1]),
    )
    stepper = toy_stepper(toy_method(phases), batch=3)
    stepper.step(Position())
    assert len(zs) == 4
    assert len({z.numpy().tobytes() for z in zs}) == 4
    whole = toy_images()
    expected = to_float(whole.read(whole.indices(0, 9)))
    torch.testing.assert_close(torch.cat(reals), expected)


def test_draws_depend_on_the_step_alone() -> None:
    def z_at(step: int, seed: int = 0) -> torch.Tensor:
        got = []
        phases = (Phase("g", ("generator",), lambda t: (got.append(t.z.clone()), g_loss(t))[1]),)
        toy_stepper(toy_method(phases), seed=seed).step(Position(step=step))
        return got[0]

    assert torch.equal(z_at(7), z_at(7))
    assert not torch.equal(z_at(7), z_at(8))
    assert not torch.equal(z_at(7), z_at(7, seed=1))


def test_shared_draw_uses_one_fake_batch_and_keeps_its_graph() -> None:
    phases = (
        Phase("d", ("discriminator",), d_loss, Adam(lr=0.1)),
        Phase("g", ("generator",), g_loss, Adam(lr=0.1), draw="d"),
    )
    method = toy_method(phases)
    generator, critic = method.networks["generator"], method.networks["discriminator"]
    stepper = toy_stepper(method)
    stepper.step(Position())
    assert generator.calls == 1
    # The generator's gradient is that of the same z, at its old weights, under the updated critic.
    old = toy_method().networks["generator"]
    z = stepper.last_draws["d"].memory["z"]
    expected = torch.autograd.grad(-critic(old(z)).mean(), list(old.parameters()))
    for p, gradient in zip(generator.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient)
    assert not torch.equal(weights(generator), weights(old))


def test_joint_phases_take_both_gradients_at_the_old_weights() -> None:
    def phases(joint: bool) -> tuple[Phase, ...]:
        return (
            Phase("d", ("discriminator",), d_loss, Adam(lr=0.1), joint=joint),
            Phase("g", ("generator",), g_loss, Adam(lr=0.1)),
        )

    method = toy_method(phases(True))
    twin = toy_method(phases(True))
    stepper, reference = toy_stepper(method), toy_stepper(twin)
    stepper.step(Position())
    taken = []
    for phase in twin.phases:  # gradients of both first, then both steps
        turn = reference._turn(phase, Position(), 0, 4)
        taken.append((phase, turn, reference._gradients(phase, turn)))
    for name in ("d", "g"):
        reference.optimizers[name].step()
    for name in ("generator", "discriminator"):
        assert torch.equal(weights(method.networks[name]), weights(twin.networks[name]))
    alternating = toy_method(phases(False))
    toy_stepper(alternating).step(Position())
    assert not torch.equal(
        weights(alternating.networks["generator"]), weights(method.networks["generator"])
    )


def test_hooks_states_batch_schedule_and_two_more_networks() -> None:
    """What BEGAN (k after a step), ProGAN (stages) and CycleGAN (four networks) ask of the loop."""
    k = nn.Module()
    k.register_buffer("k", torch.zeros(()))
    batches, encoder = [], nn.Linear(4, 2)

    def after(turn) -> None:
        batches.append(turn.batch)
        k.k += turn.values["loss/g"] * 0 + 1
        turn.log("state/k", k.k)

    def both(turn) -> torch.Tensor:
        return encoder(turn.real.flatten(1)).square().mean() + g_loss(turn)

    def faster(progress) -> None:
        progress.optimizers["g"].param_groups[0]["lr"] = 0.5 if progress.step else 0.0

    phases = (Phase("g", ("generator", "encoder"), both, after=(after,)),)
    base = toy_method()
    method = dataclasses.replace(
        base,
        networks={**base.networks, "encoder": encoder},
        phases=phases,
        state={"k": k},
        before_step=(faster,),
        batch_at=lambda progress: 2 + progress.step,
    )
    stepper, position = toy_stepper(method), Position()
    start = weights(encoder)
    stepper.step(position)
    assert torch.equal(weights(encoder), start)  # the hook set the rate to 0
    stepper.step(position)
    assert not torch.equal(weights(encoder), start)
    assert batches == [2, 3]
    assert position.images_seen == 5
    assert stepper.sources["data"].state_dict() == {"position": 5}
    values, _ = stepper.statistics.read()
    assert values["state/k"] == 1.5
    assert k.state_dict()["k"] == 2
