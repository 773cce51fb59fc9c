"""What arguments must be, said in one sentence: expected, and got. All checks are on the host."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Twin = TypeVar("Twin", bound=Callable[..., Any])


def number(op: str, name: str, value: Any, least: float = -math.inf) -> float:
    """A finite number, at least `least`, as a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float, numbers.Real)):
        raise TypeError(f"{op}: expected {name} as a number, got {shown(value)}")
    if not least <= float(value) < math.inf:
        limit = "" if least == -math.inf else f" >= {least:g}"
        raise ValueError(f"{op}: expected a finite {name}{limit}, got {value}")
    return float(value)


def whole(op: str, name: str, value: Any, least: int | None = None) -> None:
    """An integer, at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt, numbers.Integral)):
        raise TypeError(f"{op}: expected {name} as an integer, got {shown(value)}")
    if least is not None and value < least:
        raise ValueError(f"{op}: expected {name} of at least {least}, got {value}")


def switch(op: str, name: str, value: Any) -> None:
    """True or False."""
    if isinstance(value, Tensor) or value not in (True, False):
        raise TypeError(f"{op}: expected {name} as True or False, got {shown(value)}")


def pair(op: str, name: str, value: Any, least: int) -> tuple[int, int]:
    """(vertical, horizontal) of K discriminators, from one number or two."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2:
            raise ValueError(
                f"{op}: expected {name} as one number or (vertical, horizontal), the same for all "
                f"K discriminators, because their views are one tensor, got {shown(value)}; call "
                "once for each geometry"
            )
        for each in value:
            whole(op, f"each {name}", each, least)
        return value[0], value[1]
    whole(op, name, value, least)
    return value, value


# What torch says where it names a kernel, a schema, or code that no user wrote.
_RAW = (
    "not implemented for", "not supported between", "Overloaded torch operator",
    "Expected a proper Tensor", "has no len()",
    "is not on the expected device", "float() argument", "string to float", "not iterable",
    "could not create a primitive", "Type promoting", "invalid combination",
)  # fmt: skip
_NEVER_SAID = (AttributeError, IndexError, ZeroDivisionError)


def worded(twin: Twin) -> Twin:
    """Decorator of torch functions' twins: such errors become a sentence, with torch's as cause."""

    @functools.wraps(twin)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return twin(*args, **kwargs)
        except (*_NEVER_SAID, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            if not isinstance(error, _NEVER_SAID) and not any(raw in str(error) for raw in _RAW):
                raise
            given = [shown(a) for a in args] + [f"{k}={shown(v)}" for k, v in kwargs.items()]
            kind = (
                TypeError if not isinstance(error, (IndexError, ZeroDivisionError)) else ValueError
            )
            raise kind(
                f"{twin.__name__}: expected {_signature(twin)} with tensors of one floating dtype, "
                f"one device and shapes that fit, got ({', '.join(given)})"
            ) from error

    return call  # type: ignore[return-value]


def shown(value: Any) -> str:
    """A value for a message: of a tensor what it is, not its numbers."""
    if isinstance(value, Tensor):
        where = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"{value.dtype} {tuple(value.shape)}{where}"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def _signature(twin: Callable[..., Any]) -> str:
    parameters = inspect.signature(twin).parameters.values()
    return f"({', '.join(str(p).replace(chr(39), '') for p in parameters)})"
