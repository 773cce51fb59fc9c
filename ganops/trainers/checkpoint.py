"""A checkpoint is a directory that is either complete or absent, whenever the process dies.

It is written under a hidden temporary name, every file is flushed to disk, then it is renamed; the
file `latest` is replaced in the same way afterwards. Tensors are stored as safetensors, all else as
JSON: loading a checkpoint executes nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ganops.data.extras import require

STATE_FILE = "state.json"
LATEST = "latest"
HIDDEN = ".tmp-"


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
    clear_unfinished(folder)
    final = write_folder(folder, name, parts)
    write_atomically(os.path.join(folder, LATEST), (name + "\n").encode())
    if keep:
        for old in names(folder)[:-keep]:
            if old != name:
                os.rename(os.path.join(folder, old), os.path.join(folder, f"{HIDDEN}old-{old}"))
    clear_unfinished(folder)
    return final


def write_folder(folder: str, name: str, parts: Mapping[str, Any]) -> str:
    """One safetensors file per part that has tensors, the rest as JSON; complete or absent."""
    store = require("safetensors.torch", "writing checkpoints", "safetensors")
    final, hidden = os.path.join(folder, name), os.path.join(folder, HIDDEN + name)
    os.makedirs(hidden)
    layout = {}
    for part, tree in parts.items():
        tensors: dict[str, Tensor] = {}
        layout[part] = pack(tree, tensors)
        if tensors:
            _write(os.path.join(hidden, f"{part}.safetensors"), store.save(tensors))
    text = json.dumps({"format": 1, "parts": layout}, indent=1)
    _write(os.path.join(hidden, STATE_FILE), text.encode())
    _sync_folder(hidden)
    if os.path.exists(final):
        os.rename(final, os.path.join(folder, f"{HIDDEN}old-{name}"))
    os.rename(hidden, final)
    _sync_folder(folder)
    return final


def load(path: str) -> dict[str, Any]:
    """The parts of one checkpoint. Raises ValueError, naming the file, if it is damaged."""
    store = require("safetensors.torch", "reading checkpoints", "safetensors")
    error_of = require("safetensors", "reading checkpoints").SafetensorError
    file = os.path.join(path, STATE_FILE)
    try:
        with open(file, encoding="utf-8") as stream:
            layout = json.load(stream)["parts"]
        parts = {}
        for part, packed in layout.items():
            file = os.path.join(path, f"{part}.safetensors")
            tensors = store.load_file(file) if os.path.exists(file) else {}
            parts[part] = unpack(packed, tensors)
    except (OSError, ValueError, KeyError, error_of) as error:
        raise ValueError(f"checkpoint file {file} is missing or damaged: {error}") from error
    return parts


def names(folder: str) -> list[str]:
    """Complete checkpoints, oldest first."""
    if not os.path.isdir(folder):
        return []
    complete = [n for n in os.listdir(folder) if n.startswith("step-") and n[5:].isdigit()]
    return sorted(complete, key=lambda n: int(n[5:]))


def latest(run: str) -> str:
    """Path of the checkpoint to go on from: what `latest` names, else the newest complete one."""
    folder = os.path.join(run, "checkpoints")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{run!r} is not a run: it has no folder 'checkpoints'")
    present = names(folder)
    try:
        with open(os.path.join(folder, LATEST), encoding="utf-8") as file:
            named = file.read().strip()
    except FileNotFoundError:
        named = ""
    if named not in present and not present:
        raise FileNotFoundError(f"{run!r} holds no complete checkpoint")
    return os.path.join(folder, named if named in present else present[-1])


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
    _write(hidden, content)
    os.replace(hidden, path)
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


def _sync_folder(path: str) -> None:
    handle = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
