"""``ganops doctor``: what is installed, which implementation each op runs, and a self-test."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import re
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from .. import __version__, _dispatch, _library, ops

_OK, _NO = "ok  ", "no  "
# float32 against a float64 reference; the sums of a double backward lose a few bits more.
_BOUND = 1e-5


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
    return 0 if options.no_test else _self_test()


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
    if _dispatch.triton_importable():
        mode = ", interpreting on the CPU" if _dispatch.triton_interprets() else ""
        lines.append(f"triton  {importlib.metadata.version('triton')}{mode}")
    else:
        lines.append("triton  not installed (pip install triton)")
    return lines


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
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for op in _dispatch.AUTO:
        for device in devices:
            chosen = _dispatch.choose(op, "auto", torch.device(device))
            lines.append(f"{op} on {device}: runs {chosen}")
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


def _self_test() -> int:
    started, worst, failed = time.perf_counter(), 0.0, 0
    print("\nself-test: forward, backward, double backward against float64 references")
    cases: list[tuple[str, Callable[..., Tensor]]] = [
        (f"bias_act {act}", partial(_biased, act=act))
        for act in ("linear", "lrelu", "tanh", "elu", "softplus", "swish")
    ]
    cases.append(("gradient_penalty", _penalty))
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
