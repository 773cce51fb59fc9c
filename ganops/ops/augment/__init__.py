"""Random image transforms for consistency regularisation: [x ; T(x)] in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import _dispatch
from .._autograd import differentiable, kernel, transformed
from ..ada import AdaPolicy, ada_augment
from ..philox import _signed, seed_from
from . import reference
from .autograd import DTYPES, Augment, Spec
from .policy import MOST_PIXELS, PRESETS, AugmentPolicy, Plan, planned, resolve

__all__ = ["PRESETS", "AugmentPolicy", "augment", "consistency_pair"]

MOST_CHANNELS = 8


def consistency_pair(
    x: Tensor,
    policy: str | AugmentPolicy = "cr",
    *,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    offset: int | None = None,
    out_dtype: torch.dtype | None = None,
    return_params: bool = False,
    impl: str = "auto",
) -> Any:
    r"""[x ; T(x)]: a batch and a random transform of every image in it, in one pass over memory.

    What a discriminator is called on for CR: the first B images of the result are x, the last B
    T(x), with the random numbers of each sample its own. `augment` gives T(x) alone.

    .. math:: T(x) = \mathrm{cutout}(\mathrm{shift}(\mathrm{flip}(A x + M \bar x_c
        + (1 - k) \bar x + b)) + \sigma n)

    with brightness b, saturation s, contrast k, A = ks, M = k(1-s), and the means of x over
    channels and over the image; see `AugmentPolicy` for each transform and its strength.

    Args:
        x: (B, C, H, W), contiguous or channels_last (other strides are copied once); B >= 0,
            1 <= C <= 8, sides of any size up to 2^23. uint8, mapped to [-1, 1] by x / 127.5 - 1;
            or float64, float32, bfloat16 or float16, taken as it is.
        policy: an `AugmentPolicy`, "cr" (flip, then an integer shift of at most side // 8 per axis
            with reflect padding), "bcr" (the same), "diffaug", DiffAugment's own words, such as
            "translation,cutout" ("" is the identity), or "ada-bgc" and its like at p = 1, which
            are `ada_augment`: all that follows on parameters, derivatives and limits is said there.
        generator: where the seed of this call is drawn from; None for torch's global one.
        seed: 64-bit seed, instead of a generator.
        offset: number of the first sample, 0 <= offset < 2^62, default 0: sample i of the call uses
            the random numbers of (seed, offset + i). A batch in parts, or on several ranks, with
            offsets to match gives the images of one call.
        out_dtype: float32, bfloat16 or float16; float64 stays float64. Default: x's own, and
            float32 for uint8. All is computed in float32 and rounded once.
        return_params: also return what was drawn.
        impl: "auto", "reference", "native" or "triton"; see `ganops.use_impl`. All draw the same
            parameters, bit for bit.

    Returns:
        (2B, C, H, W) in x's memory format; with return_params, a pair of that and a dict with one
        row per sample: "flip" (B,) bool; "shift" (B, 2) pixels (y, x), out[h, w] = in[h + y,
        w + x]; "brightness" (B,) what was added; "saturation", "contrast" (B,) factors; "cutout"
        (B, 4) top, left, height and width in pixels, before clipping to the image; "noise" (B,)
        standard deviation. They have no gradient.

    Derivatives: T is affine in x for given random numbers, so of every order in reverse, in forward
    mode (once: nested forward mode raises) and under torch.func; deterministic. uint8 has none.

    Memory kept for backward: 44 bytes a sample. Scratch: a few rows.

    Not finite numbers are not looked for, which would cost a pass: NaN and infinity stay where they
    are moved to; with saturation they spread over the channels of their pixel, with contrast over
    their image, never to another image. Cutout and zero padding write zeros over anything.

    Raises:
        TypeError: x is not a uint8 or float tensor; out_dtype, policy, seed or offset of the wrong
            kind. ValueError: not 4 dimensions; no channel or more than 8; an unknown policy; a
            shift that reflect padding cannot serve; float64 to another dtype or back; both
            generator and seed; offset or seed out of range. RuntimeError: impl cannot serve; a seed
            drawn inside torch.compile (pass seed=).

    Source: Zhang et al. 2020 (CR-GAN); Zhao et al. 2021 (ICR-GAN); Zhao et al. 2020 (DiffAugment).

    Example:
        >>> x = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        >>> pair = consistency_pair(x, "cr", seed=0)
        >>> pair.shape, pair.dtype
        (torch.Size([8, 3, 32, 32]), torch.float32)
    """
    return _run("consistency_pair", x, policy, generator, seed, offset, out_dtype, return_params,
                impl, pair=True)  # fmt: skip


def augment(
    x: Tensor,
    policy: str | AugmentPolicy,
    *,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    offset: int | None = None,
    out_dtype: torch.dtype | None = None,
    return_params: bool = False,
    impl: str = "auto",
) -> Any:
    """T(x): a random transform of every image of a batch, in one pass over memory.

    Args:
        x, policy, generator, seed, offset, out_dtype, return_params, impl: as in
            `consistency_pair`; equal seeds and offsets give equal images.

    Returns:
        (B, C, H, W) in x's memory format; with return_params a pair with the dict described there.

    Derivatives, memory and what becomes of not finite numbers: as in `consistency_pair`.

    Raises:
        TypeError, ValueError, RuntimeError: as `consistency_pair` does.

    Source: as in `consistency_pair`.

    Example:
        >>> x = torch.arange(4.0).view(1, 1, 1, 4)
        >>> augment(x, AugmentPolicy(flip=1.0, shift=0.0), seed=0)
        tensor([[[[3., 2., 1., 0.]]]])
    """
    return _run("augment", x, policy, generator, seed, offset, out_dtype, return_params, impl,
                pair=False)  # fmt: skip


def _run(
    name: str, x: Tensor, policy: str | AugmentPolicy, generator: torch.Generator | None,
    seed: int | None, offset: int | None, out_dtype: torch.dtype | None, return_params: bool,
    impl: str, *, pair: bool,
) -> Any:  # fmt: skip
    out_dtype = _check(name, x, out_dtype)
    policy = resolve(policy)
    if seed is not None and generator is not None:
        raise ValueError(f"{name}: expected a generator or a seed, got both")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"{name}: expected generator as a torch.Generator, got {generator!r}")
    seed = seed_from(generator) if seed is None else _signed(seed, "seed")
    offset = _checked_offset(name, offset, x.shape[0])
    if policy.ada is not None:
        return _by_ada(x, policy.ada, policy.p, seed, offset, out_dtype, return_params, impl, pair)
    make_plan = AugmentPolicy.plan if torch.compiler.is_compiling() else planned
    plan = make_plan(policy, x.shape[2], x.shape[3])
    impl = _dispatch.choose("augment", impl, x.device, out_dtype)
    flags = _flags(policy, x.shape[1])
    if impl == "reference":
        params = reference.augment_params(x.shape[0], seed, offset, plan, x.device)
        y = reference.augment(x, params, seed, offset, flags, out_dtype, pair)
        return (y, _named(params)) if return_params else y
    params = _draw(impl, x, seed, offset, plan)
    if torch.compiler.is_compiling():
        y = differentiable("augment", impl)(
            x, params, seed, offset, flags, DTYPES.index(out_dtype), pair, False
        )
    elif x.dtype == torch.uint8 and not transformed():  # no gradient: a third of Python's time less
        y = kernel("augment", impl)(
            x, params, seed, offset, flags, DTYPES.index(out_dtype), pair, False
        )
    else:
        spec = Spec(impl, seed, offset, flags, x.dtype, out_dtype, pair)
        y = Augment.apply(x, params, spec)
    return (y, _named(params)) if return_params else y


def _by_ada(
    x: Tensor, policy: AdaPolicy | str, p: float, seed: int, offset: int, out_dtype: torch.dtype,
    return_params: bool, impl: str, pair: bool,
) -> Any:  # fmt: skip
    """By `ada_augment`; the originals of a pair are a copy beside it."""
    y, params = ada_augment(x, policy, p, seed=seed, offset=offset, out_dtype=out_dtype,
                            return_params=True, impl=impl)  # fmt: skip
    if pair:
        as_given = x.to(torch.float32) / 127.5 - 1 if x.dtype == torch.uint8 else x
        y = torch.cat([as_given.to(out_dtype), y])
    return (y, params) if return_params else y


def _draw(impl: str, x: Tensor, seed: int, offset: int, plan: Plan) -> Tensor:
    call = kernel("augment_params", impl)
    params: Tensor = call(x.detach(), x.shape[0], seed, offset, *plan)
    return params


def _flags(policy: AugmentPolicy, channels: int) -> int:
    """What the policy may do, for a kernel to leave out the rest."""
    return (
        reference.REFLECT * (policy.padding == "reflect")
        + reference.SUBPIXEL * (policy.subpixel and policy.shift > 0)
        + reference.SATURATION * (policy.saturation > 0 and channels > 1)
        + reference.CONTRAST * (policy.contrast > 0)
        + reference.NOISE * (policy.noise > 0)
    )


def _named(params: Tensor) -> dict[str, Tensor]:
    column = dict(zip(reference.COLUMNS, params.unbind(1), strict=True))
    return {
        "flip": column["flip"] > 0,
        "shift": params[:, 1:3],
        "brightness": column["brightness"],
        "saturation": column["saturation"],
        "contrast": column["contrast"],
        "cutout": params[:, 6:10],
        "noise": column["noise"],
    }


def _check(name: str, x: Tensor, out_dtype: torch.dtype | None) -> torch.dtype:
    """The dtype of the result."""
    if not isinstance(x, Tensor) or x.dtype not in (torch.uint8, *_dispatch.FLOATING):
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name}: expected x as a uint8 or float tensor, got {got}")
    if x.layout != torch.strided:
        raise TypeError(f"{name}: expected a dense x, got layout {x.layout}")
    if x.dim() != 4:
        raise ValueError(f"{name}: expected x of shape (B, C, H, W), got {tuple(x.shape)}")
    if not 1 <= x.shape[1] <= MOST_CHANNELS:
        raise ValueError(f"{name}: expected 1 to {MOST_CHANNELS} channels, got {x.shape[1]}")
    if max(x.shape[2:]) > MOST_PIXELS:
        raise ValueError(f"{name}: expected sides up to {MOST_PIXELS}, got {tuple(x.shape[2:])}")
    if out_dtype is None:
        return torch.float32 if x.dtype == torch.uint8 else x.dtype
    if out_dtype not in _dispatch.FLOATING:
        raise TypeError(f"{name}: expected out_dtype as a floating dtype, got {out_dtype}")
    if (out_dtype == torch.float64) != (x.dtype == torch.float64):
        raise ValueError(
            f"{name}: float64 images stay float64, and only they: got {x.dtype} to {out_dtype}"
        )
    return out_dtype


def _checked_offset(name: str, offset: int | None, samples: int) -> int:
    offset = 0 if offset is None else offset
    if isinstance(offset, bool) or not isinstance(offset, (int, torch.SymInt)):
        raise TypeError(f"{name}: expected offset as an int, got {offset!r}")
    if not 0 <= offset <= 2**62 - samples:
        raise ValueError(f"{name}: expected 0 <= offset and offset + B <= 2^62, got {offset}")
    return offset
