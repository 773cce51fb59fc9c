"""interpolate and gradient_penalty: the whole of WGAN-GP's penalty on real critics."""

from __future__ import annotations

import pytest
import torch
from backends import Backend
from compare import assert_near, assert_same_bits
from torch import nn

import ganops
from ganops import ops


def stock(critic, points, center=1.0, one_sided=False):
    """The penalty as everyone writes it, in plain PyTorch."""
    points = points.detach().requires_grad_()
    (g,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    distance = g.flatten(1).norm(2, dim=1) - center
    return (distance.clamp_min(0) if one_sided else distance).square().mean()


def linear_critic(*weights):
    critic = nn.Linear(len(weights), 1, bias=False).double()
    critic.weight.data.copy_(torch.tensor([weights], dtype=torch.float64))
    return critic


def images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(2)]


def mlp():
    torch.manual_seed(1)
    layers = [nn.Linear(6, 9), nn.LeakyReLU(0.2), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 1)]
    layers[-1].weight.data *= 6  # gradients on both sides of 1
    return nn.Sequential(*layers).double()


def convolutional():
    torch.manual_seed(2)
    layers = [
        nn.Conv2d(3, 4, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(4, 5, 4, stride=2, padding=1),
        nn.SiLU(), nn.Flatten(), nn.Linear(5 * 4 * 4, 1),
    ]  # fmt: skip
    layers[-1].weight.data *= 20
    return nn.Sequential(*layers).double()


CRITICS = {"mlp": (mlp, (5, 6)), "convolutional": (convolutional, (4, 3, 8, 8))}


# Worked by hand: f = w.x has gradient w everywhere, so the penalty is (|w| - 1)^2 and its
# gradient 2 (|w| - 1) w / |w|; lambda = 10.
@pytest.mark.parametrize(
    ("weights", "one_sided", "penalty", "gradient"),
    [
        ((3.0, 4.0), False, 160.0, (48.0, 64.0)),
        ((3.0, 4.0), True, 160.0, (48.0, 64.0)),
        ((0.3, 0.4), False, 2.5, (-6.0, -8.0)),
        ((0.3, 0.4), True, 0.0, (0.0, 0.0)),
    ],
)
def test_golden_numbers_of_a_linear_critic(any_backend, weights, one_sided, penalty, gradient):
    critic = linear_critic(*weights).to(any_backend.device)
    real, fake = (t.to(any_backend.device) for t in images(8, 2))
    with ganops.use_impl(any_backend.impl):
        loss = 10 * ops.gradient_penalty(critic, real, fake, one_sided=one_sided)
        loss.backward()
    assert loss.item() == pytest.approx(penalty, rel=1e-12)
    assert critic.weight.grad.flatten().tolist() == pytest.approx(gradient, rel=1e-12)


def test_training_a_linear_critic_finds_the_closed_form(any_backend):
    """min over w of -w.m + lambda (|w| - 1)^2 is (1 + |m| / (2 lambda)) m / |m|."""
    m = torch.tensor([6.0, -8.0], dtype=torch.float64, device=any_backend.device)
    critic = linear_critic(0.5, 0.5).to(any_backend.device)
    fake = images(2, 2)[0].to(any_backend.device)
    real = fake + m
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.05)
    with ganops.use_impl(any_backend.impl):
        for _ in range(45):
            optimizer.zero_grad()
            loss = critic(fake).mean() - critic(real).mean()
            (loss + 10 * ops.gradient_penalty(critic, real, fake)).backward()
            optimizer.step()
    expected = (1 + m.norm() / 20) * m / m.norm()
    torch.testing.assert_close(critic.weight[0].detach(), expected, rtol=1e-6, atol=1e-6)


def test_quadratic_critic_by_hand():
    A = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    real, fake = images(7, 2)
    alpha = torch.linspace(0, 1, 7, dtype=torch.float64)
    points = alpha[:, None] * real + (1 - alpha[:, None]) * fake
    penalty = ops.gradient_penalty(lambda x: 0.5 * ((x @ A) * x).sum(1), real, fake, alpha=alpha)
    assert_near(penalty, ((points @ A).norm(dim=1) - 1).square().mean(), 20)


def test_constant_critic_costs_the_centre_and_has_no_gradient():
    critic = linear_critic(0.0, 0.0)
    real, fake = images(4, 2)
    penalty = ops.gradient_penalty(critic, real, fake, center=3.0)
    penalty.backward()
    assert penalty.item() == 9.0
    assert critic.weight.grad.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("center", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", CRITICS)
def test_equals_stock_autograd(any_backend, name, center, one_sided):
    make, shape = CRITICS[name]
    critic = make().to(any_backend.device)
    real, fake = (t.to(any_backend.device) for t in images(*shape))
    alpha = torch.rand(shape[0], dtype=torch.float64, device=any_backend.device)
    settings = {"center": center, "one_sided": one_sided}
    with ganops.use_impl(any_backend.impl):
        ours = ops.gradient_penalty(critic, real, fake, alpha=alpha, **settings)
        grads = torch.autograd.grad(ours, critic.parameters(), allow_unused=True)
    weight = alpha.reshape(-1, *[1] * (len(shape) - 1))
    expected = stock(critic, weight * real + (1 - weight) * fake, **settings)
    wanted = torch.autograd.grad(expected, critic.parameters(), allow_unused=True)
    assert ours.item() > 0
    assert_near(ours, expected, 20)
    for got, want in zip(grads, wanted):
        # The last bias does not matter; a bias before a leaky ReLU gets zeros from stock.
        if got is None or want is None:
            assert got is None
            assert want is None or not want.any()
        else:
            torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-13)


def test_ganops_layers_inside_the_critic():
    """The op's own activation in the critic: three compiled orders in one loss."""
    torch.manual_seed(3)
    weights = [torch.randn(6, 6, dtype=torch.float64).requires_grad_() for _ in range(2)]
    biases = [torch.randn(6, dtype=torch.float64).requires_grad_() for _ in range(2)]
    real, fake = images(5, 6)
    alpha = torch.rand(5, dtype=torch.float64)

    def losses(impl):
        def critic(x):
            x = ops.bias_act(x @ weights[0], biases[0], act="lrelu", impl=impl)
            return ops.bias_act(x @ weights[1], biases[1], act="swish", impl=impl).sum(1)

        with ganops.use_impl(impl):
            penalty = ops.gradient_penalty(critic, real, fake, alpha=alpha)
        total = critic(fake).mean() - critic(real).mean() + 10 * penalty
        return total, torch.autograd.grad(total, [*weights, *biases])

    (ours, grads), (expected, wanted) = losses("auto"), losses("reference")
    assert_near(ours, expected, 50)
    for got, want in zip(grads, wanted):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", CRITICS)
def test_batches_may_be_permuted_and_joined(name):
    make, shape = CRITICS[name]
    critic = make()
    real, fake = images(*shape)
    alpha = torch.rand(shape[0], dtype=torch.float64)
    one = ops.gradient_penalty(critic, real, fake, alpha=alpha)
    order = torch.randperm(shape[0])
    mixed = ops.gradient_penalty(critic, real[order], fake[order], alpha=alpha[order])
    assert_near(mixed, one, 20)
    twice = ops.gradient_penalty(
        critic, real.repeat(2, *[1] * (len(shape) - 1)), torch.cat((fake, fake)),
        alpha=torch.cat((alpha, alpha)),
    )  # fmt: skip
    assert_near(twice, one, 20)


def test_batch_normalisation_fails_that_law():
    """The test above can fail: BN couples the samples."""
    critic = nn.Sequential(nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1)).double()
    real, fake = images(4, 6)
    alpha = torch.rand(4, dtype=torch.float64)
    whole = ops.gradient_penalty(critic, real, fake, alpha=alpha)
    halves = [ops.gradient_penalty(critic, real[i], fake[i], alpha=alpha[i])
              for i in (slice(0, 2), slice(2, 4))]  # fmt: skip
    assert abs(whole - sum(halves) / 2) > 1e-3


@pytest.mark.parametrize(
    ("wrap", "pick"),
    [
        (lambda d: (d, "features"), lambda out: out[0]),
        (lambda d: {"score": d, "aux": None}, lambda out: out["score"]),
        (lambda d: d[:, 0], None),
        (lambda d: d.reshape(-1, 1, 1, 1), None),
    ],
)
def test_scores_may_be_picked_and_have_any_shape(wrap, pick):
    critic, (real, fake) = mlp(), images(5, 6)
    alpha = torch.rand(5, dtype=torch.float64)
    plain = ops.gradient_penalty(critic, real, fake, alpha=alpha)
    wrapped = lambda x: wrap(critic(x))  # noqa: E731
    assert_near(ops.gradient_penalty(wrapped, real, fake, alpha=alpha, output=pick), plain, 4)


def test_arguments_reach_the_critic():
    def critic(x, scale, *, shift):
        return (scale * x + shift).square().sum(1)

    real, fake = images(5, 6)
    alpha = torch.rand(5, dtype=torch.float64)
    ours = ops.gradient_penalty(
        critic, real, fake, alpha=alpha, critic_args=(2.0,), critic_kwargs={"shift": 1.0}
    )
    bound = ops.gradient_penalty(lambda x: critic(x, 2.0, shift=1.0), real, fake, alpha=alpha)
    assert_same_bits(ours, bound)


def test_works_under_no_grad_and_leaves_no_gradient_on_the_images():
    critic, (real, fake) = mlp(), images(5, 6)
    fake.requires_grad_()
    with torch.no_grad():
        penalty = ops.gradient_penalty(critic, real, fake)
    assert penalty.item() > 0
    ops.gradient_penalty(critic, real, fake).backward()
    assert fake.grad is None


def test_interpolate():
    real, fake = images(5, 3, 4, 4)
    alpha = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    points = ops.interpolate(real, fake, alpha=alpha)
    weight = alpha.reshape(-1, 1, 1, 1)
    assert_near(points.detach(), weight * real + (1 - weight) * fake, 4)
    assert_same_bits(points[0].detach(), fake[0])
    assert_same_bits(points[4].detach(), real[4])
    assert points.requires_grad
    assert points.is_leaf


def test_interpolate_draws_one_weight_per_sample():
    zeros, ones = torch.zeros(1000, 3, 4), torch.ones(1000, 3, 4)
    points = ops.interpolate(ones, zeros, generator=torch.Generator().manual_seed(0)).detach()
    weights = points[:, 0, 0]
    assert (points == weights[:, None, None]).all()
    assert weights.unique().numel() > 990
    assert 0 <= weights.min() < 0.01
    assert 0.99 < weights.max() < 1
    assert abs(weights.mean() - 0.5) < 0.05


def test_the_generator_decides_the_points():
    critic, (real, fake) = mlp(), images(5, 6)
    seeded = lambda seed: torch.Generator().manual_seed(seed)  # noqa: E731
    one, same, other = (
        ops.gradient_penalty(critic, real, fake, generator=seeded(s)) for s in (1, 1, 2)
    )
    assert_same_bits(one, same)
    assert one != other
    torch.manual_seed(5)
    first = ops.gradient_penalty(critic, real, fake)
    second = ops.gradient_penalty(critic, real, fake)
    torch.manual_seed(5)
    assert_same_bits(ops.gradient_penalty(critic, real, fake), first)
    assert first != second


REAL, FAKE = torch.zeros(4, 2), torch.ones(4, 2)


@pytest.mark.parametrize(
    ("real", "fake", "alpha", "error", "message"),
    [
        (REAL.byte(), FAKE, None, TypeError, "expected real as a float tensor, got torch.uint8"),
        (REAL, FAKE.int(), None, TypeError, "expected fake as a float tensor, got torch.int32"),
        (REAL, [1.0], None, TypeError, "expected fake as a float tensor, got list"),
        (REAL, FAKE[:3], None, ValueError, "expected fake with shape"),
        (REAL, FAKE.double(), None, ValueError, "expected fake with dtype torch.float32"),
        (REAL, FAKE.to("meta"), None, ValueError, "expected fake with device cpu"),
        (REAL[:0], FAKE[:0], None, ValueError, "expected at least one sample"),
        (REAL[0, 0], FAKE[0, 0], None, ValueError, "expected at least one sample"),
        (REAL, FAKE, torch.rand(4, 1), ValueError, r"alpha of shape \(4,\), one weight per s"),
        (REAL, FAKE, 0.5, TypeError, r"expected alpha as a \(4,\) tensor.*got float"),
        (REAL, FAKE, torch.rand(()), ValueError, r"alpha of shape \(4,\).*got \(\)"),
    ],
)
def test_bad_images(real, fake, alpha, error, message):
    for call in (lambda: ops.interpolate(real, fake, alpha=alpha),
                 lambda: ops.gradient_penalty(mlp(), real, fake, alpha=alpha)):  # fmt: skip
        with pytest.raises(error, match=message):
            call()


def under_no_grad(x):
    with torch.no_grad():
        return x.sum(1)


@pytest.mark.parametrize(
    ("critic", "kwargs", "error", "message"),
    [
        (lambda x: x.sum(1).detach(), {}, ValueError, "does not depend on its input"),
        (under_no_grad, {}, ValueError, "does not depend on its input"),
        (lambda x: torch.ones(4, requires_grad=True), {}, ValueError, "does not depend on its in"),
        (lambda x: x.sum(), {}, ValueError, r"scores of shape \(4, ...\).*got \(\)"),
        (lambda x: x[:3].sum(1), {}, ValueError, r"scores of shape \(4, ...\).*got \(3,\)"),
        (lambda x: (x, x), {}, TypeError, "return a tensor, got tuple; pick one with output="),
        (lambda x: x.sum(1) * 1j, {}, TypeError, "expected real scores, got torch.complex64"),
        (lambda x: x.sum(1), {"engine": "shared"}, ValueError, "engine 'auto', .* or 'tangent'"),
        (lambda x: x.sum(1), {"center": -1.0}, ValueError, "finite center >= 0, got -1.0"),
    ],
)
def test_bad_critics(critic, kwargs, error, message):
    with pytest.raises(error, match=message):
        ops.gradient_penalty(critic, REAL, FAKE, **kwargs)


def test_images_made_in_inference_mode_serve():
    with torch.inference_mode():
        real, fake = images(5, 6)
    critic, alpha = mlp(), torch.rand(5)
    for call in (
        lambda *pair: ops.gradient_penalty(critic, *pair, alpha=alpha),
        lambda *pair: ops.wgan_gp_loss(critic, *pair, alpha=alpha),
        lambda real, fake: ops.r1_penalty(critic, real) + ops.r2_penalty(critic, fake),
    ):
        assert_same_bits(call(real, fake), call(real.clone(), fake.clone()))


def test_no_implementation_is_replaced_in_silence():
    """use_impl reaches the reduction inside gradient_penalty."""
    pair = Backend("triton", "cpu")
    if pair.why_not() is None:
        pytest.skip("the interpreter can serve here")
    with ganops.use_impl("triton"), pytest.raises(RuntimeError, match="TRITON_INTERPRET"):
        ops.gradient_penalty(mlp(), *images(5, 6), alpha=torch.rand(5))
