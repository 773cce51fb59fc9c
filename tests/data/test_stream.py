"""One pass over a set, and .npz files of images."""

from __future__ import annotations

import threading
import zipfile

import numpy as np
import pytest
import torch

from ganops.data import ImageSet, ImageStream, open_data, to_uint8

IMAGES = torch.arange(7 * 3 * 4 * 5, dtype=torch.int64).remainder(251).to(torch.uint8)
IMAGES = IMAGES.reshape(7, 3, 4, 5)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("batch", [1, 3, 7, 64])
def test_every_image_once_in_order(workers, batch):
    batches = list(ImageStream(ImageSet(IMAGES), batch=batch, workers=workers))
    assert torch.equal(torch.cat(batches), IMAGES)
    assert [len(b) for b in batches[:-1]] == [batch] * (len(batches) - 1)


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_ranks_share_all_images(world):
    parts = [ImageStream(ImageSet(IMAGES), rank=r, world=world) for r in range(world)]
    got = {r: torch.cat([IMAGES[:0], *part]) for r, part in enumerate(parts)}
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(torch.equal(got[r], IMAGES[r::world]) for r in range(world))


def test_a_part_is_chosen_at_random_in_stored_order():
    source = ImageSet(torch.arange(200, dtype=torch.uint8).view(200, 1, 1, 1))
    (half,) = ImageStream(source, limit=100, batch=100)
    half = half.flatten().tolist()
    assert len(set(half)) == 100
    assert half == sorted(half)
    assert 30 < sum(value < 100 for value in half) < 70
    whole = torch.cat(list(ImageStream(source, limit=100, world=2, rank=1)))
    assert whole.flatten().tolist() == half[1::2]


def test_floating_images_become_bytes():
    floats = torch.linspace(-1, 1, 60).reshape(1, 3, 4, 5)
    assert torch.equal(next(iter(ImageStream(ImageSet(floats)))), to_uint8(floats))


def test_a_bad_image_is_raised_where_it_stands_and_reading_stops():
    seen = []
    lock = threading.Lock()

    def read(indices):
        with lock:
            seen.extend(indices)
        if 3 in indices:
            raise ValueError("image 3 is broken")
        return torch.zeros(len(indices), 1, 2, 2, dtype=torch.uint8)

    source = ImageSet(read, length=1000, shape=(1, 2, 2))
    batches = iter(ImageStream(source, batch=1, workers=2))
    for _ in range(3):
        next(batches)
    with pytest.raises(ValueError, match="image 3 is broken"):
        next(batches)
    assert len(seen) < 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch: expected an integer of at least 1, got 0"),
        ({"workers": -1}, "workers: expected an integer of at least 0, got -1"),
        ({"limit": 8}, "has 7 images, and 8 are asked"),
        ({"rank": 2, "world": 2}, "expected 0 <= rank < world"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        ImageStream(ImageSet(IMAGES), **options)


def test_a_loader_has_no_known_length():
    with pytest.raises(TypeError, match="one pass needs a set of known length"):
        ImageStream(open_data([IMAGES]))


def test_fingerprints_follow_content_not_paths(tmp_path):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for i, pixels in enumerate(arrays):
            image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as file:
        for i in range(3):
            file.write(tmp_path / "a" / f"{i}.png", f"{i}.png")
    prints = [open_data(str(tmp_path / n)).fingerprint() for n in ("a", "b", "c.zip")]
    assert len(set(prints)) == 1
    image.fromarray(255 - arrays[1]).save(tmp_path / "b" / "1.png")
    assert open_data(str(tmp_path / "b")).fingerprint() != prints[0]


def test_fingerprints_of_files_read_when_needed(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setattr("ganops.data.files.IN_MEMORY_BYTES", 0)
    for i in range(2):
        image.fromarray(np.full((4, 4), i, dtype=np.uint8)).save(tmp_path / f"{i}.png")
    first = open_data(str(tmp_path)).fingerprint()
    assert first == open_data(str(tmp_path)).fingerprint()
    assert first != open_data(str(tmp_path), res=2).fingerprint()
    image.fromarray(np.full((4, 4), 9, dtype=np.uint8)).save(tmp_path / "1.png")
    assert first != open_data(str(tmp_path)).fingerprint()


@pytest.mark.parametrize("key", ["images", "arr_0"])
def test_images_in_npz(tmp_path, key):
    path = tmp_path / "x.npz"
    np.savez(path, **{key: IMAGES.permute(0, 2, 3, 1).numpy()})
    assert torch.equal(torch.cat(list(ImageStream(open_data(str(path))))), IMAGES)
    np.savez(path, **{key: IMAGES[:, 0].numpy()})
    assert torch.equal(torch.cat(list(ImageStream(open_data(str(path))))), IMAGES[:, :1])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(3)}, "expected images under images or arr_0, got the keys \\['mu'\\]"),
        ({"images": np.zeros((2, 4, 4, 3))}, "must be uint8"),
        ({"images": np.zeros((2, 3, 4, 5), dtype=np.uint8)}, "channels last"),
        ({"images": np.array([{}], dtype=object)}, r"not a readable \.npz"),
    ],
)
def test_wrong_npz(tmp_path, arrays, message):
    path = tmp_path / "x.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message):
        open_data(str(path))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"not a readable \.npz"):
        open_data(str(path))
