"""bias_act in plain PyTorch, differentiable to any order: the definition of correct."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Klambauer et al. 2017, "Self-normalizing neural networks".
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934, 1.6732632423543772848


def activation(t: Tensor, act: str, alpha: float) -> Tensor:
    """f(t), with the derivative from the left at a kink."""
    if act == "linear":
        return t
    if act == "relu":
        return torch.where(t > 0, t, torch.where(t <= 0, 0.0, t))  # keeps NaN
    if act == "lrelu":
        return torch.where(t > 0, t, alpha * t)
    if act == "tanh":
        return torch.tanh(t)
    if act == "sigmoid":
        return torch.sigmoid(t)
    if act in ("elu", "selu"):
        # The branch not taken must not overflow: where() multiplies its gradient by zero.
        negative = torch.where(t > 0, torch.zeros_like(t), t)
        y = torch.where(t > 0, t, torch.expm1(negative) * (SELU_ALPHA if act == "selu" else 1.0))
        return SELU_SCALE * y if act == "selu" else y
    if act == "softplus":
        return F.softplus(t, threshold=40.0)
    if act == "swish":
        return t * torch.sigmoid(t)
    raise ValueError(f"bias_act: unknown activation {act!r}")


def bias_act(
    x: Tensor,  # any shape
    b: Tensor | None,  # (x.shape[dim],)
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float,  # negative: off
) -> Tensor:
    """clamp(gain * f(x + b)). Half types are computed in float32 and rounded once."""
    dtype = x.dtype
    t = x if dtype == torch.float64 else x.float()
    if b is not None:
        shape = [1] * x.dim()
        shape[dim] = -1
        t = t + b.to(t.dtype).reshape(shape)
    y = activation(t, act, alpha) * gain
    if clamp >= 0:
        # Not torch.clamp: its derivative is 1 where |y| = clamp, ours is 0.
        y = torch.where(y >= clamp, clamp, torch.where(y <= -clamp, -clamp, y))
    return y.to(dtype)
