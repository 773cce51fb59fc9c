"""One picture per clock of a machine: speed-up on the left, distance to the floor on the right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from results import ALLOCATORS, clocks, disturbed, key, loses, machine_line


def plot(document: dict[str, Any], folder: Path) -> list[Path]:
    """Writes <machine>-<clock>.png for every clock. Bars start at 1, so losing rows go left."""
    try:
        import matplotlib
    except ImportError as error:
        raise ValueError("the plot needs matplotlib: pip install ganops[bench]") from error
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    meanings = {name: text for run in document["runs"] for name, text in clocks(run).items()}
    written = []
    for clock, meaning in meanings.items():
        path = folder / f"{document['machine']['slug']}-{clock}.png"
        picture(document, clock, meaning, path)
        written.append(path)
    return written


def picture(document: dict[str, Any], clock: str, meaning: str, path: Path) -> None:
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch
    from matplotlib.ticker import LogLocator, NullFormatter

    chosen = [
        (run, [row for row in run["rows"] if row["clock"] == clock]) for run in document["runs"]
    ]
    runs = [(run, rows) for run, rows in chosen if rows]
    names = list(dict.fromkeys(key(row) for _, rows in runs for row in rows))
    figure, axes = plt.subplots(
        1, 2, figsize=(12, 1.5 + 0.22 * len(names) * max(1, len(runs))), sharey=True
    )
    thick = 0.8 / max(1, len(runs))
    for index, (_, rows) in enumerate(runs):
        for row in rows:
            at = names.index(key(row)) + (index - (len(runs) - 1) / 2) * thick
            colour, faint = f"C{index}", 0.35 if disturbed(row) else 1.0
            hatch = "///" if loses(row) else None
            for axis, value in zip(axes, (row["speedup"], row["floor"]["distance"]), strict=True):
                width = value["median"] - 1.0
                axis.barh(at, width, thick, left=1.0, color=colour, alpha=faint, hatch=hatch)
                axis.plot([value["low"], value["high"]], [at, at], color="black", linewidth=1)
    for axis, title in zip(
        axes,
        ("times as fast as the fastest stock form", "times the measured floor"),
        strict=True,
    ):
        axis.set_xscale("log")
        axis.axvline(1.0, color="black", linewidth=0.8)
        axis.set_xlabel(title)
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), [f"{op}, {row}" for op, row, _ in names], fontsize=8)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    handles = [
        Patch(color=f"C{index}", label=f"{run['device']}, {ALLOCATORS[run['allocator']]}")
        for index, (run, _) in enumerate(runs)
    ]
    handles.append(Patch(facecolor="white", edgecolor="black", hatch="///", label="loses"))
    handles.append(Patch(color="C0", alpha=0.35, label="faint: the machine was busy"))
    figure.suptitle(f"{machine_line(document['machine'])}; {meaning}", fontsize=10)
    figure.tight_layout()
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4)
    figure.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(figure)
