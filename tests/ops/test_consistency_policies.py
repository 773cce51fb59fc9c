"""The consistency penalties with policies, against the plain formula on the same images."""

from __future__ import annotations

import pytest
import torch

from ganops.ops import (
    AugmentPolicy,
    augment,
    bcr_penalty,
    consistency_pair,
    cr_penalty,
)

torch.manual_seed(0)
CRITIC = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3), torch.nn.LeakyReLU(0.2), torch.nn.Flatten(), torch.nn.Linear(144, 1)
).double()
REAL, FAKE = (torch.rand(6, 3, 8, 8, dtype=torch.float64) for _ in range(2))


def plain(x, seed, policy="cr"):
    first, second = CRITIC(consistency_pair(x, policy, seed=seed)).chunk(2)
    return 10 * (first - second).square().mean()


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("policy", ["cr", "diffaug", "ada-bgc", AugmentPolicy(noise=0.1)])
def test_cr_is_the_formula(policy, joint):
    value = cr_penalty(CRITIC, REAL, policy=policy, seed=7, joint=joint)
    expected = plain(REAL, 7, policy)
    torch.testing.assert_close(value, expected)
    for ours, theirs in zip(
        *(torch.autograd.grad(v, CRITIC.parameters()) for v in (value, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_fakes_are_transformed_independently_of_reals():
    both = bcr_penalty(CRITIC, REAL, REAL, seed=7)
    assert not torch.allclose(both, 2 * plain(REAL, 7))
    torch.testing.assert_close(
        bcr_penalty(CRITIC, REAL, FAKE, seed=7), plain(REAL, 7) + plain(FAKE, ~7)
    )


def test_two_halves_with_offsets_are_the_whole():
    halves = [cr_penalty(CRITIC, REAL[i : i + 3], seed=7, offset=i) for i in (0, 3)]
    torch.testing.assert_close(sum(halves) / 2, cr_penalty(CRITIC, REAL, seed=7))


def test_a_generator_decides():
    drawn = [
        cr_penalty(CRITIC, REAL, generator=torch.Generator().manual_seed(s)) for s in (3, 3, 4)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_bytes_are_images_too():
    x = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    critic = CRITIC.float()
    try:
        torch.testing.assert_close(
            cr_penalty(critic, x, seed=1), cr_penalty(critic, x / 127.5 - 1, seed=1)
        )
    finally:
        CRITIC.double()


def test_no_shift_is_the_identity_and_a_shift_has_an_inverse_inside():
    assert torch.equal(augment(REAL, AugmentPolicy(flip=0.0, shift=0.0), seed=0), REAL)
    assert cr_penalty(CRITIC, REAL, policy="", seed=0) == 0
    moved, drawn = augment(REAL, AugmentPolicy(flip=0.0, shift=0.25), seed=0, return_params=True)
    assert drawn["shift"].abs().amax() == 2
    for image, back, (dy, dx) in zip(REAL, moved, drawn["shift"].int().tolist(), strict=True):
        assert torch.equal(torch.roll(back, (dy, dx), (1, 2))[:, 2:-2, 2:-2], image[:, 2:-2, 2:-2])
