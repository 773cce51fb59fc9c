"""ADA's bgc pipeline at p = 0.6: drawing, geometry and colour, and the gradient to the image.

Stock is the same card composed of PyTorch's own operations (`ada_stock`), given the parameters that
ours draws, so its drawing is not counted. At p = 0.6 nearly every sample is resampled: the floor,
reading and writing each number once, is far below what the filters' arithmetic takes. Its numbers
differ from ours at the corners (see `ops.ada_augment`), so the arms are not compared here; tests
compare them.
"""

from __future__ import annotations

from collections.abc import Callable

from ada_stock import color, geometry
from arms import sizes, with_gradient
from harness import Case, Floor, Size
from torch import Tensor

from ganops import ops

P, SEED = 0.6, 3
Bench = Callable[[Case], None]

both = sizes(tiny=["2x3x16x16"], default=["16x3x256x256", "64x3x32x32"])


def ours(impl: str) -> Callable[[Tensor], Tensor]:
    def f(x: Tensor) -> Tensor:
        y = ops.ada_augment(x, "ada-bgc", P, seed=SEED, impl=impl)
        return y  # type: ignore[return-value]

    return f


def stock(x: Tensor) -> Callable[[Tensor], Tensor]:
    _, drawn = ops.ada_augment(x, "ada-bgc", P, seed=SEED, return_params=True)
    return lambda x: color(geometry(x, drawn["affine"]), drawn["color"])


@both
def bench_forward(size: Size, device: str, impl: str, bench: Bench) -> None:
    """Floor: x read, y written."""
    x = size.randn(0, device)
    f, g = ours(impl), stock(x)
    bench(
        Case(
            op="ada",
            row=f"{size}, bgc at p = 0.6",
            ours=lambda: f(x),
            stock={"stock": lambda: g(x)},
            floor=Floor.copy(2 * size.nbytes, size, device),
            nbytes=2 * size.nbytes,
            flops=460 * size.count,
            dtype=size.dtype,
            device=device,
            comparable=False,
            headline=True,
            note="arithmetic-bound; stock without the drawing of parameters",
        )
    )


@both
def bench_backward(size: Size, device: str, impl: str, bench: Bench) -> None:
    """Floor: x read, y written; dy read, dx written."""
    x, dy = size.randn(0, device, requires_grad=True), size.randn(1, device)
    bench(
        Case(
            op="ada",
            row=f"{size}, bgc at p = 0.6, forward and backward",
            ours=with_gradient(ours(impl), [x], dy),
            stock={"stock": with_gradient(stock(x.detach()), [x], dy)},
            floor=Floor.copy(4 * size.nbytes, size, device),
            nbytes=4 * size.nbytes,
            flops=920 * size.count,
            dtype=size.dtype,
            device=device,
            comparable=False,
            note="arithmetic-bound; stock without the drawing of parameters",
        )
    )
