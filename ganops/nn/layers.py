"""Drop-in twins of torch.nn layers: the same parameters, arguments and state_dict keys.

Each is its torch.nn original with a forward that calls the `ganops.ops` function of the same name,
so that a second derivative through it sends nothing useless to the primal network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .. import ops
from ..ops.gradient_penalty import rerouting

_SMOOTH = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "ELU", "GELU", "GroupNorm", "Hardswish",
    "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "LayerNorm", "Mish", "RMSNorm", "SELU",
    "SiLU", "Sigmoid", "Softplus", "Tanh",
]  # fmt: skip
__all__ = [
    "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "Conv2d", "ConvTranspose2d", "Hardtanh",
    "LeakyReLU", "MaxPool2d", "PReLU", "ReLU", "ReLU6", "ReflectionPad2d", "ReplicationPad2d",
    "Threshold", *_SMOOTH,
]  # fmt: skip


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` by `ops.conv2d`."""

    def forward(self, input: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = ops.pad(input, self._borders(), self.padding_mode)
            padding = 0
        return ops.conv2d(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )

    def _borders(self) -> list[int]:
        """(left, right, top, bottom), the order F.pad takes."""
        if self.padding == "valid":
            return [0, 0, 0, 0]
        if self.padding == "same":  # an odd total pads one more at the end
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size)]
            return [side for t in reversed(totals) for side in (t // 2, t - t // 2)]
        sides: Any = self.padding
        return [int(p) for p in reversed(sides) for _ in range(2)]


class ConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` by `ops.conv_transpose2d`; torch's own where an output_size is
    asked for."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None:
            return super().forward(input, output_size)
        padding: Any = self.padding
        return ops.conv_transpose2d(
            input, self.weight, self.bias, self.stride, padding, self.output_padding,
            self.groups, self.dilation,
        )  # fmt: skip


class ReLU(nn.ReLU):
    """`torch.nn.ReLU` by `ops.relu`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.relu(input, self.inplace)


class LeakyReLU(nn.LeakyReLU):
    """`torch.nn.LeakyReLU` by `ops.leaky_relu`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.leaky_relu(input, self.negative_slope, self.inplace)


class PReLU(nn.PReLU):
    """`torch.nn.PReLU` by `ops.prelu`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.prelu(input, self.weight)


class Hardtanh(nn.Hardtanh):
    """`torch.nn.Hardtanh` by `ops.hardtanh`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.hardtanh(input, self.min_val, self.max_val, self.inplace)


class ReLU6(nn.ReLU6):
    """`torch.nn.ReLU6` by `ops.relu6`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.relu6(input, self.inplace)


class Threshold(nn.Threshold):
    """`torch.nn.Threshold` by `ops.threshold`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.threshold(input, self.threshold, self.value, self.inplace)


class AvgPool2d(nn.AvgPool2d):
    """`torch.nn.AvgPool2d` by `ops.avg_pool2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.avg_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
            self.count_include_pad, self.divisor_override,
        )  # fmt: skip


class MaxPool2d(nn.MaxPool2d):
    """`torch.nn.MaxPool2d` by `ops.max_pool2d`."""

    def forward(self, input: Tensor) -> Any:
        return ops.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
            self.return_indices,
        )  # fmt: skip


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d` by `ops.adaptive_avg_pool2d`."""

    def forward(self, input: Tensor) -> Tensor:
        size: Any = self.output_size
        return ops.adaptive_avg_pool2d(input, size)


class AdaptiveMaxPool2d(nn.AdaptiveMaxPool2d):
    """`torch.nn.AdaptiveMaxPool2d` by `ops.adaptive_max_pool2d`."""

    def forward(self, input: Tensor) -> Any:
        size: Any = self.output_size
        return ops.adaptive_max_pool2d(input, size, self.return_indices)


class ReflectionPad2d(nn.ReflectionPad2d):
    """`torch.nn.ReflectionPad2d` by `ops.pad`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.pad(input, self.padding, "reflect")


class ReplicationPad2d(nn.ReplicationPad2d):
    """`torch.nn.ReplicationPad2d` by `ops.pad`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.pad(input, self.padding, "replicate")


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` by `ops.layer_norm`."""

    def forward(self, input: Tensor) -> Tensor:
        shape: Any = self.normalized_shape
        return ops.layer_norm(input, shape, self.weight, self.bias, self.eps)


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm` by `ops.group_norm`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm` by `ops.rms_norm`."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class _ByTwins(TorchFunctionMode):
    """Runs the functions in TWINS by their twins."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return rerouting.twin_of(rerouting.TWINS, func, kwargs)(*args, **(kwargs or {}))


def _running(original: type[nn.Module]) -> type[nn.Module]:
    """The twin of a norm with running statistics: torch's own bookkeeping around the twin."""

    def forward(self: Any, input: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            y: Tensor = original.forward(self, input)
            return y
        with _ByTwins():
            return original.forward(self, input)  # type: ignore[no-any-return]

    name = original.__name__
    doc = f"`torch.nn.{name}` by `ops.{'batch' if 'Batch' in name else 'instance'}_norm`."
    return type(name, (original,), {"forward": forward, "__doc__": doc, "__module__": __name__})


BatchNorm1d, BatchNorm2d, BatchNorm3d = map(
    _running, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
)
InstanceNorm1d, InstanceNorm2d, InstanceNorm3d = map(
    _running, (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
)


class SiLU(nn.SiLU):
    """`torch.nn.SiLU` by `ops.silu`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.silu(input, self.inplace)


class GELU(nn.GELU):
    """`torch.nn.GELU` by `ops.gelu`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.gelu(input, self.approximate)


class Softplus(nn.Softplus):
    """`torch.nn.Softplus` by `ops.softplus`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.softplus(input, self.beta, self.threshold)


class ELU(nn.ELU):
    """`torch.nn.ELU` by `ops.elu`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.elu(input, self.alpha, self.inplace)


class SELU(nn.SELU):
    """`torch.nn.SELU` by `ops.selu`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.selu(input, self.inplace)


class Tanh(nn.Tanh):
    """`torch.nn.Tanh` by `ops.tanh`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.tanh(input)


class Sigmoid(nn.Sigmoid):
    """`torch.nn.Sigmoid` by `ops.sigmoid`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.sigmoid(input)


class Mish(nn.Mish):
    """`torch.nn.Mish` by `ops.mish`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.mish(input, self.inplace)


class Hardswish(nn.Hardswish):
    """`torch.nn.Hardswish` by `ops.hardswish`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.hardswish(input, self.inplace)


# What `optimize` swaps, by exact type: a subclass may rely on what a twin leaves out.
PIECEWISE_LINEAR: dict[type[nn.Module], type[nn.Module]] = {
    getattr(torch.nn, name): globals()[name] for name in __all__ if name not in _SMOOTH
}
TWINS: dict[type[nn.Module], type[nn.Module]] = {
    getattr(torch.nn, name): globals()[name] for name in __all__
}
