"""From what a person writes after ``--data`` to a source of images."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ganops.data.extras import require
from ganops.data.files import open_files
from ganops.data.idx import is_idx, open_idx
from ganops.data.npz import open_npz
from ganops.data.pixels import to_uint8
from ganops.data.resize import resize_batch
from ganops.data.source import ImageSet, LoaderSource, Source, check_images


def open_data(data: Any, *, res: int | None = None, seed: int = 0) -> Source:
    """A source from a name, a path, a tensor, (tensor, labels), a DataLoader or any iterable.

    Names: ``digits``. Paths: a folder of images, a ``.zip`` with ``dataset.json``, an IDX file, an
    ``.npz`` with ``images`` (uint8, channels last).
    `res`: square side to bring images to (centre crop to the short side, then Lanczos); floating
    tensors and loaders must have it already. Raises ValueError for an unknown name or a file that
    cannot be read, naming it, and PermissionError or FileNotFoundError for paths.
    """
    if res is not None and res < 1:
        raise ValueError(f"res must be >= 1, got {res}")
    if isinstance(data, (str, os.PathLike)):
        return _open_text(os.fspath(data), res, seed)
    if isinstance(data, Tensor):
        data = (data, None)
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Tensor):
        return _in_memory(data[0], data[1], "tensor", res, seed)
    if hasattr(data, "take") and hasattr(data, "state_dict") and hasattr(data, "shape"):
        source: Source = data
        return _checked(source, res)
    if isinstance(data, Iterable):
        return _checked(LoaderSource(data, seed=seed), res)
    raise TypeError(
        f"data must be a name, a path, a tensor, (tensor, labels), a DataLoader or an iterable of "
        f"batches, got {type(data).__name__}"
    )


def digits() -> tuple[Tensor, Tensor]:
    """The 1797 handwritten digits that scikit-learn ships: (1797, 1, 8, 8) uint8, labels (1797,).

    Its pixels are counts 0 ... 16 (set pixels per 4x4 block of a 32x32 scan, from the UCI optical
    recognition set); they are scaled to bytes by round(v * 255 / 16), so 0 -> 0 and 16 -> 255.
    """
    loaded = require("sklearn.datasets", "data 'digits'", "scikit-learn").load_digits()
    counts = torch.from_numpy(loaded.images)
    images = (counts * 255.0 / 16.0).round().to(torch.uint8).unsqueeze(1)
    return images, torch.from_numpy(loaded.target).to(torch.int64)


NAMED: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {"digits": digits}
DATA_NAMES = tuple(NAMED)


def _open_text(text: str, res: int | None, seed: int) -> Source:
    if text in NAMED:
        images, labels = NAMED[text]()
        return _in_memory(images, labels, text, res, seed)
    if not os.path.exists(text):
        close = difflib.get_close_matches(text, DATA_NAMES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"names: {', '.join(DATA_NAMES)}"
        raise FileNotFoundError(f"unknown data {text!r}: no such path and no such name; {hint}")
    if not os.access(text, os.R_OK | (os.X_OK if os.path.isdir(text) else 0)):
        raise PermissionError(f"cannot read data {text!r}: permission denied")
    if os.path.isdir(text) or text.lower().endswith(".zip"):
        return open_files(text, res=res, seed=seed)
    if text.lower().endswith(".npz"):
        return _in_memory(open_npz(text), None, text, res, seed)
    if is_idx(text):
        images, idx_labels = open_idx(text)
        return _in_memory(images, idx_labels, text, res, seed)
    raise ValueError(
        f"data {text!r} is neither a folder, a .zip or .npz with images, nor an IDX file"
    )


def _in_memory(
    images: Tensor, labels: Tensor | None, name: str, res: int | None, seed: int
) -> Source:
    check_images(images, name)
    if res is not None and images.shape[2:] != (res, res):
        if images.is_floating_point():
            images = to_uint8(images)
        images = resize_batch(images, res)
    return ImageSet(images, labels, name=name, seed=seed)


def _checked(source: Source, res: int | None) -> Source:
    if res is not None and tuple(source.shape[1:]) != (res, res):
        raise ValueError(
            f"data {source.name!r} gives {source.shape[1]}x{source.shape[2]} images, but res is "
            f"{res}; resize them in your own pipeline"
        )
    return source
