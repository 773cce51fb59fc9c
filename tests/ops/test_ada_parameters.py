"""The laws of ADA's random parameters, over 20,000 samples of one seed, and their independence."""

from __future__ import annotations

import math

import pytest
import torch
from compare import assert_same_bits

from ganops import _library, ops
from ganops.ops.ada.parameters import NORMAL, SLOT, draw
from ganops.ops.ada.policy import AdaPolicy

N, P = 20_000, 0.6
HEIGHT, WIDTH = 48, 80


def drawn(policy, p, seed=17, impl="auto"):
    policy = AdaPolicy.preset(policy) if isinstance(policy, str) else policy
    shape = (N, 3, HEIGHT, WIDTH)
    return draw(policy, p, shape, seed, 0, torch.device("cpu"), impl).named


@pytest.fixture(scope="module")
def always():
    return drawn("ada-bgcfnc", 1.0)


@pytest.fixture(scope="module")
def sometimes():
    return drawn("ada-bgcfnc", P)


def assert_law(values, cdf):
    """Kolmogorov and Smirnov: below 1.95 / sqrt n with probability 0.999."""
    u = cdf(values.double().sort().values)
    grid = torch.arange(1, len(u) + 1, dtype=torch.float64) / len(u)
    assert torch.maximum((grid - u).abs(), (u - grid + 1 / len(u)).abs()).max() < 1.95 / N**0.5


def assert_shares(counts, probabilities):
    """Chi-square: below its mean plus four standard deviations and a bit."""
    expected = torch.tensor(probabilities, dtype=torch.float64) * sum(counts)
    chi = ((torch.tensor(counts, dtype=torch.float64) - expected) ** 2 / expected).sum()
    freedom = len(counts) - 1
    assert chi < freedom + 4 * math.sqrt(2 * freedom) + 5


def normal(std):
    return lambda v: torch.special.ndtr(v / std)


def uniform(low, high):
    return lambda v: (v - low) / (high - low)


LAWS = {
    "scale": (torch.log2, normal(0.2)),
    "aniso": (torch.log2, normal(0.2)),
    "rotate_before": (None, uniform(-180, 180)),
    "rotate_after": (None, uniform(-180, 180)),
    "translate": (lambda t: t[:, 0], normal(0.125 * WIDTH)),
    "translate y": (lambda t: t[:, 1], normal(0.125 * HEIGHT)),
    "brightness": (None, normal(0.2)),
    "contrast": (torch.log2, normal(0.5)),
    "hue": (None, uniform(-180, 180)),
    "saturation": (torch.log2, normal(1.0)),
    "noise": (None, lambda v: 2 * torch.special.ndtr(v / 0.1) - 1),
    "cutout_center": (lambda t: t[:, 0], uniform(0, WIDTH)),
    "cutout_center y": (lambda t: t[:, 1], uniform(0, HEIGHT)),
}


@pytest.mark.parametrize("name", LAWS)
def test_laws(always, name):
    of, cdf = LAWS[name]
    values = always[name.split()[0]]
    assert_law(values if of is None else of(values), cdf)


def test_the_law_test_can_fail(always):
    with pytest.raises(AssertionError):
        assert_law(torch.log2(always["scale"]), normal(0.22))
    with pytest.raises(AssertionError):
        assert_shares([10_000, 10_600], [0.5, 0.5])


def test_discrete_laws(always):
    assert_shares([int((always["flip"] == v).sum()) for v in (False, True)], [0.5] * 2)
    assert_shares([int((always["luma_flip"] == v).sum()) for v in (False, True)], [0.5] * 2)
    assert_shares([int((always["rotate90"] == v).sum()) for v in (0, 90, 180, 270)], [0.25] * 4)
    for axis, side in ((0, WIDTH), (1, HEIGHT)):
        most = side // 8  # the extremes have half a share
        counts = [int((always["shift"][:, axis] == v).sum()) for v in range(-most, most + 1)]
        assert sum(counts) == N
        assert_shares(counts, [0.5 / (2 * most)] + [1 / (2 * most)] * (2 * most - 1)
                      + [0.5 / (2 * most)])  # fmt: skip


def acts(named):
    """Which samples each transform changed."""
    same = {"flip": 0, "rotate90": 0, "scale": 1, "aniso": 1, "contrast": 1, "saturation": 1}
    found = {n: named[n] != same.get(n, 0) for n in LAWS if n in named and n != "cutout_center"}
    return found | {n: named[n].any(1) for n in ("shift", "translate")} | {
        "flip": named["flip"], "rotate90": named["rotate90"] != 0, "cutout": named["cutout"],
        "luma_flip": named["luma_flip"],
    }  # fmt: skip


def test_gates(sometimes):
    """Each acts with its probability; either rotation with p; all are independent in pairs."""
    found = acts(sometimes)
    share = dict.fromkeys(found, P) | {
        "flip": P / 2, "rotate90": 3 * P / 4, "luma_flip": P / 2,
        "rotate_before": 1 - math.sqrt(1 - P), "rotate_after": 1 - math.sqrt(1 - P),
        "shift": P * (1 - 1 / WIDTH * 4 / HEIGHT * 4),
    }  # fmt: skip
    assert len(found) == 15
    for name, gate in found.items():
        slack = 4 * math.sqrt(share[name] * (1 - share[name]) / N)
        assert abs(gate.double().mean() - share[name]) < slack, name
    either = found["rotate_before"] | found["rotate_after"]
    assert abs(either.double().mean() - P) < 4 * math.sqrt(0.24 / N)
    columns = torch.stack(list(found.values())).double()
    off = torch.corrcoef(columns) - torch.eye(len(found), dtype=torch.float64)
    assert off.abs().max() < 4.5 / N**0.5


def test_values_are_independent_of_each_other(always):
    flat = [v.double().view(N, -1) for k, v in always.items() if k not in ("affine", "color")]
    columns = torch.cat([v for v in flat if v.std(0).min() > 0], 1).T
    off = torch.corrcoef(columns) - torch.eye(len(columns), dtype=torch.float64)
    bands = off.abs() > 4.5 / N**0.5  # the four gains are one power: related by design
    names = [
        k
        for k, v in always.items()
        if k not in ("affine", "color") and v.double().view(N, -1).std(0).min() > 0
        for _ in range(v.view(N, -1).shape[1])
    ]
    related = {names[i] for pair in bands.nonzero().tolist() for i in pair}
    assert related <= {"filter"}


def test_filter_gains(always, sometimes):
    """Open at every band: the product of four vectors, each of the expected power."""
    power = torch.tensor([10, 1, 1, 1], dtype=torch.float64) / 13
    one = drawn(AdaPolicy(filter=1.0, filter_bands=(0, 0, 1, 0)), 1.0)["filter"]
    assert torch.allclose((one.square() * power).sum(1), torch.ones(N, dtype=torch.float64))
    assert_law(torch.log2(one[:, 2] / one[:, 0]), normal(1.0))
    assert_law(torch.log2(always["filter"][:, 1] / always["filter"][:, 0]), normal(2**0.5))
    gates = drawn(AdaPolicy(filter=1.0, filter_bands=(0.5, 0, 0, 0)), P)["filter"][:, 0] != 1
    assert abs(gates.double().mean() - P / 2) < 4 * math.sqrt(0.21 / N)


def test_weights_and_strengths():
    named = drawn(AdaPolicy(hue=0.5, rotate=1.0, rotate_max=0.25, hue_max=0.5), 0.8)
    assert abs((named["hue"] != 0).double().mean() - 0.4) < 4 * math.sqrt(0.24 / N)
    hues, angles = named["hue"][named["hue"] != 0], named["rotate_after"]
    assert 88 < hues.abs().max() <= 90
    assert 44 < angles.abs().max() <= 45
    beyond = drawn("ada-bgc", 3.0)
    assert acts(beyond | {"cutout": beyond["flip"]})["scale"].all()
    assert (beyond["rotate_before"] != 0).all()


def test_two_transforms_share_no_number():
    taken = []
    for name, first in SLOT.items():
        count = {"flip": 2, "rotate90": 2, "shift": 3, "rotate_before": 2, "rotate_after": 2,
                 "luma_flip": 2, "hue": 2, "filter": 4, "cutout": 3}.get(name, 1)  # fmt: skip
        taken += range(first, first + count)
    assert sorted(set(taken)) == sorted(taken)
    taken = [s + k for n, s in NORMAL.items()
             for k in range({"translate": 2, "filter": 4}.get(n, 1))]  # fmt: skip
    assert sorted(set(taken)) == sorted(taken)


def test_bits_do_not_depend_on_who_draws_or_what_else_acts():
    if not _library.NATIVE.loaded:
        pytest.skip(f"no native kernels: {_library.NATIVE.missing}")
    a, b = (drawn("ada-bgcfnc", P, impl=impl) for impl in ("native", "reference"))
    alone = drawn("ada-geom", P)
    for name in a:
        assert_same_bits(a[name], b[name], name)
    for name in ("scale", "rotate_after", "translate"):
        assert_same_bits(alone[name], a[name], name)


def test_affine_is_the_product_in_order():
    """Written out by matrices, for one sample of every transform."""
    x = torch.zeros(1, 3, HEIGHT, WIDTH)
    _, d = ops.ada_augment(x, "ada-bg", seed=23, return_params=True)
    turn = math.radians
    tx, ty = d["translate"][0].tolist()
    sx, sy = d["shift"][0].tolist()
    s, t = d["scale"].item(), d["aniso"].item()

    def rotate(angle):
        c, s = math.cos(angle), math.sin(angle)
        return [[c, -s, 0], [s, c, 0], [0, 0, 1]]

    steps = [
        [[1 - 2 * int(d["flip"]), 0, 0], [0, 1, 0], [0, 0, 1]],
        rotate(turn(d["rotate90"].item())), [[1, 0, -sx], [0, 1, -sy], [0, 0, 1]],
        [[1 / s, 0, 0], [0, 1 / s, 0], [0, 0, 1]], rotate(turn(d["rotate_before"].item())),
        [[1 / t, 0, 0], [0, t, 0], [0, 0, 1]], rotate(turn(d["rotate_after"].item())),
        [[1, 0, -tx], [0, 1, -ty], [0, 0, 1]],
    ]  # fmt: skip
    g = torch.eye(3, dtype=torch.float64)
    for step in steps:
        g = g @ torch.tensor(step, dtype=torch.float64)
    assert torch.allclose(g[:2], d["affine"][0], atol=1e-5)


def test_color_is_the_product_in_order():
    """Written out by matrices, each from the left; hue turns about grey by the right hand."""
    _, d = ops.ada_augment(torch.zeros(1, 3, 4, 4), "ada-color", seed=29, return_params=True)
    assert d["luma_flip"].item()
    eye = torch.eye(4, dtype=torch.float64)
    v = torch.ones(3, dtype=torch.float64) / math.sqrt(3)
    cross = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64) / math.sqrt(3)
    bright, contrast, luma, hue, saturation = (eye.clone() for _ in range(5))
    bright[:3, 3] = d["brightness"]
    contrast[:3, :3] *= d["contrast"]
    luma[:3, :3] -= 2 * torch.outer(v, v)
    hue[:3, :3] = torch.linalg.matrix_exp(cross * math.radians(d["hue"].item()))
    saturation[:3, :3] = torch.outer(v, v) + (eye[:3, :3] - torch.outer(v, v)) * d["saturation"]
    product = saturation @ hue @ luma @ contrast @ bright
    assert torch.allclose(product[:3], d["color"][0], atol=1e-6)
    y = ops.ada_augment(torch.full((1, 1, 1, 1), 0.5), "ada-color", seed=29)
    grey = product[:3] @ torch.tensor([0.5, 0.5, 0.5, 1], dtype=torch.float64)
    assert abs(y.item() - grey.mean()) < 1e-6
