"""feature_stats in Triton: centring and casting in one pass; the product is torch's (cuBLAS)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import cdiv, launch
from .reference import add_product

ROWS = 32  # read at a time
COLUMNS = 16  # of one program: enough programs for a GPU at d = 2048


@triton.jit(do_not_specialize=["n"])
def center_kernel(
    rows, mean, merged, block,  # (n, d), (d,), (d,), (n + 1, d)
    n, d, stride, step: tl.float64, spread: tl.float64,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < d
    total = tl.zeros([ROWS, COLUMNS], tl.float64)
    first = 0
    while first < n:
        r = (first + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        mask = (r < n) & inside[None, :]
        total += tl.load(rows + r * stride + column[None, :], mask=mask, other=0.0).to(tl.float64)
        first += ROWS
    own = tl.sum(total, 0) / n
    old = tl.load(mean + column, mask=inside, other=0.0)
    way = own - old
    tl.store(merged + column, old + step * way, mask=inside)
    last = n.to(tl.int64) * d + column
    tl.store(block + last, (spread * way).to(block.dtype.element_ty), mask=inside)
    first = 0
    while first < n:
        r = (first + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        mask = (r < n) & inside[None, :]
        x = tl.load(rows + r * stride + column[None, :], mask=mask, other=0.0).to(tl.float64)
        x = (x - own[None, :]).to(block.dtype.element_ty)
        tl.store(block + r * d + column[None, :], x, mask=mask)
        first += ROWS


def feature_stats(rows: Tensor, mean: Tensor, m2: Tensor, count: int, fast: bool) -> Tensor:
    """One launch and one matrix product."""
    n, d = rows.shape
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    merged = torch.empty_like(mean)
    block = mean.new_empty((n + 1, d), dtype=torch.float32 if fast else torch.float64)
    step = n / (count + n)
    launch(center_kernel, cdiv(d, COLUMNS), rows, rows, mean, merged, block,
           n, d, rows.stride(0), step, (count * step) ** 0.5,
           ROWS=ROWS, COLUMNS=COLUMNS, enable_fp_fusion=False)  # fmt: skip
    add_product(m2, block)
    return merged
