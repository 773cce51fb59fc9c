"""Linear separability on attributes whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from ganops.metrics import linear_separability
from ganops.metrics.separability import conditional_entropy

pytest.importorskip("sklearn", reason="scikit-learn is not installed")


def points(n: int = 600, d: int = 4):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_entropies_of_tables() -> None:
    table = torch.tensor([[0.45, 0.05], [0.05, 0.45]])
    assert conditional_entropy(table) == pytest.approx(0.468996, abs=1e-6)
    assert 2 ** (40 * conditional_entropy(table)) == pytest.approx(443_884, rel=1e-3)
    assert conditional_entropy(torch.tensor([[25, 25], [25, 25]])) == pytest.approx(1.0)
    assert conditional_entropy(torch.tensor([[50, 0], [0, 50]])) == 0.0
    # X rows, Y columns: H(Y|X) of a constant prediction is H(Y), not 0.
    assert conditional_entropy(torch.tensor([[30, 10], [0, 0]])) == pytest.approx(
        0.811278, abs=1e-6
    )
    assert conditional_entropy(torch.tensor([[30, 0], [10, 0]])) == 0.0


def test_separable_exclusive_or_and_noise() -> None:
    z = points()
    apart = z[:, 0] + 3 * z[:, 0].sign()
    crossed = z[:, 0] * z[:, 1]
    found = linear_separability(z, torch.stack([apart, crossed], 1))
    assert found.entropies[0] == pytest.approx(0.0, abs=1e-9)
    assert found.entropies[1] > 0.8
    assert found.value == pytest.approx(2 ** sum(found.entropies))
    assert "2 attributes, the 300 most confident of 600 latents of dimension 4" in str(found)
    noise = torch.randn(600, 1, generator=torch.Generator().manual_seed(5))
    assert linear_separability(z, noise).entropies[0] > 0.9


def test_the_most_confident_are_kept() -> None:
    """Unsure samples with wrong labels are what keeping half leaves out."""
    z = points()
    logit = torch.where(torch.arange(600) % 2 == 0, 5 * z[:, 0].sign(), -0.1 * z[:, 0].sign())
    half, whole = (linear_separability(z, logit[:, None], keep=k) for k in (0.5, 1.0))
    assert half.entropies[0] < 0.1
    assert whole.entropies[0] > 0.9
    assert (half.kept, whole.kept) == (300, 600)


def test_the_svm_is_scikit_learns_on_what_it_was_fitted_to() -> None:
    from sklearn.svm import LinearSVC

    z = points(200)
    logit = z[:, 0] + 0.8 * torch.randn(200, generator=torch.Generator().manual_seed(2))
    chosen = torch.tensor(sorted(range(200), key=lambda i: -abs(float(logit[i])))[:100])
    x, y = z[chosen].numpy(), (logit[chosen] > 0).numpy()
    predicted = LinearSVC(random_state=0).fit(x, y).predict(x)
    expected = 0.0
    for side in (False, True):
        for label in (False, True):
            both, given = ((predicted == side) & (y == label)).mean(), (predicted == side).mean()
            expected -= both * math.log2(both / given) if both else 0.0
    assert expected > 0.05
    found = linear_separability(z, logit[:, None])
    assert found.entropies[0] == pytest.approx(expected, abs=1e-6)


def test_one_class_is_named() -> None:
    z = points(50)
    found = linear_separability(z, torch.stack([z[:, 0], z[:, 1].abs() + 1], 1))
    assert found.entropies[1] == 0.0
    assert found.one_class == (1,)
    assert "attributes [1] of one class only" in str(found)


def test_bad_input() -> None:
    z, logits = points(20), points(20)[:, :2]
    for call, error, says in (
        (lambda: linear_separability(z, logits, keep=0), ValueError, "keep: expected a share"),
        (lambda: linear_separability(z, logits[:9]), ValueError, "as many latents as logits"),
        (lambda: linear_separability(z, logits[:, 0]), ValueError, "logits: expected shape"),
        (lambda: linear_separability(z, logits > 0), TypeError, "logits: expected floating"),
        (lambda: linear_separability(z * math.nan, logits), ValueError, "latents: .*row 0"),
    ):
        with pytest.raises(error, match=says):
            call()
