"""Triton kernels compiled ahead of time for three GPU generations, and what the machine code is.

No GPU or driver is needed: Triton ships ptxas, and cuobjdump reads the cubin. What is asserted is
what would cost speed or exactness unseen: spilled registers, narrow memory accesses, float64
arithmetic in a float32 kernel, and fused multiply-adds where bits must agree.
"""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from backends import INTERPRETED

from ganops.ops.bias_act import ACTIVATIONS
from ganops.ops.smooth.reference import VALUES

triton = pytest.importorskip("triton", reason="Triton is not installed")
if INTERPRETED:
    pytest.skip("compiling needs a session without TRITON_INTERPRET=1", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from ganops.ops.augment import triton_kernels as augment  # noqa: E402
from ganops.ops.bias_act import triton_kernels as bias_act  # noqa: E402
from ganops.ops.consistency import triton_kernels as consistency  # noqa: E402
from ganops.ops.gradient_penalty import triton_kernels as penalty  # noqa: E402
from ganops.ops.masked_slope import triton_kernels as masked  # noqa: E402
from ganops.ops.philox import triton_kernels as philox  # noqa: E402
from ganops.ops.resize import triton_kernels as resize  # noqa: E402
from ganops.ops.smooth import triton_kernels as smooth  # noqa: E402

ARCHS = (80, 90, 100)
# 65536 registers hold 6 programs of 128 threads at 80 each: 24 of an SM's 64 warps, enough to hide
# the memory these kernels wait for. The most seen is 71 (softplus, order 2, sm_100, Triton 3.6).
MAX_REGISTERS = 80


def find_cuobjdump():
    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return str(bundled) if bundled.exists() else shutil.which("cuobjdump")


class Compiled(NamedTuple):
    ptx: str
    cubin: bytes

    def body(self):
        """The instructions, without directives and comments."""
        return [line.strip() for line in self.ptx.splitlines() if line.startswith("\t")]

    def count(self, pattern):
        return sum(bool(re.search(pattern, line)) for line in self.body())

    def resources(self, folder):
        """{"REG": 30, "STACK": 0, "LOCAL": 0, ...} as the assembler left them."""
        tool = find_cuobjdump()
        if tool is None:
            pytest.skip("no cuobjdump: neither in Triton nor on PATH")
        path = folder / "kernel.cubin"
        path.write_bytes(self.cubin)
        said = subprocess.run(
            [tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True
        )
        return {name: int(n) for name, n in re.findall(r"([A-Z]+)(?:\[\d\])?:(\d+)", said.stdout)}


_CACHE = {}


def compile_for(arch, kernel, types, constants, fusion, **options):
    """One kernel for one architecture. types: one of Triton's names for each plain argument.

    Pointers count as 16-byte aligned and "i32x16" as a multiple of 16: what a launch finds for
    tensors of torch's allocator and round sizes.
    """
    key = (arch, kernel.fn.__module__, kernel.fn.__name__, str(types), str(constants),
           str(options))  # fmt: skip
    if key not in _CACHE:
        names = list(inspect.signature(kernel.fn).parameters)
        plain = [n for n in names if n not in constants]
        assert len(plain) == len(types), f"{kernel.fn.__name__} takes {plain}, got {types}"
        given = dict(zip(plain, types))
        signature = {n: given[n].removesuffix("x16") if n in given else "constexpr" for n in names}
        aligned = {
            (i,): [["tt.divisibility", 16]]
            for i, n in enumerate(names)
            if n in given and (given[n].startswith("*") or given[n].endswith("x16"))
        }
        values = {(names.index(n),): v for n, v in constants.items()}
        compiled = triton.compile(
            ASTSource(kernel, signature, values, aligned),
            target=GPUTarget("cuda", arch, 32),
            options={"enable_fp_fusion": fusion, **options},
        )
        _CACHE[key] = Compiled(compiled.asm["ptx"], compiled.asm["cubin"])
    return _CACHE[key]


class Case(NamedTuple):
    kernel: object
    types: list
    constants: dict
    streamed: int  # pointers read or written element by element, which must be wide accesses
    fusion: bool = True


def bias_act_cases(dtype):
    p, double = f"*{dtype}", dtype == "fp64"
    meta = {"DOUBLE": double, "BLOCK": bias_act.BLOCK}
    numbers = ["i32x16", "i32", "i32", "fp64", "fp64", "fp64"]
    acts = list(ACTIVATIONS)
    for act in ("lrelu", "tanh", "selu", "softplus", "swish"):
        code = acts.index(act)
        yield f"value-{act}", Case(bias_act.value_kernel, [p] * 3 + numbers,
                                   {"ACT": code, "HAS_BIAS": True, **meta}, 2)  # fmt: skip
        for order in (1, 2):
            from_output = act == "lrelu"
            if from_output and order == 2:
                continue
            constants = {"ACT": code, "HAS_BIAS": True, "FROM_OUTPUT": from_output,
                         "ORDER": order, **meta}  # fmt: skip
            yield f"order{order}-{act}", Case(bias_act.grad_kernel, [p] * 5 + numbers,
                                              constants, order + 2)  # fmt: skip


def penalty_cases(dtype):
    p, r = f"*{dtype}", "*fp64" if dtype == "fp64" else "*fp32"
    double = dtype == "fp64"
    rows = {"DOUBLE": double, "PIECE": penalty.PIECE, "BLOCK": penalty.BLOCK}
    finish = {"DOUBLE": double, "SAMPLES": penalty.SAMPLES}
    sizes = ["i32", "i32x16", "i32"]  # samples, row, pieces
    yield "squares", Case(penalty.squares_kernel, [p, r, *sizes], rows, 1)
    yield "dots", Case(penalty.dots_kernel, [p, p, r, r, *sizes[1:], "fp64"], rows, 2)
    yield "value", Case(penalty.value_kernel, [r, r, r, "i32", "i32", "fp64", "i32"], finish, 0)
    yield "grad", Case(penalty.grad_kernel, [r, p, r, p, *sizes, "fp64", "i32"], rows, 2)
    yield "grad2", Case(
        penalty.grad2_kernel, [p, r, p, r, r, p, *sizes, "fp64", "i32"], rows, 3
    )  # fmt: skip
    yield "go", Case(penalty.go_kernel, [r, r, r, "i32", "i32", "fp64", "i32"], finish, 0)


def consistency_cases(dtype):
    p, r = f"*{dtype}", "*fp64" if dtype == "fp64" else "*fp32"
    double = dtype == "fp64"
    rows = {"DOUBLE": double, "PIECE": consistency.PIECE, "BLOCK": consistency.BLOCK}
    sizes = ["i32x16", "i32x16", "i32", "fp64"]  # row, half, pieces, scale
    for square in (True, False):
        yield f"consistency-{'square' if square else 'dot'}", Case(
            consistency.sum_kernel, [p, p, r, *sizes], {"SQUARE": square, **rows},
            2 if square else 4,
        )  # fmt: skip
    yield "consistency-finish", Case(consistency.finish_kernel, [r, r, "i32", "fp64"],
                                     {"DOUBLE": double, "SUMS": consistency.SUMS}, 0)  # fmt: skip
    yield "consistency-grad", Case(consistency.grad_kernel, [r, p, p, *sizes], rows, 4)


def smooth_cases(dtype):
    p = f"*{dtype}"
    meta = {"DOUBLE": dtype == "fp64", "BLOCK": smooth.BLOCK}
    for code, name in enumerate(VALUES):
        yield f"smooth-{name}", Case(smooth.grad2_kernel, [p] * 5 + ["i32x16", "fp64", "fp64"],
                                     {"ACT": code, **meta}, 5)  # fmt: skip


def masked_cases(dtype):
    """Masks are moved 8 bytes at a time, which the count of wide accesses leaves out."""
    p, meta = f"*{dtype}", {"DOUBLE": dtype == "fp64", "BLOCK": masked.BLOCK}
    for act in range(4):
        yield f"masked-{act}", Case(masked.value_kernel, [p, p, "*u8", "i32x16", "fp64", "fp64"],
                                    {"ACT": act, **meta}, 2)  # fmt: skip
    for zero in (False, True):
        yield f"masked-slope-{zero}", Case(masked.slope_kernel, [p, "*u8", p, "i32x16", "fp64"],
                                           {"ZERO": zero, **meta}, 2)  # fmt: skip


def augment_cases():
    """RGB bytes to halves and floats, with all that a policy may ask for; and the drawing."""
    ints, words = ["i32"] * 2 + ["i32"] * 2, ["i32", "i32", "i64"]
    meta = {"CHANNELS": 3, "BLOCK": augment.BLOCK}
    for name, flags, x, y in (("cr", 1, "*u8", "*fp16"), ("diffaug", 12, "*u8", "*fp32"),
                              ("noise", 17, "*bf16", "*bf16"), ("between", 15, "*fp32", "*fp32"),
                              ("double", 12, "*fp64", "*fp64")):  # fmt: skip
        double = {"DOUBLE": x == "*fp64"}
        yield f"augment-{name}", Case(
            augment.forward_kernel, [x, "*fp32", "*fp64", y, y, *ints, *words],
            {"FLAGS": flags, "PAIR": True, "LINEAR": False, "BYTES": x == "*u8", **meta, **double},
            0, fusion=False,
        )  # fmt: skip
        if x != "*u8":
            yield f"augment-{name}-adjoint", Case(
                augment.adjoint_kernel, [y, y, "*fp32", "*fp64", x, *ints],
                {"FLAGS": flags, "PAIR": True, **meta, **double}, 0, fusion=False,
            )  # fmt: skip
            yield f"augment-{name}-sum", Case(
                augment.sum_kernel, [x, "*fp32", "*fp64", *ints],
                {"CHANNELS": 3, "BLOCK": augment.SUM_BLOCK, "FLAGS": flags, "ADJOINT": True,
                 "BYTES": False, **double}, 0, fusion=False,
            )  # fmt: skip
    yield "augment-params", Case(
        augment.params_kernel, ["*fp32", "i32", "i32", "i32", "i64", *["i32"] * 8, *["fp32"] * 6],
        {"BLOCK": augment.BLOCK}, 0, fusion=False,
    )  # fmt: skip


def philox_cases():
    for kind, out in ((0, "*i64"), (1, "*fp32"), (2, "*fp32")):
        yield f"philox-{kind}", Case(
            philox.philox_kernel, [out, "i32", "i32", "i32", "i64", "i32", "i32"],
            {"KIND": kind, "BLOCK": philox.BLOCK}, 0, fusion=False,
        )  # fmt: skip


def resize_cases():
    """Between pixels all in float; filters add up in double."""
    ints = ["i32"] * 16
    for name, weight, lerp in (("lerp", "*fp32", True), ("filter", "*fp64", False)):
        yield f"resize-{name}", Case(
            resize.resize_kernel,
            ["*u8", "*i32", weight, "*i32", weight, "*fp32", *ints, "fp32", "fp32"],
            {"LERP": lerp, "BLOCK": resize.BLOCK}, 0, fusion=False,
        )  # fmt: skip


FAMILIES = (bias_act_cases, consistency_cases, masked_cases, penalty_cases, smooth_cases)
IN_DOUBLE = (
    "value-lrelu", "order2-swish", "grad2", "smooth-gelu_tanh", "masked-slope-False",
    "consistency-dot",
)  # fmt: skip
FLOAT_CASES = [
    pytest.param(dtype, case, id=f"{dtype}-{name}")
    for dtype in ("fp32", "bf16")
    for cases in FAMILIES
    for name, case in cases(dtype)
]
DOUBLE_CASES = [
    pytest.param("fp64", case, id=f"fp64-{name}")
    for cases in FAMILIES
    for name, case in cases("fp64")
    if name in IN_DOUBLE
]
AUGMENT_CASES = [
    pytest.param("fp64" if "double" in name else "fp32", case, id=name)
    for name, case in augment_cases()
]
RESIZE_CASES = [
    pytest.param("fp32" if "lerp" in name else "fp64", case, id=name)
    for name, case in resize_cases()
]
PHILOX_CASES = [pytest.param("fp32", case, id=name) for name, case in philox_cases()]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(
    ("dtype", "case"), FLOAT_CASES + PHILOX_CASES + DOUBLE_CASES + AUGMENT_CASES + RESIZE_CASES
)
def test_fits_registers_without_spilling(dtype, case, arch, tmp_path):
    compiled = compile_for(arch, case.kernel, case.types, case.constants, case.fusion)
    used = compiled.resources(tmp_path)
    assert used["STACK"] == 0
    assert used["LOCAL"] == 0
    assert 0 < used["REG"] <= MAX_REGISTERS * (2 if dtype == "fp64" else 1)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("dtype", "case"), FLOAT_CASES)
def test_memory_is_read_and_written_16_bytes_at_a_time(dtype, case, arch):
    compiled = compile_for(arch, case.kernel, case.types, case.constants, case.fusion)
    # A thread has 1024 / 128 = 8 elements of each tensor: 32 bytes, or 16 of a half type.
    each = 2 if dtype == "fp32" else 1
    found = compiled.count(r"(ld|st)\.global\S*\.v4\.b32")
    unrolled = penalty.PIECE // penalty.BLOCK  # the compiler's choice, for one small loop
    assert found in (each * case.streamed, each * case.streamed * unrolled)


@pytest.mark.parametrize(("dtype", "case"), FLOAT_CASES)
def test_nothing_is_computed_in_double_but_for_double(dtype, case):
    compiled = compile_for(90, case.kernel, case.types, case.constants, case.fusion)
    assert compiled.count(r"^(add|sub|mul|fma|div|rcp|sqrt|ex2|min|max)\S*\.f64") == 0


@pytest.mark.parametrize(("dtype", "case"), DOUBLE_CASES)
def test_double_kernels_never_narrow(dtype, case):
    compiled = compile_for(90, case.kernel, case.types, case.constants, case.fusion)
    assert compiled.count(r"\.f64") > 0
    assert compiled.count(r"cvt\S*\.f32\.f64") == 0


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("dtype", "case"), PHILOX_CASES)
def test_philox_rounds_every_step(dtype, case, arch):
    compiled = compile_for(arch, case.kernel, case.types, case.constants, case.fusion)
    assert compiled.count(r"^fma|\.approx|\.ftz") == 0
    if case.constants["KIND"] == 2:  # the search above must have had something to find
        assert compiled.count(r"^mul\S*\.f32") > 10
        assert compiled.count(r"^sqrt\.rn\.f32") >= 2


@pytest.mark.parametrize(("dtype", "case"), RESIZE_CASES)
def test_resize_rounds_every_step(dtype, case):
    """Fused products and sums would be other bits; so would a quick division."""
    compiled = compile_for(90, case.kernel, case.types, case.constants, case.fusion)
    assert compiled.count(r"^fma|\.approx") == 0
    assert compiled.count(r"^div\.rn\.f32") >= 1
    assert (compiled.count(r"\.f64") > 0) == (dtype == "fp64")


@pytest.mark.parametrize(("dtype", "case"), AUGMENT_CASES)
def test_augment_rounds_every_step(dtype, case):
    """Noise and parameters are the same bits everywhere."""
    compiled = compile_for(90, case.kernel, case.types, case.constants, case.fusion)
    assert compiled.count(r"^fma") == 0


@pytest.mark.parametrize("arch", ARCHS)
def test_the_other_kernels_may_fuse(arch):
    """The search for fma finds them where they are."""
    case = dict(bias_act_cases("fp32"))["order2-swish"]
    compiled = compile_for(arch, case.kernel, case.types, case.constants, case.fusion)
    assert compiled.count(r"^fma\.rn\.f32") > 0


def test_numbers_reach_double_kernels_in_full():
    """A plain float argument is passed as float32; the kernels' numbers are annotated float64."""
    for kernel, names in (
        (bias_act.value_kernel, ("alpha", "gain", "clamp")),
        (bias_act.grad_kernel, ("alpha", "gain", "clamp")),
        (penalty.value_kernel, ("center",)),
        (penalty.dots_kernel, ("center",)),
        (penalty.grad_kernel, ("center",)),
        (penalty.grad2_kernel, ("center",)),
        (penalty.go_kernel, ("center",)),
        (smooth.grad2_kernel, ("a", "b")),
        (masked.value_kernel, ("a", "b")),
        (masked.slope_kernel, ("outside",)),
        (consistency.sum_kernel, ("scale",)),
        (consistency.finish_kernel, ("scale",)),
        (consistency.grad_kernel, ("scale",)),
    ):
        annotated = {p.name: p.annotation_type for p in kernel.params}
        assert [annotated[n] for n in names] == ["fp64"] * len(names)
