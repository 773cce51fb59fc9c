"""The gradient penalty's reduction: from an input gradient to one number, or its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _dispatch
from .._arguments import number, switch
from .._autograd import differentiable
from . import reference
from .autograd import Penalty, PenaltyFused, Spec
from .critic import Critic

__all__ = ["penalty_and_gradient", "penalty_from_gradient"]


def penalty_from_gradient(
    grad: Tensor, *, center: float = 1.0, one_sided: bool = False, impl: str = "auto"
) -> Tensor:
    r"""The gradient penalty's reduction: from an input gradient to one number.

    Equivalent to::

        (grad.flatten(1).norm(2, dim=1) - center).square().mean()

    .. math:: \frac1B \sum_b \phi(\|g_b\|_2), \qquad \phi(n) = (n - c)^2
              \text{ or } \max(0, n - c)^2

    The norm of a sample runs over all dimensions but the first.

    Args:
        grad: (B, ...) with B >= 1, any memory format. float64, float32, bfloat16, float16.
        center: c >= 0; 1 for WGAN-GP, 0 for a zero-centred penalty.
        one_sided: penalise only norms above the centre.
        impl: "auto", "reference", "native" or "triton".

    Returns:
        A scalar, float64 for float64 input, else float32: squares are summed in float32 blocks and
        float64 totals on the CPU, in float32 by Triton.

    Derivatives: of order 1 and 2, in reverse and forward mode and under torch.func; order 3 raises
    (impl="reference": any order), and so does forward mode inside forward mode, in which PyTorch
    would lose tangents. A sample with zero gradient has value center^2 and derivative 0, never NaN;
    a tiny one, whose squares underflow, has the right derivatives: finite at order 1, and at
    order 2, where they grow as center / norm, as long as they fit the dtype.
    Extra memory: B norms. The same input gives the same bits, for any thread count.

    Raises:
        ValueError: no sample, no batch dimension, or a centre that is negative or not finite.
        TypeError: grad is not a floating tensor. RuntimeError: impl cannot serve.

    Source: Gulrajani et al. 2017, arXiv 1704.00028, equation 3; card wgan_gp.

    Example:
        >>> penalty_from_gradient(torch.tensor([[3.0, 4.0], [0.6, 0.8]]))
        tensor(8.)
    """
    _check_gradient("penalty_from_gradient", grad, center, one_sided)
    center, one_sided = float(center), bool(one_sided)
    impl = _dispatch.choose("gradient_penalty", impl, grad.device, grad.dtype)
    if impl == "reference":
        return reference.penalty_from_gradient(grad, center, one_sided)
    if torch.compiler.is_compiling():
        value: Tensor = differentiable("gradient_penalty", impl)(grad, center, one_sided)[0]
        return value
    return Penalty.apply(grad, Spec(impl, center, one_sided))[0]  # type: ignore[no-any-return]


def penalty_and_gradient(
    grad: Tensor,
    *,
    center: float = 1.0,
    one_sided: bool = False,
    scale: float = 1.0,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    r"""The penalty and scale * dP/dgrad, in one pass over memory.

    Equivalent to ``P = penalty_from_gradient(grad); (scale * P).backward()``, for engines and
    hand-written steps that know the penalty's weight beforehand: one read and one write of `grad`'s
    size, where autograd, which learns the weight last, must read `grad` twice.

    .. math:: \left(\frac1B \sum_b \phi(n_b),\;
              \frac{s}{B} \frac{\phi'(n_b)}{n_b} g_b\right), \qquad n_b = \|g_b\|_2

    Args:
        grad: (B, ...), as in `penalty_from_gradient`; not part of a graph.
        center, one_sided, impl: as there.
        scale: s, the weight of the penalty in the loss.

    Returns:
        (value, gradient): a scalar, and a tensor of grad's shape, dtype and (dense) strides.

    Derivatives: none. Extra memory: none beyond the result, but for the reference's copies.

    Raises:
        ValueError: as `penalty_from_gradient`; or `grad` requires a gradient, which would be lost.
        TypeError: grad is not a floating tensor. RuntimeError: impl cannot serve.

    Source: Gulrajani et al. 2017, arXiv 1704.00028, equation 3; card wgan_gp.

    Example:
        >>> value, gradient = penalty_and_gradient(torch.tensor([[3.0, 4.0]]))
        >>> value, gradient
        (tensor(16.), tensor([[4.8000, 6.4000]]))
    """
    _check_gradient("penalty_and_gradient", grad, center, one_sided)
    if grad.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "penalty_and_gradient has no derivative, and grad requires one: use "
            "penalty_from_gradient, or pass grad.detach()"
        )
    scale = number("penalty_and_gradient", "scale", scale)
    center, one_sided = float(center), bool(one_sided)
    impl = _dispatch.choose("gradient_penalty", impl, grad.device, grad.dtype)
    with torch.no_grad():
        if impl == "reference":
            return reference.penalty_and_gradient(grad, center, one_sided, scale)
        if torch.compiler.is_compiling():
            run = differentiable("gradient_penalty_fused", impl)
            value, gradient = run(grad, center, one_sided, scale)
        else:
            value, gradient = PenaltyFused.apply(grad, Spec(impl, center, one_sided), scale)
    return value, gradient


def reduced(critic: Critic, grad: Tensor, *, center: float, one_sided: bool) -> Tensor:
    """The penalty of one critic, or (K,), each of a bank's discriminators' own mean."""
    if not critic.per_discriminator:
        return penalty_from_gradient(grad, center=center, one_sided=one_sided)
    _check_gradient(critic.name, grad, center, one_sided)
    rows = reference.by_sample(grad.flatten(0, 1), float(center), bool(one_sided))
    return rows.unflatten(0, grad.shape[:2]).mean(1)


def _check_gradient(op: str, grad: Tensor, center: float, one_sided: bool) -> None:
    if not isinstance(grad, Tensor) or grad.dtype not in _dispatch.FLOATING:
        got = grad.dtype if isinstance(grad, Tensor) else type(grad).__name__
        raise TypeError(f"{op}: expected grad as a float tensor, got {got}")
    if grad.dim() == 0 or grad.shape[0] == 0:
        raise ValueError(
            f"{op}: expected grad of shape (B, ...) with B >= 1, got {tuple(grad.shape)}"
        )
    if grad.layout != torch.strided:
        raise TypeError(f"{op}: expected a dense grad, got layout {grad.layout}")
    number(op, "center", center, 0.0)
    switch(op, "one_sided", one_sided)
