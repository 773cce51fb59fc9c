"""Does every metric move the way it should? Real images against damaged other real ones.

    python benchmarks/metric_behaviour.py DATA.zip OUT [--count N] [--extractor classifier|random]

One random half of the data is the reference; `--count` images of the other half are blurred,
noised, JPEG-compressed and shifted at rising strength (strength 0: as they are). Writes
OUT.png and OUT.json, and prints which of the metrics failed to get worse with strength, and where.

No Inception weights are needed: features are those of a small classifier trained on the data, or of
a random convolution network; the figure says which, and no number here is an FID.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn

from ganops import metrics
from ganops.data.open import open_data
from ganops.metrics.classifier import train_classifier

SEED = 0
Damage = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
Features = Callable[[Tensor], tuple[Tensor, Tensor | None]]


def blur(image: np.ndarray, sigma: float, _: np.random.Generator) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def noise(image: np.ndarray, sigma: float, draw: np.random.Generator) -> np.ndarray:
    noisy = image + sigma * draw.standard_normal(image.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: float, _: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(quality))
    return np.asarray(Image.open(file))


def shift(image: np.ndarray, pixels: float, _: np.random.Generator) -> np.ndarray:
    """Down and to the right; the edge is repeated."""
    by = int(pixels)
    padded = np.pad(image, ((by, 0), (by, 0), (0, 0)), mode="edge")
    return padded[: image.shape[0], : image.shape[1]]


DAMAGES: dict[str, tuple[Damage, tuple[float, ...]]] = {
    "blur (sigma)": (blur, (0.5, 1.0, 1.5, 2.5)),
    "noise (sigma of 255)": (noise, (8, 16, 32, 64)),
    "JPEG (quality)": (jpeg, (50, 25, 10, 3)),
    "shift (pixels)": (shift, (2, 4, 8, 12)),
}
RISES = {"frechet distance": True, "kid": True, "mifid": True}  # the others fall


def damaged(images: Tensor, damage: Damage, strength: float) -> Tensor:
    draw = np.random.default_rng(SEED)
    rows = images.permute(0, 2, 3, 1).contiguous().numpy()
    done = np.stack([damage(row, strength, draw) for row in rows])
    return torch.from_numpy(done).permute(0, 3, 1, 2).contiguous()


def classifier(images: Tensor, labels: Tensor) -> Features:
    model = train_classifier(images, labels, seed=SEED)

    def features(x: Tensor) -> tuple[Tensor, Tensor | None]:
        found = model.features(x)
        with torch.no_grad():
            return found, model.head(found)

    return features


def random_network(channels: int) -> Features:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        layers: list[nn.Module] = []
        for a, b in ((channels, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU()]
        body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())

    def features(x: Tensor) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad():
            return torch.cat([body(part / 127.5 - 1.0) for part in x.split(512)]), None

    return features


def measured(reference: Tensor, features: Tensor, logits: Tensor | None) -> dict[str, Any]:
    found = [
        metrics.kid(reference, features),
        metrics.prdc(reference, features, k=5),
        metrics.mifid(reference, features),
    ]
    if logits is not None:
        found.append(metrics.inception_score(logits))
    numbers: dict[str, float] = {}
    for result in found:
        numbers.update(result.numbers())
    for no_direction in ("+-", "memorisation distance"):
        numbers.pop(no_direction)
    return {"numbers": numbers, "protocols": [str(result) for result in found]}


def broken_order(rows: list[dict[str, Any]]) -> list[str]:
    """Metrics that did not get worse with every step of strength, or from none to most."""
    said = []
    for name in rows[0]["numbers"]:
        values = [row["numbers"][name] for row in rows]
        signed = values if RISES.get(name, False) else [-v for v in values]
        steps = [b > a for a, b in itertools.pairwise(signed)]
        if not all(steps):
            whole = "worse at the end" if signed[-1] > signed[0] else "NOT worse at the end"
            said.append(f"{name}: {' '.join(f'{v:.4g}' for v in values)} ({whole})")
    return said


def plot(report: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    runs = report["damages"]
    names = list(next(iter(runs.values()))[0]["numbers"])
    columns = 4
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.7 * lines), layout="constrained")
    for at, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, at + 1)
        for damage, rows in runs.items():
            values = [row["numbers"][name] for row in rows]
            axes.plot(range(len(rows)), values, marker="o", label=damage)
        better = "lower" if RISES.get(name, False) else "higher"
        axes.set(title=f"{name} ({better} is better)", xlabel="strength", xticks=range(len(rows)))
    figure.axes[0].legend(fontsize="small")
    figure.suptitle(report["title"], fontsize="medium")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--extractor", choices=("classifier", "random"), default="classifier")
    options = parser.parse_args()
    source = open_data(options.data)
    chosen = torch.randperm(len(source), generator=torch.Generator().manual_seed(SEED))
    half = len(source) // 2
    count = min(options.count, half)
    reference, other = (source.read(part) for part in (chosen[:count], chosen[half:][:count]))
    if options.extractor == "random":
        extract, what = random_network(reference.shape[1]), "a RANDOM network"
    elif source.labels is None:
        raise SystemExit("--extractor classifier: expected labelled data; or use random")
    else:
        labels = torch.as_tensor(source.labels)[torch.cat([chosen[:count], chosen[half:][:count]])]
        extract = classifier(torch.cat([reference, other]), labels)
        what = "a small classifier of these data"
    real = extract(reference)[0]
    report: dict[str, Any] = {
        "title": f"{count} damaged against {count} other real images; features of {what}, "
        "not Inception",
        "damages": {},
    }
    for name, (damage, strengths) in DAMAGES.items():
        rows = [{"strength": None, **measured(real, *extract(other))}]
        for strength in strengths:
            found = measured(real, *extract(damaged(other, damage, strength)))
            rows.append({"strength": strength, **found})
        report["damages"][name] = rows
        for line in broken_order(rows):
            print(f"{name}: not monotone: {line}")
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    plot(report, options.out.with_suffix(".png"))
    print(f"{report['title']}: {options.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
