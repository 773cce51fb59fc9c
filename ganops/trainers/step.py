"""One training step: the method's phases in order. This is the whole inner loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn, optim

from ganops.data import Source
from ganops.methods.base import Method, Phase, Progress
from ganops.methods.turn import Draw, Turn
from ganops.trainers.ema import Average
from ganops.trainers.guard import Guard
from ganops.trainers.sampling import latent


class Statistics:
    """Means of scalars since the last read, kept on the device until then."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.detach().float()  # may alias a state that a later hook changes in place
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self, *extra: Tensor) -> tuple[dict[str, float], list[float]]:
        """Means, and `extra` scalars, in one transfer; starts anew."""
        names = list(self._sums)
        scalars = [self._sums[n] / self._counts[n] for n in names]
        both = [t.reshape(()).to(torch.float64) for t in (*scalars, *extra)]
        numbers = torch.stack(both).tolist() if both else []
        self._sums, self._counts = {}, {}
        return dict(zip(names, numbers, strict=False)), numbers[len(names) :]


@dataclasses.dataclass
class Position:
    """How far a run has come; part of every checkpoint."""

    step: int = 0  # steps done: generator updates
    images_seen: int = 0  # global batch summed over steps
    attempt: int = 0  # rollbacks so far; it salts the random draws


class Stepper:
    """Runs the phases of a method. Owns the optimisers and the running averages."""

    def __init__(
        self,
        method: Method,
        sources: Mapping[str, Source],
        guard: Guard,
        *,
        batch: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.method, self.sources, self.guard = method, sources, guard
        self.batch, self.seed, self.device = batch, seed, device
        self.statistics = Statistics()
        self.last_draws: dict[str, Draw] = {}
        # Parameters frozen by their owner stay frozen whatever the phase.
        self._parameters = {
            name: [p for p in network.parameters() if p.requires_grad]
            for name, network in method.networks.items()
        }
        for phase in method.phases:
            if not self.parameters_of(phase):
                raise ValueError(f"phase {phase.name!r} has nothing to train: all weights frozen")
        self.optimizers: dict[str, optim.Optimizer] = {
            phase.name: phase.optimizer.build(self.parameters_of(phase))
            for phase in method.phases
            if not isinstance(phase.optimizer, str)
        }
        self.averages = {
            name: Average(method.networks[name], method.average) for name in method.averaged
        }
        self._trained: frozenset[str] | None = None

    def release(self) -> None:
        """Give every parameter back as its owner left it: trainable."""
        self._train_only(frozenset(self._parameters))

    def parameters_of(self, phase: Phase) -> list[nn.Parameter]:
        return [p for name in phase.modules for p in self._parameters[name]]

    def step(self, position: Position) -> None:
        """All phases once, in order; then `position` has moved on by one."""
        method = self.method
        progress = Progress(position.step, position.images_seen, self.optimizers)
        for hook in method.before_step:
            hook(progress)
        batch = self.batch if method.batch_at is None else method.batch_at(progress)
        waiting: list[tuple[Phase, Turn, Tensor]] = []
        self.last_draws = {}
        for phase in method.phases:
            if position.step % phase.interval:
                continue
            for turn_index in range(phase.repeat):
                turn = self._turn(phase, position, turn_index, batch)
                waiting.append((phase, turn, self._gradients(phase, turn)))
                if not phase.joint:
                    self._update(waiting, position.step)
                    waiting = []
            if phase.name == method.average_after:
                for average in self.averages.values():
                    average.update(batch, position.images_seen + batch)
        position.step += 1
        position.images_seen += batch

    def _turn(self, phase: Phase, position: Position, turn_index: int, batch: int) -> Turn:
        name = phase.draw if phase.draw in self.last_draws else phase.name
        if name == phase.name:
            users = [p for p in self.method.phases if phase.name in (p.name, p.draw)]
            self.last_draws[phase.name] = Draw(
                phase.name,
                position.step * phase.repeat + turn_index,
                batch=batch,
                seed=self.seed,
                attempt=position.attempt,
                device=self.device,
                sources=self.sources,
                kept_graphs=frozenset(m for p in users for m in p.modules),
            )
        return Turn(
            self.last_draws[name],
            networks=self.method.networks,
            parameters=self._parameters,
            state=self.method.state,
            trained=frozenset(phase.modules),
            latent=lambda t: latent(self.method, t),
            generate=self.method.generate,
            step=position.step,
            images_seen=position.images_seen,
        )

    def _gradients(self, phase: Phase, turn: Turn) -> Tensor:
        """Loss and regularisers of one turn, differentiated into .grad of the phase's networks."""
        self._train_only(frozenset(phase.modules))
        for p in self.parameters_of(phase):
            p.grad = None
        loss = phase.loss(turn)
        turn.values[f"loss/{phase.name}"] = loss.detach()
        for r in self.method.regularizers:
            if r.phase == phase.name and turn.step % r.interval == 0:
                penalty = r.penalty(turn)
                turn.values[f"penalty/{r.tag}"] = penalty.detach()
                loss = loss + (r.weight * r.interval) * penalty
        torch.autograd.backward(loss)
        return loss.detach()

    def _update(self, waiting: list[tuple[Phase, Turn, Tensor]], step: int) -> None:
        """Optimiser steps of the turns whose gradients stand ready, then their hooks."""
        for phase, turn, loss in waiting:
            grads = [p.grad for p in self.parameters_of(phase) if p.grad is not None]
            if not self.guard.allows(loss, grads, step):
                continue
            owner = phase.optimizer if isinstance(phase.optimizer, str) else phase.name
            self.optimizers[owner].step()
            for hook in phase.after:
                hook(turn)
            self.statistics.add(turn.values)

    def _train_only(self, trained: frozenset[str]) -> None:
        if trained == self._trained:
            return
        for name, parameters in self._parameters.items():
            for p in parameters:
                p.requires_grad_(name in trained)
        self._trained = trained
