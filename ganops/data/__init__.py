"""Images in: named sets, files, tensors, loaders. Bytes stay bytes until they reach the device."""

from __future__ import annotations

from ganops.data.open import DATA_NAMES, open_data
from ganops.data.pixels import to_float, to_uint8
from ganops.data.source import ImageSet, LoaderSource, Source
from ganops.data.stream import ImageStream

__all__ = [
    "DATA_NAMES", "ImageSet", "ImageStream", "LoaderSource", "Source", "open_data", "to_float",
    "to_uint8",
]  # fmt: skip
