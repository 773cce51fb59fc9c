"""setup.py's decisions, as pure functions: what runs here only poses as a compiler."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def setup_module_() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ganops_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # guarded by __main__: builds nothing
    return module


@pytest.fixture
def toolkit(tmp_path: Path) -> Path:
    nvcc = tmp_path / "cuda" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(
        '#!/bin/sh\n[ "$1" = --list-gpu-arch ] && printf "compute_80\\ncompute_90\\n"\n'
    )
    nvcc.chmod(0o755)
    return nvcc.parents[1]


NOWHERE = {"PATH": "/nonexistent"}


@pytest.mark.parametrize("variable", ["CUDA_HOME", "CUDA_PATH"])
def test_find_cuda_by_variable(setup_module_, toolkit, variable):
    assert setup_module_.find_cuda({**NOWHERE, variable: str(toolkit)}, "/none") == toolkit


def test_find_cuda_on_path_and_at_the_default_place(setup_module_, toolkit):
    assert setup_module_.find_cuda({"PATH": str(toolkit / "bin")}, "/none") == toolkit
    assert setup_module_.find_cuda(NOWHERE, str(toolkit)) == toolkit


def test_find_cuda_asks_a_wrapper_script_where_its_toolkit_is(setup_module_, toolkit, tmp_path):
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "#$ TOP={toolkit}" >&2\n')
    wrapper.chmod(0o755)
    assert setup_module_.find_cuda({"PATH": str(wrapper.parent)}, "/none") == toolkit


def test_find_cuda_passes_over_a_folder_without_nvcc(setup_module_, toolkit, tmp_path):
    env = {**NOWHERE, "CUDA_HOME": str(tmp_path / "gone"), "CUDA_PATH": str(toolkit)}
    assert setup_module_.find_cuda(env, "/none") == toolkit
    assert setup_module_.find_cuda(NOWHERE, "/none") is None


def test_archs_default_is_cut_to_the_toolkit(setup_module_):
    flags = setup_module_.pick_archs({}, {"8.0", "9.0"})
    assert flags == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_90,code=compute_90",
    ]
    everything = " ".join(setup_module_.pick_archs({}))
    assert all(f"sm_{n}" in everything for n in (80, 90, 100))
    with pytest.raises(ValueError, match="builds none of"):
        setup_module_.pick_archs({}, {"3.5"})


def test_archs_from_the_environment(setup_module_):
    assert setup_module_.pick_archs({"TORCH_CUDA_ARCH_LIST": "8.6 9.0a+PTX"}) == [
        "-gencode=arch=compute_86,code=sm_86",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_90a,code=compute_90a",
    ]
    both = {"GANOPS_CUDA_ARCHS": "native", "TORCH_CUDA_ARCH_LIST": "8.0"}
    assert setup_module_.pick_archs(both) == ["-arch=native"]
    with pytest.raises(ValueError, match=r"got 'Hopper' in '8\.0;Hopper'"):
        setup_module_.pick_archs({"GANOPS_CUDA_ARCHS": "8.0;Hopper"})


@pytest.mark.parametrize(
    ("env", "cores", "gib", "jobs"),
    [({}, 16, 64, 16), ({}, 16, 9, 3), ({}, 8, 1, 1), ({"MAX_JOBS": "5"}, 2, 1, 5)],
)
def test_jobs(setup_module_, env, cores, gib, jobs):
    assert setup_module_.pick_jobs(env, cores, gib << 30) == jobs


@pytest.mark.parametrize("bad", ["0", "-1", "many"])
def test_jobs_refuse_nonsense(setup_module_, bad):
    with pytest.raises(ValueError, match="MAX_JOBS"):
        setup_module_.pick_jobs({"MAX_JOBS": bad}, 2, 8 << 30)


def test_describe_build(setup_module_, toolkit, monkeypatch):
    describe = setup_module_.describe_build
    none = {**NOWHERE}
    found = {**NOWHERE, "CUDA_HOME": str(toolkit)}
    monkeypatch.setattr(
        setup_module_, "find_cuda", lambda env: toolkit if "CUDA_HOME" in env else None
    )
    assert describe({**found, "GANOPS_CUDA": "0"})["cuda_reason"] == "built with GANOPS_CUDA=0"
    assert describe(found)["cuda"] == str(toolkit)
    assert "sm_90" in " ".join(describe(found)["archs"])
    reason = describe(none)["cuda_reason"]
    assert all(place in reason for place in ("CUDA_HOME", "CUDA_PATH", "PATH", "/usr/local/cuda"))
    with pytest.raises(SystemExit, match=r"GANOPS_CUDA=1, but no CUDA toolkit.*module load cuda"):
        describe({**none, "GANOPS_CUDA": "1"})
    without = describe({**found, "GANOPS_NATIVE": "0"})
    assert without["native"] is False
    assert setup_module_.extensions(without) == []
    with pytest.raises(SystemExit, match="GANOPS_CUDA=1 needs GANOPS_NATIVE=1"):
        describe({**found, "GANOPS_NATIVE": "0", "GANOPS_CUDA": "1"})
    with pytest.raises(SystemExit, match="got '1' and 'yes'"):
        describe({**none, "GANOPS_CUDA": "yes"})
    with pytest.raises(SystemExit, match="got 'Hopper'"):
        describe({**found, "GANOPS_CUDA_ARCHS": "Hopper"})
    with pytest.raises(SystemExit, match=r"Linux only, this is Windows.*GANOPS_NATIVE=0"):
        describe(found, "Windows")
    assert describe({"GANOPS_NATIVE": "0"}, "Windows")["native"] is False


def compiler(tmp_path: Path, says: str, version: str) -> dict[str, str]:
    fake = tmp_path / "cxx"
    fake.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{says}" || echo "{version}"\n')
    fake.chmod(0o755)
    return {"CXX": str(fake)}


def test_the_compiler_is_named_or_one_sentence_says_what_to_do(setup_module_, tmp_path):
    find = setup_module_.find_compiler
    assert find(compiler(tmp_path, "g++ (Distro) 12.2.0", "12.2.0")) == "g++ (Distro) 12.2.0"
    assert find(compiler(tmp_path, "Ubuntu clang version 9.0", "9.0")).startswith("Ubuntu clang")
    with pytest.raises(SystemExit, match=r"needs g\+\+ 11 or newer.*is 9\.4\.0.*GANOPS_NATIVE=0"):
        find(compiler(tmp_path, "g++ (Distro) 9.4.0", "9.4.0"))
    with pytest.raises(SystemExit, match=r"'no-such-compiler' does not run.*GANOPS_NATIVE=0"):
        find({"CXX": "no-such-compiler"})


def test_summary_names_what_is_lacking(setup_module_, monkeypatch):
    monkeypatch.setattr(setup_module_, "find_cuda", lambda env: None)
    info = setup_module_.describe_build({})
    text = setup_module_.summary(info)
    assert "CUDA kernels: no, no CUDA toolkit was found" in text
    assert "Triton" in text


def test_every_op_folder_is_built(setup_module_):
    folders = {p.name for p in (ROOT / "csrc").iterdir() if p.is_dir()} - {"common"}
    assert folders == set(setup_module_.OPS)
    named = {s for e in setup_module_.extensions({"native": True, "cuda": "/x", "archs": []})
             for s in e.sources}  # fmt: skip
    on_disk = {
        str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.c*") if p.suffix != ".cuh"
    }
    assert named == on_disk


def test_metadata_needs_no_torch(tmp_path):
    """`python setup.py --version` in a process where importing torch fails."""
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=ROOT, capture_output=True, text=True,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "GANOPS_CUDA": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "0.1.0"
