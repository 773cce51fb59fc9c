"""Features ready, into running mean and covariance: what a streaming FID costs beside its network.

An arm adds 1024 rows in batches of the row's size to a state that lives on, as a metric does; it
returns nothing, and tests/metrics compares the numbers. Both of torch's runtimes and scipy's run on
one thread here: on more, two runtimes in turn slow each other.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from arms import sizes
from harness import Case, Floor, Size
from torch import Tensor, nn

from ganops.metrics import FeatureStats

ROWS = 1024


def batches_of(size: Size, device: str) -> list[Tensor]:
    """At least ROWS rows, in batches."""
    batch, d = size.shape
    count = max(1, ROWS // batch) if d > 64 else 2
    return [Size(size.shape, size.dtype).randn(i, device) for i in range(count)]


def repeated(update: Callable[[Tensor], object], batches: list[Tensor]) -> Callable[[], None]:
    def arm() -> None:
        for batch in batches:
            update(batch)

    return arm


def raw_sums(d: int, device: str, *, in_place: bool) -> Callable[[Tensor], object]:
    """Sums of x and x x' in float64, as torchmetrics and StyleGAN3 keep them."""
    total = torch.zeros(d, dtype=torch.float64, device=device)
    products = torch.zeros(d, d, dtype=torch.float64, device=device)

    def update(x: Tensor) -> None:
        nonlocal total, products
        wide = x.double()
        total += wide.sum(0)
        if in_place:
            products.addmm_(wide.T, wide)
        else:
            products += wide.T @ wide

    return update


def torchmetrics_update(d: int) -> Callable[[Tensor], object]:
    from torchmetrics.image.fid import FrechetInceptionDistance

    identity = nn.Identity()
    identity.num_features = d  # type: ignore[assignment]
    metric = FrechetInceptionDistance(feature=identity)
    return lambda x: metric.update(x, real=True)


def dsyrk_update(d: int) -> Callable[[Tensor], object]:
    import numpy as np
    from scipy.linalg.blas import dsyrk

    products = np.zeros((d, d), order="F")
    return lambda x: dsyrk(1.0, x.double().numpy().T, beta=1.0, c=products, overwrite_c=1)


def missing(make: Callable[[int], Callable[[Tensor], object]], d: int) -> Callable[..., object]:
    """The update, or what raises why there is none."""
    try:
        return make(d)
    except ImportError as error:
        reason = str(error)

        def update(x: Tensor) -> None:
            raise ImportError(reason)

        return update


@pytest.mark.parametrize("mode", ["exact", "fast"])
@sizes(tiny=["3x16"], default=["64x2048", "1024x2048", "64x2048 bfloat16"], paper=["256x2048"])
def bench_feature_stats(
    size: Size, mode: str, device: str, impl: str, bench: Callable[[Case], None]
) -> None:
    """Floor: the rows read once, and a triangle read and written for each block."""
    if impl not in ("auto", "native"):
        pytest.skip("FeatureStats takes what auto takes")
    d, batches = size.shape[1], batches_of(size, device)
    stats = {m: FeatureStats(d, device=device, mode=m) for m in ("exact", "fast")}
    ours = {m: repeated(s.update, batches) for m, s in stats.items()}
    rows = sum(map(len, batches))
    nbytes = rows * d * size.dtype.itemsize + 8 * d * d * max(1, rows // stats[mode].block)
    optional = {} if device != "cpu" else {
        "torchmetrics": repeated(missing(torchmetrics_update, d), batches),
        "scipy dsyrk": repeated(missing(dsyrk_update, d), batches),
    }  # fmt: skip
    bench(
        Case(
            op=f"feature_stats_{mode}",
            row=str(size),
            ours=ours[mode],
            stock={
                "sums, product, add": repeated(raw_sums(d, device, in_place=False), batches),
                "sums, addmm_": repeated(raw_sums(d, device, in_place=True), batches),
            },
            peers={} if mode == "exact" else {"ganops exact": ours["exact"]},
            optional=optional,
            floor=Floor.copy(nbytes, size, device),
            nbytes=nbytes,
            flops=rows * d * (d + 1),
            dtype=size.dtype,
            device=device,
            comparable=False,
            note=f"{rows} rows a call; stock keeps raw moments, ours centred ones",
        )
    )
