"""Norms in plain PyTorch, differentiable to any order: the definition of correct.

Not built on torch's own norms: third derivatives of `F.layer_norm`, training `F.batch_norm` and
`F.instance_norm` are wrong without a word.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .kinds import Batch, Group, Instance, Kind, Layer, RootMeanSquare


def norm(x: Tensor, w: Tensor | None, b: Tensor | None, kind: Kind) -> Tensor:
    """w xhat + b. Half types are computed in float32 and rounded once."""
    t = x.double() if x.dtype == torch.float64 else x.float()
    if isinstance(kind, Group):
        t = t.reshape(x.shape[0], kind.groups, -1)
    if kind.centered:
        t = t - t.mean(over(t, kind), keepdim=True)
    square = (t * t).mean(over(t, kind), keepdim=True)
    if isinstance(kind, Batch):
        move_running(x, kind)
    y = (t * (square + kind.eps).rsqrt()).reshape(x.shape)
    y = y if w is None else y * kind.along(w.to(y.dtype), x)
    y = y if b is None else y + kind.along(b.to(y.dtype), x)
    return y.to(x.dtype)


def over(t: Tensor, kind: Kind) -> list[int]:
    """The dims whose numbers share their statistics."""
    dims = list(range(t.dim()))
    if isinstance(kind, Layer):
        return dims[t.dim() - len(kind.shape) :]
    if isinstance(kind, Group):
        return [2]
    if isinstance(kind, RootMeanSquare):
        return dims[t.dim() - kind.dims :] if kind.dims else [1]
    return dims[2:] if isinstance(kind, Instance) else [0, *dims[2:]]


@torch.no_grad()
def move_running(x: Tensor, kind: Batch) -> None:
    """Running statistics, towards those of x; the variance without bias."""
    t = x.detach().float() if x.dtype in (torch.bfloat16, torch.float16) else x.detach()
    moments = (t.mean(over(t, kind)), t.var(over(t, kind)))
    for kept, now in zip(kind.running, moments, strict=True):
        if kept is not None:
            kept.lerp_(now.view(-1, kept.shape[0]).mean(0).to(kept.dtype), kind.momentum)


def fixed(
    x: Tensor, mean: Tensor, var: Tensor, w: Tensor | None, b: Tensor | None, eps: float
) -> Tensor:
    """(x - mean) / sqrt(var + eps) w + b with statistics given per channel: linear in x."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    shape = [1, -1, *[1] * (x.dim() - 2)]
    scale = (var.to(wide) + eps).rsqrt()
    scale = scale if w is None else scale * w.to(wide)
    shift = -mean.to(wide) * scale
    shift = shift if b is None else shift + b.to(wide)
    return torch.addcmul(shift.view(shape), x.to(wide), scale.view(shape)).to(x.dtype)
