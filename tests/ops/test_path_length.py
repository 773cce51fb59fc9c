"""path_length_penalty: card path_length's laws, and plain autograd's numbers on generators."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ganops import ops


class Synthesis(nn.Module):
    """StyleGAN2's in small: weights modulated by w, noise, bias and leaky ReLU, a skip to RGB."""

    def __init__(self, layers=3, d=5):
        super().__init__()
        self.const = nn.Parameter(torch.randn(1, 4, 4, 4))
        self.style = nn.ModuleList(nn.Linear(d, 4) for _ in range(layers))
        self.weight = nn.ParameterList(torch.randn(4, 4, 3, 3) / 6 for _ in range(layers))
        self.strength = nn.Parameter(torch.rand(layers))
        self.bias = nn.ParameterList(torch.randn(4) for _ in range(layers))
        self.rgb = nn.Conv2d(4, 3, 1)

    def forward(self, w, gain=1.0):
        h = self.const.expand(w.shape[0], -1, -1, -1)
        noise = torch.linspace(-1, 1, 16, dtype=h.dtype).view(1, 1, 4, 4)
        for i, style in enumerate(self.style):
            s = style(w[:, i] if w.dim() == 3 else w) + 1
            modulated = s[:, None, :, None, None] * self.weight[i]
            modulated = modulated * (modulated.square().sum((2, 3, 4), True) + 1e-8).rsqrt()
            h = F.conv2d(h.reshape(1, -1, 4, 4), modulated.flatten(0, 1), padding=1,
                         groups=w.shape[0]).view(w.shape[0], 4, 4, 4)  # fmt: skip
            h = F.leaky_relu(h + self.strength[i] * noise + self.bias[i].view(-1, 1, 1), 0.2)
        return gain * self.rgb(h)


@pytest.fixture
def synthesis():
    torch.manual_seed(4)
    return Synthesis().double()


def latents(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def zero():
    return torch.zeros((), dtype=torch.float64)


def plain(generator, w, mean, noise, decay=0.01):
    """As the authors write it; (penalty, the new mean)."""
    w = w if w.requires_grad else w.detach().requires_grad_()
    images = generator(w)
    y = noise / math.sqrt(images.shape[2:].numel())
    (g,) = torch.autograd.grad((images * y).sum(), w, create_graph=True)
    g = g if g.dim() == 3 else g[:, None]
    lengths = g.square().sum(2).mean(1).sqrt()
    a = mean.lerp(lengths.mean(), decay)
    return (lengths - a).square().mean(), a.detach()


@pytest.mark.parametrize("engine", ["auto", "autograd"])
@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 5)])
@pytest.mark.parametrize("leaf", [True, False])
def test_equals_plain_autograd(synthesis, shape, engine, leaf):
    """With a mapping network in front, whose gradient is part of the penalty's."""
    mapping = nn.Linear(5, 5).double()
    z, noise = latents(*shape), latents(4, 3, 4, 4, seed=1)
    parameters = [*synthesis.parameters(), *mapping.parameters()]
    w = z if leaf else mapping(z)
    mean = zero() + 0.3
    ours = ops.path_length_penalty(synthesis, w, mean, decay=0.2, noise=noise, engine=engine)
    wanted, a = plain(synthesis, w, zero() + 0.3, noise, 0.2)
    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(mean, a, rtol=1e-12, atol=0)
    assert not mean.requires_grad
    got = torch.autograd.grad(ours, parameters, retain_graph=True, allow_unused=True)
    expected = torch.autograd.grad(wanted, parameters, allow_unused=True)
    for a, b in zip(got, expected):
        a, b = (torch.zeros(()) if t is None else t for t in (a, b))
        torch.testing.assert_close(a.expand_as(b), b.to(a), rtol=1e-9, atol=1e-13)
    moved = sum(t is not None and bool(t.any()) for t in got)
    # All but two biases that no later layer multiplies by w: the last activation's, and RGB's.
    assert moved == len(parameters) - 2 - (2 if leaf else 0)


def test_gradgradcheck_in_w_and_a_weight(synthesis):
    noise = latents(2, 3, 4, 4, seed=1)

    def penalty(w, rgb):
        def call(t):
            return torch.func.functional_call(synthesis, {"rgb.weight": rgb}, (t,))

        return ops.path_length_penalty(call, w, zero(), noise=noise)

    inputs = (latents(2, 3, 5).requires_grad_(), synthesis.rgb.weight.detach().requires_grad_())
    assert torch.autograd.gradcheck(penalty, inputs)


def test_a_linear_generator_has_the_expected_length():
    """G = s Q w with orthonormal columns: |Q^T y| is chi-distributed with d degrees of freedom."""
    d, s, side, batch = 6, 2.5, 8, 4096
    q = torch.linalg.qr(latents(3 * side * side, d))[0]
    mean = zero()
    rng = torch.Generator().manual_seed(0)
    ops.path_length_penalty(
        lambda w: (s * w @ q.T).view(-1, 3, side, side), latents(batch, d), mean, decay=1.0, rng=rng
    )
    chi = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    # One length has a standard deviation of 0.28 of its mean: 0.45 % for the mean of 4096.
    assert mean.item() == pytest.approx(s / side * chi, rel=0.018)


def test_layers_count_as_a_mean_and_latents_as_a_sum():
    noise, w = torch.ones(2, 1, 1, 1, dtype=torch.float64), latents(2, 4, 9)
    mean = zero()
    ops.path_length_penalty(lambda w: w.sum((1, 2)).view(-1, 1, 1, 1), w, mean, decay=1.0,
                            noise=noise)  # fmt: skip
    assert mean.item() == pytest.approx(3.0)  # sqrt of 9 ones, the mean over 4 layers


def test_a_constant_generator_costs_the_mean_and_has_no_gradient():
    weight = torch.zeros(5, 12, dtype=torch.float64, requires_grad=True)
    mean = zero() + 2
    call = lambda w: (w @ weight).view(-1, 3, 2, 2)  # noqa: E731
    penalty = ops.path_length_penalty(call, latents(4, 5), mean)
    assert penalty.item() == pytest.approx(1.98**2)
    assert mean.item() == pytest.approx(1.98)
    penalty.backward()
    assert weight.grad.tolist() == torch.zeros(5, 12).tolist()


def test_the_mean_after_n_identical_batches():
    noise, w, n = latents(4, 3, 2, 2, seed=1), latents(4, 5), 7
    call = lambda w: w.sum(1).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)  # noqa: E731
    once, mean = zero(), zero()
    ops.path_length_penalty(call, w, once, decay=1.0, noise=noise)
    for _ in range(n):
        ops.path_length_penalty(call, w, mean, noise=noise)
    assert mean.item() == pytest.approx(once.item() * (1 - 0.99**n), rel=1e-12)


def test_the_updated_mean_carries_a_gradient():
    """lengths = |w|: with a held constant the derivative would be another one."""
    weight = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    noise = torch.ones(1, 1, dtype=torch.float64)
    call = lambda w: w * weight  # noqa: E731
    ops.path_length_penalty(call, latents(1, 1), zero(), noise=noise).backward()
    # (l - 0.01 l)^2 with l = 3: 2 * 0.99^2 * 3, not 2 * 0.99 * 3.
    assert weight.grad.item() == pytest.approx(2 * 0.99**2 * 3)


def test_rng_decides_the_direction(synthesis):
    w = latents(4, 3, 5)
    seeded = lambda s: torch.Generator().manual_seed(s)  # noqa: E731
    one, same, other = (
        ops.path_length_penalty(synthesis, w, zero(), rng=seeded(s)).item() for s in (1, 1, 2)
    )
    assert one == same != other


def test_arguments_outputs_and_half_precision(synthesis):
    w, noise = latents(4, 3, 5), latents(4, 3, 4, 4, seed=1)
    wrapped = lambda w, k, *, shift: {"images": synthesis(w, k) + shift}  # noqa: E731
    ours = ops.path_length_penalty(wrapped, w, zero(), noise=noise, gen_args=(2.0,),
                                   gen_kwargs={"shift": 1.0},
                                   output=lambda out: out["images"])  # fmt: skip
    expected, _ = plain(lambda w: synthesis(w, 2.0), w, zero(), noise)
    torch.testing.assert_close(ours, expected)
    mean = torch.zeros(())
    half = ops.path_length_penalty(
        lambda w: synthesis(w.double()).bfloat16(), w.float(), mean, noise=noise
    )
    assert half.dtype == mean.dtype == torch.float32
    exact, _ = plain(synthesis, w, zero(), noise)
    assert half.item() == pytest.approx(exact.item(), rel=0.02)


@pytest.fixture
def compiled(synthesis):
    torch.compiler.reset()
    yield torch.compile(
        lambda w, noise, mean: ops.path_length_penalty(synthesis, w, mean, noise=noise),
        fullgraph=True, backend="aot_eager",
    )  # fmt: skip
    torch.compiler.reset()


def test_compiles_whole_with_noise_given(synthesis, compiled):
    w, noise, mean = latents(4, 3, 5), latents(4, 3, 4, 4, seed=1), torch.zeros(())
    expected, a = plain(synthesis, w, zero(), noise)
    ours = compiled(w, noise, mean)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(mean, a.float())
    wanted = torch.autograd.grad(expected, synthesis.rgb.weight)[0]
    torch.testing.assert_close(torch.autograd.grad(ours, synthesis.rgb.weight)[0], wanted)


def test_no_update_of_the_mean_is_lost_by_torch_compile(compiled):
    with pytest.raises(Exception, match="mean as a float32 scalar"):
        compiled(latents(4, 3, 5), latents(4, 3, 4, 4, seed=1), zero())


def test_a_compiled_generator_is_refused(synthesis):
    torch.compiler.reset()
    compiled = torch.compile(synthesis, backend="aot_eager")
    with pytest.raises(RuntimeError, match=r"the generator runs .*Pass the generator uncompiled"):
        ops.path_length_penalty(compiled, latents(4, 3, 5), zero())


W, MEAN = torch.zeros(4, 3), torch.zeros(())


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"w": W.int()}, TypeError, r"expected w as a float tensor, got torch\.int32"),
        ({"w": [1.0]}, TypeError, "expected w as a float tensor, got list"),
        ({"w": W[0]}, ValueError, r"w of shape \(B, L, d\) or \(B, d\).*got \(3,\)"),
        ({"w": W[:0]}, ValueError, r"none of them 0, got \(0, 3\)"),
        ({"mean": 0.0}, TypeError, "expected mean as a float tensor, got float"),
        ({"mean": torch.zeros(1)}, ValueError, r"float32 or float64 scalar.*got \(1,\)"),
        ({"mean": MEAN.bfloat16()}, ValueError, r"scalar.*got \(\) of torch.bfloat16"),
        ({"mean": torch.zeros((), requires_grad=True)}, ValueError, "that requires one"),
        ({"mean": MEAN.to("meta")}, ValueError, "expected mean on cpu as w is, got meta"),
        ({"decay": 1.5}, ValueError, "expected 0 <= decay <= 1, got 1.5"),
        ({"decay": math.nan}, ValueError, "expected a finite decay >= 0, got nan"),
        ({"engine": "tangent"}, ValueError, "engine 'auto' or 'autograd', got 'tangent'"),
        ({"noise": torch.zeros(4, 3)}, ValueError, r"images' shape \(4, 3, 2, 2\), got \(4, 3\)"),
        ({"noise": 1.0}, ValueError, r"images' shape \(4, 3, 2, 2\), got float"),
        ({"generator": lambda w: (w, w)}, TypeError, "float tensor, got tuple; pick one with out"),
        ({"generator": lambda w: w.int()}, TypeError, r"images as a float tensor, got torch.int32"),
        ({"generator": lambda w: w.sum()}, ValueError, r"images of shape \(4, C, ...\).*got \(\)"),
        ({"generator": lambda w: w[:2]}, ValueError, r"one for each w, got \(2, 3\)"),
        ({"generator": lambda w: w.detach()}, ValueError, "generator's output does not depend on"),
        ({"generator": lambda w: torch.ones(4, 3, requires_grad=True)}, ValueError, "not depend"),
    ],
)
def test_one_clear_sentence_each(how, error, message):
    pixels = lambda w: w[:, :, None, None] * torch.ones(2, 2)  # noqa: E731
    arguments = {"generator": pixels, "w": W, "mean": MEAN.clone(), **how}
    with pytest.raises(error, match=f"path_length_penalty: .*{message}"):
        ops.path_length_penalty(**arguments)
    if isinstance(arguments["mean"], torch.Tensor) and not arguments["mean"].is_meta:
        assert arguments["mean"].sum() == 0  # a refused call leaves the mean alone
