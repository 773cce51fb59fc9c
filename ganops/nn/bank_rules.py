"""How the functions that one discriminator calls run for all K at once.

The member's own code runs once, under torch.func.vmap over the stacked parameters. What it calls
arrives here first: convolutions, linear layers and norms fold K into channels or batched products
(`Together`, whose vmap rule sees all members' tensors), other functions run as their twins, and the
rest by torch's own batching rules. All of it is recorded by autograd outside of vmap, as plain
nodes with derivatives of their own, so that double backward costs what it costs one network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from .. import ops
from ..ops.conv.bank import apart, convolve_bank, joined
from ..ops.gradient_penalty import rerouting


class Together(Function):
    """run(*tensors), all of them with the members in front; outside of a bank there is no rule.

    one: may the first have a single member, where it is the same for all?
    """

    @staticmethod
    def forward(run: Callable[..., Tensor], one: bool, *tensors: Tensor | None) -> Tensor:
        raise RuntimeError(
            "DiscriminatorBank: a layer met tensors that belong to no member; use execution='loop'"
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """forward raises first."""

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError("DiscriminatorBank: unreachable, forward raises first")

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], run: Callable[..., Tensor], one: bool,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, int]:  # fmt: skip
        def in_front(t: Tensor, dim: int | None) -> Tensor:
            return t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)

        given = [t if t is None else in_front(t, d) for t, d in zip(tensors, in_dims[2:])]
        if one and in_dims[2] is None and tensors[0] is not None:
            given[0] = tensors[0].unsqueeze(0)
        return run(*given), 0


def together(run: Callable[..., Tensor], *tensors: Tensor | None, one: bool = False) -> Tensor:
    y: Tensor = Together.apply(run, one, *tensors)
    return y


def _pair(n: Any) -> tuple[int, ...]:
    return (n, n) if isinstance(n, int) else tuple(n) * (2 if len(n) == 1 else 1)


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(_pair(dilation), weight.shape[2:])]
        input = F.pad(input, [n for t in reversed(total) for n in (t // 2, t - t // 2)])
    around = (0, 0) if isinstance(padding, str) else _pair(padding)
    numbers: Any = (_pair(stride), around, _pair(dilation), groups)
    run = lambda x, w, b: convolve_bank(x, w, b, *numbers)  # noqa: E731
    return _of_images(run, input, weight, bias, one=True)


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    def run(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        flat = None if b is None else b.reshape(-1)
        numbers: Any = (stride, padding, output_padding, groups * len(x), dilation)
        return apart(ops.conv_transpose2d(joined(x), w.flatten(0, 1), flat, *numbers), len(x))

    return _of_images(run, input, weight, bias)


def _of_images(
    run: Callable[..., Tensor], x: Tensor, w: Tensor, b: Tensor | None, one: bool = False
) -> Tensor:
    alone = x.dim() == 3
    y = together(run, x.unsqueeze(0) if alone else x, w, b, one=one)
    return y.squeeze(0) if alone else y


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    def run(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        rows = x.flatten(1, -2)
        y = torch.bmm(rows, w.mT) if b is None else torch.baddbmm(b.unsqueeze(1), rows, w.mT)
        return y.unflatten(1, x.shape[1:-1])

    alone = input.dim() == 1
    y = together(run, input.unsqueeze(0) if alone else input, weight, bias)
    return y.squeeze(0) if alone else y


def _channels(norm: Callable[..., Tensor], tensors: tuple[Tensor | None, ...]) -> Tensor:
    """A norm of channels, the members' channels side by side: (B, K C, ...)."""

    def run(x: Tensor, *vectors: Tensor | None) -> Tensor:
        # reshape is a view of stacked buffers, so that running statistics are moved in place.
        flat = [None if v is None else v.reshape(-1) for v in vectors]
        return apart(norm(joined(x), *flat), len(x))

    return together(run, *tensors)


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    def norm(x: Tensor, m: Any, v: Any, w: Any, b: Any) -> Tensor:
        return ops.batch_norm(x, m, v, w, b, training, momentum, eps)

    return _channels(norm, (input, running_mean, running_var, weight, bias))


def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    def norm(x: Tensor, m: Any, v: Any, w: Any, b: Any) -> Tensor:
        return ops.instance_norm(x, m, v, w, b, use_input_stats, momentum, eps)

    return _channels(norm, (input, running_mean, running_var, weight, bias))


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, *rest: Any, **named: Any,
) -> Tensor:  # fmt: skip
    def run(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        scale, shift = (None if v is None else v.reshape(-1) for v in (w, b))
        return apart(ops.group_norm(joined(x), num_groups * len(x), scale, shift, eps), len(x))

    return together(run, input, weight, bias)


def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, *rest: Any, **named: Any,
) -> Tensor:  # fmt: skip
    y = together(lambda x: ops.layer_norm(x, normalized_shape, None, None, eps), input)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def rms_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    y = together(lambda x: ops.rms_norm(x, normalized_shape, None, eps), input)
    return y if weight is None else y * weight


RULES: dict[Any, Callable[..., Any]] = {
    **rerouting.TWINS,
    F.conv2d: conv2d,
    torch.conv2d: conv2d,
    F.conv_transpose2d: conv_transpose2d,
    torch.conv_transpose2d: conv_transpose2d,
    F.linear: linear,
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
    F.group_norm: group_norm,
    torch.group_norm: group_norm,
    F.layer_norm: layer_norm,
    torch.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    torch.rms_norm: rms_norm,
}
for _name in ("batch_norm", "instance_norm"):  # torch's own order of arguments
    del RULES[getattr(torch, _name)]


class ByRules(TorchFunctionMode):
    """Active while the member's code runs, and no longer."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return rerouting.twin_of(RULES, func, kwargs)(*args, **(kwargs or {}))


class SpectralNorms(nn.Module):
    """Stands where torch's spectral norm stood: all members' power iterations at once."""

    _u: Tensor
    _v: Tensor

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        for name, buffer in stock.named_buffers():  # _u and _v
            self.register_buffer(name, buffer)
        self.dim: Any = stock.dim
        self.eps: Any = stock.eps
        self.n_power_iterations: Any = stock.n_power_iterations
        self.training = stock.training

    def forward(self, weight: Tensor) -> Tensor:
        if weight.dim() == 1:  # as torch: a vector is divided by its norm
            return F.normalize(weight, dim=0, eps=self.eps)
        return together(self._divided, weight, self._u, self._v)

    def _divided(self, w: Tensor, u: Tensor, v: Tensor) -> Tensor:
        dim = self.dim % (w.dim() - 1) + 1
        matrix = w.movedim(dim, 1).flatten(2)
        if self.training:
            with torch.no_grad():
                for _ in range(self.n_power_iterations):
                    u.copy_(F.normalize((matrix @ v.unsqueeze(2)).squeeze(2), dim=1, eps=self.eps))
                    v.copy_(
                        F.normalize((matrix.mT @ u.unsqueeze(2)).squeeze(2), dim=1, eps=self.eps)
                    )
        # Clones: the buffers move again before a second forward's graph is differentiated.
        u, v = u.clone(), v.clone()
        sigma = (u * (matrix @ v.unsqueeze(2)).squeeze(2)).sum(1)
        return w / sigma.view(-1, *[1] * (w.dim() - 1))

    def right_inverse(self, value: Tensor) -> Tensor:
        return value
