"""Options, fixtures and the results file of `pytest benchmarks/`.

Every benchmark is a pytest-benchmark test. The numbers it shows are those of our arm, a round of
`calls` calls each; ratios, floors and the other arms are in `extra_info`, in the summary printed at
the end, and in the file named by `--json`.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine as this_machine
import pytest
import results
import torch
from device import Clock, clocks
from harness import OURS, Case, Size, measure

ROOT = Path(__file__).resolve().parents[1]
ROWS = pytest.StashKey[list[dict[str, Any]]]()
LIMITS = pytest.StashKey[dict[str, dict[str, float]]]()
LOAD = pytest.StashKey[float]()
SERVED = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ganops")
    group.addoption("--sizes", choices=("tiny", "default", "paper"), default="default")
    group.addoption("--impl", choices=("auto", "native", "triton", "reference"), default="auto")
    group.addoption("--device", choices=("cpu", "cuda"), default="cpu")
    group.addoption("--json", metavar="PATH", help="results file, or its folder")
    group.addoption(
        "--update", action="store_true", help="with --json: replace these rows, keep the others"
    )
    group.addoption("--budget", type=float, default=2.0, help="seconds of timing per row and clock")


def pytest_configure(config: pytest.Config) -> None:
    """Everything that could spoil a run is refused here, before minutes of measuring."""
    option = config.getoption
    if option("--device") == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: expected a CUDA device, torch finds none here")
    try:
        config.stash[SERVED] = this_machine.served_by(option("--impl"), option("--device"))
        if option("--json"):
            if option("--sizes") == "tiny":
                raise ValueError("--json: numbers of --sizes tiny are never recorded")
            results.merge(earlier(config), this_machine.machine(), None)
    except (ValueError, RuntimeError, OSError) as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[ROWS] = []
    config.stash[LIMITS] = {}
    config.stash[LOAD] = os.getloadavg()[0]


def results_file(config: pytest.Config) -> Path:
    path = Path(config.getoption("--json"))
    return path / f"{this_machine.machine()['slug']}.json" if path.is_dir() else path


def earlier(config: pytest.Config) -> dict[str, Any] | None:
    path = results_file(config)
    return results.read(path) if path.exists() else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.getoption
    if "size" in metafunc.fixturenames:
        table: dict[str, list[str]] = metafunc.function.sizes
        found = [Size.parse(text) for text in table[option("--sizes")]]
        metafunc.parametrize("size", found, ids=[str(size).replace(" ", "-") for size in found])
    if "clock" in metafunc.fixturenames:
        timed = [
            pytest.param(clock, id=clock.name, marks=pytest.mark.benchmark(timer=clock.now))
            for clock in clocks(option("--device"))
        ]
        metafunc.parametrize("clock", timed)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One thread first: idle workers of an earlier parallel region would add to CPU time."""

    def threads(item: pytest.Item) -> int:
        call = getattr(item, "callspec", None)
        return call.params["clock"].threads if call and "clock" in call.params else 0

    items.sort(key=threads)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--device"))


@pytest.fixture
def impl(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--impl"))


@pytest.fixture
def bench(
    request: pytest.FixtureRequest, benchmark: Any, clock: Clock, device: str
) -> Callable[[Case], None]:
    """Measures a case under this test's clock and keeps its row."""
    config = request.config
    quick = config.getoption("--sizes") == "tiny"
    torch._dynamo.reset()
    if clock.name not in config.stash[LIMITS]:
        config.stash[LIMITS][clock.name] = this_machine.limits(clock, device, quick=quick)

    def run(case: Case) -> None:
        benchmark.group = case.op
        row = measure(case, clock, benchmark, quick=quick, budget=config.getoption("--budget"))
        if row is not None:
            config.stash[ROWS].append(row)

    return run


def this_run(config: pytest.Config) -> dict[str, Any]:
    found = {clock.name: clock.meaning for clock in clocks(config.getoption("--device"))}
    run = {
        "device": config.getoption("--device"),
        "allocator": this_machine.allocator(),
        "sizes": config.getoption("--sizes"),
        "impl": config.getoption("--impl"),
        "served_by": config.stash[SERVED],
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "revision": this_machine.revision(ROOT),
        "versions": this_machine.versions(),
        "load_average": [config.stash[LOAD], os.getloadavg()[0]],
        "clocks": found,
        "limits": config.stash[LIMITS],
        "rows": config.stash[ROWS],
    }
    return dict(results.rounded(run))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    if config.getoption("--json") and exitstatus == 0:
        machine, update = this_machine.machine(), config.getoption("--update")
        document = results.merge(earlier(config), machine, this_run(config), update=update)
        results.write_json(results_file(config), document)


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    rows, write = config.stash[ROWS], terminalreporter.write_line
    if not rows:
        return
    terminalreporter.section(f"against stock PyTorch, allocator: {this_machine.allocator()}")
    if config.getoption("--sizes") == "tiny":
        write(f"{len(rows)} rows ran and agreed; at --sizes tiny their times mean nothing.")
        return
    for clock, found in config.stash[LIMITS].items():
        write(f"{clock}: " + "; ".join(f"{name} {value:.0f}" for name, value in found.items()))
    write(f"{'':<66}{'stock ms':>10}{'ours ms':>10}{'stock/ours':>12}{'ours/floor':>12}")
    for row in rows:
        label = f"{row['op']}, {row['row']} [{row['clock']}]"
        stock, ours = (row["arms"][name]["ms"]["median"] for name in (row["baseline"], OURS))
        ratio, distance = row["speedup"]["median"], row["floor"]["distance"]["median"]
        lost = "  loses" * (ratio < 1) + "  busy" * results.disturbed(row)
        write(f"{label:<66}{stock:>10.3f}{ours:>10.3f}{ratio:>11.2f}x{distance:>11.2f}x{lost}")
        for name, why in row["missing"].items():
            write(f"    no {name}: {why}")
    busy = sum(map(results.disturbed, rows))
    if busy:
        write(f"busy: {busy} of {len(rows)} rows shared the machine; their wall times say little.")
    if config.getoption("--json"):
        done = "written" if exitstatus == 0 else "not written, because the run failed"
        write(f"{results_file(config).name}: {done}")
