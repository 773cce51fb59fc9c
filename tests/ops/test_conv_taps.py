"""A convolution in two autograd nodes: nobody computes a weight gradient that nobody reads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from counting import Counter, Peak
from torch import nn
from torch.utils.checkpoint import checkpoint

import ganops
from ganops import ops
from ganops.ops.conv import taps


def leaves(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
            for s in ((2, 3, 6, 5), (3, 3, 3, 3), (3,))]  # fmt: skip


WIRINGS = {
    "plain": lambda conv, x, w, b: conv(x, w, b),
    "one weight, two uses": lambda conv, x, w, b: conv(conv(x, w, b, padding=1).tanh(), w),
    "a weight made of the input": lambda conv, x, w, b: conv(x, w * x.mean(), b),
    "the input as its own filter": lambda conv, x, w, b: conv(x, x[:, :, :3, :2], b[:2]),
    "a weight that is a view": lambda conv, x, w, b: conv(x, w.flip(0).transpose(0, 1), b),
    "written to": lambda conv, x, w, b: conv(x, w, b).mul_(2).tanh(),
    "written to, all linear": lambda conv, x, w, b: conv(x, w, b).mul_(2),
    "frozen weight": lambda conv, x, w, b: conv(x, w.detach(), b) * w.sum(),
    "frozen bias": lambda conv, x, w, b: conv(x, w, b.detach()) * b.sum(),
    "one sample without a batch": lambda conv, x, w, b: conv(x[0], w, b),
}


def three_gradients(f, inputs):
    """Of a function, of a penalty made of the first, and of one made of the second."""
    found, total = [], f(*inputs).square().sum()
    for _ in range(3):
        grads = torch.autograd.grad(total, inputs, create_graph=True, materialize_grads=True)
        found.append(grads)
        total = sum((g**2).sum() for g in grads)
    return found


@pytest.mark.parametrize("name", WIRINGS)
def test_every_wiring_has_torchs_gradients(name):
    inputs = leaves()
    ours, stock = (three_gradients(lambda *t, c=c: WIRINGS[name](c, *t), inputs)
                   for c in (ops.conv2d, F.conv2d))  # fmt: skip
    for order, (got, expected) in enumerate(zip(ours, stock)):
        for a, b in zip(got, expected):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=f"order {order + 1}")


@pytest.mark.parametrize(("wanted", "calls"), [("x", 1), ("w", 2), ("b", 2), ("xw", 2), ("y", 0)])
@pytest.mark.parametrize("further", [False, True])
def test_the_engine_runs_what_is_wanted(wanted, calls, further):
    """The way to the weights' node is by the input's, as in a critic whose earlier layers want dx;
    the weights' node makes both its gradients."""
    tensors = dict(zip("xwb", leaves()))
    y = tensors["y"] = ops.conv2d(*tensors.values())
    with Counter() as counter:
        torch.autograd.grad(y.sum(), [tensors[k] for k in wanted], create_graph=further)
    assert counter.calls == calls


def test_one_node_where_there_is_nothing_to_prune():
    x, w, b = leaves()
    assert "ByInput" in ops.conv2d(x, w, b).grad_fn.name()
    assert "ByInput" in ops.conv_transpose2d(x, w, b).grad_fn.name()
    assert "Conv" in ops.conv2d(x.detach(), w, b).grad_fn.name()
    assert "Conv" in ops.conv2d(x, w.detach(), b.detach()).grad_fn.name()
    with torch.no_grad():
        assert ops.conv2d(x, w, b).grad_fn is None
    split = [taps._splits(x, w, b)]
    torch.func.grad(lambda t: split.append(taps._splits(t, w, b)) or t.sum())(x)
    torch.func.vmap(lambda t: split.append(taps._splits(x, w, b)) or t)(x)
    with torch.autograd.forward_ad.dual_level():
        for k in range(3):
            inputs = [x, w, b]
            inputs[k] = torch.autograd.forward_ad.make_dual(inputs[k], inputs[k].detach())
            split.append(taps._splits(*inputs))
            y = ops.conv2d(*inputs)
            assert torch.autograd.forward_ad.unpack_dual(y).tangent is not None
    assert split == [True] + [False] * 5


def penalty(critic, x):
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (grad.flatten(1).norm(dim=1) - 1).square().mean()


def critic(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 8, 4, 2, 1),
        nn.LeakyReLU(0.2, True), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 1, 4),
    ).to(dtype)  # fmt: skip


def images(dtype=torch.float64):
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).to(dtype)


def test_a_training_step_costs_what_torchs_does():
    """Three forwards, less the first layer's gradient to the images; and no more memory."""
    found = []
    for net in (critic(), ganops.optimize(critic(), verbose=False)):
        with Counter() as counter, Peak() as peak:
            net(images()).square().mean().backward()
        found.append((counter.calls, counter.flops, peak.peak))
    assert found[0][:2] == found[1][:2] == (11, found[0][1])
    assert found[1][2] <= found[0][2]


def test_memory_is_that_of_one_node(monkeypatch):
    """dy goes to the weights' node, and waits for nobody there."""
    found = []
    for splits in (taps._splits, lambda *_: False):
        monkeypatch.setattr(taps, "_splits", splits)
        net = ganops.optimize(critic(), verbose=False)
        for step in (lambda net: net(images()).square().mean(), lambda net: penalty(net, images())):
            with Counter(), Peak() as peak:
                step(net).backward()
            found.append(peak.peak)
    assert found[:2] == found[2:]


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant):
    expected, net = critic(), ganops.optimize(critic(), verbose=False)
    expected(images()).square().mean().backward()
    x = images().requires_grad_()
    checkpoint(net, x, use_reentrant=reentrant).square().mean().backward()
    for a, b in zip(net.parameters(), expected.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-14)


def test_a_penalty_of_a_checkpointed_critic():
    expected, net = critic(), ganops.optimize(critic(), verbose=False)
    penalty(expected, images()).backward()
    penalty(lambda x: checkpoint(net, x, use_reentrant=False), images()).backward()
    for a, b in zip(net.parameters(), expected.parameters()):
        if b.grad is not None and b.grad.any():
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-11, atol=1e-13)


def test_saved_tensors_are_read_once():
    packed, read = [], []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: packed.append(t) or len(packed) - 1, lambda i: read.append(i) or packed[i]
    ):
        total = ops.conv2d(*leaves()).sum()
    total.backward()
    assert sorted(read) == list(range(len(packed)))


def test_hooks_see_the_sum_once():
    seen = []
    for conv in (ops.conv2d, F.conv2d):
        x, w, b = leaves()
        scaled = 2 * w
        for t in (x, w, b, scaled):
            t.register_hook(lambda g: seen.append(g))
        w.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
        (conv(conv(x, scaled, b, padding=1), scaled).sum()).backward()
    ours, stock = (sorted(part, key=lambda g: (g.numel(), g.sum().item()))
                   for part in (seen[: len(seen) // 2], seen[len(seen) // 2 :]))  # fmt: skip
    assert len(ours) == len(stock) == 5
    for a, b in zip(ours, stock):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_graphs_are_kept_and_freed_as_asked():
    x, w, b = leaves()
    y = ops.conv2d(x, w, b).sum()
    first = torch.autograd.grad(y, (x, w, b), retain_graph=True)
    for a, c in zip(first, torch.autograd.grad(y, (x, w, b))):
        assert torch.equal(a, c)
    for t in (x, w, b):
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(y, t)


def test_what_was_changed_is_refused():
    for changed in (0, 1):
        inputs = leaves()
        y = ops.conv2d(*inputs).sum()
        with torch.no_grad():
            inputs[changed].mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(y, inputs)


def test_autocast_gives_the_bits_of_one_node(monkeypatch):
    found = []
    for splits in (taps._splits, lambda *_: False):
        monkeypatch.setattr(taps, "_splits", splits)
        net = ganops.optimize(critic(torch.float32), verbose=False)
        with torch.autocast("cpu", torch.bfloat16):
            total = penalty(net, images(torch.float32)) + net(images(torch.float32)).float().mean()
        total.backward()
        found.append([p.grad for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found))
