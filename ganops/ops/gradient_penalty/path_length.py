"""StyleGAN2's path-length penalty: the generator's Jacobian with respect to its latents."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._arguments import number
from ..philox import random_normal, seed_from
from .critic import Critic

__all__ = ["path_length_penalty"]


def path_length_penalty(
    generator: Callable[..., Any],
    w: Tensor,
    mean: Tensor,
    *,
    decay: float = 0.01,
    rng: torch.Generator | None = None,
    noise: Tensor | None = None,
    output: Callable[[Any], Tensor] | None = None,
    gen_args: tuple[Any, ...] = (),
    gen_kwargs: dict[str, Any] | None = None,
    engine: str = "auto",
) -> Tensor:
    r"""E (|J_w^T y| - a)^2: steps of one length in w shall move the image by one length a.

    Equivalent to::

        images = generator(w)
        y = torch.randn_like(images) / math.sqrt(images.shape[2:].numel())
        (g,) = torch.autograd.grad((images * y).sum(), w, create_graph=True)
        lengths = g.square().sum(2).mean(1).sqrt()
        a = mean.lerp(lengths.mean(), decay)
        mean.copy_(a.detach())
        return (lengths - a).square().mean()

    .. math:: \ell_b = \Big(\frac1L \sum_l \|g_{b,l}\|_2^2\Big)^{1/2}, \qquad
              g = \nabla_w \sum_b \langle G(w_b), y_b \rangle, \qquad
              a \leftarrow a + \delta \, (\textstyle\frac1B\sum_b \ell_b - a)

    As in the authors' code the penalty is taken against the updated a, whose last part carries a
    gradient, and `mean` keeps its value without one. The caller multiplies by the weight (2 in
    StyleGAN2, and by 4 more where the penalty joins every fourth step).

    The penalty's gradient goes to the generator and, where `w` is part of a graph, on to what made
    it: the mapping network, in StyleGAN2.

    Args:
        generator: the synthesis network, any callable on `w`; it must not couple samples.
        w: (B, L, d) latents, one for each of L layers, or (B, d); float, B >= 1.
        mean: a, a float32 or float64 scalar on w's device, 0 at the start; **updated in place**.
            Keep it with the generator, as a buffer. Processes do not share it.
        decay: delta in [0, 1].
        rng: draws the seed of y from Philox, as in `interpolate`.
        noise: y before the division, of the images' shape, instead of drawing it. Needed inside
            torch.compile and CUDA graphs, where a seed drawn once would be drawn for ever.
        output: picks the images, (B, C, ...), from what the generator returns.
        gen_args, gen_kwargs: passed on to the generator after w.
        engine: "auto" or "autograd", as in `gradient_penalty`.

    Returns:
        A float32 (float64) scalar with a graph. Lengths and a are computed in float32 at least.

    Derivatives: of every order that the generator has. A length of exactly zero (or whose square is
    zero in float32) has derivative 0, never NaN.

    Raises:
        ValueError: w, mean, noise or images of another shape, dtype or device than said; a mean
            that requires a gradient, or is float64 on the CPU inside torch.compile; a decay outside
            [0, 1]; an unknown engine; images that do not depend on w.
        TypeError: w, mean or the images are no float tensors.
        RuntimeError: a compiled or checkpointed generator, as in `gradient_penalty`.

    Source: Karras et al. 2020, arXiv 1912.04958, equation 4; card path_length.

    Example:
        >>> mean, w = torch.zeros(()), torch.zeros(8, 3)
        >>> path_length_penalty(lambda w: 2 * w[:, :, None], w, mean, noise=torch.ones(8, 3, 1))
        tensor(11.7612)
        >>> mean  # 0.01 of the length |2 y| = sqrt(12)
        tensor(0.0346)
    """
    _check(w, mean, decay, engine)

    def along_y(out: Any) -> Tensor:
        images = out if output is None else output(out)
        return images * _direction(images, w.shape[0], noise, rng)

    own = not w.requires_grad
    if not torch.compiler.is_compiling() and own:
        w = w.detach().requires_grad_()
    called = Critic("path_length_penalty", generator, along_y, gen_args, gen_kwargs, engine,
                    noun="generator", own_x=own)  # fmt: skip
    g = called.input_gradient(w)
    g = (g if g.dtype == torch.float64 else g.float()).reshape(w.shape[0], -1, w.shape[-1])
    squares = g.square().sum(2).mean(1)
    zero = squares == 0
    # The square root must not see the zero that is masked: its derivative there is infinite.
    lengths = torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt())
    a = mean.to(lengths.dtype).lerp(lengths.mean(), decay)
    mean.copy_(a.detach())
    return (lengths - a).square().mean()


def _direction(
    images: Any, batch: int, noise: Tensor | None, rng: torch.Generator | None
) -> Tensor:
    """y / sqrt(H W), with the images' shape and dtype."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(
            f"path_length_penalty: expected images as a float tensor, got {got}; "
            "pick one with output="
        )
    if images.dim() < 2 or images.shape[0] != batch:
        raise ValueError(
            f"path_length_penalty: expected images of shape ({batch}, C, ...), one for each w, "
            f"got {tuple(images.shape)}"
        )
    if noise is None:
        noise = random_normal(images.shape, seed=seed_from(rng), device=images.device)
    elif not isinstance(noise, Tensor) or noise.shape != images.shape:
        size = tuple(noise.shape) if isinstance(noise, Tensor) else type(noise).__name__
        raise ValueError(
            f"path_length_penalty: expected noise of the images' shape {tuple(images.shape)}, "
            f"got {size}"
        )
    return (noise / math.sqrt(math.prod(images.shape[2:]))).to(images)


def _check(w: Any, mean: Any, decay: float, engine: str) -> None:
    for name, t in (("w", w), ("mean", mean)):
        if not isinstance(t, Tensor) or not t.is_floating_point():
            got = t.dtype if isinstance(t, Tensor) else type(t).__name__
            raise TypeError(f"path_length_penalty: expected {name} as a float tensor, got {got}")
    if w.dim() not in (2, 3) or w.numel() == 0:
        raise ValueError(
            "path_length_penalty: expected w of shape (B, L, d) or (B, d), none of them 0, "
            f"got {tuple(w.shape)}"
        )
    if mean.dim() or mean.dtype not in (torch.float32, torch.float64) or mean.requires_grad:
        raise ValueError(
            "path_length_penalty: expected mean as a float32 or float64 scalar that requires no "
            f"gradient, got {tuple(mean.shape)} of {mean.dtype}"
            + (" that requires one" if mean.requires_grad else "")
        )
    if mean.device != w.device:
        raise ValueError(
            f"path_length_penalty: expected mean on {w.device} as w is, got {mean.device}"
        )
    if torch.compiler.is_compiling() and mean.dtype == torch.float64 and mean.device.type == "cpu":
        # torch 2.13 takes a 0-dim float64 CPU input for a Python number, and loses what is written.
        raise ValueError(
            "path_length_penalty: inside torch.compile expected mean as a float32 scalar, got "
            "float64 on the CPU, whose update torch.compile would lose"
        )
    if number("path_length_penalty", "decay", decay, 0.0) > 1:
        raise ValueError(f"path_length_penalty: expected 0 <= decay <= 1, got {decay}")
    if engine not in ("auto", "autograd"):  # a generator is not piecewise linear in w
        raise ValueError(
            f"path_length_penalty: expected engine 'auto' or 'autograd', got {engine!r}"
        )
