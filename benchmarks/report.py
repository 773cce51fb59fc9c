"""Tables and plots from results/*.json, and the README's speed table. Needs no torch.

Used as: python benchmarks/report.py [--results DIR] [--out DIR] [--readme README.md]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import results
from plots import plot
from results import ALLOCATORS, Row, Run, clocks, disturbed, key, loses, machine_line

BEGIN = "<!-- speed table: begin -->"
END = "<!-- speed table: end -->"
OURS = "ganops"
LOST = " **loses**"


def ratio(value: dict[str, float]) -> str:
    return f"{value['median']:.2f}x ({value['low']:.2f} to {value['high']:.2f})"


def milliseconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def arm_ms(row: Row, name: str) -> str:
    return milliseconds(row["arms"][name]["ms"]["median"])


def versions_line(run: Run) -> str:
    found = [f"{name} {value}" for name, value in run["versions"].items() if value]
    return ", ".join(found + ([f"commit {run['revision']}"] if run["revision"] else []))


def compiled(row: Row) -> float | None:
    """How many times our time torch.compile takes; None where it could not run."""
    found = [arm for name, arm in row["arms"].items() if name.startswith("torch.compile")]
    return float(found[0]["over_ours"]["median"]) if found else None


def against_compile(row: Row) -> str:
    value = compiled(row)
    return "-" if value is None else f"{value:.2f}x" + LOST * (value < 1.0)


def as_written(row: Row) -> str:
    """Against the stock expression as people write it, which need not be its fastest form."""
    return f"{row['arms'].get('stock', row['arms'][row['baseline']])['over_ours']['median']:.2f}x"


def table(run: Run, clock: str) -> list[str]:
    """Every row of one run under one clock; a losing row is marked, never left out."""
    lines = [
        "| op | row | baseline | its ms | ours ms | faster than the baseline "
        "| than stock as written | than torch.compile | times the floor | floor |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in run["rows"]:
        if row["clock"] != clock:
            continue
        floor = row["floor"]
        cells = [
            f"`{row['op']}`",
            row["row"],
            row["baseline"],
            arm_ms(row, row["baseline"]),
            arm_ms(row, OURS),
            ratio(row["speedup"]) + LOST * loses(row) + " busy" * disturbed(row),
            as_written(row),
            against_compile(row),
            f"{floor['distance']['median']:.2f}",
            floor["label"],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def losing(run: Run) -> list[str]:
    """One line for each row that stock PyTorch wins."""
    lines = []
    for row in filter(loses, run["rows"]):
        tie = " (within its spread)" if row["speedup"]["high"] >= 1.0 else ""
        tie += " (the machine was busy)" if disturbed(row) else ""
        note = f"; {row['note']}" if row["note"] else ""
        name = f"`{row['op']}`, {row['row']}, {row['clock']}"
        lines.append(f"- {name}: {ratio(row['speedup'])} of stock's speed{tie}{note}")
    return lines


def beaten_by_compile(run: Run) -> list[str]:
    return [
        f"- `{row['op']}`, {row['row']}, {row['clock']}: {value:.2f}x of torch.compile's speed"
        for row, value in ((row, compiled(row)) for row in run["rows"])
        if value is not None and value < 1.0
    ]


def remeasured(run: Run) -> list[str]:
    """By `bench run --update`: which rows, when, at which commit."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in run["rows"]:
        if when := row.get("measured"):
            found.setdefault((when["date"], when["revision"] or "no commit"), []).append(
                f"`{row['op']}`, {row['row']}, {row['clock']}"
            )
    return [f"- {date}, {commit}: {'; '.join(rows)}" for (date, commit), rows in found.items()]


def missing(run: Run) -> list[str]:
    found: dict[tuple[str, str], list[str]] = {}
    for row in run["rows"]:
        for arm, why in row["missing"].items():
            found.setdefault((arm, why), []).append(f"{row['op']}, {row['row']}, {row['clock']}")
    return [f"- {arm}: {why} ({'; '.join(rows)})" for (arm, why), rows in found.items()]


def peers(run: Run) -> list[str]:
    """All arms: how many times our time each one takes."""
    lines = [
        "| op | row | clock | every arm, in times of ours (calls a slice) |",
        "|---|---|---|---|",
    ]
    for row in run["rows"]:
        arms = [
            f"{name} {arm['over_ours']['median']:.2f} ({arm['calls']})"
            for name, arm in row["arms"].items()
            if name != OURS
        ]
        lines.append(f"| `{row['op']}` | {row['row']} | {row['clock']} | {', '.join(arms)} |")
    return lines


def markdown(document: dict[str, Any]) -> str:
    machine = document["machine"]
    lines = [
        f"# {machine['slug']}",
        "",
        "Written by `ganops bench report` from the JSON beside it; do not edit.",
        "",
        machine_line(machine),
        "",
        "Ratios are medians of ratios paired within rounds, with their 20 % and 80 % quantiles. "
        "The baseline is the fastest stock form of each row. "
        f"Busy: over {results.BUSY:g} preemptions a second, so other work shared the machine; CPU "
        "time bears that, wall time does not.",
    ]
    for run in document["runs"]:
        title = ALLOCATORS[run["allocator"]]
        lines += ["", f"## {run['device']}, {title}", ""]
        served = ", ".join(f"{op} by {impl}" for op, impl in run["served_by"].items())
        lines += [f"{run['date']}, sizes {run['sizes']}; implementation {run['impl']}: {served}; "
                  f"load average {run['load_average'][0]:g} to {run['load_average'][1]:g}",
                  "", versions_line(run)]  # fmt: skip
        for clock, meaning in clocks(run).items():
            measured = run["limits"].get(clock, {})
            lines += ["", f"### {meaning}", ""]
            lines += ["This machine: " + "; ".join(f"{k} {v:.0f}" for k, v in measured.items()), ""]
            lines += table(run, clock)
        lost = losing(run)
        lines += ["", f"### Rows that lose: {len(lost)} of {len(run['rows'])}", ""]
        lines += lost or ["None."]
        later = remeasured(run)
        lines += ["", "### Rows measured at another time", "", *later] if later else []
        beaten = beaten_by_compile(run)
        lines += ["", f"### Rows that lose to torch.compile: {len(beaten)}", ""]
        lines += beaten or ["None."]
        lines += ["", "### Every arm", "", *peers(run)]
        absent = missing(run)
        if absent:
            lines += ["", "### Arms that could not run", "", *absent]
    return "\n".join(lines) + "\n"


def headline(name: tuple[str, str, str], rows: Sequence[Row]) -> str:
    """One row of the README's table; `rows` is the same row under each allocator."""
    cells = [
        f"`{name[0]}` {name[1]}",
        " / ".join(as_written(row) for row in rows),
        " / ".join(f"{row['speedup']['median']:.2f}x" + LOST * loses(row) for row in rows),
        " / ".join(against_compile(row) for row in rows),
        " / ".join(f"{row['floor']['distance']['median']:.2f}" for row in rows),
    ]
    return "| " + " | ".join(cells) + " |"


def device_table(document: dict[str, Any], runs: Sequence[Run]) -> list[str]:
    """The headline rows of one device under its first clock, and how many rows lose."""
    by = [{key(row): row for row in run["rows"]} for run in runs]
    clock = next(iter(runs[0]["clocks"]))
    names = dict.fromkeys(name for rows in by for name in rows if name[2] == clock)
    everything = [row for run in runs for row in run["rows"]]
    shown = " / ".join(ALLOCATORS[run["allocator"]] for run in runs)
    page = f"benchmarks/results/{document['machine']['slug']}.md"
    lines = [
        f"{machine_line(document['machine'])}; {runs[0]['clocks'][clock]}; {shown}:",
        "",
        "| op | faster than stock as written | than its fastest form | than torch.compile "
        "| times the floor |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        found = [rows[name] for rows in by if name in rows]
        if any(row["headline"] for row in found):
            lines.append(headline(name, found))
    beaten = sum(len(beaten_by_compile(run)) for run in runs)
    lost = sum(map(loses, everything))
    return [
        *lines,
        "",
        f"Of {len(everything)} measured rows, {lost} lose to stock's fastest form and {beaten} to "
        f"torch.compile: [all of them]({page}).",
        "",
    ]


def speed_table(documents: Sequence[dict[str, Any]]) -> str:
    """The README's table: every machine, every device."""
    lines: list[str] = []
    for document in documents:
        for device in dict.fromkeys(run["device"] for run in document["runs"]):
            runs = [run for run in document["runs"] if run["device"] == device]
            lines += device_table(document, runs)
    lines.append("Measured by `make bench`, written by `ganops bench report --readme README.md`.")
    return "\n".join(lines)


def rewrite(text: str, body: str) -> str:
    """The text with `body` between the two markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"README: expected one line {BEGIN!r} and after it one line {END!r}")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{body}\n{END}{tail}"


def main(argv: Sequence[str] | None = None) -> int:
    here = Path(__file__).resolve().parent / "results"
    parser = argparse.ArgumentParser(prog="ganops bench report", description="tables and plots")
    parser.add_argument("--results", type=Path, default=here, metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: the results folder")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="rewrite its speed table too")
    options = parser.parse_args(argv)
    out = options.out or options.results
    try:
        documents = results.read_all(options.results)
        readme = None
        if options.readme is not None:
            text = options.readme.read_text(encoding="utf-8")
            readme = rewrite(text, speed_table(documents))
        for document in documents:
            slug = document["machine"]["slug"]
            plot(document, out)
            results.write(out / f"{slug}.md", markdown(document))
        if readme is not None:
            results.write(options.readme, readme)
    except (ValueError, OSError) as error:
        print(f"ganops bench report: {error}", file=sys.stderr)
        return 2
    for document in documents:
        slug = document["machine"]["slug"]
        print(f"{slug}: wrote {slug}.md and a picture for each clock")
        for run in document["runs"]:
            lost = losing(run)
            where = f"{run['device']}, {run['allocator']}"
            print(f"  {where}: {len(lost)} of {len(run['rows'])} rows lose")
            for line in lost:
                print("  " + line)
    if options.readme is not None:
        print(f"{options.readme.name}: speed table rewritten")
    return 0


if __name__ == "__main__":
    sys.exit(main())
