"""Putting a run together: device, networks, settings of a new run and of a resumed one."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ganops._version import __version__
from ganops.data import Source
from ganops.methods import config
from ganops.methods.base import ImageSpec, Method, Recipe
from ganops.trainers.config import FREE_TO_CHANGE, TrainConfig


def refuse_many_processes() -> None:
    """Raises ValueError under a launcher of several processes: each would train its own run."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world not in ("", "1"):
        raise ValueError(
            f"WORLD_SIZE is {world}, but this version trains in a single process; start it without "
            f"torchrun or srun"
        )


def pick_device(name: str) -> torch.device:
    """A usable device for a name. Raises ValueError if it does not exist here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; use cpu, cuda, cuda:0 ... or auto") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} asked for, but torch finds no usable GPU here; use cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} asked for, but there are {torch.cuda.device_count()}")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is not supported; use cpu or cuda")
    return device


@contextlib.contextmanager
def private_rng(device: torch.device) -> Iterator[None]:
    """torch's generators are as before afterwards, whatever was drawn inside."""
    index = device.index if device.index is not None else 0
    with torch.random.fork_rng(devices=[index] if device.type == "cuda" else []):
        yield


def name_of(data: Any) -> str:
    """How settings record data: a name or path as it is, an object by its type."""
    if isinstance(data, (str, os.PathLike)):
        return os.fspath(data)
    return f"<{type(data).__name__}>"


def image_spec(source: Source) -> ImageSpec:
    channels, height, width = source.shape
    return ImageSpec(channels, height, width, source.classes)


def build(
    recipe: Recipe, images: ImageSpec, own: Mapping[str, nn.Module], device: torch.device
) -> Method:
    """The recipe's method with every network and module state on `device`."""
    for name, network in own.items():
        if not isinstance(network, nn.Module):
            raise TypeError(f"{name} must be a torch.nn.Module, got {type(network).__name__}")
    method = recipe.build(images, own)
    for part in (*method.networks.values(), *method.state.values()):
        if isinstance(part, nn.Module):
            part.to(device)
    return method


def versions(device: torch.device) -> dict[str, str]:
    """What decides the last bits of a run, besides its settings and the machine."""
    found = {"ganops": __version__, "torch": torch.__version__}
    return found | ({"threads": str(torch.get_num_threads())} if device.type == "cpu" else {})


def warn_of_other_versions(saved: Mapping[str, str], now: Mapping[str, str]) -> None:
    """A run goes on bit for bit only under what it was begun with."""
    changed = [f"{key} {saved[key]}, now {now[key]}" for key in now if saved.get(key) != now[key]
               and key in saved]  # fmt: skip
    if changed:
        cure = " (OMP_NUM_THREADS sets the threads)" if "threads" in " ".join(changed) else ""
        warnings.warn(
            f"the checkpoint was written with {'; '.join(changed)}: the run goes on, but not bit "
            f"for bit as it would have{cure}",
            RuntimeWarning,
            stacklevel=2,
        )


def describe_run(
    recipe: Recipe, train: TrainConfig, images: ImageSpec, own: Mapping[str, nn.Module]
) -> dict[str, Any]:
    return {
        "recipe": recipe.to_dict(),
        "train": config.to_dict(train),
        "images": config.to_dict(images),
        "own_networks": {name: type(network).__name__ for name, network in own.items()},
    }


def read_run(run: str) -> dict[str, Any]:
    """The settings of a run. Raises FileNotFoundError or ValueError, naming the file, if bad."""
    path = os.path.join(run, "config.yaml")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{run!r} is not a run: there is no {path!r}")
    saved = config.load_yaml(path)
    for key in ("recipe", "train", "images", "own_networks"):
        if not isinstance(saved.get(key), dict):
            raise ValueError(f"{path} must hold a mapping {key!r}, got {saved.get(key)!r}")
    try:
        Recipe.from_dict(saved["recipe"])
        train = config.from_dict(TrainConfig, saved["train"], "train")
        config.from_dict(ImageSpec, saved["images"], "images")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return {**saved, "train": config.to_dict(train)}


def split_changes(recipe: Recipe, changes: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """Changes by key -> the changed recipe, and the changes that belong to `TrainConfig`."""
    fields = set(TrainConfig.__dataclass_fields__)
    own = config.to_dict(recipe)
    train: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in changes.items():
        if key.partition(".")[0] not in own and key not in fields:
            hint = config.near_miss(key, {*own, *fields})
            raise ValueError(f"unknown setting {key!r}; {hint}")
        (train if key in fields else rest)[key] = value
    return recipe.replace(**rest), train


def changed(
    saved: Mapping[str, Any], changes: Mapping[str, Any], allow: Iterable[str]
) -> tuple[Recipe, dict[str, Any]]:
    """Saved settings with `changes` applied. Raises ValueError for one that must be allowed."""
    old_recipe = Recipe.from_dict(saved["recipe"])
    old_train = config.from_dict(TrainConfig, saved["train"], "train")
    new_recipe, train_changes = split_changes(old_recipe, changes)
    new_train = config.replace(old_train, train_changes)
    found = config.differences(
        {"recipe": old_recipe.to_dict(), "train": config.to_dict(old_train)},
        {"recipe": new_recipe.to_dict(), "train": config.to_dict(new_train)},
    )
    allowed = {name for key in allow for name in (key, f"recipe.{key}", f"train.{key}")}
    for key in found:
        if key not in FREE_TO_CHANGE and key not in allowed:
            short = key.partition(".")[2]
            raise ValueError(f"resuming would change {short}; if that is meant: --allow {short}")
    return new_recipe, config.to_dict(new_train)


def same_objects(saved: Mapping[str, Any], own: Mapping[str, nn.Module | None], data: Any) -> Any:
    """Check that a run's own networks and loader were given again. -> data"""
    for name, kind in saved["own_networks"].items():
        if own.get(name) is None:
            raise ValueError(
                f"this run was trained with its own {name} ({kind}); go on from Python with "
                f"Trainer.resume(run, {name}=...)"
            )
    extra = {name for name, network in own.items() if network is not None}
    extra -= set(saved["own_networks"])
    if extra:
        raise ValueError(f"this run was trained with the recipe's own {', '.join(sorted(extra))}")
    if isinstance(data, str) and data.startswith("<"):
        raise ValueError(
            f"this run read its data from an object {data}; go on from Python with "
            f"Trainer.resume(run, data=...)"
        )
    return data


def check_same_images(saved: Mapping[str, Any], images: ImageSpec) -> None:
    now = config.to_dict(images)
    if saved["images"] != now:
        raise ValueError(f"the run was trained on images {saved['images']}, these are {now}")
