"""nn.batch_spectral_norm: stock networks, the same numbers, one iteration a forward."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ganops import ops
from ganops.nn import batch_spectral_norm, optimize


class Critic(nn.Module):
    """Convolutions of both kinds, a linear layer and an embedding (projection), all normalised."""

    def __init__(self):
        super().__init__()
        self.conv = spectral_norm(nn.Conv2d(3, 4, 3, padding=1))
        self.up = spectral_norm(nn.ConvTranspose2d(4, 4, 2, stride=2), dim=1)
        self.body = nn.Sequential(nn.LeakyReLU(0.2), spectral_norm(nn.Conv2d(4, 6, 3), eps=1e-6))
        self.last = spectral_norm(nn.Linear(6, 1), n_power_iterations=2)
        self.classes = spectral_norm(nn.Embedding(5, 6))
        self.plain = nn.Linear(6, 6)

    def forward(self, x):
        h = self.plain(self.body(self.up(self.conv(x))).mean((2, 3)))
        y = torch.arange(len(x)) % 5
        return self.last(h).squeeze(1) + (self.classes(y) * h).sum(1)


def pair():
    """A stock critic, and its batched copy."""
    torch.manual_seed(0)
    stock = Critic().double()
    return stock, batch_spectral_norm(copy.deepcopy(stock))


def images(seed=1):
    return torch.randn(4, 3, 6, 6, dtype=torch.float64,
                       generator=torch.Generator().manual_seed(seed))  # fmt: skip


def vectors(critic):
    return {k: v.clone() for k, v in critic.state_dict().items() if k.endswith(("_u", "_v"))}


def moved(before, critic):
    """Did every vector move? Those of a single row are there from the start."""
    several = {k: v for k, v in vectors(critic).items() if not k.startswith("last")}
    return not any(torch.equal(before[k], v) for k, v in several.items())


def assert_same_state(a, b):
    assert list(a.state_dict()) == list(b.state_dict())
    for key, value in a.state_dict().items():
        torch.testing.assert_close(b.state_dict()[key], value, rtol=1e-12, atol=1e-14, msg=key)


def test_the_same_numbers_as_stock_over_training_steps():
    stock, ours = pair()
    optimizers = [torch.optim.Adam(c.parameters(), 1e-2) for c in (stock, ours)]
    for step in range(4):
        losses = []
        for critic, optimizer in zip((stock, ours), optimizers):
            x = images(step).requires_grad_()
            scores = critic(x)
            (g,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
            fake = critic(images(step + 10))  # a second forward in the same graph
            loss = (1 - scores).relu().mean() + (1 + fake).relu().mean() + g.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-10, atol=0)
    for a, b in zip(stock.parameters(), ours.parameters()):
        torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-9)


def test_state_and_parameters_keep_their_names():
    stock, ours = pair()
    assert [n for n, _ in stock.named_parameters()] == [n for n, _ in ours.named_parameters()]
    stock(images())
    ours(images())
    assert_same_state(stock, ours)
    fresh = batch_spectral_norm(Critic().double())
    fresh.load_state_dict(stock.state_dict())
    torch.testing.assert_close(fresh.eval()(images()), stock.eval()(images()))


def test_eval_leaves_the_vectors():
    stock, ours = pair()
    before = vectors(ours)
    x = images()
    torch.testing.assert_close(ours.eval()(x), stock.eval()(x))
    assert all(torch.equal(before[k], v) for k, v in vectors(ours).items())
    ours.train()(x)
    assert moved(before, ours)


def test_a_layer_in_eval_within_a_critic_in_training():
    stock, ours = pair()
    for critic in (stock, ours):
        critic.train().body.eval()
        critic(images())
    assert_same_state(stock, ours)


class Twice(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(self.layer(x))


def test_a_second_use_in_one_forward_does_not_iterate():
    torch.manual_seed(0)
    layer = spectral_norm(nn.Linear(3, 3).double())
    once = copy.deepcopy(layer)
    root = batch_spectral_norm(Twice(layer))
    x = torch.randn(2, 3, dtype=torch.float64)
    root(x)
    once(x)
    assert_same_state(once, layer)
    root(x)
    before = vectors(root)
    once(x)
    assert all(torch.equal(before[k], v) for k, v in vectors(root).items())
    assert_same_state(once, layer)


def test_a_weight_read_outside_the_root_is_stocks():
    stock, ours = pair()
    for critic in (stock, ours):
        critic.conv(images())
        _ = critic.last.weight
    assert_same_state(stock, ours)


class PartlyWithoutGradient(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = spectral_norm(nn.Linear(3, 3))
        self.b = spectral_norm(nn.Linear(3, 1))

    def forward(self, x):
        with torch.no_grad():
            first = self.a(x)  # computes all, without a graph
        return self.b(self.a(x) + first)


def test_a_first_use_without_gradient_costs_no_gradient_later():
    torch.manual_seed(0)
    root = batch_spectral_norm(PartlyWithoutGradient())
    root.a.parametrizations.weight[0].get_buffer("_v").copy_(torch.tensor([0.6, 0.0, 0.8]))
    reference = copy.deepcopy(root)
    root(torch.ones(2, 3)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in root.parameters())
    with torch.no_grad():
        reference(torch.ones(2, 3))
    assert_same_state(reference, root)  # and no iteration more


class AnotherTensor(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = spectral_norm(nn.Linear(3, 2))

    def forward(self, x):
        other = {"parametrizations.weight.original": torch.eye(3)[:2] * 5}
        return self.a(x), torch.func.functional_call(self.a, other, (x,))


def test_another_tensor_in_the_same_forward_is_normalised_itself():
    torch.manual_seed(0)
    root = batch_spectral_norm(AnotherTensor())
    own, other = root(torch.eye(3))
    u, v = (root.a.parametrizations.weight[0].get_buffer(name) for name in ("_u", "_v"))
    weight = torch.eye(3)[:2] * 5
    expected = (weight / (u @ weight @ v)).T + root.a.bias
    torch.testing.assert_close(other, expected)
    assert not torch.allclose(own, other)


def test_an_exception_in_forward_ends_the_forward():
    _, ours = pair()
    with pytest.raises(RuntimeError):
        ours(torch.ones(4, 2, 6, 6, dtype=torch.float64))
    before = vectors(ours)
    ours(images())
    assert moved(before, ours)


def test_copies_do_not_share_anything():
    _, ours = pair()
    twin = copy.deepcopy(ours)
    before = vectors(ours)
    twin(images())
    assert all(torch.equal(before[k], v) for k, v in vectors(ours).items())
    ours(images())
    assert_same_state(ours, twin)


def test_functional_call():
    stock, ours = pair()
    x = images()
    results = []
    for critic in (stock, ours):
        parameters = {n: p.detach() * 1.5 for n, p in critic.named_parameters()}
        buffers = {n: b.clone() for n, b in critic.named_buffers()}
        with torch.no_grad():
            results.append(torch.func.functional_call(critic, {**parameters, **buffers}, (x,)))
    torch.testing.assert_close(results[1], results[0])
    assert_same_state(stock, ours)


def test_input_penalty_by_the_op():
    stock, ours = pair()
    results = []
    for critic in (stock, ours):
        value = ops.gradient_penalty(
            critic, images(1), images(2), alpha=torch.full((4,), 0.3).double()
        )
        value.backward()
        results.append((value.detach(), critic.conv.parametrizations.weight.original.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("first", [batch_spectral_norm, partial(optimize, verbose=False)])
def test_together_with_optimize(first):
    torch.manual_seed(0)
    stock = Critic().double()
    ours = first(copy.deepcopy(stock))
    ours = (
        optimize(ours, verbose=False) if first is batch_spectral_norm else batch_spectral_norm(ours)
    )
    results = []
    for critic in (stock, ours):
        x = images().requires_grad_()
        (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        g.square().sum().backward()
        results.append(
            [torch.zeros_like(p) if p.grad is None else p.grad for p in critic.parameters()]
        )
    assert type(ours.conv).__mro__[1].__module__ == "ganops.nn.layers"
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-12)
    assert_same_state(stock, ours)


def test_compiled_forward():
    stock, ours = pair()
    ours.eval(), stock.eval()
    compiled = torch.compile(ours, backend="aot_eager")
    torch.testing.assert_close(compiled(images()), stock(images()))
    torch._dynamo.reset()


def test_a_penalty_in_a_compiled_step():
    (stock, ours), found = pair(), []
    step = torch.compile(ops.r1_penalty, fullgraph=True, backend="aot_eager")
    for critic in (stock, ours):
        weight = critic.conv.parametrizations.weight.original
        found.append(torch.autograd.grad(step(critic, images()), weight))
    torch.testing.assert_close(*found)
    assert_same_state(stock, ours)
    torch._dynamo.reset()


def test_nothing_to_batch():
    with pytest.raises(ValueError, match=r"expected layers under .*spectral_norm.*in Linear"):
        batch_spectral_norm(nn.Linear(2, 2))
    _, ours = pair()
    with pytest.raises(ValueError, match="not batched yet"):
        batch_spectral_norm(ours)


def test_removal_gives_the_plain_layer_back():
    _, ours = pair()
    ours.eval()
    expected = ours.conv.weight.detach().clone()
    nn.utils.parametrize.remove_parametrizations(ours.conv, "weight")
    torch.testing.assert_close(ours.conv.weight.detach(), expected)
