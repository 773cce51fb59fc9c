"""Builds the harness once a session, by the plain C++ compiler, into a temporary folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def harness(tmp_path_factory):
    """The scalar formulas as a Python module of NumPy functions."""
    pybind11 = pytest.importorskip("pybind11", reason="pybind11 is not installed")
    named = os.environ.get("CXX", "").split()
    compiler = named or [c for c in (shutil.which("g++"), shutil.which("clang++")) if c][:1]
    if not compiler:
        pytest.skip("no C++ compiler: neither CXX nor g++ nor clang++")
    library = tmp_path_factory.mktemp("harness") / "ganops_harness.so"
    includes = [ROOT / "csrc", pybind11.get_include(), sysconfig.get_path("include")]
    # As setup.py compiles the formulas, but for the level of optimisation, which costs time here.
    command = [
        *compiler, "-std=c++20", "-O1", "-ffp-contract=off", "-fno-math-errno",
        "-fno-trapping-math", "-fPIC", "-shared", "-fvisibility=hidden",
        *(f"-I{path}" for path in includes), str(Path(__file__).parent / "harness.cpp"),
        "-o", str(library),
    ]  # fmt: skip
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    spec = importlib.util.spec_from_file_location("ganops_harness", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
