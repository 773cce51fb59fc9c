"""Fakes and derivatives of the compiled bias_act.

With t = x + b, m = 1 where |y| < clamp and s = gain f' m:

    order 0   y     = c(gain f(t))
    order 1   dx    = s dy,   db = sum of dx over all but the bias dim
    order 2   d dy  = s v                                (v = cotangent of dx, plus that of db)
              d ref = dy v ds/d ref
    order 3   through the second derivative: refused

`ref` is what order 1 reads the slope off: y wherever f is monotone (the next layer keeps y anyway),
x for swish, for gain <= 0 and for a negative alpha. Where it is y, order 2 sends its gradient to y,
and the chain through order 1 makes it x's. Piecewise linear f have ds/d ref = 0 almost everywhere;
they return None there, not zeros, so autograd does not run the primal network's backward for
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._autograd import (
    empty_dense_like,
    is_last_order,
    kernel,
    quick,
    refuse,
    refuse_nested_forward,
    register,
)  # fmt: skip
from .._input_pass import InputPass, Share
from .._triton import deferred
from .batching import batched


@dataclass(frozen=True)
class Spec:
    """What is not a tensor (one leaf to pytrees, which torch.func needs)."""

    impl: str
    dim: int
    act: int
    alpha: float
    gain: float
    clamp: float

    @property
    def piecewise_linear(self) -> bool:
        return self.act <= 2  # linear, relu, lrelu

    @property
    def from_output(self) -> bool:
        """Can f' be read off y? Not for swish, which is not monotone."""
        return self.act != 8 and self.gain > 0 and (self.alpha >= 0 or self.act != 2)

    @property
    def constant(self) -> bool:
        """Is dy/dx the same everywhere, so that nothing needs saving?"""
        return self.act == 0 and self.clamp < 0

    @property
    def identity(self) -> bool:
        """Is dy/dx = 1?"""
        return self.constant and self.gain == 1

    @property
    def numbers(self) -> tuple[int, int, float, float, float]:
        return self.dim, self.act, self.alpha, self.gain, self.clamp


@quick
class BiasAct(Function):
    """y from (x, b)."""

    vmap = staticmethod(batched)

    @staticmethod
    def forward(x: Tensor, b: Tensor | None, spec: Spec) -> Tensor:
        return kernel("bias_act", spec.impl)(x, b, *spec.numbers)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, b, spec = inputs
        ctx.spec, ctx.shape = spec, x.shape
        ctx.set_materialize_grads(False)
        saved: tuple[Tensor | None, ...] = (x, b, None)
        if spec.constant:
            saved = (None, b, None)
        elif spec.from_output:
            saved = (None, b, output)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        ctx.pruned, ctx.shared = InputPass.prunes(b), InputPass.keeping("shared")

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        if dy is None:
            return None, None, None
        need_x, need_b, _ = ctx.needs_input_grad
        spec: Spec = ctx.spec
        saved = ctx.saved_tensors
        want_b = need_b and not ctx.pruned()
        if spec.identity:
            dx, db = dy, _reduce(dy, spec.dim) if want_b else None
        else:
            slope: Any = BiasActGrad.forward if is_last_order(dy, *saved) else BiasActGrad.apply
            dx, db = slope(dy, *saved, want_b, spec)
        if need_x and need_b and ctx.shared and ctx.shared.running:
            dx = Share.apply(dx, saved[1], _by_sample(dx.detach(), spec.dim), ctx.shared)
        return dx if need_x else None, db, None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor | None, b_t: Tensor | None, _: None) -> Tensor:
        refuse_nested_forward("bias_act")
        t = _spread(x_t, b_t, ctx.shape, ctx.spec.dim)
        y_t: Tensor = BiasActGrad.apply(t, *ctx.saved_tensors, False, ctx.spec)[0]
        return y_t


@quick
class BiasActGrad(Function):
    """(dx, db) from dy: linear in dy. One of x (with b) and y is given, or neither."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        dy: Tensor, x: Tensor | None, b: Tensor | None, y: Tensor | None, want_db: bool, spec: Spec
    ) -> tuple[Tensor, Tensor | None]:
        ref = x if x is not None else y if y is not None else dy
        want_db = want_db and b is not None
        dx, db = kernel("bias_act_grad", spec.impl)(
            dy, ref, b, *spec.numbers, y is not None, want_db
        )
        return dx, db if want_db else None

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        dy, x, b, y, _, spec = inputs
        ctx.spec, ctx.shape, ctx.has_db = spec, dy.shape, output[1] is not None
        ctx.set_materialize_grads(False)
        saved = (None if spec.piecewise_linear else dy, x, b, y)  # dy matters only beside f''
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, v_db: Tensor | None) -> tuple[Any, ...]:
        dy, x, b, y = ctx.saved_tensors
        spec: Spec = ctx.spec
        if v is None and v_db is None:
            return None, None, None, None, None, None
        v = _spread(v, v_db, ctx.shape, spec.dim)
        need_dy, need_x, need_b, need_y = ctx.needs_input_grad[:4]
        d_dy = BiasActGrad.apply(v, x, b, y, False, spec)[0] if need_dy else None
        if spec.piecewise_linear or not (need_x or need_b or need_y):
            return d_dy, None, None, None, None, None
        d_ref = BiasActGrad2.apply(v, dy, x, b, y, spec)
        if y is not None:
            return d_dy, None, None, d_ref, None, None
        d_b = _reduce(d_ref, spec.dim) if need_b and b is not None else None
        return d_dy, d_ref if need_x else None, d_b, None, None, None

    @staticmethod
    def jvp(ctx: Any, dy_t: Any, x_t: Any, b_t: Any, y_t: Any, *_: Any) -> tuple[Any, Any]:
        refuse_nested_forward("bias_act")
        dy, x, b, y = ctx.saved_tensors
        spec: Spec = ctx.spec
        parts = []
        if dy_t is not None:
            parts.append(BiasActGrad.apply(dy_t, x, b, y, False, spec)[0])
        if y is not None:
            t = y_t
        else:
            t = None if x_t is None and b_t is None else _spread(x_t, b_t, ctx.shape, spec.dim)
        if t is not None and not spec.piecewise_linear:
            parts.append(BiasActGrad2.apply(t, dy, x, b, y, spec))
        if not parts:
            like = next(saved for saved in (x, y, b) if saved is not None)
            parts.append(torch.zeros(ctx.shape, dtype=like.dtype, device=like.device))
        total = sum(parts[1:], parts[0])
        return total, _reduce(total, spec.dim) if ctx.has_db else None


@quick
class BiasActGrad2(Function):
    """dy v ds/d ref: the last order there is a kernel for."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        v: Tensor, dy: Tensor, x: Tensor | None, b: Tensor | None, y: Tensor | None, spec: Spec
    ) -> Tensor:
        d_ref: Tensor = kernel("bias_act_grad2", spec.impl)(
            v, dy, y if x is None else x, b, *spec.numbers, x is None
        )
        return d_ref

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing to keep: there is no further order."""

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        raise refuse("bias_act", 3)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise refuse("bias_act", 3)


def _spread(t: Tensor | None, b: Tensor | None, shape: torch.Size, dim: int) -> Tensor:
    """t + b, b along dim; either may be absent."""
    if b is None:
        if t is None:
            raise RuntimeError("bias_act: a derivative was asked for in no direction")
        return t
    along = [1] * len(shape)
    along[dim] = -1
    spread = b.reshape(along).expand(shape)
    return spread.contiguous() if t is None else t + spread


def _reduce(t: Tensor, dim: int) -> Tensor:
    others = [d for d in range(t.dim()) if d != dim]
    return t.sum(others) if others else t


def _by_sample(t: Tensor, dim: int) -> Tensor:
    """(B, channels): each sample's share of `_reduce`."""
    others = [d for d in range(1, t.dim()) if d != dim]
    t = t.sum(others) if others else t
    return t.diag() if dim == 0 else t


def _fake(x: Tensor, b: Tensor | None, *_: Any) -> Tensor:
    return empty_dense_like(x)


def _fake_grad(
    dy: Tensor, ref: Tensor, b: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor]:  # rest ends in want_db
    return empty_dense_like(ref), ref.new_empty(b.shape[0] if b is not None and rest[-1] else 0)


def _fake_grad2(v: Tensor, dy: Tensor, ref: Tensor, *_: Any) -> Tensor:
    return empty_dense_like(ref)


def _autograd(impl: str, x: Tensor, b: Tensor | None, *numbers: Any) -> Tensor:
    y: Tensor = BiasAct.apply(x, b, Spec(impl, *numbers))
    return y


def _autograd_grad(
    impl: str, dy: Tensor, ref: Tensor, b: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor]:
    *numbers, from_output, want_db = rest
    x, y = (None, ref) if from_output else (ref, None)
    dx, db = BiasActGrad.apply(dy, x, b, y, want_db, Spec(impl, *numbers))
    return dx, db if db is not None else dx.new_empty(0)


def _autograd_grad2(
    impl: str, v: Tensor, dy: Tensor, ref: Tensor, b: Tensor | None, *rest: Any
) -> Tensor:
    *numbers, from_output = rest
    x, y = (None, ref) if from_output else (ref, None)
    d_ref: Tensor = BiasActGrad2.apply(v, dy, x, b, y, Spec(impl, *numbers))
    return d_ref


_NUMBERS = "int dim, int act, float alpha, float gain, float clamp"
register(
    "bias_act",
    f"(Tensor x, Tensor? b, {_NUMBERS}) -> Tensor",
    fake=_fake,
    autograd=_autograd,
    triton=deferred(__package__, "bias_act"),
)
register(
    "bias_act_grad",
    f"(Tensor dy, Tensor ref, Tensor? b, {_NUMBERS}, bool from_output, bool want_db)"
    " -> (Tensor dx, Tensor db)",
    fake=_fake_grad,
    autograd=_autograd_grad,
    triton=deferred(__package__, "bias_act_grad"),
)
register(
    "bias_act_grad2",
    f"(Tensor v, Tensor dy, Tensor ref, Tensor? b, {_NUMBERS}, bool from_output) -> Tensor",
    fake=_fake_grad2,
    autograd=_autograd_grad2,
    triton=deferred(__package__, "bias_act_grad2"),
)
