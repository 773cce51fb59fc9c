"""The results file: its schema, replacing one run of it, and never half of it on disk."""

from __future__ import annotations

import copy
import json

import pytest
import report
import results


def test_a_document_survives_the_disk(document, tmp_path):
    path = tmp_path / "machine.json"
    results.write_json(path, document)
    assert results.read(path) == document
    assert results.read_all(tmp_path) == [document]
    rows = [line for line in path.read_text().splitlines() if '"op":' in line]
    assert len(rows) == 4  # one row, one line
    empty = {**document, "runs": []}
    results.write_json(path, empty)
    assert results.read(path) == empty


PLACES = [
    ((), "schema"),
    (("machine",), "slug"),
    (("runs", 0), "allocator"),
    (("runs", 0, "rows", 1), "speedup"),
    (("runs", 0, "rows", 1, "speedup"), "low"),
    (("runs", 1, "rows", 0, "floor"), "distance"),
    (("runs", 1, "rows", 0, "arms", "ganops"), "ms"),
]


@pytest.mark.parametrize(("way", "name"), PLACES)
def test_a_missing_key_and_a_wrong_type_are_named(document, way, name):
    def place(root):
        for step in way:
            root = root[step]
        return root

    broken = copy.deepcopy(document)
    del place(broken)[name]
    with pytest.raises(ValueError, match=f"expected the key '{name}'"):
        results.check(broken)
    broken = copy.deepcopy(document)
    place(broken)[name] = [object()] if name != "speedup" else "fast"
    with pytest.raises(ValueError, match=f"{name}: expected"):
        results.check(broken)


def test_the_baseline_must_be_an_arm_and_the_schema_ours(document):
    document["runs"][0]["rows"][0]["baseline"] = "another"
    with pytest.raises(ValueError, match="baseline 'another'"):
        results.check(document)
    with pytest.raises(ValueError, match="expected schema 1, got 2"):
        results.check({"schema": 2, "machine": document["machine"], "runs": []})


def test_a_run_replaces_the_one_of_the_same_device_and_allocator_only(document):
    new = {**copy.deepcopy(document["runs"][1]), "date": "2027-01-01"}
    merged = results.merge(document, document["machine"], new)
    assert [(run["allocator"], run["date"]) for run in merged["runs"]] == [
        ("default", "2026-01-02"),
        ("retained", "2027-01-01"),
    ]
    on_cuda = results.merge(document, document["machine"], {**new, "device": "cuda"})
    assert len(on_cuda["runs"]) == 3
    assert results.merge(None, document["machine"], new)["runs"] == [new]


def test_an_update_replaces_its_rows_and_says_when(document):
    old = document["runs"][1]
    first, *others = old["rows"]
    again = {**copy.deepcopy(first), "rounds": 99}
    added = {**copy.deepcopy(first), "row": "another size"}
    when = {"date": "2027-01-01", "revision": "abc"}
    new = {**copy.deepcopy(old), **when, "rows": [again, added]}
    merged = results.merge(document, document["machine"], new, update=True)
    assert merged["runs"][0] == document["runs"][0]
    run = merged["runs"][1]
    assert run["date"] == old["date"]
    assert run["rows"] == [{**again, "measured": when}, *others, {**added, "measured": when}]
    assert report.remeasured(old) == []
    assert [line.count(";") for line in report.remeasured(run)] == [1]
    assert "2027-01-01, abc" in report.markdown(merged)
    with pytest.raises(ValueError, match=r"expected versions .* measure the whole"):
        results.merge(document, document["machine"], {**new, "versions": {}}, update=True)


def test_another_machine_is_refused(document):
    other = {**document["machine"], "slug": "other-cpu-4c"}
    with pytest.raises(ValueError, match="of machine other-cpu-4c, got one of some-cpu-avx2-2c"):
        results.merge(document, other, None)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        results.write(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_of_the_old_file_never_sees_half_of_the_new_one(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with path.open() as reader:
        results.write(path, "new and longer")
        assert reader.read() == "old"
    assert path.read_text() == "new and longer"


def test_bad_files_and_folders_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="expected at least one"):
        results.read_all(tmp_path)
    with pytest.raises(ValueError, match="expected a folder"):
        results.read_all(tmp_path / "none")
    (tmp_path / "half.json").write_text('{"schema": 1,')
    with pytest.raises(ValueError, match=r"half\.json: expected JSON"):
        results.read_all(tmp_path)


def test_floats_keep_five_digits():
    assert results.rounded({"a": [1.23456789, 3, "x"], "b": 1234567.0}) == {
        "a": [1.2346, 3, "x"],
        "b": 1234600.0,
    }
    assert json.dumps(results.rounded(0.1 + 0.2)) == "0.3"
