"""upfirdn2d from elementary operations: the definition of correct, of any order.

Written as the words say it: zeros are inserted, sides padded or cropped, the filter's taps summed
one by one, and results left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def upfirdn2d(
    x: Tensor, f: Tensor, up: tuple[int, int], down: tuple[int, int],
    padding: tuple[int, int, int, int], flip_filter: bool, gain: float,
) -> Tensor:  # fmt: skip
    """y of `ganops.ops.upfirdn2d`; pairs are (x, y), padding is (x0, x1, y0, y1)."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    g = f.to(dtype)
    g = g if flip_filter else g.flip(tuple(range(g.dim())))
    z = _pad(_insert_zeros(x.to(dtype), up), padding)
    if f.dim() == 1:
        y = _correlate(_correlate(z, g[None, :], down[0], 1) * gain, g[:, None], 1, down[1])
    else:
        y = _correlate(z, g * gain, *down)
    return y.to(x.dtype)


def _insert_zeros(x: Tensor, up: tuple[int, int]) -> Tensor:
    """up - 1 zeros after every number, along both axes."""
    n, c, h, w = x.shape
    spread = F.pad(x.reshape(n, c, h, 1, w, 1), (0, up[0] - 1, 0, 0, 0, up[1] - 1))
    return spread.reshape(n, c, h * up[1], w * up[0])


def _pad(z: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Zeros on each side, or less where negative."""
    z = F.pad(z, [max(p, 0) for p in padding])
    x0, x1, y0, y1 = (max(-p, 0) for p in padding)
    return z[:, :, y0 : z.shape[2] - y1, x0 : z.shape[3] - x1]


def _correlate(z: Tensor, g: Tensor, down_x: int, down_y: int) -> Tensor:
    """Every down-th of sum over taps of g[k] z[. + k], with no padding."""
    rows, columns = (n - k + 1 for n, k in zip(z.shape[2:], g.shape))
    terms = [
        z[:, :, i : i + rows : down_y, j : j + columns : down_x] * g[i, j]
        for i in range(g.shape[0])
        for j in range(g.shape[1])
    ]
    return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]
