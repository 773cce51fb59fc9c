"""spectral_norm's Triton kernels compiled ahead of time for three GPU generations."""

from __future__ import annotations

import pytest
from test_triton_aot import ARCHS, compile_for

from ganops.ops.spectral_norm import triton_kernels as spectral


def kernels(dtype):
    """name: (kernel, types, constants)"""
    p, r = f"*{dtype}", "*fp64" if dtype == "fp64" else "*fp32"
    block = {"DOUBLE": dtype == "fp64", "BLOCK": spectral.BLOCK}
    tile = {"DOUBLE": dtype == "fp64", "ROWS": spectral.ROWS, "COLUMNS": spectral.COLUMNS}
    return {
        "products": (spectral.products_kernel, [p, r, r, "i32x16"], block),
        "transposed": (spectral.transposed_kernel, [p, r, r, "i32", "i32x16"], tile),
        "finish": (spectral.finish_kernel, [r] * 5 + ["i32", "i32", "fp64"], block),
        "dot": (spectral.dot_kernel, [p, p, r, "i32x16"], block),
        "scale": (spectral.scale_kernel, [p, r, p, "i32x16"], block),
        "grad": (spectral.grad_kernel, [p, r, r, r, r, p, "i32x16", "i32x16", "i32"], block),
    }


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp64"])
@pytest.mark.parametrize("name", list(kernels("fp32")))
def test_fits_registers(name, dtype, arch, tmp_path):
    compiled = compile_for(arch, *kernels(dtype)[name], fusion=True)
    used = compiled.resources(tmp_path)
    assert used["STACK"] == used["LOCAL"] == 0
    assert 0 < used["REG"] <= 80 * (2 if dtype == "fp64" else 1)
    if dtype != "fp64":
        assert compiled.count(r"^(add|sub|mul|fma|div|rcp|sqrt)\S*\.f64") == 0


def test_eps_reaches_double_kernels_in_full():
    annotated = {p.name: p.annotation_type for p in spectral.finish_kernel.params}
    assert annotated["eps"] == "fp64"
