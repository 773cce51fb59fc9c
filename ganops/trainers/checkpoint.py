"""A checkpoint is a directory that is either complete or absent, whenever the process dies.

It is written under a hidden temporary name, every file is flushed to disk, then it is renamed; the
file `latest` is replaced in the same way afterwards. Tensors are stored as safetensors, all else as
JSON: loading a checkpoint executes nothing. SHA256SUMS, in the form of the tool `sha256sum`, covers
every file, and loading verifies it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ganops.data.extras import require

STATE_FILE, SUMS = "state.json", "SHA256SUMS"
LATEST = "latest"
HIDDEN = ".tmp-"
CURE = "restore it from a copy, or remove that folder to go on from an earlier checkpoint"


def pack(tree: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """A nested state -> JSON, its tensors moved into `tensors` under their paths."""
    if isinstance(tree, Tensor):
        tensors[path] = tree.detach().to("cpu", copy=True).contiguous()
        return {"~tensor": path}
    if isinstance(tree, Mapping):
        pairs = [[k, pack(v, tensors, f"{path}/{k}" if path else str(k))] for k, v in tree.items()]
        return {"~map": pairs}
    if isinstance(tree, (list, tuple)):
        entries = [pack(v, tensors, f"{path}/{i}") for i, v in enumerate(tree)]
        return {"~tuple": entries} if isinstance(tree, tuple) else entries
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    raise TypeError(f"state {path!r} holds a {type(tree).__name__}, which checkpoints cannot store")


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `pack`."""
    if isinstance(packed, list):
        return [unpack(v, tensors) for v in packed]
    if not isinstance(packed, dict):
        return packed
    if "~tensor" in packed:
        return tensors[packed["~tensor"]]
    if "~tuple" in packed:
        return tuple(unpack(v, tensors) for v in packed["~tuple"])
    return {k: unpack(v, tensors) for k, v in packed["~map"]}


def save(folder: str, name: str, parts: Mapping[str, Any], *, keep: int = 0) -> str:
    """Write checkpoint `name` under `folder` and point `latest` to it. -> its path

    `keep` > 0: older ones beyond the newest `keep` are removed afterwards.
    """
    final = write_folder(folder, name, parts)
    write_atomically(os.path.join(folder, LATEST), (name + "\n").encode())
    if keep:
        for old in names(folder)[:-keep]:
            if old != name:
                os.rename(os.path.join(folder, old), os.path.join(folder, f"{HIDDEN}old-{old}"))
        clear_unfinished(folder)
    return final


def write_folder(folder: str, name: str, parts: Mapping[str, Any]) -> str:
    """One safetensors file per part that has tensors, the rest as JSON, and checksums. -> path"""
    store = require("safetensors.torch", "writing checkpoints", "safetensors")
    final, hidden = os.path.join(folder, name), os.path.join(folder, HIDDEN + name)
    clear_unfinished(folder)
    os.makedirs(hidden)
    layout, sums = {}, {}

    def write(file: str, content: bytes) -> None:
        sums[file] = hashlib.sha256(content).hexdigest()
        _write(os.path.join(hidden, file), content)

    for part, tree in parts.items():
        tensors: dict[str, Tensor] = {}
        layout[part] = pack(tree, tensors)
        if tensors:
            write(f"{part}.safetensors", store.save(tensors))
    write(STATE_FILE, json.dumps({"format": 1, "parts": layout}, indent=1).encode())
    lines = "".join(f"{digest}  {file}\n" for file, digest in sums.items())
    _write(os.path.join(hidden, SUMS), lines.encode())
    _sync_folder(hidden)
    if os.path.exists(final):
        os.rename(final, os.path.join(folder, f"{HIDDEN}old-{name}"))
    os.rename(hidden, final)
    _sync_folder(folder)
    clear_unfinished(folder)
    return final


def load(path: str) -> dict[str, Any]:
    """The parts of one checkpoint. Raises ValueError, naming the file, if it is damaged."""
    store = require("safetensors.torch", "reading checkpoints", "safetensors")
    error_of = require("safetensors", "reading checkpoints").SafetensorError
    file = os.path.join(path, SUMS)
    try:
        with open(file, encoding="utf-8") as stream:
            sums = {name: digest for digest, name in (line.split() for line in stream)}
        if STATE_FILE not in sums:
            raise ValueError(f"no checksum of {STATE_FILE}")
        for name, digest in sums.items():
            file = os.path.join(path, name)
            if _checksum(file) != digest:
                raise ValueError("its checksum is wrong")
        file = os.path.join(path, STATE_FILE)
        with open(file, encoding="utf-8") as stream:
            layout = json.load(stream)["parts"]
        parts = {}
        for part, packed in layout.items():
            name = f"{part}.safetensors"
            file = os.path.join(path, name)
            parts[part] = unpack(packed, store.load_file(file) if name in sums else {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, error_of) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ValueError(
            f"checkpoint file {file} is missing or damaged ({reason}); {CURE}"
        ) from error
    return parts


@contextlib.contextmanager
def fitting(path: str) -> Iterator[None]:
    """Around the use of what `load(path)` gave: whatever does not fit is a ValueError naming it."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"checkpoint {path} lacks the entry {error}; {CURE}") from error
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torch lists every tensor on a line of its own
        raise ValueError(
            f"checkpoint {path} does not fit the networks and settings of this run: {reason}"
        ) from error


def names(folder: str) -> list[str]:
    """Complete checkpoints, oldest first."""
    if not os.path.isdir(folder):
        return []
    return sorted(filter(_is_name, os.listdir(folder)), key=lambda n: int(n[5:]))


def _is_name(text: str) -> bool:
    return re.fullmatch(r"step-[0-9]+", text) is not None


def latest(run: str) -> str:
    """Path of the checkpoint to go on from: what `latest` names.

    Where that is gone, or `latest` itself, the newest complete one serves and a warning says so.
    Raises FileNotFoundError if there is none, ValueError if `latest` names no checkpoint at all.
    """
    folder = os.path.join(run, "checkpoints")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{run!r} is not a run: it has no folder 'checkpoints'")
    present = names(folder)
    if not present:
        raise FileNotFoundError(f"{run!r} holds no complete checkpoint")
    pointer = os.path.join(folder, LATEST)
    try:
        with open(pointer, encoding="utf-8", errors="replace") as file:
            named = file.read().strip()
    except FileNotFoundError:
        named = None
    if named is not None and not _is_name(named):
        raise ValueError(
            f"{pointer} is damaged: expected the name of a checkpoint, got {named[:40]!r}; remove "
            f"it to go on from the newest complete one, {present[-1]}"
        )
    if named not in present:
        why = "there is no such file" if named is None else f"it names {named}, which is gone"
        warnings.warn(f"{pointer}: {why}; {present[-1]} is taken", RuntimeWarning, stacklevel=2)
        named = present[-1]
    return os.path.join(folder, named)


def clear_unfinished(folder: str) -> None:
    """Remove what a killed process left half-written or half-deleted."""
    for entry in os.listdir(folder):
        if entry.startswith(HIDDEN):
            path = os.path.join(folder, entry)
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


def write_atomically(path: str, content: bytes) -> None:
    """Replace a file in one step: the old or the new content, never a part."""
    folder, name = os.path.split(path)
    hidden = os.path.join(folder, HIDDEN + name)
    try:
        _write(hidden, content)
        os.replace(hidden, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(hidden)
        reason = (error.strerror or str(error)).lower()
        raise type(error)(f"cannot write {path!r}: {reason}") from error
    _sync_folder(folder)


def rng_state() -> dict[str, Any]:
    """torch's generators, for networks that draw from them (dropout)."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    saved = state.get("cuda", [])
    if saved and torch.cuda.is_available() and len(saved) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(saved)


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _checksum(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync_folder(path: str) -> None:
    handle = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
