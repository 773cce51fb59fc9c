"""The norms' Triton kernels compiled ahead of time for three GPU generations."""

from __future__ import annotations

import pytest
from test_triton_aot import ARCHS, compile_for

from ganops.ops.norm import triton_kernels as cells
from ganops.ops.norm import triton_rows as rows

SIZES = {"DOUBLE": False, "CENTERED": True}
SEGMENTS = {"IS_BATCH": True, "PIECE": cells.PIECE, "BLOCK": cells.BLOCK}
COLUMNS = {"LINES": cells.LINES, "LANES": cells.LANES}
ROWS = {"HAS_W": True, "HAS_A": True, "PIECE": cells.PIECE, "BLOCK": cells.BLOCK}


def kernels(dtype):
    """name: (kernel, types, constants, pointers read or written 16 bytes at a time)"""
    p, r = f"*{dtype}", "*fp64" if dtype == "fp64" else "*fp32"
    sizes = {**SIZES, "DOUBLE": dtype == "fp64"}
    of_cells = ["i32x16", "i32", "i32", "i32"]
    return {
        "segment-sums": (cells.segment_sums_kernel, [p] * 3 + [r] * 3 + of_cells,
                         {**sizes, **SEGMENTS}, 3),
        "segment-write": (cells.segment_write_kernel, [p] * 3 + [r] * 3 + [p] * 2 + of_cells,
                          {**sizes, **SEGMENTS}, 5),
        "column-sums": (cells.column_sums_kernel, [p] * 3 + [r] * 3 + of_cells,
                        {**sizes, **COLUMNS}, 0),
        "column-write": (cells.column_write_kernel, [p] * 3 + [r] * 3 + [p] * 2 + of_cells,
                         {**sizes, **COLUMNS}, 0),
        "combine": (cells.combine_kernel, [r] * 7 + ["i32"] * 6,
                    {"IS_BATCH": True, "CENTERED": True, "HAS_W": True, "HAS_A": True,
                     "HAS_C": True, "WANT_W": True, "R": 2, "M": 64}, 0),
        "row-sums": (rows.row_sums_kernel, [p] * 3 + [r] * 5 + ["i32x16", "i32", "i32"],
                     {**sizes, **ROWS, "HAS_A": False}, 3),
        "row-sums-all": (rows.row_sums_kernel, [p] * 3 + [r] * 5 + ["i32x16", "i32", "i32"],
                         {**sizes, **ROWS}, 3),
        "row-write": (rows.row_write_kernel,
                      [p] * 3 + [r] * 7 + [p] * 2 + ["i32x16", "i32", "i32"],
                      {**sizes, **ROWS, "HAS_C": True}, 5),
        "row-dw": (rows.row_dw_kernel, [p] * 3 + [r] * 4 + ["i32x16", "i32", "i32", "i32"],
                   {**sizes, "TILE": cells.TILE}, 0),
    }  # fmt: skip


NAMES = list(kernels("fp32"))


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp64"])
@pytest.mark.parametrize("name", NAMES)
def test_fits_registers_and_streams_wide(name, dtype, arch, tmp_path):
    kernel, types, constants, streamed = kernels(dtype)[name]
    compiled = compile_for(arch, kernel, types, constants, fusion=True)
    used = compiled.resources(tmp_path)
    assert used["STACK"] == used["LOCAL"] == 0
    # Five sums of eight numbers a thread, or (where weights' gradients are differentiated) seven:
    # five, or four, programs of 128 threads on an SM's 65536 registers.
    limit = 128 if name == "row-sums-all" else 96
    assert 0 < used["REG"] <= limit * (2 if dtype == "fp64" else 1)
    if dtype != "fp64":
        wide = compiled.count(r"(ld|st)\.global\S*\.v4\.b32")
        assert wide >= streamed * (2 if dtype == "fp32" else 1)
        assert compiled.count(r"^(add|sub|mul|fma|div)\S*\.f64") == 0
    else:
        assert compiled.count(r"\.f64") > 0
        assert compiled.count(r"cvt\S*\.f32\.f64") == 0
