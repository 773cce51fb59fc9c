"""upfirdn2d: insert zeros, filter, thin out, in one pass; and the resampling made of it."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _dispatch
from .._autograd import differentiable
from . import reference
from .arguments import (
    Pair,
    check_gain,
    check_images,
    factors_of,
    padding_beyond,
    padding_of,
    taps_of,
)
from .autograd import Spec, Upfirdn2d, no_filter_gradient
from .filters import setup_filter

__all__ = ["downsample2d", "filter2d", "setup_filter", "upfirdn2d", "upsample2d"]


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Pair = 1,
    down: Pair = 1,
    padding: Pair = 0,
    flip_filter: bool = False,
    gain: float = 1,
    *,
    impl: str = "auto",
) -> Tensor:
    r"""Inserts zeros, pads or crops, filters and thins out images, in one pass over memory.

    Along each axis, with K taps, u = up, d = down and p zeros put in front:

    .. math:: y[o] = g \sum_{k=0}^{K-1} f[K - 1 - k]\, z[o d + k - p], \qquad z[i u] = x[i],

    z being 0 elsewhere. The result has (n u + p_0 + p_1 - K) // d + 1 numbers where x has n. Taps
    that would meet an inserted zero are never read.

    Args:
        x: images (N, C, H, W), N and C may be 0. float64, float32, bfloat16 or float16; half types
            are computed in float32 and rounded once. Contiguous rows (slices too) and channels_last
            are read where they are, the rest is copied once.
        f: the filter on x's device, as `setup_filter` makes it: (K,) for both axes, or (rows,
            columns); None for the identity. A constant: see Derivatives.
        up: u, an int or (x, y), at least 1.
        down: d, an int or (x, y), at least 1.
        padding: of the image with its zeros: an int, (x, y) or (x0, x1, y0, y1). Negative crops.
        flip_filter: correlate with f as it is; by default it is reversed, a true convolution.
        gain: g; once, whether f has one dim or two.
        impl: "auto", "reference", "native" or "triton"; see `ganops.use_impl`.

    Returns:
        y (N, C, H', W') of x's dtype; channels_last if x is, else contiguous.

    Derivatives: of every order in x, in reverse mode, in forward mode and under torch.func; each is
    an upfirdn2d. Forward mode inside forward mode raises, and so does a filter that requires a
    gradient (impl="reference": both serve).
    Memory kept for backward: f. Scratch on the CPU: a few rows per thread. An f of two dims that is
    an outer product costs there what one dim would. On CUDA, separable filters too long for shared
    memory pass through one tensor in the computing dtype.
    Results do not depend on the number of threads.

    Raises:
        ValueError: x without four dims or without pixels, f without one or two dims or taps, or on
            another device, or requiring a gradient; up or down below 1, a padding of another
            length, a gain that is not finite, or a result without pixels. TypeError: x or f is not
            a floating tensor, or factors or padding are not integers. RuntimeError: impl cannot
            serve.

    Source: Karras et al. 2020 (StyleGAN2), whose op of this name it follows.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0]]]])
        >>> upfirdn2d(x, torch.tensor([1.0, 1.0]), up=(2, 1), padding=(1, 0, 1, 0))
        tensor([[[[1., 1., 2., 2.]]]])
    """
    check_images("upfirdn2d", x)
    taps = taps_of("upfirdn2d", x, f)
    check_gain("upfirdn2d", gain)
    ups, downs = factors_of("upfirdn2d", "up", up), factors_of("upfirdn2d", "down", down)
    x0, x1, y0, y1 = padding_of("upfirdn2d", padding)
    sizes = (x.shape[3] * ups[0] + x0 + x1, x.shape[2] * ups[1] + y0 + y1)
    out = tuple((n - k) // d + 1 for n, k, d in zip(sizes, taps, downs))
    if min(out) < 1:
        raise ValueError(
            f"upfirdn2d: expected at least as many padded pixels as taps, got {sizes[1]}x{sizes[0]}"
            f" pixels (rows x columns) for {taps[1]}x{taps[0]} taps"
        )
    impl = _dispatch.choose("upfirdn2d", impl, x.device, x.dtype)
    if f is None:
        f = torch.ones(1, device=x.device)
    if impl == "reference":
        padded = (x0, x1, y0, y1)
        return reference.upfirdn2d(x, f, ups, downs, padded, bool(flip_filter), float(gain))
    if f.requires_grad:
        raise no_filter_gradient()
    f = f.to(torch.float64 if x.dtype == torch.float64 else torch.float32).contiguous()
    spec = Spec(impl, ups, downs, (x0, y0), (out[0], out[1]), bool(flip_filter), float(gain))
    if torch.compiler.is_compiling():
        traced: Tensor = differentiable("upfirdn2d", impl)(x, f, *spec.arguments)
        return traced
    return Upfirdn2d.apply(x, f, spec)  # type: ignore[no-any-return]


def filter2d(
    x: Tensor, f: Tensor | None, padding: Pair = 0, flip_filter: bool = False, gain: float = 1,
    *, impl: str = "auto",
) -> Tensor:  # fmt: skip
    """Filters images with zeros around them; the result has their size, and padding on top.

    Args:
        x, f, flip_filter, gain, impl: as in `upfirdn2d`.
        padding: of the result, beyond what the filter takes: an int, (x, y) or (x0, x1, y0, y1).

    Returns:
        y (N, C, H + y0 + y1, W + x0 + x1). An even number of taps sees one more pixel in front.

    Raises:
        ValueError, TypeError, RuntimeError: as `upfirdn2d`.

    Source: Karras et al. 2020 (StyleGAN2), whose op of this name it follows.

    Example:
        >>> filter2d(torch.ones(1, 1, 1, 4), setup_filter([[1, 2, 1]]))
        tensor([[[[0.7500, 1.0000, 1.0000, 0.7500]]]])
    """
    check_images("filter2d", x)
    sides = [(k // 2, (k - 1) // 2) for k in taps_of("filter2d", x, f)]
    return upfirdn2d(
        x, f, 1, 1, padding_beyond("filter2d", padding, sides), flip_filter, gain, impl=impl
    )


def upsample2d(
    x: Tensor, f: Tensor | None, up: Pair = 2, padding: Pair = 0, flip_filter: bool = False,
    gain: float = 1, *, impl: str = "auto",
) -> Tensor:  # fmt: skip
    """Enlarges images by whole factors: zeros inserted and filtered away, brightness kept.

    Args:
        x, f, up, flip_filter, impl: as in `upfirdn2d`; up is 2 by default.
        padding: of the result, beyond what the filter takes: an int, (x, y) or (x0, x1, y0, y1).
        gain: as in `upfirdn2d`, on top of up_x up_y, which makes good for the zeros.

    Returns:
        y (N, C, H up_y + y0 + y1, W up_x + x0 + x1).

    Raises:
        ValueError, TypeError, RuntimeError: as `upfirdn2d`.

    Source: Karras et al. 2020 (StyleGAN2), whose op of this name it follows.

    Example:
        >>> upsample2d(torch.tensor([[[[1.0, 2.0]]]]), setup_filter([[1, 1]]), up=(2, 1))
        tensor([[[[1., 1., 2., 2.]]]])
    """
    check_images("upsample2d", x)
    check_gain("upsample2d", gain)
    factors, taps = factors_of("upsample2d", "up", up), taps_of("upsample2d", x, f)
    sides = [((k + u - 1) // 2, (k - u) // 2) for k, u in zip(taps, factors)]
    pads = padding_beyond("upsample2d", padding, sides)
    total = gain * factors[0] * factors[1]
    return upfirdn2d(x, f, factors, 1, pads, flip_filter, total, impl=impl)


def downsample2d(
    x: Tensor, f: Tensor | None, down: Pair = 2, padding: Pair = 0, flip_filter: bool = False,
    gain: float = 1, *, impl: str = "auto",
) -> Tensor:  # fmt: skip
    """Shrinks images by whole factors: filtered, then thinned out.

    Args:
        x, f, down, flip_filter, gain, impl: as in `upfirdn2d`; down is 2 by default.
        padding: of the input, beyond what the filter takes: an int, (x, y) or (x0, x1, y0, y1).

    Returns:
        y (N, C, (H + y0 + y1) // down_y, (W + x0 + x1) // down_x).

    Raises:
        ValueError, TypeError, RuntimeError: as `upfirdn2d`.

    Source: Karras et al. 2020 (StyleGAN2), whose op of this name it follows.

    Example:
        >>> downsample2d(torch.tensor([[[[1.0, 3.0]]]]), setup_filter([[1, 1]]), down=(2, 1))
        tensor([[[[2.]]]])
    """
    check_images("downsample2d", x)
    factors, taps = factors_of("downsample2d", "down", down), taps_of("downsample2d", x, f)
    sides = [((k - d + 1) // 2, (k - d) // 2) for k, d in zip(taps, factors)]
    pads = padding_beyond("downsample2d", padding, sides)
    return upfirdn2d(x, f, 1, factors, pads, flip_filter, gain, impl=impl)
