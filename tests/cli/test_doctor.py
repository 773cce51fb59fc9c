"""`ganops doctor`: it reports whatever is wrong and never falls over."""

from __future__ import annotations

import os
import re
import sys
import types
from pathlib import Path

import pytest
import torch

import ganops
from ganops import _dispatch, _library
from ganops.cli import doctor, main

MACROS = Path(__file__).parents[2] / "csrc" / "common" / "macros.h"
DEBIAN = "c++ (Debian 12.2.0-14+deb12u1) 12.2.0"
WIDE = doctor._AVX512
NARROW = doctor._AVX2


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="then Triton serves the CPU")
def test_an_implementation_that_cannot_serve_is_reported(capsys, monkeypatch) -> None:
    monkeypatch.setenv("GANOPS_IMPL", "triton")
    with ganops.use_impl("triton"):
        assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "GANOPS_IMPL=triton is set" in out
    for op in _dispatch.AUTO:
        assert f"{op} on cpu: refuses: impl='triton' cannot serve cpu tensors: Triton runs" in out
    assert "all right" in out


def test_triton_says_its_own_version_or_why_not(monkeypatch) -> None:
    monkeypatch.setattr(_dispatch, "triton_importable", lambda: True)
    monkeypatch.setattr(_dispatch, "triton_interprets", lambda: False)
    monkeypatch.setitem(sys.modules, "triton", types.SimpleNamespace(__version__="9.9"))
    assert doctor._triton() == "9.9"
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "installed, but importing it fails: ModuleNotFoundError" in doctor._triton()
    monkeypatch.setattr(_dispatch, "triton_importable", lambda: False)
    assert doctor._triton().startswith("not installed")


@pytest.mark.parametrize(
    ("compiler", "system", "machine", "flags", "start"),
    [
        (DEBIAN, "Linux", "x86_64", WIDE, "AVX512 (arch=x86-64-v4;"),
        (DEBIAN, "Linux", "x86_64", WIDE - {"avx512vl"}, "AVX2 (arch=x86-64-v3;"),
        (DEBIAN, "Linux", "x86_64", NARROW - {"fma"}, "baseline (this processor"),
        ("g++ (Ubuntu 11.4.0-1) 11.4.0", "Linux", "x86_64", {"avx2", "avx512f"}, "AVX512 (avx512f"),
        ("g++ (Ubuntu 11.4.0-1) 11.4.0", "Linux", "x86_64", {"avx2"}, "AVX2 (avx2;"),
        ("c++ (GCC) 13.2.1 20231205", "Linux", "x86_64", NARROW, "AVX2 (arch=x86-64-v3;"),
        (DEBIAN, "Linux", "aarch64", set(), "baseline (several"),
        ("Debian clang version 14.0.6", "Linux", "x86_64", WIDE, "baseline (several"),
        ("Apple clang version 15.0.0 (clang-1500.3.9.4)", "Darwin", "x86_64", WIDE, "baseline ("),
        ("Intel(R) oneAPI DPC++/C++ Compiler (icx) 2024.0", "Linux", "x86_64", WIDE, "baseline ("),
        ("unknown", "Linux", "x86_64", WIDE, "baseline (several"),
    ],
)
def test_the_cpu_path(compiler, system, machine, flags, start) -> None:
    assert doctor.cpu_path(compiler, system, machine, flags).startswith(start)


def test_the_cpu_targets_are_those_of_the_macro() -> None:
    named = re.findall(r"target_clones\((.*?)\)\)\)", MACROS.read_text())
    targets = [re.findall(r'"([^"]+)"', each) for each in named]
    assert targets == [[*t, "default"] for t in doctor._CLONES.values()]


def test_the_cpu_path_agrees_with_torch(capsys) -> None:
    if not _library.NATIVE.loaded or os.environ.get("ATEN_CPU_CAPABILITY"):
        pytest.skip("no native library, or torch was told what to use")
    assert main(["doctor", "--no-test"]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("CPU path")]
    if "baseline (several" not in line:
        known = {"AVX512": "AVX512", "AVX2": "AVX2", "DEFAULT": "baseline"}
        assert known[torch.backends.cpu.get_cpu_capability()] in line
