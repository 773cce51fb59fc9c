"""ADA's random numbers, defined in one place for every implementation, and the maps they make.

Everything is a few dozen numbers a sample, in plain torch on the image's device: no number is read
by the host, so p may live there. Steps are elementwise and exactly rounded (no library sin or exp2,
no matrix product), so the bits are the same on every device. Sample i of a call has the numbers of
(seed, offset + i), each parameter its own place among them, whether it acts or not. The native
implementations draw them in one kernel, fused.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..philox import random_bits, random_normal
from ..philox.reference import cos_sin_turns, sqrt_exact, uniform_from_bits
from .policy import BLIT, COLOR, GEOM, AdaPolicy

BITS, NORMALS, NOISE = 0xADA0, 0xADA1, 0xADA2  # Philox streams
SLOTS, NORMAL_SLOTS = 32, 12  # numbers of one sample in the first two
# Uniform numbers. A gate's place is followed by those of its transform.
SLOT = {
    "flip": 0, "rotate90": 2, "shift": 4, "scale": 7, "rotate_before": 8, "aniso": 10,
    "rotate_after": 11, "translate": 13, "brightness": 14, "contrast": 15, "luma_flip": 16,
    "hue": 18, "saturation": 20, "filter": 21, "noise": 25, "cutout": 26,
}  # fmt: skip
NORMAL = {"scale": 0, "aniso": 1, "translate": 2, "brightness": 4, "contrast": 5, "saturation": 6,
          "filter": 7, "noise": 11}  # fmt: skip
FRACTION = 32  # bits of a source coordinate below one pixel
LN2 = 0.6931471805599453
THIRD = 1.0 / 3.0
# Expected power of each frequency band of images, 1/f.
POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)


class Drawn(NamedTuple):
    """What the image operations need; None where the policy has no such transform."""

    maps: Tensor | None  # (B, 7) int64: source coordinates as in csrc/ada/ada_math.h
    color: Tensor | None  # (B, 3, 4) float64
    gains: Tensor | None  # (B, 4) float64
    filtered: Tensor | None  # (B,) bool: does any band's gate act?
    sigma: Tensor | None  # (B,) float64
    cutout: Tensor | None  # (B, 3) float64: centre as fractions, and 1 where it acts
    named: dict[str, Tensor]


def exp2_exact(x: Tensor) -> Tensor:
    """2^x of float64, |x| < 1000, by exactly rounded steps: Taylor about the nearest integer."""
    whole = torch.round(x)
    r = (x - whole) * LN2
    y = torch.ones_like(r)
    for k in range(14, 0, -1):
        y = y * r
        y = y / k
        y = y + 1.0
    return y * ((whole.to(torch.int64) + 1023) << 52).view(torch.float64)


class Affine(NamedTuple):
    """(x, y) -> (a x + b y + e, c x + d y + f)."""

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor
    e: Tensor
    f: Tensor

    def after(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Affine:
        """self o (a linear map)."""
        return Affine(self.a * a + self.b * c, self.a * b + self.b * d,
                      self.c * a + self.d * c, self.c * b + self.d * d, self.e, self.f)  # fmt: skip

    def shifted(self, x: Tensor, y: Tensor) -> Affine:
        """self o (a shift)."""
        return self._replace(e=self.a * x + self.b * y + self.e, f=self.c * x + self.d * y + self.f)


class _Draws:
    """The numbers of a batch, and whose gate is open."""

    def __init__(self, policy: AdaPolicy, p: float | Tensor, n: int, seed: int, offset: int,
                 device: torch.device, impl: str) -> None:  # fmt: skip
        self.policy, self.p = policy, p
        self.bits = random_bits(
            (n, SLOTS), seed=seed, offset=offset * SLOTS, stream=BITS, device=device, impl=impl
        )
        self.uniform = uniform_from_bits(self.bits).double()
        self.normal = random_normal(
            (n, NORMAL_SLOTS), seed=seed, offset=offset * NORMAL_SLOTS, stream=NORMALS,
            device=device, impl=impl,
        ).double()  # fmt: skip
        self.zero = torch.zeros_like(self.uniform[:, 0])
        self.one = torch.ones_like(self.zero)

    def open(self, name: str, weight: float | None = None, skip: int = 0) -> Tensor:
        """(B,) bool: with probability weight * p."""
        w = getattr(self.policy, name) if weight is None else weight
        return self.uniform[:, SLOT[name] + skip] < w * self.p

    def open_rotation(self, name: str) -> Tensor:
        """With probability 1 - sqrt(1 - w p): 1 - u > sqrt(.), so that two make w p."""
        left = 1.0 - self.policy.rotate * self.p
        keep = left.clamp(min=0.0).double() if isinstance(left, Tensor) else max(left, 0.0)
        rest = 1.0 - self.uniform[:, SLOT[name]]
        return (rest * rest) > keep

    def factor(self, name: str, std: float, gate: Tensor) -> Tensor:
        """2^N(0, std^2), 1 where the gate is shut."""
        return exp2_exact(torch.where(gate, self.normal[:, NORMAL[name]] * std, self.zero))

    def turn(self, slot: int, most: float, gate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """cos, sin and degrees of an angle uniform in +-most half turns; 0 where shut."""
        v = (self.bits[:, slot] >> 8) - (1 << 23)
        if most != 1.0:
            v = torch.round(v.float() * most).to(torch.int64)
        v = torch.where(gate, v, 0)
        cos, sin = cos_sin_turns((v & 0xFFFFFF) << 8)
        return cos.double(), sin.double(), v.double() * (360.0 * 2.0**-24)


def draw(policy: AdaPolicy, p: float | Tensor, shape: tuple[int, ...], seed: int, offset: int,
         device: torch.device, impl: str) -> Drawn:  # fmt: skip
    """The parameters of a batch of images of this shape."""
    n, _, height, width = shape
    d = _Draws(policy, p, n, seed, offset, device, impl)
    named: dict[str, Tensor] = {}
    maps = _geometry(d, height, width, named) if policy.uses((*BLIT, *GEOM)) else None
    color = _color(d, named) if policy.uses(COLOR) else None
    gains, filtered = _bands(d, named) if policy.filter > 0 else (None, None)
    sigma = cutout = None
    if policy.noise > 0:
        sigma = (d.normal[:, NORMAL["noise"]] * policy.noise_std).abs() * d.open("noise")
        named["noise"] = sigma
    if policy.cutout > 0:
        at = SLOT["cutout"]
        gate = d.open("cutout")
        cutout = torch.stack((d.uniform[:, at + 1], d.uniform[:, at + 2], gate.double()), 1)
        named["cutout"] = gate
        named["cutout_center"] = torch.stack((cutout[:, 0] * width, cutout[:, 1] * height), 1)
    return Drawn(maps, color, gains, filtered, sigma, cutout, named)


def _geometry(d: _Draws, height: int, width: int, named: dict[str, Tensor]) -> Tensor:
    """The map from output to source pixels about the centre, G_inv, then as (B, 7) integers."""
    policy, zero, one = d.policy, d.zero, d.one
    g = Affine(one, zero, zero, one, zero, zero)
    resample = torch.zeros_like(zero, dtype=torch.bool)
    if policy.flip > 0:
        named["flip"] = d.open("flip") & (d.uniform[:, 1] >= 0.5)
        g = g.after(torch.where(named["flip"], -1.0, one), zero, zero, one)
    if policy.rotate90 > 0:
        turns = torch.where(d.open("rotate90"), d.bits[:, SLOT["rotate90"] + 1] >> 30, 0)
        named["rotate90"] = turns * 90
        cos = ((turns == 0).long() - (turns == 2).long()).double()
        sin = ((turns == 1).long() - (turns == 3).long()).double()
        g = g.after(cos, -sin, sin, cos)
    if policy.shift > 0:
        gate, at, most = d.open("shift"), SLOT["shift"], policy.shift_max
        x, y = (torch.where(gate, torch.round((d.uniform[:, at + k] * 2 - 1) * most * side), zero)
                for k, side in ((1, width), (2, height)))  # fmt: skip
        named["shift"] = torch.stack((x, y), 1)
        g = g.shifted(-x, -y)
    if policy.scale > 0:
        gate = d.open("scale")
        s = named["scale"] = d.factor("scale", policy.scale_std, gate)
        g, resample = g.after(1 / s, zero, zero, 1 / s), resample | gate
    for when in ("before", "after"):
        if policy.rotate > 0:
            gate = d.open_rotation(f"rotate_{when}")
            cos, sin, degrees = d.turn(SLOT[f"rotate_{when}"] + 1, policy.rotate_max, gate)
            named[f"rotate_{when}"] = degrees
            g, resample = g.after(cos, -sin, sin, cos), resample | gate
        if when == "before" and policy.aniso > 0:
            gate = d.open("aniso")
            s = named["aniso"] = d.factor("aniso", policy.aniso_std, gate)
            g, resample = g.after(1 / s, zero, zero, s), resample | gate
    if policy.translate > 0:
        gate, at = d.open("translate"), NORMAL["translate"]
        x, y = (torch.where(gate, d.normal[:, at + k] * policy.translate_std * side, zero)
                for k, side in ((0, width), (1, height)))  # fmt: skip
        named["translate"] = torch.stack((x, y), 1)
        g, resample = g.shifted(-x, -y), resample | gate
    named["affine"] = torch.stack((g.a, g.b, g.e, g.c, g.d, g.f), 1).view(-1, 2, 3)
    return to_maps(g, resample, height, width)


def to_maps(g: Affine, resample: Tensor, height: int, width: int) -> Tensor:
    """(B, 7) int64: a b e c d f between pixel indices in units of 2^-32, and whether to resample.

    A quarter turn of an oblong image can fall between pixels: that is resampled, too.
    """
    cx, cy = (width - 1) / 2, (height - 1) / 2
    e = g.e + cx - (g.a * cx + g.b * cy)
    f = g.f + cy - (g.c * cx + g.d * cy)
    between = (e != torch.round(e)) | (f != torch.round(f))
    units = torch.stack((g.a, g.b, e, g.c, g.d, f), 1) * 2.0**FRACTION
    columns = (torch.round(units).to(torch.int64), (resample | between).long()[:, None])
    return torch.cat(columns, 1)


def _color(d: _Draws, named: dict[str, Tensor]) -> Tensor:
    """(B, 3, 4): v -> C[:, :3] v + C[:, 3], each transform multiplied from the left."""
    policy, zero, one = d.policy, d.zero, d.one
    eye = torch.eye(3, 4, dtype=torch.float64, device=zero.device)
    c = eye.expand(zero.shape[0], 3, 4)
    if policy.brightness > 0:
        gate = d.open("brightness")
        b = torch.where(gate, d.normal[:, NORMAL["brightness"]] * policy.brightness_std, zero)
        named["brightness"] = b
        c = torch.cat((c[..., :3], c[..., 3:] + b.view(-1, 1, 1)), 2)
    if policy.contrast > 0:
        s = d.factor("contrast", policy.contrast_std, d.open("contrast"))
        named["contrast"] = s
        c = c * s.view(-1, 1, 1)
    if policy.luma_flip > 0:
        flip = d.open("luma_flip") & (d.uniform[:, SLOT["luma_flip"] + 1] >= 0.5)
        named["luma_flip"] = flip
        c = c - torch.where(flip, 2 * one, zero).view(-1, 1, 1) * _luma(c)
    if policy.hue > 0:
        cos, sin, degrees = d.turn(SLOT["hue"] + 1, policy.hue_max, d.open("hue"))
        named["hue"] = degrees
        # Rodrigues about v = (1, 1, 1) / sqrt 3: cos c + sin (v x c) + (1 - cos) v v^T c.
        cross = (torch.roll(c, 1, 1) - torch.roll(c, -1, 1)) * math.sqrt(THIRD)
        cos, sin = cos.view(-1, 1, 1), sin.view(-1, 1, 1)
        c = c * cos + cross * sin + (1 - cos) * _luma(c)
    if policy.saturation > 0:
        s = d.factor("saturation", policy.saturation_std, d.open("saturation"))
        named["saturation"] = s
        luma = _luma(c)
        c = luma + (c - luma) * s.view(-1, 1, 1)
    named["color"] = c
    return c


def _luma(c: Tensor) -> Tensor:
    """v v^T c: the mean over rows, in each."""
    mean = ((c[:, 0:1] + c[:, 1:2]) + c[:, 2:3]) * THIRD
    return mean.expand(c.shape)


def one_channel(color: Tensor) -> Tensor:
    """(B, 1, 2) of (B, 3, 4): grey in, the mean over channels out."""
    mean = ((color[:, 0] + color[:, 1]) + color[:, 2]) * THIRD
    return torch.stack(((mean[:, 0] + mean[:, 1]) + mean[:, 2], mean[:, 3]), 1)[:, None]


def _bands(d: _Draws, named: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(B, 4) gains, the expected power kept at every step; and where any gate is open."""
    policy = d.policy
    total = torch.ones_like(d.uniform[:, :4])
    any_open = torch.zeros_like(d.zero, dtype=torch.bool)
    for band, weight in enumerate(policy.filter_bands):
        gate = d.open("filter", policy.filter * weight, skip=band)
        t = exp2_exact(
            torch.where(gate, d.normal[:, NORMAL["filter"] + band] * policy.filter_std, d.zero)
        )
        # In float32: torch's sqrt of float64 is a bit off for some, and not on every device.
        norm = sqrt_exact(((1.0 - POWER[band]) + POWER[band] * t * t).float()).double()
        columns = [t / norm if k == band else 1 / norm for k in range(4)]
        total, any_open = total * torch.stack(columns, 1), any_open | gate
    named["filter"] = total
    return total, any_open
