"""Bytes to what an Inception network is given: resized and normalised in one pass."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ... import _dispatch
from .._autograd import kernel
from . import reference
from .autograd import DTYPES

__all__ = ["resize_normalize"]

RESIZES = tuple(reference.PROTOCOLS)
MOST = 2**24  # beyond it, float32 does not know a pixel from the next


def resize_normalize(
    images: Tensor,
    size: int | tuple[int, int] = 299,
    *,
    protocol: str = "tf",
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.channels_last,
    impl: str = "auto",
) -> Tensor:
    """Images as bytes -> the normalised RGB of another size that a metric's network is given.

    Published FID, KID and IS differ in this step, and not by little. The protocols:

    =========== ==================================================== =================
    tf          TensorFlow 1 bilinear: output i at i H / h, no        (v - 128) / 128
                half-pixel shift, no antialiasing (IS, TTUR,
                torch-fidelity, StyleGAN); equal to the bit
    torch       bilinear with the half-pixel shift, no antialiasing   v / 127.5 - 1
                (pytorch-fid)
    clean       Pillow's bicubic of each channel in floats,           (v - 128) / 128
                antialiased, clipped to 0..255 (clean-fid); equal
                to the bit, the x axis taken first (Pillow 13 takes
                y first for tall images: one last bit apart)
    antialias   bilinear, half-pixel, antialiased (torchmetrics'      (v - 128) / 128
                default)
    =========== ==================================================== =================

    Equivalent to: ``(resized(images) - shift) / divisor``, one axis after the other, without the
    tensors in between. The bits are the same in every implementation and for any batch.

    Args:
        images: (N, 3, H, W) RGB or (N, 1, H, W) gray, uint8, any strides.
        size: height and width of the result.
        protocol: "tf", "torch", "clean" or "antialias".
        dtype: float32, bfloat16 or float16; computed in float32 and rounded once.
        memory_format: torch.channels_last or torch.contiguous_format, of the result.
        impl: "auto", "reference", "native" or "triton".

    Returns:
        (N, 3, h, w). Gray is repeated. Extra memory: a few rows. No derivatives: bytes have none.

    Raises:
        TypeError: images are no uint8 tensor; dtype is not one of those above.
        ValueError: images of another shape (alpha must be dropped or blended before), an unknown
            protocol or memory format, a size that is not positive.
        RuntimeError: impl cannot serve.

    Source: Parmar et al., CVPR 2022, arXiv 2104.11222; the code bases named above.

    Example:
        >>> ramp = torch.tensor([0, 10, 20, 30], dtype=torch.uint8).view(1, 1, 1, 4)
        >>> (resize_normalize(ramp, (1, 2)) * 128 + 128)[0, 0].tolist()
        [[0.0, 20.0]]
    """
    height, width = _check(images, size, protocol, dtype, memory_format)
    made, device = reference.PROTOCOLS[protocol], images.device
    find = make_taps if torch.compiler.is_compiling() else _kept_taps
    y_taps = find(protocol, images.shape[2], height, device)
    x_taps = find(protocol, images.shape[3], width, device)
    impl = _dispatch.choose("resize", impl, device, dtype)
    if impl == "reference":
        y = reference.resize(images, y_taps, x_taps, made.shift, made.divisor)
        return y.to(dtype).contiguous(memory_format=memory_format)
    found: Tensor = kernel("resize", impl)(
        images, *y_taps, *x_taps, made.shift, made.divisor, DTYPES[dtype],
        memory_format == torch.channels_last,
    )  # fmt: skip
    return found


def make_taps(protocol: str, size: int, out: int, device: torch.device) -> reference.Taps:
    return reference.PROTOCOLS[protocol].taps(size, out).to(device)


_kept_taps = functools.lru_cache(maxsize=64)(make_taps)


def _check(
    images: Tensor,
    size: int | tuple[int, int],
    protocol: str,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> tuple[int, int]:
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"resize: expected images as a uint8 tensor (0..255), got {got}")
    if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        alpha = images.dim() == 4 and images.shape[1] in (2, 4)
        raise ValueError(
            f"resize: expected images (N, 3, H, W) or (N, 1, H, W), got {tuple(images.shape)}"
            + (": drop the alpha channel, or blend it, before" if alpha else "")
        )
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(s, int) and 0 < s < MOST for s in sides):
        raise ValueError(f"resize: expected size as one or two positive ints, got {size!r}")
    if max(images.shape[2:]) >= MOST:
        raise ValueError(f"resize: expected sides below 2^24, got {tuple(images.shape)}")
    if protocol not in reference.PROTOCOLS:
        raise ValueError(f"resize: expected protocol as one of {RESIZES}, got {protocol!r}")
    if dtype not in DTYPES:
        raise TypeError(f"resize: expected float32, bfloat16 or float16 as dtype, got {dtype}")
    if memory_format not in (torch.channels_last, torch.contiguous_format):
        raise ValueError(
            f"resize: expected channels_last or contiguous_format, got {memory_format}"
        )
    return sides[0], sides[1]
