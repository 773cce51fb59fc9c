"""ADA's random numbers from one kernel, csrc/ada/ada_draw.h, instead of some 200 operations.

The same bits as `parameters.draw`, which is the specification.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
from torch import Tensor

from .._autograd import kernel
from ..philox import _signed
from .parameters import Drawn, draw
from .policy import BLIT, COLOR, GEOM, TRANSFORMS, AdaPolicy

# The plan: fields of AdaPolicy in the order of AdaPlan.
NUMBERS = (*TRANSFORMS, "shift_max", "scale_std", "rotate_max", "aniso_std", "translate_std",
           "brightness_std", "contrast_std", "hue_max", "saturation_std", "filter_bands",
           "filter_std", "noise_std")  # fmt: skip
# Columns of the table, as AdaColumn has them: name, how many.
COLUMNS = {
    "flip": 1, "rotate90": 1, "shift": 2, "scale": 1, "rotate_before": 1, "aniso": 1,
    "rotate_after": 1, "translate": 2, "affine": 6, "brightness": 1, "contrast": 1, "luma_flip": 1,
    "hue": 1, "saturation": 1, "color": 12, "filter": 4, "filtered": 1, "noise": 1, "cutout": 3,
    "cutout_center": 2,
}  # fmt: skip
STARTS = dict(zip(COLUMNS, itertools.accumulate((0, *COLUMNS.values())), strict=False))
TYPES = {"flip": torch.bool, "luma_flip": torch.bool, "cutout": torch.bool, "rotate90": torch.int64}
SHAPES = {"affine": (2, 3), "color": (3, 4)}


def plan(policy: AdaPolicy) -> Tensor:
    numbers: list[float] = []
    for name in NUMBERS:
        value = getattr(policy, name)
        numbers += value if isinstance(value, tuple) else (value,)
    return torch.tensor(numbers, dtype=torch.float64)


_planned = functools.lru_cache(64)(plan)


def draw_at_once(policy: AdaPolicy, p: float | Tensor, shape: tuple[int, ...], seed: int,
                 offset: int, device: torch.device, impl: str, *, name: bool) -> Drawn:  # fmt: skip
    """`parameters.draw`; `named` is left empty unless asked for."""
    if isinstance(p, Tensor):
        p = p.to(device)
    else:
        p = torch.full((), p, dtype=torch.float64, device=device)
    numbers = plan(policy) if torch.compiler.is_compiling() else _planned(policy)
    call = kernel("ada_params", impl)
    maps, table = call(p, numbers, shape[0], _signed(seed, "seed"), offset, *shape[2:])

    def columns(key: str) -> Tensor:
        at, count = STARTS[key], COLUMNS[key]
        found: Tensor = table.select(1, at) if count == 1 else table.narrow(1, at, count)
        return found.unflatten(1, SHAPES[key]) if key in SHAPES else found

    return Drawn(
        maps if policy.uses((*BLIT, *GEOM, *COLOR)) else None,
        columns("color") if policy.uses(COLOR) else None,
        columns("filter") if policy.filter > 0 else None,
        columns("filtered") > 0 if policy.filter > 0 else None,
        columns("noise") if policy.noise > 0 else None,
        columns("cutout") if policy.cutout > 0 else None,
        {key: _named(key, columns(key)) for key in COLUMNS if name and _acts(key, policy)},
    )


def _acts(key: str, policy: AdaPolicy) -> bool:
    groups: dict[str, tuple[str, ...]] = {
        "affine": (*BLIT, *GEOM), "color": COLOR, "rotate_before": ("rotate",),
        "rotate_after": ("rotate",), "cutout_center": ("cutout",), "filtered": (),
    }  # fmt: skip
    return policy.uses(groups.get(key, (key,)))


def _named(key: str, value: Tensor) -> Tensor:
    value = value[:, 2] if key == "cutout" else value
    return value.to(TYPES[key]) if key in TYPES else value


def ada_params(
    p: Tensor, numbers: Tensor, n: int, seed: int, offset: int, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """The kernel's twin for Triton: plain torch about Triton's Philox."""
    values: list[float] = numbers.tolist()
    fields: dict[str, Any] = {}
    for key in NUMBERS:
        count = 4 if key == "filter_bands" else 1
        fields[key] = tuple(values[:count]) if count > 1 else values[0]
        values = values[count:]
    drawn = draw(AdaPolicy(**fields), p, (n, 3, height, width), seed, offset, p.device, "triton")
    maps = drawn.maps
    if maps is None:
        maps = torch.zeros(n, 7, dtype=torch.int64, device=p.device)
        maps[:, 0] = maps[:, 4] = 1 << 32
    eye = {key: torch.eye(*shape, dtype=torch.float64) for key, shape in SHAPES.items()}
    parts = []
    for key, count in COLUMNS.items():
        value = {"filtered": drawn.filtered, "cutout": drawn.cutout}.get(key, drawn.named.get(key))
        if value is None:
            value = eye.get(key, torch.zeros(count)).to(p).expand(n, *SHAPES.get(key, (count,)))
        parts.append(value.reshape(n, count).double())
    return maps, torch.cat(parts, 1)


def fake_params(
    p: Tensor, numbers: Tensor, n: int, seed: int, offset: int, height: int, width: int
) -> tuple[Tensor, Tensor]:
    return p.new_empty((n, 7), dtype=torch.int64), p.new_empty((n, sum(COLUMNS.values())))
