"""A penalty on images and weights in channels last stays there, in both orders."""

from __future__ import annotations

from typing import Any

import critics
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ganops import ops

LAST = torch.channels_last
CONVOLUTIONS = (torch.ops.aten.convolution, torch.ops.aten.convolution_backward)


class Formats(TorchDispatchMode):
    """Which tensors of convolutions, weights left out, are in channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in CONVOLUTIONS:
            given = args[:1] if func.overloadpacket is CONVOLUTIONS[0] else args[:2]
            first = out[0] if isinstance(out, tuple) else out
            self.seen += [t.is_contiguous(memory_format=LAST) for t in (*given, first)
                          if isinstance(t, Tensor)]  # fmt: skip
        return out


CRITICS = {
    "dcgan": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 24, 4, 2, 1), nn.ReLU(True),
        nn.Conv2d(24, 1, 4)),
    "batch norm, pools": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(16, 24, 3, 1, 1), nn.MaxPool2d(2), nn.LeakyReLU(0.2), nn.Conv2d(24, 1, 4)),
    "group norm": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1), nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 24, 4, 2, 1),
        nn.ReLU(), nn.Conv2d(24, 1, 4)),
    "residual": lambda: critics.Residual(12),
}  # fmt: skip


@pytest.mark.parametrize("make", CRITICS.values(), ids=CRITICS)
def test_nothing_is_converted(make):
    torch.manual_seed(0)
    critic, x = make(), torch.randn(4, 3, 16, 16)
    found = []
    for layout in (torch.contiguous_format, LAST):
        critic.zero_grad(set_to_none=True)
        critic.to(memory_format=layout)
        with Formats() as formats:
            ops.r1_penalty(critic, x.contiguous(memory_format=layout)).backward()
        assert all(formats.seen) is (layout is LAST)
        found.append([p.grad for p in critic.parameters() if p.grad is not None])
    for plain, last in zip(*found, strict=True):
        torch.testing.assert_close(last, plain, rtol=1e-3, atol=1e-5)
