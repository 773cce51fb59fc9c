"""The ops: drop-in functions, each with a plain PyTorch reference, native and Triton kernels."""

from .bias_act import bias_act
from .conv import conv2d, conv_transpose2d, linear
from .gradient_penalty import (
    dragan_penalty,
    gradient_penalty,
    interpolate,
    loss_and_r1,
    path_length_penalty,
    penalty_and_gradient,
    penalty_from_gradient,
    r1_penalty,
    r2_penalty,
    wgan_gp_loss,
)
from .norm import batch_norm, group_norm, instance_norm, layer_norm, pixel_norm, rms_norm
from .philox import random_bits, random_normal, random_uniform
from .piecewise_linear import abs, hardtanh, leaky_relu, prelu, relu, relu6, threshold
from .pooling import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d, pad

__all__ = [
    "abs",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "batch_norm",
    "bias_act",
    "conv2d",
    "conv_transpose2d",
    "dragan_penalty",
    "gradient_penalty",
    "group_norm",
    "hardtanh",
    "instance_norm",
    "interpolate",
    "layer_norm",
    "leaky_relu",
    "linear",
    "loss_and_r1",
    "max_pool2d",
    "pad",
    "path_length_penalty",
    "penalty_and_gradient",
    "penalty_from_gradient",
    "pixel_norm",
    "prelu",
    "r1_penalty",
    "r2_penalty",
    "random_bits",
    "random_normal",
    "random_uniform",
    "relu",
    "relu6",
    "rms_norm",
    "threshold",
    "wgan_gp_loss",
]
