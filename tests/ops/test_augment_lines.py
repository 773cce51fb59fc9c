"""augment of bytes on the CPU: whole lines of memory from registers, and what is left of a line."""

from __future__ import annotations

import pytest
import torch
from compare import assert_near, assert_same_bits

from ganops import _library, ops
from ganops.ops import AugmentPolicy

pytestmark = pytest.mark.skipif(
    not _library.NATIVE.loaded, reason="the native library was not built"
)
COLOUR = {"brightness": 0.5, "saturation": 1.0, "contrast": 0.5, "cutout": 0.5}
POLICIES = {
    "flip": AugmentPolicy(flip=1.0, shift=0.0),
    "some flip": AugmentPolicy(shift=0.0),
    "cr": AugmentPolicy(),
    "colour": AugmentPolicy(**COLOUR),
    "colour, zeros": AugmentPolicy(**COLOUR, padding="zero", shift=0.3),
    "no saturation": AugmentPolicy(**{**COLOUR, "saturation": 0.0}),
    "noise": AugmentPolicy(**COLOUR, noise=0.1),
    "between": AugmentPolicy(**COLOUR, subpixel=True, shift=0.2),
}


def random_bytes(shape, channels_last=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return x.contiguous(memory_format=layout)


def reference(x, policy, **kwargs):
    return ops.consistency_pair(x, policy, seed=7, impl="reference", **kwargs)


def native(x, policy, **kwargs):
    return ops.consistency_pair(x, policy, seed=7, impl="native", **kwargs)


@pytest.mark.parametrize("out", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True], ids=["planes", "pixels"])
@pytest.mark.parametrize("name", POLICIES)
def test_wide_rows_equal_the_reference(name, channels_last, out):
    """Rows of whole lines, of lines and a rest, and of less than a line."""
    for channels in (1, 2, 3, 4):
        for width in (96, 77, 16):
            x = random_bytes((5, channels, 6, width), channels_last)
            expected = reference(x, POLICIES[name], out_dtype=out)
            got = native(x, POLICIES[name], out_dtype=out)
            assert_near(got, expected, 2, f"{channels} channels, width {width}")
            assert_same_bits(got[:5], expected[:5])


@pytest.mark.parametrize("channels_last", [False, True], ids=["planes", "pixels"])
@pytest.mark.parametrize("out", [torch.float32, torch.float16])
def test_every_byte_maps_to_the_references_bits(out, channels_last):
    """Turned or not; the 256 values at each place of a line."""
    x = torch.arange(256 * 3, dtype=torch.int32).to(torch.uint8).view(1, 3, 1, 256)
    x = torch.cat([x.roll(i, -1) for i in range(0, 64, 7)])
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.preserve_format)
    for name in ("flip", "cr"):
        policy = POLICIES[name].replace(shift=0.0) if name == "flip" else POLICIES[name]
        assert_same_bits(native(x, policy, out_dtype=out), reference(x, policy, out_dtype=out))


@pytest.mark.parametrize("out", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["some flip", "cr", "colour", "no saturation"])
def test_results_past_the_cache_are_those_within_it(name, out):
    """A large result is streamed; images alone are not. Odd widths begin within lines."""
    for width, channels_last in ((256, False), (250, False), (128, True)):
        n = 24 * 2**20 // (3 * 64 * width * 2 * out.itemsize)
        x = random_bytes((n, 3, 64, width), channels_last)
        whole = native(x, POLICIES[name], out_dtype=out)
        assert whole.numel() * whole.element_size() >= 8 * 2**20
        for i in (0, n // 2, n - 1):
            kwargs = {"seed": 7, "offset": i, "out_dtype": out, "impl": "native"}
            alone = ops.consistency_pair(x[i : i + 1], POLICIES[name], **kwargs)
            assert_same_bits(whole[[i, n + i]], alone)


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
def test_pixels_are_turned_whole(channels, dtype):
    """Pixels of 1 to 64 bytes: shuffled in registers up to 16, else copied one by one."""
    for width in (1, 2, 5, 16, 37):
        x = random_bytes((2, channels, 3, width), True).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        got = ops.augment(x, POLICIES["flip"], seed=1, impl="native", out_dtype=None)
        expected = ops.augment(x.flip(3), "", seed=1, impl="native")
        assert_same_bits(got, expected)


@pytest.mark.parametrize("channels_last", [False, True], ids=["planes", "pixels"])
@pytest.mark.parametrize("name", ["flip", "cr", "colour", "between"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_the_gradient_is_the_references(name, channels_last, dtype):
    policy = POLICIES[name]
    for channels, width in ((3, 96), (3, 37), (2, 16)):
        x = torch.randn(6, channels, 9, width, dtype=torch.float64)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        x = x.to(dtype).contiguous(memory_format=layout).requires_grad_()
        dy = torch.randn(12, channels, 9, width, dtype=torch.float64).to(dtype)
        dy = dy.contiguous(memory_format=layout)
        grads = [
            torch.autograd.grad(run(x, policy), x, dy)[0].detach() for run in (native, reference)
        ]
        scale = 4 if dtype != torch.float16 else 8
        torch.testing.assert_close(
            grads[0].double(), grads[1].double(), rtol=0,
            atol=scale * 8 * torch.finfo(dtype).eps,
        )  # fmt: skip
