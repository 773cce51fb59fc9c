"""The built libraries: what they import, that they load without a GPU, what lacking ones say."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ganops import _library

PACKAGE = _library.PACKAGE
ALLOWED = re.compile(r"^(aoti_torch_|torch_|_ITM_|__gmon_start__|__tls_get_addr$)")


def libraries() -> list[Path]:
    return sorted(PACKAGE.glob("_C*.so"))


def undefined(path: Path) -> list[str]:
    """Imported symbols that no C, C++ or GCC runtime library provides."""
    if shutil.which("nm") is None:
        pytest.skip("nm (binutils) is not installed")
    out = subprocess.run(["nm", "-D", "--undefined-only", path], capture_output=True, text=True)
    names = [line.split()[-1] for line in out.stdout.splitlines()]
    runtime = re.compile(r"@(GLIBC|GLIBCXX|CXXABI|GCC)_|^_ZN?K?[A-Z]*St|^_ZTVN10__cxxabi")
    return [n for n in names if not runtime.search(n)]


def test_the_cpu_library_is_built_and_loaded():
    if not _library.BUILD_INFO.get("native", True):
        pytest.skip("this install was made with GANOPS_NATIVE=0")
    assert _library.NATIVE.loaded, _library.NATIVE.missing
    assert PACKAGE / "_C.so" in libraries()


@pytest.mark.parametrize("path", libraries(), ids=lambda p: p.name)
def test_only_the_stable_abi_is_imported(path):
    names = undefined(path)
    assert any(n.startswith("aoti_torch_") for n in names)  # the filter did not drop everything
    strangers = [n for n in names if not ALLOWED.match(n)]
    assert strangers == []
    assert not [n for n in names if n.startswith(("Py", "_Py", "_ZN2at", "_ZN3c10"))]


@pytest.mark.parametrize("path", libraries(), ids=lambda p: p.name)
def test_needs_no_cuda_library(path):
    if shutil.which("readelf") is None:
        pytest.skip("readelf (binutils) is not installed")
    out = subprocess.run(["readelf", "-d", path], capture_output=True, text=True).stdout
    needed = re.findall(r"NEEDED.*\[(.+)\]", out)
    assert "libtorch_cpu.so" in needed
    assert not [n for n in needed if re.search(r"cuda|cublas|cudnn|python|nvidia", n)]


@pytest.mark.parametrize("path", libraries(), ids=lambda p: p.name)
def test_no_build_path_in_the_binary(path):
    root = str(PACKAGE.parent).encode() + b"/csrc"
    assert root not in path.read_bytes()


def test_cuda_library_loads_without_a_gpu_and_holds_the_archs():
    path = PACKAGE / "_C_cuda.so"
    if not path.exists():
        pytest.skip(f"no CUDA library: {_library.CUDA.missing}")
    ctypes.CDLL(str(path))
    triton = importlib.util.find_spec("triton")
    if triton is None or triton.origin is None:
        pytest.skip("no cuobjdump: it comes with triton, which is not installed")
    cuobjdump = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    listed = subprocess.run([cuobjdump, "--list-elf", path], capture_output=True, text=True).stdout
    built = set(re.findall(r"sm_(\d+)", listed))
    wanted = set(re.findall(r",code=sm_(\d+)", " ".join(_library.BUILD_INFO["archs"])))
    assert built == wanted
    if not os.environ.get("GANOPS_CUDA_ARCHS") and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        assert {"80", "90", "100"} <= built


def test_build_info_records_the_build():
    info = _library.read_build_info()
    assert info["version"]
    if info["native"]:
        assert info["torch_target"] == "2.11"
        assert info["jobs"] >= 1
    assert info["cuda"] is (PACKAGE / "_C_cuda.so").exists()


def _in_copy(folder: Path, code: str, **files: bytes) -> subprocess.CompletedProcess[str]:
    """Runs code against a copy of the package without its libraries, plus the files given."""
    unbuilt = shutil.ignore_patterns("*.so", "_build_info.json", "__pycache__")
    shutil.copytree(PACKAGE, folder / "ganops", ignore=unbuilt)
    for name, content in files.items():
        (folder / "ganops" / name.replace("__", ".")).write_bytes(content)
    return subprocess.run([sys.executable, "-W", "always", "-c", code], cwd=folder,
                          capture_output=True, text=True)  # fmt: skip


CODE = """
import torch, ganops
assert ganops.__file__.startswith({folder!r}), ganops.__file__
x = torch.ones(2, 3, requires_grad=True)
ganops.ops.penalty_from_gradient(x).backward()
print(ganops.ops.bias_act(x, act="relu").sum().item())
try:
    ganops.ops.bias_act(x, impl="native")
except RuntimeError as error:
    print(error)
"""


def test_an_install_without_a_compiler_works_and_says_what_it_lacks(tmp_path):
    """As pip does it, in a tree where an earlier build with a compiler left its description."""
    tree, built = tmp_path / "tree", tmp_path / "built"
    shutil.copytree(PACKAGE, tree / "ganops", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (tree / "ganops" / "_build_info.json").write_text('{"native": true, "compiler": "stale"}')
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PACKAGE.parent / name, tree)
    build = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(built)]
    done = subprocess.run(build, cwd=tree, capture_output=True, text=True,
                          env={**os.environ, "GANOPS_NATIVE": "0"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "native CPU kernels: no, installed with GANOPS_NATIVE=0" in done.stdout
    done = subprocess.run([sys.executable, "-W", "always", "-c", CODE.format(folder=str(built))],
                          cwd=built, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    value, refusal = done.stdout.splitlines()
    assert float(value) == pytest.approx(6 * 2**0.5)
    assert "installed with GANOPS_NATIVE=0" in refusal
    assert 'impl="reference" always can' in refusal
    assert "Warning" not in done.stderr


def test_a_library_that_does_not_load_is_said_at_import(tmp_path):
    done = _in_copy(tmp_path, CODE.format(folder=str(tmp_path)), _C__so=b"not a library")
    assert done.returncode == 0, done.stderr
    assert "was built but does not load under torch" in done.stderr
    assert "does not load" in done.stdout.splitlines()[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: doctor shows it")
def test_doctor_shows_everything_and_passes():
    done = subprocess.run(
        [sys.executable, "-m", "ganops", "doctor"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("torch ", "triton ", "native CPU", "native CUDA", "gradient_penalty on cpu",
                 "double backward", "all right"):  # fmt: skip
        assert text in done.stdout
