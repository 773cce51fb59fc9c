"""Two sets of images, one pass over each, every metric that is asked for from the same features."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed

from ganops.data import ImageStream
from ganops.metrics._features import Result
from ganops.metrics.extractors import Extractor
from ganops.metrics.feature_stats import FeatureStats
from ganops.metrics.frechet import frechet_distance, frechet_distance_infinity
from ganops.metrics.inception_score import inception_score
from ganops.metrics.kid import kid
from ganops.metrics.mifid import mifid
from ganops.metrics.neighbours import density_coverage, precision_recall

CACHED = 1  # of the cache's files: raise it where equal images would give other statistics


@dataclass(frozen=True)
class Frechet(Result):
    """The distance between two Gaussians, and what sets they were fitted to."""

    value: float
    n_real: int | None
    n_generated: int | None
    dim: int
    name: ClassVar[str] = "fid"

    def numbers(self) -> dict[str, float]:
        return {self.name: self.value}

    def protocol(self) -> str:
        counts = [self.n_real, self.n_generated]
        said = ["an unknown number of" if n is None else str(n) for n in counts]
        few = any(n is not None and n < self.dim for n in counts)
        bias = f"; with fewer than d = {self.dim} much of it is bias: see fid-infinity"
        return f"{said[0]} real and {said[1]} generated images, float64" + bias * few


@dataclass(frozen=True)
class FrechetInfinity(Frechet):
    """The same, extrapolated to infinitely many generated images."""

    name: ClassVar[str] = "fid-infinity"

    def protocol(self) -> str:
        real = "an unknown number of" if self.n_real is None else str(self.n_real)
        return f"{real} real images, line in 1/N over subsets of {self.n_generated} generated ones"


@dataclass
class Collected:
    """What a pass leaves: statistics, and rows (N, d) and logits (N, classes) where asked for."""

    name: str
    stats: FeatureStats
    rows: Tensor | None = None
    logits: Tensor | None = None
    images: int = 0  # that went through the network for it, on all ranks

    def need(self, kind: str, metric: str) -> Tensor:
        found: Tensor | None = getattr(self, kind)
        if found is None:
            raise ValueError(
                f"{metric} needs {kind} of single images, and {self.name!r} is a file of statistics"
            )
        return found


def _fid(real: Collected, generated: Collected, seed: int) -> Result:
    value = float(frechet_distance(real.stats, generated.stats))
    return Frechet(value, real.stats.count, generated.stats.count, real.stats.dim)


def _infinity(real: Collected, generated: Collected, seed: int) -> Result:
    rows = generated.need("rows", "fid-infinity")
    chosen = torch.Generator().manual_seed(seed)
    value = frechet_distance_infinity(rows, real.stats, generator=chosen)
    return FrechetInfinity(value, real.stats.count, len(rows), real.stats.dim)


@dataclass(frozen=True)
class Metric:
    """How a metric is made, and what of which set it needs beside statistics."""

    make: Callable[[Collected, Collected, int], Result]
    rows: tuple[bool, bool] = (False, False)  # of the real set, of the generated one
    logits: bool = False  # of the generated one
    least: int = 2  # generated images


def _of_rows(name: str, function: Callable[..., Result], **options: Any) -> Metric:
    def make(real: Collected, generated: Collected, seed: int) -> Result:
        return function(real.need("rows", name), generated.need("rows", name), **options)

    return Metric(make, rows=(True, True))


METRICS: dict[str, Metric] = {
    "fid": Metric(_fid),
    "fid-infinity": Metric(_infinity, rows=(False, True)),
    "kid": _of_rows("kid", kid),
    "is": Metric(lambda a, b, seed: inception_score(b.need("logits", "is")), logits=True, least=10),
    "pr": _of_rows("pr", precision_recall),
    "dc": _of_rows("dc", density_coverage),
    "mifid": _of_rows("mifid", mifid),
}


def check_metrics(names: Iterable[str], extractor: Any = None) -> tuple[str, ...]:
    """The names, once each. Raises ValueError for one that is unknown or needs other features."""
    found = tuple(dict.fromkeys(names))
    unknown = [name for name in found if name not in METRICS]
    if unknown or not found:
        got = ", ".join(map(repr, unknown)) or "none"
        raise ValueError(f"metrics: expected some of {', '.join(METRICS)}, got {got}")
    if extractor is not None and not hasattr(extractor, "outputs"):
        for name in found:
            if METRICS[name].logits:
                raise ValueError(
                    f"{name} needs Inception's class logits; {extractor.name} has none"
                )
    return found


def collect(
    stream: ImageStream,
    extractor: Extractor,
    *,
    rows: bool = False,
    logits: bool = False,
    cache: str | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Collected:
    """One pass: images -> features -> statistics, and rows and logits if asked for.

    `cache`: folder where statistics are kept under a hash of the images and of the protocol; read
    instead of a pass where nothing else is asked for. A damaged file there, or a folder that cannot
    be written, is warned about and costs the pass. Between ranks of torch.distributed, if it is
    initialised, `stream` is this rank's share, and every rank gets the whole set's result: rows in
    the set's order, statistics equal to those of one process to rounding; rank 0's cache is the one
    that counts. `advance` is told the images done here. Raises what reading and the extractor
    raise.
    """
    name = stream.source.name
    together = distributed.is_available() and distributed.is_initialized()
    first = not together or distributed.get_rank() == 0
    path = None if cache is None else os.path.join(cache, _key(stream, extractor) + ".npz")
    if path is not None and not rows and not logits:
        known: list[Any] = [_cached(path) if first else None]
        if together:  # nodes may see other folders, and a pass needs every rank
            distributed.broadcast_object_list(known)
        if known[0] is not None:
            return Collected(name, known[0])
    origin = provenance(extractor)
    stats = FeatureStats(extractor.dim, device=getattr(extractor, "device", None), **origin)
    kept: list[Tensor] = []
    scores: list[Tensor] = []
    done = 0
    for images in stream:
        if logits:
            found = extractor.outputs(images)  # type: ignore[attr-defined]
            features = found.pool3
            scores.append(found.logits_unbiased.cpu())
        else:
            features = extractor(images)
        stats.update(features)
        if rows:
            kept.append(features.to("cpu", torch.float32))
        done += len(images)
        advance(done)
    if together:
        stats.all_reduce()
    gather = _gather if together else torch.cat
    result = Collected(
        name, stats, gather(kept) if rows else None, gather(scores) if logits else None,
        stream.total,
    )  # fmt: skip
    if path is not None and first and stream.total > 1:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            stats.save(path)
        except OSError as error:  # the numbers are there: they are not lost for that
            warnings.warn(f"cannot keep statistics of {name!r} ({error})", stacklevel=2)
    return result


def _cached(path: str) -> FeatureStats | None:
    if not os.path.exists(path):
        return None
    try:
        return FeatureStats.load(path)
    except (ValueError, OSError) as error:
        warnings.warn(f"measuring again what the cache has damaged ({error})", stacklevel=3)
        return None


def provenance(extractor: Any) -> dict[str, Any]:
    """What `FeatureStats` keeps of an extractor."""
    return {
        "extractor": extractor.name,
        "weights_sha256": getattr(extractor, "weights_sha256", None),
        "resize": getattr(extractor, "resize", None),
        "dtype": str(getattr(extractor, "dtype", torch.float32)).removeprefix("torch."),
    }


def protocol(extractor: Any) -> str:
    """Everything a number depends on but the images, in a line."""
    origin = provenance(extractor)
    weights = (origin["weights_sha256"] or "unknown")[:16]
    return (
        f"features {origin['extractor']} (d = {extractor.dim}), weights sha256 {weights}, "
        f"resize {origin['resize']}, {origin['dtype']}"
    )


def _key(stream: ImageStream, extractor: Any) -> str:
    words = (
        CACHED,
        stream.source.fingerprint(),
        stream.total,
        sorted(provenance(extractor).items()),
    )
    return hashlib.sha256(repr(words).encode()).hexdigest()[:32]


def _gather(parts: list[Tensor]) -> Tensor:
    """Rows of all ranks, put back in the set's order, from which rank r had r, r + world, ..."""
    world = distributed.get_world_size()
    mine: Any = torch.cat(parts) if parts else None
    shares: list[Any] = [None] * world
    distributed.all_gather_object(shares, mine)
    filled = [share for share in shares if share is not None]
    whole = filled[0].new_empty(sum(map(len, filled)), filled[0].shape[1])
    for rank, share in enumerate(shares):
        if share is not None:
            whole[rank::world] = share
    return whole
