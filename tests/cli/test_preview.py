"""`ganops augment`: a picture of what policies do."""

from __future__ import annotations

import pytest
import torch

from ganops.cli import main, preview


def test_each_row_is_its_policy_on_the_same_images():
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    found = preview.rows(images, ["flip", "", "cr"], seed=1)
    assert list(found) == ["original", "flip", "", "cr"]
    assert torch.equal(found["original"], images)
    assert torch.equal(found["flip"], images.flip(3))
    assert torch.equal(found[""], images)
    assert not torch.equal(found["cr"], images)
    alone = preview.rows(images, [], seed=1)
    assert list(alone)[1:] == list(preview.SINGLE)
    assert not any(
        torch.equal(shown, images) for name, shown in alone.items() if name != "original"
    )


def test_the_command_writes_a_picture(tmp_path, capsys):
    out = tmp_path / "a.png"
    assert main(["augment", "cr", "ada-bgc", "--n", "2", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "2 images under 2 policies" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["cra"], "expected policy as one of cr"),
        (["cr", "--n", "0"], "expected n of at least 1, got 0"),
        (["cr", "--out", "a.txt"], "expected out as a .png, .svg or .pdf file, got 'a.txt'"),
        (["cr", "--data", "nothing-here"], "nothing-here"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(
    options, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["augment", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
