"""What bfloat16, float16 or torch.compile do to the Inception features, and to the FID on them.

    python -m ganops.metrics.inception_deviation --weights PATH --dtype bfloat16 --images 2000

The same images go through the network in float32 and through the variant. Printed: the largest and
the mean difference of a feature, relative to the mean feature; the Frechet distance of the images'
features to their own in the other form, which would be 0; and, as a measure for it, the distance of
the two halves of the images in float32, and what the variant makes of that. Images are smooth noise
of fixed seed unless --data names a set.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ganops.data import open_data
from ganops.metrics.frechet import frechet_distance_from_features
from ganops.metrics.inception import InceptionFeatures
from ganops.ops import random_normal


def smooth_noise(n: int, side: int) -> Tensor:
    """(n, 3, side, side) uint8: noise at three scales, unlike from image to image."""
    total = torch.zeros(n, 3, side, side)
    for stream, scale in enumerate((4, 2, 1)):
        small = random_normal((n, 3, -(-side // scale), -(-side // scale)), seed=0, stream=stream)
        total += F.interpolate(small, (side, side), mode="bilinear", align_corners=False) * 30.0
    shift = random_normal((n, 3, 1, 1), seed=0, stream=9) * 40.0
    return (total + shift + 128.0).clamp(0, 255).to(torch.uint8)


def deviation(expected: Tensor, found: Tensor) -> dict[str, float]:
    """Numbers of features (N, d) against the same images' in another form."""
    half = len(expected) // 2
    difference = (found - expected).abs() / expected.abs().mean()
    between = [frechet_distance_from_features(f[:half], f[half:]) for f in (expected, found)]
    return {
        "largest difference of a feature / mean feature": float(difference.max()),
        "mean difference of a feature / mean feature": float(difference.mean()),
        "FID of the images to themselves": frechet_distance_from_features(expected, found),
        "FID of their halves, float32": between[0],
        "FID of their halves, the variant": between[1],
        "relative deviation of that FID": between[1] / between[0] - 1,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command: see the top of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", help="a file, a URL, or random; default: the published file")
    parser.add_argument("--data", help="a data set's name or path; default: smooth noise")
    parser.add_argument("--images", type=int, default=256, help="how many (default: %(default)s)")
    parser.add_argument("--side", type=int, default=32, help="of noise images, in pixels")
    parser.add_argument("--resize", default="tf")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(argv)
    if given.images < 4:
        parser.error(f"--images: expected 4 or more, got {given.images}")
    images = _images(given.data, given.images, given.side)
    plain = InceptionFeatures(given.weights, resize=given.resize, device=given.device)
    variant = InceptionFeatures(
        given.weights, resize=given.resize, device=given.device,
        dtype=getattr(torch, given.dtype), compile=given.compile,
    )  # fmt: skip
    label = " (RANDOM WEIGHTS: says nothing of published numbers)" if "RANDOM" in plain.name else ""
    print(f"{variant.name}{', compiled' if given.compile else ''} on {given.device}{label}")
    shown = f"{len(images)} images {tuple(images.shape[1:])} of {given.data or 'smooth noise'}"
    print(f"weights sha256 {plain.weights_sha256}, resize {plain.resize}, {shown}")
    for name, value in deviation(plain(images).cpu(), variant(images).cpu()).items():
        print(f"  {value:12.4g}  {name}")


def _images(data: str | None, n: int, side: int) -> Tensor:
    if data is None:
        return smooth_noise(n, side)
    source: Any = open_data(data)
    if not hasattr(source, "read"):
        raise ValueError(f"--data: expected a set of known length, got {data!r}")
    images: Tensor = source.read(torch.arange(min(n, len(source))))
    return images


if __name__ == "__main__":
    main()
