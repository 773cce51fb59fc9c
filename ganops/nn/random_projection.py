"""`ops.random_projection` as a module that holds its filters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .. import ops
from ..ops._arguments import pair


class RandomProjection(nn.Module):
    """K fixed random views of an image, one for each discriminator: `ops.random_projection`.

    (B, in_channels, H, W) -> (K, B, out_channels, H', W'). The filters are those of
    `ops.random_filters`, in the buffer `filters`: in the state dict, which restores them whatever
    the seed, and never among the parameters, so that no optimiser, weight decay, spectral norm or
    running average of weights changes them. The defaults halve 3-channel images to one channel.
    """

    filters: Tensor

    def __init__(
        self,
        K: int,
        in_channels: int,
        out_channels: int = 1,
        kernel_size: int | Sequence[int] = 8,
        stride: int | Sequence[int] = 2,
        padding: int | Sequence[int] = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.stride = pair("RandomProjection", "stride", stride, 1)
        self.padding = pair("RandomProjection", "padding", padding, 0)
        self.seed = seed
        filters = ops.random_filters(K, out_channels, in_channels, kernel_size, seed=seed)
        self.register_buffer("filters", filters)

    def forward(self, x: Tensor) -> Tensor:
        return ops.random_projection(x, self.filters, stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        K, channels, given, *kernel = self.filters.shape
        return (
            f"K={K}, in_channels={given}, out_channels={channels}, kernel_size={tuple(kernel)}, "
            f"stride={self.stride}, padding={self.padding}, seed={self.seed}"
        )
