"""Networks, and the few facts about a network that methods ask for."""

from __future__ import annotations

from torch import Tensor, cat, nn

from ganops.models.conv import ConvCritic, ConvGenerator, CriticConfig, GeneratorConfig

__all__ = [
    "ConvCritic", "ConvGenerator", "CriticConfig", "GeneratorConfig", "refuse_batch_norm", "scores",
]  # fmt: skip


def scores(critic: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """critic(real) and critic(fake), in one call where the network says ``per_sample = True``.

    One call over both halves is the same function only if no layer couples samples (batch norm,
    minibatch statistics), which a foreign network need not tell: without the mark, two calls.
    """
    if getattr(critic, "per_sample", False):
        joined: Tensor = critic(cat([real, fake]))
        return joined[: real.shape[0]], joined[real.shape[0] :]
    return critic(real), critic(fake)


def refuse_batch_norm(network: nn.Module, role: str) -> None:
    """Raises ValueError, naming the layer, if a layer of `network` is a batch norm."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"{role} must not couple samples, but layer {name!r} is {type(layer).__name__}; "
                f"use layer norm (GroupNorm with one group) or none"
            )
