"""Random projections: K fixed low-dimensional views of a batch, made by one convolution.

Composed of torch's convolutions, which are at the limit, without a kernel of its own. What is won
is around them. On the CPU a batch goes through as one volume, its samples the depth, and so comes
out with the discriminators first and each one's view contiguous, without a copy. The gradient to
the image is the dense convolution of conv/sub_pixel.py, on that same volume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ._arguments import pair, shown
from ._autograd import quick, refuse_nested_forward
from ._twins import Like, autocast_casts, serves
from .conv import sub_pixel

__all__ = ["random_projection"]

aten = torch.ops.aten
_OP = "random_projection"
_Pair = int | Sequence[int]


def random_projection(x: Tensor, filters: Tensor, *, stride: _Pair, padding: _Pair) -> Tensor:
    r"""All K random views of a batch, one contiguous block for each discriminator.

    .. math:: y_{kbc} = W_{kc} * x_b, \quad
        \partial L / \partial x_b = \sum_k \sum_c W_{kc}^{\top} * \partial L / \partial y_{kbc}

    a convolution as torch means it, zeros around the image, for all K at once: x is read once, and
    the gradients of all K discriminators are summed as they come back.

    Args:
        x: (B, Cin, H, W), any memory format; float64, float32, bfloat16 or float16. Under autocast
            x and filters are cast as torch's convolution casts them.
        filters: (K, C, Cin, kh, kw) of x's dtype and device, as from `random_filters`. They are not
            trained: filters that require grad raise.
        stride: >= 1, padding: >= 0; one number each or (vertical, horizontal), the same for all K.
            Kernel and image need not be multiples of the stride.

    Returns:
        (K, B, C, H', W'), contiguous, with H' = (H + 2 p - kh) // s + 1.

    Derivatives: linear in x, so of any order, in reverse and forward mode and under torch.func;
    second derivatives are 0 and cost nothing. Forward mode inside forward mode raises. Inside
    torch.compile and for tensor subclasses all is torch's own convolution and a copy.
    Memory kept for backward: none besides the filters.

    Raises:
        ValueError: shapes that do not fit, a padded image smaller than the filters, K = 0, filters
            that require grad, a stride or padding for each discriminator (the views of one call
            have one shape; call once for each geometry). TypeError: x or filters no float tensors,
            or of different dtypes; a number no integer.

    Source: Neyshabur et al. 2017, arXiv 1705.07831; card random_projection_gan.

    Example:
        >>> w = torch.ones(48, 1, 3, 8, 8)
        >>> random_projection(torch.ones(2, 3, 64, 64), w, stride=2, padding=3).shape
        torch.Size([48, 2, 1, 32, 32])
    """
    _check(x, filters)
    steps = pair(_OP, "stride", stride, 1)
    around = pair(_OP, "padding", padding, 0)
    for name, side, k, p in zip(("height", "width"), x.shape[2:], filters.shape[3:], around):
        if side + 2 * p < k:
            raise ValueError(
                f"{_OP}: expected an image no smaller than the filters, got {name} {side} with "
                f"padding {p} for filters of {k}"
            )
    if not serves(x, filters):
        return _Geometry(steps, around).by_plane(x, filters)
    if autocast_casts(x):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, filters = (t if t.dtype == torch.float64 else t.to(dtype) for t in (x, filters))
    y: Tensor = _Project.apply(x, filters, _Geometry(steps, around))
    return y


def _check(x: Tensor, filters: Tensor) -> None:
    for name, t in (("x", x), ("filters", filters)):
        if not isinstance(t, Tensor) or not t.is_floating_point():
            listed = name == "filters" and isinstance(t, (list, tuple))
            more = "; filters of different shapes give views of different shapes" if listed else ""
            raise TypeError(f"{_OP}: expected {name} as one float tensor, got {shown(t)}{more}")
    if x.dim() != 4:
        raise ValueError(f"{_OP}: expected x of shape (B, Cin, H, W), got {tuple(x.shape)}")
    if filters.dim() != 5 or 0 in filters.shape:
        raise ValueError(
            f"{_OP}: expected filters of shape (K, C, Cin, kh, kw), K at least 1, got "
            f"{tuple(filters.shape)}"
        )
    if x.shape[1] != filters.shape[2]:
        raise ValueError(
            f"{_OP}: expected x with the filters' {filters.shape[2]} channels, got {x.shape[1]}"
        )
    if (x.dtype, x.device) != (filters.dtype, filters.device) and not _cast_alike(x, filters):
        raise TypeError(
            f"{_OP}: expected x and filters of one dtype and device, got {x.dtype} on {x.device} "
            f"and {filters.dtype} on {filters.device}"
        )
    if filters.requires_grad:
        raise _trained()


def _cast_alike(x: Tensor, filters: Tensor) -> bool:
    wide = torch.float64 in (x.dtype, filters.dtype)
    return x.device == filters.device and autocast_casts(x) and not wide


def _trained() -> ValueError:
    return ValueError(
        f"{_OP}: expected filters that do not require grad: discriminators stay beatable because "
        "their views are fixed, and no gradient to the filters is computed; pass filters.detach(), "
        "or use conv2d to train them"
    )


@dataclass(frozen=True)
class _Geometry:
    """What is not a tensor, and the ways to compute (one leaf to pytrees, for torch.func)."""

    stride: tuple[int, int]
    padding: tuple[int, int]

    def project(self, x: Tensor, filters: Tensor) -> Tensor:
        if not _by_volume(x, filters):
            return self.by_plane(x, filters)
        y = _volume(x.transpose(0, 1), filters.flatten(0, 1), self.stride, self.padding)
        # (K, C, B, H', W') -> (K, B, C, H', W'): with one channel nothing moves.
        return y.unflatten(0, filters.shape[:2]).transpose(1, 2).contiguous()

    def by_plane(self, x: Tensor, filters: Tensor) -> Tensor:
        w = filters.flatten(0, 1)
        y = aten.convolution(x, w, None, self.stride, self.padding, (1, 1), False, (0, 0), 1)
        return y.unflatten(1, filters.shape[:2]).movedim(1, 0).contiguous()

    def back(self, dy: Tensor, filters: Tensor, like: Like) -> Tensor:
        """The gradient to x."""
        w = filters.flatten(0, 1)
        k, batch, channels, *sides = dy.shape  # views below: autograd's own batching knows these
        quick = sub_pixel.serves(w, self.stride, (1, 1), False, 1)
        if quick and _by_volume(dy[0], filters):
            kernel = sub_pixel.phases(w, self.stride)
            around = tuple(n - 1 for n in kernel.shape[2:])
            samples = dy.transpose(1, 2).reshape(k * channels, batch, *sides)
            z = _volume(samples, kernel, (1, 1), around)
            z = z.view(*self.stride, w.shape[1], *z.shape[1:]).permute(3, 0, 1, 2, 4, 5)
            return sub_pixel.interleave(z, like, self.stride, self.padding)
        planes = dy.transpose(0, 1).reshape(batch, k * channels, *sides)
        if quick:
            return sub_pixel.input_gradient(planes, w, like, self.stride, self.padding)
        mask = [True, False, False]
        dx: Tensor = aten.convolution_backward(
            planes, like.empty(), w, None, self.stride, self.padding, (1, 1), False, (0, 0), 1, mask
        )[0]
        return dx


def _by_volume(samples: Tensor, w: Tensor) -> bool:
    """A question to oneDNN, for which it was measured; it knows no empty batch."""
    known = w.device.type == "cpu" and w.dtype in (torch.float32, torch.bfloat16)
    return known and torch.backends.mkldnn.is_available() and math.prod(samples.shape) > 0


def _volume(x: Tensor, w: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
    """(Cin, B, H, W) -> (Cout, B, H', W'), each sample by the same w, (Cout, Cin, kh, kw).

    ATen's, not F.conv3d: autocast must not reach into a backward.
    """
    sizes = ((1, *stride), (0, *padding), (1, 1, 1), False, (0, 0, 0), 1)
    y: Tensor = aten.convolution(x.unsqueeze(0), w.unsqueeze(2), None, *sizes)
    return y.squeeze(0)


@quick
class _Project(Function):
    """y from x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, filters: Tensor, how: _Geometry) -> Tensor:
        return how.project(x, filters)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, filters, ctx.how = inputs
        _keep(ctx, filters)
        ctx.like = Like.of(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Any, ...]:
        if dy is None:
            return None, None, None
        return _Back.apply(dy, *ctx.saved_tensors, ctx.like, ctx.how), None, None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor | None, filters_t: Tensor | None, _: None) -> Tensor | None:
        _one_tangent(filters_t)
        return None if x_t is None else _Project.apply(x_t, *ctx.saved_tensors, ctx.how)


@quick
class _Back(Function):
    """The gradient to x from dy: the transpose of `_Project`, and so its own derivative's one."""

    generate_vmap_rule = True

    @staticmethod
    def forward(dy: Tensor, filters: Tensor, like: Like, how: _Geometry) -> Tensor:
        return how.back(dy, filters, like)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, filters, ctx.like, ctx.how = inputs
        _keep(ctx, filters)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Any, ...]:
        if v is None:
            return None, None, None, None
        return _Project.apply(v, *ctx.saved_tensors, ctx.how), None, None, None

    @staticmethod
    def jvp(ctx: Any, dy_t: Tensor | None, filters_t: Tensor | None, *_: Any) -> Tensor | None:
        _one_tangent(filters_t)
        return None if dy_t is None else _Back.apply(dy_t, *ctx.saved_tensors, ctx.like, ctx.how)


def _keep(ctx: Any, filters: Tensor) -> None:
    if ctx.needs_input_grad[1]:
        raise _trained()
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(filters)
    ctx.save_for_forward(filters)


def _one_tangent(filters_t: Tensor | None) -> None:
    refuse_nested_forward(_OP, "compose it of torch's convolution")
    if filters_t is not None:
        raise _trained()
