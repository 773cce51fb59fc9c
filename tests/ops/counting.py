"""What really runs: FLOPs at the dispatcher, and a Function to see who makes zeros of None.

torch's FlopCounterMode counts a grouped weight gradient `groups` times too high and fails under
nested autograd.grad, so this one is by hand; `test_conv.py` holds it to torch's on what that does
count right.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from ganops.ops.conv import sub_pixel as fast

aten = torch.ops.aten


class Counter(TorchDispatchMode):
    """flops: total of multiply-adds, times two. calls: how many convolution kernels were asked.

    By default, what the derivatives ask for: a strided backward to few channels is torch's own.
    `conv/sub_pixel.py`, which is faster, adds a border of windows that nobody reads
    (`test_conv_sub_pixel.py` counts it).
    """

    def __init__(self, *, sub_pixel: bool = False) -> None:
        super().__init__()
        self.flops = 0
        self.calls = 0
        self._few, self._sub_pixel = fast.FEW, sub_pixel

    def __enter__(self) -> Any:
        fast.FEW = self._few if self._sub_pixel else 0
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        fast.FEW = self._few
        super().__exit__(*exception)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet is aten.convolution:
            x, w, transposed = args[0], args[1], args[6]
            self._conv(x if transposed else out, w, 1)
        elif packet is aten.convolution_backward:
            dy, x, w = args[:3]
            self._conv(x if args[7] else dy, w, sum(args[10][:2]))
        elif packet in (aten.mm, aten.bmm):
            self.flops += 2 * args[0].numel() * args[1].shape[-1]
        elif packet is aten.addmm:
            self.flops += 2 * args[1].numel() * args[2].shape[-1]
        return out

    def _conv(self, dense: torch.Tensor, w: torch.Tensor, times: int) -> None:
        """dense: the side on which each pixel meets one filter tap of each channel (y, not x)."""
        pixels = dense.shape[0] * math.prod(dense.shape[2:])
        self.flops += 2 * times * pixels * w.numel()
        self.calls += times


class Nothing(torch.autograd.Function):
    """Passes x on, and None back."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, dy):
        return None


class Peak(TorchDispatchMode):
    """peak: the most bytes of storages, made in here, that lived at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.now = 0
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = {id(t.untyped_storage()) for t in _tensors((args, kwargs or {}))}
        out = func(*args, **(kwargs or {}))
        for t in _tensors(out):
            storage = t.untyped_storage()
            if id(storage) not in self._alive and id(storage) not in given:
                self._add(storage)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()

        def forget(_: Any) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, forget)
        self.now += size
        self.peak = max(self.peak, self.now)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [t for t in tree_flatten(tree)[0] if isinstance(t, torch.Tensor)]
