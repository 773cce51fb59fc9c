"""The ops: drop-in functions, each with a plain PyTorch reference, native and Triton kernels."""

from .ada import AdaPolicy, ada_augment
from .augment import AugmentPolicy, augment, consistency_pair
from .bias_act import bias_act
from .consistency import (
    ConsistencyScores,
    bcr_penalty,
    consistency_loss,
    consistency_scores,
    cr_penalty,
    perturb_latent,
    zcr_d_penalty,
    zcr_g_penalty,
)
from .conv import conv2d, conv_transpose2d, linear
from .feature_stats import feature_stats_
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
from .minibatch_stddev import minibatch_stddev
from .norm import batch_norm, group_norm, instance_norm, layer_norm, pixel_norm, rms_norm
from .philox import random_bits, random_normal, random_uniform
from .piecewise_linear import abs, hardtanh, leaky_relu, prelu, relu, relu6, threshold
from .pooling import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d, pad
from .random_filters import random_filters
from .random_projection import random_projection
from .resize import resize_normalize
from .smooth import elu, gelu, hardswish, mish, selu, sigmoid, silu, softplus, tanh
from .spectral_norm import spectral_norm_weights
from .upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

__all__ = [
    "AdaPolicy",
    "AugmentPolicy",
    "ConsistencyScores",
    "abs",
    "ada_augment",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "augment",
    "avg_pool2d",
    "batch_norm",
    "bcr_penalty",
    "bias_act",
    "consistency_loss",
    "consistency_pair",
    "consistency_scores",
    "conv2d",
    "conv_transpose2d",
    "cr_penalty",
    "downsample2d",
    "dragan_penalty",
    "elu",
    "feature_stats_",
    "filter2d",
    "gelu",
    "gradient_penalty",
    "group_norm",
    "hardswish",
    "hardtanh",
    "instance_norm",
    "interpolate",
    "layer_norm",
    "leaky_relu",
    "linear",
    "loss_and_r1",
    "max_pool2d",
    "minibatch_stddev",
    "mish",
    "pad",
    "path_length_penalty",
    "penalty_and_gradient",
    "penalty_from_gradient",
    "perturb_latent",
    "pixel_norm",
    "prelu",
    "r1_penalty",
    "r2_penalty",
    "random_bits",
    "random_filters",
    "random_normal",
    "random_projection",
    "random_uniform",
    "relu",
    "relu6",
    "resize_normalize",
    "rms_norm",
    "selu",
    "setup_filter",
    "sigmoid",
    "silu",
    "softplus",
    "spectral_norm_weights",
    "tanh",
    "threshold",
    "upfirdn2d",
    "upsample2d",
    "wgan_gp_loss",
    "zcr_d_penalty",
    "zcr_g_penalty",
]
