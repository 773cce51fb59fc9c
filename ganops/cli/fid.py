"""``ganops fid REAL FAKE``: what it does once its options are read."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed

from ganops.cli import actions
from ganops.cli.progress import Images
from ganops.data import ImageSet, ImageStream, open_data
from ganops.data.files import open_files
from ganops.metrics import FeatureStats, InceptionFeatures
from ganops.metrics.extractors import digits_extractor
from ganops.metrics.measure import (
    METRICS,
    Collected,
    check_metrics,
    collect,
    protocol,
    provenance,
)
from ganops.metrics.provenance import Provenance
from ganops.trainers import setup

FEATURES = ("inception", "cnn")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

OFFLINE = "here that is --weights; --features cnn needs none, for labelled MNIST-like images"


def cache_folder(given: str | None) -> str | None:
    """Where statistics and small classifiers are kept; "none" keeps nothing."""
    if given == "none":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return given or os.path.join(base, "ganops")


def fid(
    real: str,
    fake: str,
    *,
    metrics: str = "fid",
    features: str = "inception",
    weights: str | None = None,
    protocol_name: str = "tf",
    dtype: str = "float32",
    n: int | None = None,
    res: int | None = None,
    batch: int = 64,
    workers: int | None = None,
    device: str = "auto",
    seed: int = 0,
    cache: str | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> int:
    """Measure and print. -> exit code. Raises ValueError before any work for what cannot serve."""
    names = check_metrics(part.strip() for part in metrics.split(","))
    if features not in FEATURES or dtype not in DTYPES:
        raise ValueError(
            f"expected features {' or '.join(FEATURES)} and dtype {', '.join(DTYPES)}; got "
            f"{features!r} and {dtype!r}"
        )
    if features == "cnn" and any(METRICS[name].logits for name in names):
        raise ValueError(
            "is (Inception Score) needs Inception's class logits: --features inception"
        )
    if n is not None and n < 2:
        raise ValueError(f"--n: a covariance needs 2 images or more, got {n}")
    with plain_warnings(), ranks(device) as (rank, world, place):
        actions.refuse_unservable(place)
        folder = cache_folder(cache)
        first = open_set(real, res, None, seed, place)
        has = len(first) if isinstance(first, ImageSet) else first.stats.count
        wanted = has if n is None else n
        second = open_set(fake, res, wanted, seed, place)
        for name in names:
            if isinstance(second, ImageSet) and (n or len(second)) < METRICS[name].least:
                raise ValueError(
                    f"{name} needs {METRICS[name].least} generated images or more, "
                    f"got {n or len(second)}"
                )
        share: dict[str, Any] = {"batch": batch, "workers": workers, "rank": rank, "world": world}
        files = all(isinstance(each, Collected) for each in (first, second))
        extractor: Any = None  # two files of statistics need none
        with one_after_another(rank, world):
            if features == "cnn" and not files:
                extractor = small_classifier(first, folder)
            elif not files:
                try:
                    extractor = InceptionFeatures(
                        weights, resize=protocol_name, dtype=DTYPES[dtype], device=place,
                        batch=batch,
                    )  # fmt: skip
                except ConnectionError as error:
                    raise ConnectionError(f"{error}; {OFFLINE}") from error
        for at, given in enumerate((first, second)):
            if isinstance(given, Collected):
                check_file(given, at, names, extractor)
        sets, seconds = [], 0.0
        for at, source in enumerate((first, second)):
            if not isinstance(source, ImageSet):
                sets.append(source)
                continue
            stream = ImageStream(source, limit=n, **share)
            with Images(source.name, len(stream), quiet=quiet or rank > 0) as show:
                found = collect(
                    stream, extractor, cache=folder, advance=show,
                    rows=any(METRICS[name].rows[at] for name in names),
                    logits=at == 1 and any(METRICS[name].logits for name in names),
                )  # fmt: skip
                seconds += show.seconds if found.images else 0.0
            sets.append(found)
        if rank:
            return 0
        results = {name: METRICS[name].make(sets[0], sets[1], seed) for name in names}
        images = sum(each.images for each in sets)
        rate = images / seconds if images else None
        how = protocol(extractor) if extractor else protocol_of(sets)
        if as_json:
            said = {name: result.as_dict() for name, result in results.items()}
            print(json.dumps({
                "real": sets[0].name, "generated": sets[1].name, "protocol": how,
                "images_per_second": rate, "results": said,
            }, indent=1))  # fmt: skip
            return 0
        for result in results.values():
            print(result)
        print(how)
        print(f"{images} images, {rate:.1f} img/s" if rate else "statistics from files: no pass")
    return 0


def check_file(given: Collected, at: int, names: tuple[str, ...], extractor: Any) -> None:
    """Refuses, before any pass, a file of statistics that cannot answer what is asked."""
    for name in names:
        if METRICS[name].rows[at]:
            given.need("rows", name)
        if METRICS[name].logits and at == 1:
            given.need("logits", name)
    if extractor is None:
        return
    if given.stats.dim != extractor.dim:
        raise ValueError(
            f"{given.name!r} has statistics of {given.stats.dim} features, and {extractor.name} "
            f"gives {extractor.dim}"
        )
    differ = given.stats.provenance.differences(
        Provenance(**provenance(extractor)), unknown_differs=False
    )
    if differ:
        raise ValueError(f"{given.name!r} and the images: features differ in {'; '.join(differ)}")


def protocol_of(sets: list[Collected]) -> str:
    """What two files of statistics say of themselves."""
    said = [
        ", ".join(f"{k} {v}" for k, v in vars(each.stats.provenance).items() if v) or "not said"
        for each in sets
    ]
    return f"features of {sets[0].name}: {said[0]}; of {sets[1].name}: {said[1]}"


def open_set(
    place: str, res: int | None, wanted: int | None, seed: int, device: torch.device
) -> ImageSet | Collected:
    """Images by what a person names: a set, a run's samples, or a file of statistics."""
    if os.path.isfile(os.path.join(place, "config.yaml")):
        if wanted is None:
            raise ValueError(f"{place!r} is a run: say with --n how many images it is to generate")
        return ImageSet(actions.draw(place, wanted, seed, str(device)), name=place)
    if place.lower().endswith(".npz") and _has_statistics(place):
        return Collected(place, FeatureStats.load(place))
    if os.path.isdir(place) or (place.lower().endswith(".zip") and os.path.isfile(place)):
        source: Any = open_files(place, res=res, once=True)
    else:
        source = open_data(place, res=res)
    if not isinstance(source, ImageSet):
        raise TypeError(f"data {place!r}: a set of known length is needed")
    if len(source) < 2:
        raise ValueError(f"data {place!r}: a covariance needs 2 images or more, got 1")
    return source


def _has_statistics(path: str) -> bool:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return "mu" in file.files
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        return False  # whoever opens it as images says what is wrong with it


def small_classifier(source: Any, folder: str | None) -> Any:
    """Features for MNIST-like sets without any download: a classifier of the labelled real set."""
    if not isinstance(source, ImageSet) or source.labels is None or not source.classes:
        raise ValueError(
            "--features cnn trains a small classifier on the real images, which need class labels "
            "(digits, an IDX file with its labels, class folders, a zip with dataset.json)"
        )
    if folder is None:
        raise ValueError("--features cnn keeps its classifier in the cache: give --cache a folder")
    images = source.read(torch.arange(len(source)))
    if images.dtype != torch.uint8:
        raise ValueError(f"--features cnn needs uint8 images, {source.name!r} has {images.dtype}")
    stem = os.path.basename(os.path.normpath(source.name)).split(".")[0]
    return digits_extractor(images, source.labels, cache=folder, name=f"{stem}-cnn")


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings as sentences, without the line of code that gave them."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(
            f"ganops: {message}", file=sys.stderr
        )
        yield


@contextlib.contextmanager
def ranks(device: str) -> Iterator[tuple[int, int, torch.device]]:
    """(rank, world, device) of this process; joins the group that torchrun's variables describe."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield 0, 1, setup.pick_device(device)
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = setup.pick_device(device)
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
    try:
        yield distributed.get_rank(), distributed.get_world_size(), place
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def one_after_another(rank: int, world: int) -> Iterator[None]:
    """Rank 0 first: what it downloads or trains, the others then find."""
    if world > 1 and rank:
        distributed.barrier()
    yield
    if world > 1 and not rank:
        distributed.barrier()
