"""augment: every implementation against the reference, and the reference against the papers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compare import assert_near, assert_same_bits

import ganops
from ganops import ops
from ganops.data.pixels import to_float
from ganops.ops import AugmentPolicy
from ganops.ops.augment import _flags, reference
from ganops.ops.augment.policy import resolve

ROOT = Path(__file__).parents[2]
EVERYTHING = AugmentPolicy(shift=0.4, subpixel=True, padding="zero", cutout=0.3, brightness=0.3,
                           saturation=0.9, contrast=0.8, noise=0.2, p=0.8)  # fmt: skip
POLICIES = {
    "cr": "cr",
    "diffaug": "diffaug",
    "identity": "",
    "everything": EVERYTHING,
    "subpixel-reflect": AugmentPolicy(subpixel=True, shift=0.3, contrast=0.5),
    "far-reflect": AugmentPolicy(shift=0.85, saturation=0.5, noise=0.1),
    "beyond": AugmentPolicy(shift=1.5, padding="zero", cutout=1.0),
}
SHAPES = [(3, 3, 8, 9), (2, 1, 5, 4), (4, 8, 7, 16), (0, 3, 4, 4), (1, 2, 33, 40), (2, 3, 0, 4)]
DTYPES = {
    "bytes": (torch.uint8, None),
    "bytes-half": (torch.uint8, torch.float16),
    "bytes-bfloat16": (torch.uint8, torch.bfloat16),
    "float32": (torch.float32, None),
    "float32-half": (torch.float32, torch.float16),
    "float64": (torch.float64, None),
    "float16": (torch.float16, None),
    "bfloat16-float32": (torch.bfloat16, torch.float32),
    "bfloat16": (torch.bfloat16, None),
}
both = pytest.mark.parametrize("op", [ops.augment, ops.consistency_pair], ids=lambda f: f.__name__)


def images(shape, dtype=torch.uint8, device="cpu", channels_last=False, seed=5):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    x = x if dtype == torch.uint8 else (x.double() / 127.5 - 1).to(dtype)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return x.to(device).contiguous(memory_format=layout)


@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize("name", POLICIES)
@both
def test_equals_the_reference(backend, op, name, dtypes):
    interpreted = backend == ("triton", "cpu")
    some = name in ("cr", "everything") and dtypes in ("bytes-half", "float64", "bfloat16")
    if interpreted and (op is ops.augment or not some):
        pytest.skip("some pairs do, where interpreting each takes a second")
    dtype, out = DTYPES[dtypes]
    for k, shape in enumerate(SHAPES[:1] if interpreted else SHAPES):
        x = images(shape, dtype, backend.device, channels_last=k % 2 == 0)
        kwargs = {"seed": -9, "offset": 2**40 + k, "out_dtype": out, "return_params": True}
        if name == "far-reflect" and shape == (2, 3, 0, 4):
            continue
        expected, drawn = op(x, POLICIES[name], impl="reference", **kwargs)
        got, ours = op(x, POLICIES[name], impl=backend.impl, **kwargs)
        for key in drawn:
            assert_same_bits(ours[key], drawn[key], key)
        assert_near(got, expected, 2, str(shape))
        assert got.stride() == expected.stride()


@pytest.mark.parametrize("layout", ["sliced", "permuted", "unaligned", "expanded"])
def test_other_strides_are_copied(backend, layout):
    if backend == ("triton", "cpu") and layout != "permuted":
        pytest.skip("one does, where interpreting each takes a second")
    x = {
        "sliced": images((3, 3, 8, 18))[..., ::2],
        "permuted": images((3, 8, 9, 3)).permute(0, 3, 2, 1),
        "unaligned": images((1, 1, 1, 3 * 3 * 72 + 1)).flatten()[1:].view(3, 3, 8, 9),
        "expanded": images((1, 3, 8, 9)).expand(3, 3, 8, 9),
    }[layout].to(backend.device)
    expected = ops.consistency_pair(x.contiguous(), "cr", seed=1, impl="reference")
    assert_same_bits(ops.consistency_pair(x, "cr", seed=1, impl=backend.impl), expected)


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_number_of_channels(backend, channels, channels_last):
    if backend == ("triton", "cpu") and channels not in (1, 4):
        pytest.skip("1 and 4 do")
    x = images((2, channels, 6, 5), torch.float32, backend.device, channels_last)
    expected = ops.augment(x, EVERYTHING, seed=3, impl="reference")
    assert_near(ops.augment(x, EVERYTHING, seed=3, impl=backend.impl), expected, 2)


def test_the_first_half_is_the_batch_itself(any_backend):
    """Bit for bit: bytes as the data pipeline maps them, floats as they are, NaN included."""
    every = torch.arange(256, dtype=torch.uint8, device=any_backend.device).view(2, 1, 8, 16)
    pair = ops.consistency_pair(every, "diffaug", seed=1, impl=any_backend.impl)
    assert_same_bits(pair[:2], to_float(every))
    x = images((2, 3, 5, 7), torch.float32, any_backend.device)
    x[0, 1, 2, 3] = float("nan")
    assert_same_bits(ops.consistency_pair(x, "cr", seed=1, impl=any_backend.impl)[:2], x)


def test_the_second_half_is_augment(any_backend):
    x = images((5, 3, 9, 8), device=any_backend.device)
    with ganops.use_impl(any_backend.impl):
        pair = ops.consistency_pair(x, EVERYTHING, seed=4, offset=7)
        assert_same_bits(pair[5:], ops.augment(x, EVERYTHING, seed=4, offset=7))


def test_cr_gives_one_of_its_finitely_many_results(any_backend):
    """Flipped or not, then one of 3 x 5 shifts, with what lies outside reflected."""
    n = 8 if any_backend == ("triton", "cpu") else 400
    x = images((1, 2, 9, 16)).expand(n, -1, -1, -1).to(any_backend.device)
    got, drawn = ops.augment(x, "cr", seed=2, return_params=True, impl=any_backend.impl)
    padded = torch.nn.functional.pad(to_float(x[:1]), (2, 2, 1, 1), mode="reflect")
    flipped = torch.nn.functional.pad(to_float(x[:1].flip(3)), (2, 2, 1, 1), mode="reflect")
    legal = {
        (flip, y, z): source[0, :, 1 + y : 10 + y, 2 + z : 18 + z]
        for flip, source in ((False, padded), (True, flipped))
        for y in (-1, 0, 1)
        for z in (-2, -1, 0, 1, 2)
    }
    seen = set()
    for i in range(n):
        key = (bool(drawn["flip"][i]), *(int(v) for v in drawn["shift"][i]))
        assert_same_bits(got[i], legal[key])
        others = [k for k, v in legal.items() if torch.equal(got[i], v)]
        assert others == [key]
        seen.add(key)
    assert n < 400 or seen == set(legal)


def diffaugment(x, drawn):
    """The card's operations, written as it writes them, from the drawn numbers."""
    height, width = x.shape[2:]
    column = lambda name: drawn[name].to(x.dtype).view(-1, 1, 1, 1)  # noqa: E731
    x = x + column("brightness")
    mean = x.mean(1, keepdim=True)
    x = (x - mean) * column("saturation") + mean
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * column("contrast") + mean
    out = torch.zeros_like(x)
    for b in range(len(x)):
        ty, tx = (int(v) for v in drawn["shift"][b])
        for h in range(height):
            for w in range(width):
                if 0 <= h + ty < height and 0 <= w + tx < width:
                    out[b, :, h, w] = x[b, :, h + ty, w + tx]
        top, left, rows, columns = (int(v) for v in drawn["cutout"][b])
        out[b, :, max(top, 0) : top + rows, max(left, 0) : left + columns] = 0
    return out


@pytest.mark.parametrize("words", ["diffaug", "color,cutout", "translation", "color"])
def test_diffaugment_is_the_cards(any_backend, words):
    if any_backend == ("triton", "cpu") and words != "diffaug":
        pytest.skip("all words do, where interpreting each takes a second")
    shape = (2, 3, 6, 5) if any_backend == ("triton", "cpu") else (12, 3, 12, 9)
    x = images(shape, torch.float64, any_backend.device)
    got, drawn = ops.augment(x, words, seed=8, return_params=True, impl=any_backend.impl)
    assert_near(got.cpu(), diffaugment(x.cpu(), {k: v.cpu() for k, v in drawn.items()}), 10)


def test_a_shift_between_pixels_is_bilinear(any_backend):
    """On a ramp a bilinear shift by t adds t, away from the border."""
    ramp = (torch.arange(16.0)[:, None] * 2 + torch.arange(20.0)).expand(6, 1, 16, 20)
    policy = AugmentPolicy(flip=0.0, shift=0.125, subpixel=True)
    got, drawn = ops.augment(
        ramp.to(any_backend.device), policy, seed=1, return_params=True, impl=any_backend.impl
    )
    y, x = drawn["shift"].cpu().unbind(1)
    assert ((y != y.round()) & (x != x.round())).all()
    expected = ramp + (2 * y + x).view(-1, 1, 1, 1)
    inner = (..., slice(3, 13), slice(3, 17))
    torch.testing.assert_close(got.cpu()[inner], expected[inner], rtol=0, atol=2e-5)


def test_noise_is_the_samples_own_stream(any_backend):
    x = images((3, 2, 5, 7), torch.float32, any_backend.device)
    policy = AugmentPolicy(flip=0.0, shift=0.0, noise=0.25)
    got = ops.augment(x, policy, seed=6, offset=10, impl=any_backend.impl)
    for i in range(3):
        normals = ops.random_normal((2, 5, 7), seed=6, offset=16, stream=2**63 + 10 + i)
        assert_near(got[i].cpu(), x[i].cpu() + 0.25 * normals)


@both
def test_any_split_gives_the_same_images(any_backend, op):
    x = images((4, 3, 7, 6), device=any_backend.device)
    where = {"seed": 3, "impl": any_backend.impl}
    whole = ops.augment(x, EVERYTHING, offset=5, **where)
    for cut in (1,) if any_backend == ("triton", "cpu") else (0, 1, 3):
        parts = [op(x[:cut], EVERYTHING, offset=5, **where)[-cut:] if cut else whole[:0],
                 op(x[cut:], EVERYTHING, offset=5 + cut, **where)[cut - 4 :]]  # fmt: skip
        assert_same_bits(torch.cat(parts), whole)


def test_seeds_generators_and_offsets():
    x = images((64, 1, 8, 8))
    draw = lambda **kwargs: ops.augment(x, "cr", **kwargs)  # noqa: E731
    assert_same_bits(draw(seed=1), draw(seed=1, offset=0))
    assert_same_bits(draw(seed=-1), draw(seed=2**64 - 1))
    assert not torch.equal(draw(seed=1), draw(seed=2))
    assert not torch.equal(draw(seed=1), draw(seed=1, offset=1))
    one, two = (torch.Generator().manual_seed(3) for _ in range(2))
    first = draw(generator=one)
    assert_same_bits(first, draw(generator=two))
    assert not torch.equal(first, draw(generator=one))
    torch.manual_seed(3)
    assert_same_bits(draw(), first)


# Every implementation on every machine draws these: seed 2020, samples 0, 1 and 10^12, 32 x 48.
PINNED = "\n".join([
    "0x0.0p+0 -0x1.2d56ca0000000p+3 0x1.4d538e0000000p+0 -0x1.5c435a0000000p-6 "
    "0x1.18e7320000000p+0 0x1.1563a40000000p-1 -0x1.8000000000000p+1 "
    "0x1.8000000000000p+3 0x1.4000000000000p+3 0x1.c000000000000p+3 "
    "0x1.99999a0000000p-3",
    "0x1.0000000000000p+0 -0x1.d6632e0000000p+2 -0x1.dfb93a0000000p+3 "
    "-0x1.2912f00000000p-3 0x1.66eef20000000p+0 0x1.728c780000000p-2 "
    "0x1.4000000000000p+2 0x1.3000000000000p+5 0x1.4000000000000p+3 "
    "0x1.c000000000000p+3 0x1.99999a0000000p-3",
    "0x1.0000000000000p+0 0x1.b97d8e0000000p+1 -0x1.fdf6380000000p+3 "
    "-0x1.06a22a0000000p-4 0x1.9c2a7a0000000p+0 0x1.0333860000000p+0 "
    "0x1.0000000000000p+4 0x1.4000000000000p+2 0x1.4000000000000p+3 "
    "0x1.c000000000000p+3 0x1.99999a0000000p-3",
])  # fmt: skip


def test_known_draws(any_backend):
    rows = []
    for offset, n in ((0, 2), (10**12, 1)):
        x = torch.zeros(n, 1, 32, 48, device=any_backend.device)
        policy = EVERYTHING.replace(p=1.0)
        _, drawn = ops.augment(
            x, policy, seed=2020, offset=offset, return_params=True, impl=any_backend.impl
        )
        columns = [v.to(torch.float32).cpu().reshape(n, -1) for v in drawn.values()]
        rows += torch.cat(columns, 1).tolist()
    assert "\n".join(" ".join(float(v).hex() for v in row) for row in rows) == PINNED


def test_triton_refuses_images_that_32_bits_do_not_count():
    kernels = pytest.importorskip("ganops.ops.augment.triton_kernels")
    x = torch.ones(1, dtype=torch.uint8).expand(1, 8, 2**14, 2**14)
    with pytest.raises(ValueError, match=r"fewer than 2\^31 numbers"):
        kernels.augment(x, torch.zeros(1, 11), 0, 0, 0, 0, False, False)


def test_another_process_draws_the_same():
    code = (
        "import torch; from ganops import ops; x = torch.arange(192, dtype=torch.uint8);"
        "print(ops.augment(x.view(1, 3, 8, 8), 'diffaug', seed=11).double().sum().item().hex())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    x = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8)
    assert said.stdout.strip() == ops.augment(x, "diffaug", seed=11).double().sum().item().hex()


@pytest.mark.parametrize("impl", ["reference", "native"])
def test_what_becomes_of_nan(impl):
    """It stays in its pixel, unless a mean runs over it; zeros are written over it."""
    x = torch.zeros(2, 3, 8, 8)
    x[0, 0, 4, 4] = float("nan")
    still = {"flip": 0.0, "shift": 0.0}

    def count(policy):
        return ops.augment(x, policy, seed=0, impl=impl).isnan().flatten(1).sum(1).tolist()

    assert count(AugmentPolicy(**still)) == [1, 0]
    assert count(AugmentPolicy(**still, saturation=0.5)) == [3, 0]
    assert count(AugmentPolicy(**still, contrast=0.5)) == [192, 0]
    assert count(AugmentPolicy(**still, cutout=1.0, contrast=0.5))[0] < 192
    assert count(AugmentPolicy(flip=0.0, shift=2.0, padding="zero", contrast=0.5))[0] < 192


def test_no_pass_is_made_for_what_a_policy_does_not_do():
    flags = lambda policy, channels=3: _flags(resolve(policy), channels)  # noqa: E731
    assert flags("cr") == reference.REFLECT
    assert flags("diffaug") == reference.SATURATION + reference.CONTRAST
    assert flags("diffaug", 1) == reference.CONTRAST
    assert flags(EVERYTHING) == 31 - reference.REFLECT
    for name in ("saturation", "contrast", "noise"):
        wanted = reference.REFLECT + getattr(reference, name.upper())
        assert flags(AugmentPolicy(**{name: 0.5})) == wanted


def test_columns_and_flags_agree_with_the_header():
    text = (ROOT / "csrc" / "augment" / "augment_math.h").read_text()
    columns = re.search(r"enum AugmentColumn : int \{([^}]*)\}", text).group(1)
    assert tuple(re.findall(r"\w+", columns)) == reference.COLUMNS
    flags = dict(re.findall(r"k(\w+) = (\d+)[,\s]", text.split("enum AugmentFlag")[1][:200]))
    for name, value in flags.items():
        assert getattr(reference, name.upper()) == int(value)
    assert len(flags) == 5
    assert f"kAugmentColumns = {len(reference.COLUMNS)};" in text
