"""The benchmarks themselves, run: all of them tiny, one of them for real, and the command."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest
import results

from ganops.cli import bench


def pytest_run(root, *arguments):
    command = [sys.executable, "-m", "pytest", str(root / "benchmarks"), "-q", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=root, env=bench.environment("default")
    )


def functions(root):
    for path in (root / "benchmarks").glob("bench_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("bench_"):
                yield node.name


def test_every_benchmark_runs_tiny_and_agrees_with_stock(root):
    done = pytest_run(root, "--sizes", "tiny", "-vv")
    assert done.returncode == 0, done.stdout + done.stderr
    names = set(functions(root))
    assert len(names) >= 7
    for name in names:
        assert re.search(rf"::{name}\[[^\n]*PASSED", done.stdout), name
    rows = re.search(r"(\d+) rows ran and agreed", done.stdout)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert rows
    assert passed
    assert rows[1] == passed[1]
    assert "loses" not in done.stdout  # tiny numbers are not judged


def test_tiny_numbers_cannot_be_recorded(root, tmp_path):
    done = pytest_run(root, "--sizes", "tiny", "--json", str(tmp_path / "a.json"))
    assert done.returncode == 4
    assert "numbers of --sizes tiny are never recorded" in done.stderr
    assert not list(tmp_path.iterdir())


def test_one_benchmark_under_both_allocators_makes_one_document(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    only = "bench_random and uniform and 64x128"
    assert bench.main(["run", "--only", only, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    document = results.read(path)
    assert path.stem == document["machine"]["slug"]
    assert [run["allocator"] for run in document["runs"]] == ["default", "retained"]
    for run in document["runs"]:
        assert [row["clock"] for row in run["rows"]] == ["cpu-1", "wall"]
        assert set(run["limits"]) == {"cpu-1", "wall"}
        for row in run["rows"]:
            assert row["rounds"] >= 11
            assert row["bytes"] == 64 * 128 * 4
            assert set(row["arms"]) == {"torch.rand", "reference", "ganops"}
            assert row["arms"]["ganops"]["ms"]["median"] > 0


def test_an_implementation_that_cannot_serve_ends_the_run_with_its_reason(root, tmp_path):
    done = pytest_run(root, "--impl", "triton", "--json", str(tmp_path / "a.json"))
    assert done.returncode == 4
    assert re.search(r"impl='triton' cannot serve", done.stderr), done.stderr
    assert not list(tmp_path.iterdir())


def test_outside_a_checkout_the_command_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "HERE", tmp_path)
    for command in ("run", "report"):
        with pytest.raises(ValueError, match="expected a source checkout"):
            bench.main([command])


def test_a_missing_pytest_benchmark_is_one_sentence(root, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if "_" in name else name)
    with pytest.raises(ValueError, match=r"pytest_benchmark: pip install ganops\[bench\]"):
        bench.main(["run"])


def test_the_demo_table_shows_both_sizes(capsys):
    bench.demo_table(budget=0.05)
    lines = capsys.readouterr().out.splitlines()
    sizes = [re.match(r" *64x3x(\d+)x\1 +([\d.]+) +([\d.]+) +([\d.]+)x$", line) for line in lines]
    found = [match for match in sizes if match]
    assert [match[1] for match in found] == ["64", "128"]
    assert all(float(value) > 0 for match in found for value in match.groups()[1:])
