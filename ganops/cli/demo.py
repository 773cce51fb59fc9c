"""The demonstration: train on real digits, measure start and end, time the kernels."""

from __future__ import annotations

import os
import shutil
import time

import torch

from ganops.cli import actions
from ganops.data import open_data
from ganops.methods import recipe
from ganops.metrics import Quality
from ganops.trainers import Trainer, checkpoint

MARK = ".made-by-ganops-demo"
STEPS = 1500
# For images this small: faster than the paper's 1e-4 and 5 critic turns, with the same losses.
SETTINGS = {"optimizer_g.lr": 1e-3, "optimizer_d.lr": 1e-3, "n_critic": 2}


def main(out: str, steps: int | None = None) -> int:
    """Train, then print quality at the start, at the end, of real images and of noise."""
    from ganops.cli import bench

    actions.refuse_unservable(torch.device("cpu"))
    trainer = _trainer(out, STEPS if steps is None else steps)
    _replace_own(out)  # only now that the settings are known to be good
    try:
        os.makedirs(out, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise type(error)(f"cannot write to output folder {out!r}: {reason}") from error
    checkpoint.write_atomically(os.path.join(out, MARK), b"replaced by the next ganops demo\n")
    started, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(1)  # as fast for networks this small, and undisturbed by other work
    try:
        trainer.fit()
    finally:
        torch.set_num_threads(threads)
    if trainer.stopped_by:
        print(f"stopped by {trainer.stopped_by}; go on with: ganops resume {out}")
        return 0
    quality = Quality.of(open_data("digits"), os.path.join(out, "cache"))
    folder = os.path.join(out, "checkpoints")
    first, last = checkpoint.names(folder)[0], checkpoint.names(folder)[-1]
    rows = {
        f"generated at {label}": quality.measure(
            actions.draw(out, quality.count, 1, "cpu", os.path.join(folder, name))
        )
        for label, name in (("start", first), ("end", last))
    }
    rows["real against real"] = quality.real_against_real()
    rows["noise against real"] = quality.noise_against_real()
    print(f"\nquality after {trainer.position.step} steps, {time.perf_counter() - started:.0f} s")
    actions.print_table(rows)
    print(quality.protocol())
    print(f"pictures: {os.path.join(out, 'samples')}, {os.path.join(out, 'curves.png')}\n")
    bench.demo_table()
    return 0


def _trainer(out: str, steps: int) -> Trainer:
    trainer = Trainer(
        recipe("wgan-gp").replace(**SETTINGS),
        data="digits",
        steps=steps,
        seed=0,
        device="cpu",
        eval_every=100,
        sample_every=100,
        checkpoint_every=250,
        keep=0,
    )
    trainer.out = out  # not given above: there may be an earlier demo, still to be replaced
    return trainer


def _replace_own(out: str) -> None:
    """Remove a folder that a demo made. Raises FileExistsError for any other that is not empty."""
    if not os.path.exists(out):
        return
    if os.path.isfile(os.path.join(out, MARK)):
        shutil.rmtree(out)
    elif not os.path.isdir(out) or os.listdir(out):
        raise FileExistsError(
            f"{out!r} exists and was not made by the demo; choose another --out or remove it"
        )
