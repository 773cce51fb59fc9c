"""Counter-based random numbers: the same bits on every backend, for any batch split."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _dispatch
from .._autograd import kernel
from . import autograd as _autograd  # noqa: F401  (registers fakes)
from . import reference

__all__ = ["random_bits", "random_normal", "random_uniform", "seed_from"]

_KINDS = {"bits": 0, "uniform": 1, "normal": 2}


def random_uniform(
    shape: Sequence[int],
    *,
    seed: int,
    offset: int = 0,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    impl: str = "auto",
) -> Tensor:
    """Uniform numbers in [0, 1) from Philox 4x32-10, multiples of 2^-24.

    Element i of the result (in row-major order) is element offset + i of the stream
    (seed, stream), whatever the shape: a batch drawn in two calls, or on two ranks, with offsets
    to match, equals the batch drawn in one.

    Args:
        shape: shape of the result; offset + its number of elements is at most 2^62.
        seed: 64-bit key; negative numbers are taken modulo 2^64.
        offset: first element, 0 <= offset < 2^62.
        stream: which of 2^64 independent streams of the seed.
        dtype: numbers are made in float32, then cast.
        device: where. CPU and CUDA give the same bits.
        impl: "auto", "reference", "native" or "triton".

    Returns:
        A contiguous tensor. No derivatives: it depends on no tensor.

    Raises:
        ValueError: a negative size or offset, elements beyond 2^62, a seed or stream beyond 64
            bits, a CUDA device where torch has none.
        TypeError: a size, seed, offset or stream that is no integer; dtype is not a floating dtype.
        RuntimeError: impl cannot serve.

    Source: Salmon et al., SC 2011.

    Example:
        >>> both = random_uniform((4,), seed=1)
        >>> torch.equal(both[2:], random_uniform((2,), seed=1, offset=2))
        True
    """
    return _draw("uniform", shape, seed, offset, stream, device, impl).to(_floating(dtype))


def random_normal(
    shape: Sequence[int],
    *,
    seed: int,
    offset: int = 0,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    impl: str = "auto",
) -> Tensor:
    """Standard normal numbers by Box-Muller on Philox 4x32-10; |x| <= 5.77.

    Arguments, errors and the meaning of offset are those of `random_uniform`. Logarithm, sine and
    cosine are ganops' own, made of operations that IEEE 754 rounds exactly: the bits are the same
    in plain PyTorch, C++, CUDA and Triton.

    Example:
        >>> random_normal((2,), seed=0).shape
        torch.Size([2])
    """
    return _draw("normal", shape, seed, offset, stream, device, impl).to(_floating(dtype))


def random_bits(
    shape: Sequence[int],
    *,
    seed: int,
    offset: int = 0,
    stream: int = 0,
    device: torch.device | str = "cpu",
    impl: str = "auto",
) -> Tensor:
    """The 32-bit words themselves, as int64 in [0, 2^32). Arguments as in `random_uniform`."""
    return _draw("bits", shape, seed, offset, stream, device, impl)


def seed_from(generator: torch.Generator | None = None) -> int:
    """A 63-bit seed drawn from a torch generator (None: torch's global CPU generator).

    One draw, on the generator's own device; drawing from a CUDA generator waits for the GPU.

    Raises:
        TypeError: generator is no torch.Generator.
        RuntimeError: while torch.compile traces one graph, or a CUDA graph is captured: the seed
            would become part of it.
    """
    if torch.compiler.is_compiling() or (
        torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
    ):
        raise RuntimeError(
            "philox: a seed is a Python number, and drawn inside torch.compile or a CUDA graph it "
            "would be the same for ever: draw outside and pass tensors in (alpha=, noise=)"
        )
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"philox: expected generator as a torch.Generator, got {generator!r}")
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**63 - 1, (), generator=generator, device=device))


def _floating(dtype: torch.dtype) -> torch.dtype:
    if dtype not in _dispatch.FLOATING:
        raise TypeError(f"philox: expected a floating dtype, got {dtype}")
    return dtype


def _check_integer(value: int, name: str) -> None:
    if not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"philox: expected {name} as an int, got {value!r}")


def _signed(value: int, name: str) -> int:
    """64 bits as the dispatcher's int carries them."""
    _check_integer(value, name)
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"philox: expected {name} to fit 64 bits, got {value}")
    return value - 2**64 if value >= 2**63 else value


def _draw(
    kind: str,
    shape: Sequence[int],
    seed: int,
    offset: int,
    stream: int,
    device: torch.device | str,
    impl: str,
) -> Tensor:
    if not isinstance(shape, Sequence):
        raise TypeError(f"philox: expected shape as a sequence of ints, got {shape!r}")
    shape = tuple(shape)
    for size in shape:
        _check_integer(size, "each size")
    if any(n < 0 for n in shape):
        raise ValueError(f"philox: expected sizes >= 0, got {shape}")
    _check_integer(offset, "offset")
    if not 0 <= offset < 2**62:
        raise ValueError(f"philox: expected 0 <= offset < 2^62, got {offset}")
    seed, stream, n = _signed(seed, "seed"), _signed(stream, "stream"), math.prod(shape)
    if offset + n > 2**62:
        raise ValueError(
            f"philox: expected offset + elements <= 2^62, got offset {offset}, shape {shape}"
        )
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"philox: expected a device that torch has here, got {device}: no CUDA")
    impl = _dispatch.choose("philox", impl, device)
    if impl == "reference":
        flat = getattr(reference, f"random_{kind}")(n, seed, offset, stream, device)
    else:
        like = torch.empty(0, device=device)
        flat = kernel("philox", impl)(like, n, seed, offset, stream, _KINDS[kind])
    return flat.reshape(shape)  # type: ignore[no-any-return]
