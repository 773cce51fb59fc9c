"""The norms under test: how each is called, on which shapes, and in which memory layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ganops import ops


class Case(NamedTuple):
    ours: Callable[..., Tensor]  # (x, w, b, impl=...)
    stock: Callable[..., Tensor]  # (x, w, b)
    shape: tuple[int, ...]
    weight: tuple[int, ...] | None  # None: takes none
    bias: bool = True

    def tensors(self, affine=True, dtype=torch.float64, layout="contiguous", device="cpu", seed=0):
        """x, w, b (None where there is none), dy, and cotangents of the gradients of the three."""
        generator = torch.Generator().manual_seed(seed)

        def draw(shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        weights = self.weight if affine else None
        shapes = [self.shape, weights, weights if self.bias else None]
        x, w, b = (None if s is None else draw(s) for s in shapes)
        x = 2 * x + 0.5
        w = None if w is None else w + 1.5
        seconds = [None if s is None else draw(s) for s in shapes]
        found = [x, w, b, draw(self.shape), *seconds]
        found = [None if t is None else t.to(device, dtype) for t in found]
        for i in (0, 3, 4):
            found[i] = LAYOUTS[layout](found[i])
        return found


def _channels_last(t):
    return t.movedim(1, -1).contiguous().movedim(-1, 1)


def _sliced(t):
    return torch.stack([t, 0 * t], -1)[..., 0]


LAYOUTS = {"contiguous": lambda t: t, "channels_last": _channels_last, "sliced": _sliced}


def layer(shape, dims, eps=1e-5):
    n = shape[-dims:]
    return Case(lambda x, w, b, **k: ops.layer_norm(x, n, w, b, eps, **k),
                lambda x, w, b: F.layer_norm(x, n, w, b, eps), shape, n)  # fmt: skip


def group(shape, groups):
    return Case(lambda x, w, b, **k: ops.group_norm(x, groups, w, b, **k),
                lambda x, w, b: F.group_norm(x, groups, w, b), shape, shape[1:2])  # fmt: skip


def instance(shape):
    return Case(lambda x, w, b, **k: ops.instance_norm(x, None, None, w, b, **k),
                lambda x, w, b: F.instance_norm(x, None, None, w, b),
                shape, shape[1:2])  # fmt: skip


def batch(shape):
    return Case(lambda x, w, b, **k: ops.batch_norm(x, None, None, w, b, True, **k),
                lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
                shape, shape[1:2])  # fmt: skip


def fixed_batch(shape):
    mean, var = torch.linspace(-1, 1, shape[1]), torch.linspace(0.5, 2, shape[1])

    def moments(x):
        dtype = x.dtype if x.dtype == torch.float64 else torch.float32
        return mean.to(x.device, dtype), var.to(x.device, dtype)

    return Case(lambda x, w, b, **k: ops.batch_norm(x, *moments(x), w, b, **k),
                lambda x, w, b: F.batch_norm(x, *moments(x), w, b), shape, shape[1:2])  # fmt: skip


def rms(shape, dims, eps=None):
    n = shape[-dims:]
    return Case(lambda x, w, b, **k: ops.rms_norm(x, n, w, eps, **k),
                lambda x, w, b: F.rms_norm(x, n, w, eps), shape, n, bias=False)  # fmt: skip


def pixel(shape):
    def stock(x, w, b):
        return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()

    return Case(lambda x, w, b, **k: ops.pixel_norm(x, **k), stock, shape, None)


# Odd sizes, two to five dims, runs shorter and longer than geometry.SHORT, a batch of one.
SMALL = {
    "layer": layer((5, 7), 1),
    "layer-3d": layer((2, 3, 5), 2),
    "layer-5d": layer((1, 2, 3, 2, 3), 3),
    "layer-of-one": layer((4, 1), 1, eps=0.5),
    "group-2d": group((3, 6), 3),
    "group-3d": group((2, 6, 5), 2),
    "group-4d": group((2, 4, 3, 2), 2),
    "group-5d": group((1, 4, 2, 3, 2), 4),
    "instance-3d": instance((2, 3, 5)),
    "instance-4d": instance((1, 3, 3, 2)),
    "instance-5d": instance((2, 2, 2, 3, 2)),
    "batch-2d": batch((5, 3)),
    "batch-3d": batch((3, 2, 5)),
    "batch-4d": batch((1, 3, 3, 2)),
    "batch-5d": batch((2, 3, 2, 1, 2)),
    "batch-fixed": fixed_batch((2, 3, 3, 2)),
    "rms": rms((5, 7), 1),
    "rms-3d": rms((2, 3, 5), 2, 1e-3),
    "pixel-2d": pixel((4, 6)),
    "pixel-4d": pixel((2, 5, 3, 2)),
}
LARGE = {
    "layer-long": layer((5, 16_411), 1),
    "layer-many": layer((301, 67), 1),
    "group-wide": group((3, 6, 11, 13), 2),
    "group-one": group((2, 5, 67), 1),
    "group-narrow": group((5, 1030, 3), 2),
    "instance-wide": instance((3, 5, 33, 33)),
    "batch-wide": batch((3, 5, 9, 11)),
    "batch-flat": batch((131, 67)),
    "batch-together": batch((2, 67, 9, 8)),
    "rms-many": rms((40, 1031), 1),
    "rms-long": rms((3, 16_385), 1),
    "pixel-wide": pixel((2, 7, 27, 27)),
}
NORMS = {**SMALL, **LARGE}
