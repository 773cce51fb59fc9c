"""Precision and recall, and with them density and coverage, of two equally large feature sets.

Stock is the definition in PyTorch's own operations: three distance matrices, two k-th values. Ours
gives density and coverage too, in the same pass. Stock's float32 distances decide ties and
boundaries by rounding, ours do not: the numbers may differ by a few rows in ten thousand.

Floor: the matrix products that no method avoids, two triangles and a square, tile by tile.
`metric_memory.py` measures memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from arms import sizes
from harness import Case, Floor, Size
from peer_metrics import prdc_package, torch_fidelity_precision_recall
from torch import Tensor

from ganops.metrics import prdc

K = 3
Bench = Callable[[Case], None]


def stock(real: Tensor, generated: Tensor) -> Tensor:
    def radii(x: Tensor) -> Tensor:
        return torch.cdist(x, x).kthvalue(K + 1).values

    across = torch.cdist(real, generated)
    precision = (across <= radii(real)[:, None]).any(0).double().mean()
    recall = (across <= radii(generated)).any(1).double().mean()
    return torch.stack([precision, recall])


def ours(real: Tensor, generated: Tensor) -> Tensor:
    found = prdc(real, generated, k=K)
    return torch.tensor([found.precision, found.recall])


def products(real: Tensor, generated: Tensor, tile: int = 1024) -> None:
    for a, b in ((real, real), (generated, generated), (real, generated)):
        for at, left in enumerate(a.split(tile)):
            for right in b.split(tile)[at if a is b else 0 :]:
                torch.mm(left, right.T)


@sizes(tiny=["64x16"], default=["4000x512"], paper=["10000x512", "10000x2048"])
def bench_precision_recall(size: Size, device: str, bench: Bench) -> None:
    real, generated = size.randn(0, device).abs(), size.randn(1, device).abs() * 1.02
    pairs = 2 * size.shape[0] ** 2
    bench(
        Case(
            op="prdc",
            row=f"{size}, k = {K}",
            ours=lambda: ours(real, generated),
            stock={"stock": lambda: stock(real, generated)},
            floor=Floor("products alone", lambda: products(real, generated)),
            nbytes=2 * size.nbytes,
            flops=2 * pairs * size.shape[1],
            device=device,
            optional={
                "torch-fidelity": torch_fidelity_precision_recall(real, generated, K),
                "prdc": prdc_package(real, generated, K),
            },
            tolerance=2e-2,
            note="ours gives density and coverage too; exact in float64",
        )
    )
