"""K modules from a factory: are they alike, do they share nothing, and their tensors stacked."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.utils import parametrizations, parametrize, spectral_norm

from .bank_rules import SpectralNorms
from .layers import TWINS
from .spectral_norm import _Part

_PLAIN = (bool, int, float, str, tuple, type(None))
_TORCHS_OWN = {twin: stock for stock, twin in TWINS.items()}


def build(make: Callable[[], Any], count: int, seed: int | Sequence[int] | None) -> nn.Module:
    """One module as the factory makes it, but for its tensors, which have the members in front."""
    seeds = _seeds(seed, count)
    first: nn.Module | None = None
    stacks: dict[str, Tensor] = {}
    earlier: list[Callable[[], Tensor | None]] = []  # weak: only what is shared outlives its member
    for k in range(count):
        with _seeded(seeds[k]):
            member = make()
        if not isinstance(member, nn.Module):
            raise TypeError(
                "DiscriminatorBank: expected make_discriminator() to return a torch.nn.Module, "
                f"got {type(member).__name__}"
            )
        tensors = _tensors(member)
        _refuse_hidden_state(member)
        _refuse_shared(k, tensors, earlier)
        if first is None:
            first = copy.deepcopy(member)
            stacks = {name: _empty_stack(first, name, t, count) for name, t in tensors.items()}
        else:
            _refuse_difference(k, first, member)
        for name, t in tensors.items():
            stacks[name][k].copy_(t.detach())
        earlier.extend(weakref.ref(t) for t in tensors.values())
        del member, tensors
    if first is None:
        raise ValueError(f"DiscriminatorBank: expected K of at least 1, got {count}")
    put(first, stacks)
    return first


def put(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Replaces parameters and buffers by name; tied ones stay tied."""
    known = dict(module.named_parameters(remove_duplicate=False))
    made: dict[int, Tensor] = {}
    everything = [*known.items(), *module.named_buffers(remove_duplicate=False)]
    names = {id(t): name for name, t in reversed(everything)}  # the first name of each
    for name, old in everything:
        owner, _, own = name.rpartition(".")
        if id(old) not in made:
            t = tensors[names[id(old)]]
            made[id(old)] = Parameter(t, old.requires_grad) if name in known else t
        setattr(module.get_submodule(owner), own, made[id(old)])


def batchable(module: nn.Module) -> nn.Module:
    """Layers that would run by themselves, as what the bank's rules see. In place."""
    stock, _ = _spectral_norms()
    for layer in module.modules():
        kind = type(layer)
        if parametrize.is_parametrized(layer):
            if kind.__bases__[0] in _TORCHS_OWN:  # torch's class in front carries the properties
                own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
                layer.__class__ = type(kind.__name__, (_TORCHS_OWN[kind.__bases__[0]],), own)
        elif kind in _TORCHS_OWN:
            layer.__class__ = _TORCHS_OWN[kind]
        if isinstance(layer, parametrize.ParametrizationList):
            for i, part in enumerate(layer):
                if type(part) in (stock, _Part) and dict(part.named_buffers()):
                    layer[i] = SpectralNorms(part)
    return module


@cache
def _spectral_norms() -> tuple[type, type]:
    """torch's parametrisation and its older hook: public by what they do, not by their names."""
    with torch.random.fork_rng([]):
        new: Any = parametrizations.spectral_norm(nn.Linear(1, 1))
        (old,) = spectral_norm(nn.Linear(1, 1))._forward_pre_hooks.values()
    return type(new.parametrizations.weight[0]), type(old)


def _seeds(seed: int | Sequence[int] | None, count: int) -> list[int | None]:
    if seed is None:
        return [None] * count
    if isinstance(seed, int):
        return [seed + k for k in range(count)]
    if len(seed) != count:
        raise ValueError(f"DiscriminatorBank: expected {count} seeds, got {len(seed)}")
    return list(seed)


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _tensors(member: nn.Module) -> dict[str, Tensor]:
    return {**dict(member.named_parameters()), **dict(member.named_buffers())}


def _empty_stack(member: nn.Module, name: str, t: Tensor, count: int) -> Tensor:
    """Kernels of convolutions with their channels innermost, as ops/conv/bank.py reads them."""
    owner, _, own = name.split(".parametrizations.")[0].rpartition(".")
    if ".parametrizations." not in name:
        layer = member.get_submodule(owner)
    else:
        layer = member.get_submodule(f"{owner}.{own}" if owner else own)
    if isinstance(layer, nn.Conv2d) and layer.groups == 1 and t.dim() == 4:
        rows = t.new_empty(count, t.shape[0], *t.shape[2:], t.shape[1])
        return rows.permute(0, 1, 4, 2, 3)
    return t.new_empty(count, *t.shape)


def _refuse_shared(
    k: int, tensors: dict[str, Tensor], earlier: list[Callable[[], Tensor | None]]
) -> None:
    taken = {t.untyped_storage().data_ptr() for ref in earlier if (t := ref()) is not None}
    for name, t in tensors.items():
        if t.numel() and t.untyped_storage().data_ptr() in taken:
            raise ValueError(
                f"DiscriminatorBank: expected discriminators that share nothing, got {name} of "
                f"number {k} in the memory of an earlier one's: make_discriminator() must build "
                "new layers each time"
            )


def _refuse_hidden_state(member: nn.Module) -> None:
    _, old = _spectral_norms()
    for name, layer in member.named_modules():
        if any(type(hook) is old for hook in layer._forward_pre_hooks.values()):
            raise ValueError(
                "DiscriminatorBank: expected torch.nn.utils.parametrizations.spectral_norm, got "
                f"the older torch.nn.utils.spectral_norm on {name or 'the discriminator'}"
            )
        for own, value in vars(layer).items():
            if isinstance(value, Tensor) and own not in layer.state_dict():
                raise ValueError(
                    "DiscriminatorBank: expected tensors as parameters or buffers, got one in the "
                    f"plain attribute {own} of {name or type(layer).__name__}"
                )


def _refuse_difference(k: int, first: nn.Module, member: nn.Module) -> None:
    """All run by the code and settings of the first."""
    for (name, a), (other, b) in zip(_facts(first), _facts(member)):
        if (name, a) != (other, b):
            got = f"{other} {b}" if name != other else f"{b}"
            raise ValueError(
                f"DiscriminatorBank: expected discriminators of one architecture, got {got} where "
                f"the first has {name} {a}, in number {k}"
            )
    if len(_facts(first)) != len(_facts(member)):
        raise ValueError(
            "DiscriminatorBank: expected discriminators of one architecture, got number "
            f"{k} with other layers than the first"
        )


def _facts(member: nn.Module) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = []
    for name, layer in member.named_modules():
        settings = {
            own: value for own, value in vars(layer).items()
            if isinstance(value, _PLAIN) and not own.startswith("_")
        }  # fmt: skip
        kind = type(layer)
        if parametrize.is_parametrized(layer):  # torch makes a class of its own for each
            kind = kind.__bases__[0]
        facts.append((name or "the whole", (kind.__qualname__, layer.extra_repr(), settings)))
    for name, t in _tensors(member).items():
        facts.append((name, (tuple(t.shape), t.dtype, t.device, t.requires_grad)))
    return facts
