"""spectral_norm_weights: the card's numbers, torch's parametrisation, derivatives, bad input."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils.parametrizations import spectral_norm

import ganops
from ganops import ops
from ganops.ops.spectral_norm import reference

SHAPES = [(4, 3), (3, 2, 2, 2), (1, 5), (5, 1)]


def randn(*shape, seed=3, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64,
                       generator=torch.Generator().manual_seed(seed)).to(dtype)  # fmt: skip


def vectors(weights, dim=0):
    """Unit u and v for each weight, far from its singular vectors."""
    us = [randn(w.shape[dim], seed=5).to(w.dtype) for w in weights]
    vs = [randn(w.numel() // w.shape[dim], seed=6).to(w.dtype) for w in weights]
    return [u / u.norm() for u in us], [v / v.norm() for v in vs]


def test_the_cards_numbers():
    """W = diag(3, 2, 1), u = v = 1/sqrt 3: sigma after 1 to 5 iterations."""
    w = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    u, v = (torch.full((3,), 3**-0.5, dtype=torch.float64) for _ in range(2))
    for expected in (2.6458, 2.9303, 2.9857, 2.9972, 2.9994):
        (y,) = ops.spectral_norm_weights([w], [u], [v])
        assert 3 / y[0, 0].item() == pytest.approx(expected, abs=5e-5)
    (y,) = ops.spectral_norm_weights([w], [u], [v], n_iterations=60)
    assert torch.linalg.matrix_norm(y, 2).item() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n_iterations", [0, 1, 3])
@pytest.mark.parametrize(
    ("make", "dim"),
    [
        (lambda: nn.Linear(5, 7), 0),
        (lambda: nn.Conv2d(3, 4, 3), 0),
        (lambda: nn.ConvTranspose2d(3, 4, 3), 1),
        (lambda: nn.Embedding(6, 4), 0),
    ],
)
def test_torchs_parametrisation(make, dim, n_iterations, dtype):
    torch.manual_seed(0)
    layer = spectral_norm(make().to(dtype), n_power_iterations=max(n_iterations, 1), dim=dim)
    layer.train(n_iterations > 0)
    part = layer.parametrizations.weight
    u, v = (part[0].get_buffer(name).clone() for name in ("_u", "_v"))
    w = part.original.detach().clone().requires_grad_()
    (y,) = ops.spectral_norm_weights([w], [u], [v], n_iterations=n_iterations, dim=dim)
    expected = layer.weight
    close = (
        {"rtol": 3e-6, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 1e-13, "atol": 1e-15}
    )
    torch.testing.assert_close(y, expected, **close)
    assert y.stride() == expected.stride()
    torch.testing.assert_close(u, part[0].get_buffer("_u"), **close)
    torch.testing.assert_close(v, part[0].get_buffer("_v"), **close)
    g = randn(*y.shape, seed=9).to(dtype)
    (ours,) = torch.autograd.grad(y, w, g)
    (theirs,) = torch.autograd.grad(expected, part.original, g)
    torch.testing.assert_close(ours, theirs, **close)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradient_is_the_closed_form(memory_format):
    w = randn(4, 3, 2, 2).contiguous(memory_format=memory_format).requires_grad_()
    (u,), (v,) = vectors([w])
    (y,) = ops.spectral_norm_weights([w], [u], [v])
    g = randn(4, 3, 2, 2, seed=8)
    (got,) = torch.autograd.grad(y, w, g)
    sigma = u @ w.detach().flatten(1) @ v
    direction = torch.outer(u, v).reshape(w.shape)
    expected = (g - (g * w.detach() / sigma).sum() * direction) / sigma
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)
    assert abs((got * w.detach()).sum()) < 1e-13  # sigma is homogeneous in W


@pytest.mark.parametrize("dim", [0, 1])
def test_gradcheck_and_gradgradcheck(dim):
    weights = [randn(*shape, seed=i).requires_grad_() for i, shape in enumerate(SHAPES)]
    us, vs = vectors(weights, dim)

    def f(*weights):
        return tuple(ops.spectral_norm_weights(weights, us, vs, n_iterations=0, dim=dim))

    assert gradcheck(f, weights, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(f, weights, check_fwd_over_rev=True)


def test_order_three():
    w = randn(3, 2).requires_grad_()
    (u,), (v,) = vectors([w])

    def second(w):
        (y,) = ops.spectral_norm_weights([w], [u], [v], n_iterations=0)
        (g,) = torch.autograd.grad(y.pow(3).sum(), w, create_graph=True)
        return torch.autograd.grad(g.square().sum(), w, create_graph=True)[0]

    assert gradcheck(second, w)


def test_torch_func():
    w = randn(3, 2)
    (u,), (v,) = vectors([w])

    def stock(w):
        return (w / (u @ w @ v)).pow(3).sum()

    def ours(w):
        return ops.spectral_norm_weights([w], [u], [v], n_iterations=0)[0].pow(3).sum()

    for transform in (
        torch.func.grad,
        torch.func.hessian,
        lambda f: torch.func.jacrev(torch.func.jacrev(f)),
    ):
        torch.testing.assert_close(transform(ours)(w), transform(stock)(w), rtol=1e-11, atol=1e-12)
    with pytest.raises(RuntimeError, match="forward mode inside forward mode"):
        torch.func.jacfwd(torch.func.jacfwd(ours))(w)


@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize("transform", ["grad", "hessian", "jvp"])
def test_torch_func_moves_the_vectors(impl, transform):
    w = randn(3, 2)
    (u,), (v,) = vectors([w])
    _, next_u, next_v, _ = reference.normalised(w, u.clone(), v.clone(), 1, 1e-12, 0)

    def stock(w):
        return (w / (next_u @ w @ next_v)).pow(3).sum()

    def ours(w):
        return ops.spectral_norm_weights([w], [u], [v])[0].pow(3).sum()

    run = {
        "grad": lambda f: torch.func.grad(f)(w),
        "hessian": lambda f: torch.func.hessian(f)(w),
        "jvp": lambda f: torch.func.jvp(f, (w,), (w,))[1],
    }[transform]
    with ganops.use_impl(impl):
        torch.testing.assert_close(run(ours), run(stock), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(u, next_u)
    torch.testing.assert_close(v, next_v)


@pytest.mark.parametrize("impl", ["auto", "reference"])
def test_one_set_of_vectors_for_many_weights_is_refused(impl):
    us, vs = vectors([randn(3, 2)])
    one = torch.func.vmap(lambda w: ops.spectral_norm_weights([w], us, vs)[0])
    with (
        ganops.use_impl(impl),
        pytest.raises(ValueError, match="expected vectors of its own for each weight under vmap"),
    ):
        one(randn(5, 3, 2))


def test_two_forwards_before_a_backward():
    """The vectors change in between; each graph keeps its own."""
    w = randn(4, 3).requires_grad_()
    us, vs = vectors([w])
    singly = []
    for n in (1, 2):
        u, v = (t.clone() for t in (us[0], vs[0]))
        for _ in range(n):
            (y,) = ops.spectral_norm_weights([w], [u], [v])
        singly.append(torch.autograd.grad(y.pow(2).sum(), w)[0])
    both = sum(ops.spectral_norm_weights([w], us, vs)[0].pow(2).sum() for _ in range(2))
    torch.testing.assert_close(torch.autograd.grad(both, w)[0], sum(singly))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_multiplied_in_float(dtype):
    w = randn(64, 512, dtype=dtype).requires_grad_()
    us, vs = vectors([w])
    wide_u, wide_v = ([t[0].double()] for t in (us, vs))
    (y,) = ops.spectral_norm_weights([w], us, vs)
    (expected,) = ops.spectral_norm_weights([w.double()], wide_u, wide_v)
    assert y.dtype == dtype
    torch.testing.assert_close(y, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-7)
    assert torch.autograd.grad(y.sum(), w)[0].dtype == dtype


def test_autocast_does_not_touch_the_iteration():
    w = randn(8, 16, dtype=torch.float32).requires_grad_()
    plain = ops.spectral_norm_weights([w], *vectors([w]))[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = ops.spectral_norm_weights([w], *vectors([w]))[0]
    assert torch.equal(cast, plain)


def test_zero_weights_do_not_divide_by_zero_in_the_iteration():
    w = torch.zeros(3, 2)
    (u,), (v,) = vectors([w])
    ops.spectral_norm_weights([w], [u], [v])
    assert not u.any()
    assert not v.any()


def test_compiles():
    w = randn(4, 3).requires_grad_()

    def step(w, u, v):
        return ops.spectral_norm_weights([w], [u], [v])[0].pow(3).sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    results = []
    for f in (step, compiled):
        (u,), (v,) = vectors([w])
        results.append((*torch.autograd.grad(f(w, u, v), w), u, v))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([torch.ones(3, 2)], [torch.ones(3)], []), "got 1 weights, 1 us and 0 vs"),
        (([torch.ones(3)], [torch.ones(3)], [torch.ones(1)]), r"two or more .*got \(3,\)"),
        (
            ([torch.ones(3, 2)], [torch.ones(2)], [torch.ones(3)]),
            r"u of shape \(3,\) and v of \(2,\)",
        ),
        (
            ([torch.ones(3, 2)], [torch.ones(3, device="meta")], [torch.ones(2)]),
            "u and v on cpu as the weight is, got meta and cpu",
        ),
        (
            ([torch.ones(3, 2)], [torch.ones(3)], [torch.ones(2, device="meta")]),
            "u and v on cpu as the weight is, got cpu and meta",
        ),
    ],
)
def test_bad_shapes(arguments, message):
    with pytest.raises(ValueError, match=message):
        ops.spectral_norm_weights(*arguments)


def test_bad_numbers_and_types():
    ones = ([torch.ones(3, 2)], [torch.ones(3)], [torch.ones(2)])
    with pytest.raises(ValueError, match="n_iterations of at least 0, got -1"):
        ops.spectral_norm_weights(*ones, n_iterations=-1)
    with pytest.raises(ValueError, match="2 among"):
        ops.spectral_norm_weights(*ones, dim=2)
    with pytest.raises(TypeError, match=r"float tensors, got torch.int64"):
        ops.spectral_norm_weights([torch.ones(3, 2, dtype=torch.int64)], *ones[1:])
    with pytest.raises(TypeError, match=r"float vectors, got torch.int64 and torch.float32"):
        ops.spectral_norm_weights(ones[0], [ones[1][0].long()], ones[2])
