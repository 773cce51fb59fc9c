"""Triton where it is installed, and a stand-in that lets modules be imported where it is not.

Kernels are only described at import; Triton itself is needed when one is launched, and
`ganops._dispatch` refuses before that with a reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _dispatch

if _dispatch.triton_importable():
    import triton
    import triton.language as tl

    jit: Callable[..., Any] = triton.jit
else:  # pragma: no cover - the test environment has Triton

    class _Names:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    tl = _Names()

    def jit(function: Callable[..., Any] | None = None, **_: Any) -> Callable[..., Any]:
        return function if function is not None else lambda f: f


def cdiv(a: int, b: int) -> int:
    """Blocks of b that cover a."""
    return -(-a // b)
