"""Weights found, fetched over a real (local) network, resumed, checked and refused."""

from __future__ import annotations

import hashlib
import http.server
import threading

import pytest
import torch

from ganops.metrics import download as downloads
from ganops.metrics import inception_weights as found
from ganops.metrics.download import download
from ganops.metrics.inception import InceptionFeatures
from ganops.metrics.inception_graph import public_shapes
from ganops.metrics.inception_weights import load_weights, random_weights

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Serves `content`; may break off after some bytes, or ignore ranges. `asked`: the ranges."""

    def __init__(self):
        self.content, self.breaks, self.ranges, self.asked = CONTENT, [], True, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path != "/file":
                    return self.send_error(404)
                wanted = self.headers.get("Range")
                outer.asked.append(wanted)
                first = int(wanted[6:-1]) if wanted and outer.ranges else 0
                if first >= len(outer.content):
                    return self.send_error(416)
                body = outer.content[first:]
                self.send_response(206 if first else 200)
                if first:
                    whole = len(outer.content)
                    self.send_header("Content-Range", f"bytes {first}-{whole - 1}/{whole}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: outer.breaks.pop(0)] if outer.breaks else body)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    yield server
    server.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "file"


def part_of(path):
    return path.with_name("file.part")


def test_a_download_arrives_whole_by_one_rename(server, path, capsys):
    assert download(server.url, str(path), DIGEST[:8], progress=True) == DIGEST
    assert path.read_bytes() == CONTENT
    assert not part_of(path).exists()
    assert server.asked == [None]
    assert "100% of 1.0 MB" in capsys.readouterr().err


def test_an_interrupted_download_goes_on_where_it_stopped(server, path):
    server.breaks = [300_000, 200_000]
    assert download(server.url, str(path), DIGEST) == DIGEST
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_run_goes_on_too(server, path):
    server.breaks = [100_000] * 3
    with pytest.raises(ConnectionError, match="300000 bytes are kept and the next try goes on"):
        download(server.url, str(path), DIGEST)
    assert part_of(path).read_bytes() == CONTENT[:300_000]
    assert not path.exists()
    assert download(server.url, str(path), DIGEST) == DIGEST
    assert server.asked[-1] == "bytes=300000-"


def test_a_server_without_ranges_sends_all_again(server, path):
    server.breaks, server.ranges = [300_000], False
    assert download(server.url, str(path), DIGEST) == DIGEST
    assert path.read_bytes() == CONTENT


def test_all_is_there_already(server, path):
    path.parent.mkdir()
    part_of(path).write_bytes(CONTENT)
    assert download(server.url, str(path), DIGEST) == DIGEST
    assert path.read_bytes() == CONTENT


def test_a_wrong_hash_leaves_nothing(server, path):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(ValueError, match=f"expected a file with sha256 {DIGEST}, got .*damaged"):
        download(server.url, str(path), DIGEST)
    assert list(path.parent.iterdir()) == []


def test_another_file_s_beginning_is_found_out(server, path):
    path.parent.mkdir()
    part_of(path).write_bytes(b"not this file")
    with pytest.raises(ValueError, match=r"got .*damaged"):
        download(server.url, str(path), DIGEST)
    assert download(server.url, str(path), DIGEST) == DIGEST


def test_several_at_once_fetch_it_once(server, path):
    results = []
    threads = [threading.Thread(target=lambda: results.append(
        download(server.url, str(path), DIGEST))) for _ in range(4)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [DIGEST] * 4
    assert server.asked == [None]
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_no_server_says_what_to_do(server, path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 2.0)
    with pytest.raises(ConnectionError, match=r"404.*without a network, copy the file to"):
        download(server.url + "s", str(path), DIGEST)
    assert server.asked == []
    server.close()
    with pytest.raises(ConnectionError, match=r"cannot download http://127.0.0.1"):
        download(server.url, str(path), DIGEST)
    server.__init__()  # something for the fixture to close


@pytest.fixture(scope="module")
def small():
    """Weights of all names and shapes that take no room: what is read is not looked at."""
    return {name: torch.zeros(()).expand(shape) for name, shape in public_shapes().items()}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save({f"module.{k}": v for k, v in random_weights(5).tensors.items()}, path)
    return path


def test_both_publications_names_are_found_in_the_cache(server, tmp_path, monkeypatch, file):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(found, "SHA256", digest)
    for url in found.URLS:
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / url[-40:-4]))  # noqa: B023
        cached = found.cache_path(url)
        (tmp_path / url[-40:-4] / "checkpoints").mkdir(parents=True)
        with open(cached, "wb") as to:
            to.write(file.read_bytes())
        weights = load_weights()
        assert weights.sha256 == digest
        assert weights.name == "inception-2015-12-05"
        with open(cached, "ab") as to:
            to.write(b"x")
        with pytest.raises(ValueError, match=r"expected a file with sha256 .* remove .*\.pth"):
            load_weights()
    assert {u.rsplit("/", 1)[-1][-12:] for u in found.URLS} == {f"{'6726825d'}.pth"}


def test_nothing_given_downloads_the_published_file(server, tmp_path, monkeypatch, file):
    server.content = file.read_bytes()
    monkeypatch.setattr(found, "SHA256", hashlib.sha256(server.content).hexdigest())
    monkeypatch.setattr(found, "URLS", (server.url, "http://127.0.0.1:1/other"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = load_weights()
    assert (tmp_path / "checkpoints" / "file").read_bytes() == server.content
    assert weights.tensors.keys() == public_shapes().keys()
    assert load_weights().sha256 == weights.sha256
    assert server.asked == [None]


def test_a_url_needs_a_hash(server, tmp_path, monkeypatch, file):
    server.content = file.read_bytes()
    digest = hashlib.sha256(server.content).hexdigest()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=r"expected a hash to check .* by: pass sha256="):
        load_weights(server.url)
    weights = load_weights(server.url, sha256=digest[:12])
    assert weights.name == f"inception-{digest[:8]}"
    with pytest.raises(ValueError, match="expected a file with sha256 0000"):
        load_weights(server.url, sha256="0000")


def test_a_path_is_read_and_named_by_its_hash(file):
    expected = random_weights(5)
    weights = load_weights(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert weights.sha256 == digest
    assert weights.name == f"inception-{digest[:8]}"
    assert all(torch.equal(weights.tensors[k], v) for k, v in expected.tensors.items())
    assert load_weights(file, sha256=digest[:8].upper()).sha256 == digest
    with pytest.raises(ValueError, match="expected a file with sha256 ffff"):
        load_weights(file, sha256="ffff")


class Sly:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w, p: p.write_bytes(b"no weights"), "cannot read .*expected the weights of https"),
        (lambda w, p: p.write_bytes(b""), "cannot read"),
        (lambda w, p: torch.save(Sly(), p), "cannot read"),
        (lambda w, p: torch.save([1], p), "holds a list, no tensors"),
        (lambda w, p: torch.save({}, p), "lacks 472 of 472 tensors, the first is Conv2d_1a"),
        (lambda w, p: torch.save({k: v for k, v in w.items() if k != "fc.bias"}, p),
         "lacks 1 of 472 tensors, the first is fc.bias"),
        (lambda w, p: torch.save({**w, "fc.weight": torch.zeros(1000, 2048)}, p),
         r"fc.weight .* has shape \(1000, 2048\) where the 2015 graph has \(1008, 2048\)"),
    ],
)  # fmt: skip
def test_other_files_are_refused_in_a_sentence(tmp_path, small, make, message, capsys):
    path = tmp_path / "w.pth"
    make(small, path)
    with pytest.raises(ValueError, match=message):
        load_weights(path)
    assert "run" not in capsys.readouterr().out  # nothing in a file is executed


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none.pth; leave weights out"):
        InceptionFeatures(tmp_path / "none.pth")


def test_random_weights_are_the_seed_s_and_say_so():
    one, two = random_weights(1), load_weights("random:1")
    assert one.name == two.name == "inception-RANDOM-WEIGHTS-1"
    assert one.sha256 == "random-1"
    assert all(torch.equal(one.tensors[k], v) for k, v in two.tensors.items())
    assert not torch.equal(one.tensors["fc.bias"], load_weights("random").tensors["fc.bias"])
    with pytest.raises(ValueError, match='expected "random" or "random:SEED"'):
        load_weights("random:x")
