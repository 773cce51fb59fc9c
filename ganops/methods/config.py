"""Typed configuration: frozen dataclasses to plain dictionaries, YAML, and back, with checks.

Every error names the offending key as the user would write it (``penalty.weight``), says what was
expected and what was got, and an unknown key is answered with the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ganops.data.extras import require

T = TypeVar("T")


def near_miss(name: str, known: Iterable[str]) -> str:
    """A sentence that points from a wrong name to the right one."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def check_range(
    key: str,
    value: float,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Raises ValueError unless value is finite and in the interval from low to high."""
    below = value <= low if open_low else value < low
    above = value >= high if open_high else value > high
    if below or above or not math.isfinite(value):
        left = ">" if open_low else ">="
        right = "<" if open_high else "<="
        parts = [f"{left} {low:g}"] * (low > -math.inf) + [f"{right} {high:g}"] * (high < math.inf)
        raise ValueError(f"{key} must be {' and '.join(parts) or 'finite'}, got {value!r}")


def to_dict(value: Any) -> Any:
    """Dataclasses, tuples and mappings -> dict, list and scalars, as YAML stores them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        tag = getattr(value, "tag", None)
        return {"name": tag, **plain} if tag else plain
    if isinstance(value, Mapping):
        return {str(k): to_dict(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_dict(v) for v in value]
    return value


def from_dict(cls: type[T], values: Any, where: str = "") -> T:
    """Dictionary -> dataclass, checking names and types. Absent keys keep their defaults."""
    if not isinstance(values, Mapping):
        raise ValueError(
            f"{where or cls.__name__} must be a mapping of settings, got {_shown(values)}"
        )
    known = {f.name for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ValueError(f"unknown setting {_join(where, key)!r}; {near_miss(str(key), known)}")
    hints = get_type_hints(cls)
    read = {k: coerce(hints[k], v, _join(where, k)) for k, v in values.items()}
    try:
        return cls(**read)
    except ValueError as error:
        raise ValueError(f"{where}.{error}" if where else str(error)) from error


def coerce(kind: Any, value: Any, where: str) -> Any:
    """A plain value as the annotated type `kind`, or a ValueError that names the key `where`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (kept,) = [a for a in arguments if a is not type(None)]
        return coerce(kept, value, where)
    if origin is Literal:
        if value in arguments:
            return value
        allowed = ", ".join(map(str, arguments))
        raise ValueError(f"{where} must be one of {allowed}, got {_shown(value)}")
    if origin is tuple:
        return _coerce_tuple(arguments, value, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, Mapping) and hasattr(kind, "tag"):
            kind, value = _tagged(kind, value, where)
        return value if isinstance(value, kind) else from_dict(kind, value, where)
    return _coerce_scalar(kind, value, where)


def _tagged(kind: Any, value: Mapping[str, Any], where: str) -> tuple[Any, dict[str, Any]]:
    """The member of a family of dataclasses that the entry ``name`` asks for, and the rest."""
    rest = dict(value)
    family = {kind.tag: kind} if kind.tag else kind.known
    name = rest.pop("name", kind.tag)
    if name not in family:
        key = _join(where, "name")
        raise ValueError(f"{key}: unknown {name!r}; {near_miss(str(name), family)}")
    return family[name], rest


def _coerce_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where} must be a list, got {_shown(value)}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(coerce(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if len(value) != len(arguments):
        raise ValueError(f"{where} must have {len(arguments)} entries, got {len(value)}")
    pairs = zip(arguments, value, strict=True)
    return tuple(coerce(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(pairs))


def _coerce_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as a string
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"{where} must be a float, got {_shown(value)}") from None
    if kind is float and type(value) in (int, float):
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    expected = getattr(kind, "__name__", str(kind))
    raise ValueError(f"{where} must be of type {expected}, got {_shown(value)}")


def replace(obj: T, changes: Mapping[str, Any]) -> T:
    """A copy of a dataclass with dotted keys changed: ``{"penalty.weight": 5}``."""
    nested = to_dict(obj)
    for key, value in changes.items():
        node, parts = nested, key.split(".")
        for depth, part in enumerate(parts[:-1]):
            if not isinstance(node, dict) or part not in node:
                known = node if isinstance(node, dict) else []
                raise ValueError(
                    f"unknown setting {'.'.join(parts[: depth + 1])!r}; {near_miss(part, known)}"
                )
            node = node[part]
        if not isinstance(node, dict) or parts[-1] not in node:
            known = node if isinstance(node, dict) else []
            raise ValueError(f"unknown setting {key!r}; {near_miss(parts[-1], known)}")
        node[parts[-1]] = to_dict(value)
    return from_dict(type(obj), nested)


def assignments(items: Iterable[str]) -> dict[str, Any]:
    """``["n_critic=3", "penalty.weight=5"]`` -> the mapping it means; values are YAML."""
    yaml = require("yaml", "reading settings", "pyyaml")
    read: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ValueError(f"expected KEY=VALUE, got {item!r}")
        try:
            read[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ValueError(f"{key}: cannot read the value {text!r}") from None
    return read


def flatten(nested: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """``{"penalty": {"weight": 5}}`` -> {"penalty.weight": 5}; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        path = _join(where, key)
        flat.update(flatten(value, path) if isinstance(value, Mapping) else {path: value})
    return flat


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Dotted keys in which two plain trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for key in sorted(set(old) | set(new)):
            path = _join(where, key)
            if key not in old or key not in new:
                found.append(path)
            else:
                found += differences(old[key], new[key], path)
        return found
    return [] if old == new else [where]


def dump_yaml(plain: Any) -> str:
    """YAML text with keys in the order given."""
    yaml = require("yaml", "writing settings", "pyyaml")
    return str(yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=88))


def load_yaml(path: str) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ValueError, naming the file, for anything else."""
    yaml = require("yaml", "reading settings", "pyyaml")
    try:
        with open(path, encoding="utf-8") as file:
            read = yaml.safe_load(file)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(read, dict):
        raise ValueError(f"{path} must hold a mapping of settings, got {_shown(read)}")
    return read


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _shown(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"
