"""A folder of images, or a zip of them, with labels from `dataset.json` or from class folders."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganops.data.extras import require
from ganops.data.resize import as_tensor, fit
from ganops.data.source import ImageSet

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
IN_MEMORY_BYTES = 256 << 20  # decoded sets up to this size are kept, and checked before training
LABEL_FILE = "dataset.json"
NUMBERED = re.compile(r"\d{5}/img\d{8}\.\w+")


def open_files(path: str, *, res: int | None = None, seed: int = 0, once: bool = False) -> ImageSet:
    """The images under a folder (nested) or in a zip, in sorted order of their names.

    Without `res` all must have one size. The first image decides grey or colour; palette and CMYK
    images become RGB and grey ones in a colour set too; alpha, 16-bit and unreadable images are
    errors that name the entry. Labels: `dataset.json` at the root, else one class per first-level
    folder if every image lies in one. `once`: for one pass; nothing is decoded before it is asked.
    """
    archive = Archive(path)
    names = archive.image_names()
    if not names:
        raise ValueError(f"data {path!r} holds no images ({', '.join(EXTENSIONS)})")
    decoder = Decoder(archive, res)
    first = decoder.decode(names[0])
    decoder.expect(first, names[0])
    labels = _labels(archive, names)
    shape = (first.shape[0], first.shape[1], first.shape[2])

    def digest(hashed: Any) -> None:
        hashed.update(repr((res, decoder.mode)).encode())
        for name in names:
            hashed.update(hashlib.sha256(archive.read(name)).digest())

    if not once and len(names) * first.numel() <= IN_MEMORY_BYTES:
        images = torch.stack([decoder.decode(n) for n in names])
        return ImageSet(images, labels, name=path, seed=seed)

    def read(indices: Sequence[int]) -> Tensor:
        return torch.stack([decoder.decode(names[i]) for i in indices])

    return ImageSet(
        read, labels, name=path, seed=seed, length=len(names), shape=shape, digest=digest
    )


class Archive:
    """Uniform access to a folder or a zip. The zip handle is opened once per process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._owner = -1

    def image_names(self) -> list[str]:
        return sorted(n for n in self.names() if n.lower().endswith(EXTENSIONS))

    def names(self) -> list[str]:
        if not os.path.isdir(self.path):
            return [n for n in self._opened().namelist() if not n.startswith("__MACOSX/")]

        def fail(error: OSError) -> None:
            raise PermissionError(f"cannot read folder {error.filename!r}: {error.strerror}")

        found = []
        for folder, _, files in os.walk(self.path, onerror=fail):
            relative = os.path.relpath(folder, self.path)
            found += [os.path.normpath(os.path.join(relative, f)) for f in files]
        return [n.replace(os.sep, "/") for n in found]

    def read(self, name: str) -> bytes:
        if os.path.isdir(self.path):
            with open(os.path.join(self.path, name), "rb") as file:
                return file.read()
        try:
            return self._opened().read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise ValueError(f"{self.path}: entry {name!r} is damaged: {error}") from error

    def _opened(self) -> zipfile.ZipFile:
        if self._zip is None or self._owner != os.getpid():
            try:
                self._zip, self._owner = zipfile.ZipFile(self.path), os.getpid()
            except (zipfile.BadZipFile, EOFError) as error:
                raise ValueError(f"{self.path} is not a readable zip file: {error}") from error
        return self._zip


class Decoder:
    """Bytes of an entry -> uint8 (C, H, W), all alike; every error names the entry."""

    def __init__(self, archive: Archive, res: int | None) -> None:
        self.archive, self.res = archive, res
        self.mode: str | None = None
        self.size: tuple[int, ...] | None = None
        self.first = ""

    def expect(self, image: Tensor, name: str) -> None:
        """From now on every image must have the form of this one."""
        self.mode, self.size, self.first = ("L", "RGB")[image.shape[0] == 3], image.shape, name

    def decode(self, name: str) -> Tensor:
        image = as_tensor(self._open(name))
        if self.size is not None and image.shape != self.size:
            raise ValueError(
                f"{self._at(name)} has shape {tuple(image.shape)}, but {self.first!r} has "
                f"{tuple(self.size)}; give --res to crop and resize all"
            )
        return image

    def _open(self, name: str) -> Any:
        pillow = require("PIL.Image", "reading image files", "pillow")
        transposed = require("PIL.ImageOps", "reading image files", "pillow").exif_transpose
        content = self.archive.read(name)
        try:
            image = pillow.open(io.BytesIO(content))
            image.load()
            image = transposed(image)
        except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
            reason = "it is empty" if not content else str(error).split(" <")[0]
            raise ValueError(f"{self._at(name)} cannot be decoded: {reason}") from error
        image = self._convert(image, name)
        return image if self.res is None else fit(image, self.res)

    def _convert(self, image: Any, name: str) -> Any:
        if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
            raise ValueError(f"{self._at(name)} has an alpha channel; flatten it first")
        if image.mode in ("1", "L"):
            grey = True
        elif image.mode in ("RGB", "P", "CMYK", "YCbCr", "LAB", "HSV"):
            grey = False
        else:
            raise ValueError(f"{self._at(name)} has mode {image.mode}; 8 bits per channel expected")
        if self.mode == "L" and not grey:
            raise ValueError(f"{self._at(name)} is in colour, but {self.first!r} is grey")
        return image.convert(self.mode or ("L" if grey else "RGB"))

    def _at(self, name: str) -> str:
        return f"{self.archive.path}: image {name!r}"


def _labels(archive: Archive, names: list[str]) -> Tensor | None:
    listed = archive.names()
    if LABEL_FILE in listed:
        return _labels_from_json(archive, names)
    classes = sorted({n.split("/")[0] for n in names})
    numbered = all(NUMBERED.fullmatch(n) for n in names)  # the zip layout unpacked: not classes
    nested = all("/" in n for n in names) and len(classes) > 1
    if os.path.isdir(archive.path) and nested and not numbered:
        return torch.tensor([classes.index(n.split("/")[0]) for n in names])
    return None


def _labels_from_json(archive: Archive, names: list[str]) -> Tensor | None:
    where = f"{archive.path}: {LABEL_FILE}"
    try:
        listed = json.loads(archive.read(LABEL_FILE))["labels"]
        if listed is None:
            return None
        table = {str(name): label for name, label in listed}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{where} must be {{"labels": [[name, label], ...]}} or null') from error
    for name in names:
        if name not in table:
            raise ValueError(f"{where} has no label for {name!r}")
    chosen = [table[name] for name in names]
    if all(type(label) is int and label >= 0 for label in chosen):
        return torch.tensor(chosen, dtype=torch.int64)
    wrong = f"{where}: labels must all be class numbers >= 0 or all vectors of one length"
    try:
        vectors = torch.tensor(chosen, dtype=torch.float32)
    except (ValueError, TypeError) as error:
        raise ValueError(wrong) from error
    if vectors.ndim != 2:
        raise ValueError(wrong)
    return vectors
