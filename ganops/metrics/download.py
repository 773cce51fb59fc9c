"""Downloads that resume, are checked before they count, and say what to do when they fail."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from typing import IO, Any

TRIES = 3
TIMEOUT = 30.0  # seconds without a byte
PIECE = 1 << 20


def sha256_of(path: str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def check_sha256(path: str, expected: str, source: str) -> str:
    """The file's SHA-256, which must begin with `expected`. Raises ValueError if it does not."""
    found = sha256_of(path)
    if not found.startswith(expected.lower()):
        raise ValueError(
            f"{source}: expected a file with sha256 {expected}, got {found}: the file is damaged "
            f"or another one; remove {path} and fetch it again"
        )
    return found


def download(url: str, path: str, expected: str, *, progress: bool | None = None) -> str:
    """Fetches `url` into `path`; an interrupted download goes on where it stopped. -> its SHA-256

    What has come stays in ``path.part`` (of one process at a time), is asked to be continued by an
    HTTP range, and becomes `path` by one rename after its SHA-256 begins with `expected`.

    Args:
        progress: a bar on stderr; None: where that is a terminal.

    Raises:
        ConnectionError: no network, or the server refused; what has come is kept.
        ValueError: the wrong hash; what has come is removed.
    """
    part = f"{path}.part"
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    bar = sys.stderr.isatty() if progress is None else progress
    with _alone(part) as file:
        if os.path.exists(path):  # another process was faster
            os.unlink(part)
            return check_sha256(path, expected, path)
        for left in reversed(range(TRIES)):
            try:
                _fetch(url, file, bar)
                break
            except (OSError, EOFError, HTTPException) as error:
                if left == 0 or isinstance(error, urllib.error.HTTPError):
                    raise ConnectionError(_failed(url, path, file, error)) from error
        try:
            found = check_sha256(part, expected, url)
        except ValueError:
            os.unlink(part)
            raise
        os.replace(part, path)
    return found


def _failed(url: str, path: str, file: IO[bytes], error: Exception) -> str:
    return (
        f"cannot download {url} ({error}); {file.tell()} bytes are kept and the next try goes on "
        f"from there; without a network, copy the file to {path} or pass its path as weights="
    )


def _fetch(url: str, file: IO[bytes], bar: bool) -> None:
    """What is missing of `file`. Raises OSError or EOFError where the connection ends early."""
    have = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing is missing, or the server's file is shorter: the hash will tell.
        return
    with answer:
        if have and not _continues(answer, have):
            file.seek(0)
            file.truncate()
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        while piece := _read(answer):
            file.write(piece)
            have += len(piece)
            if bar:
                _show(have, total)
        file.flush()
        if bar:
            sys.stderr.write("\n")
        if total is not None and have != total:
            raise EOFError(f"the connection ended after {have} of {total} bytes")


def _read(answer: Any) -> bytes:
    """The next bytes, as soon as there are some: an interrupted piece is not lost."""
    return bytes(answer.read1(PIECE))


def _continues(answer: Any, have: int) -> bool:
    """Does the server send the rest, as asked, and not everything again?"""
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range") or "")
    return answer.status == 206 and found is not None and int(found.group(1)) == have


def _show(have: int, total: int | None) -> None:
    done = f"{have / total:4.0%} of {total / 1e6:.1f} MB" if total else f"{have / 1e6:.1f} MB"
    filled = "#" * (30 * have // total) if total else ""
    sys.stderr.write(f"\r[{filled:<30}] {done}")
    sys.stderr.flush()


@contextlib.contextmanager
def _alone(part: str) -> Iterator[IO[bytes]]:
    """The open file `part`; others who want it wait here, where the system has such locks."""
    try:
        from fcntl import LOCK_EX, flock
    except ImportError:
        with open(part, "ab") as file:
            yield file
        return
    while True:
        with open(part, "ab") as file:
            flock(file, LOCK_EX)  # until it is closed
            # Who waited may hold a file that was renamed or removed meanwhile.
            if os.path.exists(part) and os.path.samestat(os.stat(part), os.fstat(file.fileno())):
                yield file
                return
