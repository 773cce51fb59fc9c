"""The command line, in process: what it teaches, what it does, and how it says no."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import ganops
from ganops import __version__
from ganops.cli import main
from ganops.trainers import checkpoint

SMALL = [
    "--set", "generator.width=4", "--set", "critic.width=4", "--set", "critic.hidden=8",
    "--set", "n_critic=1", "--batch", "8", "--device", "cpu", "--quiet",
]  # fmt: skip


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def call(*arguments: str) -> int:
    try:
        return main(list(arguments))
    except SystemExit as error:  # the parser's own exits
        return int(error.code or 0)


@pytest.fixture
def run() -> str:
    assert call("train", "wgan-gp", "--steps", "3", "--out", "run", *SMALL) == 0
    return "run"


def test_help_lists_and_teaches(capsys) -> None:
    assert call("--help") == 0
    text = capsys.readouterr().out
    for name in ("train", "resume", "sample", "eval", "list", "doctor", "bench", "demo"):
        assert name in text
    assert "ganops train wgan-gp --data digits" in text
    assert call("train", "--help") == 0
    text = capsys.readouterr().out
    for option in ("--data", "--steps", "--batch", "--res", "--out", "--seed", "--device", "--set",
                   "--config", "--dry-run"):  # fmt: skip
        assert option in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["wgangp"], "unknown method 'wgangp'; did you mean 'wgan-gp'?"),
        (["wgan-gp", "--data", "digts"], "unknown data 'digts'"),
        (["wgan-gp", "--set", "n_critik=1"], "unknown setting 'n_critik'; did you mean 'n_critic'"),
        (["wgan-gp", "--set", "penalty.weight=-1"], "penalty.weight must be >= 0"),
        (["wgan-gp", "--set", "log_every"], "expected KEY=VALUE, got 'log_every'"),
        (["wgan-gp", "--batch", "0"], "batch must be >= 1, got 0"),
        (["wgan-gp", "--device", "abacus"], "unknown device 'abacus'"),
        (["wgan-gp", "--config", "none.yaml"], "cannot read none.yaml"),
        (["wgan-gp", "--out", "used"], "output folder 'used' is not empty"),
        (["wgan-gp", "--out", "used/file/run", *SMALL], "cannot write to output folder"),
        (["wgan-gp", "--data", "used"], "holds no images"),
        (["wgan-gp", "--set", "penalty.center=.inf"], "penalty.center must be >= 0 and finite"),
        (["wgan-gp", "--set", "penalty.weight=.inf"], "penalty.weight must be >= 0 and finite"),
        (["wgan-gp", "--data", "plain", "--set", "eval_every=1"], "has no class labels"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(arguments, message, capsys) -> None:
    os.makedirs("used")
    open("used/file", "w").close()
    os.makedirs("plain")
    Image.new("L", (8, 8)).save("plain/a.png")
    before = sorted(os.listdir("."))
    assert call("train", *arguments) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("ganops: error: ")
    assert message in line
    assert "Traceback" not in captured.err + captured.out
    assert sorted(os.listdir(".")) == before
    assert os.listdir("used") == ["file"]


def test_a_read_only_output_folder(capsys, monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system", "run")

    monkeypatch.setattr(os, "makedirs", refuse)
    assert call("train", "wgan-gp", "--out", "run", *SMALL) == 2
    assert "cannot write to output folder 'run': read-only file system" in capsys.readouterr().err
    assert os.listdir(".") == []


def test_version(capsys) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"ganops {__version__}\n"


@pytest.mark.parametrize("command", ["resume", "sample", "eval"])
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.json", b'{"format":1,"parts":{}}'),
        ("state.json", b"[]"),
        ("ema.safetensors", b"\0" * 100),
        ("../latest", b"\xff\xfe"),
        ("../../config.yaml", b"recipe: 3\n"),
        ("../../log.jsonl", b"junk\n"),
    ],
)
def test_a_damaged_run_is_one_sentence(run, capsys, command, file, content) -> None:
    if file.endswith("log.jsonl") and command != "resume":
        pytest.skip("only a resumed run reads its log")
    path = Path(run, "checkpoints", "step-000003", file)
    path.write_bytes(content)
    capsys.readouterr()
    more = {"resume": ["--steps", "4", "--quiet"], "sample": ["--out", "x.npz"], "eval": []}
    assert call(command, run, *more[command]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("ganops: error: ")
    assert path.name in line
    assert not os.path.exists("x.npz")


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="then Triton serves the CPU")
def test_an_implementation_that_cannot_serve_is_one_sentence(run, capsys) -> None:
    with ganops.use_impl("triton"):  # what GANOPS_IMPL sets
        for arguments in (
            ["train", "wgan-gp", "--out", "new", *SMALL],
            ["train", "wgan-gp", "--dry-run", *SMALL],
            ["resume", run, "--steps", "4"],
            ["sample", run, "--out", "x.npz"],
            ["eval", run],
            ["demo", "--out", "new"],
            ["bench", "demo"],
        ):
            capsys.readouterr()
            assert call(*arguments) == 2
            (line,) = capsys.readouterr().err.strip().splitlines()
            assert re.search(r"GANOPS_IMPL: \w+: impl='triton' cannot serve cpu tensors", line)
    assert os.listdir(".") == [run]
    assert not os.path.exists(f"{run}/cache")


def test_debug_shows_where(capsys) -> None:
    with pytest.raises(ValueError, match="unknown method"):
        main(["train", "wgangp", "--debug"])


def test_unknown_options_and_commands_exit_with_2(capsys) -> None:
    assert call("train", "wgan-gp", "--stepz", "3") == 2
    assert "--steps" in capsys.readouterr().err
    assert call("trian") == 2
    assert "train" in capsys.readouterr().err


def test_train_resume_sample_eval(run, capsys) -> None:
    assert call("resume", run, "--steps", "5", "--quiet") == 0
    assert checkpoint.latest(run).endswith("step-000005")
    lines = [json.loads(line) for line in Path(run, "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 5
    assert lines[-1]["kimg"] == 5 * 8 / 1000
    assert {"seconds", "loss/d", "loss/g", "penalty/gp"} <= set(lines[-1])
    for step in (0, 3, 5):
        assert Image.open(f"{run}/samples/step-{step:06d}.png").size[0] > 8 * 8
    assert Image.open(f"{run}/curves.png").size[0] > 100

    assert call("sample", run, "--n", "300", "--seed", "1", "--out", "x.npz") == 0
    images = np.load("x.npz")["images"]
    assert images.shape == (300, 8, 8, 1)
    assert images.dtype == np.uint8
    assert call("sample", run, "--n", "5", "--seed", "1", "--out", "folder") == 0
    single = np.asarray(Image.open("folder/000004.png"))
    assert sorted(os.listdir("folder"))[-1] == "000004.png"
    assert (single == images[4, ..., 0]).all()
    assert call("sample", run, "--n", "5", "--out", "y.png") == 0
    assert Image.open("y.png").mode == "RGB"
    for name in ("y.jpg", "z.JPEG"):
        assert call("sample", run, "--n", "5", "--out", name) == 0
        assert (Image.open(name).format, Image.open(name).mode) == ("JPEG", "RGB")
    assert call("sample", run, "--n", "5", "--out", "X.NPZ") == 0
    assert np.load("X.NPZ")["images"].shape == (5, 8, 8, 1)
    assert call("sample", run, "--n", "2", "--out", "seed.1/") == 0
    assert sorted(os.listdir("seed.1")) == ["000000.png", "000001.png"]

    capsys.readouterr()
    assert call("eval", run, "--json") == 0
    read = json.loads(capsys.readouterr().out)
    assert set(read) == {"protocol", "generated", "real", "noise"}
    key = "quality/fd-digits-cnn"
    assert read["real"][key] < read["generated"][key]
    assert "not Inception" in read["protocol"]
    assert call("eval", run) == 0
    assert "fd-digits-cnn" in capsys.readouterr().out


def test_sampling_says_no(run, capsys) -> None:
    for arguments, message in (
        (["none", "--out", "x.npz"], "'none' is not a run"),
        ([run, "--out", "nowhere/x.npz"], "there is no folder 'nowhere'"),
        ([run, "--out", run], "must be a new or empty folder"),
        ([run, "--n", "0", "--out", "x.npz"], "must be >= 1"),
        ([run, "--out", "y.gif"], "'y.gif' must end in one of .npz, .png, .jpg, .jpeg, or be a"),
        ([run, "--out", f"{run}/config.yaml"], "must end in one of"),
    ):
        capsys.readouterr()
        assert call("sample", *arguments) == 2
        assert message in capsys.readouterr().err
    assert os.listdir(".") == [run]


def test_resume_says_no(run, capsys) -> None:
    for arguments, message in (
        (["none"], "'none' is not a run"),
        ([run, "--set", "n_critic=2"], "would change n_critic; if that is meant: --allow n_critic"),
        ([run, "--data", "digts"], "unknown data 'digts'"),
        ([run, "--steps", "2"], "steps must be at least 3, where 'run' stands, got 2"),
    ):
        capsys.readouterr()
        assert call("resume", *arguments) == 2
        assert message in capsys.readouterr().err
    assert call("resume", run, "--set", "n_critic=2", "--allow", "n_critic", "--quiet") == 0
    assert yaml.safe_load(Path(run, "config.yaml").read_text())["recipe"]["n_critic"] == 2


def test_config_file_then_options_then_set(run, capsys) -> None:
    other = ["--config", f"{run}/config.yaml", "--out", "again", "--quiet"]
    assert call("train", "wgan-gp", *other, "--steps", "2", "--set", "penalty.weight=3") == 0
    first, second = (
        yaml.safe_load(Path(name, "config.yaml").read_text()) for name in (run, "again")
    )
    assert second["train"] == {**first["train"], "steps": 2}
    assert second["recipe"]["penalty"]["weight"] == 3.0
    assert second["recipe"]["generator"] == first["recipe"]["generator"]
    with open("flat.yaml", "w") as file:
        file.write("n_critic: 2\nbatch: 4\npenalty: {weight: 7}\n")
    assert call("train", "wgan-gp", "--config", "flat.yaml", "--dry-run", "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert "n_critic: 2" in shown
    assert "weight: 7.0" in shown
    assert "batch: 4" in shown


def test_a_config_that_names_unknown_keys(capsys) -> None:
    with open("bad.yaml", "w") as file:
        file.write("penalty: {wait: 7}\n")
    assert call("train", "wgan-gp", "--config", "bad.yaml") == 2
    assert "unknown setting 'penalty.wait'; did you mean 'weight'" in capsys.readouterr().err
    with open("bad.yaml", "w") as file:
        file.write("recipe: {}\ntrain: 3\n")
    assert call("train", "wgan-gp", "--config", "bad.yaml") == 2
    assert "bad.yaml: train must be a mapping of settings, got 3" in capsys.readouterr().err


def test_dry_run_shows_everything_and_writes_nothing(capsys) -> None:
    assert call("train", "wgan-gp", "--dry-run", *SMALL) == 0
    out = capsys.readouterr().out
    settings = yaml.safe_load(out[: out.index("parameters of")])
    assert settings["recipe"]["method"] == "wgan-gp"
    assert settings["train"]["batch"] == 8
    assert "parameters of generator: " in out
    assert "worst step: " in out
    assert "peak memory: " in out
    assert os.listdir(".") == []


def test_list(capsys) -> None:
    assert call("list", "--json") == 0
    read = json.loads(capsys.readouterr().out)
    assert "wgan-gp" in read["methods"]
    assert read["data"] == ["digits"]
    assert call("list") == 0
    assert "wgan-gp" in capsys.readouterr().out


def test_a_missing_extra_is_one_sentence(capsys, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert call("train", "wgan-gp", "--out", "run", *SMALL) == 2
    err = capsys.readouterr().err
    assert "writing checkpoints needs the package 'safetensors': pip install 'ganops[train]'" in err
    assert os.listdir(".") == []


def test_demo_replaces_only_its_own_folder(capsys, monkeypatch) -> None:
    from ganops.cli import bench

    calls = []
    monkeypatch.setattr(bench, "demo_table", lambda: calls.append(1))
    os.makedirs("mine")
    open("mine/thesis.tex", "w").close()
    assert call("demo", "--out", "mine") == 2
    assert "was not made by the demo" in capsys.readouterr().err
    assert os.listdir("mine") == ["thesis.tex"]
    assert not calls
    assert call("demo", "--out", "new", "--steps", "0") == 2
    assert "steps must be >= 1, got 0" in capsys.readouterr().err
    assert not os.path.exists("new")
    for _ in range(2):
        assert call("demo", "--out", "demo", "--steps", "2") == 0
    out = capsys.readouterr().out
    assert len(calls) == 2
    for row in ("generated at start", "generated at end", "real against real", "noise against"):
        assert row in out
