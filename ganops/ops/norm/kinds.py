"""Orders 0 and 1 of each norm: torch's own kernels, called directly.

`F.group_norm` and `F.rms_norm` fall back to dozens of elementary operations as soon as a backward
is itself recorded; the kernels called here never do. RMS and pixel norm, for which torch has no
public kernel, are a few operations of one pass each.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from . import geometry
from .geometry import View

aten = torch.ops.aten
Triple = tuple[Tensor, Tensor, Tensor]
Grads = tuple[Tensor | None, Tensor | None, Tensor | None]

HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Kind(ABC):
    """What is not a differentiable tensor (one leaf to pytrees, which torch.func needs)."""

    impl: str
    eps: float

    centered = True

    @abstractmethod
    def view(self, x: Tensor) -> View:
        """x as the kernels see it."""

    @abstractmethod
    def forward(self, x: Tensor, w: Tensor | None, b: Tensor | None) -> Triple:
        """(y, mean, rstd); mean and rstd in the order of the view's rows."""

    @abstractmethod
    def backward(
        self, dy: Tensor, x: Tensor, w: Tensor | None, mean: Tensor, rstd: Tensor, mask: list[bool]
    ) -> Grads:
        """(dx, dw, db), None where the mask says so."""

    def along(self, w: Tensor, x: Tensor) -> Tensor:
        """A weight or bias, shaped to multiply x."""
        return w if self._trails else w.view(-1, *[1] * (x.dim() - 2))

    def still(self) -> Kind:
        """The same, moving no running statistics."""
        return self

    _trails = False


def _exact(x: Tensor, w: Tensor | None, b: Tensor | None, shape: Any) -> tuple[Any, Any]:
    """Parameters in float32 for half inputs on the CPU, or its kernels round the statistics."""
    if x.dtype not in HALVES or x.device.type != "cpu":
        return w, b
    if w is None:
        w = torch.ones(shape, dtype=torch.float32)
    return w.float(), None if b is None else b.float()


@dataclass(frozen=True)
class Layer(Kind):
    shape: tuple[int, ...]

    _trails = True

    def view(self, x: Tensor) -> View:
        return geometry.trailing(x, len(self.shape))

    def forward(self, x: Tensor, w: Tensor | None, b: Tensor | None) -> Triple:
        w, b = _exact(x, w, b, self.shape)
        found: Triple = aten.native_layer_norm(x, self.shape, w, b, self.eps)
        return found

    def backward(
        self, dy: Tensor, x: Tensor, w: Tensor | None, mean: Tensor, rstd: Tensor, mask: list[bool]
    ) -> Grads:
        w, _ = _exact(x, w, None, self.shape)
        # The kernel asks the bias for its shape alone.
        like = x.new_empty(self.shape) if w is None and mask[2] else w
        found: Grads = aten.native_layer_norm_backward(dy, x, self.shape, mean, rstd, w, like, mask)
        return found


@dataclass(frozen=True)
class Group(Kind):
    groups: int

    def view(self, x: Tensor) -> View:
        return geometry.grouped(x, self.groups)

    def _sizes(self, x: Tensor) -> tuple[int, int, int, int]:
        return x.shape[0], x.shape[1], math.prod(x.shape[2:]), self.groups

    @staticmethod
    def _laid_out(t: Tensor, x: Tensor) -> Tensor:
        """As the kernel wants it: contiguous, or channels last on the CPU."""
        if x.device.type == "cpu" and x.dim() in (4, 5) and geometry.channels_last(x):
            last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
            return t.contiguous(memory_format=last)
        return t.contiguous()

    def forward(self, x: Tensor, w: Tensor | None, b: Tensor | None) -> Triple:
        w, b = _exact(x, w, b, x.shape[1])
        found: Triple = aten.native_group_norm(
            self._laid_out(x, x), w, b, *self._sizes(x), self.eps
        )
        return found

    def backward(
        self, dy: Tensor, x: Tensor, w: Tensor | None, mean: Tensor, rstd: Tensor, mask: list[bool]
    ) -> Grads:
        w, _ = _exact(x, w, None, x.shape[1])
        dy, laid = self._laid_out(dy, x), self._laid_out(x, x)
        found: Grads = aten.native_group_norm_backward(
            dy, laid, mean, rstd, w, *self._sizes(x), mask
        )
        return found


def _as(dy: Tensor, x: Tensor) -> Tensor:
    """dy in x's memory order: torch's kernel goes wrong where a batch of one has them mixed."""
    return dy if dy.stride() == x.stride() else torch.empty_like(x).copy_(dy)


@dataclass(frozen=True)
class Batch(Kind):
    """Training mode. The running statistics, if any, are moved by the forward."""

    momentum: float
    running: tuple[Tensor | None, Tensor | None]

    def view(self, x: Tensor) -> View:
        return geometry.per_channel(x)

    def still(self) -> Kind:
        return replace(self, running=(None, None))

    def _parameters(self, x: Tensor, w: Tensor | None, b: Tensor | None) -> tuple[Any, Any]:
        if any(t is not None and t.dtype in HALVES for t in self.running):
            return w, b  # the kernel wants one dtype for them all
        return _exact(x, w, b, x.shape[1])

    def forward(self, x: Tensor, w: Tensor | None, b: Tensor | None) -> Triple:
        w, b = self._parameters(x, w, b)
        found: Triple = aten.native_batch_norm(
            x, w, b, *self.running, True, self.momentum, self.eps
        )
        return found

    def backward(
        self, dy: Tensor, x: Tensor, w: Tensor | None, mean: Tensor, rstd: Tensor, mask: list[bool]
    ) -> Grads:
        w, _ = self._parameters(x, w, None)
        found: Grads = aten.native_batch_norm_backward(
            _as(dy, x), x, w, *self.running, mean, rstd, True, self.eps, mask
        )
        return found


@dataclass(frozen=True)
class Instance(Batch):
    """Batch norm of one sample of B C channels, as torch has it; x is (1, B C, ...), w is (C,)."""

    channels: int

    def view(self, x: Tensor) -> View:
        return geometry.grouped(x, x.shape[1])

    def along(self, w: Tensor, x: Tensor) -> Tensor:
        return super().along(self._repeated(w, x), x)

    def _repeated(self, t: Any, x: Tensor) -> Any:
        return None if t is None else t.repeat(x.shape[1] // self.channels)

    def _parameters(self, x: Tensor, w: Tensor | None, b: Tensor | None) -> tuple[Any, Any]:
        return super()._parameters(x, self._repeated(w, x), self._repeated(b, x))

    def forward(self, x: Tensor, w: Tensor | None, b: Tensor | None) -> Triple:
        running = [self._repeated(t, x) for t in self.running]
        w, b = self._parameters(x, w, b)
        found: Triple = aten.native_batch_norm(x, w, b, *running, True, self.momentum, self.eps)
        for kept, moved in zip(self.running, running, strict=True):
            if kept is not None:
                kept.copy_(moved.view(-1, self.channels).mean(0))
        return found

    def backward(
        self, dy: Tensor, x: Tensor, w: Tensor | None, mean: Tensor, rstd: Tensor, mask: list[bool]
    ) -> Grads:
        w, _ = self._parameters(x, w, None)
        dx, *rest = aten.native_batch_norm_backward(
            _as(dy, x), x, w, None, None, mean, rstd, True, self.eps, mask
        )
        dw, db = (None if t is None else t.view(-1, self.channels).sum(0) for t in rest)
        return dx, dw, db


@dataclass(frozen=True)
class RootMeanSquare(Kind):
    """Over the last `dims` dims, or over dim 1 where that is 0; mean is empty."""

    dims: int

    centered = False
    _trails = True

    def _over(self, x: Tensor) -> list[int]:
        return list(range(x.dim() - self.dims, x.dim())) if self.dims else [1]

    def view(self, x: Tensor) -> View:
        return geometry.trailing(x, self.dims) if self.dims else geometry.across_channels(x)

    def forward(self, x: Tensor, w: Tensor | None, b: Tensor | None) -> Triple:
        over = self._over(x)
        wide = x.float() if x.dtype in HALVES else x
        norm = torch.linalg.vector_norm(wide, dim=over, keepdim=True)
        rstd = (norm.square() / math.prod(x.shape[d] for d in over) + self.eps).rsqrt()
        y = wide * rstd
        if w is not None:
            y = y.mul_(w)
        return y.to(x.dtype), rstd.new_empty(0), rstd

    def backward(
        self, dy: Tensor, x: Tensor, w: Tensor | None, mean: Tensor, rstd: Tensor, mask: list[bool]
    ) -> Grads:
        over = self._over(x)
        n = math.prod(x.shape[d] for d in over)
        wide, upstream = (t.float() if t.dtype in HALVES else t for t in (x, dy))
        dx = dw = None
        if mask[0]:
            g = upstream if w is None else upstream * w
            inner = (g * wide).sum(over, keepdim=True)
            dx = torch.addcmul(g * rstd, wide, inner * rstd.pow(3), value=-1.0 / n).to(x.dtype)
        if mask[1] and w is not None:
            dw = (upstream * (wide * rstd)).sum_to_size(w.shape)
        return dx, dw, None
