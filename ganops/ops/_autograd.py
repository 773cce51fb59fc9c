"""How compiled ops meet autograd: one pattern for all of them.

Every kernel is a dispatcher op in two overloads of one schema: ``ganops::op`` carries derivatives,
``ganops::op.kernel`` is the bare kernel. `torch.autograd.Function`s call the bare one in their
forward and each other in their backward and jvp, so orders 1 and 2 and forward mode are all
written out, and what is not written raises. The public functions call the Function directly
(torch.func then works); under torch.compile they call ``ganops::op``, whose Autograd kernel is that
same Function.

Triton kernels are the ops ``ganops::op_triton`` of the same schema, defined here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import Function, forward_ad

from .. import _dispatch, _library

_LIBRARY = torch.library.Library("ganops", "FRAGMENT")
_SUFFIX = {"native": "", "triton": "_triton"}


def available(impl: str) -> bool:
    """Are the ops of this implementation defined in this process?"""
    return _library.NATIVE.loaded if impl == "native" else _dispatch.triton_importable()


def kernel(op: str, impl: str) -> Any:
    """The bare kernel: no autograd, no checks of what a user may pass."""
    return getattr(torch.ops.ganops, op + _SUFFIX[impl]).kernel


def differentiable(op: str, impl: str) -> Any:
    """The dispatcher op that carries derivatives; for torch.compile."""
    return getattr(torch.ops.ganops, op + _SUFFIX[impl]).default


class _Bound:
    """Arguments that need no binding."""

    def __init__(self, args: tuple[Any, ...]) -> None:
        self.args = args
        self.kwargs: dict[str, Any] = {}

    def apply_defaults(self) -> None:
        """There are none."""


def _refuse_lost_graph(args: tuple[Any, ...]) -> None:
    """Raises where torch would drop the graph that a Function records, without a word.

    autograd.grad(is_grads_batched=True) has a batching of its own, which is not torch.func's; what
    a Function returns under it comes back without a graph. Its tensors have no storage.
    """
    for t in args:
        if isinstance(t, torch.Tensor):
            try:
                t.untyped_storage()
            except NotImplementedError as error:
                recorded = torch.is_grad_enabled() and not transformed() and not _forward_mode()
                if recorded and "Batched" in str(error):
                    raise RuntimeError(
                        "ganops: is_grads_batched=True (vectorize=True) with create_graph=True "
                        "would lose the second derivative of this op; take the gradients one by "
                        "one, or by torch.func.jacrev"
                    ) from None


def _forward_mode() -> bool:
    """Is a level of forward mode open? Its batched tangents are no result of anybody's."""
    one = torch.ones(())
    try:
        forward_ad.make_dual(one, one)
    except RuntimeError:
        return False
    return True


class _Positional(inspect.Signature):
    """Of a function whose arguments are all given, by position; the last may be `*rest`."""

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        _refuse_lost_graph(args)  # apply() calls this first, in its caller's grad mode
        *_, last = self.parameters.values()
        rest = last.kind == last.VAR_POSITIONAL and len(args) >= len(self.parameters) - 1
        if kwargs or not (rest or len(args) == len(self.parameters)):
            return super().bind(*args, **kwargs)
        return _Bound(args)


def quick(function: type[Function]) -> type[Function]:
    """Class decorator: forward's signature, which apply() otherwise rebuilds and binds every call.

    That reflection took half of a small op's time (25 us of 46).
    """
    forward: Any = function.forward
    forward.__signature__ = _Positional(list(inspect.signature(forward).parameters.values()))
    return function


def register(
    op: str,
    schema: str,
    *,
    fake: Callable[..., Any],
    autograd: Callable[..., Any] | None,
    triton: Callable[..., Any],
) -> None:
    """Registers fakes and derivatives of both compiled implementations of an op.

    Args:
        op: name as in csrc/library.cpp.
        schema: "(Tensor x, ...) -> Tensor", as there; the Triton twin is defined from it.
        fake: shapes, strides and dtypes of the results, from fake tensors.
        autograd: (impl, *args) -> results through the op's autograd.Function; None if no tensor
            argument is differentiable.
        triton: launches the Triton kernel; imports triton itself when first called.
    """
    if available("triton"):
        for overload in ("", ".kernel"):
            _LIBRARY.define(f"{op}_triton{overload}{schema}")
            for key in ("CUDA", "CPU"):
                _LIBRARY.impl(f"{op}_triton{overload}", triton, key)
    for impl, suffix in _SUFFIX.items():
        if not available(impl):
            continue
        if not hasattr(torch.ops.ganops, op + suffix):
            raise ImportError(
                f"ganops: the native library has no op {op}: it was built from older source; "
                "build it again (pip install -e . in a checkout)"
            )
        for overload in ("", ".kernel"):
            torch.library.register_fake(f"ganops::{op}{suffix}{overload}", fake, lib=_LIBRARY)
        if autograd is not None:
            _LIBRARY.impl(op + suffix, _bound(autograd, impl), "Autograd")


def plainly_batched(op: str, plain: Callable[..., Any]) -> None:
    """Where autograd.grad(is_grads_batched=True) is to meet a kernel: plain operations serve it.

    Its batching is not torch.func's, and has no fallback for ops that take lists of tensors.
    """
    for impl, suffix in _SUFFIX.items():
        if available(impl):
            _LIBRARY.impl(f"{op}{suffix}.kernel", plain, "Batched")


def _bound(autograd: Callable[..., Any], impl: str) -> Callable[..., Any]:
    return lambda *args: autograd(impl, *args)


def is_last_order(*tensors: torch.Tensor | None) -> bool:
    """Will nobody differentiate a backward on these? Then a kernel needs no Function around it.

    Forward mode differentiates with grad mode off, too, and would lose a bare kernel's tangent.
    """
    return not torch.is_grad_enabled() and all(
        t is None or forward_ad.unpack_dual(t).tangent is None for t in tensors
    )


def refuse(op: str, order: int) -> RuntimeError:
    """The error of a derivative that does not exist."""
    return RuntimeError(
        f"{op}: its compiled kernels have derivatives up to order {order - 1}, and order {order} "
        f'was asked for. impl="reference" is differentiable to any order.'
    )


def refuse_nested_forward(op: str, instead: str = 'impl="reference"') -> None:
    """Raises where a jvp runs inside another one (jacfwd of jacfwd).

    PyTorch runs a Function's jvp with forward mode off, so the plain operations in it would lose
    the tangents of the outer level without a word.
    """
    stack = torch._C._functorch.get_interpreter_stack() or ()  # no public way to count levels
    if sum(level.key() == torch._C._functorch.TransformType.Jvp for level in stack) > 1:
        raise RuntimeError(
            f"{op}: forward mode inside forward mode has no derivative here. Take one of the two "
            f"in reverse (torch.func.hessian does), or {instead}."
        )


def transformed() -> bool:
    """Does a transform of torch.func run? It then refuses requires_grad_, of any tensor."""
    try:
        _PLAIN.requires_grad_(False)
    except RuntimeError:
        return True
    return False


_PLAIN = torch.empty(())


def is_dense(t: torch.Tensor, first: int = 0) -> bool:
    """Do dims first, first+1, ... fill one gapless block? Twin of csrc/common/tensors.h."""
    if any(t.size(d) == 0 for d in range(first, t.dim())):
        return True
    expected = 1
    for stride, size in sorted(
        (t.stride(d), t.size(d)) for d in range(first, t.dim()) if t.size(d) != 1
    ):
        if stride != expected:
            return False
        expected *= size
    return True


def empty_dense_like(t: torch.Tensor) -> torch.Tensor:
    """An empty tensor as the kernels return it: t's memory order if gapless, else contiguous."""
    return torch.empty_like(t) if is_dense(t) else t.new_empty(t.shape)


def has_dense_rows(t: torch.Tensor) -> bool:
    """Is every sample (dim 0) one gapless block, samples one after the other? Twin likewise."""
    row = t.numel() // max(t.shape[0], 1)
    return is_dense(t, 1) and (t.shape[0] <= 1 or t.stride(0) == row)


def empty_rows_like(t: torch.Tensor) -> torch.Tensor:
    """An empty tensor as kernels on samples return it: t's memory order if dense rows."""
    return torch.empty_like(t) if has_dense_rows(t) else t.new_empty(t.shape)
