"""``ganops doctor``: what is installed, which implementation each op runs, and a self-test."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .. import __version__, _dispatch, _library, ops

_OK, _NO = "ok  ", "no  "
# float32 against a float64 reference; the sums of a double backward lose a few bits more.
_BOUND = 1e-5
# The targets of GANOPS_CLONES in csrc/common/macros.h, widest first: what the loader asks for, by
# the names of /proc/cpuinfo. Kept in step by a test.
_AVX2 = {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}
_AVX512 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"} | _AVX2
_CLONES = {
    "GCC >= 12": {"arch=x86-64-v4": _AVX512, "arch=x86-64-v3": _AVX2},
    "GCC < 12": {"avx512f": {"avx512f"}, "avx2": {"avx2"}},
}
_NAMES = {"arch=x86-64-v4": "AVX512", "avx512f": "AVX512", "arch=x86-64-v3": "AVX2", "avx2": "AVX2"}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report. -> 0, or 1 if the self-test found a wrong number."""
    parser = argparse.ArgumentParser(
        prog="ganops doctor",
        description="Shows torch, the native libraries, Triton, and for every op which "
        "implementation runs on each device and why the others do not; then checks forward, "
        "backward and double backward of each against float64 references (a few seconds).",
    )
    parser.add_argument("--no-test", action="store_true", help="only look, run nothing")
    options = parser.parse_args(argv)
    print("\n".join([*_system(), "", *_libraries(), "", *_table()]))
    if options.no_test:
        return 0
    with _dispatch.use_impl("auto"):  # the test names each implementation itself
        return _self_test()


def _system() -> list[str]:
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    lines = [
        f"ganops  {__version__}",
        f"python  {platform.python_version()} on {platform.system()} {platform.machine()}",
        f"torch   {torch.__version__}, {cuda}, {torch.get_num_threads()} CPU threads, "
        f"{torch.backends.cpu.get_cpu_capability()}",
    ]
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(i)
            lines.append(f"GPU {i}   {torch.cuda.get_device_name(i)}, capability {major}.{minor}")
            lines.extend(_missing_arch(major, minor))
    else:
        lines.append("GPU     none that torch can use")
    lines.append(f"triton  {_triton()}")
    return lines


def _triton() -> str:
    if not _dispatch.triton_importable():
        return "not installed (pip install triton)"
    try:
        version = importlib.import_module("triton").__version__
    except Exception as error:  # a broken install can raise anything; the report must go on
        return f"{_NO}installed, but importing it fails: {type(error).__name__}: {error}"
    return version + (", interpreting on the CPU" if _dispatch.triton_interprets() else "")


def cpu_path(compiler: str, system: str, machine: str, flags: set[str]) -> str:
    """The instruction set that the CPU kernels run with, and why: the loader's choice, retold.

    `compiler`: its version line; `flags`: the processor's, by their names in /proc/cpuinfo.
    """
    release = re.search(r"\) (\d+)\.\d", compiler)  # "c++ (vendor) 12.2.0", as GCC alone says it
    gcc = release is not None and not re.search("clang|intel|icx", compiler, re.IGNORECASE)
    if (system, machine) != ("Linux", "x86_64") or release is None or not gcc:
        return "baseline (several instruction sets need GCC on Linux x86_64)"
    targets = _CLONES["GCC >= 12" if int(release[1]) >= 12 else "GCC < 12"]
    for target, needed in targets.items():
        if needed <= flags:
            return f"{_NAMES[target]} ({target}; the loader chooses by the processor)"
    return "baseline (this processor has no AVX2)"


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux, where it would not matter
        return set()
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(found[1].split()) if found else set()


def _missing_arch(major: int, minor: int) -> list[str]:
    """A GPU for which the library has neither code nor PTX of an earlier capability."""
    archs = _library.BUILD_INFO.get("archs", [])
    text = " ".join(archs)
    if not archs or "native" in text:
        return []
    real = {int(n) for n in re.findall(r"code=sm_(\d+)", text)}
    ptx = [int(n) for n in re.findall(r"code=compute_(\d+)", text)]
    here = 10 * major + minor
    runs = any(n // 10 == major and n % 10 <= minor for n in real) or any(n <= here for n in ptx)
    cure = f'GANOPS_CUDA_ARCHS="{major}.{minor}" pip install --no-build-isolation .'
    return [] if runs else [f"        {_NO}built for {_archs()}; this GPU needs: {cure}"]


def _archs() -> str:
    return " ".join(re.findall(r",code=(\w+)", " ".join(_library.BUILD_INFO.get("archs", []))))


def _libraries() -> list[str]:
    info = _library.BUILD_INFO
    lines = []
    for label, library in (("native CPU ", _library.NATIVE), ("native CUDA", _library.CUDA)):
        state = _OK + library.path.name if library.loaded else _NO + str(library.missing)
        lines.append(f"{label}  {state}")
    if info.get("native"):
        if _library.NATIVE.loaded:
            path = cpu_path(
                str(info.get("compiler")), platform.system(), platform.machine(), _cpu_flags()
            )
            lines.append(f"CPU path     {path}")
        lines.append(f"built with   {info.get('compiler')}")
        lines.append(f"             torch {info.get('torch')}, for torch >= {info['torch_target']}")
    if info.get("cuda"):
        lines.append(f"CUDA code    {_archs() or 'native'}, {info.get('nvcc')}")
    elif info:
        lines.append(f"CUDA code    none: {info.get('cuda_reason')}")
    return lines


def _table() -> list[str]:
    """One block per op: what auto takes, and the state of each implementation."""
    lines = []
    asked = os.environ.get("GANOPS_IMPL", "auto")
    if asked != "auto":
        lines.append(f"GANOPS_IMPL={asked} is set: ops run that or refuse")
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for op in _dispatch.AUTO:
        for device in devices:
            try:
                state = f"runs {_dispatch.choose(op, 'auto', torch.device(device))}"
            except RuntimeError as error:
                state = f"refuses: {str(error).removeprefix(f'{op}: ')}"
            lines.append(f"{op} on {device}: {state}")
            for impl in _dispatch.IMPLS:
                reason = _dispatch.why_not(op, impl, device)
                lines.append(
                    f"    {_OK if reason is None else _NO}{impl:<10} {reason or ''}".rstrip()
                )
    if len(devices) == 1:
        lines.append("(no GPU here: on CUDA tensors, auto would take the first that is built of: "
                     + ", ".join(_dispatch.AUTO["bias_act"]["cuda"]) + ")")  # fmt: skip
    return lines


def _orders(f: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """f(x), the gradient of |f|^2, and the gradient of that gradient's squared norm."""
    x = x.clone().requires_grad_()
    y = f(x)
    (first,) = torch.autograd.grad((y * y).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    return [y.detach(), first.detach(), second]


def _biased(x: Tensor, impl: str, act: str) -> Tensor:
    return ops.bias_act(x, x.new_ones(5), act=act, impl=impl)


def _penalty(x: Tensor, impl: str) -> Tensor:
    return ops.penalty_from_gradient(x, impl=impl)


def _consistency(x: Tensor, impl: str) -> Tensor:
    return ops.consistency_loss(x, impl=impl)


def _self_test() -> int:
    started, worst, failed = time.perf_counter(), 0.0, 0
    print("\nself-test: forward, backward, double backward against float64 references")
    cases: list[tuple[str, Callable[..., Tensor]]] = [
        (f"bias_act {act}", partial(_biased, act=act))
        for act in ("linear", "lrelu", "tanh", "elu", "softplus", "swish")
    ]
    cases += [("gradient_penalty", _penalty), ("consistency", _consistency)]
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for device in devices:
        x = ops.random_normal((4, 5, 6, 7), seed=1, device=device)
        for name, f in cases:
            op = name.split()[0]
            for impl in _dispatch.IMPLS:
                if _dispatch.why_not(op, impl, device) is not None:
                    continue
                got = _orders(partial(f, impl=impl), x)
                want = _orders(partial(f, impl="reference"), x.double())
                error = max(float((g - w).abs().max() / w.abs().max().clamp(min=1.0))
                            for g, w in zip(got, want))  # fmt: skip
                worst = max(worst, error)
                if not error < _BOUND:
                    failed += 1
                    print(f"    WRONG {name}, {impl} on {device}: off by {error:.1e}")
        for impl in _dispatch.IMPLS:
            if _dispatch.why_not("philox", impl, device) is None:
                same = torch.equal(
                    ops.random_normal((1000,), seed=7, device=device, impl=impl).cpu(),
                    ops.random_normal((1000,), seed=7, impl="reference"),
                )
                if not same:
                    failed += 1
                    print(f"    WRONG philox, {impl} on {device}: other bits than the reference")
    seconds = time.perf_counter() - started
    verdict = "all right" if not failed else f"{failed} WRONG: do not train with this install"
    print(f"    {verdict}; largest relative error {worst:.1e}, {seconds:.1f} s")
    return 1 if failed else 0
