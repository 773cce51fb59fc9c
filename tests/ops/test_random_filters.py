"""random_filters: unit norm, pinned bits, and bad input."""

from __future__ import annotations

import pytest
import torch

from ganops import ops

DOUBLE = torch.float64
PINNED = [933552475, -1129814024, -1122163245, -1138363386, 1013342745]


def test_each_output_filter_has_unit_norm():
    for dtype, bound in ((DOUBLE, 1e-15), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        w = ops.random_filters(6, 2, 3, (8, 5), seed=3, dtype=dtype)
        assert w.shape == (6, 2, 3, 8, 5)
        assert w.dtype == dtype
        norms = w.double().square().sum((2, 3, 4)).sqrt()
        torch.testing.assert_close(norms, torch.ones(6, 2, dtype=DOUBLE), rtol=0, atol=bound)


def test_the_bits_are_pinned():
    """The stream and the order of the norm's sum are part of what a checkpoint's seed means."""
    w = ops.random_filters(2, 1, 3, 8, seed=7)
    picked = w.flatten()[[0, 1, 191, 192, 383]].view(torch.int32).tolist()
    assert picked == PINNED
    normal = ops.random_normal((2, 1, 3, 8, 8), seed=7)
    exact = normal.double() / normal.double().square().sum((2, 3, 4), keepdim=True).sqrt()
    torch.testing.assert_close(w, exact.float(), rtol=1e-7, atol=0)
    assert torch.equal(w.bfloat16(), ops.random_filters(2, 1, 3, 8, seed=7, dtype=torch.bfloat16))


def test_seeds_differ_and_a_smaller_bank_is_the_start_of_a_larger():
    w = ops.random_filters(4, 1, 3, 8, seed=0)
    assert torch.equal(w[:2], ops.random_filters(2, 1, 3, 8, seed=0))
    assert not torch.isclose(w, ops.random_filters(4, 1, 3, 8, seed=1)).any()
    assert abs(float((w[0] * w[1]).sum())) < 0.3


def test_white_noise_keeps_its_variance():
    """The card's .992 inside the image, where no window meets the padding."""
    w = ops.random_filters(16, 1, 3, 8, seed=0)
    x = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = ops.random_projection(x, w, stride=2, padding=3)[..., 2:-2, 2:-2]
    assert float(y.var()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    ("args", "seed", "error", "message"),
    [
        ((0, 1, 3, 8), 0, ValueError, "K of at least 1, got 0"),
        ((1, 0, 3, 8), 0, ValueError, "out_channels of at least 1, got 0"),
        ((1, 1, -3, 8), 0, ValueError, "in_channels of at least 1, got -3"),
        ((1, 1, 3, 0), 0, ValueError, "kernel_size of at least 1, got 0"),
        ((2, 1, 3, [8, 4, 8]), 0, ValueError, "the same for all K"),
        ((1.5, 1, 3, 8), 0, TypeError, "K as an integer, got 1.5"),
        ((1, 1, 3, 8), float("nan"), TypeError, "seed as an integer, got nan"),
        ((1, 1, 3, 8), float("inf"), TypeError, "seed as an integer, got inf"),
        ((1, 1, 3, 8), True, TypeError, "seed as an integer, got True"),
        ((1, 1, 3, 8), 2**64, ValueError, "seed to fit 64 bits"),
    ],
)
def test_bad_filters(args, seed, error, message):
    with pytest.raises(error, match=message):
        ops.random_filters(*args, seed=seed)


def test_filters_are_floating():
    with pytest.raises(TypeError, match=r"floating dtype, got torch.int64"):
        ops.random_filters(1, 1, 3, 8, seed=0, dtype=torch.int64)


def test_the_norm_adds_its_upper_half_to_its_lower():
    """Visible in float64 alone, where another order is another last bit of some filter."""
    w = ops.random_filters(16, 1, 3, 8, seed=7, dtype=DOUBLE)
    normal = ops.random_normal((16, 192), seed=7).double()
    for found, values in zip(w.flatten(1), normal):
        parts = [*(v * v for v in values.tolist()), *[0.0] * 64]
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [a + b for a, b in zip(parts[:half], parts[half:])]
        assert torch.equal(found, values / parts[0] ** 0.5)
