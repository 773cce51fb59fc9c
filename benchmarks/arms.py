"""What the benchmark files share: which sizes, which torch.compile, and the order-0-to-2 chains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


def sizes(
    *, tiny: Sequence[str], default: Sequence[str], paper: Sequence[str] = ()
) -> Callable[[Function], Function]:
    """The sizes of a benchmark at --sizes tiny and default; paper adds its own to default's."""

    def mark(function: Function) -> Function:
        table = {"tiny": tiny, "default": default, "paper": [*default, *paper]}
        function.sizes = table  # type: ignore[attr-defined]
        return function

    return mark


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch.compile, tried when first called: an arm made of it belongs in `Case.optional`."""
    return torch.compile(function, fullgraph=True, dynamic=False)


def with_gradient(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], upstream: Tensor | None = None
) -> Callable[[], tuple[Tensor, ...]]:
    """An arm: the value, and the gradient to every input."""

    def arm() -> tuple[Tensor, ...]:
        value = function(*inputs)
        return (value, *torch.autograd.grad(value, inputs, upstream))

    return arm


def with_second_gradient(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    direction: Tensor,
    upstream: Tensor | None = None,
) -> Callable[[], tuple[Tensor | None, ...]]:
    """An arm: the value, the gradient to the first input, and the gradient of <that, direction>.

    The last goes to the first input and to `upstream` (if any), as in a gradient penalty, where
    both depend on the critic's weights. None is what has no second derivative.
    """
    into = [inputs[0]] + ([] if upstream is None else [upstream])

    def arm() -> tuple[Tensor | None, ...]:
        value = function(*inputs)
        (first,) = torch.autograd.grad(value, inputs[0], upstream, create_graph=True)
        return (value, first, *torch.autograd.grad(first, into, direction, allow_unused=True))

    return arm


def with_second_gradient_compiled(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    direction: Tensor,
    upstream: Tensor | None = None,
) -> Callable[[], tuple[Tensor, ...]]:
    """The same, as one compiled graph: a compiled function cannot be differentiated twice."""
    fixed = [each.detach() for each in inputs]
    seed = torch.ones((), device=direction.device) if upstream is None else upstream.detach()

    def weighed(x: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        value = function(x, *fixed[1:])
        return (value * up).sum(), value

    def slope(x: Tensor, up: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        first, value = torch.func.grad(weighed, has_aux=True)(x, up)
        return (first * direction).sum(), (value, first)

    def whole(x: Tensor, up: Tensor) -> tuple[Tensor, ...]:
        into = 0 if upstream is None else (0, 1)
        second, (value, first) = torch.func.grad(slope, argnums=into, has_aux=True)(x, up)
        return (value, first, *(second if isinstance(second, tuple) else (second,)))

    once = compiled(whole)
    return lambda: once(fixed[0], seed)
