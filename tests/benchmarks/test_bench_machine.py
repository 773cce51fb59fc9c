"""Facts about the machine: its type and nothing that says whose it is."""

from __future__ import annotations

import json
import re
import socket

import machine
import pytest
from device import clocks

from ganops.cli import bench

CPUINFO = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags\t\t: fpu avx2 fma avx512f avx512_bf16 amx_tile hypervisor

processor\t: 1
model name\t: another
"""


def test_cpuinfo_gives_the_name_and_the_instruction_sets():
    name, isa = machine.cpuinfo(CPUINFO)
    assert name == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    assert isa == ["avx2", "fma", "avx512f", "avx512_bf16", "amx_tile"]
    assert machine.cpuinfo("") == ("", [])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("AMD EPYC", ["avx2", "avx512f"], 2, None), "amd-epyc-avx512-2c"),
        (
            ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", ["avx2"], 8, None),
            "intel-xeon-platinum-8481c-avx2-8c",
        ),
        (("AMD EPYC 9654 96-Core Processor", [], 96, None), "amd-epyc-9654-96c"),
        (("aarch64", ["asimd"], 4, "NVIDIA H200"), "nvidia-h200-aarch64-asimd-4c"),
    ],
)
def test_the_slug_is_a_plain_file_name(arguments, expected):
    assert machine.slug(*arguments) == expected


def test_the_allocator_is_read_from_the_environment():
    assert machine.allocator({}) == "default"
    assert machine.allocator(machine.RETAINED) == "retained"
    assert machine.allocator({"MALLOC_TOP_PAD_": "67108864"}) == "custom"
    assert machine.allocator({**machine.RETAINED, "LD_PRELOAD": "libjemalloc.so"}) == "custom"
    assert machine.allocator({"GLIBC_TUNABLES": "x"}) == "custom"


def test_the_command_sets_the_allocator_that_the_benchmarks_recognise(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # without the underscore: not one of glibc's own
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    for name in bench.ALLOCATORS:
        assert machine.allocator(bench.environment(name)) == name


def test_no_host_name_and_no_path_is_recorded():
    facts = {**machine.machine(), **machine.versions()}
    assert socket.gethostname() not in facts.values()
    assert not re.search(r"/(root|home|tmp|usr|opt|work)\b", json.dumps(facts))


def test_limits_are_measured_for_copies_and_gemm():
    found = machine.limits(clocks("cpu")[0], "cpu", quick=True)
    assert len(found) == 3
    assert all(value > 0 for value in found.values())
    assert any(name.startswith("copy") for name in found)
    assert any(name.startswith("gemm") for name in found)
