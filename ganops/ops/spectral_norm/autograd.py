"""Derivatives of the compiled normalisation, all layers in one node of the graph.

    order 0   Y, u, v, sigma   one kernel; u and v are constants, sigma is not
    order 1   dW = (G - <G, Y> u v^T) / sigma   one kernel
    further   composed, in reference.py: every order follows

Y and sigma are both outputs, so that order 1, which reads both, is itself differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._autograd import kernel, plainly_batched, quick, register
from .._triton import deferred
from .._twins import one_forward_level
from . import reference


@dataclass(frozen=True)
class Spec:
    """What is not a tensor (one leaf to pytrees, which torch.func needs)."""

    impl: str
    n_iterations: int
    eps: float
    dim: int
    in_place: bool = False  # u and v given become those after the iterations


Tensors = Sequence[Tensor]


def split(tensors: Sequence[Any], parts: int) -> list[list[Any]]:
    """`parts` lists of equal length, as they were joined."""
    n = len(tensors) // parts
    return [list(tensors[i * n : (i + 1) * n]) for i in range(parts)]


@quick
class SpectralNorm(Function):
    """(*ys, *us, *vs, sigmas) from (spec, *ws, *us, *vs)."""

    @staticmethod
    def forward(spec: Spec, *tensors: Tensor) -> tuple[Tensor, ...]:
        ws, us, vs = split(tensors, 3)
        wide = reference.reduced(ws[0])
        given = ([t if t.dtype == wide else t.to(wide) for t in each] for each in (us, vs))
        ys, new_us, new_vs, sigmas = kernel("spectral_norm", spec.impl)(
            ws, *given, spec.n_iterations, spec.eps, spec.dim
        )
        if spec.in_place and spec.n_iterations:
            torch._foreach_copy_([*us, *vs], [*new_us, *new_vs])
        return (*ys, *new_us, *new_vs, sigmas)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.spec = inputs[0]
        _, us, vs = split(output[:-1], 3)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*us, *vs)
        ctx.save_for_backward(*output)
        ctx.save_for_forward(*output)

    @staticmethod
    def backward(ctx: Any, *into: Tensor | None) -> tuple[Any, ...]:
        dim = ctx.spec.dim
        *saved, sigmas = ctx.saved_tensors
        layers: list[Any] = list(zip(*split(saved, 3)))
        gs, g_sigmas = into[: len(layers)], into[-1]
        found: list[Tensor | None] = [None] * len(layers)
        asked = [i for i, g in enumerate(gs) if g is not None and ctx.needs_input_grad[1 + i]]
        if asked:
            some = torch.stack([sigmas[i] for i in asked]) if len(asked) < len(layers) else sigmas
            ys, us, vs = ([layers[i][k] for i in asked] for k in range(3))
            ds = SpectralNormGrad.apply(ctx.spec, some, *(gs[i] for i in asked), *ys, *us, *vs)
            for i, d in zip(asked, ds):
                found[i] = d
        if g_sigmas is not None:
            for i, (y, u, v) in enumerate(layers):
                if ctx.needs_input_grad[1 + i]:
                    with reference.full_precision(y.device):
                        through = torch.outer(g_sigmas[i] * u, v)
                    through = reference.unmatrix(through, y, dim).to(y.dtype)
                    d = found[i]
                    found[i] = through if d is None else d + through
        return (None, *found, *[None] * (2 * len(layers)))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        one_forward_level("spectral_norm")
        *saved, sigmas = ctx.saved_tensors
        layers: list[Any] = list(zip(*split(saved, 3)))
        along = [_tangent(t, y, u, v, sigmas[i], ctx.spec.dim)
                 for i, (t, (y, u, v)) in enumerate(zip(tangents, layers))]  # fmt: skip
        none = [None] * (2 * len(layers))
        return (*(y for y, _ in along), *none, torch.stack([s for _, s in along]))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], spec: Spec, *tensors: Tensor) -> tuple[Any, Any]:
        def plain(*tensors: Tensor) -> tuple[Tensor, ...]:
            settings: Any = (spec.n_iterations, spec.eps, spec.dim)
            layers: Any = zip(*split(tensors, 3))
            if not spec.in_place:
                layers = ((w, u.clone(), v.clone()) for w, u, v in layers)
            ys, us, vs, sigmas = zip(*(reference.normalised(*t, *settings) for t in layers))
            return (*ys, *us, *vs, torch.stack(sigmas))

        return _mapped(plain, info, in_dims[1:], tensors)


def _tangent(
    w_t: Tensor | None, y: Tensor, u: Tensor, v: Tensor, sigma: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    """Of Y and of sigma."""
    if w_t is None:
        return torch.zeros_like(y), torch.zeros_like(sigma)
    with reference.full_precision(y.device):
        wide = w_t.to(u.dtype)
        sigma_t = torch.dot(u, torch.mv(reference.matrix(wide, dim), v))
        return ((wide - sigma_t * y.to(u.dtype)) / sigma).to(y.dtype), sigma_t


@quick
class SpectralNormGrad(Function):
    """Every dW from (spec, sigmas, *gs, *ys, *us, *vs)."""

    @staticmethod
    def forward(spec: Spec, sigmas: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(kernel("spectral_norm_grad", spec.impl)(*split(tensors, 4), sigmas, spec.dim))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.spec = inputs[0]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *into: Tensor | None) -> tuple[Any, ...]:
        sigmas, *tensors = ctx.saved_tensors
        layers: list[Any] = list(zip(*split(tensors, 4)))
        none = [None] * len(layers)
        gs, ys = list[Any](none), list[Any](none)
        d_sigmas = [torch.zeros_like(sigmas[0])] * len(layers)
        for i, (v, (g, y, left, right)) in enumerate(zip(into, layers)):
            if v is not None:
                gs[i], ys[i], d_sigmas[i] = reference.grad_backward(
                    v, g, y, left, right, sigmas[i], ctx.spec.dim
                )
        return (None, torch.stack(d_sigmas), *gs, *ys, *none, *none)

    @staticmethod
    def jvp(
        ctx: Any, _: None, sigmas_t: Tensor | None, *tangents: Tensor | None
    ) -> tuple[Tensor, ...]:
        one_forward_level("spectral_norm")
        sigmas, *tensors = ctx.saved_tensors
        dim = ctx.spec.dim
        found = []
        for i, ((g, y, u, v), (g_t, y_t, _, _)) in enumerate(
            zip(zip(*split(tensors, 4)), zip(*split(tangents, 4)))
        ):
            wide = u.dtype
            sigma_t = 0 if sigmas_t is None else sigmas_t[i]
            g_t, y_t = (torch.zeros_like(y) if t is None else t for t in (g_t, y_t))
            direction = reference.unmatrix(torch.outer(u, v), y, dim)
            g, y, g_t, y_t = (t.to(wide) for t in (g, y, g_t, y_t))
            d = (g - (g * y).sum() * direction) / sigmas[i]
            along = (g_t * y).sum() + (g * y_t).sum()
            found.append(((g_t - along * direction - sigma_t * d) / sigmas[i]).to(tensors[0].dtype))
        return tuple(found)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], spec: Spec, *tensors: Tensor) -> tuple[Any, Any]:
        def plain(sigmas: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            gs, ys, us, vs = split(tensors, 4)
            return tuple(_grads(gs, ys, us, vs, sigmas, spec.dim))

        return _mapped(plain, info, in_dims[1:], tensors)


def _mapped(
    plain: Callable[..., tuple[Tensor, ...]], info: Any, in_dims: Any, tensors: Tensors
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Under vmap layers are no longer matrices: plain PyTorch, whose operations have its rules."""
    out = torch.func.vmap(plain, in_dims=in_dims, randomness=info.randomness)(*tensors)
    return out, (0,) * len(out)


def _grads(
    gs: Tensors, ys: Tensors, us: Tensors, vs: Tensors, sigmas: Tensor, dim: int
) -> list[Tensor]:
    """The kernel's results in plain PyTorch."""
    return [reference.grad(g, y, u, v, sigmas[i], dim)
            for i, (g, y, u, v) in enumerate(zip(gs, ys, us, vs))]  # fmt: skip


def _fake(ws: Tensors, us: Tensors, vs: Tensors, *_: Any) -> tuple[Any, ...]:
    wide = reference.reduced(ws[0])
    vectors = ([torch.empty_like(t, memory_format=torch.contiguous_format) for t in each]
               for each in (us, vs))  # fmt: skip
    return ([torch.empty_like(w) for w in ws], *vectors, ws[0].new_empty(len(ws), dtype=wide))


def _fake_grad(gs: Tensors, ys: Tensors, *_: Any) -> list[Tensor]:
    return [torch.empty_like(y) for y in ys]


def _autograd(
    impl: str, ws: Tensors, us: Tensors, vs: Tensors, n_iterations: int, eps: float, dim: int
) -> tuple[Any, ...]:
    spec = Spec(impl, n_iterations, eps, dim)
    out = SpectralNorm.apply(spec, *ws, *us, *vs)
    return (*split(out[:-1], 3), out[-1])


def _autograd_grad(
    impl: str, gs: Tensors, ys: Tensors, us: Tensors, vs: Tensors, sigmas: Tensor, dim: int
) -> list[Tensor]:
    return list(SpectralNormGrad.apply(Spec(impl, 0, 0.0, dim), sigmas, *gs, *ys, *us, *vs))


register(
    "spectral_norm",
    "(Tensor[] ws, Tensor[] us, Tensor[] vs, int n_iterations, float eps, int dim)"
    " -> (Tensor[] ys, Tensor[] new_us, Tensor[] new_vs, Tensor sigmas)",
    fake=_fake,
    autograd=_autograd,
    triton=deferred(__package__, "spectral_norm"),
)
register(
    "spectral_norm_grad",
    "(Tensor[] gs, Tensor[] ys, Tensor[] us, Tensor[] vs, Tensor sigmas, int dim) -> Tensor[]",
    fake=_fake_grad,
    autograd=_autograd_grad,
    triton=deferred(__package__, "spectral_norm_grad"),
)
# is_grads_batched=True runs the backward on batched gradients, past every Function's vmap.
plainly_batched("spectral_norm_grad", _grads)
