"""Spectral normalisation of many weights in one step.

What stock PyTorch does per layer in 13 forward operations and three products with W, one native
call does for all layers: a step of the iteration reads W once, since |W v| is a number that may be
divided by later, and the division reads it again. The gradient is its closed form, one call too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ... import _dispatch
from .._arguments import number, shown, whole
from . import reference
from .autograd import Spec, SpectralNorm

__all__ = ["spectral_norm_weights"]

_PLAIN = {Tensor, Parameter}


def spectral_norm_weights(
    weights: Sequence[Tensor],
    us: Sequence[Tensor],
    vs: Sequence[Tensor],
    *,
    n_iterations: int = 1,
    eps: float = 1e-12,
    dim: int = 0,
) -> list[Tensor]:
    r"""Every W / sigma(W), sigma by power iteration from the vectors of the step before.

    With W as a matrix (dim first, the others flattened), n_iterations times

    .. math:: u \leftarrow W v / \max(|W v|, \epsilon), \quad
              v \leftarrow W^\top u / \max(|W^\top u|, \epsilon)

    and then :math:`\sigma = u^\top W v`. Equivalent, layer by layer, to
    ``torch.nn.utils.parametrizations.spectral_norm``, to rounding.

    Args:
        weights: tensors of two or more dimensions; any shapes, devices and floating dtypes. Half
            types are multiplied in float32.
        us, vs: unit vectors of shape (rows,) and (columns,), of the weight's dtype and device.
            Updated in place if n_iterations > 0.
        n_iterations: 1 in training, 0 in evaluation.
        eps: lower limit of the norms divided by.
        dim: the dimension of outputs: 0, and 1 for transposed convolutions.

    Returns:
        W / sigma for every weight, with its shape, dtype and strides.

    Derivatives: with respect to weights, of any order, in reverse and forward mode (one level of
    it) and under torch.func; u and v are constants, sigma is not:
    :math:`\partial L / \partial W = (G - \langle G, W/\sigma \rangle u v^\top) / \sigma`.
    Memory kept for backward: W / sigma, u and v. The weights of one call (of a device and dtype)
    are one node of the graph: a second backward through it, also for other weights, needs
    ``retain_graph=True`` in the first.

    Raises:
        ValueError: lists of different lengths, a weight of fewer than two dimensions, vectors of
            other shapes than its rows and columns or on another device, negative n_iterations, an
            eps that is negative or not finite.
        TypeError: a weight or a vector is not a floating tensor, n_iterations or dim no integer,
            eps no number.

    Source: Miyato et al. 2018, arXiv 1802.05957; the order of the iteration is torch's.

    Example:
        >>> w, u, v = torch.diag(torch.tensor([3.0, 2.0])), torch.ones(2), torch.tensor([0.8, 0.6])
        >>> (y,) = spectral_norm_weights([w], [u], [v], n_iterations=20)
        >>> y
        tensor([[1.0000, 0.0000],
                [0.0000, 0.6667]])
    """
    eps = _check(weights, us, vs, n_iterations, eps, dim)
    settings: Any = (n_iterations, eps, dim)
    found: list[Any] = [None] * len(weights)
    for impl, members in _groups(weights, us, vs).items():
        lists = [[each[i] for i in members] for each in (weights, us, vs)]
        if impl[0] == "reference":
            each: Any = zip(*lists)
            ys = [reference.normalised(*layer, *settings)[0] for layer in each]
        else:
            spec = Spec(impl[0], n_iterations, eps, dim, in_place=True)
            ys = SpectralNorm.apply(spec, *lists[0], *lists[1], *lists[2])
        for i, y in zip(members, ys):
            found[i] = y
    return found


def _groups(
    weights: Sequence[Tensor], us: Sequence[Tensor], vs: Sequence[Tensor]
) -> dict[tuple[str, torch.device, torch.dtype], list[int]]:
    """Which weights share a call: those of one implementation, device and dtype."""
    groups: dict[Any, list[int]] = {}
    chosen: dict[Any, str] = {}
    compiling = torch.compiler.is_compiling()  # which fuses plain operations itself
    for i, each in enumerate(zip(weights, us, vs)):
        where = (each[0].device, each[0].dtype)
        if where not in chosen:
            chosen[where] = _dispatch.choose("spectral_norm", "auto", *where)
        # Subclasses have rules of their own.
        plain = compiling or not _PLAIN.issuperset(map(type, each))
        groups.setdefault(("reference" if plain else chosen[where], *where), []).append(i)
    return groups


def _check(
    weights: Sequence[Tensor],
    us: Sequence[Tensor],
    vs: Sequence[Tensor],
    n_iterations: int,
    eps: float,
    dim: int,
) -> float:
    """eps as a float."""
    op = "spectral_norm_weights"
    for name, each in (("weights", weights), ("us", us), ("vs", vs)):
        if not hasattr(each, "__len__"):
            raise TypeError(f"{op}: expected {name} as a list of tensors, got {shown(each)}")
    if not len(weights) == len(us) == len(vs):
        raise ValueError(
            f"spectral_norm_weights: expected as many us and vs as weights, got {len(weights)} "
            f"weights, {len(us)} us and {len(vs)} vs"
        )
    whole(op, "n_iterations", n_iterations, 0)
    whole(op, "dim", dim)
    for w, u, v in zip(weights, us, vs):
        if not isinstance(w, Tensor) or not w.is_floating_point():
            got = w.dtype if isinstance(w, Tensor) else type(w).__name__
            raise TypeError(f"spectral_norm_weights: expected float tensors, got {got}")
        if w.dim() < 2 or not -w.dim() <= dim < w.dim():
            raise ValueError(
                f"spectral_norm_weights: expected weights of two or more dimensions, {dim} among "
                f"them, got {tuple(w.shape)}"
            )
        if not (isinstance(u, Tensor) and isinstance(v, Tensor)):
            raise TypeError(
                f"spectral_norm_weights: expected u and v as tensors, got {shown(u)} and {shown(v)}"
            )
        rows = w.shape[dim]
        columns = w.numel() // rows if rows else 0
        if u.shape != (rows,) or v.shape != (columns,):
            raise ValueError(
                f"spectral_norm_weights: expected u of shape ({rows},) and v of ({columns},) for "
                f"a weight {tuple(w.shape)}, got {tuple(u.shape)} and {tuple(v.shape)}"
            )
        if not (u.device == v.device == w.device):
            raise ValueError(
                f"spectral_norm_weights: expected u and v on {w.device} as the weight is, got "
                f"{u.device} and {v.device}"
            )
        if not (u.is_floating_point() and v.is_floating_point()):
            raise TypeError(
                f"spectral_norm_weights: expected float vectors, got {u.dtype} and {v.dtype}"
            )
    return number(op, "eps", eps, 0.0)
