"""Images in an .npz file, as ``ganops sample --out FILE.npz`` and diffusion code write them."""

from __future__ import annotations

import zipfile

import torch
from torch import Tensor

KEYS = ("images", "arr_0")


def open_npz(path: str) -> Tensor:
    """The array `images` (else `arr_0`), uint8 (N, H, W, C) or (N, H, W). -> (N, C, H, W)

    Raises ValueError, naming the file, for one that is damaged or holds anything else; pickled
    objects are never loaded.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            keys = list(file.files)
            found = next((key for key in KEYS if key in keys), None)
            array = None if found is None else file[found]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable .npz file of arrays: {error}") from error
    if array is None:
        raise ValueError(f"{path}: expected images under {' or '.join(KEYS)}, got the keys {keys}")
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise ValueError(
            f"{path}: {found} must be uint8 (N, H, W, C) or (N, H, W), got {array.dtype} "
            f"{array.shape}"
        )
    images = torch.from_numpy(array[..., None] if array.ndim == 3 else array)
    if images.shape[3] > 4:
        raise ValueError(f"{path}: {found} must have its channels last, got shape {array.shape}")
    return images.permute(0, 3, 1, 2).contiguous()
