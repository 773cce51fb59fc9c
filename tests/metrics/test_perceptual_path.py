"""Perceptual path length on maps whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ganops.metrics import perceptual_path_length
from ganops.metrics.perceptual_path import slerp, within_percentiles

DIM = 4


def squared(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() - b.double()).square().flatten(1).sum(1)


def identity(z: Tensor) -> Tensor:
    return z


def doubled(z: Tensor) -> Tensor:
    return 2 * z


OPTIONS = {"samples": 300, "percentiles": (0.0, 100.0), "dtype": torch.float64}


@pytest.mark.parametrize("epsilon", [1e-4, 0.1])
@pytest.mark.parametrize("sampling", ["full", "end"])
def test_a_linear_map_of_w_is_its_own_step_for_any_epsilon(sampling, epsilon) -> None:
    """|A (w1 - w0)|^2, whose mean over normal z is 2 |2 A|_F^2."""
    a = torch.randn(DIM, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = perceptual_path_length(
        lambda w: w @ a, squared, DIM, space="w", mapping=doubled, sampling=sampling,
        epsilon=epsilon, **{**OPTIONS, "samples": 20_000, "batch": 5000},
    )  # fmt: skip
    expected = 8 * float(a.square().sum())
    assert abs(found.value - expected) < 4 * found.error
    assert 0 < found.error < 0.02 * expected
    draw = torch.Generator().manual_seed(0)
    w0, w1 = 2 * torch.randn(2, 5000, DIM, generator=draw, dtype=torch.float64)
    one = perceptual_path_length(
        lambda w: w @ a, squared, DIM, space="w", mapping=doubled, sampling=sampling,
        epsilon=epsilon, **{**OPTIONS, "samples": 5000, "batch": 5000},
    )  # fmt: skip
    assert one.value == pytest.approx(float(squared(w0 @ a, w1 @ a).mean()), rel=1e-6)


@pytest.mark.parametrize("sampling", ["full", "end"])
def test_the_identity_in_z_measures_angles(sampling) -> None:
    """The chord over epsilon tends to the angle between the ends, wherever on the circle."""
    found = perceptual_path_length(identity, squared, DIM, sampling=sampling, batch=300, **OPTIONS)
    a, b = torch.randn(2, 300, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    angles = torch.nn.functional.cosine_similarity(a, b).acos()
    assert found.value == pytest.approx(float(angles.square().mean()), rel=1e-6)


def test_slerp() -> None:
    a, b = torch.randn(2, 50, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = [torch.full((50, 1), t, dtype=torch.float64) for t in (0.0, 1.0, 0.3)]
    for t, end in zip(ends[:2], (a, b)):
        torch.testing.assert_close(slerp(a, b, t), nn.functional.normalize(end))
    middle = slerp(a, b, ends[2])
    torch.testing.assert_close(middle.norm(dim=1), torch.ones(50).double())
    whole = nn.functional.cosine_similarity(a, b).acos()
    torch.testing.assert_close(nn.functional.cosine_similarity(a, middle).acos(), 0.3 * whole)
    torch.testing.assert_close(slerp(a, 2 * a, ends[2]), nn.functional.normalize(a))


def test_full_paths_differ_from_their_ends_where_the_generator_bends() -> None:
    def bent(w: Tensor) -> Tensor:
        return w**3

    made = [
        perceptual_path_length(
            bent, squared, DIM, space="w", mapping=identity, sampling=sampling, **OPTIONS
        ).value
        for sampling in ("full", "end")
    ]
    assert made[0] < 0.7 * made[1]  # at t in (0, 1) a mean of two normals is nearer to zero


def test_a_smaller_epsilon_gives_nearly_the_same() -> None:
    found = [
        perceptual_path_length(torch.sin, squared, DIM, epsilon=e, **OPTIONS).value
        for e in (2e-4, 1e-4)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-2)


def test_eight_bits_measure_rounding() -> None:
    def image(z: Tensor) -> Tensor:
        return 0.5 * torch.sin(3 * z)

    plain, rounded = (
        perceptual_path_length(image, squared, DIM, eight_bit=e, **OPTIONS) for e in (False, True)
    )
    assert rounded.value > 5 * plain.value
    assert "8-bit images" in str(rounded)
    assert "float images" in str(plain)
    levels = []
    perceptual_path_length(
        lambda z: 3 * z, lambda a, b: levels.append(a) or squared(a, b), DIM, eight_bit=True,
        **OPTIONS,
    )  # fmt: skip
    found = (torch.cat(levels) + 1) * 127.5
    assert torch.allclose(found, found.round(), atol=1e-3)
    assert (found.min().round(), found.max().round()) == (0, 255)


def test_percentiles_keep_their_bounds() -> None:
    assert len(within_percentiles(torch.arange(100.0), 1, 99)) == 100
    kept = within_percentiles(torch.arange(1000.0).flip(0), 1, 99)
    assert (len(kept), kept.min(), kept.max()) == (982, 9, 990)
    assert len(within_percentiles(torch.ones(7), 1, 99)) == 7
    assert within_percentiles(torch.arange(5.0), 50, 60).tolist() == [2.0, 3.0]


def test_outliers_are_dropped_and_counted() -> None:
    def spiky(a: Tensor, b: Tensor) -> Tensor:
        return torch.arange(float(len(a))) * 1e-8

    found = perceptual_path_length(identity, spiky, DIM, samples=1000, batch=1000)
    assert (found.kept, found.samples) == (982, 1000)
    assert found.value == pytest.approx(499.5)
    for part in ("space z", "full paths", "epsilon 0.0001", "spiky", "982 of 1000", "seed 0"):
        assert part in str(found)


def test_both_ends_see_the_same_noise_and_global_generators_are_left_alone() -> None:
    def noisy(z: Tensor) -> Tensor:
        return z + torch.randn(len(z), DIM, dtype=z.dtype)

    before = torch.get_rng_state()
    found = perceptual_path_length(noisy, squared, DIM, **OPTIONS)
    assert torch.equal(before, torch.get_rng_state())
    plain = perceptual_path_length(identity, squared, DIM, **OPTIONS)
    assert found.value == pytest.approx(plain.value, rel=1e-6)
    scaled = []
    for state in (3, 4):
        torch.manual_seed(state)
        scaled.append(
            perceptual_path_length(
                lambda z: z * torch.randn(len(z), DIM, dtype=z.dtype), squared, DIM, **OPTIONS
            )
        )
    assert scaled[0] == scaled[1]
    other = perceptual_path_length(identity, squared, DIM, seed=1, **OPTIONS)
    assert other.value != plain.value
    assert perceptual_path_length(identity, squared, DIM, **OPTIONS) == plain


def test_bad_input() -> None:
    def call(generator=identity, distance=squared, dim=DIM, **options):
        return lambda: perceptual_path_length(generator, distance, dim, samples=8, **options)

    for broken, says in (
        (call(space="v"), "space: expected 'z' or 'w', got 'v'"),
        (call(space="w"), "mapping: expected one for space 'w' only"),
        (call(mapping=identity), "mapping: expected one for space 'w' only"),
        (call(sampling="all"), "sampling: expected"),
        (call(epsilon=0), "epsilon: expected"),
        (call(percentiles=(50, 50)), "percentiles: expected"),
        (call(batch=0), "batch, latent_dim >= 1"),
        (call(dim=0), "batch, latent_dim >= 1"),
        (call(distance=lambda a, b: (a - b).square()), r"one number a pair, shape \(8,\)"),
        (call(distance=lambda a, b: -squared(a, b), batch=8), ">= 0, got -.* for pair 0"),
        (call(distance=lambda a, b: squared(a, b) * math.nan, batch=4), "got nan for pair 0"),
        (call(distance=lambda a, b: 1.0), "got float"),
    ):
        with pytest.raises(ValueError, match=says):
            broken()
