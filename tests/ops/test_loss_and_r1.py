"""loss_and_r1: plain autograd's numbers by one backward, or a refusal that names the reason."""

from __future__ import annotations

import warnings

import critics
import pytest
import torch
import torch.nn.functional as F
from counting import Counter
from torch import nn
from torch.utils.checkpoint import checkpoint

from ganops import ops
from ganops.ops.gradient_penalty import shared_delta

SHARED = ("dcgan", "mlp", "residual", "residual-in-place", "residual-spectral", "borders",
          "projection")  # fmt: skip
WEIGHTS = torch.tensor([1.0, 2.0, 0.3, 0.7], dtype=torch.float64)
LOSSES = {
    "softplus": lambda s: (F.softplus(-s.flatten()) * WEIGHTS).mean(),
    "hinge": lambda s: F.relu(1.0 - 3.0 * s).sum(),
    "linear": lambda s: -s.mean(),
    "mixing": lambda s: (s.flatten() - s.mean()).square().sum(),
}


@pytest.fixture(autouse=True)
def _warnings_again():
    shared_delta._warn_once.cache_clear()


def images(batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 12, 12, generator=generator, dtype=torch.float64)


def plain(critic, x, loss, gamma):
    """By the definition, in stock operations."""
    x = x.detach().requires_grad_()
    scores = critic(x)
    (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return loss(scores) + gamma * grad.flatten(1).square().sum(1).mean() / 2


def gradients(params, total, **how):
    found = torch.autograd.grad(total, params, allow_unused=True, **how)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, params)]


def assert_same(params, ours, expected, **how):
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-13)
    for a, b in zip(gradients(params, ours, **how), gradients(params, expected, **how)):
        assert (a - b).norm() <= 1e-10 * b.norm() + 1e-14


def quietly(critic, x, loss, gamma):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ops.loss_and_r1(critic, x, loss, gamma=gamma)


@pytest.mark.parametrize("name", critics.CRITICS)
def test_every_critic_gives_plain_autograds_numbers(name):
    critic, x, loss = critics.make(name), images(), LOSSES["softplus"]
    params, expected = list(critic.parameters()), plain(critic, x, loss, 0.7)
    assert_same(params, quietly(critic, x, loss, 0.7), expected)
    autograd = ops.loss_and_r1(critic, x, loss, gamma=0.7, engine="autograd")
    assert_same(params, autograd, plain(critic, x, loss, 0.7))
    if name in SHARED:
        shared = ops.loss_and_r1(critic, x, loss, gamma=0.7, engine="shared")
        assert_same(params, shared, plain(critic, x, loss, 0.7))
    else:
        with pytest.raises(RuntimeError, match=r"engine='shared' cannot serve this critic: .*Back"
                           r"ward|CopySlices"):  # fmt: skip
            ops.loss_and_r1(critic, x, loss, gamma=0.7, engine="shared")


@pytest.mark.parametrize("gamma", [0.0, 10.0])
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_and_weights(kind, gamma):
    critic, x, loss = critics.make("residual"), images(), LOSSES[kind]
    params = list(critic.parameters())
    ours = ops.loss_and_r1(critic, x, loss, gamma=gamma, engine="shared")
    assert_same(params, ours, plain(critic, x, loss, gamma))


def test_a_fallback_warns_once_for_each_reason():
    silu, dcgan = critics.make("silu"), critics.make("dcgan")
    limit = nn.Parameter(torch.tensor(3.0).double())
    clamped = lambda t: dcgan(t).clamp(max=limit)  # noqa: E731
    with pytest.warns(UserWarning, match=r"loss_and_r1: .*SiluBackward0"):
        ops.loss_and_r1(silu, images(), LOSSES["linear"], gamma=1.0)
    with pytest.warns(UserWarning, match=r"ClampBackward\d takes a parameter"):
        ops.loss_and_r1(clamped, images(), LOSSES["linear"], gamma=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for critic in (silu, clamped):
            ops.loss_and_r1(critic, images(), LOSSES["linear"], gamma=1.0)
        for critic, engine in (("silu", "autograd"), ("dcgan", "auto")):
            ops.loss_and_r1(critics.make(critic), images(), LOSSES["linear"], gamma=1.0,
                            engine=engine)  # fmt: skip


@pytest.mark.parametrize("name", [*SHARED, "silu"])
def test_the_critic_runs_forward_once(name):
    critic, calls = critics.make(name), []

    def counted(x):
        calls.append(1)
        return critic(x)

    quietly(counted, images(), LOSSES["softplus"], 1.0).backward()
    assert len(calls) == 1


# ---- what may be done with the result ---------------------------------------------------------


def shared(critic, x=None, loss=LOSSES["softplus"], gamma=0.7):
    return ops.loss_and_r1(critic, images() if x is None else x, loss, gamma=gamma, engine="shared")


def test_scaled_and_added_to_other_losses():
    critic = critics.make("residual")
    params = list(critic.parameters())

    def other(c):
        return c(images(seed=1)).exp().mean() + sum(p.square().sum() for p in c.parameters())

    ours = 0.5 * shared(critic) + 65536.0 * shared(critic, images(seed=2)) + other(critic)
    expected = (
        0.5 * plain(critic, images(), LOSSES["softplus"], 0.7)
        + 65536.0 * plain(critic, images(seed=2), LOSSES["softplus"], 0.7)
        + other(critic)
    )
    assert_same(params, ours, expected)


def test_backward_accumulates_and_takes_inputs():
    critic = critics.make("dcgan")
    params = list(critic.parameters())
    expected = gradients(params, plain(critic, images(), LOSSES["softplus"], 0.7))
    for p in params:
        p.grad = torch.ones_like(p)
    shared(critic).backward()
    for p, e in zip(params, expected):
        torch.testing.assert_close(p.grad, 1 + e)
        p.grad = None
    for i in (0, 1, 2, len(params) - 1):
        shared(critic).backward(inputs=[params[i]])
        torch.testing.assert_close(params[i].grad, expected[i], rtol=1e-10, atol=1e-14)
        assert all(p.grad is None for j, p in enumerate(params) if j != i)
        params[i].grad = None


def test_twice_through_one_graph():
    critic = critics.make("mlp")
    params = list(critic.parameters())
    total, other = shared(critic), shared(critic, images(seed=1))
    expected = plain(critic, images(), LOSSES["softplus"], 0.7)
    assert_same(params, total, expected, retain_graph=True)
    assert_same(params, 3 * total - other, 3 * expected - plain(
        critic, images(seed=1), LOSSES["softplus"], 0.7))  # fmt: skip
    with pytest.raises(RuntimeError, match="second time"):
        total.backward()


def test_a_further_derivative_is_refused():
    critic = critics.make("dcgan")
    with pytest.raises(RuntimeError, match=r"order 2 was asked for; use engine='autograd'"):
        torch.autograd.grad(shared(critic), list(critic.parameters()), create_graph=True)


@pytest.mark.parametrize("frozen", [(0,), (1, 2), (0, 1, 3)])
def test_frozen_parameters(frozen):
    critic = critics.make("dcgan")
    for i, p in enumerate(critic.parameters()):
        p.requires_grad_(i not in frozen)
    params = [p for p in critic.parameters() if p.requires_grad]
    assert_same(params, shared(critic), plain(critic, images(), LOSSES["softplus"], 0.7))
    assert all(p.grad is None for p in critic.parameters())


def test_a_frozen_critic_under_a_loss_with_parameters():
    critic, scale = critics.make("dcgan").requires_grad_(False), torch.tensor(2.0).requires_grad_()
    total = shared(critic, loss=lambda s: (scale * s).square().mean())
    (grad,) = torch.autograd.grad(total, scale)
    torch.testing.assert_close(grad, 4 * critic(images()).square().mean().to(grad))


def test_a_loss_with_parameters_and_a_graph_of_its_own():
    critic, scale = critics.make("residual"), torch.tensor(2.0).double().requires_grad_()
    fake = images(seed=3)

    def loss(scores):
        return F.softplus(critic(fake) - scale * scores).mean()  # relativistic

    params = [scale, *critic.parameters()]
    assert_same(params, shared(critic, loss=loss), plain(critic, images(), loss, 0.7))


def test_values_taken_out_of_the_critic():
    """Feature matching beside the loss: their gradient takes the critic's ordinary graph."""
    critic = critics.make("dcgan")
    features = []
    critic[2].register_forward_hook(lambda module, inputs, out: features.append(out))
    params = list(critic.parameters())
    ours = shared(critic, loss=lambda s: s.mean() + features[-1].square().mean())
    ours = ours + features[-1].abs().sum()
    expected = plain(critic, images(), lambda s: s.mean() + features[-1].square().mean(), 0.7)
    expected = expected + features[-1].abs().sum()
    assert_same(params, ours, expected)


def test_shared_weights_and_parametrised_weights():
    torch.manual_seed(0)
    block = nn.Conv2d(5, 5, 3, padding=1).double()
    first, last = nn.Conv2d(3, 5, 3).double(), nn.Linear(5, 1).double()
    gain = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def critic(x):
        h = block(torch.relu(block(torch.relu(first(x))))) + first(x)
        h = F.conv2d(h, gain * block.weight.sin(), block.bias)
        return last(h.abs().mean((2, 3)))

    params = [gain, *block.parameters(), *first.parameters(), *last.parameters()]
    assert_same(params, shared(critic), plain(critic, images(), LOSSES["softplus"], 0.7))


def test_hooks_on_parameters_see_the_whole_gradient_once():
    critic, seen = critics.make("dcgan"), []
    critic[0].weight.register_hook(seen.append)
    shared(critic).backward()
    (expected, *_) = gradients(
        list(critic.parameters()), plain(critic, images(), LOSSES["softplus"], 0.7)
    )
    torch.testing.assert_close(seen[0], expected, rtol=1e-10, atol=1e-14)


def test_autocast_and_channels_last():
    critic, images_ = critics.make("residual").float(), images().float()
    params = list(critic.parameters())
    loss = lambda s: F.softplus(-s).mean()  # noqa: E731
    for x in (images_, images_.contiguous(memory_format=torch.channels_last)):
        expected = gradients(params, plain(critic, x, loss, 0.7))
        with torch.autocast("cpu", torch.bfloat16):
            low = shared(critic, x, loss)
        for found, bound in ((gradients(params, shared(critic, x, loss)), 1e-4),
                             (gradients(params, low), 0.1)):  # fmt: skip
            for a, b in zip(found, expected):
                assert (a - b).norm() <= bound * b.norm() + 1e-6


# ---- cost -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dcgan", "mlp", "residual", "residual-in-place"])
def test_loss_and_r1_cost_four_forwards_exactly(name):
    critic, x = critics.make(name), images()
    last = {"dcgan": 8 * 9, "mlp": 16}.get(name, 6) * 2 * len(x)
    with torch.no_grad(), Counter() as forward:
        critic(x)
    total = None
    with Counter() as counter:
        total = shared(critic, x)
        total.backward()
    assert counter.flops == 4 * forward.flops - last


# ---- errors -----------------------------------------------------------------------------------


def test_bad_arguments():
    critic, x = critics.make("dcgan"), images()
    for gamma in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="finite gamma >= 0, got"):
            ops.loss_and_r1(critic, x, LOSSES["linear"], gamma=gamma)
    with pytest.raises(ValueError, match=r"'auto', 'autograd' or 'shared', got 'tangent'"):
        ops.loss_and_r1(critic, x, LOSSES["linear"], gamma=1.0, engine="tangent")
    for loss, got in ((lambda s: s, r"\(4, 1, 1, 1\)"), (lambda s: 1.0, "float")):
        with pytest.raises(ValueError, match=f"loss to return a scalar tensor, got {got}"):
            ops.loss_and_r1(critic, x, loss, gamma=1.0)
    with pytest.raises(TypeError, match=r"expected x as a float tensor, got torch\.uint8"):
        ops.loss_and_r1(critic, x.byte(), LOSSES["linear"], gamma=1.0)
    with pytest.raises(ValueError, match="does not depend on its input"):
        ops.loss_and_r1(lambda t: critic(t.detach()), x, LOSSES["linear"], gamma=1.0)
    patches = nn.Conv2d(3, 1, 5).double()
    with pytest.raises(RuntimeError, match=r"shape \(4, 1, 8, 8\), more than one number a sample"):
        shared(patches)
    assert_same(list(patches.parameters()), quietly(patches, x, LOSSES["linear"], 0.7),
                plain(patches, x, LOSSES["linear"], 0.7))  # fmt: skip


def test_hooks_on_inner_tensors_and_saved_tensors():
    critic, x, loss = critics.make("dcgan"), images(), LOSSES["softplus"]
    params = list(critic.parameters())

    def clipping(t):
        h = critic[0](t)
        h.register_hook(lambda g: g.clamp(-1e-3, 1e-3))
        return critic[1:](h)

    with pytest.raises(RuntimeError, match="registers hooks on tensors"):
        shared(clipping)
    assert_same(params, quietly(clipping, x, loss, 0.7), plain(clipping, x, loss, 0.7))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        with pytest.raises(RuntimeError, match="saved-tensor hooks are active around it"):
            shared(critic)
        assert_same(params, quietly(critic, x, loss, 0.7), plain(critic, x, loss, 0.7))
    with pytest.raises(RuntimeError, match=r"checkpointing .*engine='autograd'"):
        shared(lambda t: checkpoint(critic, t, use_reentrant=False))


def test_a_critic_under_vmap_falls_back():
    critic, x, loss = critics.make("dcgan"), images(), LOSSES["linear"]
    critic[1].inplace = False

    def one_by_one(t):
        return torch.func.vmap(lambda u: critic(u.unsqueeze(0)).squeeze(0))(t)

    with pytest.warns(UserWarning, match="VmappedConvBackward is not known"):
        ours = ops.loss_and_r1(one_by_one, x, loss, gamma=0.7)
    assert_same(list(critic.parameters()), ours, plain(critic, x, loss, 0.7))


def test_inside_torch_compile():
    torch.compiler.reset()
    critic, x, loss = critics.make("residual"), images(), LOSSES["softplus"]
    compiled = torch.compile(lambda t: ops.loss_and_r1(critic, t, loss, gamma=0.7),
                             fullgraph=True, backend="aot_eager")  # fmt: skip
    assert_same(list(critic.parameters()), compiled(x), plain(critic, x, loss, 0.7))
