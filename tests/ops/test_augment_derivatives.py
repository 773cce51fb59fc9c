"""augment's derivatives: T is affine, so its transpose is all there is, to any order."""

from __future__ import annotations

import pytest
import torch
from backends import Backend
from compare import assert_near, assert_same_bits
from torch.autograd import gradcheck, gradgradcheck

import ganops
from ganops import ops
from ganops.ops import AugmentPolicy

PARTS = {
    "flip": {"flip": 1.0},
    "reflect": {"shift": 0.8},
    "zero": {"shift": 0.8, "padding": "zero"},
    "subpixel-reflect": {"shift": 0.6, "subpixel": True},
    "subpixel-zero": {"shift": 0.6, "subpixel": True, "padding": "zero"},
    "cutout": {"cutout": 0.5},
    "brightness": {"brightness": 0.5},
    "saturation": {"saturation": 1.0},
    "contrast": {"contrast": 1.0},
    "noise": {"noise": 0.3},
}  # fmt: skip
POLICIES = {name: AugmentPolicy(**{"flip": 0.0, "shift": 0.0, **p}) for name, p in PARTS.items()}
for padding in ("reflect", "zero"):
    everything = {k: v for p in PARTS.values() for k, v in p.items()}
    POLICIES[f"all-{padding}"] = AugmentPolicy(**{**everything, "flip": 0.5, "padding": padding})
every_policy = pytest.mark.parametrize("name", POLICIES)
both = pytest.mark.parametrize("op", [ops.augment, ops.consistency_pair], ids=lambda f: f.__name__)


def randn(*shape, seed=7, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(device, dtype)


def transform(op, name, impl, seed=5):
    return lambda x: op(x, POLICIES[name], seed=seed, impl=impl)


def interpreted(backend):
    return backend == ("triton", "cpu")


@every_policy
@both
def test_gradcheck_and_gradgradcheck(backend, op, name):
    if op is ops.augment and not name.startswith("all"):
        pytest.skip("all transforms at once do")
    fast = interpreted(backend)
    if fast and (op is ops.augment or name != "all-zero"):
        pytest.skip("one does, where interpreting takes seconds")
    shape = (1, 1, 2, 2) if fast else (2, 3, 4, 5)
    f, x = transform(op, name, backend.impl), randn(*shape, device=backend.device)
    x.requires_grad_()
    assert gradcheck(f, x, check_forward_ad=True, check_batched_grad=not fast, fast_mode=fast)
    assert gradgradcheck(f, x, check_fwd_over_rev=True, fast_mode=fast)


@every_policy
@both
def test_transpose(backend, op, name):
    """<T x - T 0, y> = <x, T' y>, over several draws, in both memory orders."""
    if interpreted(backend) and (op is ops.augment or not name.startswith("all")):
        pytest.skip("all transforms at once do, where interpreting takes seconds")
    for seed in range(1 if interpreted(backend) else 6):
        f = transform(op, name, backend.impl, seed)
        shape = (1, 2, 3, 4) if interpreted(backend) else (3, 3, 6, 7)
        x = randn(*shape, seed=seed, device=backend.device)
        if seed % 2:
            x = x.contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        y = f(x)
        v = randn(*y.shape, seed=seed + 50, device=backend.device)
        (g,) = torch.autograd.grad(y, x, v)
        left, right = ((y - f(torch.zeros_like(x))) * v).sum(), (x * g).sum()
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-11)


LAYOUTS = ("contiguous", "channels_last", "expanded", "sliced")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16],
                         ids=str)  # fmt: skip
@every_policy
@both
def test_gradient_equals_the_references(backend, op, name, dtype):
    other = dtype != torch.bfloat16 or op is ops.augment or not name.startswith("all")
    if interpreted(backend) and other:
        pytest.skip("bfloat16 of all transforms at once does")
    for k, shape in enumerate([(3, 3, 8, 9), (2, 8, 3, 5), (1, 1, 9, 40), (0, 3, 4, 4)]):
        if interpreted(backend) and k:
            continue
        shape = (1, 3, 3, 4) if interpreted(backend) else shape
        found = []
        for impl in ("reference", backend.impl):
            x = randn(*shape, dtype=dtype, device=backend.device).requires_grad_()
            y = transform(op, name, impl)(x)
            dy = randn(*y.shape, seed=3, dtype=dtype, device=backend.device)
            layout = LAYOUTS[k]
            if layout == "channels_last":
                dy = dy.contiguous(memory_format=torch.channels_last)
            elif layout == "expanded":
                dy = dy[..., :1].expand(y.shape)
            elif layout == "sliced":
                dy = torch.stack((dy, dy), -1)[..., 0]
            found.append(torch.autograd.grad(y, x, dy)[0])
        # The reference sums halves in a tree of autograd's: a few roundings apart.
        assert_near(found[1], found[0], 8, str(shape))


@pytest.mark.parametrize("out", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_gradient_of_another_dtype(backend, out):
    if interpreted(backend) and out != torch.bfloat16:
        pytest.skip("bfloat16 does")
    dtype = torch.bfloat16 if out == torch.float32 else torch.float32
    found = []
    for impl in ("reference", backend.impl):
        x = randn(2, 3, 5, 6, dtype=dtype, device=backend.device).requires_grad_()
        y = ops.consistency_pair(x, "diffaug", seed=1, out_dtype=out, impl=impl)
        assert y.dtype == out
        found.append(torch.autograd.grad(y, x, torch.ones_like(y))[0])
        assert found[-1].dtype == dtype
    assert_near(found[1], found[0], 2**13 if out == torch.float16 else 4)


def test_third_order_and_r1_through_it(backend):
    """A penalty on the gradient through T, and its derivative, against the reference's."""
    found = []
    shape = (1, 2, 2, 3) if interpreted(backend) else (2, 3, 4, 5)
    for impl in ("reference", backend.impl):
        x = randn(*shape, device=backend.device).requires_grad_()
        score = ops.augment(x, POLICIES["all-zero"], seed=2, impl=impl).pow(4).sum()
        (g,) = torch.autograd.grad(score, x, create_graph=True)
        (dd,) = torch.autograd.grad(g.square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(dd.square().sum(), x)[0])
    assert found[0].abs().max() > 0
    assert_near(found[1], found[0], 200)


TRANSFORMS = {
    "hessian": torch.func.hessian,
    "jacrev-jacrev": lambda f: torch.func.jacrev(torch.func.jacrev(f)),
    "jvp-of-grad": lambda f: lambda x: torch.func.jvp(torch.func.grad(f), (x,), (x.cos(),))[1],
    "vmap-grad": lambda f: (
        lambda x: torch.func.vmap(torch.func.grad(f))(torch.stack((x, 2 * x, -x)))
    ),
}


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_torch_func(backend, kind):
    if interpreted(backend) and kind != "jvp-of-grad":
        pytest.skip("one transform does, where interpreting takes seconds")
    x = randn(1, 2, 2, 3, device=backend.device)

    def result(impl):
        f = transform(ops.consistency_pair, "subpixel-zero", impl)
        return TRANSFORMS[kind](lambda x: f(x).pow(3).sum())(x)

    expected = result("reference")
    assert expected.abs().max() > 0
    assert_near(result(backend.impl), expected, 100)


def test_forward_mode_inside_forward_mode_is_refused(backend):
    f = transform(ops.augment, "flip", backend.impl)
    with pytest.raises(RuntimeError, match="augment: forward mode inside forward mode"):
        torch.func.jacfwd(torch.func.jacfwd(lambda x: f(x).pow(3).sum()))(randn(1, 1, 2, 2))


@pytest.fixture(params=[pytest.param(Backend("native", "cpu"), id="native-cpu")])
def native(request):
    reason = request.param.why_not()
    if reason is not None:
        pytest.skip(reason)
    return "native"


def test_bytes_have_no_gradient_and_drawn_numbers_none(native):
    x = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert not ops.augment(x, "diffaug", seed=1, impl=native).requires_grad
    leaf = torch.zeros(2, 3, 4, 4, requires_grad=True)
    y, drawn = ops.augment(leaf, "diffaug", seed=1, return_params=True, impl=native)
    assert y.requires_grad
    assert not any(value.requires_grad for value in drawn.values())


def test_backward_is_deterministic_and_keeps_only_the_drawn_numbers(native):
    x = randn(8, 3, 33, 31, dtype=torch.float32).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel() * t.element_size()) or t, lambda t: t
    ):
        y = ops.consistency_pair(x, POLICIES["all-reflect"], seed=3, impl=native)
    assert sum(kept) == 8 * 44
    first, again = (
        torch.autograd.grad(y, x, torch.ones_like(y), retain_graph=True)[0] for _ in range(2)
    )
    assert_same_bits(first, again)


def test_in_place_on_the_result(native):
    x = randn(2, 3, 4, 4).requires_grad_()
    f = transform(ops.augment, "contrast", native)
    (plain,) = torch.autograd.grad(f(x).mul(2).sum(), x)
    (in_place,) = torch.autograd.grad(f(x).mul_(2).sum(), x)
    assert_same_bits(in_place, plain)


@both
def test_torch_compile(native, op):
    def step(x):
        return op(x, "diffaug", seed=4).square().sum()

    x = randn(2, 3, 6, 5).requires_grad_()
    (expected,) = torch.autograd.grad(step(x), x)
    with ganops.use_impl(native):
        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        (got,) = torch.autograd.grad(compiled(x), x)
    assert_near(got, expected)
    with pytest.raises(Exception, match=r"drawn inside torch\.compile"):
        torch.compile(lambda x: op(x, "cr"), fullgraph=True, backend="aot_eager")(x)
    torch._dynamo.reset()


@pytest.mark.parametrize("shape", [(2, 3, 4, 0), (2, 3, 0, 4), (0, 3, 4, 4)])
def test_images_without_pixels_have_gradients_without_elements(backend, shape):
    """(Native: a row's share of a block was a division by no columns, the end of the process.)"""
    for memory in (torch.contiguous_format, torch.channels_last):
        x = torch.zeros(shape, device=backend.device).contiguous(memory_format=memory)
        x.requires_grad_()
        policy = AugmentPolicy(shift=0.0, contrast=0.5, saturation=0.5)
        y = ops.consistency_pair(x, policy, seed=1, impl=backend.impl)
        assert y.shape == (2 * shape[0], *shape[1:])
        (g,) = torch.autograd.grad(y.sum(), x)
        assert g.shape == x.shape
