"""IDX, the format of MNIST: a big-endian header, then bytes. Plain or gzipped."""

from __future__ import annotations

import gzip
import math
import os
import zlib

import torch
from torch import Tensor

IMAGES, LABELS = 0x00000803, 0x00000801
GZIP = b"\x1f\x8b"


def is_idx(path: str) -> bool:
    """Does the file begin as IDX does, unpacked? A gzip named so counts, even if damaged."""
    with open(path, "rb") as file:
        head = file.read(4)
    if head[:2] == GZIP:
        named = ".gz" in path and "idx" in os.path.basename(path)
        return named or _head(path)[:3] == b"\0\0\x08"
    return head[:3] == b"\0\0\x08" or head[::-1][:3] == b"\0\0\x08"


def open_idx(path: str) -> tuple[Tensor, Tensor | None]:
    """Images (N, 1, H, W) uint8, and labels (N,) of the sister file `...labels-idx1...`, if any."""
    images = read_idx(path, IMAGES).unsqueeze(1)
    folder, name = os.path.split(path)
    sister = os.path.join(folder, name.replace("images", "labels").replace("idx3", "idx1"))
    if sister == path or not os.path.exists(sister):
        return images, None
    labels = read_idx(sister, LABELS).to(torch.int64)
    if len(labels) != len(images):
        raise ValueError(f"{sister} holds {len(labels)} labels for {len(images)} images")
    return images, labels


def read_idx(path: str, magic: int) -> Tensor:
    """The array in one IDX file. Raises ValueError for a wrong magic number or a wrong length."""
    try:
        with open(path, "rb") as file:
            content = file.read()
        if content[:2] == GZIP:
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a damaged gzip file: {error}") from error
    found = int.from_bytes(content[:4], "big")
    if found != magic:
        swapped = int.from_bytes(content[:4], "little") == magic
        why = "its bytes are swapped" if swapped else f"expected magic 0x{magic:08x}"
        raise ValueError(f"{path} is not such an IDX file: magic 0x{found:08x}, {why}")
    count = magic & 0xFF
    sizes = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(count)]
    start, expected = 4 + 4 * count, math.prod(sizes)
    if len(content) != start + expected or not expected:
        raise ValueError(
            f"{path} should hold {expected} bytes after its header (sizes {sizes}), "
            f"got {max(len(content) - start, 0)}"
        )
    flat = torch.frombuffer(bytearray(content), dtype=torch.uint8)[start:]
    return flat.reshape(sizes).clone()


def _head(path: str) -> bytes:
    try:
        with gzip.open(path, "rb") as file:
            return file.read(4)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return b""
