"""ADA: the pipeline against a composed twin of the paper's code, and what its card says to test."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from compare import assert_near, assert_same_bits
from torch.autograd import gradcheck, gradgradcheck

from ganops import ops
from ganops.ops.ada import autograd, reference
from ganops.ops.ada.parameters import Affine, to_maps
from ganops.ops.ada.policy import AdaPolicy

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import ada_stock


def images(*shape, dtype=torch.float64, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(device, dtype)


def maps_of(n, height, width, matrix=(1, 0, 0, 1, 0, 0), resample=True, device="cpu"):
    numbers = [torch.full((n,), float(v), dtype=torch.float64, device=device) for v in matrix]
    gate = torch.full((n,), resample, device=device)
    return to_maps(Affine(*numbers), gate, height, width)


def run(backend, x, maps, color=None):
    if backend.impl == "reference":
        return reference.ada(x, maps, color)
    return autograd.Ada.apply(x, maps, color, backend.impl)


def small(backend):
    """The interpreter takes seconds for what the others do at once."""
    return backend == ("triton", "cpu")


# ---- against the reference, and the reference against the composed twin ----------------------


@pytest.mark.parametrize("p", [0.5, 1.0])
def test_geometry_and_colour_are_the_cards(p):
    """Inside; at the corners the twin's margin is a pixel or so short of what its filters reach."""
    x = images(12, 3, 40, 56)
    y, drawn = ops.ada_augment(x, "ada-bgc", p, seed=5, return_params=True, impl="reference")
    twin = ada_stock.color(ada_stock.geometry(x, drawn["affine"]), drawn["color"])
    assert_near(y[..., 8:-8, 8:-8], twin[..., 8:-8, 8:-8], 1e8)  # maps are in 2^-32 pixels
    assert (y - x).abs().mean() > 0.2


CASES = [
    (torch.float64, (3, 3, 40, 52), "ada-bgc"), (torch.float32, (3, 3, 33, 57), "ada-bgc"),
    (torch.float32, (5, 1, 7, 13), "ada-bgc"), (torch.float64, (5, 2, 1, 9), "ada-bg"),
    (torch.float64, (2, 5, 60, 70), "ada-geom"), (torch.bfloat16, (4, 3, 20, 20), "ada-bgc"),
    (torch.float16, (4, 3, 20, 20), "ada-bgc"), (torch.float32, (4, 3, 21, 20), "ada-blit"),
    (torch.float32, (4, 3, 5, 6), "ada-color"), (torch.float32, (0, 3, 5, 6), "ada-bgc"),
    (torch.float32, (4, 1, 1, 1), "ada-bgc"),
]  # fmt: skip
SMALL = [
    (torch.float32, (1, 1, 6, 6), "ada-geom"), (torch.bfloat16, (1, 3, 3, 3), "ada-color"),
    (torch.float64, (1, 1, 4, 4), "ada-blit"),
]  # fmt: skip


def test_value_and_adjoint_equal_the_references(backend):
    if small(backend) and version("triton").startswith("3.6."):
        pytest.skip("Triton 3.6's interpreter: no range() up to a computed value with NumPy 2.4")
    for dtype, shape, policy in SMALL if small(backend) else CASES:
        x = images(*shape, dtype=dtype, device=backend.device)
        several = dtype == torch.float32 and shape[1] == 3 and x.numel() and not small(backend)
        layouts = [x, x.mT.contiguous().mT, x[..., ::2]] if several else [x]
        for layout in layouts:
            got, expected = {}, {}
            for impl, found in ((backend.impl, got), ("reference", expected)):
                leaf = layout.detach().requires_grad_()
                found["y"] = ops.ada_augment(leaf, policy, 0.9, seed=8, impl=impl)
                dy = images(*leaf.shape, dtype=dtype, device=backend.device, seed=1)
                (found["dx"],) = torch.autograd.grad(found["y"], leaf, dy)
            slack = {torch.float64: 50, torch.float32: 8}.get(dtype, 4)
            for name in got:
                assert_near(got[name], expected[name], slack, f"{dtype} {shape} {policy} {name}")


def test_extreme_maps(backend):
    """Boxes too large for a tile, and for any tile; far shifts; stretches."""
    scales = [(3.7, 0.2, 0.1, 2.9), (97.0, 5.0, -3.0, 41.0), (0.02, 0, 0, 0.05), (1, 0, 0, 300.5)]
    for a, b, c, d in scales[1:2] if small(backend) else scales:
        h, w = (2, 3) if small(backend) else (30, 41)
        x = images(1, 1, h, w, device=backend.device)
        maps = maps_of(1, h, w, (a, b, c, d, 777.3, -55.2), device=backend.device)
        if small(backend):
            assert_near(run(backend, x, maps), reference.ada(x, maps, None), 1e3)
            continue
        for count in (1, 3):
            x = images(1, count, h, w, device=backend.device).requires_grad_()
            y, expected = run(backend, x, maps), reference.ada(x, maps, None)
            assert_near(y, expected, 1e3)
            dy = images(*x.shape, device=backend.device, seed=2)
            (dx,), (want,) = (torch.autograd.grad(t, x, dy) for t in (y, expected))
            assert_near(dx, want, 1e4)


# ---- the card's list -------------------------------------------------------------------------


def test_the_filter_is_orthogonal():
    f = torch.tensor(reference.SYM6, dtype=torch.float64)
    assert abs(f.sum() - 1) < 1e-15
    for lag in range(-5, 6):
        shifted = f[max(0, 2 * lag) : 12 + min(0, 2 * lag)]
        other = f[max(0, -2 * lag) : 12 + min(0, -2 * lag)]
        assert abs((shifted * other).sum() - (0.5 if lag == 0 else 0)) < 1e-12


def test_every_source_holds_this_filter():
    root = Path(__file__).parents[2]
    for name in ("csrc/ada/ada_math.h", "csrc/ada/ada_cuda.cu", "ganops/ops/ada/triton_forward.py"):
        found = re.findall(r"-?0\.\d{12,}", (root / name).read_text())
        assert tuple(map(float, found[:12])) == reference.SYM6, name


def test_triton_planes_of_more_points_than_32_bits_count(backend):
    """Their first program alone, whose results were left out."""
    if backend != ("triton", "cpu"):
        pytest.skip("for the interpreter")
    from ganops.ops.ada import triton_forward, triton_kernels

    side, maps = 23168, maps_of(1, 23168, 23168)
    one, points = torch.ones(1), torch.full((2, 16), torch.nan)
    common = dict(DOUBLE=False, BLOCK=16)
    shape = (1, side, side, 0, 0, 0, 0)
    triton_forward.points_kernel[(1,)](one, maps, points[0], *shape, 10**9, **common)
    triton_kernels.lattice_kernel[(1,)](one, maps, points[1], points[1], *shape, 10**9,
                                        HAS_COLOR=False, CHANNELS=1, **common)  # fmt: skip
    assert_near(points[0], torch.ones(16), 16)
    assert points[1].isfinite().all()


def test_resampling_in_place_gives_the_image_back(any_backend):
    h, w = (3, 2) if small(any_backend) else (31, 44)
    x = images(2, 1, h, w, device=any_backend.device)
    y = run(any_backend, x, maps_of(2, h, w, device=any_backend.device))
    assert_near(y, x, 1e4)  # to the filter's own 1e-12
    assert not torch.equal(y, x)


def test_flips_quarter_turns_and_shifts_are_exact(any_backend):
    h, w = (4, 3) if small(any_backend) else (9, 12)
    x = images(1, 1, h, w, dtype=torch.float32, device=any_backend.device)
    cases = [((-1, 0, 0, 1, 0, 0), x.flip(3)), ((-1, 0, 0, -1, 0, 0), x.flip((2, 3))),
             ((1, 0, 0, 1, -2, 1), None)]  # fmt: skip
    for matrix, expected in cases:
        maps = maps_of(1, h, w, matrix, resample=False, device=any_backend.device)
        assert maps[0, 6] == 0
        if expected is None:  # right by two, up by one, reflected
            pad = torch.nn.functional.pad(x, (2, 0, 0, 1), "reflect")
            expected = pad[..., 1:, :w]
        assert_same_bits(run(any_backend, x, maps), expected)
    square = x[..., :3, :3].contiguous()
    for turns in range(4):
        cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[turns]
        maps = maps_of(1, 3, 3, (cos, -sin, sin, cos, 0, 0), False, any_backend.device)
        assert_same_bits(run(any_backend, square, maps), square.rot90(turns, (2, 3)))


def test_oblong_quarter_turns_between_pixels_are_resampled():
    quarter = (0, 1, -1, 0, 0, 0)
    assert maps_of(1, 4, 7, quarter, resample=False)[0, 6] == 1
    assert maps_of(1, 4, 8, quarter, resample=False)[0, 6] == 0


def test_at_zero_nothing_happens(any_backend):
    x = images(2, 3, 4, 3, device=any_backend.device)
    for policy in ("ada-bgcfnc",):
        y = ops.ada_augment(x, policy, 0.0, seed=1, impl=any_backend.impl)
        assert_same_bits(y, x)


def test_shares_of_flips_and_turns():
    x = torch.arange(16.0).view(1, 1, 4, 4).expand(20_000, 1, 4, 4)
    for policy, share in (("flip", 0.5), ("rotate90", 0.75)):
        y = ops.ada_augment(x, AdaPolicy(**{policy: 1.0}), 0.6, seed=3)
        changed = (y != x).flatten(1).any(1).double().mean()
        assert abs(changed - 0.6 * share) < 4 * (0.25 / 20_000) ** 0.5


def hue(v):
    """Direction of the part orthogonal to grey."""
    rest = v - v.mean(-1, keepdim=True)
    return rest / rest.norm(dim=-1, keepdim=True)


def test_colours():
    v = images(50, 3)
    for name in ("brightness", "contrast", "saturation"):
        _, drawn = ops.ada_augment(
            v.view(50, 3, 1, 1), AdaPolicy(**{name: 1.0}), seed=2, return_params=True
        )
        c = drawn["color"]
        out = (c[..., :3] @ v[..., None])[..., 0] + c[..., 3]
        assert_near(hue(out), hue(v), 1e3)
        assert (out - v).abs().min() > 0
    _, drawn = ops.ada_augment(
        v.view(50, 3, 1, 1), AdaPolicy(luma_flip=1.0), 0.7, seed=2, return_params=True
    )
    c, flip = drawn["color"][..., :3], drawn["luma_flip"]
    eye = torch.eye(3, dtype=torch.float64)
    assert_near(c @ c, eye.expand(50, 3, 3), 10)
    assert_same_bits(c[~flip], eye.expand(int((~flip).sum()), 3, 3))
    assert_near(c[flip] @ torch.ones(3, dtype=torch.float64), -torch.ones_like(v[flip]), 10)
    _, drawn = ops.ada_augment(v.view(50, 3, 1, 1), AdaPolicy(hue=1.0), seed=2, return_params=True)
    c = drawn["color"][..., :3]
    assert_near(c @ c.mT, eye.expand(50, 3, 3), 1e9)  # sines are float32's
    assert_near(c.diagonal(dim1=1, dim2=2).sum(1),
                1 + 2 * torch.deg2rad(drawn["hue"]).cos(), 1e9)  # fmt: skip


def test_adjoint(backend):
    if small(backend):
        pytest.skip("interpreting takes minutes: the adjoint is compared above")
    shape = (4, 3, 17, 22)
    x, g = (images(*shape, device=backend.device, seed=s).requires_grad_() for s in (1, 2))
    y = ops.ada_augment(x, "ada-bg", 0.95, seed=6, impl=backend.impl)
    (adjoint,) = torch.autograd.grad(y, x, g)
    assert_near((y * g).sum(), (x * adjoint).sum(), 100)


def test_r1_through_the_pipeline():
    """Its gradient to the critic's weights, and finite differences of R1 itself."""
    torch.manual_seed(0)
    critic = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(144, 1)
    ).double()
    x = images(3, 3, 8, 8)

    def penalty(impl="native"):
        return ops.r1_penalty(
            lambda t: critic(ops.ada_augment(t, "ada-bgc", 0.9, seed=4, impl=impl)), x
        )

    weight = critic[0].weight
    (got,) = torch.autograd.grad(penalty(), weight)
    (expected,) = torch.autograd.grad(penalty("reference"), weight)
    assert_near(got, expected, 100)
    direction = images(*weight.shape, seed=9)
    with torch.no_grad():
        sides = []
        for step in (1e-5, -2e-5):
            weight += step * direction
            sides.append(penalty().item())
        weight += 1e-5 * direction
    assert abs((sides[0] - sides[1]) / 2e-5 - (got * direction).sum()) < 1e-7 * sides[0]


def test_derivatives(backend):
    if small(backend):
        pytest.skip("interpreting takes minutes: the adjoint is compared above")
    shape = (3, 3, 4, 5)
    x = images(*shape, device=backend.device).requires_grad_()
    maps = maps_of(shape[0], *shape[2:], (0.8, 0.5, -0.6, 1.1, 0.3, -0.4), device=backend.device)
    color = images(shape[0], shape[1], shape[1] + 1, device=backend.device, seed=3)

    def f(x):
        return run(backend, x, maps, color)

    assert gradcheck(f, x, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(f, x, check_fwd_over_rev=True)


def test_order_three_and_torch_func():
    x = images(2, 1, 4, 4)

    def f(x, impl="native"):
        return ops.ada_augment(x, "ada-bgc", seed=1, impl=impl).sin().sum()

    def stock(x):
        return f(x, "reference")

    for transform in (
        lambda f: torch.func.hessian(f),
        lambda f: torch.func.grad(lambda x: torch.func.grad(
            lambda x: torch.func.grad(f)(x).square().sum())(x).square().sum()),
    ):  # fmt: skip
        assert_near(transform(f)(x), transform(stock)(x), 1e3)
