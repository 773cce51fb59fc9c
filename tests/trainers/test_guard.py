"""Non-finite losses: stop with a dump, skip, or roll back, each with its limit."""

from __future__ import annotations

import os

import pytest
import torch
import yaml
from toy import ToyRecipe, toy_images, weights

from ganops.data import to_float
from ganops.trainers import NonFiniteError, Trainer, checkpoint

EVERY = {"log_every": 4, "checkpoint_every": 2, "sample_every": 0, "batch": 3, "quiet": True,
         "device": "cpu"}  # fmt: skip


def trainer(tmp_path, recipe: ToyRecipe, steps: int = 6, **settings) -> Trainer:
    return Trainer(
        recipe, data=toy_images(), out=str(tmp_path / "run"), steps=steps, **{**EVERY, **settings}
    )


def test_error_stops_dumps_and_keeps_only_good_checkpoints(tmp_path) -> None:
    made = trainer(tmp_path, ToyRecipe(nan_at=2))
    with pytest.raises(NonFiniteError, match=r"at step 2; images and state are in '.*nan-step-0"):
        made.fit()
    run = tmp_path / "run"
    dump = checkpoint.load(str(run / "nan-step-000002"))
    assert dump["batch"]["step"] == 2
    assert dump["batch"]["images_are_of_that_step"]
    whole = toy_images()
    expected = whole.read(whole.indices(2 * 6, 6))  # two critic turns of three images in each step
    assert torch.equal(dump["batch"]["images"], expected)
    good = checkpoint.load(checkpoint.latest(str(run)))
    assert good["position"]["step"] == 2
    for network in good["networks"].values():
        assert all(torch.isfinite(t).all() for t in network.values())
    steps = [yaml.safe_load(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == [0, 2]


def test_error_with_a_loader_dumps_the_last_batch_and_says_so(tmp_path) -> None:
    whole = toy_images()
    batches = [to_float(whole.read(torch.arange(10)))]
    made = Trainer(ToyRecipe(nan_at=1), data=batches, out=str(tmp_path / "run"), steps=3, **EVERY)
    with pytest.raises(NonFiniteError):
        made.fit()
    dump = checkpoint.load(str(tmp_path / "run" / "nan-step-000001"))
    assert dump["batch"]["images_are_of_that_step"] is False
    assert dump["batch"]["images"].shape == (3, 1, 2, 2)


def test_bad_weights_behind_a_finite_loss_are_not_checkpointed(tmp_path) -> None:
    made = trainer(tmp_path, ToyRecipe())
    step = made.stepper.step

    def poison(position):
        step(position)
        if position.step == 2:
            with torch.no_grad():
                made.generator.layer.bias[0] = float("inf")

    made.stepper.step = poison
    with pytest.raises(NonFiniteError, match="at step 1"):
        made.fit()
    assert checkpoint.latest(str(tmp_path / "run")).endswith("step-000000")


def test_skip_leaves_the_update_out_and_goes_on(tmp_path) -> None:
    made = trainer(tmp_path, ToyRecipe(nan_at=1), nan="skip")
    made.fit()
    assert made.position.step == 6
    assert all(torch.isfinite(weights(m)).all() for m in made.method.networks.values())
    clean = trainer(tmp_path / "clean", ToyRecipe(), nan="skip")
    clean.fit()
    assert not torch.equal(weights(clean.discriminator), weights(made.discriminator))


def test_skip_has_a_limit(tmp_path) -> None:
    made = trainer(tmp_path, ToyRecipe(nan_at=1), nan="skip", nan_limit=1)
    with pytest.raises(NonFiniteError, match="2 times in a row"):
        made.fit()


def test_rollback_goes_back_and_draws_anew(tmp_path) -> None:
    made = trainer(tmp_path, ToyRecipe(nan_at=3), nan="rollback", log_every=1)
    made.fit()
    assert made.position.step == 6
    assert made.position.attempt == 1
    assert all(torch.isfinite(weights(m)).all() for m in made.method.networks.values())
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [yaml.safe_load(line)["step"] for line in lines] == list(range(7))
    # Steps 0 to 3 read 6 images each before the failure, steps 2 to 5 were done again after it.
    assert made.sources["data"].state_dict()["position"] == 6 * 3 + 3 + 6 * 4
    resumed = Trainer.resume(str(tmp_path / "run"), data=toy_images(), quiet=True)
    assert resumed.position.attempt == 1


def test_rollback_has_a_limit(tmp_path) -> None:
    made = trainer(tmp_path, ToyRecipe(nan_at=3, once=False), nan="rollback", nan_limit=2)
    with pytest.raises(NonFiniteError, match="at step 3 after 2 rollbacks"):
        made.fit()
    assert os.path.basename(checkpoint.latest(str(tmp_path / "run"))) == "step-000002"
