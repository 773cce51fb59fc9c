"""What can be refused is refused before a run's folder is made or changed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from toy import ToyRecipe, toy_images

import ganops
from ganops.data.source import permutation
from ganops.regularizers import GP
from ganops.trainers import Trainer, checkpoint

EVERY = {"log_every": 1, "checkpoint_every": 0, "sample_every": 0, "batch": 4, "device": "cpu"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(8, 1, 8, 8, dtype=torch.uint8), "has no class labels"),
        ((torch.zeros(8, 1, 8, 8), torch.arange(8)), "needs uint8 images"),
        ((torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.arange(3)), "needs 4 images or more"),
    ],
)
def test_data_that_cannot_be_measured(small, tmp_path, data, message) -> None:
    with pytest.raises(ValueError, match=message):
        Trainer(small, data=data, out=str(tmp_path / "a"), eval_every=1, quiet=True, **EVERY)
    Trainer(small, data=data, quiet=True, **EVERY)  # unmeasured, they serve


@pytest.mark.parametrize("key", ["weight", "center"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
def test_penalties_have_finite_settings(small, key, value) -> None:
    with pytest.raises(ValueError, match=rf"penalty.{key} must be >= 0 and finite"):
        small.replace(**{f"penalty.{key}": value})
    with pytest.raises(ValueError, match=rf"{key} must be >= 0 and finite"):
        GP(**{key: value})


class Small(nn.Module):
    """Makes 1x1 images whatever the data are."""

    def __init__(self) -> None:
        super().__init__()
        self.z_dim, self.layer = 2, nn.Linear(2, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layer(z).reshape(-1, 1, 1, 1)


class Hidden(nn.Module):
    """(B, 2) -> (B, 1, 2, 2) by way of `hidden` units."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.z_dim = 2
        self.body = nn.Sequential(nn.Linear(2, hidden), nn.Linear(hidden, 4))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.body(z).reshape(-1, 1, 2, 2)


def test_a_generator_of_other_images(tmp_path) -> None:
    out = tmp_path / "a"
    trainer = Trainer(ToyRecipe(), data=toy_images(), generator=Small(), out=str(out), **EVERY)
    with pytest.raises(ValueError, match=r"makes images \(1, 1, 1\), the data have \(1, 2, 2\)"):
        trainer.fit()
    assert not out.exists()


@pytest.mark.parametrize("module", ["safetensors.torch", "PIL.Image", "matplotlib"])
def test_a_missing_package(small, tmp_path, monkeypatch, module) -> None:
    out = tmp_path / "a"
    trainer = Trainer(small, out=str(out), quiet=True, **EVERY)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match="needs the package"):
        trainer.fit()
    assert not out.exists()


def test_resume_below_the_current_step_changes_nothing(small, tmp_path, files_of) -> None:
    run = str(tmp_path / "run")
    Trainer(small, out=run, steps=3, quiet=True, **EVERY).fit()
    before = files_of(run)
    with pytest.raises(ValueError, match=r"steps must be at least 3, where .* stands, got 2"):
        Trainer.resume(run, steps=2, quiet=True)
    assert files_of(run) == before
    assert Trainer.resume(run, steps=3, quiet=True).fit().position.step == 3


BAD_LINES = ("not json\n", "[]\n", '{"step": 1}\n', '{"step": "1"}\n', "\0\0\0\n", "\xff\n")


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_log_line_is_named_before_anything_changes(small, tmp_path, files_of, line) -> None:
    run = str(tmp_path / "run")
    Trainer(small, out=run, steps=1, quiet=True, **EVERY).fit()
    log = Path(run, "log.jsonl")
    log.write_bytes(line.encode("latin-1") + log.read_bytes())
    before = files_of(run)
    with pytest.raises(ValueError, match=r"log.jsonl, line 1 .*; remove that line"):
        Trainer.resume(run, steps=2, quiet=True)
    assert files_of(run) == before


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("recipe", 3, "must hold a mapping 'recipe', got 3"),
        ("train", None, "must hold a mapping 'train', got None"),
        ("train", {"steps": "many"}, "config.yaml: train.steps must be of type int"),
        ("images", {"channels": 1}, "config.yaml: .*missing .*height"),
    ],
)
def test_a_damaged_config_is_named(small, tmp_path, key, value, message) -> None:
    import yaml

    run = str(tmp_path / "run")
    Trainer(small, out=run, steps=1, quiet=True, **EVERY).fit()
    path = Path(run, "config.yaml")
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), key: value}))
    with pytest.raises(ValueError, match=message):
        Trainer.resume(run, steps=2, quiet=True)


def test_a_checkpoint_that_does_not_fit_is_named(tmp_path) -> None:
    run, given = str(tmp_path / "run"), {"data": toy_images(), "quiet": True}
    Trainer(ToyRecipe(), generator=Hidden(3), out=run, steps=1, **given, **EVERY).fit()
    with pytest.raises(ValueError, match=r"step-000001 does not fit .*size mismatch"):
        Trainer.resume(run, generator=Hidden(5), steps=2, **given)
    last = checkpoint.latest(run)
    parts = checkpoint.load(last)
    for lost in ("networks", "optimizers", "position"):
        folder, name = os.path.split(last)
        kept = {part: tree for part, tree in parts.items() if part != lost}
        checkpoint.save(folder, name, kept)
        with pytest.raises(ValueError, match=rf"step-000001 lacks the entry '{lost}'"):
            Trainer.resume(run, generator=Hidden(3), **given)


def test_the_loops_own_draws_do_not_depend_on_ganops_impl(tmp_path, files_of) -> None:
    """Triton cannot serve the CPU: networks that use no op of ours train all the same."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton's interpreter would serve the CPU")
    expected = permutation(10, 1, 2)
    runs = []
    for impl in ("auto", "triton", "reference"):
        runs.append(str(tmp_path / impl))
        with ganops.use_impl(impl):
            assert torch.equal(permutation(10, 1, 2), expected)
            Trainer(
                ToyRecipe(), data=toy_images(), out=runs[-1], steps=2, quiet=True, **EVERY
            ).fit()
    auto, triton, reference = (files_of(checkpoint.latest(run)) for run in runs)
    assert auto == triton == reference


@pytest.mark.parametrize("impl", ["reference", "native"])
def test_training_runs_by_the_implementation_asked_for(small, tmp_path, impl) -> None:
    from ganops import _library

    if impl == "native" and not _library.NATIVE.loaded:
        pytest.skip(str(_library.NATIVE.missing))
    with ganops.use_impl(impl):
        trainer = Trainer(small, out=str(tmp_path / "a"), steps=2, quiet=True, **EVERY).fit()
    assert trainer.position.step == 2


def test_an_implementation_that_cannot_serve_is_refused_in_time(small, tmp_path) -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton's interpreter would serve the CPU")
    out = tmp_path / "a"
    with (
        ganops.use_impl("triton"),
        pytest.raises(RuntimeError, match="impl='triton' cannot serve cpu tensors"),
    ):
        Trainer(small, out=str(out), steps=2, quiet=True, **EVERY).fit()
    assert not out.exists()
