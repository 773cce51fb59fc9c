"""Perceptual path length: how fast images change along a path between latents.

Karras et al. 2019, arXiv 1812.04948.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ganops.metrics._features import Result


@dataclass(frozen=True)
class PathLength(Result):
    """`value`: mean of the `kept` distances over epsilon^2; `error`: its standard error."""

    value: float
    error: float
    samples: int
    kept: int
    percentiles: tuple[float, float]
    space: str
    sampling: str
    epsilon: float
    eight_bit: bool
    distance: str
    seed: int

    def numbers(self) -> dict[str, float]:
        return {"ppl": self.value, "+-": self.error}

    def protocol(self) -> str:
        images = "8-bit" if self.eight_bit else "float"
        low, high = self.percentiles
        return (
            f"space {self.space}, {self.sampling} paths, epsilon {self.epsilon:g}, {images} "
            f"images, distance {self.distance}, {self.kept} of {self.samples} pairs within "
            f"percentiles {low:g} to {high:g}, seed {self.seed}, +- standard error"
        )


def perceptual_path_length(
    generator: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    latent_dim: int,
    *,
    space: Literal["z", "w"] = "z",
    mapping: Callable[[Tensor], Tensor] | None = None,
    sampling: Literal["full", "end"] = "full",
    samples: int = 50_000,
    epsilon: float = 1e-4,
    eight_bit: bool = False,
    percentiles: tuple[float, float] = (1.0, 99.0),
    batch: int = 64,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    name: str | None = None,
) -> PathLength:
    """Mean over pairs of distance(G(at t), G(at t + epsilon)) / epsilon^2.

    Latents are normal and t is uniform in [0, 1) ("full") or 0 ("end"). In z the path is the great
    circle between the unit vectors (`slerp`); in w it is the straight line between mapped latents.
    Distances outside the percentiles (lower and higher sample, bounds kept) are dropped.

    There is no default distance: published numbers take squared LPIPS with VGG-16, whose weights
    are not shipped. Any distance that is quadratic for near images serves, as the squared
    difference of features; numbers of different distances are unrelated.

    `eight_bit` rounds images to 256 levels first, as some tools do: at epsilon 1e-4 that is nearly
    all one measures (37 times the value, on one published example), so it is off.

    Args:
        generator: latents (B, latent_dim) or mapped latents -> images in [-1, 1]. In eval mode,
            without truncation. Both ends of a path see the same random numbers, should it draw
            any from torch's global generators, which are left as they were.
        distance: (images, images) in [-1, 1] -> (B,), >= 0.
        latent_dim: size of z.
        space, mapping: "w" needs the mapping z -> w.
        sampling: "full" or "end".
        samples: pairs.
        epsilon: step in t.
        eight_bit: see above.
        percentiles: kept range, 0 to 100.
        batch: pairs at a time; it fixes which random numbers belong to which pair.
        seed: of latents and t, drawn on the CPU by a generator of its own.
        device, dtype: of the latents.
        name: of the distance, for the protocol; default its own.

    Returns: PathLength.
    Raises: ValueError for arguments out of range or distances of a wrong shape, negative or NaN.
    Memory: a batch, and one float64 a pair.
    Source: arXiv 1812.04948 and its official code.
    """
    _check(space, mapping, sampling, samples, epsilon, percentiles, batch, latent_dim)
    device, draw = torch.device(device), torch.Generator().manual_seed(seed)
    found = []
    for start in range(0, samples, batch):
        size = min(batch, samples - start)
        a, b = torch.randn(2, size, latent_dim, generator=draw, dtype=torch.float64)
        t = torch.rand(size, 1, generator=draw, dtype=torch.float64)
        t = t if sampling == "full" else torch.zeros_like(t)
        images = []
        with torch.no_grad():
            if space == "w" and mapping is not None:
                a, b = (mapping(end.to(device, dtype)).double() for end in (a, b))
            step = torch.lerp if space == "w" else slerp
            t = t.to(a.device).reshape(size, *(1,) * (a.ndim - 1))
            for at in (t, t + epsilon):
                with _same_numbers(seed + start, device):
                    image = generator(step(a, b, at).to(device, dtype))
                images.append(_rounded(image) if eight_bit else image)
            found.append(_distances(distance, images, size, start) / epsilon**2)
    kept = within_percentiles(torch.cat(found), *percentiles)
    error = float(kept.std()) / math.sqrt(len(kept)) if len(kept) > 1 else math.nan
    called = name or str(getattr(distance, "__name__", type(distance).__name__))
    return PathLength(
        float(kept.mean()), error, samples, len(kept), percentiles, space, sampling, epsilon,
        eight_bit, called, seed,
    )  # fmt: skip


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The unit vector at share t (B, 1) of the angle from a to b, (B, d) each."""
    a, b = (x / torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (a, b))
    cos = (a * b).sum(-1, keepdim=True)
    angle = t * torch.acos(cos.clamp(-1.0, 1.0))
    c = torch.nn.functional.normalize(b - cos * a, dim=-1)
    return torch.nn.functional.normalize(a * angle.cos() + c * angle.sin(), dim=-1)


def within_percentiles(values: Tensor, low: float, high: float) -> Tensor:
    """Values (N,) between the low percentile's lower and the high one's higher sample, sorted."""
    ordered, last = values.sort().values, len(values) - 1
    least, most = ordered[math.floor(low * last / 100)], ordered[math.ceil(high * last / 100)]
    return ordered[(ordered >= least) & (ordered <= most)]


@contextlib.contextmanager
def _same_numbers(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds the global generators of the CPU and of `device`, and puts them back."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _rounded(images: Tensor) -> Tensor:
    levels = (images.float() * 127.5 + 127.5).round().clamp(0, 255)
    return levels / 127.5 - 1.0


def _distances(
    distance: Callable[[Tensor, Tensor], Tensor], images: Sequence[Tensor], size: int, start: int
) -> Tensor:
    found = distance(*images)
    if not isinstance(found, Tensor) or found.numel() != size:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"distance: expected one number a pair, shape ({size},), got {got}")
    flat = found.reshape(-1).double().cpu()
    bad = (~(flat >= 0) | flat.isinf()).nonzero().flatten()
    if len(bad):
        at = int(bad[0])
        raise ValueError(
            f"distance: expected finite numbers >= 0, got {float(flat[at])} for pair {start + at}"
        )
    return flat


def _check(
    space: str,
    mapping: object,
    sampling: str,
    samples: int,
    epsilon: float,
    percentiles: tuple[float, float],
    batch: int,
    latent_dim: int,
) -> None:
    if space not in ("z", "w"):
        raise ValueError(f"space: expected 'z' or 'w', got {space!r}")
    if (space == "w") != (mapping is not None):
        raise ValueError(f"mapping: expected one for space 'w' only, got space {space!r}")
    if sampling not in ("full", "end"):
        raise ValueError(f"sampling: expected 'full' or 'end', got {sampling!r}")
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon: expected a number in (0, 1), got {epsilon!r}")
    if min(samples, batch, latent_dim) < 1:
        raise ValueError(
            f"expected samples, batch, latent_dim >= 1, got {samples}, {batch}, {latent_dim}"
        )
    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ValueError(f"percentiles: expected 0 <= low < high <= 100, got {percentiles!r}")
