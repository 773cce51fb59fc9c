"""Running average of a network's weights, two tensor-list calls per update whatever its size."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ganops.methods.base import EMA
from ganops.nn import RandomProjection


class Average:
    """Holds the averaged copy of `network` (evaluation mode, float32 or wider).

    Starts as an exact copy and never feeds back into training. Extra memory: one network.
    """

    def __init__(self, network: nn.Module, settings: EMA) -> None:
        self.settings = settings
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        for p in self.network.parameters():
            if p.dtype in (torch.float16, torch.bfloat16):  # beta near 1 is below their resolution
                p.data = p.data.float()
        self._own: list[Tensor] = list(self.network.parameters())
        self._live: list[Tensor] = list(network.parameters())
        self._copies: list[Tensor] = []
        self._copied: list[Tensor] = []
        projections = [m for m in self.network.modules() if isinstance(m, RandomProjection)]
        fixed = {id(m.filters) for m in projections}  # constants have no average
        for own, live in zip(self.network.buffers(), network.buffers(), strict=True):
            average = settings.buffers == "average" and own.is_floating_point()
            average = average and id(own) not in fixed
            (self._own if average else self._copies).append(own)
            (self._live if average else self._copied).append(live)

    @torch.no_grad()
    def update(self, batch: int, images_seen: int) -> None:
        """One step of the average, after an update of the live network."""
        if self._own:
            weight = 1.0 - self.settings.decay(batch, images_seen)
            live = [b.to(a.dtype) for a, b in zip(self._own, self._live, strict=True)]
            torch._foreach_lerp_(self._own, live, weight)
        if self._copies:
            torch._foreach_copy_(self._copies, self._copied)
