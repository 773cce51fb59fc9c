"""Images a second of `ganops fid` beside the commands of pytorch-fid and torch-fidelity.

    python benchmarks/fid_command.py --data cifar10-train.zip --json fid_command.json

The same folders of PNG files, the same weights file (random numbers in the published form unless
--weights names one), each tool by its command line on all cores. A tool is run with few and with
more images: the difference is what the images cost, without imports, loading and the distance. The
tools take turns. What is not installed is listed with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

from ganops.data import open_data
from ganops.metrics.inception_weights import URLS, random_weights
from ganops.trainers.pictures import encode

SIZES = (64, 320)  # images of each of the two sets


def tools(weights: Path, hub: Path) -> dict[str, Callable[[Path, Path], list[str]]]:
    """Command lines by name; pytorch-fid takes its weights from torch.hub's cache alone."""
    place = hub / "hub" / "checkpoints" / URLS[0].rsplit("/", 1)[-1]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(weights.resolve())
    python, batch = sys.executable, "64"
    return {
        "ganops": lambda a, b: [
            python, "-m", "ganops", "fid", str(a), str(b), "--weights", str(weights), "--batch",
            batch, "--device", "cpu", "--cache", "none", "--quiet",
        ],
        "pytorch-fid": lambda a, b: [
            python, "-m", "pytorch_fid", str(a), str(b), "--device", "cpu", "--batch-size", batch,
        ],
        "torch-fidelity": lambda a, b: [
            python, "-m", "torch_fidelity.fidelity", "--fid", "--cpu", "--silent", "--no-cache",
            "--batch-size", batch, "--input1", str(a), "--input2", str(b),
            "--feature-extractor-weights-path", str(weights),
        ],
    }  # fmt: skip


def timed(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """(seconds, the FID it printed). Raises RuntimeError with the tool's last line."""
    start = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    number = re.search(r"(?i)(?:fid|frechet_inception_distance)\s*:?\s*([-\d.e+]+)", done.stdout)
    if done.returncode or number is None:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it printed no FID"])[-1])
    return seconds, float(number.group(1))


def write_images(data: str, folder: Path, start: int, count: int) -> Path:
    folder.mkdir(parents=True)
    source = open_data(data)
    for i, image in enumerate(source.read(torch.arange(start, start + count))):
        (folder / f"{i:05d}.png").write_bytes(encode(image.permute(1, 2, 0)))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="digits", help="set of at least 640 images")
    parser.add_argument("--weights", help="the published file (default: random numbers)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="where to write the result")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        weights = Path(given.weights) if given.weights else top / "weights.pth"
        if not given.weights:
            torch.save(random_weights().tensors, weights)
        sets = {
            n: [
                write_images(given.data, top / f"{name}{n}", i * n, n)
                for i, name in enumerate("ab")
            ]
            for n in SIZES
        }
        env = {**os.environ, "TORCH_HOME": str(top)}
        commands = tools(weights, top)
        rates: dict[str, list[float]] = {}
        values: dict[str, float] = {}
        failed: dict[str, str] = {}
        for _ in range(given.rounds):
            for name, command in commands.items():
                if name in failed:
                    continue
                try:
                    (few, _), (many, value) = (timed(command(*sets[n]), env) for n in SIZES)
                except RuntimeError as error:
                    failed[name] = str(error)
                    continue
                rates.setdefault(name, []).append(2 * (SIZES[1] - SIZES[0]) / (many - few))
                values[name] = value
                print(f"{name:16} {rates[name][-1]:8.2f} images/s  fid {value:.6f}", flush=True)
    result = {
        "date": date.today().isoformat(), "torch": torch.__version__, "cores": os.cpu_count(),
        "data": os.path.basename(given.data), "images": SIZES, "fid": values, "failed": failed,
        "weights": "given" if given.weights else "random: the distance means nothing",
        "images_per_second": {name: statistics.median(each) for name, each in rates.items()},
        "rounds": rates,
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if given.json:
        Path(given.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
