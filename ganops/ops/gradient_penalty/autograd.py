"""Fakes and derivatives of the compiled penalty reduction.

With n_b = |g_b|_2 and k1, k2 of csrc/gradient_penalty/gradient_penalty_math.h:

    order 0   P     = 1/B sum_b phi(n_b)
    order 1   u_b   = go/B k1(n_b) g_b
    order 2   d_go  = 1/B sum_b k1(n_b) <g_b, v_b>
              d_g_b = go/B (k1(n_b) v_b + k2(n_b) <g_b, v_b> g_b)
    order 3   refused

Only g (which autograd holds anyway) and the B norms are kept. Order 1 reads g again instead of
storing u: three passes over g in all, where storing and then scaling u would take four, and a
second tensor of g's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._autograd import (
    empty_rows_like,
    kernel,
    quick,
    refuse,
    refuse_nested_forward,
    register,
)
from .._triton import deferred


@dataclass(frozen=True)
class Spec:
    """What is not a tensor (one leaf to pytrees, which torch.func needs)."""

    impl: str
    center: float
    one_sided: bool


@quick
class Penalty(Function):
    """(value, norms) from grad; norms are a by-product without a gradient of their own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
        value, norms = kernel("gradient_penalty", spec.impl)(grad, spec.center, spec.one_sided)
        return value, norms

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        grad, spec = inputs
        _, norms = output
        ctx.spec = spec
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(norms)
        ctx.save_for_backward(grad, norms)
        ctx.save_for_forward(grad, norms)

    @staticmethod
    def backward(ctx: Any, go: Tensor | None, _: Any) -> tuple[Tensor | None, None]:
        if go is None:
            return None, None
        return PenaltyGrad.apply(go, *ctx.saved_tensors, ctx.spec), None

    @staticmethod
    def jvp(ctx: Any, grad_t: Tensor, _: Any) -> tuple[Tensor, None]:
        refuse_nested_forward("gradient_penalty")
        grad, norms = ctx.saved_tensors
        one = torch.ones((), dtype=norms.dtype, device=norms.device)
        # Not PenaltyGrad2's d_go, the same number: it could not be differentiated once more.
        u = PenaltyGrad.apply(one, grad, norms, ctx.spec)
        return (u.to(norms.dtype) * grad_t.to(norms.dtype)).sum(), None


@quick
class PenaltyGrad(Function):
    """u = go dP/dgrad. norms belong to grad: their derivative is counted there."""

    generate_vmap_rule = True

    @staticmethod
    def forward(go: Tensor, grad: Tensor, norms: Tensor, spec: Spec) -> Tensor:
        u: Tensor = kernel("gradient_penalty_grad", spec.impl)(
            go, grad, norms, spec.center, spec.one_sided
        )
        return u

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        go, grad, norms, ctx.spec = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(go, grad, norms)
        ctx.save_for_forward(go, grad, norms)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Any, ...]:
        if v is None:
            return None, None, None, None
        d_go, d_grad = PenaltyGrad2.apply(v, *ctx.saved_tensors, ctx.spec)
        return d_go, d_grad, None, None

    @staticmethod
    def jvp(ctx: Any, go_t: Tensor | None, grad_t: Tensor | None, *_: Any) -> Tensor:
        refuse_nested_forward("gradient_penalty")
        go, grad, norms = ctx.saved_tensors
        parts = []
        if go_t is not None:
            parts.append(PenaltyGrad.apply(go_t, grad, norms, ctx.spec))
        if grad_t is not None:  # the Hessian is symmetric: its jvp is its vjp
            parts.append(PenaltyGrad2.apply(grad_t, go, grad, norms, ctx.spec)[1])
        total: Tensor = sum(parts[1:], parts[0])
        return total


@quick
class PenaltyGrad2(Function):
    """(d_go, d_grad) from the cotangent v of u: the last order there is a kernel for."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        v: Tensor, go: Tensor, grad: Tensor, norms: Tensor, spec: Spec
    ) -> tuple[Tensor, Tensor]:
        d_go, d_grad = kernel("gradient_penalty_grad2", spec.impl)(
            v, go, grad, norms, spec.center, spec.one_sided
        )
        return d_go, d_grad

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        """Nothing to keep: there is no further order."""

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise refuse("gradient_penalty", 3)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise refuse("gradient_penalty", 3)


class PenaltyFused(Function):
    """(value, scale dP/dgrad), without derivatives: asking for one raises, in either mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, spec: Spec, scale: float) -> tuple[Tensor, Tensor]:
        value, dgrad = kernel("gradient_penalty_fused", spec.impl)(
            grad, spec.center, spec.one_sided, scale
        )
        return value, dgrad

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        """Nothing to keep."""

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise refuse("gradient_penalty_fused", 1)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise refuse("gradient_penalty_fused", 1)


def _reduced(grad: Tensor) -> torch.dtype:
    return torch.float64 if grad.dtype == torch.float64 else torch.float32


def _fake(grad: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    dtype = _reduced(grad)
    return grad.new_empty((), dtype=dtype), grad.new_empty(grad.shape[0], dtype=dtype)


def _fake_grad(go: Tensor, grad: Tensor, *_: Any) -> Tensor:
    return empty_rows_like(grad)


def _fake_fused(grad: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return grad.new_empty((), dtype=_reduced(grad)), empty_rows_like(grad)


def _fake_grad2(v: Tensor, go: Tensor, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(go), empty_rows_like(grad)


def _autograd(impl: str, grad: Tensor, *numbers: Any) -> tuple[Tensor, Tensor]:
    value, norms = Penalty.apply(grad, Spec(impl, *numbers))
    return value, norms


def _autograd_grad(impl: str, go: Tensor, grad: Tensor, norms: Tensor, *numbers: Any) -> Tensor:
    u: Tensor = PenaltyGrad.apply(go, grad, norms, Spec(impl, *numbers))
    return u


def _autograd_fused(
    impl: str, grad: Tensor, center: float, one_sided: bool, scale: float
) -> tuple[Tensor, Tensor]:
    value, dgrad = PenaltyFused.apply(grad, Spec(impl, center, one_sided), scale)
    return value, dgrad


def _autograd_grad2(
    impl: str, v: Tensor, go: Tensor, grad: Tensor, norms: Tensor, *numbers: Any
) -> tuple[Tensor, Tensor]:
    d_go, d_grad = PenaltyGrad2.apply(v, go, grad, norms, Spec(impl, *numbers))
    return d_go, d_grad


register(
    "gradient_penalty",
    "(Tensor grad, float center, bool one_sided) -> (Tensor value, Tensor norms)",
    fake=_fake,
    autograd=_autograd,
    triton=deferred(__package__, "gradient_penalty"),
)
register(
    "gradient_penalty_grad",
    "(Tensor go, Tensor grad, Tensor norms, float center, bool one_sided) -> Tensor",
    fake=_fake_grad,
    autograd=_autograd_grad,
    triton=deferred(__package__, "gradient_penalty_grad"),
)
register(
    "gradient_penalty_fused",
    "(Tensor grad, float center, bool one_sided, float scale) -> (Tensor value, Tensor dgrad)",
    fake=_fake_fused,
    autograd=_autograd_fused,
    triton=deferred(__package__, "gradient_penalty_fused"),
)
register(
    "gradient_penalty_grad2",
    "(Tensor v, Tensor go, Tensor grad, Tensor norms, float center, bool one_sided)"
    " -> (Tensor d_go, Tensor d_grad)",
    fake=_fake_grad2,
    autograd=_autograd_grad2,
    triton=deferred(__package__, "gradient_penalty_grad2"),
)
