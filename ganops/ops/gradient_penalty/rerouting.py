"""The functions a critic calls, run by their twins while a penalty calls the critic.

A `torch.overrides.TorchFunctionMode` sees every torch function and every Tensor method that runs
under it, in this thread, so a critic of stock layers reaches the floor untouched: nothing in it is
patched, and weights, hooks, parametrisations and in-place calls run as written. Functions without a
twin go on to torch; so do, by the twins themselves, tensor subclasses and whatever torch.compile
traces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .. import conv, norm, piecewise_linear, pooling, smooth
from .._input_pass import InputPass


def _in_place(twin: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: twin(*args, **kwargs, inplace=True)


def _with_indices(twin: Callable[..., Any]) -> Callable[..., Any]:
    """F.max_pool2d(return_indices=True) arrives as another function, its flag kept."""
    return lambda *args, **kwargs: twin(*args, **{**kwargs, "return_indices": True})


def _layer_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:  # fmt: skip
    return norm.layer_norm(input, normalized_shape, weight, bias, eps)


def _group_norm(
    input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:  # fmt: skip
    return norm.group_norm(input, num_groups, weight, bias, eps)


def _channel_norm(twin: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch's own order of arguments, and what it asks of cuDNN, for a twin in F's order."""

    def call(
        input: Tensor, weight: Any, bias: Any, running_mean: Any, running_var: Any, *rest: Any,
        **named: Any,
    ) -> Tensor:  # fmt: skip
        keys = ("training", "momentum", "eps", "cudnn_enabled")
        stats = dict(zip(keys, rest)) | named
        first = stats.get("training", stats.get("use_input_stats"))
        numbers = (first, stats["momentum"], stats["eps"])
        return twin(input, running_mean, running_var, weight, bias, *numbers)

    return call


# What the mode is handed, for each way to write it -> what serves it. In place without a twin
# (abs_, threshold_) is torch's own: the result does not tell the slope.
TWINS: dict[Any, Callable[..., Any]] = {
    torch.relu: piecewise_linear.relu,
    Tensor.relu: piecewise_linear.relu,
    F.relu: piecewise_linear.relu,
    torch.relu_: _in_place(piecewise_linear.relu),
    Tensor.relu_: _in_place(piecewise_linear.relu),
    F.leaky_relu: piecewise_linear.leaky_relu,
    F.leaky_relu_: _in_place(piecewise_linear.leaky_relu),
    F.relu6: piecewise_linear.relu6,
    F.hardtanh: piecewise_linear.hardtanh,
    F.hardtanh_: _in_place(piecewise_linear.hardtanh),
    F.threshold: piecewise_linear.threshold,
    torch.threshold: piecewise_linear.threshold,
    F.prelu: piecewise_linear.prelu,
    torch.prelu: piecewise_linear.prelu,
    Tensor.prelu: piecewise_linear.prelu,
    torch.abs: piecewise_linear.abs,
    torch.absolute: piecewise_linear.abs,
    Tensor.abs: piecewise_linear.abs,
    Tensor.absolute: piecewise_linear.abs,
    Tensor.__abs__: piecewise_linear.abs,
    F.avg_pool2d: pooling.avg_pool2d,
    F.adaptive_avg_pool2d: pooling.adaptive_avg_pool2d,
    F.max_pool2d: pooling.max_pool2d,
    torch.max_pool2d: pooling.max_pool2d,
    F.max_pool2d_with_indices: _with_indices(pooling.max_pool2d),
    F.adaptive_max_pool2d: pooling.adaptive_max_pool2d,
    F.adaptive_max_pool2d_with_indices: _with_indices(pooling.adaptive_max_pool2d),
    F.pad: pooling.pad,
    F.conv2d: conv.conv2d,
    torch.conv2d: conv.conv2d,
    F.conv_transpose2d: conv.conv_transpose2d,
    torch.conv_transpose2d: conv.conv_transpose2d,
    F.layer_norm: norm.layer_norm,
    F.group_norm: norm.group_norm,
    F.instance_norm: norm.instance_norm,
    F.batch_norm: norm.batch_norm,
    F.rms_norm: norm.rms_norm,
    torch.rms_norm: norm.rms_norm,
    torch.layer_norm: _layer_norm,
    torch.group_norm: _group_norm,
    torch.instance_norm: _channel_norm(norm.instance_norm),
    torch.batch_norm: _channel_norm(norm.batch_norm),
    **smooth.TWINS,
}


# torch's linear layer is at the floor by itself, but records neither of what InputPass may keep.
WITH_LINEAR: dict[Any, Callable[..., Any]] = {**TWINS, F.linear: conv.linear_twin}


def _elementwise(only_x: InputPass, func: Any, args: Any, kwargs: Any) -> Any:
    return func(*only_x.by_sample(args, broadcast=True), **kwargs)


def _elementwise_in_place(only_x: InputPass, func: Any, args: Any, kwargs: Any) -> Any:
    return func(args[0], *only_x.by_sample(args, broadcast=True)[1:], **kwargs)


def _joined(only_x: InputPass, func: Any, args: Any, kwargs: Any) -> Any:
    if not args:
        return func(**kwargs)
    return func(only_x.by_sample(args[0], broadcast=False), *args[1:], **kwargs)


# Where parameters may enter outside layers, and be told apart sample by sample.
SPREADING: dict[Any, Callable[..., Any]] = {
    **{getattr(space, name): _elementwise for space in (torch, Tensor)
       for name in ("add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide",
                    "maximum", "minimum", "max", "min", "where")},
    **dict.fromkeys([Tensor.add_, Tensor.sub_, Tensor.mul_, Tensor.div_], _elementwise_in_place),
    **dict.fromkeys([torch.cat, torch.concat, torch.concatenate, torch.stack], _joined),
}  # fmt: skip

HOOKS = {Tensor.register_hook, Tensor.register_post_accumulate_grad_hook, Tensor.retain_grad}


def twin_of(twins: dict[Any, Callable[..., Any]], func: Any, kwargs: Any) -> Callable[..., Any]:
    """What runs a call; a result written into out= has no derivative, and no twin."""
    return func if kwargs and "out" in kwargs else twins.get(func, func)


class Rerouting(TorchFunctionMode):
    """Active for the critic's forward and no longer."""

    def __init__(self, only_x: InputPass) -> None:
        super().__init__()
        self._pass = only_x
        self._twins = TWINS if only_x.keep == "values" else WITH_LINEAR
        self._spreading = SPREADING if only_x.keep == "shared" else {}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in HOOKS:
            self._pass.hooked = True
        spreading = self._spreading.get(func)
        if spreading is not None:
            return spreading(self._pass, func, args, kwargs or {})
        return twin_of(self._twins, func, kwargs)(*args, **(kwargs or {}))
