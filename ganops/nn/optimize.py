"""`ganops.optimize`: known layers of somebody's critic, swapped for their twins."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from .layers import PIECEWISE_LINEAR, TWINS

# Linear in x, and with nothing useless to send: torch's own stays.
_LINEAR = (
    nn.Linear, nn.Bilinear, nn.Identity, nn.Flatten, nn.Unflatten, nn.Embedding,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.ZeroPad2d, nn.ConstantPad2d,
    nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.Fold, nn.Unfold,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d,
)  # fmt: skip
# Containers that call their children and nothing else.
_PLAIN_CONTAINERS = (
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
    nn.ParameterList,
    nn.ParameterDict,
)


@dataclass
class Report:
    """What `optimize` did, layer by layer (names as in ``named_modules()``).

    Attributes:
        swapped: (name, type) of the layers that are twins now, those that were before included.
        left: (name, type, reason) of the layers that stay as they are and might have mattered.
        own_code: names of modules with children and a forward of their own: functions that it
            calls are out of sight here (the penalties in `ganops.ops` see and re-route them).
        piecewise_linear: are all layers in sight piecewise linear? False is certain; True holds
            for the layers alone where `own_code` is not empty.
    """

    swapped: list[tuple[str, str]] = field(default_factory=list)
    left: list[tuple[str, str, str]] = field(default_factory=list)
    own_code: list[str] = field(default_factory=list)
    piecewise_linear: bool = True

    def __str__(self) -> str:
        kinds: dict[str, int] = {}
        for _, kind in self.swapped:
            kinds[kind] = kinds.get(kind, 0) + 1
        counts = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or "nothing"
        lines = [f"ganops.optimize: swapped {counts}"]
        lines += [f"  left {name or '(root)'}, {kind}: {why}" for name, kind, why in self.left]
        verdict = "all layers are piecewise linear" if self.piecewise_linear else (
            "not piecewise linear: a gradient penalty costs up to six forwards, not four"
        )  # fmt: skip
        if self.own_code and self.piecewise_linear:
            verdict += f"; what the code of {_some(self.own_code)} calls is not in sight"
        return "\n".join([*lines, f"  {verdict}"])


def optimize(module: nn.Module, *, inplace: bool = True, verbose: bool = True) -> nn.Module:
    r"""Swaps known torch.nn layers for their `ganops.nn` twins, wherever they sit in `module`.

    A swap changes the layer's class and nothing else: parameters, buffers, state_dict keys, hooks,
    parametrisations (spectral norm among them), training flags and shared layers stay as they are,
    and the numbers are torch's own, first derivatives included. What changes is the second
    derivative: piecewise linear layers send nothing to the primal network, convolutions take their
    weight gradient from the real weight-gradient kernel, and norms and smooth activations run one
    fused kernel. The penalties of `ganops.ops` do the same for an untouched critic; this makes it
    last, for penalties of your own as well.

    Layers are known by exact type. Left alone, with a reason in the report: subclasses (they may
    rely on what a twin leaves out), layers whose forward was replaced, lazy layers, and scripted
    modules.

    Under the transforms of torch.func a convolution copies its result, so that an activation with
    inplace=True may follow, as after torch's own.

    Args:
        module: any module, not compiled.
        inplace: swap in `module` itself; False: in a deep copy.
        verbose: print the report; `ganops.nn.report(module)` returns it at any time.

    Returns:
        `module`, or the copy.

    Raises:
        TypeError: `module` is not a torch.nn.Module.
        ValueError: `module` was compiled: optimise first, then compile.

    Example:
        >>> critic = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
        >>> _ = optimize(critic)
        ganops.optimize: swapped 1 ReLU
          all layers are piecewise linear
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"optimize: expected a torch.nn.Module, got {type(module).__name__}")
    if hasattr(module, "_orig_mod"):
        raise ValueError("optimize: the module was compiled; optimize it first, then compile it")
    target = module if inplace else copy.deepcopy(module)
    for layer in target.modules():
        if _reason(layer) is None and not _is_twin(layer):
            _swap(layer)
    if verbose:
        print(report(target))
    return target


def report(module: nn.Module) -> Report:
    """What of `module` is twins, what is not and why, as `optimize` prints it. Changes nothing."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"report: expected a torch.nn.Module, got {type(module).__name__}")
    found = Report()
    for name, layer in module.named_modules():
        kind = _own_type(layer)
        if _is_twin(layer):
            found.swapped.append((name, kind.__name__))
            found.piecewise_linear &= kind in PIECEWISE_LINEAR.values()
        elif kind in _PLAIN_CONTAINERS or kind in _LINEAR:
            continue
        elif next(layer.children(), None) is not None and not is_parametrized(layer):
            found.own_code.append(name or "(root)")
        elif ".parametrizations" not in f".{name}":
            found.left.append((name, kind.__name__, _reason(layer) or "a twin exists: optimize()"))
            found.piecewise_linear &= issubclass(kind, tuple(PIECEWISE_LINEAR))
    return found


def _own_type(layer: nn.Module) -> type[nn.Module]:
    """The class as written: torch puts one of its own before it where weights are parametrised."""
    kind = type(layer)
    return kind.__bases__[0] if is_parametrized(layer) else kind


def _is_twin(layer: nn.Module) -> bool:
    return _own_type(layer) in TWINS.values()


def _reason(layer: nn.Module) -> str | None:
    """Why a layer is not swapped, or None if it may be."""
    kind = _own_type(layer)
    if "forward" in vars(layer):
        return "its forward was replaced"
    if kind in TWINS or kind in TWINS.values():
        return None
    if isinstance(layer, torch.jit.ScriptModule):
        return "scripted"
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin):
        return "lazy: run it once, then optimize"
    for known in TWINS:
        if issubclass(kind, known):
            return f"a subclass of {known.__name__}, which may rely on what a twin leaves out"
    return "no twin"


def _swap(layer: nn.Module) -> None:
    """Changes the class, so that everything that hangs on the object stays."""
    twin = TWINS[_own_type(layer)]
    if is_parametrized(layer):  # torch's class in front carries the parametrised properties
        front = type(layer)
        own = {k: v for k, v in vars(front).items() if k not in ("__dict__", "__weakref__")}
        twin = type(front.__name__, (twin,), own)
    layer.__class__ = twin


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
