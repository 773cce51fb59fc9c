"""docs/metrics.md: its Python runs, its commands are understood, its names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from ganops import metrics
from ganops.ops.resize import RESIZES

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore:frechet_distance:UserWarning")
def test_the_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    real, generated, logits = torch.randn(3, 40, 5, generator=generator)
    names = {"real": real, "generated": generated, "logits": logits,
             "real_scores": real[:, 0], "generated_scores": generated[:, 0]}  # fmt: skip
    assert len(blocks("python")) == 4
    for block in blocks("python"):
        exec(compile(block, "docs/metrics.md", "exec"), names)
    assert names["x"].grad.isfinite().all()


def test_the_commands_are_understood():
    tyro = pytest.importorskip("tyro")
    from ganops.cli.measuring import Eval, Fid
    from ganops.metrics.measure import METRICS

    commands = [shlex.split(line) for line in "".join(blocks("console")).splitlines()]
    assert len(commands) == 6
    for program, name, *arguments in commands:
        assert program == "ganops"
        found = tyro.cli({"fid": Fid, "eval": Eval}[name], args=arguments)
        assert set(found.metrics.split(",")) <= set(METRICS)
        assert found.protocol in RESIZES


def test_the_protocols_and_names_are_those_of_the_code():
    table = PAGE.partition("| `--protocol` |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(RESIZES)
    for name in re.findall(r"metrics\.(\w+)\(", PAGE):
        assert hasattr(metrics, name), name
