"""KID over all pairs, and over one subset of a thousand rows, in float64 products.

Stock forms the three kernel matrices. The floor is the products alone, two triangles and a square
in tiles. Ours also gives a standard error from the sums over rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from arms import sizes
from harness import Case, Floor, Size
from peer_metrics import torch_fidelity_kid, torchmetrics_all_pairs
from torch import Tensor

from ganops.metrics import kid

SEED = 2020
Bench = Callable[[Case], None]


def stock(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.double(), y.double()
    xx, yy, xy = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    n = len(x)
    within = xx.sum() - xx.trace() + yy.sum() - yy.trace()
    return within / (n * (n - 1)) - 2 * xy.mean()


def products(x: Tensor, y: Tensor, tile: int = 512) -> None:
    x, y = x.double(), y.double()
    for a, b in ((x, x), (y, y), (x, y)):
        for at, left in enumerate(a.split(tile)):
            for right in b.split(tile)[at if a is b else 0 :]:
                torch.mm(left, right.T)


def features(size: Size, device: str) -> tuple[Tensor, Tensor]:
    return size.randn(0, device).abs(), size.randn(1, device).abs() * 1.1


@sizes(tiny=["64x16"], default=["2000x512"], paper=["5000x2048"])
def bench_all_pairs(size: Size, device: str, bench: Bench) -> None:
    x, y = features(size, device)
    bench(
        Case(
            op="kid",
            row=f"{size}, all pairs",
            ours=lambda: torch.tensor(kid(x, y).value),
            stock={"stock": lambda: stock(x, y)},
            floor=Floor("products alone", lambda: products(x, y)),
            nbytes=2 * size.nbytes,
            flops=4 * size.shape[0] ** 2 * size.shape[1],
            device=device,
            optional={"torchmetrics": torchmetrics_all_pairs(x, y)},
            note="with its standard error",
        )
    )


@sizes(tiny=["64x16"], default=["1000x2048"])
def bench_subset(size: Size, device: str, bench: Bench) -> None:
    """One subset as large as the sets, so that all arms have the same rows."""
    x, y = features(size, device)
    n = size.shape[0]
    bench(
        Case(
            op="kid",
            row=f"{size}, one subset",
            ours=lambda: torch.tensor(kid(x, y, subsets=1, subset_size=n, seed=SEED).value),
            stock={"stock": lambda: stock(x, y)},
            floor=Floor("products alone", lambda: products(x, y)),
            nbytes=2 * size.nbytes,
            flops=4 * n**2 * size.shape[1],
            device=device,
            optional={"torch-fidelity": torch_fidelity_kid(x, y, 1, n, SEED)},
            note="torch-fidelity multiplies and sums in float32",
        )
    )
