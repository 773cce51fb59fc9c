"""Images, filters and the definition of upfirdn2d as loops, for its tests."""

from __future__ import annotations

import itertools

import numpy as np
import torch


def randn(*shape, dtype=torch.float64, device="cpu", seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(device, dtype)


def brute_force(x, f, up=(1, 1), down=(1, 1), padding=(0, 0, 0, 0), flip_filter=False, gain=1.0):
    """As the definition says it, number by number, in float64."""
    x, g = x.double().cpu().numpy(), f.double().cpu().numpy()
    g = np.outer(g, g) if g.ndim == 1 else g
    g = g if flip_filter else g[::-1, ::-1]
    n, c, h, w = x.shape
    x0, x1, y0, y1 = padding
    high, wide = max(h * up[1] + y0 + y1, 0), max(w * up[0] + x0 + x1, 0)
    z = np.zeros((n, c, high, wide))
    for i, j in itertools.product(range(h), range(w)):
        row, column = i * up[1] + y0, j * up[0] + x0
        if 0 <= row < high and 0 <= column < wide:
            z[:, :, row, column] = x[:, :, i, j]
    rows = range(0, high - g.shape[0] + 1, down[1])
    columns = range(0, wide - g.shape[1] + 1, down[0])
    y = np.zeros((n, c, len(rows), len(columns)))
    for (a, row), (b, column) in itertools.product(enumerate(rows), enumerate(columns)):
        window = z[:, :, row : row + g.shape[0], column : column + g.shape[1]]
        y[:, :, a, b] = gain * (window * g).sum((2, 3))
    return torch.from_numpy(y)


FILTERS = {
    "one": randn(1, seed=1), "two": randn(2, seed=2), "three": randn(3, seed=3),
    "four": randn(4, seed=4), "twelve": randn(12, seed=5), "thirteen": randn(13, seed=6),
    "outer": torch.outer(randn(3, seed=7), randn(4, seed=8)), "box": torch.ones(2, 2).double() / 4,
    "full": randn(3, 2, seed=9), "column": randn(5, 1, seed=10), "wide": randn(4, 5, seed=11),
    "zero": torch.zeros(2, 3).double(), "holes": torch.tensor([[0.0, 1, 0], [2, 0, 0.5]]).double(),
}  # fmt: skip
FILTERS = {name: f.float() for name, f in FILTERS.items()}
