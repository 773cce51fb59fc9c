"""Peak memory of precision and recall, KID and MiFID, ours and the peers', each in its own process.

    python benchmarks/metric_memory.py [ROWS [DIM]]

Prints megabytes of resident memory above what was resident with both feature sets loaded. Linux.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from peer_metrics import (
    prdc_package,
    torch_fidelity_precision_recall,
    torchmetrics_all_pairs,
    torchmetrics_memorisation,
)

from ganops._timing import Arm
from ganops.metrics import kid, memorisation_distance, prdc


def arms(rows: int, dim: int) -> dict[str, Arm]:
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(rows, dim, generator=draw).abs_() for _ in range(2))
    return {
        "prdc: ganops": lambda: prdc(x, y, k=3),
        "prdc: torch-fidelity (precision, recall)": torch_fidelity_precision_recall(x, y, 3),
        "prdc: prdc": prdc_package(x, y, 3),
        "kid: ganops": lambda: kid(x, y),
        "kid: torchmetrics": torchmetrics_all_pairs(x, y),
        "mifid: ganops": lambda: memorisation_distance(x, y, over="real"),
        "mifid: torchmetrics": torchmetrics_memorisation(x, y),
    }


def resident(field: str) -> float:
    """Megabytes of VmRSS, or of its peak VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def one(name: str, rows: int, dim: int) -> None:
    try:
        arms(64, 8)[name]()  # imports and first calls are not what is measured
    except ImportError as error:
        print(f"{name:<42} not run: {error}")
        return
    arm = arms(rows, dim)[name]
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    arm()
    print(f"{name:<42} {resident('VmHWM') - before:8.0f} MB", flush=True)


if __name__ == "__main__":
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    dim = int(sys.argv[2]) if len(sys.argv) > 2 else 512
    if len(sys.argv) > 3:
        one(sys.argv[3], rows, dim)
    else:
        for each in arms(2, 1):
            subprocess.run([sys.executable, __file__, str(rows), str(dim), each], check=True)
