"""Every .cu file, without a GPU: compiles for three generations, spills nothing, needs no torch."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "csrc").rglob("*.cu"))
ARCHS = ("80", "90", "100")


def test_there_are_sources():
    assert {p.name for p in SOURCES} >= {"bias_act_cuda.cu", "gradient_penalty_cuda.cu"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_no_torch_header_is_included(path):
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for name in re.findall(r'#include [<"]([^>"]+)[>"]', file.read_text()):
            assert not re.match(r"(torch|ATen|c10|pybind11)/|Python\.h", name), f"{file}: {name}"
            if (file.parent / name).exists():
                waiting.append((file.parent / name).resolve())
    assert len(seen) > 1 or path.name == "cuda_error.cu"  # the walk did follow includes


# As torch's builds have it: halves that convert by themselves once chose the overload for bytes.
EXPLICIT = [
    "-D__CUDA_NO_HALF_OPERATORS__", "-D__CUDA_NO_HALF_CONVERSIONS__",
    "-D__CUDA_NO_BFLOAT16_CONVERSIONS__", "-D__CUDA_NO_HALF2_OPERATORS__",
]  # fmt: skip


@pytest.fixture(scope="module")
def nvcc() -> Path:
    toolkit = runpy.run_path(str(ROOT / "setup.py"))["find_cuda"](dict(os.environ))
    if toolkit is None:
        pytest.skip("no nvcc here: the CUDA sources were not compiled")
    return toolkit / "bin" / "nvcc"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_compiles_for_three_generations_without_spills(path, nvcc, tmp_path):
    archs = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHS]
    command = [nvcc, "-std=c++20", "-O3", "-Xptxas=-v", *archs, *EXPLICIT]
    command += ["-c", path, "-o", tmp_path / "x.o"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if path.name == "cuda_error.cu":
        return  # host code only
    report = done.stderr
    assert {a for a in ARCHS if f"for 'sm_{a}'" in report} == set(ARCHS)
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert spills
    assert set(spills) == {("0", "0")}
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", report)]
    # 64 registers let 1024 threads be resident on an SM; double kernels may take twice that.
    assert max(registers) <= 128
    assert sorted(registers)[len(registers) // 2] <= 64
