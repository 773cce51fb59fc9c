"""Spectral normalisation of a critic's weights: one forward's iteration, and the gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from arms import sizes
from harness import Case, Floor, Size
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganops import use_impl
from ganops.nn import batch_spectral_norm

Bench = Callable[[Case], None]

# Shapes of the weights: DCGAN's critic for 64 x 64 and its generator (transposed: rows are the
# second dimension), SNGAN's ResNet for CIFAR-10, and a network of layers so small that only the
# number of operations counts.
CRITICS = {
    "dcgan64": [(64, 3, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (1, 8192)],
    "sngan": [(128, 3, 3, 3), (128, 128, 3, 3), (128, 3, 1, 1), *[(128, 128, 3, 3)] * 6,
              (128, 128, 1, 1), (1, 128)],
    "dcgan64 generator": [(100, 512, 4, 4), (512, 256, 4, 4), (256, 128, 4, 4), (128, 64, 4, 4),
                          (64, 3, 4, 4)],
    "small": [(32, 32)] * 12,
}  # fmt: skip


class Weights(nn.Module):
    """A critic of which only the weights are read."""

    def __init__(self, shapes: list[tuple[int, ...]], transposed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(self._layer(shape, transposed) for shape in shapes)

    @staticmethod
    def _layer(shape: tuple[int, ...], transposed: bool) -> nn.Module:
        if transposed:
            return spectral_norm(nn.ConvTranspose2d(shape[0], shape[1], shape[2]))
        layer = (
            nn.Conv2d(shape[1], shape[0], shape[2]) if len(shape) == 4 else nn.Linear(*shape[::-1])
        )
        return spectral_norm(layer)

    def forward(self) -> list[Tensor]:
        return [layer.weight for layer in self.layers]


def with_gradient(critic: nn.Module) -> Callable[[], tuple[Tensor, ...]]:
    """Values and gradients. In evaluation the arms would agree to rounding; in training they have
    taken different numbers of iterations by the time they are compared."""
    originals = [layer.parametrizations.weight.original for layer in critic.layers]
    upstream = [torch.ones_like(w) for w in originals]

    def arm() -> tuple[Tensor, ...]:
        values = critic()
        return (*values, *torch.autograd.grad(values, originals, upstream))

    return arm


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("training", [True, False])
@sizes(tiny=["8"], default=["1"])
def bench_weights(
    size: Size, name: str, training: bool, device: str, impl: str, bench: Bench
) -> None:
    """Floor: W read twice (iteration, division), W / sigma written; G and W / sigma read, dW
    written. Size: what the widths are divided by."""
    shapes = [tuple(max(n // size.shape[0], 1) if i < 2 else n for i, n in enumerate(s))
              for s in CRITICS[name]]  # fmt: skip
    stock = Weights(shapes, transposed="generator" in name).to(device).train(training)
    ours, plain = (batch_spectral_norm(copy.deepcopy(stock)) for _ in range(2))
    plain_arm = with_gradient(plain)

    def plainly() -> tuple[Tensor, ...]:
        with use_impl("reference"):
            return plain_arm()

    count = sum(torch.Size(s).numel() for s in shapes)
    nbytes = 6 * 4 * count
    whole = Size((count,))
    bench(
        Case(
            op="spectral_norm",
            row=f"{name}, {count / 1e6:.2g}M weights, {'training' if training else 'evaluation'}",
            ours=with_gradient(ours),
            stock={"stock": with_gradient(stock)},
            peers={"plain operations": plainly},
            floor=Floor.copy(nbytes, whole, device),
            nbytes=nbytes,
            flops=12 * count,
            device=device,
            comparable=not training,
        )
    )
