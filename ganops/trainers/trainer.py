"""``Trainer("wgan-gp", data="digits", steps=2000).fit()``: any recipe, any data, one loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ganops.data import open_data
from ganops.data.extras import require
from ganops.methods import config, recipe
from ganops.methods.base import Phase, Recipe
from ganops.metrics import Quality
from ganops.trainers import checkpoint, setup
from ganops.trainers.config import TrainConfig
from ganops.trainers.folder import RunFolder, next_name, read_log, refuse_used
from ganops.trainers.guard import Guard, NonFiniteError, RollBack
from ganops.trainers.outputs import Outputs
from ganops.trainers.report import Reporter
from ganops.trainers.sampling import sample
from ganops.trainers.signals import StopRequest
from ganops.trainers.step import Position, Stepper


class Trainer:
    """Trains a recipe and keeps everything needed to go on exactly where it stopped.

    `method`: a name or a Recipe. `data`: whatever `open_data` takes. `generator`, `discriminator`:
    own networks in place of the recipe's (trained in place). `out`: run folder, must be new or
    empty; default ``runs/00000-METHOD-DATA``. Other settings: the fields of `TrainConfig`.

    On the same machine with the same seed two runs are bit-identical, and a run that is stopped and
    resumed equals one that was not. Single process: where WORLD_SIZE > 1 it refuses. Raises
    ValueError, TypeError or OSError for settings and data that cannot serve.
    """

    def __init__(
        self,
        method: str | Recipe,
        *,
        data: Any = TrainConfig.data,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        out: str | None = None,
        quiet: bool = False,
        **settings: Any,
    ) -> None:
        setup.refuse_many_processes()
        self.recipe = recipe(method) if isinstance(method, str) else method
        if not isinstance(self.recipe, Recipe):
            raise TypeError(f"method must be a name or a Recipe, got {type(method).__name__}")
        self.config = config.from_dict(TrainConfig, {**settings, "data": setup.name_of(data)})
        self.device = setup.pick_device(self.config.device)
        self.out, self.quiet = out, quiet
        if out is not None:
            refuse_used(out)
        self.sources = {"data": open_data(data, res=self.config.res, seed=self.config.seed)}
        self.images = setup.image_spec(self.sources["data"])
        if self.config.eval_every:
            Quality.check(self.sources["data"])
        given = {"generator": generator, "discriminator": discriminator}
        self._own = {name: network for name, network in given.items() if network is not None}
        with setup.private_rng(self.device):
            torch.manual_seed(self.config.seed)
            self.method = setup.build(self.recipe, self.images, self._own, self.device)
            self._rng = checkpoint.rng_state()
        self.guard = Guard(self.config.nan, self.config.nan_limit, self.device)
        self.stepper = Stepper(
            self.method,
            self.sources,
            self.guard,
            batch=self.config.batch,
            seed=self.config.seed,
            device=self.device,
        )
        self.position = Position()
        self.stopped_by: str | None = None  # the signal that ended fit() early
        self._resumed = False

    @classmethod
    def resume(
        cls,
        run: str,
        *,
        data: Any = None,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        quiet: bool = False,
        allow: Iterable[str] = (),
        changes: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Trainer:
        """Go on from the latest checkpoint of `run`; call `fit()` on what it returns.

        Steps, intervals, `keep` and device may change freely; any other setting (a keyword, or
        `changes` by dotted key) only if `allow` names it. `data`: where moved data are now, or the
        loader of a run that had one; likewise own networks must be given again.
        """
        saved, path = setup.read_run(run), checkpoint.latest(run)
        parts = checkpoint.load(path)
        new_recipe, train = setup.changed(saved, {**(changes or {}), **settings}, allow)
        given = {"generator": generator, "discriminator": discriminator}
        train["data"] = setup.same_objects(saved, given, train["data"] if data is None else data)
        trainer = cls(
            new_recipe, generator=generator, discriminator=discriminator, quiet=quiet, **train
        )
        setup.check_same_images(saved, trainer.images)
        with checkpoint.fitting(path):
            trainer.restore(parts)
            places = {name: parts["data"][name] for name in trainer.sources}
        for name, source in trainer.sources.items():  # a loader's own errors are its own
            source.load_state_dict(places[name])
        step, steps = trainer.position.step, trainer.config.steps
        if steps < step:
            raise ValueError(f"steps must be at least {step}, where {run!r} stands, got {steps}")
        read_log(run)  # raises for a damaged log while nothing is rewritten
        trainer.out, trainer._resumed = run, True
        return trainer

    @property
    def generator(self) -> nn.Module:
        return self.method.networks["generator"]

    @property
    def discriminator(self) -> nn.Module:
        return self.method.networks["discriminator"]

    @property
    def ema(self) -> nn.Module:
        """The generator with averaged weights: what samples are drawn from."""
        return self.stepper.averages["generator"].network

    @property
    def phases(self) -> tuple[Phase, ...]:
        return self.method.phases

    def sample(self, count: int, *, seed: int | None = None) -> Tensor:
        """Images of the averaged generator -> (count, C, H, W) uint8 on the CPU."""
        networks = dict(self.method.networks)
        networks.update({name: a.network for name, a in self.stepper.averages.items()})
        chosen = self.config.seed if seed is None else seed
        with setup.private_rng(self.device):
            return sample(self.method, networks, count, seed=chosen, device=self.device)

    def fit(self) -> Trainer:
        """Train to `steps`, or until SIGINT or SIGTERM: then finish the step, save and return."""
        total, start = self.config.steps, self.position.step
        if self.out is None:
            self.out = next_name("runs", self.recipe.method, self.config.data)
        if not self._resumed:
            refuse_used(self.out)
        self._check_outputs()
        folder = RunFolder(self.out)
        folder.create(self.settings())
        stop = StopRequest()
        title = f"{self.recipe.method} {self.config.data}"
        with (
            setup.private_rng(self.device),
            stop,
            Reporter(total, start, title=title, quiet=self.quiet) as reporter,
        ):
            checkpoint.set_rng_state(self._rng)
            outputs = Outputs(self, folder, reporter, resumed=self._resumed)
            self._resumed = True  # a second fit() goes on in the same folder
            try:
                while self.position.step < total and stop.signal is None:
                    self._step(outputs, folder)
            finally:
                self.stepper.release()
            self.stopped_by = stop.signal
            outputs.finish()
            self._rng = checkpoint.rng_state()
        return self

    def _check_outputs(self) -> None:
        """Before anything is written: can all that a run writes be made here?"""
        require("safetensors.torch", "writing checkpoints", "safetensors")
        require("PIL.Image", "writing PNG files", "pillow")
        require("matplotlib", "drawing curves")
        made, shape = tuple(self.sample(1).shape[1:]), self.sources["data"].shape
        if made != tuple(shape):
            raise ValueError(f"the generator makes images {made}, the data have {tuple(shape)}")

    def _step(self, outputs: Outputs, folder: RunFolder) -> None:
        outputs.before_step()
        try:
            self.stepper.step(self.position)
        except RollBack:
            self._roll_back(folder)
            outputs.rewound()
        else:
            outputs.after_step()

    def settings(self) -> dict[str, Any]:
        """Everything that defines the run, as config.yaml and checkpoints hold it."""
        return setup.describe_run(self.recipe, self.config, self.images, self._own)

    def state(self) -> dict[str, Any]:
        """Everything that training changes, by part: one file each in a checkpoint."""
        return {
            "networks": {n: m.state_dict() for n, m in self.method.networks.items()},
            "ema": {n: a.network.state_dict() for n, a in self.stepper.averages.items()},
            "optimizers": {n: o.state_dict() for n, o in self.stepper.optimizers.items()},
            "method": {n: s.state_dict() for n, s in self.method.state.items()},
            "rng": checkpoint.rng_state(),
            "data": {n: s.state_dict() for n, s in self.sources.items()},
            "position": vars(self.position),
            "config": self.settings(),
            "versions": setup.versions(self.device),
        }

    def restore(self, parts: Mapping[str, Any]) -> None:
        """The inverse of `state`, except that data sources stay where they are."""
        setup.warn_of_other_versions(parts["versions"], setup.versions(self.device))
        for name, network in self.method.networks.items():
            network.load_state_dict(parts["networks"][name])
        for name, average in self.stepper.averages.items():
            average.network.load_state_dict(parts["ema"][name])
        for name, optimizer in self.stepper.optimizers.items():
            optimizer.load_state_dict(parts["optimizers"][name])
        for name, state in self.method.state.items():
            state.load_state_dict(parts["method"][name])
        self.position = Position(**parts["position"])
        self._rng = parts["rng"]

    def _roll_back(self, folder: RunFolder) -> None:
        """Back to the last checkpoint, with other random draws and with the data read on."""
        attempt, at = self.position.attempt + 1, self.position.step
        if attempt > self.config.nan_limit:
            raise NonFiniteError(
                f"non-finite loss or gradient at step {at} after {attempt - 1} rollbacks "
                f"(train.nan_limit)"
            )
        path = checkpoint.latest(folder.path)
        parts = checkpoint.load(path)
        with checkpoint.fitting(path):
            self.restore(parts)
        checkpoint.set_rng_state(self._rng)
        self.position.attempt = attempt
        self.stepper.statistics.read()
