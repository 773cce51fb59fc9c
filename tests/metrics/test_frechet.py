"""The Frechet distance, coverage, and the small classifier."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganops.metrics import Quality, class_coverage, frechet_distance, moments


def pair(mean, covariance):
    return torch.tensor(mean, dtype=torch.float64), torch.tensor(covariance, dtype=torch.float64)


def random_features(n: int, d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix


def test_closed_forms() -> None:
    a = pair([0.0, 0.0], [[4.0, 0.0], [0.0, 9.0]])
    b = pair([1.0, 2.0], [[1.0, 0.0], [0.0, 1.0]])
    assert frechet_distance(a, b) == pytest.approx(10.0, abs=1e-12)
    assert frechet_distance(pair([1.0], [[4.0]]), pair([3.0], [[25.0]])) == pytest.approx(13.0)


def test_a_pair_that_does_not_commute() -> None:
    """tr (S1 S2)^(1/2) of 2x2 matrices is sqrt(tr S1 S2 + 2 sqrt(det S1 S2))."""
    s1, s2 = torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double(), torch.tensor([[5.0, -2.0], [-2.0, 1]])
    s2 = s2.double()
    root = torch.sqrt((s1 @ s2).trace() + 2 * torch.sqrt(torch.det(s1) * torch.det(s2)))
    zero = torch.zeros(2)
    expected = (s1.trace() + s2.trace() - 2 * root).item()
    assert frechet_distance((zero, s1), (zero, s2)) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 40), st.floats(0.1, 10))
def test_properties(seed: int, d: int, n: int, scale: float) -> None:
    x, y = random_features(n, d, seed), random_features(n + 3, d, seed + 1)
    a, b = moments(x), moments(y)
    distance = frechet_distance(a, b)
    size = a[1].trace().item() + b[1].trace().item() + 1
    assert distance >= 0
    assert frechet_distance(a, a) <= 1e-12 * size
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-9, abs=1e-10 * size)
    q, _ = torch.linalg.qr(random_features(d, d, seed + 2))
    turned = frechet_distance(moments(x @ q + 3), moments(y @ q + 3))
    assert turned == pytest.approx(distance, rel=1e-8, abs=1e-8 * size)
    scaled = frechet_distance(moments(x * scale), moments(y * scale))
    assert scaled == pytest.approx(scale**2 * distance, rel=1e-8, abs=1e-8 * size * scale**2)


def test_singular_covariances_are_exact() -> None:
    """Far fewer samples than dimensions: equal to the small problem of the samples themselves."""
    x, y = random_features(20, 100, 0), random_features(25, 100, 1)
    xc, yc = (t - t.mean(0) for t in (x, y))
    xc, yc = xc / 19**0.5, yc / 24**0.5
    cross = torch.linalg.svdvals(xc @ yc.T).sum()
    expected = (x.mean(0) - y.mean(0)).square().sum() + xc.square().sum() + yc.square().sum()
    expected = (expected - 2 * cross).item()
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(expected, rel=1e-12)


def test_known_small_distance_is_not_lost() -> None:
    """S2 = T S1 T with T near 1 has distance |(1 - T) F1|^2 exactly; products lose it."""
    f = random_features(40, 12, 3)
    t = torch.diag(1 + 1e-5 * torch.linspace(-1, 1, 12, dtype=torch.float64))
    _, s = moments(f)
    zero = torch.zeros(12)
    expected = torch.trace((torch.eye(12) - t) @ s @ (torch.eye(12) - t)).item()
    assert frechet_distance((zero, s), (zero, t @ s @ t)) == pytest.approx(expected, rel=1e-4)


def test_moments_are_numpys() -> None:
    import numpy as np

    x = random_features(30, 5, 0)
    mean, covariance = moments(x.float())
    assert covariance.dtype == torch.float64
    np.testing.assert_allclose(covariance, np.cov(x.float().double().numpy().T), rtol=1e-12)
    np.testing.assert_allclose(mean, x.float().double().mean(0), rtol=1e-12)


def test_bad_input() -> None:
    good = pair([0.0], [[1.0]])
    for bad, message in (
        (pair([0.0, 1.0], [[1.0, 0.0], [0.0, 1.0]]), "dimensions differ: 1 and 2"),
        (pair([0.0], [[float("nan")]]), "must be finite"),
        (pair([0.0], [[1.0, 2.0]]), "expected mean"),
    ):
        with pytest.raises(ValueError, match=message):
            frechet_distance(good, bad)
    with pytest.raises(ValueError, match="N >= 2"):
        moments(torch.zeros(1, 3))


def test_coverage_counts_confident_classes_with_enough_share() -> None:
    rows = [[0.95, 0.05, 0.0]] * 97 + [[0.05, 0.95, 0.0]] * 2 + [[0.2, 0.0, 0.8]] * 1
    assert class_coverage(torch.tensor(rows)) == 2
    assert class_coverage(torch.tensor(rows), share=0.03) == 1
    assert class_coverage(torch.tensor(rows), confidence=0.7) == 3
    assert class_coverage(torch.full((5, 4), 0.25)) == 0


def test_quality_tells_real_from_noise_and_is_repeatable(tmp_path) -> None:
    from ganops.data import open_data

    source = open_data("digits")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    quality = Quality.of(source, str(tmp_path / "cache"))
    assert torch.equal(torch.get_rng_state(), before)
    real, noise = quality.real_against_real(), quality.noise_against_real()
    key = "quality/fd-digits-cnn"
    assert real["quality/classes"] == 10
    assert 0 < real[key] < noise[key] / 20
    again = Quality.of(source, str(tmp_path / "cache"))  # weights come from the cache
    assert again.real_against_real() == real
    assert torch.equal(torch.get_rng_state(), before)
    other = Quality.of(source, str(tmp_path / "other"))  # and are the same when trained anew
    assert other.noise_against_real() == noise
    one_class = source.read(torch.nonzero(source.labels == 3).flatten())[: quality.count]
    got = quality.measure(one_class)
    assert got["quality/classes"] <= 2
    assert got[key] > 3 * real[key]


def test_the_cached_classifier_is_that_of_these_very_data(tmp_path, monkeypatch) -> None:
    """Two data sets of one name in one cache do not share a classifier; a damaged one is named."""
    from ganops.metrics import classifier

    monkeypatch.setattr(classifier, "STEPS", 2)
    images = torch.randint(256, (8, 1, 8, 8), dtype=torch.int64).to(torch.uint8)
    labels = torch.arange(8) % 2
    others = (images, labels), (images.flip(0), labels), (images, labels.flip(0))
    made = [classifier.cached_classifier(*o, cache=str(tmp_path), name="x-cnn") for o in others]
    first, flipped, swapped = (m.features(images) for m in made)
    assert not torch.equal(first, flipped)
    assert not torch.equal(first, swapped)
    assert len(list(tmp_path.iterdir())) == 3
    for model, other in zip(made, others, strict=True):
        again = classifier.cached_classifier(*other, cache=str(tmp_path), name="x-cnn")
        assert torch.equal(again.features(images), model.features(images))
    for path in tmp_path.iterdir():
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x-cnn-.*safetensors is damaged; remove it: wrong check"):
        classifier.cached_classifier(images, labels, cache=str(tmp_path), name="x-cnn")
    for path in tmp_path.iterdir():
        path.write_bytes(b"\0" * 20)
    with pytest.raises(ValueError, match=r"x-cnn-.*safetensors is damaged; remove it"):
        classifier.cached_classifier(images, labels, cache=str(tmp_path), name="x-cnn")


def test_quality_needs_labels() -> None:
    from ganops.data import open_data

    with pytest.raises(ValueError, match="has no class labels"):
        Quality.of(open_data(torch.zeros(4, 1, 8, 8)), "unused")
