"""Derivatives of norms: torch's kernels for orders 0 and 1, one kernel of ours for order 2.

    order 0   y = w xhat + b,  xhat = (x - mean) rstd
    order 1   (dx, dw, db) from dy
    order 2   (d_dy, d_x, d_w) from the cotangents of those; formulas: csrc/norm/norm_math.h
    order 3   refused

Mean and rstd are kept from the forward; order 1 takes them for what they are, functions of x, so
that nothing is derived through them twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._autograd import kernel, quick, refuse, refuse_nested_forward, register
from .._input_pass import InputPass
from .._triton import deferred
from .kinds import Kind


@dataclass(frozen=True)
class Wanted:
    """Which of dx, dw, db to compute (one leaf to pytrees, as Kind is)."""

    dx: bool = True
    dw: bool = False
    db: bool = False

    @property
    def mask(self) -> list[bool]:
        return [self.dx, self.dw, self.db]


@quick
class Norm(Function):
    """(y, mean, rstd); the statistics are by-products without a gradient of their own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, w: Tensor | None, b: Tensor | None, kind: Kind
    ) -> tuple[Tensor, Tensor, Tensor]:
        return kind.forward(x, w, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, w, b, ctx.kind = inputs
        _, mean, rstd = output
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(mean, rstd)
        ctx.save_for_backward(x, w, mean, rstd)
        ctx.save_for_forward(x, w, mean, rstd)
        ctx.w_pruned, ctx.b_pruned = InputPass.prunes(w), InputPass.prunes(b)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Any, ...]:
        if dy is None:
            return None, None, None, None
        need_x, need_w, need_b, _ = ctx.needs_input_grad
        wanted = Wanted(need_x, need_w and not ctx.w_pruned(), need_b and not ctx.b_pruned())
        return *NormGrad.apply(dy, *ctx.saved_tensors, wanted, ctx.kind), None

    @staticmethod
    def jvp(ctx: Any, x_t: Any, w_t: Any, b_t: Any, _: None) -> tuple[Tensor | None, None, None]:
        refuse_nested_forward("norm")
        x, w, mean, rstd = ctx.saved_tensors
        kind: Kind = ctx.kind
        parts = []
        if x_t is not None:  # T is symmetric: its jvp is its vjp
            part = NormGrad.apply(x_t, x, None, mean, rstd, Wanted(), kind)[0]
            parts.append(part if w is None else part * kind.along(w, x))
        if w_t is not None:
            parts.append(kind.along(w_t, x) * Norm.apply(x, None, None, kind.still())[0])
        if b_t is not None:
            parts.append(kind.along(b_t, x).expand(x.shape))
        return (sum(parts[1:], parts[0]).to(x.dtype) if parts else None), None, None


@quick
class NormGrad(Function):
    """(dx, dw, db), None where not wanted: linear in dy."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        dy: Tensor, x: Tensor, w: Tensor | None, mean: Tensor, rstd: Tensor,
        wanted: Wanted, kind: Kind,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
        mask = wanted.mask
        found = kind.backward(dy, x, w, mean, rstd, mask)
        dx, dw, db = (t if yes else None for t, yes in zip(found, mask, strict=True))
        return dx, dw, db

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        dy, x, w, mean, rstd, ctx.wanted, ctx.kind = inputs
        ctx.likes = [None if t is None else (t.shape, t.dtype) for t in output]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, x, w, mean, rstd)
        ctx.save_for_forward(dy, x, w, mean, rstd)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, v_w: Any, v_b: Any) -> tuple[Any, ...]:
        nothing = (None,) * 7
        if v is None and v_w is None and v_b is None:
            return nothing
        need_dy, need_x, need_w = ctx.needs_input_grad[:3]
        d_dy, d_x, d_w = NormGrad2.apply(v, v_w, v_b, *ctx.saved_tensors, need_w, ctx.kind)
        return d_dy if need_dy else None, d_x if need_x else None, d_w, *nothing[3:]

    @staticmethod
    def jvp(ctx: Any, dy_t: Any, x_t: Any, w_t: Any, *_: Any) -> tuple[Any, Any, Any]:
        refuse_nested_forward("norm")
        dy, x, w, mean, rstd = ctx.saved_tensors
        kind: Kind = ctx.kind
        mask = ctx.wanted.mask
        totals: list[Tensor | None] = [None, None, None]

        def add(*parts: Tensor | None) -> None:
            for i, part in enumerate(parts):
                if mask[i] and part is not None:
                    so_far = totals[i]
                    totals[i] = part if so_far is None else so_far + part

        if dy_t is not None:
            add(*NormGrad.apply(dy_t, x, w, mean, rstd, ctx.wanted, kind))
        if x_t is not None:  # the Hessian is symmetric: its jvp is its vjp
            _, d_x, d_w = NormGrad2.apply(
                x_t, None, None, dy, x, w, mean, rstd, w is not None, kind
            )
            add(d_x, d_w)
        if w_t is not None:
            add(NormGrad.apply(dy, x, w_t, mean, rstd, Wanted(), kind)[0])
        dx_t, dw_t, db_t = (
            x.new_zeros(like[0], dtype=like[1]) if total is None and like is not None else total
            for total, like in zip(totals, ctx.likes, strict=True)
        )
        return dx_t, dw_t, db_t


@quick
class NormGrad2(Function):
    """(d_dy, d_x, d_w): the last order there is a kernel for."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        v: Tensor | None, v_w: Tensor | None, v_b: Tensor | None, dy: Tensor, x: Tensor,
        w: Tensor | None, mean: Tensor, rstd: Tensor, want_w: bool, kind: Kind,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        view = kind.view(x)
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        weights = [view.weight(t, dtype) for t in (w, v_w, v_b)]
        count = next((t.numel() for t in weights if t is not None), 0)
        statistics = [t.reshape(-1).to(dtype) for t in (mean, rstd)]
        d_dy, d_x, d_w = kernel("norm_grad2", kind.impl)(
            view.of(torch.zeros_like(x) if v is None else v.to(x.dtype)),
            view.of(dy.to(x.dtype)), view.of(x),
            statistics[0] if kind.centered else None, statistics[1], *weights,
            count, view.kind, want_w,
        )  # fmt: skip
        return (
            view.back(d_dy, x.shape).to(dy.dtype),
            view.back(d_x, x.shape),
            view.weight_grad(d_w, w.shape).to(w.dtype) if want_w and w is not None else None,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        """Nothing to keep: there is no further order."""

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise refuse("norm", 3)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise refuse("norm", 3)


class KernelGrad2(Function):
    """The dispatcher op with a derivative key: there is none, in either mode."""

    @staticmethod
    def forward(impl: str, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        d_dy, d_x, d_w = kernel("norm_grad2", impl)(*args)
        return d_dy, d_x, d_w

    setup_context = staticmethod(NormGrad2.setup_context)
    backward = staticmethod(NormGrad2.backward)
    jvp = staticmethod(NormGrad2.jvp)


def _autograd(impl: str, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    d_dy, d_x, d_w = KernelGrad2.apply(impl, *args)
    return d_dy, d_x, d_w


def _fake(
    v: Tensor, dy: Tensor, x: Tensor, mean: Any, rstd: Any, w: Any, v_w: Any, v_b: Any,
    weights: int, kind: int, want_w: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return (x.new_empty(x.shape), x.new_empty(x.shape),
            x.new_empty(weights if want_w else 0, dtype=dtype))  # fmt: skip


register(
    "norm_grad2",
    "(Tensor v, Tensor dy, Tensor x, Tensor? mean, Tensor rstd, Tensor? w, Tensor? v_w,"
    " Tensor? v_b, int weights, int kind, bool want_w)"
    " -> (Tensor d_dy, Tensor d_x, Tensor d_w)",
    fake=_fake,
    autograd=_autograd,
    triton=deferred(__package__, "norm_grad2"),
)
