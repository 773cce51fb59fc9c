"""`ganops fid` and `ganops eval --metrics`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ganops.cli import fid as command
from ganops.cli import main
from ganops.data import ImageStream, open_data
from ganops.data.files import Decoder
from ganops.data.open import digits
from ganops.metrics import FeatureStats, InceptionFeatures, as_extractor, frechet_distance
from ganops.metrics.measure import collect

PIXELS = as_extractor(lambda x: x.flatten(1)[:, :4].float(), name="pixels", dim=4)
ALL = "fid,fid-infinity,kid,pr,dc,mifid"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    command.small_classifier(open_data("digits"), str(folder))
    return folder


@pytest.fixture
def halves(tmp_path, classifier):
    """The digits in two .npz files without labels, beside a cache that has the classifier."""
    images, _ = digits()
    for name, part in {"a": images[::2], "b": images[1::2]}.items():
        np.savez(tmp_path / f"{name}.npz", images=part.permute(0, 2, 3, 1).numpy())
    for name in ("cache", "alone", "two"):
        shutil.copytree(classifier, tmp_path / name)
    return tmp_path


def ask(capsys, *arguments):
    assert main(["fid", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_metric_in_one_pass_of_each_set(halves, capsys):
    options = ("--features", "cnn", "--cache", halves / "cache", "--metrics", ALL)
    said = ask(capsys, "digits", halves / "b.npz", *options)
    results = said["results"]
    assert list(results) == ALL.split(",")
    assert results["fid"]["n_real"] == 1797
    assert results["fid"]["n_generated"] == 898
    assert "digits-cnn (d = 64)" in said["protocol"]
    assert "inception" not in said["protocol"]
    extractor = command.small_classifier(open_data("digits"), str(halves / "cache"))
    rows = [extractor(digits()[0]), extractor(digits()[0][1::2])]
    stats = [FeatureStats(64) for _ in rows]
    for one, features in zip(stats, rows):
        one.update(features)
    expected = float(frechet_distance(*stats))
    assert results["fid"]["value"] == pytest.approx(expected, rel=1e-5)  # batches round apart
    assert results["pr"]["precision"] == 1.0  # every one of them is among the real images


def test_statistics_are_cached_by_content(halves, capsys):
    options = ("--features", "cnn", "--cache", halves / "cache")
    first = ask(capsys, "digits", halves / "a.npz", *options)
    assert first["images_per_second"] > 0
    (halves / "a.npz").rename(halves / "c.npz")
    again = ask(capsys, "digits", halves / "c.npz", *options)
    assert again["images_per_second"] is None
    assert again["results"] == first["results"]
    other = ask(capsys, "digits", halves / "b.npz", *options)
    assert other["results"] != first["results"]
    half = ask(capsys, "digits", halves / "c.npz", *options, "--n", 100)
    assert half["results"]["fid"]["n_real"] == half["results"]["fid"]["n_generated"] == 100
    uncached = ask(capsys, "digits", "digits", *options, "--metrics", "fid,kid")
    assert uncached["results"]["fid"]["value"] == 0.0


def test_a_cache_that_fails_costs_the_pass_alone(halves, capsys):
    options = ("digits", halves / "a.npz", "--features", "cnn", "--cache", halves / "cache")
    first = ask(capsys, *options)
    kept = [p for p in (halves / "cache").iterdir() if p.suffix == ".npz"]
    assert len(kept) == 2
    for path in kept:
        path.write_bytes(path.read_bytes()[:100])
    arguments = ["fid", *map(str, options), "--json", "--quiet"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["results"] == first["results"]
    assert err.count("ganops: measuring again what the cache has damaged (") == 2
    assert ask(capsys, *options)["images_per_second"] is None  # mended
    images = ImageStream(open_data("digits"), limit=9)
    with pytest.warns(UserWarning, match="cannot keep statistics of 'digits'"):
        found = collect(images, PIXELS, cache=str(halves / "a.npz" / "no folder"))
    assert found.stats.count == 9


def test_only_the_images_that_are_asked_are_decoded(tmp_path, monkeypatch):
    for i in range(20):
        Image.fromarray(digits()[0][i, 0].numpy()).save(tmp_path / f"{i:02d}.png")
    opened = command.open_set(str(tmp_path), None, None, 0, torch.device("cpu"))
    asked = []
    decode = Decoder.decode
    monkeypatch.setattr(Decoder, "decode", lambda d, name: asked.append(name) or decode(d, name))
    found = list(ImageStream(opened, limit=6, workers=2))
    assert len(asked) == 6
    assert torch.equal(torch.cat(found), digits()[0][[int(name[:2]) for name in sorted(asked)]])


def test_files_of_statistics_need_no_weights(tmp_path, capsys, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    for name in "ab":
        stats = FeatureStats(8, extractor="toy", resize="none")
        stats.update(torch.randn(50, 8, generator=generator))
        stats.save(tmp_path / f"{name}.npz")
    said = ask(capsys, tmp_path / "a.npz", tmp_path / "b.npz")
    assert said["results"]["fid"]["value"] > 0
    assert "extractor toy" in said["protocol"]
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 8, 8), dtype=np.uint8))
    np.savez(tmp_path / "clean.npz", mu=np.zeros(2048), sigma=np.eye(2048), resize="clean")
    monkeypatch.setattr(command, "collect", None)  # what follows is said before any pass
    for real, fake, metrics, message in (
        ("a", "b", "kid", "kid needs rows of single images"),
        ("images", "b", "kid", "kid needs rows of single images"),
        ("a", "b", "is", "is needs logits of single images"),
        ("a", "images", "fid", "statistics of 8 features, and inception-RANDOM-WEIGHTS-0 gives"),
        ("images", "clean", "fid", "features differ in resize: 'clean' and 'tf'"),
    ):
        places = [str(tmp_path / f"{name}.npz") for name in (real, fake)]
        assert main(["fid", *places, "--weights", "random", "--metrics", metrics]) == 2
        assert message in capsys.readouterr().err


def test_inception_features_and_score(tmp_path, capsys):
    images, _ = digits()
    np.savez(tmp_path / "x.npz", images=images[:12].permute(0, 2, 3, 1).numpy())
    arguments = (tmp_path / "x.npz", tmp_path / "x.npz", "--weights", "random", "--batch", 5)
    said = ask(capsys, *arguments, "--metrics", "fid,is", "--protocol", "clean", "--cache", "none")
    assert said["results"]["fid"]["value"] == 0.0
    assert "RANDOM-WEIGHTS" in said["protocol"]
    assert "resize clean" in said["protocol"]
    expected = InceptionFeatures("random", resize="clean").outputs(images[:12])
    probabilities = expected.logits_unbiased.double().softmax(1)
    edges = [s * 12 // 10 for s in range(11)]
    scores = []
    for s in range(10):
        p = probabilities[edges[s] : edges[s + 1]]
        scores.append((p * (p.log() - p.mean(0).log())).sum(1).mean().exp())
    assert said["results"]["is"]["value"] == pytest.approx(float(sum(scores) / 10), rel=1e-5)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def two(arguments, caches):
    """What rank 0 of two prints; each rank has a cache of its own."""
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2",
             "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}  # fmt: skip
    command = [sys.executable, "-m", "ganops", *arguments, "--cache"]
    running = [
        subprocess.Popen([*command, str(cache)], env={**os.environ, **group, "RANK": str(rank)},
                         text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for rank, cache in enumerate(caches)
    ]  # fmt: skip
    try:
        said = [p.communicate(timeout=100) for p in running]
    finally:
        for p in running:
            p.kill()
    assert [p.returncode for p in running] == [0, 0], said
    assert said[1][0] == ""
    return json.loads(said[0][0])


def test_two_processes_share_the_images(halves, capsys):
    arguments = ["fid", "digits", str(halves / "b.npz"), "--features", "cnn", "--metrics",
                 "fid,kid,pr,fid-infinity", "--n", "301", "--batch", "32", "--json"]  # fmt: skip
    alone = ask(capsys, *arguments[1:-1], "--cache", halves / "alone")
    together = two(arguments, [halves / "two"] * 2)
    for name, result in alone["results"].items():
        for key, value in result.items():
            expected = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
            assert together["results"][name][key] == expected
    arguments[arguments.index("--metrics") + 1] = "fid"
    again = two(arguments, [halves / "two", halves / "cache"])  # a node that has not seen it
    assert again["images_per_second"] is None
    assert again["results"]["fid"] == together["results"]["fid"]


def test_a_run_is_measured_by_fid_and_by_eval(tmp_path, capsys, monkeypatch, classifier):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shutil.copytree(classifier, tmp_path / "ganops")
    run = str(tmp_path / "run")
    small = ("--set", "generator.width=4", "--set", "critic.width=4", "--set", "critic.hidden=8",
             "--set", "n_critic=1", "--batch", "8", "--device", "cpu", "--quiet")  # fmt: skip
    assert main(["train", "wgan-gp", "--steps", "1", "--out", run, *small]) == 0
    capsys.readouterr()
    direct = ask(capsys, "digits", run, "--features", "cnn", "--n", 64)
    options = ["--metrics", "fid", "--features", "cnn", "--n", "64", "--json"]
    assert main(["eval", run, *options]) == 0
    assert json.loads(capsys.readouterr().out)["results"] == direct["results"]
    assert direct["results"]["fid"]["n_generated"] == 64
    assert direct["results"]["fid"]["value"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--metrics", "fid,fd"],
            "expected some of fid, fid-infinity, kid, is, pr, dc, mifid, got",
        ),
        (["--features", "vgg"], "expected features inception or cnn"),
        (["--dtype", "int8"], "expected features inception or cnn and dtype float32"),
        (["--features", "cnn", "--metrics", "is"], "needs Inception's class logits"),
        (["--n", "1"], "--n: a covariance needs 2 images or more, got 1"),
        (["--features", "cnn", "--cache", "none"], "give --cache a folder"),
        (["--weights", "random", "--metrics", "is", "--n", "9"], "is needs 10 generated images"),
        (["--features", "cnn", "--n", "5000"], "has 1797 images, and 5000 are asked"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
        (["--protocol", "bicubic", "--weights", "random"], "expected resize as one of"),
    ],
)
def test_mistakes_are_one_sentence(options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["fid", "digits", "digits", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_without_a_network_the_cure_is_said(capsys, monkeypatch, tmp_path):
    def none(*_, **__):
        raise ConnectionError("cannot download it")

    monkeypatch.setattr(command, "InceptionFeatures", none)
    assert main(["fid", "digits", "digits", "--cache", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "cannot download it; here that is --weights; --features cnn needs none" in error


def test_sets_that_cannot_be_measured(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "one.npz", images=np.zeros((1, 8, 8), dtype=np.uint8))
    np.savez(tmp_path / "bad.npz", sigma=np.eye(3))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "bad.npz").read_bytes()[:200])
    for place, message in {
        "empty": "holds no images", "one.npz": "needs 2 images or more, got 1",
        "bad.npz": "expected images under", "cut.npz": "is not a readable .npz file",
        "none": "no such path",
    }.items():  # fmt: skip
        assert main(["fid", "digits", str(tmp_path / place), "--features", "cnn"]) == 2
        assert message in capsys.readouterr().err
    assert main(["fid", str(tmp_path / "one.npz"), "digits", "--features", "cnn"]) == 2
    capsys.readouterr()
