"""The Inception network of 2015 that FID, KID and IS are defined by, batch norms folded in.

It is no torchvision Inception-v3: average pools leave padding out of the average, the pool of the
last block is a max pool (kept, as published numbers have it), there are 1008 outputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 0.001  # of the batch norms
POOL3, CLASSES = 2048, 1008


class Outputs(NamedTuple):
    """What the network says of N images, in float32."""

    pool3: Tensor  # (N, 2048): the features of FID and KID
    logits_unbiased: Tensor  # (N, 1008): pool3 times the weights; what the Inception Score takes
    logits: Tensor  # (N, 1008): with the bias


class Conv(nn.Conv2d):
    """Convolution with its batch norm folded into weight and bias, then ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x), inplace=True)


Kernel = int | tuple[int, int]


def conv(channels: int, out: int, kernel: Kernel, stride: int = 1) -> Conv:
    """In a block: as large as before, or halved without padding."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (height // 2, width // 2) if stride == 1 else (0, 0)
    return Conv(channels, out, (height, width), stride, padding)


class Step(NamedTuple):
    """One convolution of a branch, by the name that the public weights have for it."""

    name: str
    out: int
    kernel: Kernel = 1
    stride: int = 1


Branch = tuple[Step | tuple[Step, Step], ...]  # a pair, at the end, reads one input


class Block(nn.Module):
    """Branches over one input, and a pool, concatenated."""

    def __init__(self, channels: int, *branches: Branch, pool: str, pool_out: int = 0) -> None:
        super().__init__()
        self.pool = pool
        self.names: list[list[list[str]]] = []
        for branch in branches:
            c = channels
            self.names.append([])
            for step in branch:
                steps = [step] if isinstance(step, Step) else list(step)
                for each in steps:
                    self.add_module(each.name, conv(c, each.out, each.kernel, each.stride))
                self.names[-1].append([each.name for each in steps])
                c = sum(each.out for each in steps)
        if pool_out:
            self.branch_pool = conv(channels, pool_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for branch in self.names:
            ends = [x]
            for names in branch:
                ends = [getattr(self, name)(ends[0]) for name in names]
            found += ends
        return torch.cat([*found, self.pooled(x)], 1)

    def pooled(self, x: Tensor) -> Tensor:
        if self.pool == "halve":
            return F.max_pool2d(x, 3, 2)
        if self.pool == "max":
            y = F.max_pool2d(x, 3, 1, 1)
        else:
            y = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return self.branch_pool(y)  # type: ignore[no-any-return]


def block_a(channels: int, pool: int) -> Block:
    return Block(
        channels,
        (Step("branch1x1", 64),),
        (Step("branch5x5_1", 48), Step("branch5x5_2", 64, 5)),
        (Step("branch3x3dbl_1", 64), Step("branch3x3dbl_2", 96, 3), Step("branch3x3dbl_3", 96, 3)),
        pool="average", pool_out=pool,
    )  # fmt: skip


def block_b(channels: int) -> Block:
    return Block(
        channels,
        (Step("branch3x3", 384, 3, 2),),
        (Step("branch3x3dbl_1", 64), Step("branch3x3dbl_2", 96, 3),
         Step("branch3x3dbl_3", 96, 3, 2)),
        pool="halve",
    )  # fmt: skip


def block_c(channels: int, q: int) -> Block:
    wide, tall = (1, 7), (7, 1)
    return Block(
        channels,
        (Step("branch1x1", 192),),
        (Step("branch7x7_1", q), Step("branch7x7_2", q, wide), Step("branch7x7_3", 192, tall)),
        (Step("branch7x7dbl_1", q), Step("branch7x7dbl_2", q, tall),
         Step("branch7x7dbl_3", q, wide), Step("branch7x7dbl_4", q, tall),
         Step("branch7x7dbl_5", 192, wide)),
        pool="average", pool_out=192,
    )  # fmt: skip


def block_d(channels: int) -> Block:
    return Block(
        channels,
        (Step("branch3x3_1", 192), Step("branch3x3_2", 320, 3, 2)),
        (Step("branch7x7x3_1", 192), Step("branch7x7x3_2", 192, (1, 7)),
         Step("branch7x7x3_3", 192, (7, 1)), Step("branch7x7x3_4", 192, 3, 2)),
        pool="halve",
    )  # fmt: skip


def block_e(channels: int, pool: str) -> Block:
    wide, tall = (1, 3), (3, 1)
    return Block(
        channels,
        (Step("branch1x1", 320),),
        (Step("branch3x3_1", 384),
         (Step("branch3x3_2a", 384, wide), Step("branch3x3_2b", 384, tall))),
        (Step("branch3x3dbl_1", 448), Step("branch3x3dbl_2", 384, 3),
         (Step("branch3x3dbl_3a", 384, wide), Step("branch3x3dbl_3b", 384, tall))),
        pool=pool, pool_out=192,
    )  # fmt: skip


class Trunk(nn.Module):
    """(N, 3, 299, 299), normalised -> pool3 (N, 2048), in the dtype of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b = block_a(192, 32)
        self.Mixed_5c = block_a(256, 64)
        self.Mixed_5d = block_a(288, 64)
        self.Mixed_6a = block_b(288)
        self.Mixed_6b = block_c(768, 128)
        self.Mixed_6c = block_c(768, 160)
        self.Mixed_6d = block_c(768, 160)
        self.Mixed_6e = block_c(768, 192)
        self.Mixed_7a = block_d(768)
        self.Mixed_7b = block_e(1280, "average")
        self.Mixed_7c = block_e(2048, "max")

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, 2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3), dtype=torch.float32)


def public_shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the published weights: names and shapes, but for counters of batches."""
    with torch.device("meta"):
        trunk = Trunk()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in trunk.named_modules():
        if isinstance(module, Conv):
            shapes[f"{name}.conv.weight"] = tuple(module.weight.shape)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{name}.bn.{part}"] = (module.out_channels,)
    return {**shapes, "fc.weight": (CLASSES, POOL3), "fc.bias": (CLASSES,)}


def folded(weights: dict[str, Tensor], dtype: torch.dtype) -> Trunk:
    """The trunk with the published weights, channels_last. Folded in float64, rounded once."""
    with torch.device("meta"):
        trunk = Trunk()
    state = {}
    for name, module in trunk.named_modules():
        if isinstance(module, Conv):
            gamma, beta, mean, var = (
                weights[f"{name}.bn.{part}"].to(torch.float64)
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            scale = gamma / (var + EPS).sqrt()
            kernel = weights[f"{name}.conv.weight"].to(torch.float64) * scale[:, None, None, None]
            state[f"{name}.weight"] = kernel.to(dtype, memory_format=torch.channels_last)
            state[f"{name}.bias"] = (beta - mean * scale).to(dtype)
    trunk.load_state_dict(state, assign=True)
    return trunk.eval().requires_grad_(False)
