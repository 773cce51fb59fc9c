"""One power iteration for all layers of a network that stock PyTorch normalises one by one.

The layers keep torch's parametrisation: the parameter `original`, the buffers `_u` and `_v`, their
names in state_dict. Only the module that computes W / sigma is another: inside a call of the root
it computes all layers' at the first request and hands them out for the rest of that call.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from ..ops import spectral_norm_weights

Root = TypeVar("Root", bound=nn.Module)


def batch_spectral_norm(module: Root) -> Root:
    """Makes the layers of `module` under torch's spectral_norm share one power iteration a forward.

    Equivalent to what was there, to rounding, where a forward reads each weight once. In training
    the first weight read inside ``module(...)`` iterates all layers that are in training mode, also
    those that this forward then does not use; later reads of the same forward do not iterate again,
    where stock PyTorch does so at each. Weights read outside of ``module(...)``, and under
    torch.compile, are computed alone and as by stock PyTorch: every read in training iterates.

    Args:
        module: the root whose calls count as forwards; changed in place. Any of its submodules may
            carry ``torch.nn.utils.parametrizations.spectral_norm``, on any parameter. Subclasses of
            it, parameters of one dimension, and those with another parametrisation before it stay
            as they are.

    Returns:
        `module`.

    state_dict keys and values, optimisers, `copy.deepcopy`, `functional_call` and distributed data
    parallel go on as before. Derivatives and memory: as in `ganops.ops.spectral_norm_weights`.
    Under torch.utils.checkpoint a weight must be read outside the recomputed part, as in stock
    PyTorch, where the second run iterates once more.

    Raises:
        ValueError: no layer of `module` is under torch's spectral_norm, or all are done already.

    Source: Miyato et al. 2018.
    """
    example: Any = parametrizations.spectral_norm(nn.Linear(1, 1))
    stock = type(example.parametrizations.weight[0])  # public by what it does, not by its name
    group = _Group()
    for owner in module.modules():
        if not isinstance(owner, parametrize.ParametrizationList):
            continue
        if type(owner[0]) is stock and dict(owner[0].named_buffers()):
            owner[0] = part = _Part(owner[0], group)
            group.members.append((owner, part))
    if not group.members:
        raise ValueError(
            "batch_spectral_norm: expected layers under torch.nn.utils.parametrizations."
            f"spectral_norm that are not batched yet, found none in {type(module).__name__}"
        )
    module.register_forward_pre_hook(group.begin)
    module.register_forward_hook(group.end, always_call=True)
    return module


class _Part(nn.Module):
    """Stands where torch's own module of the parametrisation stood."""

    def __init__(self, stock: nn.Module, group: _Group) -> None:
        super().__init__()
        for name, buffer in stock.named_buffers():  # _u and _v
            self.register_buffer(name, buffer)
        self.dim: Any = stock.dim
        self.eps: Any = stock.eps
        self.n_power_iterations: Any = stock.n_power_iterations
        self.training = stock.training
        self.group = group

    @property
    def steps(self) -> int:
        return self.n_power_iterations if self.training else 0

    def forward(self, weight: Tensor) -> Tensor:
        return self.group.take(self, weight)

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


class _Group:
    """The layers of one root, and what one call of it has computed so far."""

    def __init__(self) -> None:
        self.members: list[tuple[Any, _Part]] = []  # with the list that holds `original`
        self.calls = 0  # of the root, one inside another
        self.done: set[_Part] = set()  # had their step in this call
        self.ready: dict[_Part, tuple[Tensor, bool, Tensor]] = {}

    def begin(self, *_: Any) -> None:
        self.calls += 1

    def end(self, *_: Any) -> None:
        self.calls = max(self.calls - 1, 0)  # another's hook may have raised before ours began
        if self.calls == 0:
            self.done.clear()
            self.ready.clear()

    def take(self, part: _Part, weight: Tensor) -> Tensor:
        if self.calls == 0 or torch.compiler.is_compiling():
            return _normalised([(part, weight)], part.steps)[0]
        if not self.done:
            self._all()
        found = self.ready.get(part)
        # Computed from another tensor (functional_call, a replica), or without the graph asked for?
        if found is None or found[0] is not weight or found[1] != torch.is_grad_enabled():
            steps = 0 if part in self.done else part.steps
            self._keep([(part, weight)], steps)
        return self.ready[part][2]

    def _all(self) -> None:
        """Layers that share their settings take the step together."""
        alike: dict[Any, list[tuple[_Part, Tensor]]] = {}
        for owner, part in self.members:
            alike.setdefault((part.steps, part.eps, part.dim), []).append((part, owner.original))
        for (steps, _, _), pairs in alike.items():
            self._keep(pairs, steps)

    def _keep(self, pairs: list[tuple[_Part, Tensor]], steps: int) -> None:
        graph = torch.is_grad_enabled()
        for (part, weight), value in zip(pairs, _normalised(pairs, steps)):
            self.ready[part] = (weight, graph, value)
            self.done.add(part)


def _normalised(pairs: list[tuple[_Part, Tensor]], steps: int) -> list[Tensor]:
    first = pairs[0][0]
    us, vs = ([p.get_buffer(name) for p, _ in pairs] for name in ("_u", "_v"))
    weights = [w for _, w in pairs]
    return spectral_norm_weights(weights, us, vs, n_iterations=steps, eps=first.eps, dim=first.dim)
