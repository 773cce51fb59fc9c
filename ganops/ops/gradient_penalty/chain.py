"""A loss and R1 for a critic that is one chain of linear layers and activations.

What `Joint` and the nodes of the layers do, in one node: where a layer takes a millisecond, the
engine and a Python Function or two for each layer and order are a tenth of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._autograd import quick, transformed
from .._input_pass import InputPass
from .._twins import autocast_casts, sum_rows
from ..conv.autograd import plus_rows
from ..conv.spec import LinearSpec
from ..piecewise_linear.autograd import Spec
from .path import Path, node_kind, refuse_further_orders

__all__ = ["chained"]


@dataclass(frozen=True)
class Linear:
    """One layer, from its input a, (B, Cin)."""

    a: Tensor
    w: Tensor
    b: Tensor | None


@dataclass(frozen=True)
class Slope:
    """One activation, and what tells its slope."""

    spec: Spec
    ref: Tensor


def chained(path: Path, only_x: InputPass) -> tuple[Tensor, Tensor] | None:
    """(scores, d(sum of scores)/dx) as `Joint` returns them; None where the critic is no chain.

    path: of a critic that is piecewise linear, one score a sample.
    """
    x, scores = path.x, path.scores
    if transformed() or autocast_casts(x) or x.dtype == torch.float16:
        return None
    steps = _steps(path)
    if steps is None:
        return None
    with torch.no_grad():
        dy = torch.ones_like(scores)
        deltas = []
        for step in steps:
            if isinstance(step, Slope):
                dy = step.spec.slope(dy.reshape(step.ref.shape), step.ref)
            else:
                deltas.append(dy.reshape(len(x), -1))
                dy = deltas[-1] @ step.w
    given = [t for step in steps if isinstance(step, Linear) for t in (step.w, step.b)]
    grad, scores = Chain.apply(dy.reshape(x.shape), scores.detach(), steps, deltas, *given)
    only_x.over = True
    return scores, grad


def _steps(path: Path) -> list[Linear | Slope] | None:
    """From the scores to x. Each node has one input that leads there, its first."""
    node: Any = path.scores.grad_fn
    steps: list[Linear | Slope] = []
    while node is not None and node.next_functions:
        kind = node_kind(node)
        if kind == "conv" and isinstance(node.spec, LinearSpec):
            a, w, b = node.saved_tensors
            if a is None or a.shape != (len(path.x), w.shape[1]) or a.dtype != path.x.dtype:
                return None
            steps.append(Linear(a.detach(), w, b))
        elif kind in ("activation", "activation in place"):
            steps.append(Slope(node.spec, node.saved_tensors[0].detach()))
        elif kind != "reshape":
            return None
        node = node.next_functions[0][0]
    return steps if any(isinstance(step, Linear) for step in steps) else None


@quick
class Chain(Function):
    """(grad, scores) as they are; their derivatives go to the weights and biases in `given`.

    deltas: what the backward of the scores' sum brings to each linear layer. With v the derivative
    of grad, sent on from layer to layer, and c that of the scores: `SharedInput`'s formulas.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad: Tensor, scores: Tensor, steps: list[Any], deltas: list[Tensor],
        *given: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        return grad.view_as(grad), scores.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        _, _, steps, deltas, *given = inputs
        ctx.set_materialize_grads(False)
        ctx.specs = [step.spec if isinstance(step, Slope) else None for step in steps]
        kept = [step.ref if isinstance(step, Slope) else step.a for step in steps]
        ctx.save_for_backward(*kept, *deltas, *given[::2])

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, c: Tensor | None) -> tuple[Any, ...]:
        refuse_further_orders()
        last, linear = len(ctx.specs), LinearSpec()
        kept, rest = ctx.saved_tensors[:last], ctx.saved_tensors[last:]
        deltas, weights = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        c = None if c is None else c.flatten()
        grads: list[Tensor | None] = []  # from the layer next to x to the last
        k = len(weights)
        for spec, ref in zip(reversed(ctx.specs), reversed(kept)):
            if spec is not None:
                v = None if v is None else spec.slope(v.reshape(ref.shape), ref)
                continue
            k -= 1
            v = None if v is None else v.reshape(ref.shape)
            need_w, need_b = ctx.needs_input_grad[4 + 2 * k : 6 + 2 * k]
            operand = v if c is None or not need_w else plus_rows(v, c, ref)
            d_w = d_b = None
            if need_w and operand is not None:
                d_w = linear.backward(deltas[k], operand, operand, [False, True, False])[1]
            if need_b and c is not None:
                d_b = sum_rows(deltas[k], c)
            grads += [d_b, d_w]
            v = None if v is None or k == 0 else linear.forward(v, weights[k], None)
        return None, None, None, None, *reversed(grads)
