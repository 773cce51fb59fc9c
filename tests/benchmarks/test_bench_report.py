"""The report says what lost, draws it, and touches a README only between its markers."""

from __future__ import annotations

import sys

import pytest
import report
import results

README = f"# title\n\nbefore\n{report.BEGIN}\nold table\n{report.END}\nafter\n"


@pytest.fixture
def folder(document, tmp_path):
    path = tmp_path / "results"
    results.write_json(path / "some-cpu-avx2-2c.json", document)
    return path


def call(*arguments):
    return report.main([str(each) for each in arguments])


def test_losing_rows_stay_and_are_named(document):
    text = report.markdown(document)
    assert "| `slow_op` | 8x8 | stock |" in text
    assert text.count("**loses**") == 4  # slow_op to stock, fast_op to torch.compile; both runs
    assert "Rows that lose: 1 of 2" in text
    assert "- `slow_op`, 8x8, cpu-1: 0.50x (0.45 to 0.53) of stock's speed; why" in text
    assert "0.98x (0.88 to 1.03) of stock's speed (within its spread)" in text
    assert "Rows that lose to torch.compile: 1\n" in text
    assert "- `fast_op`, 64x64, cpu-1: 0.70x of torch.compile's speed" in text
    assert "- torch.compile: InductorError: no compiler (slow_op, 8x8, cpu-1)" in text


def test_rows_measured_on_a_busy_machine_are_marked(document):
    assert " busy |" not in report.markdown(document)
    document["runs"][1]["rows"][1]["preempted_per_s"] = 250.0
    text = report.markdown(document)
    assert text.count(" busy |") == 1
    assert "(within its spread) (the machine was busy)" in text


def test_a_machine_without_losses_says_so(document):
    for run in document["runs"]:
        run["rows"] = run["rows"][:1]
        del run["rows"][0]["arms"]["torch.compile"]
    text = report.markdown(document)
    assert text.count("Rows that lose: 0 of 1") == 2
    assert "None." in text
    assert "**loses**" not in text


def test_report_writes_a_table_and_a_picture(folder, tmp_path, capsys):
    assert call("--results", folder, "--out", tmp_path / "out") == 0
    picture = (tmp_path / "out" / "some-cpu-avx2-2c-cpu-1.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    assert "fast_op" in (tmp_path / "out" / "some-cpu-avx2-2c.md").read_text()
    said = capsys.readouterr().out
    assert "cpu, default: 1 of 2 rows lose" in said
    assert "slow_op" in said


def test_only_what_is_between_the_markers_changes(document, folder, tmp_path):
    hidden = {**document["runs"][0]["rows"][0], "row": "hidden", "headline": False}
    document["runs"][0]["rows"].append(hidden)
    results.write_json(folder / "some-cpu-avx2-2c.json", document)
    readme = tmp_path / "README.md"
    readme.write_text(README)
    assert call("--results", folder, "--readme", readme) == 0
    once = readme.read_text()
    assert once.startswith(f"# title\n\nbefore\n{report.BEGIN}\n")
    assert once.endswith(f"{report.END}\nafter\n")
    assert "old table" not in once
    compiled = "0.70x **loses** / 0.70x **loses**"
    assert f"| `fast_op` 64x64 | 9.00x / 4.00x | 5.00x / 4.00x | {compiled} | 2.00 / 2.00 |" in once
    lost = "0.50x **loses** / 0.98x **loses**"
    assert f"| `slow_op` 8x8 | 0.50x / 0.98x | {lost} | - / - | 2.00 / 2.00 |" in once
    assert "Of 5 measured rows, 2 lose to stock's fastest form and 3 to torch.compile" in once
    assert "hidden" not in once
    assert call("--results", folder, "--readme", readme) == 0
    assert readme.read_text() == once


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        f"{report.BEGIN} only",
        f"{report.END}\n{report.BEGIN}\n",
        README + README,
    ],
)
def test_a_readme_without_its_markers_is_refused_and_nothing_is_written(
    folder, tmp_path, capsys, text
):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    out = tmp_path / "out"
    assert call("--results", folder, "--out", out, "--readme", readme) == 2
    assert readme.read_text() == text
    assert not out.exists()
    assert "expected one line '<!-- speed table: begin -->'" in capsys.readouterr().err


def test_a_missing_matplotlib_is_one_sentence(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert call("--results", folder, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert said == "ganops bench report: the plot needs matplotlib: pip install ganops[bench]\n"
    assert not (tmp_path / "out").exists()


def test_an_empty_results_folder_is_one_sentence(tmp_path, capsys):
    assert call("--results", tmp_path) == 2
    assert "expected at least one *.json" in capsys.readouterr().err
