"""Two processes of a test's own file, which meet in a folder and leave their results there."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

SECONDS = 100  # for both to end


def meet(rank, folder):
    """In each process, first."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank,
                            world_size=2, timeout=timedelta(seconds=SECONDS / 2))  # fmt: skip


def run_two(file, folder):
    """`python file RANK FOLDER` twice at once. -> what each saved as FOLDER/RANK.pt."""
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("this torch has no gloo")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([sys.executable, file, str(rank), str(folder)], env=environment,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [p.communicate(timeout=SECONDS)[0] for p in running]
    finally:
        for p in running:
            p.kill()
    assert [p.returncode for p in running] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]
