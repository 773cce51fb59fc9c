"""Builds ganops: finds CUDA, picks architectures and jobs, compiles, writes down what was built.

    GANOPS_NATIVE=0            no compiler needed: Triton and plain PyTorch only
    GANOPS_CUDA=auto|0|1       auto: if a toolkit is found; 1: fail if none is
    GANOPS_CUDA_ARCHS="8.0;9.0+PTX"   or "native"; else TORCH_CUDA_ARCH_LIST, else a default
    MAX_JOBS=4                 parallel compilations

Nothing is downloaded, and no GPU or driver is needed: CUDA code is built wherever nvcc is.
torch is imported only to compile, so metadata and sdist work without it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # too old to read pyproject.toml either
    raise SystemExit(
        "ganops is built by setuptools 77 or newer: pip install 'setuptools>=77' wheel ninja"
    ) from None

ROOT = Path(__file__).parent
# The oldest torch whose stable ABI the libraries may use; they run on it and everything newer.
TORCH_TARGET = (2, 11)
# Real code for each; PTX for the newest lets later GPUs compile their own.
DEFAULT_ARCHS = "7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX"
WHERE = "CUDA_HOME, CUDA_PATH, nvcc on PATH, /usr/local/cuda"
CURE = "On a cluster, load its module first (module load cuda), or name it: CUDA_HOME=/path/to/cuda"
OPS = (
    "ada", "augment", "bias_act", "consistency", "feature_stats", "gradient_penalty",
    "masked_slope", "norm", "philox", "resize", "smooth", "spectral_norm", "upfirdn2d",
)  # fmt: skip
OLDEST_GCC = 11
WITHOUT = "or install without native kernels: GANOPS_NATIVE=0"


def find_cuda(env: dict[str, str], default: str = "/usr/local/cuda") -> Path | None:
    """The toolkit's folder, from the four places of WHERE; never by looking for a GPU."""
    nvcc = shutil.which("nvcc", path=env.get("PATH", ""))
    places = [env.get("CUDA_HOME"), env.get("CUDA_PATH"), default]
    if nvcc is not None:
        # nvcc may be a link or a wrapper script: ask it where its toolkit is.
        said = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True)
        top = re.search(r"^#\$ TOP=(.+)$", said.stderr, re.MULTILINE)
        places.insert(2, top.group(1).strip() if top else str(Path(nvcc).resolve().parents[1]))
    for place in places:
        if place and (Path(place) / "bin" / "nvcc").exists():
            return Path(place).resolve()
    return None


def pick_archs(env: dict[str, str], supported: set[str] | None = None) -> list[str]:
    """nvcc -gencode flags; the default list is cut to what the toolkit supports.

    Raises ValueError with the item that does not parse.
    """
    text = env.get("GANOPS_CUDA_ARCHS") or env.get("TORCH_CUDA_ARCH_LIST")
    if not text:
        wanted = DEFAULT_ARCHS.replace("+PTX", "").split(";")
        kept = [a for a in wanted if supported is None or a in supported]
        if not kept:
            raise ValueError(
                f"the CUDA toolkit builds none of {DEFAULT_ARCHS}; set GANOPS_CUDA_ARCHS"
            )
        text = ";".join(kept) + "+PTX"
    if text.strip().lower() == "native":
        return ["-arch=native"]
    flags = []
    for item in re.split(r"[;,\s]+", text.strip()):
        match = re.fullmatch(r"(\d+)\.(\d[a-z]?)(\+PTX)?", item)
        if match is None:
            raise ValueError(
                f"GANOPS_CUDA_ARCHS / TORCH_CUDA_ARCH_LIST: expected items like 9.0 or 9.0+PTX, "
                f"or 'native'; got {item!r} in {text!r}"
            )
        number = match.group(1) + match.group(2)
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if match.group(3):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def free_memory() -> int:
    """Bytes available, or a guess of 8 GiB where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
        return int(re.search(r"MemAvailable:\s+(\d+)", text).group(1)) * 1024  # type: ignore[union-attr]
    except (OSError, AttributeError):
        return 8 << 30


def pick_jobs(env: dict[str, str], cores: int, memory: int) -> int:
    """MAX_JOBS, else as many as cores and memory (3 GiB each) carry."""
    if env.get("MAX_JOBS"):
        if not env["MAX_JOBS"].isdigit() or int(env["MAX_JOBS"]) < 1:
            raise ValueError(f"MAX_JOBS: expected a number of at least 1, got {env['MAX_JOBS']!r}")
        return int(env["MAX_JOBS"])
    return max(1, min(cores, memory // (3 << 30)))


def find_compiler(env: dict[str, str]) -> str:
    """The first line of what the C++ compiler says of itself.

    Raises SystemExit where there is none, or where it is known to be too old.
    """
    command = env.get("CXX", "c++")
    try:
        said = run_quietly(*command.split(), "--version")
        version = run_quietly(*command.split(), "-dumpfullversion", "-dumpversion").strip()
    except OSError:
        raise SystemExit(
            f"ganops needs a C++ compiler, and {command!r} does not run: install g++ "
            f"{OLDEST_GCC} or newer, name one with CXX=, {WITHOUT}"
        ) from None
    major = re.match(r"\d+", version)
    if "clang" not in said.lower() and major and int(major.group()) < OLDEST_GCC:
        raise SystemExit(
            f"ganops needs g++ {OLDEST_GCC} or newer, and {command!r} is {version}: name a newer "
            f"one with CXX=, {WITHOUT}"
        )
    return said.splitlines()[0] if said else command


def run_quietly(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def describe_build(env: dict[str, str], system: str = platform.system()) -> dict[str, Any]:
    """What would be built here and why; raises SystemExit where the wish cannot be met."""
    native = env.get("GANOPS_NATIVE", "1")
    wish = env.get("GANOPS_CUDA", "auto")
    if native not in ("0", "1") or wish not in ("auto", "0", "1"):
        raise SystemExit(
            f"expected GANOPS_NATIVE as 0 or 1 and GANOPS_CUDA as auto, 0 or 1; "
            f"got {native!r} and {wish!r}"
        )
    info: dict[str, Any] = {"version": version(), "native": native == "1", "cuda": None}
    if native == "0":
        if wish == "1":
            raise SystemExit("GANOPS_CUDA=1 needs GANOPS_NATIVE=1: got GANOPS_NATIVE=0")
        info["native_reason"] = "installed with GANOPS_NATIVE=0"
        info["cuda_reason"] = "installed with GANOPS_NATIVE=0"
        return info
    if system != "Linux":
        raise SystemExit(f"ganops builds native kernels on Linux only, this is {system}; {WITHOUT}")
    if wish == "0":
        info["cuda_reason"] = "built with GANOPS_CUDA=0"
        return info
    toolkit = find_cuda(env)
    if toolkit is None:
        reason = f"no CUDA toolkit was found at build time (looked in {WHERE})"
        if wish == "1":
            raise SystemExit(f"GANOPS_CUDA=1, but {reason}. {CURE}")
        info["cuda_reason"] = reason
        return info
    info["cuda"] = str(toolkit)
    info["archs"] = or_exit(lambda: pick_archs(env, toolkit_archs(toolkit)))
    return info


def or_exit(pick: Callable[[], Any]) -> Any:
    """A wrong setting ends the build with its sentence, not with a traceback."""
    try:
        return pick()
    except ValueError as error:
        raise SystemExit(str(error)) from None


def version() -> str:
    text = (ROOT / "ganops" / "_version.py").read_text()
    return re.search(r'__version__ = "([^"]+)"', text).group(1)  # type: ignore[union-attr]


def toolkit_archs(toolkit: Path) -> set[str]:
    """Compute capabilities that this nvcc can build, as "9.0"."""
    said = subprocess.run(
        [toolkit / "bin" / "nvcc", "--list-gpu-arch"], capture_output=True, text=True
    )
    return {f"{n[:-1]}.{n[-1]}" for n in re.findall(r"compute_(\d+)", said.stdout)}


def extensions(info: dict[str, Any]) -> list[Extension]:
    """The shared libraries as setuptools sees them; flags for g++ and nvcc."""
    if not info["native"]:
        return []
    target = f"-DTORCH_TARGET_VERSION=0x{TORCH_TARGET[0]:02x}{TORCH_TARGET[1]:02x}000000000000ULL"
    # contract=off: a value must not depend on whether the machine has fused multiply-add.
    cxx = ["-std=c++20", "-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math",
           "-fvisibility=hidden", f"-ffile-prefix-map={ROOT}/=", target]  # fmt: skip
    cpu = ["csrc/library.cpp", *(f"csrc/{op}/{op}_cpu.cpp" for op in OPS)]
    found = [Extension("ganops._C", cpu, extra_compile_args={"cxx": cxx})]  # type: ignore[arg-type]
    if info["cuda"]:
        sources = [f"csrc/{op}/{op}_{part}" for op in OPS for part in ("cuda.cu", "cuda_bind.cpp")]
        nvcc = ["-O3", "-Xcompiler=-fvisibility=hidden", *info["archs"]]
        found.append(
            Extension(
                "ganops._C_cuda",
                ["csrc/common/cuda_error.cu", *sources],
                extra_compile_args={"cxx": cxx, "nvcc": nvcc},  # type: ignore[arg-type]
                library_dirs=[f"{info['cuda']}/lib64"],
                # Static: a wheel must not need the toolkit, nor a GPU to be imported.
                libraries=["cudart_static", "rt", "pthread", "dl"],
            )
        )
    return found


class LibraryNames:
    """ganops/_C.so, without Python's suffix: no Python symbol is in it."""

    def get_ext_filename(self, name: str) -> str:
        return name.replace(".", "/") + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []


class Build(LibraryNames, build_ext):
    """Hands the compiling to torch's own BuildExtension (ninja), which is imported only here."""

    def run(self) -> None:
        info = dict(INFO)
        toolkit = info.pop("cuda")
        info["cuda"] = toolkit is not None
        print(summary(info))
        if self.extensions:
            compiler = find_compiler(dict(os.environ))
            import torch
            from torch.utils import cpp_extension

            jobs = or_exit(lambda: pick_jobs(dict(os.environ), os.cpu_count() or 1, free_memory()))
            os.environ["MAX_JOBS"] = str(jobs)
            # A CPU-only torch refuses nvcc unless told where it is.
            cpp_extension.CUDA_HOME = toolkit
            info |= {"torch": torch.__version__, "jobs": jobs,
                     "compiler": compiler,
                     "torch_target": ".".join(map(str, TORCH_TARGET)),
                     "platform": platform.platform(terse=True)}  # fmt: skip
            if toolkit:
                info["nvcc"] = run_quietly(f"{toolkit}/bin/nvcc", "--version").splitlines()[-1]
            for ext in self.extensions:
                ext.include_dirs += cpp_extension.include_paths()
                ext.library_dirs += cpp_extension.library_paths()
                ext.libraries += ["c10", "torch", "torch_cpu"]

            class TorchBuild(LibraryNames, cpp_extension.BuildExtension):  # type: ignore[misc]
                pass

            inner = TorchBuild(self.distribution)
            for option in ("build_lib", "build_temp", "inplace", "editable_mode", "force", "debug"):
                setattr(inner, option, getattr(self, option))
            inner.ensure_finalized()
            inner.run()
        write_info(info, ROOT if self.inplace or self.editable_mode else Path(self.build_lib))


class Python(build_py):
    """Without native libraries there is no build_ext to write down what was built."""

    def run(self) -> None:
        super().run()
        if not INFO["native"]:
            print(summary(INFO))
            info = {**INFO, "cuda": False}
            write_info(info, ROOT if self.editable_mode else Path(self.build_lib))


def write_info(info: dict[str, Any], folder: Path) -> None:
    (folder / "ganops").mkdir(parents=True, exist_ok=True)
    (folder / "ganops" / "_build_info.json").write_text(json.dumps(info, indent=2) + "\n")


def summary(info: dict[str, Any]) -> str:
    """One boxed message that a person finds in the build log."""
    lines = [f"ganops {info['version']}"]
    lines.append(
        "native CPU kernels: " + ("yes" if info["native"] else f"no, {info['native_reason']}")
    )
    if info["cuda"]:
        lines.append(
            "CUDA kernels: " + " ".join(re.findall(r",code=(\w+)", " ".join(info["archs"])))
        )
    else:
        lines.append(f"CUDA kernels: no, {info['cuda_reason']}")
        lines.append(
            "CUDA tensors will use Triton. To build them: GANOPS_CUDA=1; to hush: GANOPS_CUDA=0"
        )
    width = max(map(len, lines))
    body = [f"| {line:<{width}} |" for line in lines]
    rule = "+" + "-" * (width + 2) + "+"
    return "\n".join([rule, *body, rule])


class Wheel(bdist_wheel):
    """One file for every Python 3: nothing in it depends on the interpreter."""

    def get_tag(self) -> tuple[str, str, str]:
        _, _, plat = super().get_tag()
        return ("py310", "none", plat) if INFO["native"] else ("py3", "none", "any")


if __name__ == "__main__":
    INFO = describe_build(dict(os.environ))
    setup(
        ext_modules=extensions(INFO),
        cmdclass={"build_ext": Build, "build_py": Python, "bdist_wheel": Wheel},
    )
