"""What ADA's pipeline does: which transforms, how often, how strong."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

BLIT = ("flip", "rotate90", "shift")
GEOM = ("scale", "rotate", "aniso", "translate")
COLOR = ("brightness", "contrast", "luma_flip", "hue", "saturation")
TRANSFORMS = (*BLIT, *GEOM, *COLOR, "filter", "noise", "cutout")

# The largest scale factors, 2^(5.77 * 0.8) each, keep source coordinates within 32 bits.
_LIMITS = {
    "shift_max": 8.0, "scale_std": 0.8, "rotate_max": 1.0, "aniso_std": 0.8, "translate_std": 8.0,
    "brightness_std": math.inf, "contrast_std": 8.0, "hue_max": 1.0, "saturation_std": 8.0,
    "filter_std": 8.0, "noise_std": math.inf, "cutout_size": 2.0,
}  # fmt: skip


@dataclass(frozen=True)
class AdaPolicy:
    """ADA's pipeline: a transform acts on a sample with probability weight * p, independently.

    Args:
        flip, rotate90, shift: weights of pixel blitting: horizontal flip (true half of the time),
            quarter turns (0 to 3, uniform), shift by whole pixels.
        scale, rotate, aniso, translate: weights of the geometric transforms: scale, rotation (once
            before and once after the next, so that either acts with probability weight * p),
            stretch, shift by fractions.
        brightness, contrast, luma_flip, hue, saturation: weights of the colour transforms.
        filter, noise, cutout: weights of the filter bank, additive noise and cutout.
        shift_max: shifts are uniform within this fraction of each side.
        scale_std, aniso_std: standard deviations of log2 of the factors, at most 0.8.
        rotate_max, hue_max: angles are uniform within this fraction of half a turn, at most 1.
        translate_std: standard deviation of the shift, as a fraction of each side.
        brightness_std: standard deviation of what is added.
        contrast_std, saturation_std, filter_std: standard deviations of log2 of the factors.
        filter_bands: a further weight of each of the four frequency bands, lowest first.
        noise_std: the noise's standard deviation is |N(0, noise_std^2)|.
        cutout_size: side of the box as a fraction of the image's.

    Returns:
        A frozen policy. `AdaPolicy()` does nothing; `AdaPolicy.preset(name)` knows the paper's:
        ada-blit, ada-geom, ada-color, ada-filter, ada-noise, ada-cutout, ada-bg, ada-bgc,
        ada-bgcf, ada-bgcfn, ada-bgcfnc.

    Raises:
        ValueError: a weight or strength that is negative, not finite or too large; no such preset
            or field.

    Source: Karras et al. 2020, arXiv 2006.06676, and its code.
    """

    flip: float = 0.0
    rotate90: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    aniso: float = 0.0
    translate: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    luma_flip: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    filter: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0
    shift_max: float = 0.125
    scale_std: float = 0.2
    rotate_max: float = 1.0
    aniso_std: float = 0.2
    translate_std: float = 0.125
    brightness_std: float = 0.2
    contrast_std: float = 0.5
    hue_max: float = 1.0
    saturation_std: float = 1.0
    filter_bands: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    filter_std: float = 1.0
    noise_std: float = 0.1
    cutout_size: float = 0.5

    def __post_init__(self) -> None:
        for name in TRANSFORMS:
            _check(name, getattr(self, name), math.inf)
        for name, most in _LIMITS.items():
            _check(name, getattr(self, name), most)
        bands = self.filter_bands
        if not isinstance(bands, (tuple, list)) or len(bands) != 4:
            raise ValueError(f"AdaPolicy: expected filter_bands as four weights, got {bands!r}")
        for band in bands:
            _check("each of filter_bands", band, math.inf)
        object.__setattr__(self, "filter_bands", tuple(bands))

    @classmethod
    def preset(cls, name: str) -> AdaPolicy:
        """The policy of that name: every weight of its groups is 1."""
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(f"AdaPolicy: expected one of {', '.join(PRESETS)}; got {name!r}")
        weights: dict[str, Any] = dict.fromkeys(PRESETS[name], 1.0)
        return cls(**weights)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AdaPolicy:
        """The inverse of `to_dict`; fields that are left out have their defaults."""
        if not isinstance(values, dict):
            raise TypeError(f"AdaPolicy: expected a mapping of fields, got {values!r}")
        unknown = sorted(str(key) for key in set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"AdaPolicy: expected its own fields, got {', '.join(unknown)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Numbers and one list of numbers, as JSON and YAML hold them."""
        return {**asdict(self), "filter_bands": list(self.filter_bands)}

    def uses(self, names: tuple[str, ...]) -> bool:
        """Can any of these transforms act?"""
        return any(getattr(self, name) > 0 for name in names)


def _check(name: str, value: object, most: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (0 <= value <= most and value < math.inf):  # type: ignore[operator]
        limit = "finite and at least 0" if most == math.inf else f"between 0 and {most:g}"
        raise ValueError(f"AdaPolicy: expected {name} as a number, {limit}; got {value!r}")


_BG = (*BLIT, *GEOM)
PRESETS: dict[str, tuple[str, ...]] = {
    "ada-blit": BLIT,
    "ada-geom": GEOM,
    "ada-color": COLOR,
    "ada-filter": ("filter",),
    "ada-noise": ("noise",),
    "ada-cutout": ("cutout",),
    "ada-bg": _BG,
    "ada-bgc": (*_BG, *COLOR),
    "ada-bgcf": (*_BG, *COLOR, "filter"),
    "ada-bgcfn": (*_BG, *COLOR, "filter", "noise"),
    "ada-bgcfnc": TRANSFORMS,
}
