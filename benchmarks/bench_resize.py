"""resize_normalize: bytes to a network's 299 x 299 input, against the same in stock PyTorch.

Stock is what code that evaluates GANs does: bytes to floats, F.interpolate, subtract, divide. It
shifts by half a pixel where "tf" does not, so the numbers differ; the tests compare each protocol
with its own source. The peer is torch-fidelity's own "tf", to the bit. The floor is a copy that
moves as much: bytes in, numbers out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from arms import compiled, sizes
from harness import Case, Floor, Size
from torch import Tensor

from ganops import ops

REFERENCE_UP_TO = 2**12  # numbers in; it makes a tensor of doubles for every tap

MODES: dict[str, dict[str, Any]] = {
    "tf": {"mode": "bilinear"},
    "torch": {"mode": "bilinear"},
    "clean": {"mode": "bicubic", "antialias": True},
    "antialias": {"mode": "bilinear", "antialias": True},
}


def stock(x: Tensor, out: int, protocol: str, dtype: torch.dtype, last: bool) -> Tensor:
    """In the memory order that the network is given."""
    order = torch.channels_last if last else torch.contiguous_format
    y = F.interpolate(x.to(torch.float32, memory_format=order), (out, out), **MODES[protocol])
    if protocol == "clean":
        y = y.clamp(0, 255)
    y = y / 127.5 - 1 if protocol == "torch" else (y - 128) / 128
    return y.to(dtype)


def fidelity(x: Tensor, out: int) -> Tensor:
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x as interpolate,
    )

    return (interpolate(x.float(), (out, out), align_corners=False) - 128) / 128


@pytest.mark.parametrize("protocol", MODES)
@sizes(
    tiny=["2x3x8x8"],
    # Of the images that come in, as bytes; the dtype and order are the result's.
    default=["64x3x32x32 channels_last", "64x3x32x32", "64x3x32x32 bfloat16 channels_last",
             "16x3x256x256 channels_last", "8x3x512x512 channels_last"],
    paper=["256x3x32x32 channels_last"],
)  # fmt: skip
def bench_resize(
    size: Size, protocol: str, device: str, impl: str, bench: Callable[[Case], None]
) -> None:
    """Floor: every byte read once, every number written once."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, size.shape, dtype=torch.uint8, generator=generator).to(device)
    out = 299 if size.count > 1000 else 13
    order = torch.channels_last if size.channels_last else torch.contiguous_format
    result = Size((size.shape[0], 3, out, out), size.dtype, size.channels_last)
    nbytes = size.count + result.nbytes

    def ours(by: str) -> Callable[[], Tensor]:
        return lambda: ops.resize_normalize(
            x, out, protocol=protocol, dtype=size.dtype, memory_format=order, impl=by
        )

    as_stock = lambda: stock(x, out, protocol, size.dtype, size.channels_last)  # noqa: E731
    squeezed = compiled(stock)
    optional = {"torch.compile": lambda: squeezed(x, out, protocol, size.dtype, size.channels_last)}
    if protocol == "tf" and size.dtype == torch.float32:
        optional["torch-fidelity"] = lambda: fidelity(x, out)
    bench(
        Case(
            op="resize",
            row=f"{size} from bytes to {out}x{out}, {protocol}",
            ours=ours(impl),
            stock={"F.interpolate": as_stock},
            peers={"reference": ours("reference")} if size.count <= REFERENCE_UP_TO else {},
            optional=optional,
            floor=Floor.copy(nbytes, result, device),
            nbytes=nbytes,
            flops=0,
            dtype=size.dtype,
            device=device,
            tolerance=0.05 if size.dtype == torch.float32 else None,
            comparable=protocol != "tf",
            headline=str(size) == "64x3x32x32 float32 channels_last" and protocol == "tf",
            note="" if protocol != "tf" else "stock shifts by half a pixel: other numbers",
        )
    )
