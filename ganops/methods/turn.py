"""One batch as a phase's loss sees it: everything is drawn on demand and nothing depends on order.

z and every other random number is a function of (seed, name of the draw, index of the draw) by
Philox counters. Real images come from a source whose position the trainer saves.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ganops import use_impl
from ganops.data import Source, to_float
from ganops.ops import random_normal, random_uniform

V = TypeVar("V")
SLOT = 1 << 32  # counter elements set aside for each draw, whatever the batch size


def stream_of(name: str, attempt: int = 0) -> int:
    """A Philox stream for a name; stable across processes and versions of Python."""
    return zlib.crc32(name.encode()) | (attempt << 32)


class Draw:
    """The random numbers and the data of one batch, shared by every phase that names this draw."""

    def __init__(
        self,
        name: str,
        index: int,
        *,
        batch: int,
        seed: int,
        attempt: int = 0,
        device: torch.device,
        sources: Mapping[str, Source],
        kept_graphs: frozenset[str] = frozenset(),
    ) -> None:
        self.name, self.index, self.batch = name, index, batch
        self.device = device
        self.kept_graphs = kept_graphs  # networks trained by any phase that uses this draw
        self._seed, self._attempt, self._sources = seed, attempt, sources
        self.memory: dict[str, Any] = {}

    def once(self, key: str, make: Callable[[], V]) -> V:
        if key not in self.memory:
            self.memory[key] = make()
        value: V = self.memory[key]
        return value

    def random(self, kind: Callable[..., Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
        stream = stream_of(f"{self.name}/{name}", self._attempt)
        on_cpu = self.device.type == "cpu"  # there GANOPS_IMPL may name what only a GPU can run
        with use_impl("auto") if on_cpu else contextlib.nullcontext():
            return kind(
                shape, seed=self._seed, offset=self.index * SLOT, stream=stream, device=self.device
            )

    def seed_of(self, name: str) -> int:
        """63 bits of what identifies this draw: a number of the host, nothing to be saved."""
        words = f"{self._seed}/{self._attempt}/{self.name}/{self.index}/{name}"
        return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "little") >> 1

    def images(self, source: str) -> tuple[Tensor, Tensor | None]:
        def make() -> tuple[Tensor, Tensor | None]:
            images, labels = self._sources[source].take(self.batch)
            moved = None if labels is None else labels.to(self.device, non_blocking=True)
            return to_float(images.to(self.device, non_blocking=True)), moved

        return self.once(f"images/{source}", make)


class Turn:
    """A phase's view of its batch.

    ``real`` and ``fake`` (B, C, H, W) in [-1, 1], ``labels`` (B,) or None, ``z`` (B, z_dim).
    ``fake`` carries a graph to the generator only in a phase that trains it. ``uniform`` and
    ``normal`` draw named random numbers, ``seed_of`` gives a seed to what draws for itself,
    ``networks`` and ``state`` are the method's, ``values`` collects what ``log`` was given, for
    hooks and for the log file.
    """

    def __init__(
        self,
        draw: Draw,
        *,
        networks: Mapping[str, nn.Module],
        parameters: Mapping[str, list[nn.Parameter]],
        state: Mapping[str, Any],
        trained: frozenset[str],
        latent: Callable[[Turn], Tensor],
        generate: Callable[[Mapping[str, nn.Module], Turn], Tensor],
        step: int,
        images_seen: int,
    ) -> None:
        self.draw, self.networks, self.state = draw, networks, state
        self.trained, self.step, self.images_seen = trained, step, images_seen
        self.values: dict[str, Tensor] = {}
        self._parameters = parameters  # those that their owner lets train
        self._latent, self._generate = latent, generate
        self._other_z: Tensor | None = None

    @property
    def batch(self) -> int:
        return self.draw.batch

    @property
    def real(self) -> Tensor:
        return self.images()[0]

    @property
    def labels(self) -> Tensor | None:
        return self.images()[1]

    @property
    def z(self) -> Tensor:
        if self._other_z is not None:
            return self._other_z
        return self.draw.once("z", lambda: self._latent(self))

    @property
    def fake(self) -> Tensor:
        return self.shared("fake", ("generator",), lambda: self._generate(self.networks, self))

    def fake_near(self, sigma: float) -> Tensor:
        """``fake`` at the latents z + sigma n, n ~ N(0, I), all else the same; graph likewise."""

        def make() -> Tensor:
            near = copy.copy(self)
            near._other_z = self.z + sigma * self.normal("near", *self.z.shape).to(self.z)
            return self._generate(self.networks, near)

        return self.shared(f"fake near {sigma!r}", ("generator",), make)

    @property
    def generator(self) -> nn.Module:
        return self.networks["generator"]

    @property
    def discriminator(self) -> nn.Module:
        return self.networks["discriminator"]

    def images(self, source: str = "data") -> tuple[Tensor, Tensor | None]:
        """A real batch of a named data source, drawn once per draw."""
        return self.draw.images(source)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """U[0, 1) numbers belonging to this draw and name."""
        return self.draw.random(random_uniform, name, shape)

    def normal(self, name: str, *shape: int) -> Tensor:
        """N(0, 1) numbers belonging to this draw and name."""
        return self.draw.random(random_normal, name, shape)

    def seed_of(self, name: str) -> int:
        """A seed belonging to this draw and name, for operations that draw for themselves."""
        return self.draw.seed_of(name)

    def shared(self, key: str, made_by: tuple[str, ...], make: Callable[[], Tensor]) -> Tensor:
        """`make()` once per draw; detached in a phase that trains none of the networks `made_by`.

        When phases share the draw and one of them trains a maker, the graph is kept for that one.
        """
        makers = frozenset(made_by)

        def build() -> Tensor:
            frozen = [
                p
                for name in makers & self.draw.kept_graphs - self.trained
                for p in self._parameters[name]
            ]
            try:
                for p in frozen:
                    p.requires_grad_(True)
                with torch.set_grad_enabled(bool(makers & self.draw.kept_graphs)):
                    return make()
            finally:
                for p in frozen:
                    p.requires_grad_(False)

        value = self.draw.once(key, build)
        return value if makers & self.trained else value.detach()

    def log(self, name: str, value: Tensor) -> None:
        """Record a scalar tensor under `name`; it is read at the next log interval, not now."""
        self.values[name] = value.detach()
