"""ADA's whole pipeline: batches in parts, dtypes, filter, noise, cutout, errors, policies."""

from __future__ import annotations

import pytest
import torch
from compare import assert_near, assert_same_bits
from test_ada import images, maps_of, small

from ganops import ops
from ganops.ops.ada import autograd, parameters, reference
from ganops.ops.ada.filters import BANK, REACH, filter_bands
from ganops.ops.ada.policy import PRESETS, AdaPolicy


def test_a_batch_in_parts_is_the_batch(any_backend):
    shape = (2, 1, 3, 2) if small(any_backend) else (5, 3, 10, 12)
    policy = "ada-blit" if small(any_backend) else "ada-bgcfnc"
    x = images(*shape, dtype=torch.float32, device=any_backend.device)
    call = lambda x, offset: ops.ada_augment(  # noqa: E731
        x, policy, 0.9, seed=-7, offset=offset, impl=any_backend.impl
    )
    whole, cut = call(x, 11), 1 if small(any_backend) else 2
    assert_same_bits(torch.cat((call(x[:cut], 11), call(x[cut:], 11 + cut))), whole)
    other = call(x, 12)
    assert not torch.equal(other, whole)


def test_p_may_be_a_tensor_and_gets_no_gradient():
    x = images(3, 3, 6, 6)
    p = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    y = ops.ada_augment(x, "ada-bgcfnc", p, seed=2)
    assert not y.requires_grad
    assert_same_bits(y, ops.ada_augment(x, "ada-bgcfnc", 0.6, seed=2))


def test_uint8_and_out_dtype():
    x = torch.arange(2 * 3 * 6 * 6, dtype=torch.uint8).view(2, 3, 6, 6)
    y = ops.ada_augment(x, seed=1)
    assert y.dtype == torch.float32
    assert_near(y, ops.ada_augment(x.float() / 127.5 - 1, seed=1))
    assert ops.ada_augment(x, seed=1, out_dtype=torch.float16).dtype == torch.float16
    assert_near(ops.ada_augment(x, seed=1, out_dtype=torch.float64),
                ops.ada_augment(x.double() / 127.5 - 1, seed=1))  # fmt: skip


@pytest.mark.parametrize("policy", ["ada-bgc", "ada-color", "ada-bgcfnc", "ada-noise"])
def test_bytes_are_the_floats_they_mean(any_backend, policy):
    """To the last bit, whether a kernel reads them or a pass before it maps them."""
    if small(any_backend) and policy != "ada-color":
        pytest.skip("one does, where interpreting takes seconds")
    for channels in (1, 3):
        shape = (1, channels, 2, 3) if small(any_backend) else (6, channels, 16, 8)
        x = (torch.arange(torch.Size(shape).numel()) * 7).to(torch.uint8).view(shape)
        x = x.to(any_backend.device)
        for bytes_ in (x, x.contiguous(memory_format=torch.channels_last), x.mT.contiguous().mT):
            got, expected = (
                ops.ada_augment(v, policy, 0.7, seed=3, impl=any_backend.impl)
                for v in (bytes_, bytes_ / 127.5 - 1)
            )
            assert_same_bits(got, expected)


@pytest.mark.parametrize("policy", PRESETS)
def test_an_empty_batch(any_backend, policy):
    x = torch.ones(0, 3, 4, 4, device=any_backend.device, requires_grad=True)
    y = ops.ada_augment(x, policy, seed=1, impl=any_backend.impl)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert y.shape == dx.shape == x.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_rounded_once(dtype):
    x = images(4, 3, 9, 8, dtype=dtype)
    for policy in ("ada-bgc", "ada-bgcfnc"):
        wide = ops.ada_augment(x.float(), policy, 0.7, seed=2)
        assert torch.equal(ops.ada_augment(x, policy, 0.7, seed=2, out_dtype=torch.float32), wide)
        assert torch.equal(ops.ada_augment(x, policy, 0.7, seed=2), wide.to(dtype))


def test_nan_stays_in_its_image(any_backend):
    x = images(3, 3, 6, 6, dtype=torch.float32, device=any_backend.device)
    bad = x.clone()
    bad[1, 0, 2, 2] = torch.nan
    one, two = (ops.ada_augment(v, "ada-bgcfn", seed=2, impl=any_backend.impl) for v in (x, bad))
    assert torch.equal(one[::2], two[::2])
    assert two[1].isnan().any()


def test_a_generator_draws_one_seed():
    x = images(2, 1, 5, 5)
    a, b = (ops.ada_augment(x, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert_same_bits(a, b)
    seed = int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(4)))
    assert_same_bits(a, ops.ada_augment(x, seed=seed))


def test_compiles_to_one_graph():
    x = images(2, 3, 6, 6).requires_grad_()
    f = lambda x: ops.ada_augment(x.sin(), "ada-bgc", 0.8, seed=3).cos()  # noqa: E731
    torch._dynamo.reset()
    y, expected = torch.compile(f, fullgraph=True, backend="aot_eager")(x), f(x)
    assert_near(y, expected, 100)
    for got, want in zip(*(torch.autograd.grad(t.sum(), x) for t in (y, expected))):
        assert_near(got, want, 1e3)
    torch._dynamo.reset()


def test_filter_bank():
    bank = torch.tensor(BANK, dtype=torch.float64)
    assert bank.shape == (4, 43)
    delta = torch.zeros(43, dtype=torch.float64)
    delta[REACH] = 1
    assert_near(bank.sum(0), delta, 1e3)
    assert_near(bank, bank.flip(1), 10)
    x = images(2, 2, 9, 30)
    gains = torch.tensor([[0.5, 2, 1, 3], [1, 1, 1, 4]], dtype=torch.float64)
    y = filter_bands(x, gains, torch.tensor([True, False]))
    assert_same_bits(y[1], x[1])
    pad = torch.nn.functional.pad(x[:1], (21, 21, 0, 0), "reflect").movedim(2, 3)
    rows = x[0].new_empty(2, 9, 30)
    taps = (gains[:1] @ bank)[0]
    for i in range(30):
        rows[..., i] = (pad[0, :, i : i + 43] * taps.view(1, -1, 1)).sum(1)
    index = reference.reflect(torch.arange(-21, 30), 9)
    expected = torch.stack(
        [(rows[:, index[i : i + 43]] * taps.view(1, -1, 1)).sum(1) for i in range(9)], 1
    )
    assert_near(y[0], expected, 100)


def test_noise_and_cutout():
    x = images(400, 1, 16, 16)
    y, drawn = ops.ada_augment(x, "ada-noise", seed=1, return_params=True)
    z = (y - x) / drawn["noise"].view(-1, 1, 1, 1)
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02
    ones = torch.ones(300, 1, 20, 10)
    y, drawn = ops.ada_augment(ones, "ada-cutout", 0.5, seed=1, return_params=True)
    center = drawn["cutout_center"].view(300, 1, 2)
    columns, rows = torch.arange(10) + 0.5, torch.arange(20) + 0.5
    cut = ((rows - center[..., 1]).abs()[:, :, None] < 5) & (
        (columns - center[..., 0]).abs()[:, None] < 2.5
    )
    assert torch.equal(y[:, 0] == 0, cut & drawn["cutout"].view(-1, 1, 1))
    assert 0.4 < drawn["cutout"].double().mean() < 0.6


BAD = [
    (TypeError, "uint8 or a floating", {"x": torch.ones(1, 3, 4, 4, dtype=torch.int32)}),
    (TypeError, "a dense x", {"x": torch.ones(1, 3, 4, 4).to_sparse()}),
    (ValueError, "shape", {"x": torch.ones(3, 4, 4)}),
    (ValueError, "sides 1 to", {"x": torch.ones(1, 3, 0, 4)}),
    (ValueError, "1 or 3 channels", {"x": torch.ones(1, 2, 4, 4)}),
    (ValueError, "expected one of ada-blit", {"policy": "ada"}),
    (TypeError, "policy as a name", {"policy": 3}),
    (ValueError, "at least 0", {"p": -0.1}),
    (ValueError, "finite", {"p": float("nan")}),
    (TypeError, "number or tensor", {"p": "1"}),
    (ValueError, "one floating number", {"p": torch.ones(2)}),
    (ValueError, "seed with offset", {"offset": 3}),
    (ValueError, "0 <= offset", {"seed": 1, "offset": -1}),
    (
        ValueError,
        r"at most 2\^62 with noise",
        {"policy": "ada-noise", "seed": 1, "offset": 2**56, "x": torch.ones(1, 3, 8, 8)},
    ),
    (TypeError, "offset as an int, got 1.5", {"seed": 1, "offset": 1.5}),
    (TypeError, "seed as an int", {"seed": 1.5}),
    (TypeError, "as a torch.Generator, got 5", {"generator": 5}),
    (ValueError, "or a seed, got both", {"seed": 1, "generator": torch.Generator()}),
    (TypeError, "floating out_dtype", {"out_dtype": torch.int8}),
]


@pytest.mark.parametrize(("error", "text", "change"), BAD)
def test_bad_input(error, text, change):
    with pytest.raises(error, match=text):
        ops.ada_augment(**{"x": torch.ones(1, 3, 4, 4), **change})


def test_policies():
    for name in PRESETS:
        policy = AdaPolicy.preset(name)
        assert AdaPolicy.from_dict(policy.to_dict()) == policy
    assert AdaPolicy() == AdaPolicy.from_dict({})
    for change, text in (({"flip": -1}, "flip"), ({"scale_std": 0.9}, "scale_std"),
                         ({"filter_bands": (1, 1)}, "four"), ({"hue": float("nan")}, "hue"),
                         ({"filter_bands": (1, 1, 1, -1)}, "filter_bands")):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            AdaPolicy(**change)
    with pytest.raises(ValueError, match="its own fields, got flips"):
        AdaPolicy.from_dict({"flips": 1})
    with pytest.raises(TypeError, match="a mapping of fields, got None"):
        AdaPolicy.from_dict(None)
    with pytest.raises(ValueError, match=r"one of ada-blit.*got \["):
        AdaPolicy.preset(["ada-bgc"])


def test_kernels_refuse_maps_that_would_overflow():
    maps = maps_of(1, 4, 4)
    maps[0, 0] = 1 << 43
    with pytest.raises(RuntimeError, match="finite scale"):
        autograd.Ada.apply(images(1, 1, 4, 4), maps, None, "native")


def test_exp2_is_right():
    x = torch.linspace(-5, 5, 10_001, dtype=torch.float64)
    assert_near(parameters.exp2_exact(x), torch.exp2(x), 1)
