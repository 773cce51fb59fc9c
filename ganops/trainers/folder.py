"""The folder of a run: settings, log, pictures, checkpoints."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import torch

from ganops.methods import config
from ganops.trainers import checkpoint, pictures


def next_name(root: str, method: str, data: str) -> str:
    """``runs/00000-METHOD-DATA`` with the next free number."""
    taken = os.listdir(root) if os.path.isdir(root) else []
    numbers = [int(n[:5]) for n in taken if re.match(r"\d{5}-", n)]
    stem = re.sub(r"[^A-Za-z0-9]+", "-", os.path.splitext(os.path.basename(data))[0]).strip("-")
    return os.path.join(root, f"{max(numbers, default=-1) + 1:05d}-{method}-{stem or 'data'}")


def refuse_used(path: str) -> None:
    """Raises FileExistsError if `path` is a file or a folder that holds more than hidden files."""
    if os.path.isdir(path) and any(not name.startswith(".") for name in os.listdir(path)):
        resumable = os.path.isdir(os.path.join(path, "checkpoints"))
        more = f", or go on with: ganops resume {path}" if resumable else ""
        raise FileExistsError(f"output folder {path!r} is not empty; choose another --out{more}")
    if os.path.exists(path) and not os.path.isdir(path):
        raise FileExistsError(f"output folder {path!r} is a file; choose another --out")


class RunFolder:
    """Writes every file of a run except the contents of a checkpoint."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.checkpoints = os.path.join(path, "checkpoints")

    def at(self, *parts: str) -> str:
        return os.path.join(self.path, *parts)

    def create(self, settings: dict[str, Any]) -> None:
        """Make the folder and config.yaml. Raises OSError, naming the folder, if it cannot."""
        try:
            for path in (self.path, self.checkpoints, self.at("samples")):
                os.makedirs(path, exist_ok=True)
            text = config.dump_yaml(settings).encode()
            checkpoint.write_atomically(self.at("config.yaml"), text)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise type(error)(f"cannot write to output folder {self.path!r}: {reason}") from error

    def log(self, line: dict[str, Any]) -> None:
        with open(self.at("log.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """The log so far; a last line cut short by a crash is left out."""
        return read_log(self.path)

    def forget_after(self, step: int) -> float:
        """Drop log lines beyond `step` (a resumed run writes them anew). -> seconds spent so far"""
        kept = [line for line in self.lines() if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        checkpoint.write_atomically(self.at("log.jsonl"), text.encode())
        return float(kept[-1]["seconds"]) if kept else 0.0

    def save_samples(self, step: int, images: torch.Tensor) -> None:
        pictures.save_grid(self.at("samples", f"step-{step:06d}.png"), images)

    def save_curves(self, title: str) -> None:
        pictures.save_curves(self.at("curves.png"), self.lines(), title)


def read_log(run: str) -> list[dict[str, Any]]:
    """Lines of RUN/log.jsonl, a last one cut short left out. Raises ValueError for any other."""
    path = os.path.join(run, "log.jsonl")
    lines = []
    try:
        with open(path, "rb") as file:
            for number, text in enumerate(file, 1):
                if text.endswith(b"\n"):
                    lines.append(_log_line(text, f"{path}, line {number}"))
    except FileNotFoundError:
        return []
    return lines


def _log_line(text: bytes, where: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is damaged ({error}); remove that line") from error
    if not isinstance(line, dict) or any(type(v) not in (int, float) for v in line.values()):
        raise ValueError(f"{where} is damaged (expected names and numbers); remove that line")
    missing = {"step", "kimg", "seconds"} - set(line)
    if missing:
        raise ValueError(f"{where} lacks {', '.join(sorted(missing))}; remove that line")
    return line
