"""upfirdn2d's Triton kernel compiled ahead of time for three GPU generations."""

from __future__ import annotations

import pytest
from test_triton_aot import ARCHS, compile_for

from ganops.ops.upfirdn2d import triton_kernels as upfirdn2d

NUMBERS = ["i32"] * 5 + ["i32"] * 8 + ["i32"] * 5 + ["fp64"]
CASES = {
    "up": {"UP_X": 2, "UP_Y": 2, "DOWN_X": 1, "DOWN_Y": 1, "KX": 4, "KY": 4},
    "down": {"UP_X": 1, "UP_Y": 1, "DOWN_X": 2, "DOWN_Y": 2, "KX": 4, "KY": 4},
    "filter": {"UP_X": 1, "UP_Y": 1, "DOWN_X": 1, "DOWN_Y": 1, "KX": 4, "KY": 4},
    "column": {"UP_X": 1, "UP_Y": 2, "DOWN_X": 1, "DOWN_Y": 1, "KX": 1, "KY": 12},
}


def compiled(arch, dtype, name, last):
    p, f = f"*{dtype}", "*fp64" if dtype == "fp64" else "*fp32"
    meta = {"FLIP": False, "LAST": last, "BLOCK": upfirdn2d.BLOCK, "DOUBLE": dtype == "fp64"}
    return compile_for(arch, upfirdn2d.upfirdn_kernel, [p, f, p, *NUMBERS],
                       {**CASES[name], **meta}, fusion=True)  # fmt: skip


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("dtype", "last"), [("fp32", False), ("bf16", True), ("fp64", False)])
@pytest.mark.parametrize("name", CASES)
def test_fits_registers_and_keeps_its_precision(name, dtype, last, arch, tmp_path):
    kernel = compiled(arch, dtype, name, last)
    used = kernel.resources(tmp_path)
    assert used["STACK"] == used["LOCAL"] == 0
    assert 0 < used["REG"] <= 128
    if dtype == "fp64":
        assert kernel.count(r"\.f64") > 0
        assert kernel.count(r"cvt\S*\.f32\.f64") == 0
    else:
        assert kernel.count(r"^(add|sub|mul|fma|div)\S*\.f64") == 0
        # Triton 3.6 packs the products of two results for sm_100, and then adds them unfused.
        assert kernel.count(r"^(fma\.rn\.f32|mul\.f32x2)") > 0


def test_the_gain_reaches_double_kernels_in_full():
    annotated = {p.name: p.annotation_type for p in upfirdn2d.upfirdn_kernel.params}
    assert annotated["gain"] == "fp64"
