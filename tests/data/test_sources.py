"""Order, position and conversion of data."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from ganops.data import ImageSet, LoaderSource, open_data, to_float, to_uint8
from ganops.data.source import permutation


def numbered(n: int) -> torch.Tensor:
    return torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1)


def test_bytes_survive_the_round_trip_and_span_the_range() -> None:
    every = torch.arange(256, dtype=torch.int64).to(torch.uint8)
    there = to_float(every)
    assert there[0] == -1.0
    assert there[255] == 1.0
    assert there.dtype == torch.float32
    assert torch.equal(to_uint8(there), every)
    assert to_uint8(torch.tensor([-3.0, 0.0, 3.0])).tolist() == [0, 128, 255]
    for nudge in (-0.003, 0.003):  # nearest level, not the one below
        assert torch.equal(to_uint8((there + nudge).clamp(-1, 1)), every)
    half = torch.zeros(2)
    assert to_float(half) is half


def test_digits_are_the_real_ones_at_full_range() -> None:
    from sklearn.datasets import load_digits

    source = open_data("digits")
    assert source.shape == (1, 8, 8)
    assert source.classes == 10
    assert len(source) == 1797
    raw = load_digits()
    images = source.read(torch.arange(1797))
    assert images.dtype == torch.uint8
    assert images.min() == 0
    assert images.max() == 255
    counts = torch.from_numpy(raw.images)
    assert (images.squeeze(1) - counts * 255 / 16).abs().max() <= 0.5
    assert torch.equal(source.labels, torch.from_numpy(raw.target).long())


def test_every_image_once_per_epoch_in_an_order_of_seed_and_epoch() -> None:
    orders = [permutation(7, 0, 0), permutation(7, 0, 1), permutation(7, 1, 0)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(7))
    assert len({tuple(o.tolist()) for o in orders}) == 3
    assert torch.equal(permutation(7, 0, 1), orders[1])


def test_permutation_is_uniform() -> None:
    counts = torch.zeros(4, 4)
    for epoch in range(2000):
        counts[torch.arange(4), permutation(4, 9, epoch)] += 1
    assert (counts / 2000 - 0.25).abs().max() < 0.04  # 4 standard errors


@pytest.mark.parametrize("sizes", [[3, 3, 3, 3], [5, 7], [12], [1] * 12])
def test_batches_cross_epochs_and_do_not_depend_on_the_split(sizes) -> None:
    source = ImageSet(numbered(5), torch.arange(5), seed=2)
    images, labels = zip(*(source.take(n) for n in sizes), strict=True)
    got = torch.cat(images).flatten().long()
    expected = torch.cat([permutation(5, 2, e) for e in range(3)])[:12]
    assert torch.equal(got, expected)
    assert torch.equal(torch.cat(labels), expected)


def test_position_is_restored() -> None:
    source, again = (ImageSet(numbered(5), seed=2) for _ in range(2))
    source.take(7)
    again.load_state_dict(source.state_dict())
    assert torch.equal(source.take(9)[0], again.take(9)[0])


def loader(seed: int, *, own: bool = False) -> LoaderSource:
    generator = torch.Generator() if own else None
    data = TensorDataset(numbered(10), torch.arange(10))
    made = DataLoader(data, batch_size=4, shuffle=True, generator=generator)
    return LoaderSource(made, seed=seed)


@pytest.mark.parametrize("own", [False, True])
def test_a_shuffled_loader_resumes_exactly_and_leaves_torch_alone(own) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    source = loader(3, own=own)
    first = source.take(10)[0].flatten().tolist()
    assert sorted(first) == list(range(10))
    source.take(7)
    state = source.state_dict()
    expected = source.take(9)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(55)
    again = loader(3, own=own)
    again.load_state_dict(state)
    got = again.take(9)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])
    assert loader(4, own=own).take(10)[0].flatten().tolist() != first


def test_any_iterable_serves_but_an_iterator_does_not() -> None:
    batches = [numbered(3), numbered(2)]
    source = open_data(batches)
    assert source.take(8)[0].flatten().tolist() == [0, 1, 2, 0, 1, 0, 1, 2]
    with pytest.raises(TypeError, match="iterable more than once"):
        open_data(iter(batches))
    with pytest.raises(ValueError, match="gives no batches"):
        open_data([])
    with pytest.raises(TypeError, match="got int"):
        open_data(3)


def test_tensors_and_their_checks() -> None:
    images = torch.zeros(4, 3, 2, 2)
    assert open_data(images).shape == (3, 2, 2)
    assert open_data((images, torch.tensor([0, 1, 2, 0]))).classes == 3
    assert open_data((images, torch.rand(4, 2))).classes == 0
    with pytest.raises(TypeError, match="labels must be a tensor, got list"):
        open_data((images, [0, 1, 2, 0]))
    with pytest.raises(ValueError, match="classes must be >= 0, got -1"):
        open_data((images, torch.tensor([0, 1, -1, 0])))
    for bad, message in (
        (torch.zeros(4, 2, 2), "must give images"),
        (torch.zeros(4, 7, 2, 2), "1 to 4 channels"),
        (torch.full((1, 1, 2, 2), 2.0), r"must lie in \[-1, 1\], got 2 to 2"),
        (torch.full((1, 1, 2, 2), float("nan")), "must lie in"),
        (torch.zeros(0, 1, 2, 2), "holds no images"),
    ):
        with pytest.raises(ValueError, match=message):
            open_data(bad)
    with pytest.raises(TypeError, match=r"uint8 or floating, got torch.int64"):
        open_data(torch.zeros(1, 1, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="4 images but 3 labels"):
        open_data((images, torch.zeros(3)))
    with pytest.raises(ValueError, match="gives 2x2 images, but res is 4"):
        open_data([images], res=4)
    with pytest.raises(ValueError, match="res must be >= 1"):
        open_data(images, res=0)


def test_resizing_crops_to_the_square_first() -> None:
    wide = torch.zeros(1, 1, 4, 8, dtype=torch.uint8)
    wide[..., :2] = wide[..., 6:] = 255  # outside the central square
    assert open_data(wide, res=2).read(torch.tensor([0])).max() == 0
    inside = open_data(torch.full((2, 3, 4, 8), 77, dtype=torch.uint8), res=2)
    assert inside.shape == (3, 2, 2)
    assert (inside.read(torch.tensor([1])) == 77).all()


def test_unknown_names() -> None:
    with pytest.raises(FileNotFoundError, match=r"unknown data 'digts'.*did you mean 'digits'"):
        open_data("digts")
    with pytest.raises(FileNotFoundError, match="no such path and no such name"):
        open_data("/nowhere/at/all")
