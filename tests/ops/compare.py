"""How results of two implementations are compared: tolerances and derivatives of three orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# (rtol, atol). Doubles and floats: exp, tanh and log are within a few units in the last place
# (eps = 2.2e-16, 1.2e-7), and f'' of swish and tanh cancels near its roots, which leaves an
# absolute error of some eps. Half types are computed in float and rounded once, in the reference
# too: at most one unit in the last place (2^-7, 2^-10) apart, where a float error moves a rounding.
TOLERANCES = {
    torch.float64: (2e-14, 2e-15),
    torch.float32: (2e-6, 1e-6),
    torch.bfloat16: (2.0**-7, 1e-6),
    torch.float16: (2.0**-10, 2e-6),
}
DTYPES = tuple(TOLERANCES)


def assert_near(ours: Tensor, expected: Tensor, scale: float = 1.0, message: str = "") -> None:
    """Equal shape and dtype, and values within `scale` tolerances of the dtype; NaN equals NaN."""
    rtol, atol = (scale * t for t in TOLERANCES[expected.dtype])
    torch.testing.assert_close(
        ours, expected, rtol=rtol, atol=atol, equal_nan=True, msg=lambda m: f"{message}\n{m}"
    )


def assert_same_bits(ours: Tensor, expected: Tensor, message: str = "") -> None:
    """Equal to the last bit; NaN equals NaN."""
    torch.testing.assert_close(
        ours, expected, rtol=0, atol=0, equal_nan=True, msg=lambda m: f"{message}\n{m}"
    )


def three_orders(
    f: Callable[..., Tensor], inputs: Sequence[Tensor], dy: Tensor, seconds: Sequence[Tensor]
) -> dict[str, Tensor]:
    """y, its gradients for cotangent dy, and the gradients of those for cotangents `seconds`.

    The second order is taken with respect to the inputs and to dy. No gradient counts as zero.
    """
    leaves = [t.detach().requires_grad_() for t in inputs]
    dy = dy.detach().requires_grad_()
    y = f(*leaves)
    first = torch.autograd.grad(y, leaves, dy, create_graph=True)
    connected = [(g, v) for g, v in zip(first, seconds, strict=True) if g.requires_grad]
    second = [None] * (len(leaves) + 1)
    if connected:
        grads, vs = zip(*connected, strict=True)
        second = torch.autograd.grad(grads, [*leaves, dy], vs, allow_unused=True)
    found = {"y": y.detach()}
    for i, g in enumerate(first):
        found[f"d{i}"] = g.detach()
    for i, (g, like) in enumerate(zip(second, [*leaves, dy], strict=True)):
        name = "d_dy" if i == len(leaves) else f"dd{i}"
        found[name] = torch.zeros_like(like) if g is None else g
    return found
