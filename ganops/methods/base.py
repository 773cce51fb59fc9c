"""What a method is: data. Networks, phases, regularisers and states; no loop, no input or output.

The trainer runs the phases in the order given. One pass over them is one step, and every step holds
one generator update. Everything that differs between methods is said with the fields below.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

from ganops.methods import config
from ganops.regularizers import Regularizer

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

    from ganops.methods.turn import Turn

R = TypeVar("R", bound="Recipe")


class Stateful(Protocol):
    """What a method must keep through a checkpoint: BEGAN's k, ADA's p, a stage, an image pool."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class OptimizerSettings(Protocol):
    """Settings that make a torch optimiser over one phase's parameters."""

    def build(self, parameters: list[nn.Parameter]) -> optim.Optimizer: ...


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam's settings. Kingma and Ba 2015, arXiv 1412.6980."""

    lr: float = 1e-4
    betas: tuple[float, float] = (0.0, 0.9)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        config.check_range("lr", self.lr, 0.0, open_low=True)
        config.check_range("eps", self.eps, 0.0, open_low=True)
        for i, beta in enumerate(self.betas):
            config.check_range(f"betas[{i}]", beta, 0.0, 1.0, open_high=True)

    def build(self, parameters: list[nn.Parameter]) -> optim.Optimizer:
        """torch's Adam with its fused kernel where every parameter allows it, else foreach."""
        import torch

        kinds = {p.device.type for p in parameters}
        fused = kinds <= {"cpu", "cuda"} and all(torch.is_floating_point(p) for p in parameters)
        chosen = {"fused": True} if fused else {"foreach": True}
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas, eps=self.eps, **chosen)


@dataclasses.dataclass(frozen=True)
class EMA:
    """Running average of weights: w <- beta w + (1 - beta) theta after every update of `after`.

    ``beta`` directly, or, where it is None, by half-life: beta = 0.5 ^ (batch / half_life), the
    half-life in images being min(half_life_kimg * 1000, ramp * images seen) where ramp is set.
    Floating buffers are averaged too (batch norm's statistics must match the averaged weights) or
    copied (``buffers="copy"``); integer buffers are copied. Yazici et al. 2018, arXiv 1806.04498.
    """

    half_life_kimg: float = 10.0
    beta: float | None = None
    ramp: float | None = None
    buffers: Literal["average", "copy"] = "average"

    def __post_init__(self) -> None:
        config.check_range("half_life_kimg", self.half_life_kimg, 0.0, open_low=True)
        if self.beta is not None:
            config.check_range("beta", self.beta, 0.0, 1.0, open_high=True)
        if self.ramp is not None:
            config.check_range("ramp", self.ramp, 0.0, open_low=True)

    def decay(self, batch: int, images_seen: int) -> float:
        """beta for one update."""
        if self.beta is not None:
            return self.beta
        half_life = self.half_life_kimg * 1000
        if self.ramp is not None:
            half_life = min(half_life, max(self.ramp * images_seen, 1e-8))
        return float(0.5 ** (batch / half_life))


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """What the data look like."""

    channels: int
    height: int
    width: int
    classes: int = 0


@dataclasses.dataclass(frozen=True)
class Phase:
    """One player's move: which networks move, on what loss, by which optimiser, when, how often."""

    name: str
    modules: tuple[str, ...]  # networks whose parameters this phase updates; all others are frozen
    loss: Callable[[Turn], Tensor]  # -> scalar
    optimizer: OptimizerSettings | str = Adam()  # or the earlier phase whose optimiser serves
    interval: int = 1  # runs on steps that this divides
    repeat: int = 1  # times within one step, each with a fresh draw (n_critic)
    draw: str | None = None  # reuse the last batch (real, z, fake) of that earlier phase
    joint: bool = False  # step together with the next phase, both gradients at the old weights
    after: tuple[Callable[[Turn], None], ...] = ()  # hooks after the optimiser's step


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run stands, as hooks before a step see it."""

    step: int
    images_seen: int
    optimizers: Mapping[str, optim.Optimizer]


def default_generate(networks: Mapping[str, nn.Module], turn: Turn) -> Tensor:
    images: Tensor = networks["generator"](turn.z)
    return images


@dataclasses.dataclass(frozen=True)
class Method:
    """A recipe made concrete for given images: what the trainer runs."""

    networks: Mapping[str, nn.Module]
    phases: tuple[Phase, ...]
    z_dim: int
    prior: Literal["normal", "uniform"] = "normal"  # N(0, I), or U[-1, 1)
    regularizers: tuple[Regularizer, ...] = ()
    state: Mapping[str, Stateful] = dataclasses.field(default_factory=dict)
    before_step: tuple[Callable[[Progress], None], ...] = ()  # schedules, growing stages
    batch_at: Callable[[Progress], int] | None = None  # global batch, where it changes over time
    averaged: tuple[str, ...] = ("generator",)
    average: EMA = EMA()
    average_after: str = "g"
    generate: Callable[[Mapping[str, nn.Module], Turn], Tensor] = default_generate

    def __post_init__(self) -> None:
        names = [p.name for p in self.phases]
        if len(set(names)) != len(names):
            raise ValueError(f"phases must have distinct names, got {names}")
        for i, phase in enumerate(self.phases):
            if phase.interval < 1 or phase.repeat < 1:
                raise ValueError(f"phase {phase.name!r}: interval and repeat must be >= 1")
            for module in phase.modules:
                if module not in self.networks:
                    raise ValueError(f"phase {phase.name!r} moves unknown network {module!r}")
            for other in (phase.draw, phase.optimizer):
                if isinstance(other, str) and other not in names[:i]:
                    raise ValueError(f"phase {phase.name!r} refers to {other!r}, not before it")
            if isinstance(phase.optimizer, str):
                owner = self.phases[names.index(phase.optimizer)]
                if isinstance(owner.optimizer, str) or set(owner.modules) != set(phase.modules):
                    raise ValueError(
                        f"phase {phase.name!r} shares the optimiser of {owner.name!r}: that phase "
                        f"must own it and move the same networks"
                    )
            if phase.joint:
                self._check_joint(phase, self.phases[i + 1 : i + 2])
        for r in self.regularizers:
            if r.phase not in names:
                raise ValueError(
                    f"regulariser {r.tag!r} joins unknown phase {r.phase!r} of {names}"
                )
        if self.average_after not in names:
            raise ValueError(f"average_after must name a phase of {names}")

    @staticmethod
    def _check_joint(phase: Phase, following: tuple[Phase, ...]) -> None:
        fits = phase.repeat == 1 and following and following[0].interval == phase.interval
        if not fits or set(phase.modules) & set(following[0].modules):
            raise ValueError(
                f"phase {phase.name!r} is joint: it needs repeat 1 and a next phase of the same "
                f"interval that moves other networks"
            )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of a method. ``recipe + regularizer`` composes, ``print`` shows its YAML."""

    regularizers: tuple[Regularizer, ...] = ()
    method: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    known: ClassVar[dict[str, type[Recipe]]] = {}

    def __init_subclass__(cls) -> None:
        if "method" in cls.__dict__:
            Recipe.known[cls.method] = cls

    def build(self, images: ImageSpec, networks: Mapping[str, nn.Module]) -> Method:
        """Networks and phases for these images; `networks` replaces the recipe's own by name."""
        raise NotImplementedError(f"{type(self).__name__} does not define build()")

    def __add__(self: R, other: Regularizer) -> R:
        if not isinstance(other, Regularizer):
            return NotImplemented
        return dataclasses.replace(self, regularizers=(*self.regularizers, other))

    def replace(self: R, /, **changes: Any) -> R:
        """A changed copy; nested settings by dotted key: ``replace(**{"penalty.weight": 5})``."""
        return config.replace(self, changes)

    def to_dict(self) -> dict[str, Any]:
        return {"method": self.method, **config.to_dict(self)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Recipe:
        values = dict(values)
        name = values.pop("method", None)
        return config.from_dict(recipe_class(name), values)

    def to_yaml(self) -> str:
        return config.dump_yaml(self.to_dict())

    def __str__(self) -> str:
        return self.to_yaml()


def recipe_class(name: Any) -> type[Recipe]:
    if name not in Recipe.known:
        hint = config.near_miss(str(name), Recipe.known)
        raise ValueError(f"unknown method {name!r}; {hint}")
    return Recipe.known[name]
