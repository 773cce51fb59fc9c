"""Penalties under autocast and loss scaling, against float64.

``python tests/ops/test_penalty_amp.py`` prints the errors that docs/second_order.md states.
"""

from __future__ import annotations

import critics
import pytest
import torch
from torch import nn

from ganops import ops

HALVES = [torch.bfloat16, torch.float16]
# Relative, in norm. bfloat16 rounds to 8 bits in every layer, and in every half type some signs
# flip at the kinks of the activations: over four seeds up to 0.061 and 0.047 were measured.
BOUND = {torch.bfloat16: 0.1, torch.float16: 0.03}  # for seed 0


def dcgan():
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2, True), nn.Conv2d(16, 32, 4, 2, 1),
        nn.LeakyReLU(0.2), nn.Conv2d(32, 64, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(64, 1, 4),
    )  # fmt: skip


NETS = {"dcgan": (dcgan, (16, 3, 32, 32)), "mlp": (lambda: critics.mlp(64), (16, 3, 12, 12))}
ALPHA = torch.linspace(0, 1, 16)
PENALTIES = {
    "gradient_penalty": lambda c, x, **how: ops.gradient_penalty(c, x, x.flip(0), alpha=ALPHA,
                                                                 **how),
    "r1_penalty": ops.r1_penalty,
}  # fmt: skip


def setting(name, seed=0):
    """(critic, the same in float64, images)."""
    make, shape = NETS[name]
    torch.manual_seed(seed)
    critic, exact = make(), make().double()
    exact.load_state_dict(critic.state_dict())
    return critic, exact, torch.randn(shape)


def gradients(critic, value):
    found = torch.autograd.grad(value, list(critic.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, critic.parameters())]


def error(ours, exact):
    """|ours - exact| / |exact|, all parameters as one vector."""
    ours, exact = (torch.cat([g.double().flatten() for g in gs]) for gs in (ours, exact))
    return ((ours - exact).norm() / exact.norm()).item()


def errors(name, penalty, dtype, engine, seed=0):
    """(of the value, of the parameters' gradient), by the half type."""
    critic, exact, x = setting(name, seed)
    with torch.autocast("cpu", dtype=dtype):
        value = PENALTIES[penalty](critic, x, engine=engine)
    assert value.dtype == torch.float32
    wanted = PENALTIES[penalty](exact, x.double(), engine="autograd")
    return abs(value.item() / wanted.item() - 1), error(
        gradients(critic, value), gradients(exact, wanted)
    )


@pytest.mark.parametrize("engine", ["auto", "autograd"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", NETS)
def test_autocast_gives_the_gradient_within_its_rounding(name, penalty, dtype, engine):
    value, gradient = errors(name, penalty, dtype, engine)
    assert value < BOUND[dtype] / 2
    assert gradient < BOUND[dtype]


@pytest.mark.parametrize("engine", ["auto", "autograd"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_the_critic_does_run_in_the_half_type(dtype, engine):
    critic, _, x = setting("dcgan")
    seen = []
    for layer in critic:
        layer.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=dtype):
        ops.r1_penalty(critic, x, engine=engine)
    assert seen == [dtype] * 7


@pytest.mark.parametrize("images", [torch.float32, torch.float16])
def test_norms_are_summed_in_float32(images):
    """300^2 is beyond float16, and so is a sum of 4096 numbers beyond its 11 bits."""
    critic = nn.Linear(4096, 1, bias=False)
    critic.weight.data.fill_(300.0)
    with torch.autocast("cpu", dtype=torch.float16):
        value = ops.r1_penalty(critic, torch.zeros(2, 4096, dtype=images))
        norm = ops.gradient_penalty(critic, torch.zeros(2, 4096), torch.zeros(2, 4096))
    assert value.item() == pytest.approx(4096 * 300.0**2 / 2, rel=1e-6)
    assert norm.item() == pytest.approx((64 * 300.0 - 1) ** 2, rel=1e-6)


def faint(name):
    """A critic whose input gradient is below what float16 can hold."""
    critic, exact, x = setting(name)
    less = {"dcgan": 2.0**-4, "mlp": 2.0**-5}[name]  # in every layer: the weights fit float16
    for p in (*critic.parameters(), *exact.parameters()):
        p.data.mul_(less if p.dim() > 1 else 1.0)
    return critic, exact, x


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("center", [0.0, 2.0**-16])
def test_the_inner_gradient_is_scaled_by_the_scores(name, center):
    """The recipe: output= scales the scores by k, the centre by k, the penalty by 1/k^2."""
    critic, exact, x = faint(name)
    wanted = gradients(exact, ops.gradient_penalty(exact, x.double(), x.double(), center=center))
    scaler, k, found = torch.amp.GradScaler("cpu", init_scale=2.0**36), 2.0**10, {}
    for scale in (1.0, k):
        with torch.autocast("cpu", dtype=torch.float16):
            penalty = ops.gradient_penalty(
                critic, x, x, center=scale * center, output=lambda out, s=scale: s * out
            )
        grads = gradients(critic, scaler.scale(penalty / scale**2))
        found[scale] = error([g / scaler.get_scale() for g in grads], wanted)
    assert found[k] < BOUND[torch.float16]
    assert found[1.0] > 3 * found[k]  # what the recipe is for


def step(name, dtype, init_scale, poison=1.0):
    """One scaled step of loss and penalty; (critic, exact gradients, ours, scaler)."""
    critic, exact, x = setting(name)
    optimizer = torch.optim.SGD(critic.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)

    def loss(net, t):
        return net(t).mean() + 10 * ops.gradient_penalty(net, t, t.flip(0), alpha=ALPHA)

    with torch.autocast("cpu", dtype=dtype):
        total = loss(critic, x) * poison
    scaler.scale(total).backward()
    scaler.unscale_(optimizer)
    ours = [torch.zeros_like(p) if p.grad is None else p.grad for p in critic.parameters()]
    before = [p.detach().clone() for p in critic.parameters()]
    scaler.step(optimizer)
    scaler.update()
    moved = any(not torch.equal(a, b) for a, b in zip(before, critic.parameters()))
    return ours, gradients(exact, loss(exact, x.double())), moved, scaler.get_scale()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", NETS)
def test_a_step_by_gradscaler(name, dtype):
    ours, exact, moved, _ = step(name, dtype, 2.0**8)
    assert error(ours, exact) < BOUND[dtype]
    assert moved


def test_an_overflow_skips_the_step():
    _, _, moved, scale = step("dcgan", torch.float16, 2.0**14, poison=2.0**20)
    assert not moved
    assert scale == 2.0**13


if __name__ == "__main__":
    print("largest relative error of the parameters' gradient, seeds 0 to 3")
    for name in NETS:
        for dtype in HALVES:
            worst = max(errors(name, p, dtype, "auto", s)[1] for p in PENALTIES for s in range(4))
            print(f"{name:6} {dtype!s:15} {worst:.3f}")
