"""bias_act under torch.func.vmap: one call, for a bias of each member too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor


def batched(
    info: Any, in_dims: tuple[Any, ...], x: Tensor, b: Any, spec: Any
) -> tuple[Tensor, int]:
    """The members in front where they share the bias; beside the channels where each has its."""
    from .autograd import BiasAct  # which has this as its rule

    apply: Any = BiasAct.apply
    size, (dim, of_bias, _) = info.batch_size, in_dims
    x = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
    if b is None or of_bias is None:
        shift = 0 if b is None else 1
        return apply(x, b, replace(spec, dim=spec.dim + shift)), 0
    channels = b.movedim(of_bias, 0).reshape(-1)
    y = apply(x.movedim(0, spec.dim).flatten(spec.dim, spec.dim + 1), channels, spec)
    return y.unflatten(spec.dim, (size, -1)), spec.dim
