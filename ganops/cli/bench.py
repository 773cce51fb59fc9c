"""``ganops bench``: run the benchmarks, report their results; and the demo's small table."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

import ganops
from ganops._timing import interleave, paired, rounds_for, slice_seconds, spread, torch_threads

# The allocator is chosen before a process starts, so each setting is measured in its own.
# Kept in step with benchmarks/machine.py by a test.
ALLOCATORS: dict[str, dict[str, str]] = {
    "default": {},
    "retained": {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": "100000000000",
        "MALLOC_TOP_PAD_": "67108864",
    },
}
HERE = Path(ganops.__file__).resolve().parents[1]
PROOF = "bench_gradient_penalty.py"  # a file that only our benchmarks folder has


def find_benchmarks() -> Path:
    """The benchmarks folder of the source checkout we stand in or run from."""
    for root in (Path.cwd(), HERE):
        if (root / "benchmarks" / PROOF).is_file():
            return root / "benchmarks"
    raise ValueError(
        f"bench: expected a source checkout of ganops (a folder with benchmarks/{PROOF}) as the "
        f"working folder or around the package, found none"
    )


def environment(allocator: str) -> dict[str, str]:
    """Our own environment, this very ganops first, one allocator setting in place of any other.

    Under pytest-xdist its marks go: pytest-benchmark times nothing where it sees them.
    """
    out = ("MALLOC_", "PYTEST_XDIST")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(out)}
    paths = [str(HERE), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), **ALLOCATORS[allocator]}


def run(benchmarks: Path, options: argparse.Namespace) -> int:
    for needed in ("pytest", "pytest_benchmark"):
        if importlib.util.find_spec(needed) is None:
            raise ValueError(f"bench run: needs {needed}: pip install ganops[bench]")
    command = [sys.executable, "-m", "pytest", str(benchmarks), "-q"]
    for name in ("sizes", "impl", "device"):
        command += [f"--{name}", getattr(options, name)]
    if options.only:
        command += ["-k", options.only]
    whole = not options.only and options.sizes != "tiny"
    recorded = whole or options.update
    target: Path | None = options.out or (benchmarks / "results" if recorded else None)
    if target is not None:
        command += ["--json", str(target.resolve())]
    if options.update:
        command.append("--update")
    chosen = list(ALLOCATORS) if options.allocator == "both" else [options.allocator]
    for allocator in chosen:
        print(f"ganops bench: allocator {allocator}", flush=True)
        code = subprocess.run(command, env=environment(allocator), check=False).returncode
        if code != 0:
            return code
    if target is None:
        print(
            "ganops bench: a partial or tiny run is recorded nowhere (a partial one by --update "
            "or --out FILE)"
        )
    return 0


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="ganops bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="measure this machine (needs a source checkout)")
    runner.add_argument("--sizes", choices=("tiny", "default", "paper"), default="default")
    runner.add_argument("--impl", choices=("auto", "native", "triton", "reference"), default="auto")
    runner.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    runner.add_argument("--allocator", choices=(*ALLOCATORS, "both"), default="both")
    runner.add_argument("--only", metavar="EXPRESSION", help="benchmarks to run, as pytest's -k")
    runner.add_argument(
        "--update", action="store_true", help="record these rows, keep the others as they are"
    )
    runner.add_argument(
        "--out", type=Path, metavar="PATH", help="file or folder; default: results/"
    )
    commands.add_parser(
        "report", help="tables and plots from the results (needs a source checkout)", add_help=False
    )
    commands.add_parser("demo", help="the gradient penalty on this machine, in seconds")
    options, rest = parser.parse_known_args(argv)
    if rest and options.command != "report":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options, rest


def main(argv: Sequence[str] | None = None) -> int:
    options, rest = parse(argv)
    if options.command == "demo":
        from ganops.cli.actions import refuse_unservable

        refuse_unservable(torch.device("cpu"))
        demo_table()
        return 0
    benchmarks = find_benchmarks()
    if options.command == "run":
        return run(benchmarks, options)
    report = [sys.executable, str(benchmarks / "report.py"), *rest]
    return subprocess.run(report, check=False).returncode


def stock_penalty(grad: Tensor) -> Tensor:
    return (grad.flatten(1).norm(2, dim=1) - 1).square().mean()


def demo_table(budget: float = 4.0) -> None:
    """Print the gradient penalty's time here, stock PyTorch against ours, within 20 seconds.

    Value and gradient, CPU time on one thread, the arms interleaved; a ratio is the median of the
    ratios paired within rounds.
    """
    from ganops import ops

    def arm(penalty: Callable[[Tensor], Tensor], grad: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(penalty(grad), grad)

    print("gradient penalty, value and gradient, CPU time on one thread, float32")
    print(f"{'gradient':>16}{'stock ms':>12}{'ganops ms':>12}{'faster':>10}")
    for side in (64, 128):
        generator = torch.Generator().manual_seed(side)
        grad = torch.randn(64, 3, side, side, generator=generator).requires_grad_()
        arms = {
            "stock": arm(stock_penalty, grad),
            "ganops": arm(ops.penalty_from_gradient, grad),
        }
        with torch_threads(1):
            cost = sum(slice_seconds(each, 1, time.process_time) for each in arms.values())
            rounds = rounds_for(2 * cost, budget, most=301)
            times = interleave(arms, rounds=rounds)
        stock, ours = (spread(times[name]).median * 1e3 for name in ("stock", "ganops"))
        faster = paired(times["stock"], times["ganops"]).median
        print(f"{f'64x3x{side}x{side}':>16}{stock:>12.3f}{ours:>12.3f}{faster:>9.2f}x")
