"""What the numbers were measured on: machine, versions, allocator, and the machine's own limits."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from device import Clock

from ganops import _dispatch
from ganops._timing import calibrate, copy_arm, interleave, spread, torch_threads

# glibc gives large blocks back to the system at every free and faults them in again at the next
# allocation; with these three it keeps them, and the arms pay for arithmetic and traffic alone.
RETAINED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "67108864",
}
FLAGS = [
    "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "avx512_fp16",
    "avx512_vnni", "amx_tile", "amx_bf16", "asimd", "bf16", "sve", "sve2",
]  # fmt: skip


def allocator(environment: Mapping[str, str] = os.environ) -> str:
    """ "default", "retained" (the three variables above) or "custom"."""
    ours = {name: value for name, value in environment.items() if name.startswith("MALLOC_")}
    others = {"GLIBC_TUNABLES", "LD_PRELOAD"} & environment.keys()
    if ours == RETAINED and not others:
        return "retained"
    return "custom" if ours or others else "default"


def cpuinfo(text: str) -> tuple[str, list[str]]:
    """(model name, the instruction sets that matter here) from /proc/cpuinfo's text."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    present = (fields.get("flags") or fields.get("Features") or "").split()
    return fields.get("model name", ""), [flag for flag in FLAGS if flag in present]


def slug(cpu: str, isa: Sequence[str], cores: int, gpu: str | None) -> str:
    """A file name such as "amd-epyc-avx512-2c": the type of machine, never whose it is."""
    plain = re.sub(r"\((r|tm)\)|@.*|\bcpu\b|\bprocessor\b|\d+-core", " ", cpu.lower())
    level = next((name for name in ("avx512", "avx2", "sve", "asimd") if name in " ".join(isa)), "")
    words = [gpu.lower() if gpu else "", plain, level, f"{cores}c"]
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words)).strip("-")


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    cpu, isa = cpuinfo(info.read_text()) if info.is_file() else ("", [])
    cpu = cpu or platform.processor() or platform.machine()
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "slug": slug(cpu, isa, cores, gpu),
        "cpu": cpu,
        "architecture": platform.machine(),
        "cores": cores,
        "ram_gib": round(ram),
        "isa": isa,
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpu,
    }


def first_line(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    import ganops

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": version_of("triton"),
        "ganops": getattr(ganops, "__version__", None) or version_of("ganops"),
        "compiler": first_line(os.environ.get("CXX", "c++"), "--version"),
        "cuda": torch.version.cuda,
        "system": f"{sys.platform} {platform.libc_ver()[0]} {platform.libc_ver()[1]}".strip(),
    }


def served_by(impl: str, device: str) -> dict[str, str]:
    """Which implementation runs each op here, as the dispatcher answers; it raises if none can."""
    kind = torch.device(device)
    return {op: _dispatch.choose(op, impl, kind, torch.float32) for op in _dispatch.AUTO}


def revision(root: Path) -> str | None:
    """The commit being measured, "+" appended if files differ from it; None outside git."""
    commit = first_line("git", "-C", str(root), "rev-parse", "--short=12", "HEAD")
    if commit is None:
        return None
    changed = first_line(
        "git",
        "--no-optional-locks",
        "-C",
        str(root),
        "status",
        "--porcelain",
        "--",
        "csrc",
        "ganops",
    )
    return commit + ("+" if changed else "")


def limits(clock: Clock, device: str, *, quick: bool) -> dict[str, float]:
    """Copy bandwidth (read + write, GB/s) and GEMM rate (GFLOP/s) of this machine."""
    side = 64 if quick else (4096 if device == "cuda" else 1024)
    footprints = [2**16] if quick else [2**20, 2**24, 2**28]
    work: dict[str, tuple[Any, float]] = {}
    for nbytes in footprints:
        label = f"copy, {nbytes / 2**20:g} MiB moved, GB/s"
        work[label] = (copy_arm(nbytes, device=device), nbytes)
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        label = f"gemm, {side}^3 {str(dtype).removeprefix('torch.')}, GFLOP/s"
        work[label] = (lambda a=left, b=right: a @ b, 2.0 * side**3)
    arms = {name: arm for name, (arm, _) in work.items()}
    with torch_threads(clock.threads):
        calls = {
            name: 1 if quick else calibrate(arm, clock.now, 2e-2)[0] for name, arm in arms.items()
        }
        times = interleave(arms, now=clock.now, rounds=3 if quick else 11, calls=calls)
    return {name: amount / 1e9 / spread(times[name]).median for name, (_, amount) in work.items()}
