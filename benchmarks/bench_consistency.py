"""The consistency loss alone, and a critic step with it: one call of the critic or several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from arms import compiled, sizes, with_gradient
from harness import Case, Floor, Size
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.flop_counter import FlopCounterMode

import ganops
from ganops import ops

Bench = Callable[[Case], None]


def stock_loss(d_out: Tensor) -> Tensor:
    a, b = d_out.chunk(2)
    return (a - b).square().flatten(1).sum(1).mean()


def ours(impl: str) -> Callable[[Tensor], Tensor]:
    return lambda d_out: ops.consistency_loss(d_out, impl=impl)


@sizes(
    tiny=["4x1", "4x3x8x8 bfloat16"],
    default=["128x1", "128x1x30x30", "128x512x8x8", "128x512x8x8 bfloat16"],
)
def bench_consistency_loss(size: Size, device: str, impl: str, bench: Bench) -> None:
    """The loss of 2 B outputs and its gradient. Floor: outputs read once, gradient written once."""
    d_out = size.randn(0, device, requires_grad=True)
    nbytes = 2 * size.nbytes
    bench(
        Case(
            op="consistency_loss",
            row=f"{size}, value and gradient",
            ours=with_gradient(ours(impl), [d_out]),
            stock={"stock": with_gradient(stock_loss, [d_out])},
            peers={"reference": with_gradient(ours("reference"), [d_out])},
            optional={"torch.compile": with_gradient(compiled(stock_loss), [d_out])},
            floor=Floor.copy(nbytes, size, device),
            nbytes=nbytes,
            flops=3 * size.count,
            dtype=size.dtype,
            device=device,
            headline=size.shape == (128, 512, 8, 8) and size.dtype == torch.float32,
        )
    )


def sndcgan(size: Size, base: int) -> nn.Sequential:
    """SNDCGAN's critic (Miyato et al. 2018): 3x3 and 4x4 stride-2 convolutions, all normalised."""
    layers: list[nn.Module] = []
    channels, wide, side = size.shape[1], base, size.shape[-1]
    for _ in range(3):
        layers += [spectral_norm(nn.Conv2d(channels, wide, 3, 1, 1)), nn.LeakyReLU(0.1)]
        layers += [spectral_norm(nn.Conv2d(wide, 2 * wide, 4, 2, 1)), nn.LeakyReLU(0.1)]
        channels = wide = 2 * wide
        side //= 2
    layers += [spectral_norm(nn.Conv2d(wide, wide, 3, 1, 1)), nn.LeakyReLU(0.1), nn.Flatten()]
    return nn.Sequential(*layers, spectral_norm(nn.Linear(wide * side**2, 1)))


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


@sizes(tiny=["2x3x8x8"], default=["64x3x32x32"])
def bench_cr_critic_step(size: Size, device: str, impl: str, bench: Bench) -> None:
    """Hinge loss with CR and its gradient to the weights; T is a flip.

    Floor: nine forwards of B images without the normalisation's iteration (forward, backward to the
    images, weight gradient, for each of real, fake and augmented).
    """
    torch.manual_seed(0)
    critic = sndcgan(size, 4 if size.shape[0] == 2 else 64).to(device)
    real, fake = size.randn(0, device), size.randn(1, device)
    with torch.no_grad():
        for _ in range(300):  # else each arm would have other singular vectors
            critic(real[:1])
    # Real and fake cancel in the biases: nothing to compare but rounding.
    params = [p for name, p in critic.named_parameters() if name.endswith("original")]

    def arm(loss: Callable[[], Tensor]) -> Callable[[], Any]:
        def run() -> Any:
            with ganops.use_impl(impl):
                total = loss()
            return (total, *torch.autograd.grad(total, params))

        return run

    def one_call() -> Tensor:
        seen = ops.consistency_scores(
            critic, real, fake, augment=lambda x: x.flip(-1), weight_fake=0
        )
        return hinge(seen.real, seen.fake) + seen.penalty

    def three_calls() -> Tensor:
        of_real, of_twin = critic(real), critic(real.flip(-1))
        return hinge(of_real, critic(fake)) + 10 * (of_real - of_twin).square().mean()

    def two_calls() -> Tensor:
        of_real, of_fake = critic(torch.cat((real, fake))).chunk(2)
        of_twin = critic(real.flip(-1))
        return hinge(of_real, of_fake) + 10 * (of_real - of_twin).square().mean()

    def by_hand() -> Tensor:
        scores = critic(torch.cat((real, real.flip(-1), fake)))
        of_real, of_twin, of_fake = scores.chunk(3)
        return hinge(of_real, of_fake) + 10 * (of_real - of_twin).square().mean()

    def forward() -> Tensor:
        with torch.no_grad():
            scores: Tensor = still(real)
            return scores

    still = sndcgan(size, 4 if size.shape[0] == 2 else 64).to(device).eval()
    with FlopCounterMode(display=False) as counter:
        forward()
    bench(
        Case(
            op="consistency_scores",
            row=f"CR critic step, one D call against two and three, SNDCGAN, {size}",
            ours=arm(one_call),
            stock={"three calls": arm(three_calls), "two calls": arm(two_calls)},
            peers={"stock, one call by hand": arm(by_hand)},
            floor=Floor("nine critic forwards", forward, scale=9.0),
            nbytes=0,
            flops=9 * int(counter.get_total_flops()),
            device=device,
            tolerance=1e-2,
            headline=True,
            note="convolutions dominate: what is saved is calls and power iterations",
        )
    )
