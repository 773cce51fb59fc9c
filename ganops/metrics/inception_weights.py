"""The published weights of the 2015 Inception graph: found, fetched, checked, read."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganops.metrics.download import check_sha256, download, sha256_of
from ganops.metrics.inception_graph import public_shapes
from ganops.ops import random_normal, random_uniform

# One file under two names: 95,628,359 bytes.
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URLS = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
)
PUBLISHED = "inception-2015-12-05"


class Weights(NamedTuple):
    tensors: dict[str, Tensor]  # as published: convolutions and batch norms apart
    sha256: str  # of the file; of the numbers where they are random
    name: str


def load_weights(
    weights: str | os.PathLike[str] | None = None,
    *,
    sha256: str | None = None,
    progress: bool | None = None,
) -> Weights:
    """The weights of `weights`: see `ganops.metrics.InceptionFeatures`."""
    source = "" if weights is None else os.fspath(weights)
    if source == "random" or source.startswith("random:"):
        return random_weights(_seed(source))
    if weights is None:
        path, found = _published(progress)
    elif re.match(r"https?://", source):
        path, found = _from_url(source, sha256, progress)
    else:
        path, found = source, _checked(source, sha256)
    name = PUBLISHED if found == SHA256 else f"inception-{found[:8]}"
    return Weights(_read(path), found, name)


def cache_path(url: str) -> str:
    """Where torch.hub keeps the file of a URL; the common FID tools look there too."""
    return os.path.join(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1])


def _published(progress: bool | None) -> tuple[str, str]:
    for url in URLS:
        path = cache_path(url)
        if os.path.exists(path):
            return path, check_sha256(path, SHA256, path)
    path = cache_path(URLS[0])
    return path, download(URLS[0], path, SHA256, progress=progress)


def _from_url(url: str, sha256: str | None, progress: bool | None) -> tuple[str, str]:
    named = re.search(r"-([0-9a-f]{8,64})\.\w+$", url)  # as torch.hub's files say it
    expected = SHA256 if url in URLS else sha256 or (named.group(1) if named else None)
    if expected is None:
        raise ValueError(
            f"weights: expected a hash to check {url} by: pass sha256=, or a URL whose name ends "
            "in one (-6726825d.pth)"
        )
    path = cache_path(url)
    if os.path.exists(path):
        return path, check_sha256(path, expected, path)
    return path, download(url, path, expected, progress=progress)


def _checked(path: str, sha256: str | None) -> str:
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"weights: there is no file {path}; leave weights out to download {URLS[0]}"
        )
    return check_sha256(path, sha256, path) if sha256 else sha256_of(path)


def _read(path: str) -> dict[str, Tensor]:
    """The published tensors of a file. Raises ValueError, in one sentence, for any other file."""
    cure = f"expected the weights of {URLS[0]}"
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError) as error:
        first = str(error).strip().split("\n")[0]
        raise ValueError(f"weights: cannot read {path} ({first}); {cure}") from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping):
        raise ValueError(f"weights: {path} holds a {type(found).__name__}, no tensors; {cure}")
    given = {str(name).removeprefix("module."): value for name, value in found.items()}
    shapes = public_shapes()
    missing = [name for name in shapes if not isinstance(given.get(name), Tensor)]
    if missing:
        raise ValueError(
            f"weights: {path} lacks {len(missing)} of {len(shapes)} tensors, the first is "
            f"{missing[0]}; {cure}"
        )
    for name, shape in shapes.items():
        if tuple(given[name].shape) != shape:
            raise ValueError(
                f"weights: {name} of {path} has shape {tuple(given[name].shape)} where the 2015 "
                f"graph has {shape} (torchvision's Inception is another network); {cure}"
            )
    return {name: given[name] for name in shapes}


def _seed(source: str) -> int:
    text = source.partition(":")[2] or "0"
    if not text.isdigit():
        raise ValueError(f'weights: expected "random" or "random:SEED", got {source!r}')
    return int(text)


def random_weights(seed: int = 0) -> Weights:
    """Weights that mean nothing, the same on every machine: for tests and timings alone."""
    tensors = {}
    for stream, (name, shape) in enumerate(public_shapes().items()):
        if name.endswith(("conv.weight", "fc.weight")):
            spread = (2.0 / torch.Size(shape[1:]).numel()) ** 0.5
            tensors[name] = random_normal(shape, seed=seed, stream=stream) * spread
        elif name.endswith(("bn.weight", "running_var")):
            tensors[name] = random_uniform(shape, seed=seed, stream=stream) + 0.5
        else:
            tensors[name] = random_normal(shape, seed=seed, stream=stream) * 0.1
    return Weights(tensors, f"random-{seed}", f"inception-RANDOM-WEIGHTS-{seed}")
