"""Policies: what they draw, by definition and by chi-square; names, YAML, and user mistakes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from ganops import ops
from ganops.ops import AugmentPolicy
from ganops.ops.augment.policy import PRESETS, resolve

SAMPLES = 24_000
STILL = {"flip": 0.0, "shift": 0.0}


def drawn(policy, shape=(1, 16, 24), n=SAMPLES, seed=77, **kwargs):
    x = torch.zeros(n, *shape, dtype=torch.uint8)
    return ops.augment(x, policy, seed=seed, out_dtype=torch.float16, return_params=True, **kwargs)[
        1
    ]


def chi_square(found, values, expected=None):
    """5 sigma of the statistic: a false alarm in two million, were the seed not fixed."""
    counts = torch.stack([(found == v).sum() for v in values]).double()
    assert counts.sum() == found.numel(), "a value that is not among those there are"
    p = torch.full_like(counts, 1 / len(values)) if expected is None else torch.tensor(expected)
    wanted = p.double() * found.numel()
    freedom = len(values) - 1
    assert abs(((counts - wanted) ** 2 / wanted).sum() - freedom) < 5 * math.sqrt(2 * freedom)


def uniform(found, low, high, bins=40):
    assert low <= found.min()
    assert found.max() < high
    chi_square(((found - low) / (high - low) * bins).floor(), range(bins))


@pytest.mark.parametrize(("flip", "p"), [(0.5, 1.0), (0.25, 1.0), (0.8, 0.3)])
def test_flips(flip, p):
    chance = flip * p
    chi_square(drawn(AugmentPolicy(flip=flip, p=p))["flip"], [0, 1], [1 - chance, chance])
    assert drawn(AugmentPolicy(flip=1.0), n=99)["flip"].all()
    assert not drawn(AugmentPolicy(flip=0.0), n=99)["flip"].any()


def test_whole_shifts():
    y, x = drawn("cr")["shift"].unbind(1)
    chi_square(y, range(-2, 3))
    chi_square(x, range(-3, 4))
    chi_square(y * 7 + x, range(-17, 18))  # together: independent
    y, x = drawn("translation", shape=(1, 12, 28))["shift"].unbind(
        1
    )  # int(1.5 + .5), int(3.5 + .5)
    chi_square(y, range(-2, 3))
    chi_square(x, range(-4, 5))


def test_shifts_between_pixels():
    y, x = drawn(AugmentPolicy(shift=0.1, subpixel=True))["shift"].unbind(1)
    uniform(y, -1.6, 1.6001)
    uniform(x, -2.4, 2.4001)


@pytest.mark.parametrize(("side", "cutout", "size"), [(16, 0.5, 8), (9, 0.5, 5), (16, 0.3, 5)])
def test_cutouts(side, cutout, size):
    box = drawn(AugmentPolicy(**STILL, cutout=cutout), shape=(1, side, 7))["cutout"]
    assert (box[:, 2] == size).all()
    chi_square(box[:, 0] + size // 2, range(side + 1 - size % 2))


def test_cutout_covers_what_the_card_says():
    """Of 32 x 32 pixels, .1865: the box may lie partly outside."""
    x = torch.ones(4000, 1, 32, 32)
    covered = (ops.augment(x, "cutout", seed=9) == 0).float()
    assert abs(covered.mean() - 0.1865) < 0.004
    assert abs(covered[:, 0].amax(2).mean() - 0.4318) < 0.006


def test_colours():
    found = drawn(AugmentPolicy(**STILL, brightness=0.3, saturation=0.9, contrast=0.4))
    uniform(found["brightness"], -0.3, 0.30001)
    uniform(found["saturation"], 0.1, 1.90001)
    uniform(found["contrast"], 0.6, 1.40001)
    diffaug = drawn("diffaug", shape=(3, 8, 8))
    uniform(diffaug["brightness"], -0.5, 0.5)
    uniform(diffaug["saturation"], 0, 2)
    uniform(diffaug["contrast"], 0.5, 1.5)


def test_every_transform_has_a_gate_of_its_own():
    policy = AugmentPolicy(flip=1.0, shift=0.3, subpixel=True, cutout=0.5, brightness=0.5,
                           saturation=0.5, contrast=0.5, noise=0.1, p=0.6)  # fmt: skip
    found = drawn(policy, shape=(1, 8, 8))
    on = {
        "flip": found["flip"],
        "shift": (found["shift"] != 0).any(1),
        "brightness": found["brightness"] != 0,
        "saturation": found["saturation"] != 1,
        "contrast": found["contrast"] != 1,
        "cutout": found["cutout"][:, 2] > 0,
        "noise": found["noise"] > 0,
    }
    for name, gate in on.items():
        chi_square(gate, [0, 1], [0.4, 0.6])
        for other, second in on.items():
            if name < other:
                chi_square(2 * gate.int() + second.int(), range(4), [0.16, 0.24, 0.24, 0.36])
    assert (found["cutout"][found["cutout"][:, 2] == 0] == 0).all()
    assert sorted(found["noise"].unique().tolist()) == [0.0, pytest.approx(0.1)]


def test_p_zero_is_the_identity():
    x = torch.randn(3, 3, 8, 8)
    everything = resolve("diffaug").replace(noise=1.0, flip=1.0, p=0.0)
    torch.testing.assert_close(ops.augment(x, everything, seed=0), x, rtol=0, atol=0)


def test_draws_are_the_documented_words():
    """Word by word, from the sample's stream, in Python's integers."""
    policy = resolve("diffaug").replace(flip=0.4, p=0.7)
    found = drawn(policy, shape=(3, 20, 30), n=40, seed=5, offset=9)
    for i in range(40):
        w = ops.random_bits((16,), seed=5, stream=2**63 + 9 + i).tolist()
        gate = [word >> 8 < round(0.7 * 2**24) for word in w]
        v = [(word >> 8) / 2**23 - 1 for word in w]
        assert found["flip"][i] == (w[0] >> 8 < round(0.4 * 0.7 * 2**24))
        shift = [(w[2] * 7 >> 32) - 3, (w[3] * 9 >> 32) - 4] if gate[1] else [0, 0]
        assert found["shift"][i].tolist() == shift
        cut = [(w[5] * 21 >> 32) - 5, (w[6] * 30 >> 32) - 7, 10, 15] if gate[4] else [0] * 4
        assert found["cutout"][i].tolist() == cut
        assert found["brightness"][i] == pytest.approx(v[9] / 2 if gate[8] else 0, abs=1e-7)
        assert found["saturation"][i] == pytest.approx(1 + v[11] if gate[10] else 1, abs=1e-6)
        assert found["contrast"][i] == pytest.approx(1 + v[13] / 2 if gate[12] else 1, abs=1e-6)


def test_presets_are_the_cards():
    assert PRESETS["cr"] == PRESETS["bcr"] == AugmentPolicy()
    cr = PRESETS["cr"]
    assert (cr.flip, cr.shift, cr.padding) == (0.5, 0.125, "reflect")
    for side in range(1, 70):
        assert cr.plan(side, side).shift_y == side // 8
        assert cr.replace(padding="zero").plan(side, 8).shift_y == side // 8
        plan = PRESETS["diffaug"].plan(side, 5)
        assert (plan.shift_y, plan.cut_y) == (int(side * 0.125 + 0.5), int(side * 0.5 + 0.5))
    assert resolve("color,translation,cutout") == PRESETS["diffaug"]
    assert resolve("").replace(flip=0.5, shift=0.125) == AugmentPolicy()


@pytest.mark.parametrize("policy", [*PRESETS.values(), AugmentPolicy(noise=1e-4, subpixel=True)])
def test_yaml_round_trip(policy):
    pytest.importorskip("yaml")
    assert AugmentPolicy.from_yaml(policy.to_yaml()) == policy
    assert AugmentPolicy.from_dict(policy.to_dict()) == policy
    assert AugmentPolicy.from_yaml("flip: 1") == AugmentPolicy(flip=1)


def test_policies_are_frozen_values():
    with pytest.raises(dataclasses.FrozenInstanceError):
        AugmentPolicy().flip = 1.0
    assert len({AugmentPolicy(), AugmentPolicy(), AugmentPolicy(flip=1.0)}) == 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AugmentPolicy(flip=-0.1), ValueError, "expected flip as within 0 ... 1, got -0.1"),
        (lambda: AugmentPolicy(p=1.5), ValueError, "expected p as within 0 ... 1, got 1.5"),
        (lambda: AugmentPolicy(shift=-1), ValueError, "expected shift as a finite number >= 0"),
        (lambda: AugmentPolicy(noise=math.nan), ValueError, "expected noise as a finite number"),
        (lambda: AugmentPolicy(contrast=2), ValueError, "expected contrast as within 0 ... 1"),
        (lambda: AugmentPolicy(padding="wrap"), ValueError, "as one of reflect, zero; got 'wrap'"),
        (lambda: AugmentPolicy(flip="no"), TypeError, "expected flip as a number, got 'no'"),
        (lambda: AugmentPolicy(subpixel=1), TypeError, "expected subpixel as a bool, got 1"),
        (lambda: AugmentPolicy.from_dict({"flop": 1}), ValueError, "among flip, shift, .*got flop"),
        (lambda: AugmentPolicy.from_dict([1]), TypeError, "expected a mapping of fields"),
        (lambda: AugmentPolicy(ada=1), TypeError, "expected ada as an AdaPolicy, got 1"),
        (lambda: AugmentPolicy(ada="ada-x"), ValueError, "expected one of ada-blit, .*got 'ada-x'"),
        (lambda: AugmentPolicy(ada="ada-bg", cutout=0.5), ValueError, "ada alone, got cutout"),
        (lambda: AugmentPolicy.from_dict({"ada": {"flop": 1}}), ValueError, "own fields, got"),
        (
            lambda: resolve("cra"),
            ValueError,
            "one of cr, bcr, diffaug, ada-blit.* or words.*got 'cra'",
        ),
        (lambda: resolve("cutout,color"), ValueError, "in the order color, translation, cutout"),
        (lambda: resolve("color,color"), ValueError, "words once each"),
        (lambda: resolve(3), TypeError, "as a name or an AugmentPolicy, got 3"),
    ],
)
def test_bad_policies(make, error, message):
    with pytest.raises(error, match=message):
        make()


IMAGE = torch.zeros(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("x", "kwargs", "error", "message"),
    [
        (IMAGE.int(), {}, TypeError, "expected x as a uint8 or float tensor, got torch.int32"),
        ([1], {}, TypeError, "expected x as a uint8 or float tensor, got list"),
        (IMAGE.to_sparse(), {}, TypeError, "expected a dense x"),
        (IMAGE[0], {}, ValueError, r"expected x of shape \(B, C, H, W\), got \(3, 8, 8\)"),
        (torch.zeros(1, 9, 4, 4), {}, ValueError, "expected 1 to 8 channels, got 9"),
        (torch.zeros(1, 0, 4, 4), {}, ValueError, "expected 1 to 8 channels, got 0"),
        (IMAGE, {"out_dtype": torch.int8}, TypeError, "expected out_dtype as a floating dtype"),
        (IMAGE, {"out_dtype": torch.float64}, ValueError, "float64 images stay float64"),
        (IMAGE.double(), {"out_dtype": torch.float32}, ValueError, "float64 images stay float64"),
        (IMAGE, {"policy": AugmentPolicy(shift=1.0)}, ValueError,
         "a shift below the side for reflect padding, got up to 8 pixels of 8"),
        (IMAGE[..., :1], {"policy": AugmentPolicy(subpixel=True)}, ValueError,
         "up to 1 pixels of 1"),
        (IMAGE, {"policy": AugmentPolicy(shift=1e30, padding="zero")}, ValueError,
         "a shift of at most 8388608 pixels, got 1e.30"),
        (IMAGE, {"policy": AugmentPolicy(shift=1e308, subpixel=True)}, ValueError, "at most"),
        (IMAGE, {"policy": "cra"}, ValueError, "expected policy as one of cr, bcr, diffaug"),
        (IMAGE, {"policy": AugmentPolicy(noise=1e39)}, ValueError, "that float32 holds, got 1e.39"),
        (IMAGE, {"generator": torch.Generator()}, ValueError, "a generator or a seed, got both"),
        (IMAGE, {"seed": None, "generator": 5}, TypeError, "as a torch.Generator, got 5"),
        (IMAGE, {"seed": 2**64}, ValueError, "expected seed to fit 64 bits"),
        (IMAGE, {"seed": 0.5}, TypeError, "expected seed as an int, got 0.5"),
        (IMAGE, {"offset": -1}, ValueError, "expected 0 <= offset"),
        (IMAGE, {"offset": 2**62 - 1}, ValueError, "offset . B <= 2.62"),
        (IMAGE, {"offset": 1.0}, TypeError, "expected offset as an int, got 1.0"),
        (IMAGE, {"impl": "numpy"}, ValueError, "augment: impl: expected one of auto"),
    ],
)  # fmt: skip
def test_bad_arguments(x, kwargs, error, message):
    for op in (ops.augment, ops.consistency_pair):
        with pytest.raises(error, match=message):
            op(x, **{"policy": "cr", "seed": 0, **kwargs})
