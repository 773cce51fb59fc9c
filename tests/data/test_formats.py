"""Folders, zips and IDX files; truncated and odd ones are errors that name the entry."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganops.data import files, open_data


def png(array: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array, **options).save(stream, format="PNG")
    return stream.getvalue()


def colour(seed: int, size: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def grey(seed: int, size: int = 4) -> np.ndarray:
    return colour(seed, size)[..., 0]


@pytest.fixture
def store(tmp_path):
    """Write entries into a folder or a zip. -> its path"""

    def write(entries: dict[str, bytes], kind: str = "folder") -> str:
        if kind == "zip":
            path = tmp_path / "set.zip"
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in entries.items():
                    archive.writestr(name, content)
            return str(path)
        for name, content in entries.items():
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return str(tmp_path / "set")

    return write


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_images_read_back_bit_exact_with_labels(store, kind, in_memory, monkeypatch) -> None:
    if not in_memory:
        monkeypatch.setattr(files, "IN_MEMORY_BYTES", 0)
    names = [f"00000/img{i:08d}.png" for i in range(5)]
    labels = {"labels": [[n, i % 3] for i, n in enumerate(names)][::-1]}
    entries = {n: png(colour(i)) for i, n in enumerate(names)}
    path = store({**entries, "dataset.json": json.dumps(labels).encode()}, kind)
    source = open_data(path)
    assert source.shape == (3, 4, 4)
    assert source.classes == 3
    assert len(source) == 5
    assert source.labels.tolist() == [0, 1, 2, 0, 1]
    expected = torch.stack([torch.from_numpy(colour(i)).permute(2, 0, 1) for i in range(5)])
    assert torch.equal(source.read(torch.arange(5)), expected)
    images, _ = source.take(12)
    assert images.shape == (12, 3, 4, 4)


def test_labels_null_vectors_and_from_folders(store) -> None:
    entries = {"a/x.png": png(grey(0)), "b/y.png": png(grey(1)), "b/z.png": png(grey(2))}
    path = store(entries)
    assert open_data(path).labels.tolist() == [0, 1, 1]
    store({"dataset.json": b'{"labels": null}'})
    assert open_data(path).labels is None
    vectors = {"labels": [[n, [0.5, i]] for i, n in enumerate(entries)]}
    store({"dataset.json": json.dumps(vectors).encode()})
    assert open_data(path).labels.tolist() == [[0.5, 0.0], [0.5, 1.0], [0.5, 2.0]]
    assert open_data(path).classes == 0


def test_numbered_folders_of_the_zip_layout_are_not_classes(store) -> None:
    path = store({f"{i:05d}/img{i:08d}.png": png(grey(i)) for i in range(2)})
    assert open_data(path).labels is None


@pytest.mark.parametrize(
    "text",
    [
        '{"labels": [["x.png", 1]',
        '{"lables": null}',
        '{"labels": [1]}',
        '{"labels": [["x.png", "a"]]}',
        '{"labels": [["x.png", -1]]}',
        '{"labels": [["x.png", 0.5]]}',
        '{"labels": [["x.png", [[1]]]]}',
    ],
)
def test_bad_label_files(store, text) -> None:
    with pytest.raises(ValueError, match=r"dataset.json"):
        open_data(store({"x.png": png(grey(0)), "dataset.json": text.encode()}))


def test_a_missing_label_is_named(store) -> None:
    listed = json.dumps({"labels": [["x.png", 1]]}).encode()
    path = store({"x.png": png(grey(0)), "y.png": png(grey(1)), "dataset.json": listed})
    with pytest.raises(ValueError, match=r"has no label for 'y.png'"):
        open_data(path)


def sixteen_bit() -> bytes:
    return png(np.zeros((4, 4), dtype=np.uint16))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(colour(1))[:40], "image 'b.png' cannot be decoded"),
        (b"", "image 'b.png' cannot be decoded: it is empty"),
        (b"not an image", "image 'b.png' cannot be decoded"),
        (png(np.zeros((4, 4, 4), np.uint8)), "image 'b.png' has an alpha channel"),
        (sixteen_bit(), "image 'b.png' has mode I;16; 8 bits"),
        (png(colour(1, 5)), r"image 'b.png' has shape \(3, 5, 5\), but 'a.png' has \(3, 4, 4\)"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_odd_images_are_named(store, content, message, kind) -> None:
    path = store({"a.png": png(colour(0)), "b.png": content}, kind)
    with pytest.raises(ValueError, match=message):
        open_data(path)


def test_mixed_modes(store) -> None:
    path = store({"a.png": png(colour(0)), "b.png": png(grey(1))})
    assert open_data(path).shape == (3, 4, 4)  # grey in a colour set becomes colour
    store({"a.png": png(grey(0)), "b.png": png(colour(1))})
    with pytest.raises(ValueError, match=r"'b.png' is in colour, but 'a.png' is grey"):
        open_data(path)


def test_sizes_may_differ_with_res(store) -> None:
    path = store({"a.png": png(colour(0)), "b.png": png(colour(1, 9))})
    assert open_data(path, res=4).shape == (3, 4, 4)


def test_damaged_and_empty_containers(store, tmp_path) -> None:
    path = store({"a.png": png(colour(0)), "b.png": png(colour(1))}, "zip")
    content = Path(path).read_bytes()
    for cut in (len(content) - 30, 10):
        with open(path, "wb") as file:
            file.write(content[:cut])
        with pytest.raises(ValueError, match="is not a readable zip file"):
            open_data(path)
    where = content.index(b"IDAT")
    with open(path, "wb") as file:
        file.write(content[:where] + b"XXXXXXX" + content[where + 7 :])
    with pytest.raises(ValueError, match=r"entry 'a.png' is damaged"):
        open_data(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        open_data(str(tmp_path / "empty"))
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(
        ValueError, match=r"neither a folder, a .zip or .npz with images, nor an IDX"
    ):
        open_data(str(text))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_named(store) -> None:
    path = store({"a.png": png(colour(0))})
    os.chmod(path, 0)
    with pytest.raises(PermissionError, match="permission denied"):
        open_data(path)
    os.chmod(path, 0o700)


def test_an_unreadable_folder_is_named_for_root_too(store, monkeypatch) -> None:
    path = store({"a.png": png(colour(0))})
    monkeypatch.setattr(os, "access", lambda *a, **k: False)
    with pytest.raises(PermissionError, match=r"cannot read data .*: permission denied"):
        open_data(path)


def idx(array: np.ndarray, order: str = ">") -> bytes:
    magic = 0x00000800 + array.ndim
    return struct.pack(f"{order}{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("packed", [False, True])
def test_idx_with_labels(tmp_path, packed) -> None:
    pack, end = (gzip.compress, ".gz") if packed else (bytes, "")
    path = tmp_path / f"t10k-images-idx3-ubyte{end}"
    path.write_bytes(pack(idx(IMAGES)))
    assert open_data(str(path)).labels is None
    labels = tmp_path / f"t10k-labels-idx1-ubyte{end}"
    labels.write_bytes(pack(idx(np.array([7, 2], np.uint8))))
    source = open_data(str(path))
    assert source.shape == (1, 3, 4)
    assert source.labels.tolist() == [7, 2]
    assert source.classes == 8
    assert torch.equal(source.read(torch.arange(2)).squeeze(1), torch.from_numpy(IMAGES))
    labels.write_bytes(pack(idx(np.array([7], np.uint8))))
    with pytest.raises(ValueError, match="holds 1 labels for 2 images"):
        open_data(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(IMAGES)[:-1], "should hold 24 bytes after its header .*, got 23"),
        (idx(IMAGES) + b"\0", "should hold 24 bytes .*, got 25"),
        (idx(IMAGES)[:9], "should hold 0 bytes"),
        (idx(IMAGES, "<"), "its bytes are swapped"),
        (idx(IMAGES[0]), "expected magic 0x00000803"),
        (gzip.compress(idx(IMAGES))[:20], "is a damaged gzip file"),
    ],
)
def test_damaged_idx(tmp_path, content, message) -> None:
    path = tmp_path / ("x-idx3.gz" if content[:2] == b"\x1f\x8b" else "x-idx3")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_data(str(path))
