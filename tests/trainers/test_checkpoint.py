"""A checkpoint is complete or absent, whenever the process is killed."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from ganops.trainers import checkpoint

OLD, NEW = {"a": {"w": torch.zeros(3)}}, {"a": {"w": torch.ones(3)}, "b": {"n": 1}}


def test_states_of_every_kind_round_trip() -> None:
    tree = {
        "x": torch.arange(6).reshape(2, 3).T,
        "list": [1, 2.5, None, True, "s", (3, torch.zeros(0))],
        7: {"nested": {}},
        "big": 2**60,
    }
    tensors: dict[str, torch.Tensor] = {}
    packed = json.loads(json.dumps(checkpoint.pack(tree, tensors)))
    back = checkpoint.unpack(packed, tensors)
    assert torch.equal(back["x"], tree["x"])
    assert back[7] == {"nested": {}}
    assert back["list"][:5] == tree["list"][:5]
    assert isinstance(back["list"][5], tuple)
    assert back["big"] == 2**60
    with pytest.raises(TypeError, match="state 'f' holds a function"):
        checkpoint.pack({"f": test_states_of_every_kind_round_trip}, {})


CHANGES = ("fsync", "rename", "replace", "makedirs", "mkdir", "open", "close", "remove", "rmdir",
           "unlink", "sendfile", "utime", "chmod")  # fmt: skip


def killed_at(action, point: int) -> bool:
    """Run `action` in a child that kills itself at its `point`-th file operation. -> did it die?"""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(function):
            def wrapper(*args, **kwargs):
                nonlocal count
                count += 1
                if count == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)

            return wrapper

        for name in CHANGES:
            setattr(os, name, counted(getattr(os, name)))
        builtins.open = counted(builtins.open)
        try:
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_kill_at_every_file_operation_leaves_a_loadable_run(tmp_path) -> None:
    seen = set()
    for point in range(1, 300):
        run = tmp_path / str(point)
        folder = run / "checkpoints"
        folder.mkdir(parents=True)
        checkpoint.save(str(folder), "step-000001", OLD)
        checkpoint.save(str(folder), "step-000002", OLD)
        died = killed_at(
            lambda folder=folder: checkpoint.save(str(folder), "step-000003", NEW, keep=1), point
        )
        path = checkpoint.latest(str(run))
        value = checkpoint.load(path)["a"]["w"]
        name = os.path.basename(path)
        for visible in checkpoint.names(str(folder)):  # none is half-written
            assert "a" in checkpoint.load(str(folder / visible))
        seen.add(name)
        assert torch.equal(value, torch.ones(3) if name == "step-000003" else torch.zeros(3))
        checkpoint.save(str(folder), "step-000004", OLD, keep=1)  # and the next save succeeds
        assert os.path.basename(checkpoint.latest(str(run))) == "step-000004"
        assert sorted(os.listdir(folder)) == ["latest", "step-000004"]
        if not died:
            break
    else:
        pytest.fail("the child never finished")
    assert point > 15
    assert seen == {"step-000002", "step-000003"}


def test_damage_is_named(tmp_path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    path = checkpoint.save(str(folder), "step-000001", NEW)
    weights = os.path.join(path, "a.safetensors")
    content = Path(weights).read_bytes()
    for bad in (content[:-4], content[:5], b""):
        with open(weights, "wb") as file:
            file.write(bad)
        with pytest.raises(ValueError, match=r"a.safetensors is missing or damaged"):
            checkpoint.load(path)
    os.remove(weights)
    with pytest.raises(ValueError, match=r"a.safetensors is missing or damaged \(No such file"):
        checkpoint.load(path)
    Path(weights).write_bytes(content)
    assert torch.equal(checkpoint.load(path)["a"]["w"], torch.ones(3))


@pytest.mark.parametrize("signed", [False, True])  # by accident, and with a checksum to match
@pytest.mark.parametrize("text", ['{"format": 1, "parts": ', "[]", '{"parts": []}', "{}", ""])
def test_a_damaged_state_is_named(tmp_path, text, signed) -> None:
    path = checkpoint.write_folder(str(tmp_path), "step-000001", NEW)
    state, sums = (Path(path, name) for name in (checkpoint.STATE_FILE, checkpoint.SUMS))
    before = state.read_bytes()
    state.write_text(text)
    if signed:
        old, new = (hashlib.sha256(content).hexdigest() for content in (before, text.encode()))
        sums.write_text(sums.read_text().replace(old, new))
    with pytest.raises(ValueError, match=r"state.json is missing or damaged .* earlier checkpoint"):
        checkpoint.load(path)


def test_a_folder_can_be_written_again_and_again(tmp_path) -> None:
    (tmp_path / ".tmp-nan-step-000001").mkdir()  # of a process killed while it wrote
    for n in range(4):  # as the dumps of a run that fails at one step after every resume
        checkpoint.write_folder(str(tmp_path), "nan-step-000001", {"a": {"n": n}})
        assert os.listdir(tmp_path) == ["nan-step-000001"]
    assert checkpoint.load(str(tmp_path / "nan-step-000001")) == {"a": {"n": 3}}


def test_one_flipped_bit_anywhere_is_seen(tmp_path) -> None:
    path = checkpoint.write_folder(str(tmp_path), "step-000001", NEW)
    assert len(os.listdir(path)) == 3
    for name in os.listdir(path):
        file = Path(path, name)
        content = file.read_bytes()
        for at in {0, len(content) // 2, len(content) - 2}:
            flipped = bytearray(content)
            flipped[at] ^= 1
            file.write_bytes(flipped)
            with pytest.raises(ValueError, match="is missing or damaged"):
                checkpoint.load(path)
        file.write_bytes(content)
    assert checkpoint.load(path)["b"] == {"n": 1}


def test_the_checksums_are_those_of_sha256sum(tmp_path) -> None:
    path = checkpoint.write_folder(str(tmp_path), "step-000001", NEW)
    for line in Path(path, "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(Path(path, name).read_bytes()).hexdigest() == digest
    Path(path, "SHA256SUMS").write_text("")
    with pytest.raises(ValueError, match=r"SHA256SUMS is missing or damaged"):
        checkpoint.load(path)


def test_latest_falls_back_aloud_and_orders_by_number(tmp_path) -> None:
    folder = tmp_path / "checkpoints"
    with pytest.raises(FileNotFoundError, match="is not a run"):
        checkpoint.latest(str(tmp_path))
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        checkpoint.latest(str(tmp_path))
    for step in (999_999, 1_000_000):
        checkpoint.save(str(folder), f"step-{step:06d}", OLD)
    os.remove(folder / "latest")
    with pytest.warns(RuntimeWarning, match="latest: there is no such file; step-1000000 is taken"):
        assert checkpoint.latest(str(tmp_path)).endswith("step-1000000")
    (folder / "latest").write_text("step-000777\n")
    with pytest.warns(RuntimeWarning, match="names step-000777, which is gone; step-1000000"):
        assert checkpoint.latest(str(tmp_path)).endswith("step-1000000")
    for garbage in (b"", b"\xff\x00\xfe", b"../../elsewhere\n", b"step-\n"):
        (folder / "latest").write_bytes(garbage)
        with pytest.raises(ValueError, match=r"latest is damaged: .*remove it to go on from"):
            checkpoint.latest(str(tmp_path))


def test_keep_removes_the_oldest(tmp_path) -> None:
    for step in range(5):
        checkpoint.save(str(tmp_path), f"step-{step:06d}", OLD, keep=2)
    assert checkpoint.names(str(tmp_path)) == ["step-000003", "step-000004"]
