"""What a convolution or a linear layer is besides its tensors, and the kernels that run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from .._twins import Like, autocast_casts
from . import small_output, sub_pixel

if TYPE_CHECKING:
    from .bank import Windows

aten = torch.ops.aten


@dataclass(frozen=True)
class Spec:
    """What is not a tensor (one leaf to pytrees, which torch.func needs)."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    @property
    def _numbers(self) -> tuple[Any, ...]:
        return (self.stride, self.padding, self.dilation, self.transposed, self.output_padding,
                self.groups)  # fmt: skip

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        y: Tensor = aten.convolution(x, w, b, *self._numbers)
        return y

    def backward(self, dy: Tensor, x: Tensor, w: Tensor, mask: list[bool]) -> tuple[Any, ...]:
        """(dx, dw, db); what the mask leaves out is None and costs nothing."""
        if mask[1] and self._small_output(dy, x, w):
            dx = self.backward(dy, x, w, [True, False, False])[0] if mask[0] else None
            dw = small_output.weight_gradient(dy, x, w, self.stride, self.padding)
            return dx, dw, self.bias(dy) if mask[2] else None
        if self.groups > 1 and dy.shape[0] == 1:
            # torch's grouped kernels go by the batch's stride, which says nothing of one sample.
            dy, x = (t.clone(memory_format=torch.contiguous_format) for t in (dy, x))
        sizes = [dy.shape[1]] if mask[2] else None
        grads: tuple[Any, ...] = aten.convolution_backward(dy, x, w, sizes, *self._numbers, mask)
        return grads

    def input(self, dy: Tensor, w: Tensor, like: Like, x: Tensor | None = None) -> Tensor:
        """dx alone. x, whose values are not read, spares a placeholder where it is at hand."""
        dx = self.quick_input(dy, w, like)
        if dx is None:
            x = like.empty() if x is None else x
            dx = self.backward(dy, x, w, [True, False, False])[0]
        return dx

    def quick_input(self, dy: Tensor, w: Tensor, like: Like) -> Tensor | None:
        """dx by a faster way than torch's, where there is one."""
        if sub_pixel.serves(w, self.stride, self.dilation, self.transposed, self.groups):
            return sub_pixel.input_gradient(dy, w, like, self.stride, self.padding)
        return None

    def _small_output(self, dy: Tensor, x: Tensor, w: Tensor) -> bool:
        return small_output.serves(
            dy, x, w, self.stride, self.padding, self.dilation, self.transposed, self.groups
        )

    def bias(self, dy: Tensor) -> Tensor:
        """db."""
        return dy.sum([0, *range(2, dy.dim())])

    def bias_by_sample(self, dy: Tensor) -> Tensor:
        """(B, Cout): each sample's share of db."""
        return dy.flatten(2).sum(2)


@dataclass(frozen=True)
class LinearSpec:
    """The linear layer, in the terms of `Spec`. Samples along dim 0, features along the last.

    Autocast is off in here: arguments were cast where the layer was called, which need not be where
    its backward runs.
    """

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        if autocast_casts(x):
            with torch.autocast(x.device.type, enabled=False):
                return F.linear(x, w, b)
        return F.linear(x, w, b)

    def backward(self, dy: Tensor, x: Tensor, w: Tensor, mask: list[bool]) -> tuple[Any, ...]:
        if autocast_casts(dy):
            with torch.autocast(dy.device.type, enabled=False):
                return self.backward(dy, x, w, mask)
        rows, given = (dy, x) if dy.dim() == 2 else (dy.flatten(0, -2), x.flatten(0, -2))
        return (
            dy @ w if mask[0] else None,
            rows.t() @ given if mask[1] else None,
            rows.sum(0) if mask[2] else None,
        )

    def input(self, dy: Tensor, w: Tensor, like: Like, x: Tensor | None = None) -> Tensor:
        dx: Tensor = self.backward(dy, dy, w, [True, False, False])[0]
        return dx

    def quick_input(self, dy: Tensor, w: Tensor, like: Like) -> Tensor | None:
        return None

    def bias(self, dy: Tensor) -> Tensor:
        return dy.flatten(0, -2).sum(0)

    def bias_by_sample(self, dy: Tensor) -> Tensor:
        return dy if dy.dim() == 2 else dy.flatten(1, -2).sum(1)


AnySpec: TypeAlias = "Spec | LinearSpec | Windows"
