"""How upfirdn2d is used: filters, resampling, wrong arguments, torch.compile, threads."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F
from backends import Backend
from compare import assert_same_bits
from upfirdns import FILTERS, brute_force, randn

from ganops import ops

FIR = [1, 3, 3, 1]


@pytest.fixture(params=[pytest.param(Backend("native", "cpu"), id="native-cpu")])
def native(request):
    reason = request.param.why_not()
    if reason is not None:
        pytest.skip(reason)
    return "native"


def test_setup_filter():
    two = torch.tensor(FIR).outer(torch.tensor(FIR)) / 64
    assert torch.equal(ops.setup_filter(FIR), two)
    assert torch.equal(ops.setup_filter(FIR, separable=True), torch.tensor(FIR) / 8)
    assert torch.equal(ops.setup_filter(None), torch.ones(1, 1))
    assert torch.equal(ops.setup_filter(5), torch.ones(1, 1))
    assert ops.setup_filter(range(1, 9)).shape == (8,)
    assert ops.setup_filter(range(1, 8)).shape == (7, 7)
    assert ops.setup_filter(range(1, 9), separable=False).shape == (8, 8)
    plain = ops.setup_filter([[1, 2], [3, 4]], normalize=False, flip_filter=True, gain=3)
    assert torch.equal(plain, torch.tensor([[12.0, 9], [6, 3]]))
    once = ops.setup_filter([1, 0, 2], normalize=False, flip_filter=True, gain=4, separable=True)
    assert torch.equal(once, torch.tensor([4.0, 0, 2]))
    assert plain.dtype == once.dtype == torch.float32


@pytest.mark.parametrize(
    ("error", "match", "f", "more"),
    [
        (TypeError, "expected f as numbers, got 'abc'", "abc", {}),
        (TypeError, "expected f as numbers.*it is complex", [1 + 2j], {}),
        (ValueError, "expected gain as a finite number, got '2'", [1], {"gain": "2"}),
        (ValueError, "expected gain as a finite number, got nan", [1], {"gain": float("nan")}),
        (ValueError, r"one or two dims, got shape \(1, 1, 1\)", [[[1]]], {}),
        (ValueError, r"one or two dims, got shape \(0,\)", [], {}),
        (ValueError, "one dim to be separable", [[1, 2]], {"separable": True}),
        (ValueError, r"sum other than 0 to normalize, got 0\.0", [1, -1], {}),
        (ValueError, "gain >= 0 for a separable filter, got -1", [1], {"separable": True,
                                                                      "gain": -1}),
    ],
)  # fmt: skip
def test_setup_filter_refuses(error, match, f, more):
    with pytest.raises(error, match="setup_filter: .*" + match):
        ops.setup_filter(f, **more)


def test_one_dim_is_its_outer_product(any_backend):
    x, f = randn(2, 2, 7, 6, device=any_backend.device), randn(4).float().to(any_backend.device)
    for op in (ops.upsample2d, ops.downsample2d, ops.filter2d):
        two = op(x, f.outer(f), gain=2.5, impl=any_backend.impl)
        # In float64 the product of float32 taps is not what one float32 tap holds.
        torch.testing.assert_close(op(x, f, gain=2.5, impl=any_backend.impl), two, rtol=1e-6,
                                   atol=1e-6)  # fmt: skip


@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5, 12])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_resampling_keeps_sizes_and_constants(native, taps, factor):
    """Far from the edges, where the sum of the taps that meet pixels is the same everywhere."""
    f = ops.setup_filter(torch.ones(taps))
    x = torch.full((1, 2, 24, 30), 0.75)
    assert ops.filter2d(x, f).shape == x.shape
    assert ops.filter2d(x, f, padding=(1, 2, 3, -4)).shape == (1, 2, 23, 33)
    up = ops.upsample2d(x, f, (factor, 1), padding=(2, 0))
    assert up.shape == (1, 2, 24, 30 * factor + 4)
    down = ops.downsample2d(x, f, (1, factor))
    assert down.shape == (1, 2, 24 // factor, 30)
    odd = ops.downsample2d(x[:, :, 1:], f, (1, factor), padding=(0, 1))
    assert odd.shape == (1, 2, (23 + 2) // factor, 30)
    for y in (ops.filter2d(x, f), down):
        inner = y[:, :, y.shape[2] // 2 - 1 : y.shape[2] // 2 + 1, 12:18]
        torch.testing.assert_close(inner, torch.full_like(inner, 0.75))
    if taps % factor == 0:
        inner = up[:, :, 10:14, 14 * factor : 16 * factor]
        torch.testing.assert_close(inner, torch.full_like(inner, 0.75))


def test_the_centre_stays_in_the_centre(native):
    """An image symmetric about its middle stays so, with a filter and size of even length."""
    x = randn(1, 1, 8, 8, dtype=torch.float32)
    x = x + x.flip(2, 3)
    f = ops.setup_filter(FIR)
    for y in (ops.upsample2d(x, f), ops.downsample2d(x, f)):
        torch.testing.assert_close(y, y.flip(2, 3))


def test_where_each_pixel_goes(any_backend):
    """The halves of an even, or odd, number of taps, which no symmetric filter tells apart."""
    x = torch.eye(6, device=any_backend.device).reshape(6, 1, 1, 6)
    row = {"impl": any_backend.impl}
    taps = torch.tensor([[1.0, 2, 3, 4]], device=any_backend.device)
    assert ops.filter2d(x, taps, **row)[2].flatten().tolist() == [0, 1, 2, 3, 4, 0]
    down = ops.downsample2d(x, taps[:, :3], (2, 1), **row).flatten(1).tolist()
    assert down[2:4] == [[0, 2, 0], [0, 1, 3]]
    up = ops.upsample2d(x[..., :3], taps[:, :3], (2, 1), **row).flatten(1).tolist()
    assert up[1] == [0, 0, 2, 4, 6, 0]


def test_agrees_with_torchs_own_resampling(any_backend):
    x, kwargs = randn(2, 3, 6, 8, device=any_backend.device), {"impl": any_backend.impl}
    box = ops.setup_filter([1, 1], device=any_backend.device)
    torch.testing.assert_close(ops.downsample2d(x, box, **kwargs), F.avg_pool2d(x, 2))
    torch.testing.assert_close(
        ops.upsample2d(x, box, **kwargs), F.interpolate(x, scale_factor=2, mode="nearest")
    )
    tent = ops.upsample2d(x, ops.setup_filter(FIR, device=any_backend.device), **kwargs)
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(tent[:, :, 1:-1, 1:-1], bilinear[:, :, 1:-1, 1:-1])
    assert torch.equal(ops.upfirdn2d(x, None, **kwargs), x)
    assert torch.equal(ops.upfirdn2d(x, None, down=(2, 3), **kwargs), x[:, :, ::3, ::2])
    assert torch.equal(ops.upfirdn2d(x, None, padding=(-1, 2), **kwargs),
                       F.pad(x, (-1, -1, 2, 2)))  # fmt: skip
    w = randn(4, 2, device=any_backend.device).float()
    same = F.conv2d(x, w.double().expand(3, 1, 4, 2), groups=3, padding=1, stride=2)
    ours = ops.upfirdn2d(x, w, down=2, padding=1, flip_filter=True, **kwargs)
    torch.testing.assert_close(ours, same)


X = torch.zeros(1, 2, 4, 4)
TAPS = torch.ones(3)
WRONG = {
    "x as a list": (TypeError, r"expected x as a dense float64.* got list", ([1.0], TAPS), {}),
    "whole numbers": (TypeError, r"expected x as .*got torch.strided torch.uint8",
                      (X.byte(), TAPS), {}),
    "three dims": (ValueError, r"expected x of shape \(N, C, H, W\).*got \(2, 4, 4\)",
                   (X[0], TAPS), {}),
    "no pixels": (ValueError, r"at least one pixel, got \(1, 2, 0, 4\)", (X[:, :, :0], TAPS), {}),
    "f as a list": (TypeError, r"expected f as a float tensor.*got list", (X, [1.0]), {}),
    "f of integers": (TypeError, "expected f as a float tensor.*got torch.int64",
                      (X, torch.ones(3).long()), {}),
    "f of three dims": (ValueError, r"expected f of shape .*got \(1, 1, 3\)",
                        (X, TAPS[None, None]), {}),
    "f without taps": (ValueError, r"expected f of shape .*got \(0,\)", (X, TAPS[:0]), {}),
    "f elsewhere": (ValueError, "expected f on cpu as x is, got meta", (X, TAPS.to("meta")), {}),
    "up of 0": (ValueError, "expected up of at least 1, got 0", (X, TAPS), {"up": 0}),
    "up of three": (ValueError, r"up as one integer or 2 of them, got \(1, 1, 1\)", (X, TAPS),
                    {"up": (1, 1, 1)}),
    "down below 0": (ValueError, r"expected down of at least 1, got \(1, -2\)", (X, TAPS),
                     {"down": (1, -2)}),
    "down of 1.5": (TypeError, r"expected down as integers, got 1\.5", (X, TAPS), {"down": 1.5}),
    "padding of three": (ValueError, r"padding as one integer or 2 or 4 of them, got \[1, 2, 3\]",
                         (X, TAPS), {"padding": [1, 2, 3]}),
    "padding of halves": (TypeError, r"expected padding as integers", (X, TAPS),
                          {"padding": (0.5, 1)}),
    "gain": (ValueError, "expected gain as a finite number, got nan", (X, TAPS),
             {"gain": float("nan")}),
    "nothing left": (ValueError, r"padded pixels as taps, got 4x2 pixels .* for 3x3 taps",
                     (X, TAPS), {"padding": (-1, -1, 0, 0)}),
    "impl": (ValueError, "expected one of auto", (X, TAPS), {"impl": "cuda"}),
}  # fmt: skip


def test_triton_planes_of_more_numbers_than_32_bits_count(backend):
    """Their first program alone, whose results were left out."""
    if backend != ("triton", "cpu"):
        pytest.skip("for the interpreter")
    from ganops.ops.upfirdn2d.triton_kernels import upfirdn_kernel

    side, y = 46341, torch.full((16,), torch.nan)
    upfirdn_kernel[(1,)](
        torch.ones(1), torch.full((1, 1), 3.0), y, side, side, side, side, 1, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, 0, 10**9, 1.0, UP_X=1, UP_Y=1, DOWN_X=1, DOWN_Y=1, KX=1, KY=1, FLIP=False,
        LAST=False, BLOCK=16, DOUBLE=False,
    )  # fmt: skip
    assert torch.equal(y, torch.full((16,), 3.0))


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case):
    error, match, args, kwargs = WRONG[case]
    with pytest.raises(error, match="upfirdn2d: .*" + match) as found:
        ops.upfirdn2d(*args, **kwargs)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("op", ["filter2d", "upsample2d", "downsample2d"])
def test_the_relatives_say_their_own_name(op):
    for args in ((X[0], TAPS), (X, [1.0])):
        with pytest.raises((ValueError, TypeError), match=f"^{op}: "):
            getattr(ops, op)(*args)
    with pytest.raises(ValueError, match=": expected gain as a finite number, got None"):
        getattr(ops, op)(X, TAPS, gain=None)
    with pytest.raises(TypeError, match=f"^{op}: expected padding as integers"):
        getattr(ops, op)(X, TAPS, padding="same")


@pytest.mark.parametrize("compiler", ["aot_eager", *(["inductor"] if shutil.which("g++") else [])])
def test_compiles_to_one_graph(native, compiler):
    f = FILTERS["four"]
    x = randn(2, 3, 6, 5).contiguous(memory_format=torch.channels_last).requires_grad_()

    def net(x):
        return ops.downsample2d(ops.upsample2d(x.sin(), f, impl=native), f, impl=native).cos()

    torch._dynamo.reset()
    y, expected = torch.compile(net, fullgraph=True, backend=compiler)(x), net(x)
    torch.testing.assert_close(y, expected)
    assert y.stride() == expected.stride()
    v = torch.randn_like(y)
    got, want = (torch.autograd.grad(t, x, v)[0] for t in (y, expected))
    torch.testing.assert_close(got, want)
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["four", "twelve", "full"])
def test_threads_do_not_change_a_bit(native, name, dtype):
    x = randn(3, 5, 67, 131, dtype=dtype)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append([ops.upsample2d(x, FILTERS[name]), ops.downsample2d(x, FILTERS[name])])
    finally:
        torch.set_num_threads(before)
    for found in results[1:]:
        for a, b in zip(found, results[0]):
            assert_same_bits(a, b)


def test_large_results_are_whole(native):
    """Larger than the cache, in rows that are not aligned."""
    x = randn(1, 1, 1201, 1203, dtype=torch.float32)
    f = FILTERS["four"]
    for taps in (f, FILTERS["three"], f[:, None] * f):
        y = ops.upsample2d(x, taps, impl=native)
        exact = ops.upsample2d(x.double(), taps, impl="reference")
        assert (y - exact).abs().max() <= 1e-5 * exact.abs().max()
    y = ops.filter2d(F.pad(x, (0, 900, 0, 0)), f, impl=native)
    exact = brute_force(x[..., :3, :9], f, padding=(2, 0, 2, 0))
    assert (y[..., :2, :8] - exact[..., :2, :8]).abs().max() <= 1e-5


def test_amp_and_parameters(native):
    """A layer before it in half precision; the filter in float32 all the same."""
    conv = torch.nn.Conv2d(3, 4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ops.upsample2d(conv(torch.ones(1, 3, 8, 8)), ops.setup_filter(FIR))
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert conv.weight.grad.abs().max() > 0
