"""npz files of statistics: what others read, what merges, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ganops.metrics import FeatureStats, frechet_distance, triangle
from ganops.metrics import provenance as files

KNOWN = {"extractor": "net", "weights_sha256": "ab", "resize": "tf", "dtype": "float32"}


def stats_of(n=40, d=4, seed=0, **kwargs):
    stats = FeatureStats(d, **kwargs)
    stats.update(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))
    return stats


def test_a_file_is_what_other_tools_read_and_more(tmp_path):
    stats = stats_of(**KNOWN)
    stats.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert np.array_equal(file["mu"], stats.mean.numpy())
        assert np.array_equal(file["sigma"], stats.cov.numpy())
        assert int(file["n"]) == 40
        assert {k: str(file[k]) for k in KNOWN} == KNOWN
    again = FeatureStats.load(tmp_path / "a.npz")
    assert (again.count, again.provenance) == (40, stats.provenance)
    assert torch.equal(again.mean, stats.mean)
    torch.testing.assert_close(again.cov, stats.cov, rtol=1e-15, atol=0)
    assert frechet_distance(tmp_path / "a.npz", stats) < 1e-14
    both = again.merge(stats_of(seed=1, **KNOWN))
    whole = stats_of(**KNOWN).merge(stats_of(seed=1, **KNOWN))
    torch.testing.assert_close(both.cov, whole.cov, rtol=1e-14, atol=1e-16)


def test_another_tools_file_loads_and_compares_but_does_not_merge(tmp_path):
    stats = stats_of()
    mean, cov = stats.moments()
    np.savez(tmp_path / "other.npz", mu=mean.numpy(), sigma=cov.numpy().astype(np.float32))
    other = FeatureStats.load(tmp_path / "other.npz")
    assert other.count is None
    torch.testing.assert_close(other.cov, cov, rtol=1e-6, atol=1e-7)
    assert frechet_distance(other, stats_of(**KNOWN)) < 1e-10
    for act, doing in (
        (lambda: other.merge(stats), "merge"), (lambda: stats.merge(other), "merge"),
        (lambda: other.update(torch.zeros(1, 4)), "update"), (other.all_reduce, "reduce"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"cannot {doing} statistics of an unknown number"):
            act()
    assert stats.count == 40
    other.save(tmp_path / "copy.npz")
    assert FeatureStats.load(tmp_path / "copy.npz").count is None


@pytest.mark.parametrize("name", KNOWN)
def test_features_of_different_provenance_neither_merge_nor_compare(name):
    a, b = stats_of(**KNOWN), stats_of(**{**KNOWN, name: "other"})
    with pytest.raises(ValueError, match=f"differ in {name}: '.*' and 'other'"):
        a.merge(b)
    with pytest.raises(ValueError, match=f"differ in {name}: '.*' and 'other'"):
        frechet_distance(a, b)
    unknown = stats_of(**{k: v for k, v in KNOWN.items() if k != name})
    with pytest.raises(ValueError, match=f"differ in {name}: '.*' and None"):
        a.merge(unknown)
    assert frechet_distance(a, unknown) == 0


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "bad.npz"
    mu, sigma = np.zeros(2), np.eye(2)
    for arrays, message in (
        ({"mean": mu}, "expected the keys mu and sigma, got mean"),
        ({"mu": mu, "sigma": np.eye(3)}, r"expected mu \(d,\) and sigma \(d, d\), got \(2,\)"),
        ({"mu": mu * np.nan, "sigma": sigma}, "expected finite numbers in mu"),
        ({"mu": mu, "sigma": sigma.astype(int)}, "expected sigma as floating numbers"),
        ({"mu": mu, "sigma": np.tril(np.ones((2, 2)))}, "expected sigma to be symmetric"),
        ({"mu": mu, "sigma": sigma, "n": 1.5}, "expected n as an integer >= 2"),
        ({"mu": mu, "sigma": sigma, "n": 1}, "expected n as an integer >= 2"),
        ({"mu": np.array([None, None]), "sigma": sigma}, "expected an npz file of arrays"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=f"bad.npz: {message}"):
            FeatureStats.load(path)
    for content in (b"", b"PK\x03\x04 no zip", b"text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"bad.npz: expected an npz file"):
            FeatureStats.load(path)
    np.save(tmp_path / "one.npy", mu)
    with pytest.raises(ValueError, match=r"one.npy: expected an npz file"):
        FeatureStats.load(tmp_path / "one.npy")
    with pytest.raises(FileNotFoundError):
        FeatureStats.load(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="needs 2 rows"):
        stats_of(1).save(path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    stats_of().save(tmp_path / "a.npz")
    before = (tmp_path / "a.npz").read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(files.np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        stats_of(seed=1).save(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7, 8])
def test_a_folded_triangle_unfolds(d):
    m = torch.randn(d, d, dtype=torch.float64)
    assert triangle.folded(m).shape == ((d + 1) // 2, d + 1)
    assert torch.equal(triangle.unfolded(triangle.folded(m), d), m.triu())
    assert torch.equal(triangle.mirrored(m), m.triu() + m.triu(1).T)
