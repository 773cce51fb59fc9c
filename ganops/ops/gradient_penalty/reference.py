"""The gradient penalty's reduction in plain PyTorch, differentiable to any order."""

from __future__ import annotations

import torch
from torch import Tensor

# |g|_1 of samples whose squares may underflow, and the exponent of the largest scale for them.
_SMALL = {torch.float32: (2.0**-50, 100), torch.float64: (2.0**-400, 800)}


def penalty_from_gradient(grad: Tensor, center: float, one_sided: bool) -> Tensor:
    """mean over samples of (|grad_b|_2 - center)^2. grad: (B, ...) -> scalar.

    A sample whose gradient is exactly zero has no direction to move in: its penalty is center^2
    and its derivative of every order 0 (center = 0: the smooth |g|^2, derivatives as usual).
    """
    return by_sample(grad, center, one_sided).mean()


def by_sample(grad: Tensor, center: float, one_sided: bool) -> Tensor:
    """(B,), what the mean is taken of."""
    g = _rows(grad)
    if center == 0:
        return g.square().sum(1)
    return _distance(*_norms(g)[:2], center, one_sided).square()


def penalty_and_gradient(
    grad: Tensor, center: float, one_sided: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """The penalty and scale * dP/dgrad, by formula: torch.compile has no nested autograd.grad."""
    g = _rows(grad)
    weight = scale / len(g)
    if center == 0:
        value, gradient = g.square().sum(1).mean(), 2 * weight * g
    else:
        scaled_norms, s, scaled = _norms(g)
        distance = _distance(scaled_norms, s, center, one_sided)
        # distance is not 0 at a zero row, but scaled is
        slope = 2 * weight * distance / torch.where(scaled_norms == 0, 1.0, scaled_norms)
        value, gradient = distance.square().mean(), slope.unsqueeze(1) * scaled
    return value, torch.empty_like(grad).copy_(gradient.reshape(grad.shape))


def _rows(grad: Tensor) -> Tensor:
    g = grad.flatten(1) if grad.dim() > 1 else grad.unsqueeze(1)
    return g if g.dtype == torch.float64 else g.float()


def _norms(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(|s g_b|, s, s g_b): s is 1, or for small samples a power of two that brings |s g_b| to 1."""
    below, most = _SMALL[g.dtype]
    size = g.detach().abs().sum(1)
    power = torch.exp2(size.log2().floor().neg().clamp(max=most))
    s = torch.where((size < below) & (size > 0), power, torch.ones_like(size))
    scaled = g * s.unsqueeze(1)
    squares = scaled.square().sum(1)
    zero = squares == 0
    # The square root must not see the zero that is masked: its derivative there is infinite.
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt()), s, scaled


def _distance(scaled_norms: Tensor, s: Tensor, center: float, one_sided: bool) -> Tensor:
    distance = scaled_norms / s - center
    return torch.where(distance <= 0, 0.0, distance) if one_sided else distance  # keeps NaN
