"""The compiled spectral_norm against its reference: dtypes, layouts, sizes, all orders, transforms.

What both must do, against stock PyTorch, is in test_spectral_norm.py.
"""

from __future__ import annotations

import pytest
import torch
from backends import Backend
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

import ganops
from ganops import _dispatch, ops
from ganops.ops.spectral_norm import reference

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6}


@pytest.fixture(params=[pytest.param(Backend("native", "cpu"), id="native-cpu")])
def native(request):
    reason = request.param.why_not()
    if reason is not None:
        pytest.skip(reason)
    return "native"


def randn(*shape, seed=0, dtype=torch.float64, device="cpu"):
    values = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return values.to(device=device, dtype=dtype)


def unit(n, like, seed):
    t = randn(n, seed=seed, dtype=torch.float64)
    return (t / t.norm()).to(device=like.device, dtype=like.dtype)


def vectors(ws, dim=0):
    """v at random, and u along W v: sigma is then no difference of large numbers."""
    vs = [unit(w.numel() // w.shape[dim], w, 20 + i) for i, w in enumerate(ws)]
    us = [reference.matrix(w.detach(), dim).double() @ v.double() for w, v in zip(ws, vs)]
    return [(u / u.norm()).to(w.dtype) for u, w in zip(us, ws)], vs


def assert_close(got, expected, dtype, what=""):
    """To rounding of the largest number: sums of other orders differ by that much."""
    scale = max(expected.abs().max().item() if expected.numel() else 0, 1e-30)
    limit = TOLERANCE.get(dtype, 2 * torch.finfo(dtype).eps) * scale
    assert got.dtype == expected.dtype, what
    torch.testing.assert_close(got, expected, rtol=0, atol=limit, msg=lambda m: f"{what}: {m}")


def weights(dtype, device):
    make = {"dtype": dtype, "device": device}
    return {
        "linear": randn(5, 7, **make),
        "conv": randn(6, 3, 3, 3, seed=1, **make),
        "channels_last": randn(4, 3, 2, 2, seed=2, **make).contiguous(
            memory_format=torch.channels_last
        ),
        "sliced": randn(3, 10, seed=3, **make)[:, ::2],
        "transposed": randn(6, 9, seed=4, **make).mT,
        "a row": randn(1, 70, seed=5, **make),
        "a column": randn(19, 1, seed=6, **make),
        "unaligned": randn(31, seed=7, **make)[1:].view(5, 6),
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n_iterations", [0, 1, 3])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_values_vectors_and_gradients(backend, dtype, n_iterations, dim):
    """Every layout in one call, against plain PyTorch in float64 on the same numbers."""
    if backend == ("triton", "cpu") and n_iterations == 3 and dim:
        pytest.skip("more of the same, and slow where it is interpreted")
    named = weights(dtype, backend.device)
    ws = [w.detach().requires_grad_() for w in named.values()]
    us, vs = vectors(ws, dim)
    wide = [w.detach().double().requires_grad_() for w in ws]
    wide_us, wide_vs = ([t.clone().double() for t in each] for each in (us, vs))
    with ganops.use_impl(backend.impl):
        ys = ops.spectral_norm_weights(ws, us, vs, n_iterations=n_iterations, dim=dim)
        gs = [randn(*w.shape, seed=40 + i).to(w) for i, w in enumerate(ws)]
        ds = torch.autograd.grad(ys, ws, gs)
    for i, name in enumerate(named):
        y, u, v, _ = reference.normalised(wide[i], wide_us[i], wide_vs[i], n_iterations, 1e-12, dim)
        assert ys[i].stride() == torch.empty_like(ws[i]).stride()
        assert_close(ys[i], y.to(dtype), dtype, f"y of {name}")
        assert_close(us[i], u.to(dtype), dtype, f"u of {name}")
        assert_close(vs[i], v.to(dtype), dtype, f"v of {name}")
        # Of the rounded Y that the kernel was given, in float64.
        sigma = torch.dot(u, torch.mv(reference.matrix(wide[i].detach(), dim), v))
        d = reference.grad(gs[i].double(), ys[i].detach().double(), u, v, sigma, dim)
        assert_close(ds[i], d.to(dtype), dtype, f"gradient of {name}")


@pytest.mark.parametrize(("shape", "dim"), [((1100, 300), 0), ((17, 40_000), 0), ((40, 300, 31), 1),
                                            ((150_001, 3), 0), ((1, 300_007), 0)])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_large_weights_in_pieces(native, shape, dim, dtype):
    """Cut into pieces, results streamed past the cache; and the same bits from any threads."""
    w = randn(*shape, dtype=dtype).requires_grad_()
    small = randn(3, 2, dtype=dtype).requires_grad_()
    g = randn(*shape, seed=1, dtype=dtype)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        us, vs = ([t.float() for t in each] for each in vectors([w, small], 0))
        if dim:
            us[0], vs[0] = (t.float() for (t,) in vectors([w], dim))
        ws = [w, small.movedim(0, dim) if dim else small]
        with ganops.use_impl(native):
            ys = ops.spectral_norm_weights(ws, us, vs, n_iterations=2, dim=dim)
            (d,) = torch.autograd.grad(ys[0], w, g)
        found.append((ys[0].detach(), us[0], vs[0], d))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other))
    (u,), (v,) = ([t.double() for t in each] for each in vectors([w], dim))
    exact = w.detach().double()
    y, u, v, sigma = reference.normalised(exact, u, v, 2, 1e-12, dim)
    d = reference.grad(g.double(), found[0][0].double(), u, v, sigma, dim)
    wide = torch.float32
    for got, expected, kind in zip(found[0], (y, u, v, d), (dtype, wide, wide, dtype)):
        limit = 1e-4 if kind == wide else 0.02  # vectors start from rounded ones
        torch.testing.assert_close(got.double(), expected, rtol=0,
                                   atol=limit * expected.abs().max().item())  # fmt: skip


def test_one_call_serves_all_layers(native, monkeypatch):
    """And one the backward: what this op is for."""
    from ganops.ops.spectral_norm import autograd

    calls = []

    def counted(op, impl):
        calls.append(op)
        return real(op, impl)

    real = autograd.kernel
    monkeypatch.setattr(autograd, "kernel", counted)
    ws = [randn(3, 2 + i).requires_grad_() for i in range(5)]
    ys = ops.spectral_norm_weights(ws, *vectors(ws))
    torch.autograd.grad([y.sum() for y in ys], ws)
    assert calls == ["spectral_norm", "spectral_norm_grad"]


def test_weights_of_several_dtypes_keep_their_order():
    ws = [randn(3, 2), randn(4, 2, dtype=torch.float32), randn(2, 2), randn(5, 3).bfloat16()]
    together = ops.spectral_norm_weights(ws, *vectors(ws))
    us, vs = vectors(ws)
    for w, u, v, y in zip(ws, us, vs, together):
        assert torch.equal(ops.spectral_norm_weights([w], [u], [v])[0], y)


def test_vectors_may_be_of_another_dtype_and_strided(any_backend):
    """float32 vectors beside half weights: no rounding in between; every second number of one."""
    w = randn(4, 6, device=any_backend.device).bfloat16()
    (u,), (v,) = vectors([w.float()])
    room = torch.zeros(12, device=w.device)
    room[::2] = v
    with ganops.use_impl(any_backend.impl):
        (y,) = ops.spectral_norm_weights([w], [u], [room[::2]])
    (u2,), (v2,) = vectors([w.float()])
    exact, _, v2, _ = reference.normalised(w.float(), u2, v2, 1, 1e-12, 0)
    assert not room[1::2].any()
    torch.testing.assert_close(room[::2], v2, rtol=0, atol=1e-6)
    torch.testing.assert_close(y, exact.bfloat16(), rtol=0.01, atol=0.01)


def test_a_layer_that_is_not_used_gets_no_gradient(any_backend):
    ws = [randn(3, 2 + i, device=any_backend.device).requires_grad_() for i in range(4)]
    ws[2].requires_grad_(False)
    with ganops.use_impl(any_backend.impl):
        ys = ops.spectral_norm_weights(ws, *vectors(ws))
        first = ops.spectral_norm_weights(ws[1:2], *([t[1]] for t in vectors(ws)))
        sum(y.pow(2).sum() for y in ys[1:]).backward()
        (expected,) = torch.autograd.grad(first[0].pow(2).sum(), ws[1])
    assert ws[0].grad is None
    assert ws[2].grad is None
    torch.testing.assert_close(ws[1].grad, expected)
    assert ws[3].grad is not None


@pytest.mark.parametrize("dim", [0, 1])
def test_gradcheck_and_gradgradcheck(any_backend, dim):
    shapes = [(4, 3), (3, 2, 2)]
    ws = [randn(*s, seed=i, device=any_backend.device).requires_grad_()
          for i, s in enumerate(shapes)]  # fmt: skip
    us, vs = vectors(ws, dim)
    fast = any_backend == ("triton", "cpu")

    def f(*ws):
        return tuple(ops.spectral_norm_weights(ws, us, vs, n_iterations=0, dim=dim))

    with ganops.use_impl(any_backend.impl):
        assert gradcheck(f, ws, check_forward_ad=True, check_batched_grad=True, fast_mode=fast)
        assert gradgradcheck(f, ws, check_fwd_over_rev=True, fast_mode=fast)
        # One layer of the two: others' gradients are None.
        assert gradgradcheck(lambda *ws: f(*ws)[1:], ws, fast_mode=fast)


def test_the_dispatcher_ops_differentiate_in_every_argument(native):
    """The gradient's own derivatives with respect to g, y and sigma, each checked by itself."""
    ys = [randn(3, 2).requires_grad_(), randn(2, 2, 2, seed=1).requires_grad_()]
    gs = [randn(*y.shape, seed=5).requires_grad_() for y in ys]
    us, vs = vectors(ys)
    sigmas = torch.tensor([1.5, 0.7], dtype=torch.float64, requires_grad=True)
    op = torch.ops.ganops.spectral_norm_grad

    def f(*t):
        return tuple(op(list(t[:2]), list(t[2:4]), us, vs, t[4], 0))

    given = (*gs, *ys, sigmas)
    assert gradcheck(f, given, check_forward_ad=True)
    assert gradgradcheck(f, given)

    def value(*ws):
        out = torch.ops.ganops.spectral_norm(list(ws), us, vs, 0, 1e-12, 0)
        return (*out[0], out[3])

    assert gradcheck(value, ys, check_forward_ad=True)
    assert gradgradcheck(value, ys)


def test_an_ensemble_under_vmap(any_backend):
    """Stacked weights and vectors, each of which takes its own step."""
    w = randn(5, 4, 3, device=any_backend.device)
    u, v = (torch.stack([vectors([t])[k][0] * (1 + i) for i, t in enumerate(w)]) for k in range(2))
    singly = [reference.normalised(*t, 1, 1e-12, 0) for t in zip(w, u.clone(), v.clone())]

    def f(w, u, v):
        return ops.spectral_norm_weights([w], [u], [v])[0]

    with ganops.use_impl(any_backend.impl):
        got = torch.func.vmap(f)(w, u, v)
    for i, (y, u1, v1, _) in enumerate(singly):
        torch.testing.assert_close(got[i], y)
        torch.testing.assert_close(u[i], u1)
        torch.testing.assert_close(v[i], v1)


def test_vmap_of_grad_over_weights(any_backend):
    w = randn(5, 4, 3, device=any_backend.device)
    (u,), (v,) = vectors([w[0]])

    def f(w):
        return ops.spectral_norm_weights([w], [u], [v], n_iterations=0)[0].pow(3).sum()

    def plain(w):
        return (w / (u @ w @ v)).pow(3).sum()

    with ganops.use_impl(any_backend.impl):
        got = torch.func.vmap(torch.func.grad(f))(w)
    torch.testing.assert_close(got, torch.func.vmap(torch.func.grad(plain))(w))


def test_zero_and_empty_weights(any_backend):
    device = any_backend.device
    ws = [torch.zeros(3, 2, device=device), torch.zeros(0, 2, device=device)]
    us = [torch.ones(3, device=device), torch.ones(0, device=device)]
    vs = [torch.ones(2, device=device), torch.ones(0, device=device)]
    with ganops.use_impl(any_backend.impl):
        ys = ops.spectral_norm_weights(ws, us, vs)
    assert not us[0].any()
    assert not vs[0].any()
    assert ys[0].isnan().all()  # 0 / 0, as in stock PyTorch
    assert ys[1].shape == (0, 2)


class Marked(torch.Tensor):
    """A subclass, which has rules of its own."""


def test_subclasses_and_the_reference_are_plain_operations(native):
    w = randn(4, 3)
    expected = reference.normalised(w, *(t[0] for t in vectors([w])), 1, 1e-12, 0)[0]
    y = ops.spectral_norm_weights([w.as_subclass(Marked)], *vectors([w]))[0]
    assert type(y) is Marked
    torch.testing.assert_close(y.as_subclass(torch.Tensor), expected)
    with ganops.use_impl("reference"):
        assert torch.equal(ops.spectral_norm_weights([w], *vectors([w]))[0], expected)


@pytest.mark.skipif(_dispatch.triton_interprets(), reason="Triton runs here")
def test_what_cannot_serve_is_refused():
    w = nn.Parameter(randn(4, 3))
    with (
        ganops.use_impl("triton"),
        pytest.raises(RuntimeError, match="spectral_norm: impl='triton' cannot serve cpu"),
    ):
        ops.spectral_norm_weights([w], *vectors([w]))


def test_kernels_refuse_what_they_cannot_read(backend):
    op = getattr(torch.ops.ganops, "spectral_norm" + backend.suffix).kernel
    if backend.impl != "native":
        pytest.skip("Triton kernels are called through the public function, which checks")
    w, u, v = (torch.ones(*s, device=backend.device) for s in ((3, 2), (3,), (2,)))
    for args, message in (
        (([w], [v], [v], 1, 1e-12, 0), "u must have 3"),
        (([w], [u], [u], 1, 1e-12, 0), "v must have 2"),
        (([w], [u.double()], [v], 1, 1e-12, 0), "u must be float64 for float64"),
        (([w, w.double()], [u, u], [v, v], 1, 1e-12, 0), "share dtype and device"),
        (([w], [u, u], [v], 1, 1e-12, 0), "lists of one length"),
        (([w], [u], [v], 1, 1e-12, 2), "no dimension 2"),
    ):
        with pytest.raises(RuntimeError, match=message):
            op(*args)
