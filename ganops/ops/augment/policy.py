"""What a random image transform does: its probabilities and strengths, as one frozen value."""

from __future__ import annotations

import dataclasses
import functools
import math
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..ada.policy import PRESETS as ADA_PRESETS
from ..ada.policy import AdaPolicy

PADDINGS = ("reflect", "zero")
MOST_PIXELS = 1 << 23  # of a side or a shift: they are counted in float32
_UNIT = 1 << 24  # probabilities are compared with 24 random bits
_MOST = {"flip": 1.0, "cutout": 1.0, "saturation": 1.0, "contrast": 1.0, "p": 1.0}


class Plan(NamedTuple):
    """A policy for images of one size, as the kernels take it: whole numbers, then float32 ones."""

    height: int
    width: int
    flip: int  # of 2^24
    gate: int  # of 2^24
    shift_y: int
    shift_x: int
    cut_y: int
    cut_x: int
    sub_y: float
    sub_x: float
    brightness: float
    saturation: float
    contrast: float
    noise: float


@dataclass(frozen=True)
class AugmentPolicy:
    r"""A random transform T of an image, drawn anew for every sample.

    T applies, in this order: brightness, saturation, contrast, flip, shift, noise, cutout. With u
    uniform in [0, 1), and independently for every sample and transform:

    Args:
        flip: probability of a horizontal flip, 0 ... 1 (times `p`).
        shift: largest shift as a fraction of the side. Whole pixels t_y, t_x are uniform in
            {-s, ..., s}, s = int(side * shift) of either axis; out[h, w] = in[h + t_y, w + t_x].
        padding: what is beyond the border: "reflect" (the border pixel itself is not repeated;
            s must be below the side) or "zero".
        subpixel: shifts are uniform in [-side * shift, side * shift), read bilinearly.
        cutout: side of the box set to zero, as a fraction 0 ... 1 of the image's: int(side * cutout
            + .5) rows and columns. With c of them, the first is o - c // 2, o uniform in
            {0, ..., side - c % 2}: it may lie partly outside.
        brightness: at least 0; adds a number uniform in [-brightness, brightness).
        saturation: 0 ... 1; scales the distance to the mean over channels by a factor uniform in
            [1 - saturation, 1 + saturation). The identity for one channel.
        contrast: 0 ... 1; the same for the distance to the mean of the whole image.
        noise: at least 0; standard deviation of normal noise added to every element.
        ada: an `AdaPolicy`, or the name of one: ADA's transforms instead of all of the above, at
            probability `p`. The other fields keep their defaults then.
        p: probability 0 ... 1 of each transform, one draw for each; a sample that is not drawn is
            left alone by that transform. A flip happens with probability flip * p.
        round_shift: s = int(side * shift + .5), as DiffAugment rounds it.

    Returns:
        A frozen, hashable value. Strengths are in the units of images in [-1, 1].

    Raises:
        ValueError: a number out of its range, an unknown padding, ada with other transforms or of
            no such name. TypeError: not a number.

    Source: Zhang et al. 2020 (CR-GAN, arXiv 1910.12027); Zhao et al. 2020 (DiffAugment, arXiv
        2006.10738).

    Example:
        >>> AugmentPolicy(flip=0.0, padding="zero").to_dict()["padding"]
        'zero'
    """

    flip: float = 0.5
    shift: float = 0.125
    padding: str = "reflect"
    subpixel: bool = False
    cutout: float = 0.0
    brightness: float = 0.0
    saturation: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    ada: AdaPolicy | str | None = None
    p: float = 1.0
    round_shift: bool = False

    def __post_init__(self) -> None:
        if self.padding not in PADDINGS:
            raise ValueError(
                f"AugmentPolicy: expected padding as one of {', '.join(PADDINGS)}; "
                f"got {self.padding!r}"
            )
        for name in ("subpixel", "round_shift"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(
                    f"AugmentPolicy: expected {name} as a bool, got {getattr(self, name)!r}"
                )
        for name in _NUMBERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"AugmentPolicy: expected {name} as a number, got {value!r}")
            most = _MOST.get(name, math.inf)
            if not (math.isfinite(value) and 0 <= value <= most):
                wanted = "a finite number >= 0" if most == math.inf else "within 0 ... 1"
                raise ValueError(f"AugmentPolicy: expected {name} as {wanted}, got {value}")

        if isinstance(self.ada, str):
            object.__setattr__(self, "ada", AdaPolicy.preset(self.ada))
        if self.ada is None:
            return
        if not isinstance(self.ada, AdaPolicy):
            raise TypeError(f"AugmentPolicy: expected ada as an AdaPolicy, got {self.ada!r}")
        fields = [f for f in dataclasses.fields(self) if f.name not in ("ada", "p")]
        changed = [f.name for f in fields if getattr(self, f.name) != f.default]
        if changed:
            raise ValueError(
                f"AugmentPolicy: expected ada alone, got {', '.join(changed)} as well; ADA has "
                "transforms of its own"
            )

    def replace(self, **changes: Any) -> AugmentPolicy:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Field names and plain values, as JSON and YAML hold them."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if isinstance(self.ada, AdaPolicy):
            found["ada"] = self.ada.to_dict()
        return found

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AugmentPolicy:
        """The inverse of `to_dict`; missing fields take their defaults."""
        if not isinstance(values, dict):
            raise TypeError(f"AugmentPolicy: expected a mapping of fields, got {values!r}")
        known = [f.name for f in dataclasses.fields(cls)]
        unknown = sorted(str(key) for key in set(values) - set(known))
        if unknown:
            raise ValueError(
                f"AugmentPolicy: expected fields among {', '.join(known)}; got {', '.join(unknown)}"
            )
        ada = values.get("ada")
        return cls(**{**values, "ada": AdaPolicy.from_dict(ada) if isinstance(ada, dict) else ada})

    def to_yaml(self) -> str:
        """YAML text; needs pyyaml."""
        return str(_yaml("writing").safe_dump(self.to_dict(), sort_keys=False))

    @classmethod
    def from_yaml(cls, text: str) -> AugmentPolicy:
        """The inverse of `to_yaml`; needs pyyaml."""
        return cls.from_dict(_yaml("reading").safe_load(text))

    def plan(self, height: int, width: int) -> Plan:
        """This policy for images of one size.

        Raises:
            ValueError: a reflected shift that can reach beyond the other border, or any of more
                than 2^23 pixels.
        """
        if max(height, width) * self.shift > MOST_PIXELS:
            raise ValueError(
                f"augment: expected a shift of at most {MOST_PIXELS} pixels, got {self.shift} of "
                f"{(height, width)}"
            )
        halves = [0.5 if self.round_shift else 0.0] * (not self.subpixel)
        shifts = [int(side * self.shift + h) for side in (height, width) for h in halves] or [0, 0]
        subs = [side * self.shift if self.subpixel else 0.0 for side in (height, width)]
        for side, whole, sub in zip((height, width), shifts, subs):
            most = max(whole, math.ceil(sub))
            if self.padding == "reflect" and most >= max(side, 1):
                raise ValueError(
                    f"augment: expected a shift below the side for reflect padding, got up to "
                    f"{most} pixels of {side}; use a smaller shift or padding='zero'"
                )
        flip, gate = (round(q * _UNIT) for q in (self.flip * self.p, self.p))
        cuts = [int(side * self.cutout + 0.5) for side in (height, width)]
        floats = (*subs, self.brightness, self.saturation, self.contrast, self.noise)
        return Plan(height, width, flip, gate, *shifts, *cuts, *map(_float32, floats))


@functools.lru_cache(maxsize=256)
def planned(policy: AugmentPolicy, height: int, width: int) -> Plan:
    """`policy.plan`, remembered: it takes as long as drawing the numbers."""
    return policy.plan(height, width)


_NUMBERS = [f.name for f in dataclasses.fields(AugmentPolicy) if f.type == "float"]

# DiffAugment's parts: r - .5, 2 r and r + .5 for r uniform in [0, 1); eighths; halves.
_PARTS: dict[str, dict[str, Any]] = {
    "color": {"brightness": 0.5, "saturation": 1.0, "contrast": 0.5},
    "translation": {"shift": 0.125, "padding": "zero", "round_shift": True},
    "cutout": {"cutout": 0.5},
}
PRESETS = {
    "cr": AugmentPolicy(),
    "bcr": AugmentPolicy(),
    "diffaug": AugmentPolicy(
        flip=0.0, **_PARTS["color"], **_PARTS["translation"], **_PARTS["cutout"]
    ),
}


def resolve(policy: str | AugmentPolicy) -> AugmentPolicy:
    """A policy by value, by preset name, or by DiffAugment's words ("color,translation,cutout").

    Raises:
        ValueError: no such preset or word, or words in another order than T applies them.
        TypeError: neither a string nor an AugmentPolicy.
    """
    if isinstance(policy, AugmentPolicy):
        return policy
    if not isinstance(policy, str):
        raise TypeError(f"augment: expected policy as a name or an AugmentPolicy, got {policy!r}")
    if policy in PRESETS:
        return PRESETS[policy]
    if policy in ADA_PRESETS:
        return AugmentPolicy(ada=policy)
    words = policy.split(",") if policy else []
    if any(word not in _PARTS for word in words):
        raise ValueError(
            f"augment: expected policy as one of {', '.join((*PRESETS, *ADA_PRESETS))}, or words "
            f"among {', '.join(_PARTS)} joined by commas; got {policy!r}"
        )
    if words != [word for word in _PARTS if word in words]:
        raise ValueError(
            f"augment: expected policy words once each, in the order {', '.join(_PARTS)} in which "
            f"they are applied; got {policy!r}"
        )
    fields: dict[str, Any] = {"flip": 0.0, "shift": 0.0}
    for word in words:
        fields.update(_PARTS[word])
    return AugmentPolicy(**fields)


def _float32(value: float) -> float:
    """As the kernels hold it, so that every implementation starts from one number."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        raise ValueError(f"augment: expected a strength that float32 holds, got {value}") from None


def _yaml(doing: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ImportError(f"{doing} a policy as YAML needs pyyaml: pip install pyyaml") from None
    return yaml
