"""Derivatives of the piecewise linear activations.

    order 0   y  = f(x)
    order 1   dx = s dy,   s = f'(x), read off y where y tells it and off x otherwise
    order 2   d dy = s v;  nothing for x: s is piecewise constant

Orders 1 and up are torch's own formulas on a detached `ref`, so they hold for every order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .. import masked_slope
from .._autograd import quick
from .._input_pass import InputPass, Share
from .._twins import one_forward_level

aten = torch.ops.aten


@dataclass(frozen=True)
class Spec:
    """What is not a tensor (one leaf to pytrees, which torch.func needs)."""

    name: str
    numbers: tuple[float, ...] = ()
    inplace: bool = False

    @property
    def from_output(self) -> bool:
        """Is the slope read off y? y is what the next layer keeps anyway."""
        return (
            self.inplace
            or self.name == "relu"
            or (self.name == "leaky_relu" and self.numbers[0] >= 0)
        )

    def value(self, x: Tensor) -> Tensor:
        table = _INPLACE if self.inplace else _VALUES
        return table[self.name](x, *self.numbers)

    def slope(self, g: Tensor, ref: Tensor) -> Tensor:
        """s g. ref: y or x."""
        if self.name == "leaky_relu":
            return aten.leaky_relu_backward(g, ref, *self.numbers, self.from_output)
        return _SLOPES[self.name](g, ref, *self.numbers)

    def mask(self, ref: Tensor) -> Tensor:
        """Where the slope is 1."""
        a, b = (*self.numbers, 0.0, 0.0)[:2]
        return masked_slope.reference.MASKS[self.name](ref, a, b)

    @property
    def outside(self) -> float:
        """The slope where the mask is False."""
        return self.numbers[0] if self.name == "leaky_relu" else 0.0


# ATen's, not torch.nn.functional's: those a penalty would re-route to twins once more.
_VALUES: dict[str, Callable[..., Tensor]] = {
    "abs": aten.abs,
    "hardtanh": aten.hardtanh,
    "leaky_relu": aten.leaky_relu,
    "relu": aten.relu,
    "threshold": aten.threshold,
}
_INPLACE: dict[str, Callable[..., Tensor]] = {
    "hardtanh": aten.hardtanh_,
    "leaky_relu": aten.leaky_relu_,
    "relu": aten.relu_,
}
_SLOPES: dict[str, Callable[..., Tensor]] = {
    "abs": lambda g, x: g * x.sgn(),
    "hardtanh": lambda g, ref, low, high: aten.hardtanh_backward(g, ref, low, high),
    "relu": lambda g, y: aten.threshold_backward(g, y, 0),
    "threshold": lambda g, x, limit, _: aten.threshold_backward(g, x, limit),
}


@quick
class Activation(Function):
    """y = f(x), elementwise."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, spec: Spec) -> tuple[Tensor, Any]:
        return Activation.apply(x, spec), in_dims[0]

    @staticmethod
    def forward(x: Tensor, spec: Spec) -> Tensor:
        return spec.value(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, spec = inputs
        ctx.spec = spec
        ctx.set_materialize_grads(False)
        if spec.inplace:
            ctx.mark_dirty(x)
        ref = output if spec.from_output else x
        ctx.save_for_backward(ref)
        ctx.save_for_forward(ref)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, None]:
        if dy is None:
            return None, None
        (ref,) = ctx.saved_tensors
        return ctx.spec.slope(dy, ref.detach()), None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, _: None) -> Tensor:
        one_forward_level(ctx.spec.name)
        (ref,) = ctx.saved_tensors
        y_t: Tensor = ctx.spec.slope(x_t, ref.detach())
        return x_t.copy_(y_t) if ctx.spec.inplace else y_t


@quick
class InPlace(Activation):
    """x = f(x)."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, spec: Spec) -> tuple[Tensor, Any]:
        return InPlace.apply(x, spec), in_dims[0]


@quick
class MaskedInPlace(Activation):
    """x = f(x), of which the slope's mask alone is kept; out of place it is `masked_slope`'s."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, spec = inputs
        ctx.spec, ctx.impl = spec, masked_slope.served(x, spec.name)
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(x)
        mask = spec.mask(output)
        ctx.save_for_backward(mask)
        ctx.save_for_forward(mask)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, None]:
        if dy is None:
            return None, None
        (mask,) = ctx.saved_tensors
        return masked_slope.slope(dy, mask, ctx.spec.outside, ctx.impl), None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, _: None) -> Tensor:
        one_forward_level(ctx.spec.name)
        (mask,) = ctx.saved_tensors
        y_t = masked_slope.slope(x_t, mask, ctx.spec.outside, ctx.impl)
        return x_t.copy_(y_t)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, spec: Spec) -> tuple[Tensor, Any]:
        return MaskedInPlace.apply(x, spec), in_dims[0]


@quick
class PReLU(Function):
    """y = x where x > 0, else w x; w along dim 1, or one number."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Tensor:
        y: Tensor = aten.prelu(x, w)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w)
        ctx.save_for_forward(x, w)
        ctx.pruned, ctx.shared = InputPass.prunes(w), InputPass.keeping("shared")

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        if dy is None:
            return None, None
        x, w = ctx.saved_tensors
        need_x, need_w = ctx.needs_input_grad
        positive = x.detach() > 0
        dx = torch.where(positive, dy, _along(w, x) * dy) if need_x else None
        if dx is not None and need_w and ctx.shared and ctx.shared.running:
            terms = torch.where(positive, 0.0, x.detach() * dy.detach())
            rows = terms.sum_to_size(x.shape[0], *_along(w, x).shape[1:])
            dx = Share.apply(dx, w, rows.reshape(x.shape[0], -1), ctx.shared)
        if not need_w or ctx.pruned():
            return dx, None
        terms = torch.where(positive, 0.0, x * dy)  # linear in x: order 2 is real here
        return dx, terms.sum_to_size(_along(w, x).shape).reshape(w.shape)

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor | None, w_t: Tensor | None) -> Tensor:
        one_forward_level("prelu")
        x, w = ctx.saved_tensors
        x_t = torch.zeros_like(x) if x_t is None else x_t
        below = _along(w, x) * x_t
        if w_t is not None:
            below = below + _along(w_t, x) * x
        return torch.where(x.detach() > 0, x_t, below)


def _along(w: Tensor, x: Tensor) -> Tensor:
    """w shaped to broadcast along dim 1 of x."""
    return w.reshape([-1 if d == 1 else 1 for d in range(x.dim())]) if x.dim() > 1 else w
