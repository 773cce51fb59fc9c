"""WGAN-GP's whole critic loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .._arguments import number, switch
from .critic import Critic, leaf
from .reduction import penalty_from_gradient

__all__ = ["wgan_gp_loss"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_ROW_WISE = {"activation", "container", "conv", "dropout", "flatten", "instancenorm", "linear",
             "normalization", "padding", "pixelshuffle", "pooling", "upsampling"}  # fmt: skip
_MIXERS = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax, nn.GLU,
           nn.Unflatten)  # fmt: skip


def wgan_gp_loss(
    critic: Callable[..., Any],
    real: Tensor,
    fake: Tensor,
    *,
    weight: float = 10.0,
    center: float = 1.0,
    one_sided: bool = False,
    generator: torch.Generator | None = None,
    alpha: Tensor | None = None,
    output: Callable[[Any], Tensor] | None = None,
    critic_args: tuple[Any, ...] = (),
    critic_kwargs: dict[str, Any] | None = None,
    batched: bool | None = None,
    engine: str = "auto",
) -> Tensor:
    r"""What WGAN-GP's critic minimises: E D(fake) - E D(real) + weight * penalty.

    .. math:: \frac1B \sum_b D(\tilde x_b) - D(x_b)
              + \lambda \left(\|\nabla D(\hat x_b)\|_2 - c\right)^2

    Real and fake go through D in one pass where that changes nothing; a piecewise linear D then
    costs ten forwards with its backward, and twelve in stock PyTorch.

    Args:
        critic, real, fake, center, one_sided, generator, alpha, output, critic_args,
            critic_kwargs, engine: as in `gradient_penalty`. Neither batch gets a gradient.
        weight: lambda, a finite number; a tensor is refused (multiply `gradient_penalty` by it).
        batched: True: D sees real and fake as one batch of 2 B, so it must treat samples one by
            one. False: one batch after the other. None: one batch if D is put together from
            torch.nn's modules alone, has no batch normalisation that uses the batch's statistics,
            and takes no further arguments; code of one's own may mix samples without a trace, so it
            needs the True, and so do modules with hooks or a forward of their own. Hooks for all
            modules (``register_module_forward_hook``) are not looked for. Modules with state a call
            (spectral norm) move once instead of twice.

    Returns:
        A scalar with a graph to the critic's parameters.

    Raises:
        ValueError: batched=True with further arguments, which belong to batches of B. Otherwise, as
            TypeError and RuntimeError, as `gradient_penalty`.

    Source: Gulrajani et al. 2017, arXiv 1704.00028, Algorithm 1; card wgan_gp.

    Example:
        >>> critic = torch.nn.Linear(2, 1, bias=False)
        >>> _ = critic.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
        >>> wgan_gp_loss(critic, torch.ones(8, 2), torch.zeros(8, 2)).item()
        153.0
    """
    from . import interpolate  # this package's own, defined after this file is read

    called = Critic("wgan_gp_loss", critic, output, critic_args, critic_kwargs, engine)
    weight = number("wgan_gp_loss", "weight", weight)
    if batched is not None:
        switch("wgan_gp_loss", "batched", batched)
    arguments = bool(critic_args or critic_kwargs)
    if batched and arguments:
        raise ValueError(
            "wgan_gp_loss: expected no critic_args or critic_kwargs with batched=True, which would "
            "hand them to a batch of twice their size; got some"
        )
    points = interpolate(real, fake, generator=generator, alpha=alpha)
    real, fake = (leaf("wgan_gp_loss", n, t).detach() for n, t in (("real", real), ("fake", fake)))
    if batched is None:
        batched = not arguments and _treats_samples_one_by_one(critic)
    if batched:
        of_real, of_fake = called.scores(torch.cat((real, fake))).chunk(2)
    else:
        of_real, of_fake = called.scores(real), called.scores(fake)
    grad = called.input_gradient(points)
    penalty = penalty_from_gradient(grad, center=center, one_sided=one_sided)
    return of_fake.mean() - of_real.mean() + weight * penalty


def _treats_samples_one_by_one(critic: Any) -> bool:
    """Is it sure to, by what it is made of?"""
    return isinstance(critic, nn.Module) and all(map(_row_wise, critic.modules()))


def _row_wise(module: nn.Module) -> bool:
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
        return False
    own = ("torch.nn.utils.parametrize", "ganops.nn.layers")  # these stand before what they are
    kind = next(k for k in type(module).__mro__ if k.__module__ not in own)
    package, _, name = kind.__module__.rpartition(".")
    if isinstance(module, _BATCH_NORMS):
        return not module.training and module.running_mean is not None
    return (
        package == "torch.nn.modules" and name in _ROW_WISE and not issubclass(kind, _MIXERS)
    ) or (kind.__module__ == "torch.nn.utils.parametrizations")
