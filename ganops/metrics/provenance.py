"""What features came from, and the files that keep statistics together with it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Provenance:
    """Of features: extractor, SHA-256 of its weights, resize mode, dtype of its computation.

    None is unknown. Statistics merge if these are equal; they are compared unless two known ones
    differ.
    """

    extractor: str | None = None
    weights_sha256: str | None = None
    resize: str | None = None
    dtype: str | None = None

    def differences(self, other: Provenance, *, unknown_differs: bool) -> list[str]:
        """ "resize: 'tf' and 'clean'" for each that differs."""
        found = []
        for name, mine in asdict(self).items():
            theirs = getattr(other, name)
            if mine != theirs and (unknown_differs or None not in (mine, theirs)):
                found.append(f"{name}: {mine!r} and {theirs!r}")
        return found


NAMES = tuple(field.name for field in fields(Provenance))


def write(
    path: str | os.PathLike[str], mean: Tensor, cov: Tensor, n: int | None, origin: Provenance
) -> None:
    """mu, sigma, n and what is known of `origin` -> npz, whole or not at all."""
    arrays: dict[str, Any] = {"mu": mean.cpu().numpy(), "sigma": cov.cpu().numpy()}
    if n is not None:
        arrays["n"] = np.int64(n)
    arrays |= {k: np.array(v) for k, v in asdict(origin).items() if v is not None}
    target = os.path.abspath(os.fspath(path))
    handle, temporary = tempfile.mkstemp(suffix=".tmp", dir=os.path.dirname(target))
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's is its owner's alone
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def read(path: str | os.PathLike[str]) -> tuple[Tensor, Tensor, int | None, Provenance]:
    """(mu, sigma, n, origin); n is None in other tools' files. Pickles are refused."""
    name = os.fspath(path)
    try:
        loaded = np.load(name, allow_pickle=False)
        if not hasattr(loaded, "files"):
            raise ValueError("one array")
        with loaded as file:
            found = {key: file[key] for key in file.files if key in ("mu", "sigma", "n", *NAMES)}
            keys = list(file.files)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{name}: expected an npz file of arrays, got {error}") from error
    if "mu" not in found or "sigma" not in found:
        raise ValueError(f"{name}: expected the keys mu and sigma, got {', '.join(keys) or 'none'}")
    mean, cov = (_floats(name, key, found[key]) for key in ("mu", "sigma"))
    if mean.ndim != 1 or cov.shape != (mean.shape[0], mean.shape[0]):
        raise ValueError(
            f"{name}: expected mu (d,) and sigma (d, d), got {tuple(mean.shape)} and "
            f"{tuple(cov.shape)}"
        )
    if len(cov) and bool((cov - cov.mT).abs().max() > 1e-5 * cov.abs().max()):
        raise ValueError(f"{name}: expected sigma to be symmetric, got one that is not")
    n = None
    if "n" in found:
        if found["n"].shape != () or found["n"].dtype.kind not in "iu" or found["n"] < 2:
            raise ValueError(f"{name}: expected n as an integer >= 2, got {found['n']!r}")
        n = int(found["n"])
    origin = Provenance(**{key: str(found[key]) for key in NAMES if key in found})
    return mean, cov, n, origin


def _floats(name: str, key: str, array: np.ndarray) -> Tensor:
    if array.dtype.kind != "f":
        raise ValueError(f"{name}: expected {key} as floating numbers, got {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers in {key}, got NaN or infinity")
    return torch.from_numpy(array.astype(np.float64))
