"""The Frechet distance from moments, and from features where they are fewer than dimensions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from arms import sizes
from harness import Case, Floor, Size
from torch import Tensor

from ganops.metrics import frechet_distance, frechet_distance_from_features, moments


def features_of(size: Size, seed: int, device: str) -> Tensor:
    """Non-negative, skewed, with a spectrum that falls as an image network's does."""
    n, d = size.shape
    scale = torch.linspace(0, -1.6, d, dtype=torch.float64).exp2().square()
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return ((x * scale) @ (mix / d**0.5)).exp().to(device)


def by_eigvals(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    """As torchmetrics does."""
    (m, s), (p, t) = a, b
    cross = torch.linalg.eigvals(s @ t).sqrt().real.sum()
    return (m - p).square().sum() + s.trace() + t.trace() - 2 * cross


def by_pieces(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    """Cholesky, products and eigvalsh and no check of anything; full rank alone."""
    (m, s), (p, t) = a, b
    f = torch.linalg.cholesky(s).mT @ torch.linalg.cholesky(t)
    cross = torch.linalg.eigvalsh(f @ f.mT).sqrt().sum()
    return (m - p).square().sum() + s.trace() + t.trace() - 2 * cross


def by_sqrtm(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    """As pytorch-fid and clean-fid do."""
    from scipy.linalg import sqrtm

    (m, s), (p, t) = a, b
    root = torch.from_numpy(sqrtm((s @ t).numpy()).real)
    return (m - p).square().sum() + s.trace() + t.trace() - 2 * root.trace()


@pytest.mark.filterwarnings("ignore:frechet_distance. .* rows of:UserWarning")
@sizes(tiny=["40x16", "9x16"], default=["4096x2048", "500x2048"], paper=["2000x2048"])
def bench_frechet(size: Size, device: str, impl: str, bench: Callable[[Case], None]) -> None:
    """Floor: both covariances copied once."""
    n, d = size.shape
    x, y = (features_of(size, seed, device) for seed in (0, 1))
    a, b = moments(x), moments(y)

    def number(value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64)

    few = n <= d
    of_moments = {"ganops, of moments": lambda: number(frechet_distance(a, b))}
    optional = {"scipy.linalg.sqrtm": lambda: by_sqrtm(a, b)} if device == "cpu" else {}
    bench(
        Case(
            op="frechet_distance",
            row=f"{n}x{d}",
            ours=(lambda: number(frechet_distance_from_features(x, y)))
            if few
            else of_moments["ganops, of moments"],
            stock={"eigvals of the product": lambda: by_eigvals(a, b)},
            peers=of_moments
            if few
            else {"Cholesky, GEMM, eigvalsh alone": lambda: by_pieces(a, b)},
            optional=optional,
            floor=Floor.copy(4 * d * d * 8, Size((d, d), torch.float64), device),
            nbytes=4 * d * d * 8,
            flops=2 * d**3,
            dtype=torch.float64,
            device=device,
            # Roots of the eigenvalues of a singular product: what the peers lose.
            tolerance=1e-3 if few else 1e-8,
            note="from features (a product and its singular values)" if few else "from moments",
        )
    )
