"""The laws of the tree: one stem per op, dependencies point down, files stay short."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ganops"
OPS = sorted(p.name for p in (ROOT / "csrc").iterdir() if p.is_dir() and p.name != "common")

# Who may import whom: a unit imports its own level's units named here, and nothing else of ganops.
MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "_library": set(),
    "_timing": set(),
    "_dispatch": {"_library"},
    "ops": {"_dispatch", "_library"},
    "nn": {"ops", "_dispatch"},
    "metrics": {"ops", "data"},
    "data": {"ops"},
    "losses": {"ops", "nn"},
    "regularizers": {"ops", "nn"},
    "models": {"ops", "nn"},
    "methods": {"models", "losses", "regularizers", "nn", "ops", "data"},
    "trainers": {
        "methods", "models", "losses", "regularizers", "nn", "ops", "metrics", "data", "_version",
    },
    "cli": {
        "trainers", "methods", "models", "losses", "regularizers", "nn", "ops", "metrics", "data",
        "_dispatch", "_library", "_timing", "_version",
    },
    "__main__": {"cli"},
    "__init__": {"_version", "_dispatch", "ops", "nn", "methods", "trainers"},
}  # fmt: skip


def python_files(*folders: str) -> list[Path]:
    return [p for f in folders for p in sorted((ROOT / f).rglob("*.py"))]


def unit_of(path: Path) -> str:
    """The top-level part of ganops that a file belongs to."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imported_units(path: Path) -> set[str]:
    """Top-level parts of ganops that a file imports, anywhere in it, lazily or not."""
    package = ("ganops", *path.relative_to(PACKAGE).parts[:-1])
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            names = [f"{module}.{a.name}" for a in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "ganops" and len(parts) > 1:
                found.add(parts[1])
    # Names that ganops itself exports, not parts of it.
    return found - {"__version__", "use_impl", "optimize"}


def test_the_dependency_table_covers_the_package():
    units = {unit_of(p) for p in python_files("ganops")}
    assert units <= set(MAY_IMPORT), "give the new part a row: what may it import?"


@pytest.mark.parametrize("path", python_files("ganops"), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_dependencies_point_down(path):
    unit = unit_of(path)
    assert imported_units(path) - {unit} <= MAY_IMPORT[unit]


def test_the_import_reader_sees_relative_and_lazy_imports():
    seen = imported_units(PACKAGE / "ops" / "bias_act" / "__init__.py")
    assert {"_dispatch", "ops"} <= seen
    assert "metrics" in imported_units(PACKAGE / "cli" / "demo.py")


@pytest.mark.parametrize("op", OPS)
def test_one_stem_shows_an_ops_whole_life(op):
    expected = [
        *(f"csrc/{op}/{op}_{part}" for part in ("math.h", "cpu.cpp", "cuda.cu", "cuda_bind.cpp")),
        *(f"ganops/ops/{op}/{part}.py"
          for part in ("__init__", "reference", "triton_kernels", "autograd")),
        f"tests/ops/test_{op}.py",
        f"benchmarks/bench_{op}.py",
    ]  # fmt: skip
    assert [name for name in expected if not (ROOT / name).is_file()] == []
    # Where orders 0 and 1 are torch's own, the op is the second alone.
    assert re.search(rf'"{op}(_grad\d?)?"', (ROOT / "csrc" / "library.cpp").read_text())


# Twins: torch's own kernels are at the limit, what they add is the structure of the derivatives.
TWINS = {"conv", "piecewise_linear", "pooling"}


def test_python_and_csrc_name_the_same_ops():
    from ganops import _dispatch

    folders = {p.parent.name for p in (PACKAGE / "ops").glob("*/__init__.py")}
    assert folders - TWINS == set(OPS) == set(_dispatch.AUTO)
    assert folders >= TWINS


@pytest.mark.parametrize("twin", sorted(TWINS))
def test_a_twin_has_its_derivatives_and_its_test(twin):
    assert (PACKAGE / "ops" / twin / "autograd.py").is_file()
    named = (ROOT / "tests" / "ops").glob("test_*.py")
    public = importlib.import_module(f"ganops.ops.{twin}").__all__
    text = "".join(p.read_text() for p in named)
    assert [name for name in public if name not in text] == []


def test_activation_codes_agree_with_the_enum():
    from ganops.ops.bias_act import ACTIVATIONS

    text = (ROOT / "csrc" / "bias_act" / "bias_act_math.h").read_text()
    match = re.search(r"enum class Act : int \{([^}]*)\}", text)
    assert match is not None
    names = [n.strip() for n in match.group(1).split(",")]
    assert names == [*ACTIVATIONS, "count"]


def test_python_schemas_agree_with_the_library():
    """What register() defines for Triton is what library.cpp defines for C++."""
    import torch

    from ganops import _library

    if not _library.NATIVE.loaded:
        pytest.skip(f"no native schemas: {_library.NATIVE.missing}")
    import ganops.ops  # noqa: F401

    names = re.findall(r'define\(\s*m, "(\w+)"', (ROOT / "csrc" / "library.cpp").read_text())
    assert len(names) >= 7
    for name in names:
        native = str(getattr(torch.ops.ganops, name).default._schema)
        triton = str(getattr(torch.ops.ganops, name + "_triton").default._schema)
        assert native.replace(name, "op", 1) == triton.replace(name + "_triton", "op", 1)


SHORT = [p for f, suffixes in (("ganops", (".py",)), ("benchmarks", (".py",)), ("tests", (".py",)),
                               ("csrc", (".h", ".cpp", ".cu", ".cuh")))
         for p in sorted((ROOT / f).rglob("*")) if p.suffix in suffixes]  # fmt: skip


@pytest.mark.parametrize("path", SHORT, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_short_and_lines_narrow(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= (350 if path.is_relative_to(ROOT / "tests") else 300)
    assert [i + 1 for i, line in enumerate(lines) if len(line) > 100] == []


@pytest.mark.parametrize("path", python_files("ganops"), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_library_code_has_no_assert_and_swallows_nothing(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: raise ValueError instead"
        if isinstance(node, ast.ExceptHandler):
            everything = node.type is None or getattr(node.type, "id", "") == "BaseException"
            silent = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
            assert not (everything and silent), f"line {node.lineno} swallows every exception"


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_is_light():
    heavy = {"torch", "triton", "matplotlib", "sklearn", "PIL", "yaml", "rich"}
    assert not modules_after("import ganops") & heavy
    trainers_only = heavy - {"torch", "triton"}
    assert not modules_after("import ganops; ganops.ops") & trainers_only


def test_public_ops_are_documented_to_the_house_form():
    from ganops import ops

    like_torch = {*TWINS, "smooth"}  # arguments are those of the torch original
    twins = {n for t in like_torch for n in importlib.import_module(f"ganops.ops.{t}").__all__}
    for name in set(ops.__all__) - twins:
        text = inspect.getdoc(getattr(ops, name)) or ""
        if "as in `random_uniform`" in text or "those of `random_uniform`" in text:
            continue  # documented there
        for heading in ("Args:", "Returns:", "Raises:", "Source:"):
            assert heading in text, f"{name} lacks {heading}"


def test_doctests_of_the_ops_run():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--doctest-modules", "-p", "no:cacheprovider",
         "ganops/ops", "ganops/nn", "ganops/_dispatch.py"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    assert int(passed.group(1)) >= 5
