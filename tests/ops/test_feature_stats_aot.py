"""The Triton kernel of feature_stats compiled ahead of time for three GPU generations."""

from __future__ import annotations

import pytest
from test_triton_aot import ARCHS, compile_for

from ganops.ops.feature_stats import triton_kernels as stats


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dtype", ["fp64", "fp32", "bf16", "fp16"])
@pytest.mark.parametrize("block", ["fp64", "fp32"])
def test_fits_registers(dtype, block, arch, tmp_path):
    types = [f"*{dtype}", "*fp64", "*fp64", f"*{block}", "i32", "i32", "i32", "fp64", "fp64"]
    constants = {"ROWS": stats.ROWS, "COLUMNS": stats.COLUMNS}
    compiled = compile_for(arch, stats.center_kernel, types, constants, fusion=False)
    used = compiled.resources(tmp_path)
    assert used["STACK"] == used["LOCAL"] == 0
    assert 0 < used["REG"] <= 160
    assert compiled.count(r"^fma\S*\.f64") == 0 or block == "fp64"


def test_the_merges_numbers_reach_the_kernel_in_full():
    annotated = {p.name: p.annotation_type for p in stats.center_kernel.params}
    assert annotated["step"] == annotated["spread"] == "fp64"
