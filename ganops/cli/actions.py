"""What the commands do, once their options are read."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from ganops import _dispatch
from ganops.data import open_data
from ganops.methods import Recipe, config, recipe
from ganops.methods.base import ImageSpec
from ganops.metrics import Quality
from ganops.trainers import Trainer, checkpoint, pictures, setup
from ganops.trainers.sampling import sample as sample_images


def train(
    method: str,
    options: dict[str, Any],
    assigned: Sequence[str],
    *,
    config_file: str | None,
    out: str | None,
    dry_run: bool,
    quiet: bool,
) -> int:
    chosen = recipe(method)
    settings: dict[str, Any] = {}
    if config_file is not None:
        chosen, settings = _from_file(config_file, chosen)
    chosen, more = setup.split_changes(chosen, config.assignments(assigned))
    trainer = Trainer(chosen, out=out, quiet=quiet, **{**settings, **options, **more})
    if dry_run:
        return _dry_run(trainer)
    return _fit(trainer)


def resume(
    run: str,
    options: dict[str, Any],
    assigned: Sequence[str],
    *,
    data: str | None,
    allow: Sequence[str],
    quiet: bool,
) -> int:
    changes = {**config.assignments(assigned), **options}
    return _fit(Trainer.resume(run, data=data, allow=allow, changes=changes, quiet=quiet))


def sample(run: str, out: str, count: int, seed: int, device: str) -> int:
    suffix = _sample_suffix(out)
    images = draw(run, count, seed, device)
    pixels = images.permute(0, 2, 3, 1).contiguous()
    if suffix == ".npz":
        import numpy as np

        with open(out, "wb") as file:  # given a name, numpy would add the suffix in lower case
            np.savez(file, images=pixels.numpy())
    elif suffix:
        pictures.save_grid(out, images)
    else:
        os.makedirs(out, exist_ok=True)
        for i, image in enumerate(pixels):
            checkpoint.write_atomically(os.path.join(out, f"{i:06d}.png"), pictures.encode(image))
    print(f"{count} images {tuple(images.shape[1:])} -> {out}")
    return 0


def _sample_suffix(out: str) -> str:
    """.npz or that of an image, in lower case; "" for a folder. Raises if `out` cannot be made."""
    suffix = "" if os.path.isdir(out) else os.path.splitext(out)[1].lower()
    known = (".npz", *pictures.FORMATS)
    if not suffix:
        if os.path.exists(out) and (not os.path.isdir(out) or os.listdir(out)):
            raise FileExistsError(
                f"output {out!r} must be a new or empty folder, or a file {', '.join(known)}"
            )
        return suffix
    if suffix not in known:
        raise ValueError(
            f"output {out!r} must end in one of {', '.join(known)}, or be a folder (one with a dot "
            f"in its name ends in /)"
        )
    folder = os.path.dirname(out) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"cannot write {out!r}: there is no folder {folder!r}")
    return suffix


def evaluate(run: str, data: str | None, seed: int, device: str, as_json: bool) -> int:
    refuse_unservable(setup.pick_device(device))
    saved = setup.read_run(run)
    place = data or setup.same_objects(saved, {}, saved["train"]["data"])
    source = open_data(place, res=saved["train"]["res"])
    setup.check_same_images(saved, setup.image_spec(source))
    quality = Quality.of(source, os.path.join(run, "cache"))
    rows = {
        "generated": quality.measure(draw(run, quality.count, seed, device)),
        "real": quality.real_against_real(),
        "noise": quality.noise_against_real(),
    }
    if as_json:
        print(json.dumps({"protocol": quality.protocol(), **rows}, indent=1))
    else:
        print_table(rows)
        print(quality.protocol())
    return 0


def data_of(run: str, data: str | None) -> tuple[str, int | None]:
    """Where a run's data are, or are now, and the side they are brought to."""
    saved = setup.read_run(run)
    return data or setup.same_objects(saved, {}, saved["train"]["data"]), saved["train"]["res"]


def draw(run: str, count: int, seed: int, device: str, path: str | None = None) -> torch.Tensor:
    """Images of a run's averaged generator, from its last checkpoint or the one at `path`."""
    saved = setup.read_run(run)
    setup.same_objects(saved, {}, "")
    place = setup.pick_device(device)
    refuse_unservable(place)
    images = config.from_dict(ImageSpec, saved["images"], "images")
    method = setup.build(Recipe.from_dict(saved["recipe"]), images, {}, place)
    path = path or checkpoint.latest(run)
    parts = checkpoint.load(path)
    with checkpoint.fitting(path):
        for name, network in method.networks.items():
            network.load_state_dict(parts["ema" if name in method.averaged else "networks"][name])
        for name, state in method.state.items():
            state.load_state_dict(parts["method"][name])
    return sample_images(method, method.networks, count, seed=seed, device=place)


def refuse_unservable(device: torch.device) -> None:
    """Raises ValueError if GANOPS_IMPL asks for an implementation that `device` cannot run."""
    for op in _dispatch.AUTO:
        try:
            _dispatch.choose(op, "auto", device)
        except RuntimeError as error:
            raise ValueError(f"GANOPS_IMPL: {error}") from error


def print_table(rows: dict[str, dict[str, float]]) -> None:
    """Measurements side by side, one row per set of images."""
    names = list(next(iter(rows.values())))
    heads = [name.split("/", 1)[1] for name in names]
    first = max(map(len, rows))
    print(" " * first + "".join(f"  {head:>14}" for head in heads))
    for label, values in rows.items():
        print(f"{label:{first}}" + "".join(f"  {values[name]:14.6g}" for name in names))


def _from_file(path: str, chosen: Recipe) -> tuple[Recipe, dict[str, Any]]:
    """Settings of a YAML file: a run's config.yaml, or keys of the recipe and of the run."""
    read = config.load_yaml(path)
    if isinstance(read.get("recipe"), dict):
        own, rest = read["recipe"], read.get("train", {})
        if not isinstance(rest, dict):
            raise ValueError(f"{path}: train must be a mapping of settings, got {rest!r}")
        if own.get("method", chosen.method) != chosen.method:
            raise ValueError(f"{path} is for method {own['method']!r}, not {chosen.method!r}")
        return Recipe.from_dict({**own, "method": chosen.method}), dict(rest)
    read.pop("method", None)
    return setup.split_changes(chosen, config.flatten(read))


def _fit(trainer: Trainer) -> int:
    refuse_unservable(trainer.device)
    trainer.fit()
    if trainer.stopped_by:
        print(
            f"stopped by {trainer.stopped_by} at step {trainer.position.step}, saved; "
            f"go on with: ganops resume {trainer.out}",
            file=sys.stderr,
        )
    else:
        print(f"{trainer.out}: {trainer.position.step} steps done", file=sys.stderr)
    return 0


def _dry_run(trainer: Trainer, repeats: int = 3) -> int:
    """Settings, sizes, and the cost of the worst step, the one on which every interval is due."""
    refuse_unservable(trainer.device)
    print(config.dump_yaml(trainer.settings()), end="")
    for name, network in trainer.method.networks.items():
        count = sum(p.numel() for p in network.parameters())
        print(f"parameters of {name}: {count:,}")
    seconds = []
    with setup.private_rng(trainer.device):
        for _ in range(repeats + 1):
            trainer.position.step = 0
            start = time.perf_counter()
            trainer.stepper.step(trainer.position)
            trainer.stepper.statistics.read()  # waits for the device
            seconds.append(time.perf_counter() - start)
    peak, what = _peak_memory(trainer.device)
    print(f"worst step: {1000 * statistics.median(seconds[1:]):.1f} ms (median of {repeats})")
    print(f"peak memory: {peak / 2**20:.0f} MiB ({what}); nothing was written")
    return 0


def _peak_memory(device: torch.device) -> tuple[int, str]:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "allocated on the device"
    import resource

    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale, "whole process"
