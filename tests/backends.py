"""The compiled implementations, each where it runs: what op tests are parametrised over.

One set of tests serves four places. On the CPU native kernels run in every session; Triton kernels
run in its interpreter, which must be chosen before triton is imported and is slow, so in a session
of their own: ``TRITON_INTERPRET=1 pytest -m triton``. On a GPU machine the cuda pairs join in.

Pairs that cannot run are left out, and the end of the session says which and why. A native library
that should be there but is not makes its tests fail.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from ganops import _dispatch, _library

INTERPRETED = _dispatch.triton_interprets()


class Backend(NamedTuple):
    """An implementation and the kind of device its tensors are on."""

    impl: str
    device: str

    @property
    def suffix(self) -> str:
        """What its dispatcher ops are called after the op's name."""
        return "_triton" if self.impl == "triton" else ""

    def why_not(self) -> str | None:
        """Why this pair cannot run here, or None."""
        if self.device == "cuda" and not torch.cuda.is_available():
            return "needs a CUDA device"
        if self == ("triton", "cuda") and INTERPRETED:
            return "runs in the session without TRITON_INTERPRET=1"
        if self == ("native", "cpu"):
            return _library.BUILD_INFO.get("native_reason")
        return _dispatch.why_not("bias_act", *self)


PAIRS = [Backend(i, d) for d in ("cpu", "cuda") for i in ("native", "triton")]
REASONS = {pair: reason for pair in PAIRS if (reason := pair.why_not()) is not None}


def _param(pair: Backend) -> object:
    marks = [pytest.mark.cuda] if pair.device == "cuda" else []
    if pair == ("triton", "cpu"):
        marks.append(pytest.mark.triton)
    if pair in REASONS:
        marks.append(pytest.mark.cannot_run)
    return pytest.param(pair, id=f"{pair.impl}-{pair.device}", marks=marks)


COMPILED = [_param(pair) for pair in PAIRS]
EVERY = [pytest.param(Backend("reference", "cpu"), id="reference-cpu"), *COMPILED]
