"""ADA: discriminator augmentation that does not leak, as one pass over each image."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _dispatch
from .._autograd import differentiable
from ..philox import seed_from
from . import reference
from .autograd import Ada
from .filters import add_noise, cut_out, filter_bands
from .fused import draw_at_once
from .parameters import draw, one_channel
from .policy import BLIT, COLOR, GEOM, AdaPolicy

__all__ = ["AdaPolicy", "ada_augment"]

MOST_SAMPLES = 2**56  # of offset: each has up to 32 numbers of a stream of 2^62
MOST_SIDE = 32768


def ada_augment(
    x: Tensor,
    policy: str | AdaPolicy = "ada-bgc",
    p: float | Tensor = 1.0,
    *,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    offset: int | None = None,
    out_dtype: torch.dtype | None = None,
    return_params: bool = False,
    impl: str = "auto",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""ADA's augmentation pipeline with parameters of its own for every sample.

    .. math:: y = m \odot \left(F * (C\, T(x)) + \sigma N\right)

    T: flip, quarter turn, whole shift, scale, rotation, stretch, rotation, shift; C: brightness,
    contrast, luma flip, hue, saturation as one matrix; F: four frequency bands; noise; m: cutout.
    A transform acts on a sample with probability weight * p (clamped to 1), so at p < 1 the
    generator can learn the images as they were.

    The image is continued by reflection without end. A sample that is only blitted is gathered
    exactly, one that no gate opens for is returned bit for bit; the others are upsampled by sym6,
    sampled bilinearly, and downsampled. The original code pads by reflection as far as the batch
    as a whole needs, at most once the image, and has zeros beyond: its results agree inside the
    image, and here a sample does not depend on the others in its batch.

    Args:
        x: (B, C, H, W), sides up to 32768, any strides; float64, float32, bfloat16, float16 in
            [-1, 1], computed in float32 or better and rounded once; or uint8, taken as
            x / 127.5 - 1. Policies with colour take C = 1 (channels averaged) or 3.
        policy: an `AdaPolicy` or the name of one: ada-blit, ada-geom, ada-color, ada-filter,
            ada-noise, ada-cutout, ada-bg, ada-bgc, ada-bgcf, ada-bgcfn, ada-bgcfnc.
        p: overall probability, at least 0; a number, or a tensor of no dimensions, which is not
            read by the host (and so not checked), and gets no gradient.
        generator: one seed is drawn from it (None: torch's global generator).
        seed: 64-bit key of the Philox streams, instead of a generator.
        offset: number of the first sample, default 0: sample i has the parameters of
            (seed, offset + i), whatever the batch. Needs seed.
        out_dtype: dtype of the result; default x's, float32 for uint8.
        return_params: also return what was drawn.
        impl: "auto", "reference", "native" or "triton"; see `ganops.use_impl`. Parameters are the
            same bits for all, and on every device.

    Returns:
        The augmented images, in x's (dense) strides, and with return_params a dict of tensors with
        a row per sample: angles in degrees (counter-clockwise), shifts in pixels (x, y), factors;
        `affine`, the (2, 3) map from output to source pixels about the centre; `color`, (3, 4).

    Derivatives: affine in x for the parameters drawn; of every order, in reverse and forward mode
    and under torch.func. The adjoint is deterministic on every device. Nothing flows to p.
    Memory kept for backward: a few dozen numbers a sample.

    Not finite numbers are not looked for: they spread to the pixels that the filters reach, with
    colour over the channels, never to another image.

    Raises:
        ValueError: a wrong shape or number of channels, a policy of no such name, p that is
            negative, not finite or not one number, offset without seed or out of range, both
            generator and seed.
        TypeError: x or out_dtype of another dtype, p, policy, seed, offset or generator of
            another type.
        RuntimeError: impl cannot serve; a seed would be drawn inside torch.compile.

    Source: Karras et al. 2020, arXiv 2006.06676, and its code.

    Example:
        >>> x = torch.zeros(2, 3, 8, 8)
        >>> torch.equal(ada_augment(x, p=0.0, seed=1), x)
        True
    """
    pipeline = _policy(policy)
    if not isinstance(x, Tensor) or (x.dtype not in _dispatch.FLOATING and x.dtype != torch.uint8):
        raise TypeError(
            "ada_augment: expected x as uint8 or a floating tensor, got "
            f"{x.dtype if isinstance(x, Tensor) else type(x).__name__}"
        )
    if x.layout != torch.strided:
        raise TypeError(f"ada_augment: expected a dense x, got layout {x.layout}")
    if x.dim() != 4 or not (1 <= x.shape[2] <= MOST_SIDE and 1 <= x.shape[3] <= MOST_SIDE):
        raise ValueError(
            f"ada_augment: expected x of shape (B, C, H, W), sides 1 to {MOST_SIDE}, got "
            f"{tuple(x.shape)}"
        )
    if pipeline.uses(COLOR) and x.shape[1] not in (1, 3):
        raise ValueError(
            f"ada_augment: expected 1 or 3 channels for colour, got {x.shape[1]}; ada-bg has none"
        )
    out_dtype = _out_dtype(x, out_dtype)
    p = _probability(p)
    if seed is None and offset is not None:
        raise ValueError(f"ada_augment: expected a seed with offset={offset}, got none")
    if seed is not None and generator is not None:
        raise ValueError("ada_augment: expected a generator or a seed, got both")
    offset = 0 if offset is None else offset
    if isinstance(offset, bool) or not isinstance(offset, int):
        raise TypeError(f"ada_augment: expected offset as an int, got {offset!r}")
    if not 0 <= offset <= MOST_SAMPLES:
        raise ValueError(f"ada_augment: expected 0 <= offset <= 2^56, got {offset!r}")
    if pipeline.noise > 0 and (offset + x.shape[0]) * x.shape[1:].numel() > 2**62:
        raise ValueError(
            "ada_augment: expected (offset + B) C H W of at most 2^62 with noise, got offset "
            f"{offset} for shape {tuple(x.shape)}"
        )
    if seed is None:
        seed = seed_from(generator)
    wide = torch.promote_types(out_dtype, torch.float32)
    impl = _dispatch.choose("ada", impl, x.device, wide if x.dtype == torch.uint8 else x.dtype)
    if x.dtype == torch.uint8:
        if not _reads_bytes(x, pipeline, wide, impl):
            x = x.to(wide) / 127.5 - 1.0
    elif out_dtype != x.dtype or pipeline.uses(("filter", "noise")):  # else each step rounds
        x = x.to(torch.promote_types(x.dtype, torch.float32))
    with torch.no_grad():
        given = (pipeline, p, tuple(x.shape), seed, offset, x.device, impl)
        drawn = draw_at_once(*given, name=return_params) if impl == "native" else draw(*given)
        maps, color = drawn.maps, drawn.color
        if color is not None:
            color = one_channel(color) if x.shape[1] == 1 else color
            color = color.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
            maps = _stay(x) if maps is None else maps
    if maps is not None:
        x = _apply(x, maps, color, impl)
    if drawn.gains is not None and drawn.filtered is not None:
        x = filter_bands(x, drawn.gains, drawn.filtered)
    if drawn.sigma is not None:
        x = add_noise(x, drawn.sigma, seed, offset, impl)
    if drawn.cutout is not None:
        x = cut_out(x, drawn.cutout, pipeline.cutout_size)
    y = x.to(out_dtype)
    return (y, drawn.named) if return_params else y


def _apply(x: Tensor, maps: Tensor, color: Tensor | None, impl: str) -> Tensor:
    if impl == "reference":
        return reference.ada(x, maps, color)
    if torch.compiler.is_compiling():
        y: Tensor = differentiable("ada", impl)(x, maps, color)
    else:
        y = Ada.apply(x, maps, color, impl)
    return y


def _reads_bytes(x: Tensor, pipeline: AdaPolicy, wide: torch.dtype, impl: str) -> bool:
    """Does the kernel map uint8 itself?"""
    native = impl == "native" and x.device.type == "cpu" and wide == torch.float32
    return native and x.is_contiguous() and pipeline.uses((*BLIT, *GEOM, *COLOR))


def _stay(x: Tensor) -> Tensor:
    """Maps of samples that stay where they are."""
    maps = torch.zeros(x.shape[0], 7, dtype=torch.int64, device=x.device)
    maps[:, 0] = maps[:, 4] = 1 << 32
    return maps


def _policy(policy: str | AdaPolicy) -> AdaPolicy:
    if isinstance(policy, AdaPolicy):
        return policy
    if not isinstance(policy, str):
        raise TypeError(f"ada_augment: expected policy as a name or AdaPolicy, got {policy!r}")
    return AdaPolicy.preset(policy)


def _out_dtype(x: Tensor, out_dtype: torch.dtype | None) -> torch.dtype:
    if out_dtype is None:
        return torch.float32 if x.dtype == torch.uint8 else x.dtype
    if out_dtype not in _dispatch.FLOATING:
        raise TypeError(f"ada_augment: expected a floating out_dtype, got {out_dtype}")
    return out_dtype


def _probability(p: float | Tensor) -> float | Tensor:
    if isinstance(p, Tensor):
        if p.dim() != 0 or not p.is_floating_point():
            raise ValueError(
                f"ada_augment: expected p as one floating number, got shape {tuple(p.shape)}, "
                f"{p.dtype}"
            )
        return p.detach().double()
    if isinstance(p, bool) or not isinstance(p, (int, float)):
        raise TypeError(f"ada_augment: expected p as a number or tensor, got {p!r}")
    if not 0 <= p < float("inf"):
        raise ValueError(f"ada_augment: expected p finite and at least 0, got {p}")
    return float(p)
