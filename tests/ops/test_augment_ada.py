"""Policies with ADA, through the same two functions as all others."""

from __future__ import annotations

import pytest
import torch

from ganops import nn
from ganops.ops import AdaPolicy, AugmentPolicy, ada_augment, augment, consistency_pair

BYTES = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)


def test_a_name_is_ada_augment_at_p_1():
    x = torch.rand(4, 3, 8, 8)
    expected = ada_augment(x, "ada-bgc", 1.0, seed=5, offset=2)
    assert torch.equal(augment(x, "ada-bgc", seed=5, offset=2), expected)
    assert not torch.equal(augment(x, "ada-bgc", seed=6, offset=2), expected)


def test_p_is_the_policys():
    x, policy = torch.rand(64, 1, 4, 4), AdaPolicy(flip=1.0)
    y = augment(x, AugmentPolicy(ada=policy, p=0.5), seed=1)
    assert torch.equal(y, ada_augment(x, policy, 0.5, seed=1))
    assert 0 < (y != x).any(dim=(1, 2, 3)).sum() < 32  # a quarter


@pytest.mark.parametrize("out_dtype", [None, torch.float16])
@pytest.mark.parametrize("x", [BYTES, BYTES / 127.5 - 1], ids=["bytes", "floats"])
def test_a_pair_is_the_images_and_their_twins(x, out_dtype):
    pair, params = consistency_pair(x, "ada-bg", seed=3, out_dtype=out_dtype, return_params=True)
    given = (BYTES / 127.5 - 1).to(out_dtype or torch.float32)
    assert torch.equal(pair[:4], given)
    assert torch.equal(pair[4:], augment(x, "ada-bg", seed=3, out_dtype=out_dtype))
    assert params["affine"].shape == (4, 2, 3)


def test_the_gradient_of_a_pair_is_that_of_both_halves():
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    g = torch.rand(4, 3, 6, 6, dtype=torch.float64)
    (both,) = torch.autograd.grad(consistency_pair(x, "ada-bgc", seed=3), x, g)
    (twin,) = torch.autograd.grad(augment(x, "ada-bgc", seed=3), x, g[2:])
    torch.testing.assert_close(both, g[:2] + twin)


def test_policies_survive_yaml():
    policy = AugmentPolicy(ada=AdaPolicy(flip=0.5, filter_bands=(1, 0, 0, 1)), p=0.25)
    assert AugmentPolicy.from_yaml(policy.to_yaml()) == policy
    assert AugmentPolicy.from_yaml("ada: ada-bgc") == AugmentPolicy(ada="ada-bgc")
    assert AugmentPolicy.from_dict(AugmentPolicy().to_dict()) == AugmentPolicy()


def test_the_controller_takes_such_a_policy():
    assert nn.AdaptiveAugment(AugmentPolicy(ada="ada-bg")).policy == AdaPolicy.preset("ada-bg")
    with pytest.raises(ValueError, match="expected a policy with ada"):
        nn.AdaptiveAugment(AugmentPolicy())
