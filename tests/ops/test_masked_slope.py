"""masked_slope: torch's values and slopes bit for bit, from a byte a number, in one pass each."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from compare import DTYPES, assert_near, assert_same_bits, three_orders
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, vmap
from torch.utils._python_dispatch import TorchDispatchMode

import ganops
from ganops.ops import masked_slope
from ganops.ops._autograd import kernel
from ganops.ops.masked_slope.reference import KERNELS, MASKS, VALUES
from ganops.ops.masked_slope.reference import masked_slope as slope_of
from ganops.ops.piecewise_linear.autograd import MaskedInPlace, Spec

aten = torch.ops.aten
ROOT = Path(__file__).parents[2]
NAMES = list(VALUES)
# Limits that no half type has, so that roundings of them show.
CASES = {
    "relu": ("relu",),
    "leaky_relu": ("leaky_relu", 0.2),
    "leaky_relu-": ("leaky_relu", -0.3),
    "leaky_relu0": ("leaky_relu", 0.0),
    "relu6": ("hardtanh", 0.0, 6.0),
    "hardtanh": ("hardtanh", -0.3, 1.1),
    "threshold": ("threshold", 0.1, -2.3),
    "abs": ("abs",),
}
STOCK = {
    "relu": lambda g, x, a, b: aten.threshold_backward(g, x, 0),
    "leaky_relu": lambda g, x, a, b: aten.leaky_relu_backward(g, x, a, False),
    "hardtanh": aten.hardtanh_backward,
    "threshold": lambda g, x, a, b: aten.threshold_backward(g, x, a),
    "abs": lambda g, x, a, b: g * x.sgn(),
}
every_case = pytest.mark.parametrize("name", CASES)


def same(backend, dtype):
    """Bits; but Triton's interpreter cuts bfloat16 off where a GPU rounds."""
    cut = backend == ("triton", "cpu") and dtype == torch.bfloat16
    return assert_near if cut else assert_same_bits


def numbers(name):
    return (*CASES[name][1:], 0.0, 0.0)[:2]


def randn(*shape, dtype=torch.float64, device="cpu", seed=7):
    generator = torch.Generator().manual_seed(seed)
    values = 2 * torch.randn(shape, dtype=torch.float64, generator=generator)
    return values.to(device=device, dtype=dtype)


def layouts(dtype, device):
    def make(*shape):
        return randn(*shape, dtype=dtype, device=device)

    return {
        "contiguous": make(2, 3, 5, 7),
        "channels_last": make(2, 3, 5, 7).contiguous(memory_format=torch.channels_last),
        "sliced": make(3, 14)[:, ::2],
        "unaligned": make(1030)[1:],
        "large": make(1023, 17),
        "scalar": make(),
        "empty": make(0, 3),
    }


def at_the_kinks(name, x):
    """x, with kinks, zeros of both signs, infinities and NaN among it."""
    a, b = numbers(name)
    special = torch.tensor([a, b, 0.0, -0.0, math.inf, -math.inf, math.nan])
    flat = x.flatten().clone()
    flat[: len(special)] = special[: len(flat)].to(x)
    return torch.empty_like(x).copy_(flat.view(x.shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_case
def test_torchs_bits_in_every_layout(backend, name, dtype):
    kind, a, b = CASES[name][0], *numbers(name)
    for layout, x in layouts(dtype, backend.device).items():
        x, g = at_the_kinks(name, x), torch.empty_like(x).copy_(randn(*x.shape, seed=8))
        leaf = x.detach().requires_grad_()
        with ganops.use_impl(backend.impl):
            y = masked_slope.masked(leaf, kind, a, b)
            (dx,) = torch.autograd.grad(y, leaf, g)
        expected = VALUES[kind](x, a, b)
        same(backend, dtype)(y.detach(), expected, message=layout)
        assert y.stride() == expected.stride()
        known = ~x.isnan()  # there the mask says outside, and torch's kernels disagree
        same(backend, dtype)(dx[known], STOCK[kind](g, x, a, b)[known], message=layout)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("outside", [0.0, 0.2, -1.7])
def test_kernels_agree_with_the_reference(backend, outside, dtype):
    for layout, x in layouts(dtype, backend.device).items():
        for name in CASES:
            if CASES[name][0] not in NAMES[:KERNELS] or dtype.itemsize == 2:
                continue
            x, (a, b) = at_the_kinks(name, x), numbers(name)
            code = NAMES.index(CASES[name][0])
            y, mask = kernel("masked_slope_value", backend.impl)(x, code, a, b)
            assert_same_bits(y, VALUES[CASES[name][0]](x, a, b), f"{layout} {name}")
            assert torch.equal(mask, MASKS[CASES[name][0]](x, a, b))
            assert mask.stride() == y.stride()
        mask = randn(*x.shape, device=backend.device, seed=3) > 0
        got = kernel("masked_slope", backend.impl)(x, mask, outside)
        same(backend, dtype)(got, slope_of(x, mask, outside), message=layout)


def test_a_gradient_in_another_memory_order(backend):
    mask = randn(2, 3, 4, 5, device=backend.device) > 0
    g = randn(2, 4, 5, 3, device=backend.device).permute(0, 3, 1, 2)
    got = kernel("masked_slope", backend.impl)(g, mask, 0.3)
    assert_same_bits(got, slope_of(g, mask, 0.3))
    assert got.is_contiguous()


@pytest.mark.parametrize("shape", [(4096, 1100), (3 << 20,)])
def test_large_results_are_streamed_whole(shape):
    """Past the cache's size, by stores of their own; unaligned as well."""
    x, mask = randn(*shape, dtype=torch.float32), randn(*shape) > 0
    for first in (0, 1):
        part = x.flatten()[first:]
        y, inside = kernel("masked_slope_value", "native")(part, 1, 0.2, 0.0)
        assert torch.equal(y, aten.leaky_relu(part, 0.2))
        assert torch.equal(inside, part > 0)
        m = mask.flatten()[first:]
        assert torch.equal(kernel("masked_slope", "native")(part, m, 0.2), slope_of(part, m, 0.2))


@every_case
def test_derivatives_of_every_order(backend, name):
    x = randn(3, 4, device=backend.device).requires_grad_()
    fast = backend == ("triton", "cpu")

    def f(t):
        return masked_slope.masked(t * t - 0.7, *CASES[name])

    def third(t):
        (first,) = torch.autograd.grad((f(t) ** 3).sum(), t, create_graph=True)
        return torch.autograd.grad((first**2).sum(), t, create_graph=True)

    with ganops.use_impl(backend.impl):
        gradcheck(f, x, check_forward_ad=True, check_batched_grad=True, fast_mode=fast)
        gradgradcheck(f, x, check_fwd_over_rev=True, fast_mode=fast)
        gradcheck(third, x, fast_mode=True)


@every_case
def test_order_two_sends_nothing_to_x(backend, name):
    x, g = randn(5, device=backend.device), randn(5, device=backend.device, seed=8)
    with ganops.use_impl(backend.impl):
        found = three_orders(lambda t: masked_slope.masked(t, *CASES[name]), [x], g, [g])
        leaf = x.detach().requires_grad_()
        g = g.requires_grad_()
        (dx,) = torch.autograd.grad(masked_slope.masked(leaf, *CASES[name]), leaf, g,
                                    create_graph=True)  # fmt: skip
        assert torch.autograd.grad(dx.sum(), leaf, allow_unused=True) == (None,)
    assert torch.equal(found["d_dy"], STOCK[CASES[name][0]](g.detach(), x, *numbers(name)))


@pytest.mark.filterwarnings("ignore:.*batching rule")
def test_torch_func(backend):
    x = randn(4, 3, device=backend.device)

    def cubes(t, f):
        return (f(t * t - 0.5) ** 3).sum()

    def results(f):
        return (
            hessian(cubes)(x, f),
            vmap(grad(cubes), (0, None))(x, f),
            vmap(grad(cubes), (1, None), 1)(x, f),
            jacfwd(lambda t: f(t))(x),
            vmap(f, 1, 1)(x),
        )

    expected = results(lambda t: torch.where(t > 0, t, 0.2 * t))
    with ganops.use_impl(backend.impl):
        got = results(lambda t: masked_slope.masked(t, "leaky_relu", 0.2))
        with pytest.raises(RuntimeError, match="forward mode inside forward mode"):
            jacfwd(jacfwd(lambda t: masked_slope.masked(t, "relu")))(x)
    for a, b in zip(got, expected):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    with forward_ad.dual_level(), ganops.use_impl(backend.impl):
        y = masked_slope.masked(forward_ad.make_dual(x, x), "relu")
        assert torch.equal(forward_ad.unpack_dual(y).tangent, x.relu())


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "hardtanh"])
def test_in_place_keeps_a_mask_as_well(name):
    spec = Spec(CASES[name][0], CASES[name][1:], inplace=True)
    x, g = randn(3, 4), randn(3, 4, seed=8)
    leaf = x.clone().requires_grad_()
    written = leaf * 1
    y = MaskedInPlace.apply(written, spec)
    assert y is written
    assert_same_bits(y.detach(), VALUES[spec.name](x, *numbers(name)))
    assert [t.dtype for t in y.grad_fn.saved_tensors] == [torch.bool]
    expected = STOCK[spec.name](g, x, *numbers(name))
    assert_same_bits(torch.autograd.grad(y, leaf, g)[0], expected)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x.clone(), g.clone())
        y = MaskedInPlace.apply(dual, spec)
        assert_same_bits(forward_ad.unpack_dual(y).tangent, expected)


class Kernels(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view and func.overloadpacket is not aten.detach:
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [n for n in CASES if n != "abs"])
def test_one_kernel_an_order_and_a_byte_a_number(name):
    x, g = randn(4, 3, dtype=torch.float32).requires_grad_(), randn(4, 3, dtype=torch.float32)
    kept = []
    with ganops.use_impl("native"), Kernels() as ran:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            y = masked_slope.masked(x, *CASES[name])
        (dx,) = torch.autograd.grad(y, x, g.requires_grad_(), create_graph=True)
        torch.autograd.grad(dx, g, g)
    assert ran.names == ["masked_slope_value", "masked_slope", "masked_slope"]
    assert [(t.dtype, t.numel()) for t in kept] == [(torch.bool, 12)]


def test_what_has_no_kernel_is_torchs():
    assert masked_slope.served(torch.zeros(1), "abs") == "reference"
    with ganops.use_impl("reference"):
        assert masked_slope.served(torch.zeros(1), "relu") == "reference"
    assert masked_slope.served(torch.zeros(1), "relu") == "native"


def test_bad_input(backend):
    value, slope = (kernel(op, backend.impl) for op in ("masked_slope_value", "masked_slope"))
    g = randn(2, 3, device=backend.device)
    with pytest.raises(Exception, match="no activation 4"):
        value(g, 4, 0.0, 0.0)
    with pytest.raises(Exception, match="mask must be bool"):
        slope(g, g, 0.0)
    with pytest.raises(Exception, match="mask must have the shape of g"):
        slope(g, g.mT > 0, 0.0)


def test_codes_agree_with_the_enum():
    text = (ROOT / "csrc" / "masked_slope" / "masked_slope_math.h").read_text()
    match = re.search(r"enum class Piece : int \{([^}]*)\}", text)
    assert match is not None
    assert [n.strip() for n in match.group(1).split(",")] == [*NAMES[:KERNELS], "count"]
