"""How a critic gets to see several batches: as one, or one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..augment import AugmentPolicy, consistency_pair
from ..gradient_penalty.critic import Critic
from ..philox import _signed

Labels: TypeAlias = "Tensor | tuple[Tensor, ...] | dict[str, Tensor] | None"
_Flat: TypeAlias = "dict[Any, Tensor]"  # a critic's arguments, by place or by name


@dataclass(frozen=True)
class Twins:
    """T, and how it is drawn; `name` is the penalty's, for messages."""

    name: str
    policy: str | AugmentPolicy
    augment: Callable[[Tensor], Tensor] | None = None
    generator: torch.Generator | None = None
    seed: int | None = None
    offset: int | None = None

    def of_fakes(self) -> Twins:
        """Independent of what is drawn for reals: no user takes both a seed and its complement."""
        return self if self.seed is None else replace(self, seed=~_signed(self.seed, "seed"))

    def pair(self, x: Tensor) -> Tensor:
        """[x ; T(x)]."""
        if self.augment is None:
            drawn = {k: v for k in ("generator", "seed", "offset")
                     if (v := getattr(self, k)) is not None}  # fmt: skip
            whole: Tensor = consistency_pair(x, self.policy, **drawn)
            return whole
        if (self.generator, self.seed, self.offset) != (None, None, None):
            raise ValueError(
                f"{self.name}: expected generator, seed and offset with a policy only, got them "
                "with augment="
            )
        if not callable(self.augment):
            raise TypeError(f"{self.name}: expected augment as a function, got {self.augment!r}")
        twin = self.augment(x)
        if not isinstance(twin, Tensor) or twin.shape != x.shape:
            got = tuple(twin.shape) if isinstance(twin, Tensor) else type(twin).__name__
            raise ValueError(
                f"{self.name}: expected augment(x) of shape {tuple(x.shape)}, got {got}"
            )
        return torch.cat((x, twin))


class Passes:
    """The images that a critic is to see, part by part, in one call or in one call a part."""

    def __init__(self, critic: Critic, *, joint: bool) -> None:
        self._critic, self._joint = critic, joint
        self._images: list[tuple[Tensor, int]] = []  # and how many parts they are
        self._sizes: list[int] = []  # of the parts
        self._labels: list[_Flat] = []
        self._scores: list[Tensor] = []  # one of everything, or one a part

    def add(self, images: Tensor, labels: Labels, *, parts: int = 1) -> int:
        """Takes `parts` equal parts that share their labels. -> the index of the first."""
        if not images.is_floating_point():
            raise TypeError(f"{self._critic.name}: expected float images, got {images.dtype}")
        size = images.shape[0] // parts
        flat = _flat(labels)
        for t in flat.values():
            if not isinstance(t, Tensor) or t.dim() == 0 or t.shape[0] != size:
                got = tuple(t.shape) if isinstance(t, Tensor) else type(t).__name__
                raise ValueError(
                    f"{self._critic.name}: expected labels as tensors of {size} rows, one for each "
                    f"image, got {got}"
                )
        if self._labels and flat.keys() != self._labels[0].keys():
            raise ValueError(
                f"{self._critic.name}: expected the same labels for real and for fake images, "
                f"got {[*self._labels[0]]} and {[*flat]}"
            )
        # No set of keys: torch 2.11's compiler has none of a dictionary made while it traces.
        if twice := [key for key in flat if key in (self._critic.kwargs or {})]:
            raise ValueError(
                f"{self._critic.name}: expected each argument once, got {sorted(twice)} both in "
                "labels and in critic_kwargs"
            )
        first = len(self._sizes)
        self._images.append((images, parts))
        self._sizes += [size] * parts
        self._labels += [flat] * parts
        return first

    def run(self) -> None:
        """Calls the critic."""
        if not self._joint:
            parts = [x for whole, n in self._images for x in whole.chunk(n)]
            calls = zip(parts, self._labels, strict=True)
            self._scores = [self._call(x, labels) for x, labels in calls]
            return
        given = (*self._critic.args, *(self._critic.kwargs or {}).values())
        for t in given:
            if isinstance(t, Tensor) and t.dim() and t.shape[0] in self._sizes:
                raise ValueError(
                    f"{self._critic.name}: expected what belongs to single images as labels=, "
                    f"which the one call repeats, got {tuple(t.shape)} in critic_args or "
                    "critic_kwargs; or pass joint=False"
                )
        keys = self._labels[0]
        labels = {k: torch.cat([each[k] for each in self._labels]) for k in keys}
        images = [whole for whole, _ in self._images]
        joined = images[0] if len(images) == 1 else torch.cat(images)
        self._scores = [self._call(joined, labels)]

    def part(self, i: int) -> Tensor:
        """The scores of one part."""
        return self._range(i, 1)

    def pair(self, i: int) -> Tensor:
        """Those of part i and, behind them, of part i + 1; no copy where one call gave them."""
        return self._range(i, 2)

    def _range(self, i: int, parts: int) -> Tensor:
        if self._joint:
            return self._scores[0].narrow(0, sum(self._sizes[:i]), sum(self._sizes[i : i + parts]))
        return self._scores[i] if parts == 1 else torch.cat(self._scores[i : i + 2])

    def _call(self, x: Tensor, labels: _Flat) -> Tensor:
        args = [t for k, t in labels.items() if isinstance(k, int)]
        names = {k: t for k, t in labels.items() if isinstance(k, str)}
        critic = self._critic
        kwargs = {**(critic.kwargs or {}), **names}
        return replace(critic, args=(*args, *critic.args), kwargs=kwargs).scores(x)


def _flat(labels: Labels) -> _Flat:
    if labels is None:
        return {}
    if isinstance(labels, dict):
        return {**labels}
    return dict(enumerate(labels if isinstance(labels, tuple) else (labels,)))


def check_images(
    name: str,
    argument: str,
    x: Any,
    like: Tensor | None = None,
    *,
    each: bool = False,
    floating: bool = False,
) -> Tensor:
    """x, detached, as images of the size of `like`'s, one for each of them; or a clear error."""
    if not isinstance(x, Tensor) or (floating and not x.is_floating_point()):
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name}: expected {argument} as a float tensor, got {got}")
    if x.dim() == 0 or x.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one sample, got {tuple(x.shape)}")
    if like is not None and x.shape[not each :] != like.shape[not each :]:
        wanted = f"({'N' if not each else like.shape[0]}, {str(tuple(like.shape[1:]))[1:]}"
        raise ValueError(f"{name}: expected {argument} of shape {wanted}, got {tuple(x.shape)}")
    return x.detach()


def check_weight(name: str, argument: str, weight: float) -> None:
    """A finite number that is not negative."""
    if not hasattr(weight, "__float__"):
        raise TypeError(f"{name}: expected {argument} as a number, got {weight!r}")
    if not 0 <= weight < math.inf:
        raise ValueError(f"{name}: expected a finite {argument} >= 0, got {weight}")
