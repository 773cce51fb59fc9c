"""ADA's random numbers by one kernel: the bits of the plain twin, on any machine."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import torch
from backends import Backend
from compare import assert_same_bits

from ganops import ops
from ganops.ops._autograd import kernel
from ganops.ops.ada import fused
from ganops.ops.ada.parameters import draw
from ganops.ops.ada.policy import PRESETS, AdaPolicy

ROOT = Path(__file__).parents[2]
ODD = {
    "nothing": AdaPolicy(),
    "strengths": AdaPolicy(
        rotate=0.7, rotate_max=0.3, hue=0.4, hue_max=0.77, filter=0.5,
        filter_bands=(1, 0, 0.3, 2), filter_std=0.7, shift=0.3, shift_max=1.7, scale=0.9,
        scale_std=0.3, aniso=0.8, aniso_std=0.4, translate=0.7, translate_std=0.3,
        brightness=0.9, brightness_std=0.5, contrast=0.7, contrast_std=0.9, saturation=0.3,
        saturation_std=0.2, noise=0.9, noise_std=0.3, cutout=0.8, flip=0.9, rotate90=0.8,
        luma_flip=0.9,
    ),
}  # fmt: skip
IMAGES = ("maps", "color", "gains", "filtered", "sigma", "cutout")
POLICIES = {**{name: AdaPolicy.preset(name) for name in PRESETS}, **ODD}


def both(policy, p, n=200, size=(48, 80), device="cpu", seed=-7, offset=2**40):
    given = (policy, p, (n, 3, *size), seed, offset, torch.device(device))
    return draw(*given, "reference"), fused.draw_at_once(*given, "native", name=True)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def native(request):
    backend = Backend("native", request.param)
    if backend.why_not() is not None:
        pytest.skip(backend.why_not())
    return backend


@pytest.mark.parametrize("p", [0.0, 0.6, 2.0, "tensor"])
@pytest.mark.parametrize("name", POLICIES)
def test_bits_are_the_twins(native, name, p):
    p = torch.tensor(0.37, dtype=torch.float64, device=native.device) if p == "tensor" else p
    for size in ((48, 80), (4, 7)):
        expected, got = both(POLICIES[name], p, size=size, device=native.device)
        assert list(got.named) == list(expected.named)
        for key, value in expected.named.items():
            assert got.named[key].shape == value.shape
            assert_same_bits(got.named[key], value, key)
        for key in IMAGES:
            value = getattr(expected, key)
            if value is not None:
                assert_same_bits(getattr(got, key), value, key)


def test_the_bits_do_not_depend_on_torchs_settings():
    before, (expected, _) = torch.get_default_dtype(), both(ODD["strengths"], 0.6)
    try:
        torch.set_default_dtype(torch.float64)
        again, fused_again = both(ODD["strengths"], 0.6)
    finally:
        torch.set_default_dtype(before)
    for key, value in expected.named.items():
        assert_same_bits(again.named[key], value, key)
        assert_same_bits(fused_again.named[key], value, key)


def test_known_draws(any_backend):
    """Every implementation, process and machine draws these."""
    x = torch.zeros(2, 1, 1, 1, device=any_backend.device)
    drawn = ops.ada_augment(
        x, ODD["strengths"], 0.8, seed=2020, offset=10**12, return_params=True,
        impl=any_backend.impl,
    )[1]  # fmt: skip
    text = repr([drawn[key].double().cpu().tolist() for key in drawn])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "93babbc5233f674c"


def test_the_triton_op_is_a_twin(backend):
    """What its schema promises, from Triton's Philox; in fact drawn by `draw` where Triton runs."""
    if backend.impl != "triton":
        pytest.skip("for Triton")
    p = torch.tensor(0.6, dtype=torch.float64, device=backend.device)
    for policy in (ODD["strengths"], AdaPolicy(noise=1.0)):
        given = (p, fused.plan(policy), 3, -7, 11, 9, 12)
        for got, expected in zip(
            kernel("ada_params", "triton")(*given), kernel("ada_params", "native")(*given)
        ):
            assert_same_bits(got, expected)


def test_names_agree_with_the_header():
    text = (ROOT / "csrc" / "ada" / "ada_draw.h").read_text()
    words = re.search(r"struct AdaPlan \{\s*double ([^;]*);", text).group(1)
    assert tuple(re.findall(r"[a-z]\w+", words)) == tuple(
        "bands" if name == "filter_bands" else name for name in fused.NUMBERS
    )
    camel = {key: "".join(w.capitalize() for w in key.split("_")) for key in fused.COLUMNS}
    for key, first in fused.STARTS.items():
        assert re.search(rf"\bk{camel[key]} = {first},", text), key
    assert f"kAdaColumns = {sum(fused.COLUMNS.values())}," in text


@pytest.mark.parametrize(
    ("p", "plan", "message"),
    [
        (torch.zeros(2, dtype=torch.float64), None, "p as one float64"),
        (torch.zeros(()), None, "p as one float64"),
        (None, torch.zeros(29, dtype=torch.float64), "the plan as 30"),
        (None, torch.zeros(30), "the plan as 30"),
    ],
)
def test_the_kernel_checks_what_it_reads(p, plan, message):
    p = torch.ones((), dtype=torch.float64) if p is None else p
    plan = fused.plan(AdaPolicy()) if plan is None else plan
    with pytest.raises(RuntimeError, match=message):
        torch.ops.ganops.ada_params(p, plan, 1, 0, 0, 4, 4)


def test_nothing_is_drawn_by_small_operations():
    """The point of it: one kernel, and a dozen views."""
    x = torch.zeros(4, 3, 8, 8)
    with torch.profiler.profile() as seen:
        ops.ada_augment(x, "ada-bgc", 0.6, seed=1, impl="native")
    assert sum(event.count for event in seen.key_averages()) < 30
