"""Whole penalties on untouched critics: plain autograd's numbers, and the floor's cost."""

from __future__ import annotations

import threading

import critics
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ganops import ops


def images(batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 12, 12, generator=generator, dtype=torch.float64)


def plain_penalty(critic, points, center=1.0):
    """By the definition, in stock operations."""
    points = points.detach().requires_grad_()
    (grad,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    if center == 0:
        return grad.flatten(1).square().sum(1).mean() / 2
    return (grad.flatten(1).norm(dim=1) - center).square().mean()


def gradients(critic, loss):
    found = torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, critic.parameters())]


def assert_same(critic, ours, expected):
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-13)
    for name, a, b in zip(dict(critic.named_parameters()), gradients(critic, ours),
                          gradients(critic, expected)):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("engine", ["auto", "autograd"])
@pytest.mark.parametrize("name", critics.CRITICS)
def test_untouched_critics_give_plain_autograds_numbers(name, engine):
    critic, x = critics.make(name), images()
    before = {k: v.clone() for k, v in critic.state_dict().items()}
    assert_same(critic, ops.r1_penalty(critic, x, engine=engine), plain_penalty(critic, x, 0))
    alpha = torch.tensor([0.2, 0.5, 0.9])
    points = torch.lerp(images(seed=1), x, alpha.double().view(-1, 1, 1, 1))
    ours = ops.gradient_penalty(critic, x, images(seed=1), alpha=alpha, engine=engine)
    assert_same(critic, ours, plain_penalty(critic, points))
    assert all(torch.equal(v, before[k]) for k, v in critic.state_dict().items())


@pytest.mark.parametrize("name", ["dcgan", "residual", "borders", "in-place", "group-norm"])
def test_penalties_are_per_sample(name):
    critic, x = critics.make(name), images()
    twice = ops.gradient_penalty(critic, x.repeat(2, 1, 1, 1), x.repeat(2, 1, 1, 1))
    once = ops.gradient_penalty(critic, x, x)
    torch.testing.assert_close(twice, once)


def test_spectral_norm_in_training_mode_moves_once_per_call():
    found = []
    for engine in ("auto", "autograd"):
        critic = critics.make("residual-spectral").train()
        penalty = ops.r1_penalty(critic, images(), engine=engine)
        found.append([penalty, *gradients(critic, penalty), *critic.state_dict().values()])
    for a, b in zip(*found):
        torch.testing.assert_close(a, b)


# ---- scope ------------------------------------------------------------------------------------


def is_stock():
    x = torch.ones(1, 1, 3, 3, requires_grad=True)
    names = {type(f(x).grad_fn).__name__ for f in (F.relu, lambda t: F.conv2d(t, t))}
    return not names & {"ActivationBackward", "ConvBackward"}


def test_nothing_leaks_out_of_the_call():
    critic = critics.make("dcgan")
    assert is_stock()
    ops.r1_penalty(critic, images()).backward()
    assert is_stock()


def test_nothing_leaks_when_the_critic_raises():
    def critic(x):
        assert not is_stock()
        raise KeyError("the critic's own error")

    with pytest.raises(KeyError, match="own error"):
        ops.r1_penalty(critic, images())
    assert is_stock()


def test_nothing_leaks_into_other_threads():
    seen = []

    def critic(x):
        thread = threading.Thread(target=lambda: seen.append(is_stock()))
        thread.start()
        thread.join()
        seen.append(is_stock())
        return x.abs().sum((1, 2, 3))

    ops.r1_penalty(critic, images())
    assert seen == [True, False]


def test_a_penalty_inside_a_critic():
    inner = critics.make("dcgan")

    def critic(x):
        before = is_stock()
        slope = ops.r1_penalty(inner, images(2, seed=3))
        assert is_stock() == before
        return inner(x) * slope

    plain = plain_penalty(lambda x: inner(x) * plain_penalty(inner, images(2, seed=3), 0), images())
    assert_same(inner, ops.gradient_penalty(critic, images(), images()), plain)


def test_a_critic_that_differentiates_its_own_weights():
    critic = critics.make("mlp")

    def sharpness(x):
        grads = torch.autograd.grad(critic(x).sum(), list(critic.parameters()), create_graph=True)
        return critic(x).squeeze(1) + sum(g.square().sum() for g in grads)

    assert_same(critic, ops.r1_penalty(sharpness, images()), plain_penalty(sharpness, images(), 0))


def test_compositions_of_the_call():
    """functional_call, and vmap over samples."""
    critic, x = critics.make("dcgan"), images()

    def functional(t):
        return torch.func.functional_call(critic, dict(critic.named_parameters()), (t,))

    def one_by_one(t):
        return torch.func.vmap(lambda u: critic(u.unsqueeze(0)).squeeze(0))(t)

    expected = plain_penalty(critic, x, 0)
    assert_same(critic, ops.r1_penalty(functional, x), expected)
    assert_same(critic, ops.r1_penalty(one_by_one, x), plain_penalty(critic, x, 0))


def test_checkpointing_is_refused_by_auto_and_served_by_autograd():
    critic = critics.make("dcgan")

    def recomputing(x):
        return checkpoint(critic, x, use_reentrant=False)

    with pytest.raises(RuntimeError, match=r"r1_penalty: .* checkpointing .*engine='autograd'"):
        ops.r1_penalty(recomputing, images())
    assert is_stock()
    ours = ops.r1_penalty(recomputing, images(), engine="autograd")
    assert_same(critic, ours, plain_penalty(critic, images(), 0))


def test_saved_tensor_hooks_around_the_penalty():
    critic, moved = critics.make("dcgan"), []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: moved.append(1) or t, lambda t: t)
    with hooks:
        ours = ops.r1_penalty(critic, images())
    assert moved
    assert_same(critic, ours, plain_penalty(critic, images(), 0))


# ---- torch.compile ----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", "autograd"])
@pytest.mark.parametrize("around", [False, True])
def test_a_compiled_critic_is_refused(engine, around):
    torch.compiler.reset()
    compiled = torch.compile(critics.make("dcgan"), backend="aot_eager")
    critic = (lambda x: 2 * compiled(3 * x)) if around else compiled
    with pytest.raises(RuntimeError, match=r"r1_penalty: .*no double backward.*uncompiled"):
        ops.r1_penalty(critic, images(), engine=engine)


def test_a_critic_that_is_only_traced_is_right():
    torch.compiler.reset()
    critic = critics.make("dcgan")
    traced = torch.compile(critic, backend="eager")
    assert_same(critic, ops.r1_penalty(traced, images()), plain_penalty(critic, images(), 0))


@pytest.mark.parametrize("name", ["dcgan", "residual", "group-norm"])
def test_penalties_compile_whole(name):
    torch.compiler.reset()
    critic, x, alpha = critics.make(name), images(), torch.tensor([0.2, 0.5, 0.9]).double()
    compiled = torch.compile(
        lambda t: ops.r1_penalty(critic, t) + ops.gradient_penalty(critic, t, 2 * t, alpha=alpha),
        fullgraph=True,
        backend="aot_eager",
    )
    points = torch.lerp(2 * x, x, alpha.view(-1, 1, 1, 1))
    assert_same(critic, compiled(x), plain_penalty(critic, x, 0) + plain_penalty(critic, points))


# ---- conventions and errors -------------------------------------------------------------------


class Linear(nn.Module):
    def __init__(self, w, *shape):
        super().__init__()
        self.w, self.shape = nn.Parameter(torch.tensor(w, dtype=torch.float64)), shape

    def forward(self, x):
        return (x.flatten(1) @ self.w).view(-1, *self.shape)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_linear_critics_by_hand(shape):
    critic, x = Linear([3.0, 4.0], *shape), torch.zeros(5, 2, dtype=torch.float64)
    for penalty in (ops.r1_penalty, ops.r2_penalty):
        value = penalty(critic, x)
        assert value.item() == pytest.approx(12.5)
        assert gradients(critic, value)[0].tolist() == pytest.approx([3.0, 4.0])
    value = ops.dragan_penalty(critic, x)
    assert value.item() == pytest.approx(16.0)
    assert gradients(critic, value)[0].tolist() == pytest.approx([4.8, 6.4])
    assert ops.dragan_penalty(critic, x, center=7.0, one_sided=True).item() == 0.0


@pytest.mark.parametrize(
    ("how", "mean", "low", "high"),
    [({}, 0.125, 0.0, 0.5), ({"noise": "paper", "variance": 0.04}, 0.0, -9.0, 9.0),
     ({"noise": "compare_gan"}, 0.0, -0.5, 0.5)],
)  # fmt: skip
def test_dragan_variants_by_their_noise(how, mean, low, high):
    x = 0.5 + 0.05 * images(64)
    points = []

    def critic(t):
        points.append(t.detach())
        return t.flatten(1).sum(1)

    for _ in range(2):
        ops.dragan_penalty(critic, x, generator=torch.Generator().manual_seed(3), **how)
    assert torch.equal(*points)
    noise, std = points[0] - x, x.std(correction=0)
    scale = std if how.get("noise") != "paper" else torch.tensor(0.2)
    assert abs((noise.mean() / scale).item() - mean) < 0.02
    assert low * scale <= noise.min()
    assert noise.max() <= high * scale
    if how.get("noise") == "paper":
        assert noise.std().item() == pytest.approx(0.2, rel=0.02)
    if not how:
        assert noise.flatten(1).amax(1).std() > 0.05 * std  # alpha differs between samples


def test_scores_among_other_things():
    for form, pick in (("tuple", lambda out: out[0]), ("dict", lambda out: out["logits"])):
        critic = critics.Returns(form).double()
        ours = ops.r1_penalty(critic, images(), output=pick)
        assert_same(critic, ours, plain_penalty(lambda x, c=critic, p=pick: p(c(x)), images(), 0))
        with pytest.raises(TypeError, match=rf"to return a tensor, got {form}; pick one with"):
            ops.r1_penalty(critic, images())


def test_arguments_reach_the_critic():
    critic, labels = critics.make("projection"), torch.tensor([3, 1, 0])
    expected = plain_penalty(lambda x: critic(x, labels), images(), 0)
    assert_same(critic, ops.r1_penalty(critic, images(), critic_args=(labels,)), expected)
    expected = plain_penalty(lambda x: critic(x, labels), images(), 0)
    ours = ops.r1_penalty(critic, images(), critic_kwargs={"labels": labels})
    assert_same(critic, ours, expected)


PENALTIES = {
    "gradient_penalty": lambda c, x, **how: ops.gradient_penalty(c, x, x, **how),
    "r1_penalty": ops.r1_penalty,
    "r2_penalty": ops.r2_penalty,
    "dragan_penalty": ops.dragan_penalty,
}


@pytest.mark.parametrize("name", PENALTIES)
def test_one_clear_sentence_each(name):
    penalty, x, critic = PENALTIES[name], images(), critics.make("dcgan")
    with pytest.raises(TypeError, match=r"as a float tensor, got torch\.uint8"):
        penalty(critic, x.to(torch.uint8))
    with pytest.raises(ValueError, match=r"at least one sample, got \(0, 3, 12, 12\)"):
        penalty(critic, x[:0])
    with pytest.raises(ValueError, match=f"{name}: expected engine 'auto', .* got 'fast'"):
        penalty(critic, x, engine="fast")
    with pytest.raises(ValueError, match=rf"{name}: expected scores of shape \(3, ...\).*got \(\)"):
        penalty(lambda t: critic(t).mean(), x)
    for detached in (lambda t: critic(t.detach()), lambda t: critic(t).detach()):
        with pytest.raises(ValueError, match=f"{name}: .*does not depend on its input"):
            penalty(detached, x)


def test_dragan_checks_its_noise():
    x, critic = images(), critics.make("dcgan")
    with pytest.raises(ValueError, match="one of code, paper, compare_gan; got 'gauss'"):
        ops.dragan_penalty(critic, x, noise="gauss")
    for how in ({"noise": "paper"}, {"variance": 1.0}):
        with pytest.raises(ValueError, match="'paper' needs a variance"):
            ops.dragan_penalty(critic, x, **how)
    with pytest.raises(ValueError, match="finite variance > 0, got -1"):
        ops.dragan_penalty(critic, x, noise="paper", variance=-1.0)
