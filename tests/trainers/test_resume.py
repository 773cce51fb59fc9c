"""Runs of one seed are bit-identical, and so is a run that was stopped and resumed."""

from __future__ import annotations

import os
import signal

import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toy import ToyRecipe, toy_images

from ganops.methods import recipe
from ganops.regularizers import GP
from ganops.trainers import Trainer, checkpoint

EVERY = {"log_every": 2, "checkpoint_every": 0, "sample_every": 0, "batch": 8, "device": "cpu"}


def last(run) -> str:
    return checkpoint.latest(str(run))


def test_same_seed_same_bytes_and_another_seed_other_bytes(small, tmp_path, files_of) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.manual_seed(ord(name))  # the caller's generator must not matter
        Trainer(small, out=str(tmp_path / name), steps=4, seed=seed, quiet=True, **EVERY).fit()
    a, b, c = (files_of(last(tmp_path / name)) for name in "abc")
    assert a == b
    assert a["networks.safetensors"] != c["networks.safetensors"]
    for name in ("networks", "ema", "optimizers"):
        assert f"{name}.safetensors" in a


@pytest.mark.parametrize("stop", [1, 3])
def test_resume_equals_uninterrupted(small, tmp_path, files_of, stop) -> None:
    recipe_ = small + GP(weight=1.0, interval=3)
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    settings = {**EVERY, "eval_every": 2, "quiet": True}
    Trainer(recipe_, out=whole, steps=5, **settings).fit()
    Trainer(recipe_, out=parts, steps=stop, **settings).fit()
    torch.manual_seed(99)
    resumed = Trainer.resume(parts, steps=5, quiet=True)
    assert resumed.position.step == stop
    resumed.fit()
    assert files_of(last(whole)) == files_of(last(parts))
    for name in ("samples/step-000005.png", "config.yaml"):
        assert files_of(whole)[name] == files_of(parts)[name]


class Dropping(nn.Module):
    """A critic that draws from torch's own generator."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).squeeze(1)


def own_parts(generator_of_loader: bool):
    """Own networks with dropout, and a shuffled loader with a random transform."""
    torch.manual_seed(11)
    whole = toy_images(10)
    images = whole.read(torch.arange(10))

    def jitter(batch):
        x = torch.stack([image for (image,) in batch]).float() / 127.5 - 1
        return (x + 0.01 * torch.rand_like(x)).clamp(-1, 1)

    own = torch.Generator() if generator_of_loader else None
    loader = DataLoader(
        TensorDataset(images), batch_size=4, shuffle=True, collate_fn=jitter, generator=own
    )
    return {"discriminator": Dropping(), "data": loader}


@pytest.mark.parametrize("stop", [1, 4])  # in the middle of a loader's batch, and at its end
@pytest.mark.parametrize("generator_of_loader", [False, True])
def test_resume_with_own_network_dropout_and_loader(tmp_path, files_of, generator_of_loader, stop):
    settings = {**EVERY, "batch": 3, "quiet": True}
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    Trainer(ToyRecipe(), out=whole, steps=6, **own_parts(generator_of_loader), **settings).fit()
    Trainer(ToyRecipe(), out=parts, steps=stop, **own_parts(generator_of_loader), **settings).fit()
    given = own_parts(generator_of_loader)
    torch.manual_seed(77)
    Trainer.resume(parts, steps=6, quiet=True, **given).fit()
    assert files_of(last(whole)) == files_of(last(parts))


def test_a_stopped_trainer_goes_on_in_the_same_process(tmp_path, files_of) -> None:
    settings = {**EVERY, "batch": 3, "quiet": True, "steps": 4}
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    Trainer(ToyRecipe(), out=whole, **own_parts(False), **settings).fit()
    trainer = Trainer(ToyRecipe(), out=parts, **own_parts(False), **settings)
    step = trainer.stepper.step

    def signalled(position) -> None:
        step(position)
        if position.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.stepper.step = signalled
    trainer.fit()
    assert (trainer.stopped_by, trainer.position.step) == ("SIGTERM", 2)
    torch.rand(5)
    trainer.fit()
    assert trainer.stopped_by is None
    assert files_of(last(whole)) == files_of(last(parts))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_training_leaves_the_callers_generator_alone(small, tmp_path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer = Trainer(small, out=str(tmp_path / "a"), steps=1, quiet=True, **EVERY)
    trainer.fit()
    trainer.sample(3)
    assert torch.equal(torch.rand(3), expected)


def test_what_resume_may_change_and_what_must_be_allowed(small, tmp_path) -> None:
    run = str(tmp_path / "run")
    Trainer(small, out=run, steps=1, quiet=True, **EVERY).fit()
    free = Trainer.resume(run, quiet=True, steps=2, log_every=1, checkpoint_every=1, keep=1)
    assert free.config.log_every == 1
    assert free.config.steps == 2
    for change, key in (({"batch": 4}, "batch"), ({"changes": {"n_critic": 3}}, "n_critic")):
        with pytest.raises(ValueError, match=f"would change {key}.*--allow {key}"):
            Trainer.resume(run, quiet=True, **change)
        Trainer.resume(run, quiet=True, allow=[key], **change)
    with pytest.raises(ValueError, match=r"would change penalty.weight"):
        Trainer.resume(run, quiet=True, changes={"penalty.weight": 1.0}, allow=["n_critic"])
    with pytest.raises(ValueError, match="unknown setting 'n_critics'; did you mean 'n_critic'"):
        Trainer.resume(run, quiet=True, changes={"n_critics": 1})
    with pytest.raises(ValueError, match="with the recipe's own discriminator"):
        Trainer.resume(run, quiet=True, discriminator=Dropping())


def test_own_parts_must_be_given_again(tmp_path) -> None:
    run = str(tmp_path / "run")
    given = own_parts(False)
    Trainer(ToyRecipe(), out=run, steps=1, quiet=True, **{**EVERY, "batch": 3}, **given).fit()
    with pytest.raises(ValueError, match="its own discriminator \\(Dropping\\)"):
        Trainer.resume(run, data=given["data"])
    with pytest.raises(ValueError, match="read its data from an object <DataLoader>"):
        Trainer.resume(run, discriminator=given["discriminator"])
    with pytest.raises(ValueError, match="was trained on images"):
        Trainer.resume(run, discriminator=given["discriminator"], data="digits")


def test_log_lines_beyond_the_checkpoint_are_written_anew(small, tmp_path) -> None:
    run = tmp_path / "run"
    settings = {**EVERY, "log_every": 1, "checkpoint_every": 2}
    Trainer(small, out=str(run), steps=3, quiet=True, **settings).fit()
    (run / "checkpoints" / "latest").write_text("step-000002\n")  # as after a crash at step 3
    with open(run / "log.jsonl", "a") as file:
        file.write('{"step": 4, "ki')  # cut short
    Trainer.resume(str(run), quiet=True).fit()
    steps = [yaml.safe_load(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2, 3]


def test_used_folders_are_refused_and_unwritable_ones_named(small, tmp_path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="is not empty; choose another --out"):
        Trainer(small, out=str(tmp_path / "used"), **EVERY)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="is a file"):
        Trainer(small, out=str(tmp_path / "file"), **EVERY)
    with pytest.raises(OSError, match="cannot write to output folder"):
        Trainer(small, out=str(tmp_path / "file" / "run"), steps=1, quiet=True, **EVERY).fit()
    assert set(os.listdir(tmp_path)) == {"used", "file"}


def test_runs_are_numbered_by_default(small, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in ("00000-wgan-gp-digits", "00001-wgan-gp-digits"):
        trainer = Trainer(small, steps=1, quiet=True, **EVERY).fit()
        assert trainer.out == os.path.join("runs", expected)
    assert {"config.yaml", "log.jsonl", "samples", "curves.png", "checkpoints"} <= set(
        os.listdir(tmp_path / "runs" / "00000-wgan-gp-digits")
    )


def test_many_processes_are_refused(small, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"WORLD_SIZE is 2, but .* single process"):
        Trainer(small)


def test_bad_devices_are_one_sentence(small) -> None:
    with pytest.raises(ValueError, match="unknown device 'gpu9'"):
        Trainer(small, device="gpu9")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="finds no usable GPU"):
            Trainer(small, device="cuda")


def test_recipe_must_be_one() -> None:
    with pytest.raises(TypeError, match="must be a name or a Recipe"):
        Trainer(3)
    with pytest.raises(TypeError, match=r"generator must be a torch.nn.Module"):
        Trainer(recipe("wgan-gp"), generator=lambda z: z)


def test_resuming_under_other_threads_is_said(small, tmp_path) -> None:
    """Sums are split by thread: the last bits of torch's kernels are theirs."""
    Trainer(small, out=str(tmp_path), steps=1, quiet=True, **EVERY).fit()
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        with pytest.warns(RuntimeWarning, match=rf"threads {before}, now {before + 1}.*not bit"):
            Trainer.resume(str(tmp_path), steps=2, quiet=True)
    finally:
        torch.set_num_threads(before)
