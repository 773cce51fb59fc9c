"""The gradient penalty's reduction in plain PyTorch, differentiable to any order."""

from __future__ import annotations

import torch
from torch import Tensor


def penalty_from_gradient(grad: Tensor, center: float, one_sided: bool) -> Tensor:
    """mean over samples of (|grad_b|_2 - center)^2. grad: (B, ...) -> scalar.

    A sample whose gradient is exactly zero has no direction to move in: its penalty is center^2
    and its derivative of every order 0 (center = 0: the smooth |g|^2, derivatives as usual).
    """
    g = grad.flatten(1) if grad.dim() > 1 else grad.unsqueeze(1)
    g = g if g.dtype == torch.float64 else g.float()
    squares = g.square().sum(1)
    if center == 0:
        return squares.mean()
    zero = squares == 0
    # The square root must not see the zero that is masked: its derivative there is infinite.
    norms = torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt())
    distance = norms - center
    if one_sided:
        distance = torch.where(distance > 0, distance, 0.0)
    return distance.square().mean()
