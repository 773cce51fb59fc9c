"""Which parameters move in which phase, in which order, on which batches."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from toy import Position, d_loss, g_loss, toy_images, toy_method, toy_stepper, weights

from ganops.data import to_float
from ganops.methods import Adam, ImageSpec, Phase
from ganops.regularizers import GP, Regularizer


def watched(method, moved: list) -> dict:
    """A copy of the method whose losses record what has moved since the last loss."""
    before = {n: weights(m) for n, m in method.networks.items()}

    def changes() -> set[str]:
        now = {n: weights(m) for n, m in method.networks.items()}
        found = {n for n in now if not torch.equal(now[n], before[n])}
        before.update(now)
        return found

    def wrap(phase: Phase) -> Phase:
        def loss(turn):
            moved.append((changes(), phase.name))
            return phase.loss(turn)

        return dataclasses.replace(phase, loss=loss)

    return dataclasses.replace(method, phases=tuple(map(wrap, method.phases))), changes


def test_wgan_gp_moves_the_critic_n_times_then_the_generator(small) -> None:
    method = small.build(ImageSpec(1, 2, 2), {})
    moved: list = []
    method, changes = watched(method, moved)
    stepper = toy_stepper(method)
    position = Position()
    stepper.step(position)
    names = [name for _, name in moved]
    assert names == ["d", "d", "g"]
    assert [m for m, _ in moved] == [set(), {"discriminator"}, {"discriminator"}]
    assert changes() == {"generator"}
    assert vars(position) == {"step": 1, "images_seen": 4, "attempt": 0}


def test_each_phase_freezes_the_other_players(small) -> None:
    flags = []

    def spy(phase: Phase) -> Phase:
        def loss(turn):
            flags.append(
                {n: {p.requires_grad for p in m.parameters()} for n, m in turn.networks.items()}
            )
            return phase.loss(turn)

        return dataclasses.replace(phase, loss=loss)

    method = small.build(ImageSpec(1, 2, 2), {})
    method = dataclasses.replace(method, phases=tuple(map(spy, method.phases)))
    toy_stepper(method).step(Position())
    assert flags == [
        {"generator": {False}, "discriminator": {True}},
        {"generator": {False}, "discriminator": {True}},
        {"generator": {True}, "discriminator": {False}},
    ]


def test_n_critic_default_is_five() -> None:
    from ganops.methods import recipe

    phases = recipe("wgan-gp").build(ImageSpec(1, 8, 8), {}).phases
    assert [(p.name, p.repeat, p.modules) for p in phases] == [
        ("d", 5, ("discriminator",)),
        ("g", 1, ("generator",)),
    ]
    assert phases[0].optimizer == phases[1].optimizer == Adam(1e-4, (0.0, 0.9), 1e-8)


def test_only_the_trained_networks_get_gradients_and_frozen_weights_stay() -> None:
    method = toy_method()
    method.networks["discriminator"].layer.bias.requires_grad_(False)
    bias = method.networks["discriminator"].layer.bias.clone()
    stepper = toy_stepper(method)
    seen = {}

    def spy(turn):
        seen[turn.step] = turn.fake.requires_grad
        return d_loss(turn)

    stepper.method = dataclasses.replace(
        method, phases=(dataclasses.replace(method.phases[0], loss=spy), method.phases[1])
    )
    for _ in range(3):
        stepper.step(Position())
    assert torch.equal(method.networks["discriminator"].layer.bias, bias)
    assert seen == {0: False}
    stepper.release()
    trainable = {n: p.requires_grad for n, p in method.networks["discriminator"].named_parameters()}
    assert trainable == {"layer.weight": True, "layer.bias": False}
    for p in method.networks["generator"].parameters():
        p.requires_grad_(False)
    with pytest.raises(ValueError, match="phase 'g' has nothing to train"):
        toy_stepper(method)


def test_interval_runs_a_phase_and_a_regulariser_only_when_due() -> None:
    @dataclasses.dataclass(frozen=True)
    class Constant(Regularizer):
        tag = "constant"

        def penalty(self, batch):
            calls.append(batch.step)
            return sum(p.sum() for p in batch.discriminator.parameters())

    del Regularizer.known["constant"]
    calls: list[int] = []
    ran: list[int] = []
    phases = (
        Phase("d", ("discriminator",), d_loss),
        Phase("slow", ("discriminator",), lambda t: (ran.append(t.step), d_loss(t))[1], "d", 3),
        Phase("g", ("generator",), g_loss),
    )
    method = toy_method(phases, regularizers=(Constant(weight=0.5, interval=2),))
    stepper, position = toy_stepper(method), Position()
    assert set(stepper.optimizers) == {"d", "g"}  # the slow phase shares the optimiser of d
    for _ in range(7):
        stepper.step(position)
    assert ran == [0, 3, 6]
    assert calls == [0, 2, 4, 6]


def test_a_lazy_regulariser_is_scaled_by_its_interval() -> None:
    def gradient(weight: float, interval: int) -> torch.Tensor:
        method = toy_method(regularizers=(GP(weight=weight, interval=interval),))
        stepper = toy_stepper(method)
        stepper._gradients(method.phases[0], stepper._turn(method.phases[0], Position(), 0, 4))
        return torch.cat([p.grad.flatten() for p in method.networks["discriminator"].parameters()])

    base = gradient(0.0, 1)
    torch.testing.assert_close(gradient(2.0, 4) - base, 4 * (gradient(2.0, 1) - base))


def test_an_ordinary_step_never_waits_for_the_device() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Waits(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._local_scalar_dense.default:
                Waits.count += 1
            return func(*args, **(kwargs or {}))

    counts = {}
    for policy in ("error", "skip"):
        stepper, position = toy_stepper(toy_method(), policy=policy), Position()
        stepper.step(position)  # Adam's state and the epoch's order are made on the first
        Waits.count = 0
        with Waits():
            stepper.step(position)
        counts[policy] = Waits.count
    assert counts["error"] == 0
    assert counts["skip"] > 0


def test_gradients_of_the_critic_equal_the_formula_written_out(small) -> None:
    """One critic turn of WGAN-GP against plain PyTorch with the same draws."""
    from ganops.methods.turn import SLOT, stream_of
    from ganops.ops import random_normal, random_uniform

    method = small.build(ImageSpec(1, 2, 2), {})
    critic, generator = method.networks["discriminator"], method.networks["generator"]
    stepper = toy_stepper(method, seed=5)
    phase, position = method.phases[0], Position(step=3)
    stepper._gradients(phase, stepper._turn(phase, position, 1, 4))
    got = [p.grad.clone() for p in critic.parameters()]

    index = (3 * 2 + 1) * SLOT
    z = random_normal((4, 8), seed=5, offset=index, stream=stream_of("d/z"))
    eps = random_uniform((4,), seed=5, offset=index, stream=stream_of("d/gp/alpha"))
    with torch.no_grad():
        fake = generator(z)
    source = toy_images()
    real = to_float(source.read(source.indices(0, 4)))
    mixed = (eps.view(-1, 1, 1, 1) * real + (1 - eps.view(-1, 1, 1, 1)) * fake).requires_grad_()
    (g,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    penalty = (g.flatten(1).square().sum(1).sqrt() - 1).square().mean()
    loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
    expected = torch.autograd.grad(loss, list(critic.parameters()))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("phases", "fields", "message"),
    [
        ((Phase("d", ("x",), d_loss),), {}, "moves unknown network 'x'"),
        ((Phase("g", ("generator",), g_loss),) * 2, {}, "distinct names"),
        ((Phase("g", ("generator",), g_loss, draw="d"),), {}, "refers to 'd'"),
        ((Phase("g", ("generator",), g_loss, joint=True),), {}, "is joint"),
        ((Phase("g", ("generator",), g_loss, interval=0),), {}, "must be >= 1"),
        (
            (Phase("d", ("discriminator",), d_loss), Phase("g", ("generator",), g_loss, "d")),
            {},
            "shares the optimiser",
        ),
        ((Phase("g", ("generator",), g_loss),), {"regularizers": (GP(),)}, "unknown phase 'd'"),
        ((Phase("g", ("generator",), g_loss),), {"average_after": "d"}, "average_after"),
    ],
)  # fmt: skip
def test_a_method_that_cannot_run_is_refused(phases, fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        toy_method(phases, **fields)


def test_batch_norm_in_the_critic_is_refused(small) -> None:
    critic = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    with pytest.raises(ValueError, match="layer '1' is BatchNorm2d"):
        small.build(ImageSpec(1, 8, 8), {"discriminator": critic})


def test_a_foreign_critic_is_called_on_halves_and_ours_once() -> None:
    from ganops.models import scores

    class Mixing(nn.Module):
        def forward(self, x):
            return x.flatten(1).sum(1) - x.mean()  # depends on the other samples

    real, fake = torch.ones(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    r, f = scores(Mixing(), real, fake)
    assert r.tolist() == [3.0] * 3
    assert f.tolist() == [0.0] * 3
