"""`ops.minibatch_stddev` as a module."""

from __future__ import annotations

from torch import Tensor, nn

from .. import ops


class MinibatchStdDev(nn.Module):
    """Appends the average standard deviation within groups of samples: `ops.minibatch_stddev`.

    It has no parameters. Stands before the last block of a discriminator, whose first layer then
    takes `num_channels` channels more.
    """

    def __init__(self, group_size: int = 4, num_channels: int = 1) -> None:
        super().__init__()
        self.group_size = group_size
        self.num_channels = num_channels

    def forward(self, x: Tensor) -> Tensor:
        return ops.minibatch_stddev(x, self.group_size, self.num_channels)

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}, num_channels={self.num_channels}"
