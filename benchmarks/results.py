"""The JSON of one machine: `{schema, machine, runs: [...]}`, one run per device and allocator."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

SCHEMA = 1
ALLOCATORS = {
    "default": "glibc's default allocator",
    "retained": "freed memory retained",
    "custom": "another allocator",
}
Row = dict[str, Any]
Run = dict[str, Any]
BUSY = 50.0  # preemptions a second above which a row was not alone: see benchmarks/device.py

_SPREAD = {"median": (int, float), "low": (int, float), "high": (int, float)}
_OPTIONAL_TEXT = (str, type(None))
_MACHINE: dict[str, Any] = {
    "slug": str, "cpu": str, "architecture": str, "cores": int, "ram_gib": int, "isa": list,
    "torch_isa": str, "gpu": _OPTIONAL_TEXT,
}  # fmt: skip
_RUN: dict[str, Any] = {
    "device": str, "allocator": str, "sizes": str, "impl": str, "served_by": dict, "date": str,
    "revision": _OPTIONAL_TEXT, "versions": dict, "load_average": list, "clocks": dict,
    "limits": dict, "rows": list,
}  # fmt: skip
_ROW: dict[str, Any] = {
    "op": str, "row": str, "clock": str, "threads": int, "rounds": int, "baseline": str,
    "speedup": _SPREAD, "bytes": int, "flops": int, "arms": dict, "missing": dict,
    "headline": bool, "preempted_per_s": (int, float), "note": str,
    "floor": {"label": str, "ms": _SPREAD, "distance": _SPREAD},
}  # fmt: skip
_ARM: dict[str, Any] = {"ms": _SPREAD, "over_ours": _SPREAD, "calls": int}


def _expect(value: Any, shape: Any, where: str) -> None:
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected an object, got {type(value).__name__}")
        for key, inner in shape.items():
            if key not in value:
                raise ValueError(f"{where}: expected the key {key!r}, got {sorted(value)}")
            _expect(value[key], inner, f"{where}.{key}")
    elif not isinstance(value, shape):
        raise ValueError(f"{where}: expected {shape}, got {type(value).__name__}")


def check(document: Any, where: str = "results") -> dict[str, Any]:
    """The document itself if it follows the schema; otherwise ValueError naming the first fault."""
    _expect(document, {"schema": int, "machine": _MACHINE, "runs": list}, where)
    if document["schema"] != SCHEMA:
        raise ValueError(f"{where}: expected schema {SCHEMA}, got {document['schema']}")
    for i, run in enumerate(document["runs"]):
        _expect(run, _RUN, f"{where}.runs[{i}]")
        if run["allocator"] not in ALLOCATORS:
            raise ValueError(
                f"{where}.runs[{i}]: expected an allocator among {', '.join(ALLOCATORS)}, "
                f"got {run['allocator']!r}"
            )
        for j, row in enumerate(run["rows"]):
            at = f"{where}.runs[{i}].rows[{j}]"
            _expect(row, _ROW, at)
            if row["baseline"] not in row["arms"]:
                raise ValueError(f"{at}: the baseline {row['baseline']!r} is not among the arms")
            for name, arm in row["arms"].items():
                _expect(arm, _ARM, f"{at}.arms[{name!r}]")
    return dict(document)


def key(row: Row) -> tuple[str, str, str]:
    return row["op"], row["row"], row["clock"]


def clocks(run: Run) -> dict[str, str]:
    """Those that a run has rows of, with their meanings."""
    timed = {row["clock"] for row in run["rows"]}
    return {name: meaning for name, meaning in run["clocks"].items() if name in timed}


def loses(row: Row) -> bool:
    return bool(row["speedup"]["median"] < 1.0)


def machine_line(machine: dict[str, Any]) -> str:
    words = [machine["cpu"], machine["torch_isa"], f"{machine['cores']} cores"]
    words.append(f"{machine['ram_gib']} GiB")
    return ", ".join([*words, machine["gpu"]] if machine["gpu"] else words)


def disturbed(row: dict[str, Any]) -> bool:
    """Did something else use the machine while this row was measured?"""
    return bool(row["preempted_per_s"] > BUSY)


def read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name}: expected JSON, got {error}") from error
    return check(document, path.name)


def read_all(folder: Path) -> list[dict[str, Any]]:
    """Every machine's document in a folder, by file name."""
    if not folder.is_dir():
        raise ValueError(f"results: expected a folder, got {folder}")
    found = [read(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise ValueError(f"results: expected at least one *.json in {folder}, found none")
    return found


# What rows of one run share, so that they stand in one table.
SHARED = ("sizes", "impl", "versions")


def merge(
    old: dict[str, Any] | None,
    machine: dict[str, Any],
    run: dict[str, Any] | None,
    *,
    update: bool = False,
) -> dict[str, Any]:
    """The document with this run in place of the one for the same device and allocator.

    update: only the rows of `run` take the place of their namesakes there, each with the date and
    revision it was measured at. Refused where versions differ: those rows would not compare.
    """
    runs = [] if run is None else [run]
    if old is not None and run is not None and update:
        same = [r for r in old["runs"] if all(r[k] == run[k] for k in ("device", "allocator"))]
        runs = [updated(each, run) for each in same] or runs
    if old is not None:
        was, now = old["machine"]["slug"], machine["slug"]
        if was != now:
            raise ValueError(f"results: expected a file of machine {now}, got one of {was}")
        new = {(each["device"], each["allocator"]) for each in runs}
        runs += [kept for kept in old["runs"] if (kept["device"], kept["allocator"]) not in new]
    runs.sort(key=lambda each: (each["device"], each["allocator"]))
    return check({"schema": SCHEMA, "machine": machine, "runs": runs})


def updated(old: Run, new: Run) -> Run:
    """`old` with the rows of `new` in place of, or after, its own."""
    for name in SHARED:
        if old[name] != new[name]:
            raise ValueError(
                f"results: expected {name} {old[name]} as the recorded rows have, got {new[name]}; "
                "measure the whole"
            )
    when = {"date": new["date"], "revision": new["revision"]}
    fresh = {key(row): {**row, "measured": when} for row in new["rows"]}
    kept = [fresh.pop(key(row), row) for row in old["rows"]]
    limits = {**new["limits"], **old["limits"]}
    served = {**old["served_by"], **new["served_by"]}
    return {**old, "limits": limits, "served_by": served, "rows": [*kept, *fresh.values()]}


def write(path: Path, text: str) -> None:
    """Whole or not at all: written beside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def dumps(document: dict[str, Any]) -> str:
    """JSON with one row of the results on one line, so that a diff shows which rows moved."""
    runs = []
    for run in document["runs"]:
        head = {name: value for name, value in run.items() if name != "rows"}
        rows = ",\n".join(json.dumps(row) for row in run["rows"])
        runs.append(f'{json.dumps(head, indent=1)[:-2]},\n "rows": [\n{rows}\n]}}')
    machine, joined = json.dumps(document["machine"]), ",\n".join(runs)
    return f'{{"schema": {document["schema"]},\n"machine": {machine},\n"runs": [\n{joined}\n]}}\n'


def write_json(path: Path, document: dict[str, Any]) -> None:
    write(path, dumps(check(document)))


def rounded(value: Any, digits: int = 5) -> Any:
    """Floats to `digits` significant digits: more would be noise in every diff."""
    if isinstance(value, dict):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner, digits) for inner in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
