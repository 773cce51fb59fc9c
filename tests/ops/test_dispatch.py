"""Which implementation runs: what was asked for by name is used or refused, never replaced."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ganops
from ganops import _dispatch, _library, ops

CPU = torch.device("cpu")
NATIVE = _library.NATIVE.loaded


class Called(TorchDispatchMode):
    """The names of the ganops kernels that ran."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "ganops":
            self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


CALLS = {
    "bias_act": lambda **kwargs: ops.bias_act(torch.ones(2, 3), **kwargs),
    "gradient_penalty": lambda **kwargs: ops.penalty_from_gradient(torch.ones(2, 3), **kwargs),
    "philox": lambda **kwargs: ops.random_uniform((3,), seed=0, **kwargs),
}


@pytest.mark.parametrize("op", CALLS)
def test_every_op_takes_every_way_of_asking(any_backend, op):
    if any_backend.device != "cpu":
        pytest.skip("the call is on CPU tensors")
    suffix = {"reference": None, "native": "", "triton": "_triton"}[any_backend.impl]
    expected = set() if suffix is None else {op + suffix}
    with Called() as by_argument:
        CALLS[op](impl=any_backend.impl)
    with Called() as by_context, ganops.use_impl(any_backend.impl):
        CALLS[op]()
    with Called() as argument_first, ganops.use_impl(any_backend.impl):
        CALLS[op](impl="reference")
    assert by_argument.names == by_context.names == expected
    assert argument_first.names == set()


@pytest.mark.parametrize("op", CALLS)
@pytest.mark.skipif(not NATIVE, reason=f"no native library: {_library.NATIVE.missing}")
def test_auto_takes_native_on_the_cpu(op):
    with Called() as auto:
        CALLS[op]()
    assert auto.names == {op}


def test_use_impl_nests_and_is_undone_by_errors():
    before = _dispatch._default
    with ganops.use_impl("reference"):
        with ganops.use_impl("auto"):
            assert _dispatch._default == "auto"
        assert _dispatch._default == "reference"
    with pytest.raises(KeyError), ganops.use_impl("reference"):
        raise KeyError
    assert _dispatch._default == before


@pytest.mark.parametrize("name", ["cuda", "", "Native", "reference "])
def test_unknown_names_are_refused(name):
    expected = "use_impl: expected one of auto, reference, native, triton"
    with pytest.raises(ValueError, match=expected), ganops.use_impl(name):
        pass
    for op, call in CALLS.items():
        with pytest.raises(ValueError, match=f"{op}: impl: expected one of auto"):
            call(impl=name)


@pytest.mark.parametrize("op", CALLS)
@pytest.mark.skipif(_dispatch.triton_interprets(), reason="the interpreter serves CPU tensors")
def test_an_implementation_that_cannot_serve_says_why(op):
    with pytest.raises(RuntimeError, match=rf"{op}: impl='triton' cannot serve cpu tensors: .+"):
        CALLS[op](impl="triton")
    with ganops.use_impl("triton"), pytest.raises(RuntimeError, match=r"reference.* always can"):
        CALLS[op]()


def test_reasons(monkeypatch):
    why = _dispatch.why_not
    assert why("bias_act", "reference", "mps") is None
    assert "no native kernel for mps" in why("bias_act", "native", "mps")
    assert "not torch.int8" in why("bias_act", "native", "cpu", torch.int8)
    monkeypatch.setattr(_library, "NATIVE", _library.Library("_C", Path("x"), "not built: test"))
    assert why("bias_act", "native", "cpu") == "not built: test"
    assert why("bias_act", "native", "cuda") == "not built: test"
    monkeypatch.setattr(_library, "NATIVE", _library.Library("_C", Path("x"), None))
    monkeypatch.setattr(_library, "CUDA", _library.Library("_C_cuda", Path("x"), "no CUDA: test"))
    assert why("bias_act", "native", "cpu") is None
    assert why("bias_act", "native", "cuda") == "no CUDA: test"
    monkeypatch.setattr(_dispatch, "triton_importable", lambda: False)
    assert "pip install triton" in why("bias_act", "triton", "cuda")


def test_auto_falls_back_to_the_reference_in_silence_only_on_the_cpu(monkeypatch):
    monkeypatch.setattr(_library, "NATIVE", _library.Library("_C", Path("x"), "not built: test"))
    monkeypatch.setattr(_dispatch, "triton_importable", lambda: False)
    monkeypatch.setattr(_dispatch, "_default", "auto")
    monkeypatch.setattr(_dispatch, "_warned", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _dispatch.choose("bias_act", "auto", CPU) == "reference"
    cuda = torch.device("cuda")
    with pytest.warns(RuntimeWarning, match=r"bias_act runs its slow reference on cuda .*not buil"):
        assert _dispatch.choose("bias_act", "auto", cuda) == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _dispatch.choose("bias_act", "auto", cuda) == "reference"  # said once
    with pytest.raises(RuntimeError, match="not built: test"):
        _dispatch.choose("bias_act", "native", cuda)


def test_auto_prefers_native_then_triton_on_cuda(monkeypatch):
    monkeypatch.setattr(_dispatch, "_default", "auto")
    cannot = set()
    monkeypatch.setattr(
        _dispatch, "why_not", lambda op, impl, *_: "test" if impl in cannot else None
    )
    for op in CALLS:
        cannot.clear()
        assert _dispatch.choose(op, "auto", torch.device("cuda")) == "native"
        cannot.add("native")
        assert _dispatch.choose(op, "auto", torch.device("cuda")) == "triton"


def run_python(code, **env):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(ganops.__file__).parents[1]), **env},
    )  # fmt: skip


def test_the_environment_variable_decides():
    code = (
        "import torch, ganops\n"
        "from ganops import _dispatch\n"
        "cpu = torch.device('cpu')\n"
        "print(_dispatch.choose('bias_act', 'auto', cpu))\n"
        "with ganops.use_impl('auto'): print(_dispatch._default)\n"
    )
    said = run_python(code, GANOPS_IMPL="reference")
    assert said.stdout.split() == ["reference", "auto"], said.stderr


def test_a_bad_environment_variable_is_named():
    said = run_python("import ganops.ops", GANOPS_IMPL="fast")
    assert said.returncode == 1
    assert "ValueError: GANOPS_IMPL: expected one of auto, reference" in said.stderr
    assert "got 'fast'" in said.stderr


@pytest.mark.skipif(not NATIVE, reason=f"no native library: {_library.NATIVE.missing}")
def test_a_library_that_does_not_load_warns_and_says_how_to_rebuild(tmp_path, monkeypatch):
    (tmp_path / "_C.so").write_bytes(b"not a library")
    monkeypatch.setattr(_library, "PACKAGE", tmp_path)
    with pytest.warns(RuntimeWarning, match=r"_C.so was built but does not load .*pip install"):
        library = _library._load("_C", "absent")
    assert not library.loaded
    assert _library._load("_other", "absent: test").missing == "absent: test"
    assert _library._load("_C", "absent", skip="no CUDA").missing == "no CUDA"
