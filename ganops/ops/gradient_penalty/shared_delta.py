"""A loss and R1 on one batch, by one backward."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._arguments import number, shown
from .._autograd import quick
from .._input_pass import InputPass
from .._twins import Like, times_rows
from .chain import chained
from .critic import Critic, hooks_are_free, leaf
from .path import Path, refuse_further_orders
from .reduction import penalty_from_gradient

__all__ = ["loss_and_r1"]


def loss_and_r1(
    critic: Callable[..., Any],
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    gamma: float,
    output: Callable[[Any], Tensor] | None = None,
    critic_args: tuple[Any, ...] = (),
    critic_kwargs: dict[str, Any] | None = None,
    engine: str = "auto",
) -> Tensor:
    r"""loss(D(x)) + gamma R1(x), where R1 costs a third of what a penalty of its own costs.

    Equivalent to::

        scores = critic(x)
        (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
        loss(scores) + gamma * grad.flatten(1).square().sum(1).mean() / 2

    Where D is piecewise linear and gives each sample one score of its own, the backward of the loss
    is the backward delta of the sum of the scores, times a number per sample, and R1 runs that one
    anyway. With c = d loss / d scores, a a layer's input and u the tangent that R1 sends forward,

    .. math:: dW = \sum_n \delta_n \otimes (c_n a_n + u_n), \qquad db = \sum_n c_n \delta_n

    so that both together cost four forwards of D (forward, backward to x, tangent, weight
    gradient), where a loss alone costs three and stock PyTorch takes seven for the two.

    Args:
        critic, output, critic_args, critic_kwargs: as in `gradient_penalty`. Called once.
        x: (B, ...) float images, B >= 1. Detached: neither term sends a gradient to it.
        loss: from the scores to a scalar; any differentiable function, which may have parameters
            of its own and may mix samples.
        gamma: weight of R1, which has the factor 1/2 (see `r1_penalty`); a number >= 0, no tensor.
        engine: "shared" is the above, and raises where it does not hold: critics with smooth
            activations, norms, more than one score a sample, operations that mix samples (batch
            statistics), float16, or hooks on tensors (hooks on ``grad_fn`` nodes cannot be seen,
            and see another gradient or none). Parameters may stand in convolutions, linear layers,
            prelu and `ops.bias_act`, and may be added, multiplied, compared or joined to features,
            with or without an embedding: anywhere else they are refused as well.
            "autograd" leaves everything to PyTorch. "auto" is "shared" where that serves;
            elsewhere it warns, once for each reason, and runs the twins of `gradient_penalty` on
            the same forward. Same numbers from all three.

    Returns:
        A scalar with a graph to the parameters of the critic and of `loss`. It may be scaled, added
        to other losses and differentiated more than once (retain_graph).

    Derivatives: of order 1; order 2 by "autograd" alone, "shared" refuses it. Extra memory: the
    backward to x is kept, as in any penalty; of a parameter outside layers one gradient a sample.

    Raises:
        ValueError, TypeError: as `gradient_penalty`; gamma is no number, negative or not finite;
            `loss` is no function or returns no scalar tensor.
        RuntimeError: engine="shared" and a critic that it cannot serve, with the reason. Otherwise
            as `gradient_penalty`.

    Source: Mescheder et al. 2018, arXiv 1801.04406; card gradient_penalties_r1_r2. The form with
    one backward is this library's.

    Example:
        >>> critic = torch.nn.Linear(2, 1, bias=False)
        >>> _ = critic.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
        >>> loss_and_r1(critic, torch.ones(8, 2), lambda s: -s.mean(), gamma=2.0).item()
        18.0
    """
    called = Critic("loss_and_r1", critic, output, critic_args, critic_kwargs, engine,
                    ("auto", "autograd", "shared"))  # fmt: skip
    gamma = number("loss_and_r1", "gamma", gamma, 0.0)
    if not callable(loss):
        raise TypeError(f"loss_and_r1: expected loss as a function, got {shown(loss)}")
    scores, grad = _scores_and_gradient(called, leaf("loss_and_r1", "x", x))
    value = loss(scores)
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss_and_r1: expected loss to return a scalar tensor, got {got}")
    return value.reshape(()) + gamma / 2 * penalty_from_gradient(grad, center=0.0)


def _scores_and_gradient(called: Critic, x: Tensor) -> tuple[Tensor, Tensor]:
    """D(x) and d(sum D)/dx, joined where one backward does for both."""
    if torch.compiler.is_compiling():
        if called.engine == "shared":
            raise called.refusal("it does not run inside torch.compile")

        def total(t: Tensor) -> tuple[Tensor, Tensor]:
            scores = called.scores(t)
            return scores.sum(), scores

        grad, scores = torch.func.grad(total, has_aux=True)(x)
        return scores, grad
    free = hooks_are_free()
    scores, only_x = called.forward(x, "shared" if called.engine != "autograd" else None)
    if called.engine == "autograd":
        return scores, called.gradient(scores, only_x)
    path = Path(scores, x)
    spread = path.entered(only_x.spread)
    only_x.spread.clear()  # views of graphs that may know this pass: no cycle must stay
    why = _why_not(path, only_x) if free else "saved-tensor hooks are active around it"
    if why is None and (chain := chained(path, only_x)) is not None:
        return chain
    if why is None:
        with path.measured():
            grad, *deltas = called.gradients(scores, only_x, *spread.values())
        why = path.why_coupled(spread)
    else:
        grad = None
    if why is not None:
        if called.engine == "shared":
            raise called.refusal(why)
        _warn_once(why)
        return scores, called.gradient(scores, only_x) if grad is None else grad
    grad, scores = Joint.apply(grad, scores.detach(), only_x, deltas, *spread.values())
    return scores, grad


def _why_not(path: Path, only_x: InputPass) -> str | None:
    batch, shape = path.x.shape[0], tuple(path.scores.shape)
    if path.scores.numel() != batch:
        return f"its scores have shape {shape}, more than one number a sample"
    if only_x.hooked:
        return "it registers hooks on tensors, which would see other gradients"
    return path.why_not_linear()


@cache
def _warn_once(why: str) -> None:
    warnings.warn(
        f"loss_and_r1: loss and R1 cannot share one backward ({why}), which costs up to half as "
        "much time again; engine='autograd' says that this is meant",
        stacklevel=4,
    )


@quick
class Joint(Function):
    """(grad, scores) as they are. Whoever uses either is served by grad's graph alone.

    In backward the scores' derivative is told to the layers (`SharedInput`) and to activations with
    parameters (`Share`), which all come after this node, and sent to the parameters that were
    spread over the samples, along their deltas; the graph that made the scores is not entered.
    """

    @staticmethod
    def forward(
        grad: Tensor, scores: Tensor, only_x: InputPass, deltas: list[Tensor | None],
        *spread: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        return grad.view_as(grad), scores.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        grad, _, ctx.only_x, deltas, *_ = inputs
        ctx.like = Like.of(grad)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*(None if d is None else d.detach() for d in deltas))

    @staticmethod
    def backward(ctx: Any, d_grad: Tensor | None, d_scores: Tensor | None) -> tuple[Any, ...]:
        refuse_further_orders()
        c = ctx.only_x.score_weights = None if d_scores is None else d_scores.flatten()
        d_grad = ctx.like.empty().zero_() if d_grad is None else d_grad
        deltas = ctx.saved_tensors
        parts = [None if c is None or d is None else times_rows(d, c) for d in deltas]
        return d_grad, None, None, None, *parts
