"""The whole critic loss: its parts' numbers, and one pass only where that changes none."""

from __future__ import annotations

import critics
import pytest
import torch
from counting import Counter
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ganops import ops

ALPHA = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)


def images(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 3, 12, 12, generator=generator, dtype=torch.float64)


REAL, FAKE = images(0), images(1)


def plain(critic, weight=10.0):
    points = torch.lerp(FAKE, REAL, ALPHA.view(-1, 1, 1, 1)).requires_grad_()
    (grad,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    penalty = (grad.flatten(1).norm(dim=1) - 1).square().mean()
    return critic(FAKE).mean() - critic(REAL).mean() + weight * penalty


def batches(critic, **how):
    """The loss, and the sizes of the batches that the critic saw."""
    seen = []

    def note(out):  # not a hook, which would be a reason to go twice
        seen.append(len(out))
        return out

    return ops.wgan_gp_loss(critic, REAL, FAKE, alpha=ALPHA, output=note, **how), seen


def assert_same(critic, ours, expected):
    params = list(critic.parameters())
    both = [torch.autograd.grad(t, params, allow_unused=True) for t in (ours, expected)]
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-13)
    for p, *pair in zip(params, *both):
        a, b = (torch.zeros_like(p) if g is None else g for g in pair)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", critics.CRITICS)
def test_every_critic_gives_the_parts_numbers(name):
    critic = critics.make(name)
    assert_same(critic, batches(critic, weight=3.0)[0], plain(critic, 3.0))


def between(*modules):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 4, 4), *modules, nn.Conv2d(4, 1, 3), nn.Flatten(0)
    ).double()


@pytest.mark.parametrize(
    ("critic", "together"),
    [
        (between(nn.LeakyReLU(0.2), nn.Dropout(0.0)), True),
        (between(nn.InstanceNorm2d(4, affine=True), nn.SiLU()), True),
        (between(nn.BatchNorm2d(4)).eval(), True),
        (between(spectral_norm(nn.Conv2d(4, 4, 1))).eval(), True),
        (between(nn.BatchNorm2d(4)), False),
        (between(nn.BatchNorm2d(4, track_running_stats=False)).eval(), False),
        (between(nn.Softmax(0)), False),
        (critics.make("minibatch-std"), False),
        (critics.make("residual"), False),
    ],
)
def test_one_pass_where_samples_are_surely_apart(critic, together):
    loss, seen = batches(critic)
    assert seen == ([6, 3] if together else [3, 3, 3])
    assert_same(critic, loss, plain(critic))


def test_what_only_looks_safe_goes_twice():
    """Modules of torch's that mix rows, a user's file named like torch's, further arguments."""
    real, fake = REAL[:, 0, 0, :5], FAKE[:, 0, 0, :5]
    seen = []

    class Mean(nn.Module):
        def forward(self, x):
            return x - x.mean(0)

    Mean.__module__ = "mine.linear"

    def saw(critic, **how):
        seen.clear()
        pick = how.pop("output", lambda out: out)  # a hook would be a reason of its own
        how["output"] = lambda out: seen.append(len(pick(out))) or pick(out)
        ops.wgan_gp_loss(critic.double(), real, fake, alpha=ALPHA, **how)
        return seen

    assert saw(nn.RNN(5, 1), output=lambda out: out[0]) == [3, 3, 3]
    assert saw(nn.Sequential(nn.Linear(5, 4), Mean(), nn.Linear(4, 1))) == [3, 3, 3]
    assert saw(nn.Bilinear(5, 5, 1), critic_args=(fake,)) == [3, 3, 3]
    assert saw(nn.Linear(5, 1)) == [6, 3]


def test_the_caller_may_decide():
    critic = critics.make("residual")
    loss, seen = batches(critic, batched=True)
    assert seen == [6, 3]
    assert_same(critic, loss, plain(critic))
    assert batches(between(), batched=False)[1] == [3, 3, 3]


def test_further_arguments():
    critic, labels = critics.make("projection"), torch.tensor([3, 1, 0])
    loss, seen = batches(critic, critic_args=(labels,))
    assert seen == [3, 3, 3]
    assert_same(critic, loss, plain(lambda x: critic(x, labels)))
    with pytest.raises(ValueError, match="no critic_args or critic_kwargs with batched=True"):
        batches(critic, critic_args=(labels,), batched=True)


def test_ten_forwards():
    critic = critics.make("dcgan")
    with torch.no_grad(), Counter() as forward:
        critic(REAL)
    with Counter() as counter:
        batches(critic)[0].backward()
    first = 2 * 3 * 4 * 3 * 16 * 36  # real and fake need no gradient of the images
    last = 2 * 3 * 8 * 9  # no tangent of the last layer
    assert counter.flops == 10 * forward.flops - 2 * first - last


def test_inside_torch_compile():
    torch.compiler.reset()
    critic = critics.make("dcgan")
    compiled = torch.compile(lambda x, y: ops.wgan_gp_loss(critic, x, y, alpha=ALPHA),
                             fullgraph=True, backend="aot_eager")  # fmt: skip
    assert_same(critic, compiled(REAL, FAKE), plain(critic))


def test_bad_arguments():
    critic = critics.make("dcgan")
    with pytest.raises(ValueError, match="wgan_gp_loss: expected engine 'auto'"):
        ops.wgan_gp_loss(critic, REAL, FAKE, engine="fast")
    with pytest.raises(ValueError, match="expected fake with shape"):
        ops.wgan_gp_loss(critic, REAL, FAKE[:2])
    with pytest.raises(ValueError, match=r"scores of shape \(3, ...\)"):
        ops.wgan_gp_loss(lambda x: critic(x).mean(), REAL, FAKE)


def _mixing(module, inputs, output):
    return output - output.mean(0)


@pytest.mark.parametrize("how", ["hook", "pre-hook", "forward", "softmax2d"])
def test_what_may_mix_samples_is_not_batched(how):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 1)).double()
    if how == "hook":
        net[1].register_forward_hook(_mixing)
    elif how == "pre-hook":
        net[1].register_forward_pre_hook(lambda m, inputs: (inputs[0] - inputs[0].mean(0),))
    elif how == "forward":
        net[1].forward = lambda x: (x - x.mean(0)).relu()
    else:
        net = nn.Sequential(nn.Softmax2d(), nn.Flatten(), nn.Linear(432, 1)).double()
    real, fake = (torch.randn(3, 3, 12, 12, dtype=torch.float64) for _ in range(2))
    alpha = torch.rand(3)
    ours = ops.wgan_gp_loss(net, real, fake, alpha=alpha)
    torch.testing.assert_close(ours, ops.wgan_gp_loss(net, real, fake, alpha=alpha, batched=False))
    if how == "softmax2d":
        from ganops.ops.gradient_penalty.wgan_gp import _treats_samples_one_by_one

        assert not _treats_samples_one_by_one(net)


def test_twins_are_batched_as_their_originals_are():
    import ganops
    from ganops.ops.gradient_penalty.wgan_gp import _treats_samples_one_by_one

    net = ganops.optimize(critics.make("dcgan"), verbose=False)
    assert _treats_samples_one_by_one(net)
    assert not _treats_samples_one_by_one(
        ganops.optimize(critics.make("batch-norm-train"), verbose=False)
    )
