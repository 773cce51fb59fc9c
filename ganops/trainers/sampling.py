"""Images from a generator. Sample i of a seed is the same however many are asked for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ganops.data import to_uint8
from ganops.methods.base import Method
from ganops.methods.turn import Draw, Turn

CHUNK = 256  # samples per forward pass; part of the meaning of a seed


def latent(method: Method, turn: Turn) -> Tensor:
    """z (B, z_dim) from the method's prior."""
    if method.prior == "uniform":
        return turn.uniform("z", turn.batch, method.z_dim).mul_(2.0).sub_(1.0)
    return turn.normal("z", turn.batch, method.z_dim)


@torch.no_grad()
def sample(
    method: Method,
    networks: Mapping[str, nn.Module],
    count: int,
    *,
    seed: int,
    device: torch.device,
) -> Tensor:
    """`count` images in evaluation mode -> (count, C, H, W) uint8 on the CPU."""
    if count < 1:
        raise ValueError(f"the number of samples must be >= 1, got {count}")
    if seed < 0:
        raise ValueError(f"the seed must be >= 0, got {seed}")
    modes = {name: network.training for name, network in networks.items()}
    images = []
    try:
        for network in networks.values():
            network.eval()
        for chunk, start in enumerate(range(0, count, CHUNK)):
            draw = Draw(
                "sample",
                chunk,
                batch=min(CHUNK, count - start),
                seed=seed,
                device=device,
                sources={},
            )
            turn = Turn(
                draw,
                networks=networks,
                parameters={},
                state=method.state,
                trained=frozenset(),
                latent=lambda t: latent(method, t),
                generate=method.generate,
                step=0,
                images_seen=0,
            )
            images.append(to_uint8(method.generate(networks, turn)).cpu())
    finally:
        for name, network in networks.items():
            network.train(modes[name])
    return torch.cat(images)
