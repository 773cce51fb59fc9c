"""Penalties in CUDA graphs: no wait for the host, and replays that read new data."""

from __future__ import annotations

import critics
import pytest
import torch

from ganops import ops

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def images(seed, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, 12, 12, generator=generator, dtype=torch.float64).to(device)


def alphas(seed, device="cpu"):
    return torch.rand(4, generator=torch.Generator().manual_seed(seed)).to(device)


STEPS = {
    "gradient_penalty": lambda c, x, a: ops.gradient_penalty(c, x, x.flip(0), alpha=a),
    "autograd": lambda c, x, a: ops.gradient_penalty(c, x, x.flip(0), alpha=a, engine="autograd"),
    "r1_penalty": lambda c, x, a: ops.r1_penalty(c, x),
    "path_length_penalty": lambda c, x, a: ops.path_length_penalty(
        lambda w: c(w.view(4, 3, 12, 12)), x.flatten(2), torch.zeros((), device=x.device),
        noise=a.double().view(4, 1, 1, 1)),
}  # fmt: skip


def gradients(critic, step, x, a):
    weights = [p for p in critic.parameters() if p.dim() > 1]
    value = step(critic, x, a)
    return [value, *torch.autograd.grad(value, weights)]


@pytest.mark.parametrize("name", STEPS)
def test_steps_depend_on_what_a_replay_changes(name):
    """Elsewhere too: the GPU test below compares replays with these numbers."""
    critic = critics.make("dcgan")
    one, other = (gradients(critic, STEPS[name], images(s), alphas(s)) for s in (1, 2))
    assert all(torch.isfinite(t).all() for t in one)
    assert not torch.allclose(one[0], other[0], rtol=1e-6)


@on_gpu
@pytest.mark.cuda
@pytest.mark.parametrize("name", STEPS)
def test_nothing_waits_for_the_host(name):
    critic = critics.make("dcgan").cuda()
    x, a = images(1, "cuda"), alphas(1, "cuda")
    gradients(critic, STEPS[name], x, a)  # kernels are loaded, plans made
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradients(critic, STEPS[name], x, a)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_gpu
@pytest.mark.cuda
@pytest.mark.parametrize("name", STEPS)
def test_capture_and_replay(name):
    critic = critics.make("dcgan").cuda()
    x, a = images(1, "cuda"), alphas(1, "cuda")
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            gradients(critic, STEPS[name], x, a)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = gradients(critic, STEPS[name], x, a)
    for seed in (2, 3):
        x.copy_(images(seed))
        a.copy_(alphas(seed))
        graph.replay()
        expected = gradients(critic, STEPS[name], images(seed, "cuda"), alphas(seed, "cuda"))
        for got, want in zip(found, expected):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("draw", [
    lambda c, x: ops.gradient_penalty(c, x, x),
    lambda c, x: ops.dragan_penalty(c, x),
    lambda c, x: ops.path_length_penalty(lambda w: w, x.flatten(1), torch.zeros(())),
])  # fmt: skip
def test_no_seed_is_captured(draw, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=r"CUDA graph .*draw outside and pass tensors in"):
        draw(critics.make("dcgan"), images(1))
