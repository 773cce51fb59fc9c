"""Bytes from any source go straight into the augmenting ops: the docs' data path."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from ganops import ops
from ganops.data import ImageSet, open_data, to_float
from ganops.ops import AugmentPolicy


def bytes_of(n=12, channels=3):
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (n, channels, 16, 16), generator=generator).to(torch.uint8)


SOURCES = {
    "images": lambda: ImageSet(bytes_of(), None, seed=1),
    "tensor": lambda: open_data(bytes_of(), res=16),
    "loader": lambda: open_data(DataLoader(TensorDataset(bytes_of()), batch_size=5), res=16),
}


@pytest.mark.parametrize("policy", ["cr", "diffaug", "ada-bgc"])
@pytest.mark.parametrize("kind", SOURCES)
def test_a_pair_of_bytes_is_that_of_their_floats(kind, policy):
    given, _ = SOURCES[kind]().take(7)
    assert (given.dtype, given.shape) == (torch.uint8, (7, 3, 16, 16))
    pair = ops.consistency_pair(given, policy, seed=4)
    assert torch.equal(pair[:7], to_float(given))
    floats = ops.consistency_pair(to_float(given), policy, seed=4)
    torch.testing.assert_close(pair, floats, rtol=0, atol=1e-6 if policy == "diffaug" else 0)
    half = ops.consistency_pair(given, policy, seed=4, out_dtype=torch.float16)
    assert torch.equal(half, pair.half())


def test_a_loader_of_other_parts_is_refused():
    x = bytes_of()
    with pytest.raises(ValueError, match=r"images or \(images, labels\), got 3 parts"):
        open_data(DataLoader(TensorDataset(x, x, x), batch_size=5), res=16).take(2)


def test_two_ranks_with_offsets_are_one_call():
    """As the page says: the number of a batch's first sample is its offset."""
    source, whole = SOURCES["images"](), SOURCES["images"]().take(8)[0]
    parts = [ops.augment(source.take(4)[0], "cr", seed=9, offset=at) for at in (0, 4)]
    assert torch.equal(torch.cat(parts), ops.augment(whole, "cr", seed=9))


def test_the_pages_table_of_other_pipelines():
    """Each row of docs/augmentation.md that names a policy, against what it replaces."""
    x, still = to_float(bytes_of(200)), {"flip": 0.0, "shift": 0.0}

    def drawn(**fields):
        policy = AugmentPolicy(**{**still, **fields})
        return ops.augment(x, policy, seed=3, return_params=True)

    y, _ = drawn(flip=1.0)
    assert torch.equal(y, x.flip(3))  # RandomHorizontalFlip(1)
    y, d = drawn(shift=4 / 16)  # RandomCrop(16, padding=4, padding_mode="reflect")
    padded = torch.nn.functional.pad(x, (4,) * 4, "reflect")
    assert d["shift"].abs().amax() == 4
    for image, wide, (dy, dx) in zip(y, padded, d["shift"].int().tolist(), strict=True):
        assert torch.equal(image, wide[:, 4 + dy : 20 + dy, 4 + dx : 20 + dx])
    y, d = drawn(cutout=0.5)  # RandomErasing, a square
    assert (d["cutout"][:, 2:] == 8).all()
    assert ((y == x) | (y == 0)).all()
    y, d = drawn(contrast=0.5)  # ColorJitter(contrast)
    mean = x.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(y, (x - mean) * d["contrast"].view(-1, 1, 1, 1) + mean)
    y, _ = drawn(noise=0.1)  # GaussianNoise
    assert abs((y - x).std() - 0.1) < 0.001
