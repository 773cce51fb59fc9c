"""resize_normalize against Pillow, TensorFlow 1's definition and torch, and across backends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compare import assert_near, assert_same_bits
from PIL import Image

from ganops.ops import resize_normalize
from ganops.ops.resize import RESIZES, reference

SIZES = [(32, 32), (48, 21), (1, 1), (2, 3), (299, 299), (310, 350), (640, 97)]


def images(n, c, h, w, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, c, h, w), dtype=torch.uint8, generator=generator)


def pixels(x, protocol, size=299, **how):
    """Resized, in the range of bytes (tf, clean and antialias: exactly)."""
    made = reference.PROTOCOLS[protocol]
    y = resize_normalize(x, size, protocol=protocol, impl="reference", **how)
    return y * made.divisor + made.shift


def tensorflow(plane, height, width):
    """ResizeBilinear of TensorFlow 1, align_corners=False, from its source, in numpy."""

    def weights(size, out):
        at = np.arange(out, dtype=np.float32) * np.float32(size / out)
        low = np.floor(at).astype(np.int64)
        return low, np.minimum(low + 1, size - 1), at - low.astype(np.float32)

    x = plane.astype(np.float32)
    top, bottom, dy = weights(x.shape[0], height)
    left, right, dx = weights(x.shape[1], width)
    upper = x[top][:, left] + (x[top][:, right] - x[top][:, left]) * dx
    lower = x[bottom][:, left] + (x[bottom][:, right] - x[bottom][:, left]) * dx
    return upper + (lower - upper) * dy[:, None]


def pillow(plane, height, width):
    """As clean-fid does, x first: newer Pillows take y first where an image is tall."""
    x = Image.fromarray(plane.astype(np.float32), mode="F")
    x = x.resize((width, x.height), Image.BICUBIC).resize((width, height), Image.BICUBIC)
    return np.asarray(x).clip(0, 255)


@pytest.mark.filterwarnings("ignore:.*mode.*:DeprecationWarning")
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("protocol", "by"), [("tf", tensorflow), ("clean", pillow)])
def test_equals_an_independent_implementation_to_the_bit(size, protocol, by):
    x = images(2, 3, *size)
    planes = [by(plane, 299, 299) for plane in x.flatten(0, 1).numpy()]
    expected = torch.from_numpy(np.stack(planes)).view(2, 3, 299, 299)
    got = resize_normalize(x, protocol=protocol, impl="reference")
    assert_same_bits(got.contiguous(), (expected - 128) / 128)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_torch_is_what_pytorch_fid_gives_its_network(size):
    x = images(2, 3, *size)
    expected = 2 * F.interpolate(x / 255, (299, 299), mode="bilinear", align_corners=False) - 1
    got = resize_normalize(x, protocol="torch", impl="reference")
    torch.testing.assert_close(got.contiguous(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_antialias_is_what_torchmetrics_gives_its_network(size):
    x = images(2, 3, *size)
    smooth = F.interpolate(x.double(), (299, 299), mode="bilinear", antialias=True)
    got = resize_normalize(x, protocol="antialias", impl="reference").double()
    torch.testing.assert_close(got.contiguous(), (smooth - 128) / 128, rtol=0, atol=3e-7)


def row(*values):
    return torch.tensor(values, dtype=torch.uint8).view(1, 1, 1, -1)


def test_known_answers_along_a_row():
    tf = lambda x, n: pixels(x, "tf", (1, n))[0, 0, 0].tolist()  # noqa: E731
    half = lambda x, n: pixels(x, "torch", (1, n))[0, 0, 0].tolist()  # noqa: E731
    assert tf(row(0, 1), 4) == [0, 0.5, 1, 1]
    assert half(row(0, 1), 4) == pytest.approx([0, 0.25, 0.75, 1], abs=1e-5)
    assert tf(row(0, 10, 20, 30), 3) == pytest.approx([0, 13.3333333, 26.6666667], abs=1e-5)
    assert half(row(0, 10, 20, 30), 3) == pytest.approx([1.6666667, 15, 28.3333333], abs=1e-5)
    assert tf(row(0, 10, 20, 30), 2) == [0, 20]
    assert half(row(0, 10, 20, 30), 2) == pytest.approx([5, 25], abs=1e-5)
    ramp = tf(row(*range(32)), 299)
    assert [ramp[i] for i in (0, 1, 149, 298)] == pytest.approx(
        [0, 0.107023, 15.946488, 31], abs=1e-5
    )


def test_known_answers_of_the_range():
    x = row(0, 128, 255)
    for protocol in ("tf", "clean", "antialias"):
        y = resize_normalize(x, (1, 3), protocol=protocol)
        assert y[0, 2, 0].tolist() == [-1.0, 0.0, 0.9921875]
    y = resize_normalize(x, (1, 3), protocol="torch")[0, 0, 0].tolist()
    assert y == pytest.approx([-1.0, 0.0039216, 1.0], abs=1e-7)


def test_a_bicubic_overshoot_is_clipped():
    y = pixels(row(0, 0, 255, 255), "clean", (1, 40))
    assert y.min() == 0
    assert y.max() == 255
    unclipped = reference.along(row(0, 0, 255, 255).float(),
                                reference.PROTOCOLS["clean"].taps(4, 40), 3)  # fmt: skip
    assert unclipped.max() > 260


@pytest.mark.parametrize("protocol", RESIZES)
def test_every_implementation_gives_the_same_bits(backend, protocol):
    interpreted = backend == ("triton", "cpu")
    for h, w in [(5, 4), (1, 7), (19, 8)] if interpreted else SIZES:
        size = (7, 11) if interpreted else (299, 203)
        x = images(2, 3, h, w).to(backend.device)
        expected = resize_normalize(x, size, protocol=protocol, impl="reference")
        got = resize_normalize(x, size, protocol=protocol, impl=backend.impl)
        assert_same_bits(got, expected)
        assert got.is_contiguous(memory_format=torch.channels_last)


def layouts(x):
    """The same images in every kind of memory."""
    wide = torch.zeros(x.shape[0], 4, x.shape[2] + 3, 2 * x.shape[3], dtype=torch.uint8)
    wide = wide.to(x.device)
    cut = wide[:, : x.shape[1], 2:-1, ::2]
    cut.copy_(x)
    pixels = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return {"planes": x, "pixels": pixels, "cut": cut, "turned": x.mT.contiguous().mT,
            "one": x[:1].expand_as(x)}  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("protocol", ["tf", "clean"])
def test_any_layout_in_and_both_out(any_backend, protocol, channels):
    x = images(2, channels, 9, 13).to(any_backend.device)
    few = any_backend == ("triton", "cpu")  # interpreting takes a second each
    for name, laid_out in list(layouts(x).items())[2 if few else 0 :]:
        expected = resize_normalize(laid_out.contiguous(), (8, 17), protocol=protocol,
                                    impl="reference").contiguous()  # fmt: skip
        for order in (torch.channels_last, torch.contiguous_format):
            got = resize_normalize(laid_out, (8, 17), protocol=protocol, memory_format=order,
                                   impl=any_backend.impl)  # fmt: skip
            assert got.shape == (2, 3, 8, 17)
            assert got.is_contiguous(memory_format=order), name
            assert_same_bits(got.contiguous(), expected, name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("protocol", ["tf", "clean"])
def test_halves_are_the_floats_rounded_once(any_backend, protocol, dtype):
    x = images(2, 3, 9, 13).to(any_backend.device)
    how = {"protocol": protocol, "impl": any_backend.impl}
    for order in (torch.channels_last, torch.contiguous_format):
        full = resize_normalize(x, (17, 13), memory_format=order, **how)
        got = resize_normalize(x, (17, 13), dtype=dtype, memory_format=order, **how)
        if (any_backend, dtype) == (("triton", "cpu"), torch.bfloat16):
            assert_near(got, full.to(dtype))  # the interpreter cuts bits off
        else:
            assert_same_bits(got, full.to(dtype))


@pytest.mark.parametrize("protocol", RESIZES)
def test_an_image_is_resized_the_same_in_any_batch(any_backend, protocol):
    x = images(3, 3, 6, 5).to(any_backend.device)
    how, size = {"protocol": protocol, "impl": any_backend.impl}, (70, 9)
    if any_backend == ("triton", "cpu"):
        size = (11, 9)
    whole = resize_normalize(x, size, **how)
    for i in range(3):
        assert_same_bits(resize_normalize(x[i : i + 1], size, **how), whole[i : i + 1])
    assert resize_normalize(x[:0], size, **how).shape == (0, 3, *size)


@pytest.mark.parametrize("protocol", ["tf", "clean"])
def test_large_results_that_pass_the_cache_by(any_backend, protocol):
    """And several bands, threads and unaligned rows."""
    if any_backend == ("triton", "cpu"):
        pytest.skip("the interpreter takes minutes")
    x = images(9, 3, 8, 8).to(any_backend.device)
    for order in (torch.channels_last, torch.contiguous_format):
        how = {"protocol": protocol, "memory_format": order}
        whole = resize_normalize(x, 299, impl=any_backend.impl, **how)
        assert_same_bits(whole[7:], resize_normalize(x[7:], 299, impl="reference", **how))


def test_compiles(any_backend):
    torch._dynamo.reset()
    x = images(2, 3, 6, 5).to(any_backend.device)

    def f(images):
        return resize_normalize(images, 9, impl=any_backend.impl) * 2

    compiled = torch.compile(f, backend="aot_eager", fullgraph=True)
    assert_same_bits(compiled(x), f(x))


@pytest.mark.parametrize(
    ("make", "kwargs", "error", "message"),
    [
        (lambda x: x.float(), {}, TypeError, "expected images as a uint8 tensor .* torch.float32"),
        (lambda x: x.numpy(), {}, TypeError, "got ndarray"),
        (lambda x: x[0], {}, ValueError, r"got \(3, 4, 5\)$"),
        (lambda x: x[:, :2], {}, ValueError, "drop the alpha channel"),
        (lambda x: torch.cat((x, x[:, :1]), 1), {}, ValueError, "drop the alpha channel"),
        (lambda x: x[:, :, :0], {}, ValueError, r"got \(2, 3, 0, 5\)"),
        (lambda x: x, {"protocol": "tf1"}, ValueError, "expected protocol as one of .*, got 'tf1'"),
        (lambda x: x, {"dtype": torch.float64}, TypeError, "expected float32, bfloat16"),
        (lambda x: x, {"size": 0}, ValueError, "expected size as one or two positive ints, got 0"),
        (lambda x: x, {"size": (3, 4, 5)}, ValueError, "expected size as one or two"),
        (lambda x: x, {"memory_format": torch.preserve_format}, ValueError, "channels_last or"),
        (lambda x: x, {"impl": "pil"}, ValueError, "resize: impl: expected one of auto"),
    ],
)
def test_bad_arguments(make, kwargs, error, message):
    with pytest.raises(error, match=message):
        resize_normalize(make(images(2, 3, 4, 5)), **kwargs)
