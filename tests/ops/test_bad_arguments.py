"""What users mistake is told in one sentence: what was expected, and what was got."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ganops
from ganops import ops

NAN, INF = float("nan"), float("inf")
X = torch.ones(2, 4, 6, 6)
INTEGERS, META = X.long(), X.to("meta")
KERNEL = torch.ones(4, 4, 3, 3)
SHAPE = (6,)


def critic(x):
    return x.flatten(1).sum(1)


def spectral(**given):
    w, u, v = torch.ones(3, 4), torch.ones(3), torch.ones(4)
    given = {"weights": [w], "us": [u], "vs": [v], **given}
    return ops.spectral_norm_weights(
        given.pop("weights"), given.pop("us"), given.pop("vs"), **given
    )


def refused(error, start, call, *args, **kwargs):
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    said = str(caught.value)
    assert said.startswith(start), said
    assert "expected" in said
    assert ", got " in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("error", "given"),
    [
        *[(TypeError, {"n_iterations": n}) for n in (1.5, None, "a", True)],
        (ValueError, {"n_iterations": -1}),
        *[(ValueError, {"eps": e}) for e in (-1.0, NAN, INF)],
        *[(TypeError, {"eps": e}) for e in (None, "a", True)],
        *[(TypeError, {"dim": d}) for d in (0.5, None, True)],
        (ValueError, {"dim": 2}),
        *[(TypeError, {name: None}) for name in ("weights", "us", "vs")],
        *[(TypeError, {name: [None]}) for name in ("weights", "us", "vs")],
        (ValueError, {"us": []}),
    ],
)
@pytest.mark.parametrize("impl", ["auto", "reference"])
def test_spectral_norm(impl, error, given):
    with ganops.use_impl(impl):
        refused(error, "spectral_norm_weights: ", spectral, **given)


def test_spectral_norm_takes_an_eps_of_zero():
    assert spectral(eps=0, n_iterations=torch.tensor(1).item())[0].isfinite().all()


def test_layers_under_a_bad_eps_say_so():
    layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(2, 2), eps=NAN)
    root = ganops.nn.batch_spectral_norm(torch.nn.Sequential(layer))
    refused(ValueError, "spectral_norm_weights: ", root, torch.ones(1, 2))


@pytest.mark.parametrize("bad", [None, "a", 3, [[1.0]], INTEGERS], ids=str)
@pytest.mark.parametrize(
    "name",
    ["leaky_relu", "silu", "gelu", "softplus", "elu", "selu", "mish", "hardswish", "pixel_norm",
     "instance_norm"],
)  # fmt: skip
def test_inputs_of_activations(name, bad):
    if isinstance(bad, (str, int, list)):  # torch's own function words these, or we do
        with pytest.raises(TypeError, match=r"must be Tensor|expected"):
            getattr(ops, name)(bad)
    else:
        refused(TypeError, f"{name}: ", getattr(ops, name), bad)


CALLS = [
    (TypeError, "relu: ", lambda: ops.relu(None)),
    (TypeError, "abs: ", lambda: ops.abs(X.bool())),
    (TypeError, "leaky_relu: ", lambda: ops.leaky_relu(X, None)),
    (TypeError, "leaky_relu: ", lambda: ops.leaky_relu(X, "a")),
    (TypeError, "hardtanh: ", lambda: ops.hardtanh(X, [], 1.0)),
    (TypeError, "threshold: ", lambda: ops.threshold(X, 0.0, None)),
    (TypeError, "prelu: ", lambda: ops.prelu(X, None)),
    (TypeError, "prelu: ", lambda: ops.prelu(X, torch.ones(4).double())),
    (TypeError, "tanh: ", lambda: ops.tanh(None)),
    (TypeError, "softplus: ", lambda: ops.softplus(X, "a")),
    (TypeError, "conv2d: ", lambda: ops.conv2d(None, KERNEL)),
    (TypeError, "conv2d: ", lambda: ops.conv2d("a", KERNEL)),
    (TypeError, "conv2d: ", lambda: ops.conv2d(X.bool(), KERNEL)),
    (TypeError, "conv2d: ", lambda: ops.conv2d(X, KERNEL, "a")),
    (TypeError, "conv2d: ", lambda: ops.conv2d(X, KERNEL, None, "a")),
    (TypeError, "conv2d: ", lambda: ops.conv2d(X, KERNEL, groups=1.5)),
    (TypeError, "conv_transpose2d: ", lambda: ops.conv_transpose2d(X, KERNEL, groups=None)),
    (TypeError, "conv_transpose2d: ", lambda: ops.conv_transpose2d(None, KERNEL)),
    (TypeError, "avg_pool2d: ", lambda: ops.avg_pool2d(None, 2)),
    (TypeError, "avg_pool2d: ", lambda: ops.avg_pool2d(X, "a")),
    (TypeError, "avg_pool2d: ", lambda: ops.avg_pool2d(X, 1.5)),
    (ValueError, "avg_pool2d: ", lambda: ops.avg_pool2d(torch.ones(3), 2)),
    (TypeError, "max_pool2d: ", lambda: ops.max_pool2d(X, 2, padding="a")),
    (TypeError, "adaptive_avg_pool2d: ", lambda: ops.adaptive_avg_pool2d("a", 2)),
    (TypeError, "adaptive_max_pool2d: ", lambda: ops.adaptive_max_pool2d(INTEGERS, 2)),
    (TypeError, "pad: ", lambda: ops.pad(None, (1, 1), "reflect")),
    (TypeError, "pad: ", lambda: ops.pad(X, ("a", 1, 1, 1), "reflect")),
    (TypeError, "layer_norm: ", lambda: ops.layer_norm(None, SHAPE)),
    (TypeError, "layer_norm: ", lambda: ops.layer_norm(X, SHAPE, "a")),
    (TypeError, "layer_norm: ", lambda: ops.layer_norm(X, 6)),
    (TypeError, "rms_norm: ", lambda: ops.rms_norm(X, SHAPE, 3)),
    (TypeError, "group_norm: ", lambda: ops.group_norm(INTEGERS, 2)),
    (ValueError, "group_norm: ", lambda: ops.group_norm(X, 0)),
    (TypeError, "batch_norm: ", lambda: ops.batch_norm(None, None, None, training=True)),
    (ValueError, "batch_norm: ", lambda: ops.batch_norm(torch.ones(3), None, None, training=True)),
    (ValueError, "pixel_norm: ", lambda: ops.pixel_norm(X, -1.0)),
    (ValueError, "pixel_norm: ", lambda: ops.pixel_norm(X, NAN)),
    (TypeError, "pixel_norm: ", lambda: ops.pixel_norm(X, None)),
    (TypeError, "minibatch_stddev: ", lambda: ops.minibatch_stddev(X, None)),
    (TypeError, "minibatch_stddev: ", lambda: ops.minibatch_stddev(X, 1.5)),
    (TypeError, "minibatch_stddev: ", lambda: ops.minibatch_stddev(X, True)),
    (TypeError, "minibatch_stddev: ", lambda: ops.minibatch_stddev(X, 2, "a")),
    (TypeError, "gradient_penalty: ", lambda: ops.gradient_penalty(None, X, X)),
    (TypeError, "r1_penalty: ", lambda: ops.r1_penalty("a", X)),
    (TypeError, "r1_penalty: ", lambda: ops.r1_penalty(critic, X, output="a")),
    (TypeError, "r2_penalty: ", lambda: ops.r2_penalty(critic, X, critic_args=3)),
    (TypeError, "r2_penalty: ", lambda: ops.r2_penalty(critic, X, critic_kwargs=3)),
    (TypeError, "dragan_penalty: ", lambda: ops.dragan_penalty(3, X)),
    (TypeError, "dragan_penalty: ",
     lambda: ops.dragan_penalty(critic, X, noise="paper", variance="a")),
    (ValueError, "dragan_penalty: ",
     lambda: ops.dragan_penalty(critic, X, noise="paper", variance=0.0)),
    (TypeError, "loss_and_r1: ", lambda: ops.loss_and_r1(critic, X, None, gamma=1.0)),
    (TypeError, "loss_and_r1: ", lambda: ops.loss_and_r1(critic, X, torch.sum, gamma=None)),
    (TypeError, "loss_and_r1: ", lambda: ops.loss_and_r1(critic, X, torch.sum, gamma="a")),
    (ValueError, "loss_and_r1: ", lambda: ops.loss_and_r1(critic, X, torch.sum, gamma=NAN)),
    (TypeError, "wgan_gp_loss: ", lambda: ops.wgan_gp_loss(critic, X, X, weight=None)),
    (ValueError, "wgan_gp_loss: ", lambda: ops.wgan_gp_loss(critic, X, X, weight=NAN)),
    (TypeError, "wgan_gp_loss: ", lambda: ops.wgan_gp_loss(critic, X, X, batched="a")),
    (TypeError, "penalty_from_gradient: ", lambda: ops.penalty_from_gradient(X, center=True)),
    (TypeError, "penalty_from_gradient: ", lambda: ops.penalty_from_gradient(X, one_sided="a")),
    (TypeError, "penalty_and_gradient: ", lambda: ops.penalty_and_gradient(X, scale=None)),
    (TypeError, "path_length_penalty: ",
     lambda: ops.path_length_penalty(critic, torch.ones(2, 3), torch.zeros(()), decay="a")),
    (ValueError, "path_length_penalty: ",
     lambda: ops.path_length_penalty(critic, torch.ones(2, 3), torch.zeros(()), decay=1.5)),
    (TypeError, "path_length_penalty: expected generator",
     lambda: ops.path_length_penalty(None, torch.ones(2, 3), torch.zeros(()))),
    (TypeError, "report: ", lambda: ganops.nn.report(torch.nn.ReLU)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "start", "call"), CALLS)
def test_calls(error, start, call):
    refused(error, start, call)


def test_torchs_own_sentences_and_causes_stay():
    with pytest.raises(RuntimeError, match=r"expected input.* to have 3 channels"):
        ops.conv2d(X, KERNEL[:, :3])
    with pytest.raises(TypeError, match="int64") as caught:
        ops.leaky_relu(INTEGERS)
    assert isinstance(caught.value.__cause__, NotImplementedError)


def test_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip("numpy")
    value = ops.penalty_from_gradient(X, center=numpy.float32(1), one_sided=numpy.bool_(True))
    assert torch.equal(value, ops.penalty_from_gradient(X, one_sided=True))
    assert ops.minibatch_stddev(X, numpy.int64(2)).shape == (2, 5, 6, 6)


@pytest.mark.parametrize("two", [np.int64(2), torch.tensor(2), torch.Size([2])])
def test_whatever_torch_takes_for_a_number_is_one(two):
    x, w = torch.randn(1, 2, 6, 6), torch.randn(2, 2, 2, 2)

    def critic(x):
        y = F.avg_pool2d(F.max_pool2d(F.pad(x, [1, 1, 1, 1]), two), two)
        return y.sum() + F.conv_transpose2d(F.conv2d(x, w, None, two), w, None, two).flatten(1)

    expected = ops.r1_penalty(critic, x, engine="autograd")
    torch.testing.assert_close(ops.r1_penalty(critic, x), expected)
