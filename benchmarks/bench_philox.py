"""Random numbers by Philox 4x32-10.

The stock generators do a different thing: theirs follow a state and give other numbers on another
device, ours are the same bits everywhere. The rows say what that costs.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from arms import sizes
from harness import Case, Floor, Size
from torch import Tensor

from ganops import ops

REFERENCE_UP_TO = 2**20  # elements; it works on int64 tensors, and slowly

STOCK: dict[str, Callable[..., Tensor]] = {"uniform": torch.rand, "normal": torch.randn}


@pytest.mark.parametrize("kind", ["uniform", "normal"])
@sizes(
    tiny=["2x3x8x8"],
    default=["64x128", "64x3x64x64", "64x3x128x128"],
    paper=["256x3x256x256"],
)
def bench_random(
    size: Size, kind: str, device: str, impl: str, bench: Callable[[Case], None]
) -> None:
    """Floor: every number written once."""
    op = {"uniform": ops.random_uniform, "normal": ops.random_normal}[kind]

    def draw(by: str) -> Callable[[], Tensor]:
        return lambda: op(size.shape, seed=1, dtype=size.dtype, device=device, impl=by)

    peers = {"reference": draw("reference")} if size.count <= REFERENCE_UP_TO else {}
    bench(
        Case(
            op=f"random_{kind}",
            row=str(size),
            ours=draw(impl),
            stock={
                f"torch.{STOCK[kind].__name__}": lambda: STOCK[kind](
                    size.shape, dtype=size.dtype, device=device
                )
            },
            peers=peers,
            floor=Floor.fill(size.nbytes, size, device),
            nbytes=size.nbytes,
            flops=0,
            dtype=size.dtype,
            device=device,
            comparable=False,
            note="not the same numbers: stock follows a state, ours are the same on every device",
        )
    )
