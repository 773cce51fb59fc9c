"""What a run writes and when: log lines, sample grids, checkpoints, measurements, curves, dumps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from ganops.data import ImageSet
from ganops.metrics.quality import Quality
from ganops.trainers import checkpoint
from ganops.trainers.folder import RunFolder
from ganops.trainers.guard import NonFiniteError
from ganops.trainers.report import Reporter

if TYPE_CHECKING:
    from ganops.trainers.trainer import Trainer

GRID = 64  # images in a sample grid


class Outputs:
    """Reads the statistics (the one host synchronisation) and writes every file of a run."""

    def __init__(
        self, trainer: Trainer, folder: RunFolder, reporter: Reporter, *, resumed: bool
    ) -> None:
        self.trainer, self.folder, self.reporter = trainer, folder, reporter
        self._quality: Quality | None = None
        if trainer.config.eval_every:
            self._quality = Quality.of(trainer.sources["data"], folder.at("cache"))
        step = trainer.position.step
        self._starts: dict[int, Any] = {}  # data positions since the last read, for a dump
        self._logged = self._sampled = self._saved = step if resumed else -1
        self._seconds = folder.forget_after(step) if resumed else 0.0
        self._last_time, self._last_images = time.perf_counter(), trainer.position.images_seen
        if resumed:
            checkpoint.clear_unfinished(folder.checkpoints)
        else:
            self._sample()
            self._save()
            self._log(evaluate=self._quality is not None)

    def before_step(self) -> None:
        source = self.trainer.sources["data"]
        self._starts[self.trainer.position.step] = source.state_dict()

    def after_step(self) -> None:
        c, step = self.trainer.config, self.trainer.position.step
        save, evaluate = _due(step, c.checkpoint_every), _due(step, c.eval_every)
        if _due(step, c.log_every) or save or evaluate:
            self._log(evaluate)
        if _due(step, c.sample_every):
            self._sample()
        if save:
            self._save()
        self.reporter.advance(step)

    def rewound(self) -> None:
        """After a rollback: what was logged beyond the checkpoint did not happen."""
        step = self.trainer.position.step
        self.folder.forget_after(step)
        self._logged = self._sampled = self._saved = step
        self._last_images = self.trainer.position.images_seen
        self._starts.clear()
        self.reporter.say(f"non-finite loss or gradient: back to step {step}")

    def finish(self) -> None:
        """Whatever the last step has not written yet, and the curves."""
        self._log(evaluate=self.trainer.config.eval_every > 0)
        self._sample()
        self._save()
        self.folder.save_curves(f"{self.reporter.title}, seed {self.trainer.config.seed}")

    def _log(self, evaluate: bool) -> None:
        step = self.trainer.position.step
        if self._logged == step:
            return
        values, (bad,) = self.trainer.stepper.statistics.read(self.trainer.guard.first_bad)
        if bad >= 0:
            self._stop_and_dump(int(bad))
        if evaluate and self._quality is not None:
            values.update(self._quality.measure(self.trainer.sample(self._quality.count)))
        now, images = time.perf_counter(), self.trainer.position.images_seen
        elapsed, shown = now - self._last_time, images - self._last_images
        self._seconds += elapsed
        self._last_time, self._last_images, self._logged = now, images, step
        line = {"step": step, "kimg": images / 1000, "seconds": round(self._seconds, 3)}
        self.folder.log({**line, **{k: float(f"{v:.6g}") for k, v in values.items()}})
        self._starts.clear()
        pace = 1000 * elapsed / shown if shown else 0.0
        left = (self.trainer.config.steps - step) * self.trainer.config.batch * pace / 1000
        self.reporter.show(step, pace, left, values)

    def _sample(self) -> None:
        step = self.trainer.position.step
        if self._sampled != step:
            self.folder.save_samples(step, self.trainer.sample(GRID))
            self._sampled = step

    def _save(self) -> None:
        step = self.trainer.position.step
        if self._saved == step:
            return
        self._check_weights()
        name, keep = f"step-{step:06d}", self.trainer.config.keep
        checkpoint.save(self.folder.checkpoints, name, self.trainer.state(), keep=keep)
        self._saved = step

    def _check_weights(self) -> None:
        """A finite loss can have a gradient that is not: look before anything is kept."""
        weights = [
            p
            for network in self.trainer.method.networks.values()
            for p in network.state_dict().values()
            if p.is_floating_point() and p.numel()
        ]
        if weights and not torch.isfinite(torch.stack(torch._foreach_norm(weights))).all():
            self._stop_and_dump(self.trainer.position.step - 1)

    def _stop_and_dump(self, step: int) -> None:
        """Write state and images to a folder of their own and raise NonFiniteError naming it."""
        trainer, source = self.trainer, self.trainer.sources["data"]
        if isinstance(source, ImageSet) and step in self._starts:
            first = self._starts[step]["position"]
            end = self._starts.get(step + 1, source.state_dict())["position"]
            images, exact = source.read(source.indices(first, end - first)), True
        else:
            draws = trainer.stepper.last_draws.values()
            drawn = [d.memory["images/data"][0] for d in draws if "images/data" in d.memory]
            images, exact = torch.cat(drawn) if drawn else torch.empty(0), False
        about = {"step": step, "images_are_of_that_step": exact, "images": images}
        name = f"nan-step-{step:06d}"
        checkpoint.write_folder(self.folder.path, name, {**trainer.state(), "batch": about})
        raise NonFiniteError(
            f"non-finite loss or weights at step {step}; images and state are in "
            f"{self.folder.at(name)!r}, the last good checkpoint is "
            f"{checkpoint.latest(self.folder.path)!r}"
        )


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
