"""Markers and fixtures that every folder of tests shares."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # backends.py, whatever pytest's import mode

from backends import COMPILED, EVERY, REASONS, Backend


def pytest_configure(config: pytest.Config) -> None:
    for marker in (
        "triton: Triton kernels on CPU tensors; run as TRITON_INTERPRET=1 pytest -m triton",
        "cuda: needs a CUDA device",
        "cannot_run: an implementation that cannot run here; left out, and reported at the end",
    ):
        config.addinivalue_line("markers", marker)
    for expected in (
        "ignore:There is a performance drop because we have not yet implemented the batching rule",
        "ignore:`torch.jit.script:DeprecationWarning",  # from torch itself
        "ignore:(overflow|invalid value) encountered:RuntimeWarning:triton",  # the interpreter
    ):
        config.addinivalue_line("filterwarnings", expected)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    out = [item for item in items if item.get_closest_marker("cannot_run")]
    if out:
        items[:] = [item for item in items if not item.get_closest_marker("cannot_run")]
        config.hook.pytest_deselected(items=out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for pair, reason in REASONS.items():
        terminalreporter.write_line(f"not run: {pair.impl} kernels on {pair.device}: {reason}")


@pytest.fixture(params=COMPILED)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every compiled implementation, on every device it runs on here."""
    return request.param


@pytest.fixture(params=EVERY)
def any_backend(request: pytest.FixtureRequest) -> Backend:
    """The compiled ones and the reference."""
    return request.param
