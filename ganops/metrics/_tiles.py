"""Distances between rows, tile by tile: fast ones that are nearly right, direct ones that are.

Fast: |x|^2 + |y|^2 - 2 x.y from one matrix product of centred rows, whose rounding error is at most
`slack` (|x|^2 + |y|^2). Whatever that error could decide is decided by differences in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

SPARE = 4  # neighbours kept beyond those asked for: one of them proves the others complete
# Rounding of products that torch may be told to make for float32.
ROUNDING = {"highest": 2.0**-23, "high": 2.0**-10, "medium": 2.0**-7}


class Rows:
    """Rows of one set: as given, and centred and scaled with their squared norms for products.

    The scale is a power of two, so nothing overflows and direct differences stay exact.
    """

    def __init__(self, features: Tensor, centre: Tensor, scale: Tensor) -> None:
        self.features, self.scale = features, scale
        self.centred = (features.to(centre.dtype) * scale.to(centre.dtype)).sub_(centre)
        blocks = [b.double().square().sum(1) for b in self.centred.split(1024)]
        self.norms = torch.cat(blocks).to(centre.dtype)

    def __len__(self) -> int:
        return len(self.features)

    def exact(self, which: slice | Tensor) -> Tensor:
        return self.features[which].double() * self.scale

    @property
    def slack(self) -> float:
        dtype = self.centred.dtype
        eps = torch.finfo(dtype).eps
        if dtype == torch.float32:
            eps = ROUNDING[torch.get_float32_matmul_precision()]
            if self.centred.is_cuda and torch.backends.cuda.matmul.allow_tf32:
                eps = max(eps, ROUNDING["high"])
        return 4.0 * eps * (math.sqrt(self.centred.shape[1]) + 4.0)


def rows_of(*sets: Tensor) -> list[Rows]:
    """Sets centred alike, at the mean of the first. Halves are computed in float32."""
    dtype = torch.float64 if sets[0].dtype == torch.float64 else torch.float32
    largest = torch.stack([torch.stack(s.aminmax()).abs().amax() for s in sets]).amax().double()
    most = 125 if dtype == torch.float32 else 1000  # the scale is a normal number itself
    power = torch.frexp(largest.clamp_min(1e-300)).exponent.clamp(-most, most)
    scale = torch.ldexp(torch.ones_like(largest), -power)
    centre = torch.zeros(sets[0].shape[1], dtype=torch.float64, device=sets[0].device)
    for block in sets[0].split(1024):
        centre += (block.double() * scale).sum(0) / len(sets[0])
    return [Rows(s, centre.to(dtype), scale) for s in sets]


def tile_for(device: torch.device, tile: int | None, cpu: int = 1024) -> int:
    """Rows of a tile: `tile`, or what stays in cache on a CPU and fills a GPU."""
    if tile is not None and tile < 1:
        raise ValueError(f"tile: expected an integer >= 1, got {tile!r}")
    return tile or (cpu if device.type == "cpu" else 4096)


def spans(count: int, step: int) -> list[slice]:
    return [slice(a, min(a + step, count)) for a in range(0, count, step)]


def direct(a: Tensor, b: Tensor) -> Tensor:
    """Distances of float64 rows by differences; one pair's number never depends on the others."""
    distances: Tensor = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return distances


def direct_rows(
    a: Rows, which: Tensor, b: Rows, *, step: int = 1024
) -> Iterator[tuple[Tensor, slice, Tensor]]:
    """(indices into `a`, columns of `b`, their distances) for the rows `which` against all of b."""
    for chosen in which.split(64):
        left = a.exact(chosen)
        for columns in spans(len(b), step):
            yield chosen, columns, direct(left, b.exact(columns))


def radii(rows: Rows, ks: list[int], tile: int) -> Tensor:
    """Exact distance of every row to its k-th nearest other row -> (len(ks), N) float64.

    Only tiles above the diagonal are multiplied; each serves its rows and its columns.
    """
    count, most = len(rows), max(ks)
    keep = min(most + SPARE, count - 1)
    values = rows.norms.new_full((count, keep), math.inf)
    index = torch.zeros((count, keep), dtype=torch.int64, device=values.device)
    all_spans = spans(count, tile)
    for at, i in enumerate(all_spans):
        left = rows.centred[i]
        for j in all_spans[at:]:
            distance = torch.addmm(rows.norms[j], left, rows.centred[j].T, alpha=-2)
            distance += rows.norms[i, None]
            if i == j:
                distance.fill_diagonal_(math.inf)
            else:
                _merge(values[j], index[j], distance.T.contiguous(), i.start)
            _merge(values[i], index[i], distance, j.start)
    found = torch.cat([_to_candidates(rows, s, index[s])[:, :most] for s in spans(count, 64)])
    if keep < count - 1:
        margin = rows.slack * (rows.norms + rows.norms.amax()).double()
        farthest = found[:, -1]
        unsure = values.amax(1).double() - margin <= farthest.square()
        _search(rows, (unsure & (farthest > 0)).nonzero().flatten(), found)
    return found.T[[k - 1 for k in ks]].contiguous()


def _to_candidates(rows: Rows, part: slice, index: Tensor) -> Tensor:
    """Sorted direct distances from the rows of `part` to those of `index` (rows, candidates)."""
    others = rows.exact(index.flatten()).view(*index.shape, -1)
    return direct(rows.exact(part)[:, None], others)[:, 0].sort(1).values


def _merge(values: Tensor, index: Tensor, distance: Tensor, offset: int) -> None:
    """Keep the smallest of what was kept and of `distance`, whose columns start at `offset`."""
    keep = values.shape[1]
    new, where = distance.topk(min(keep, distance.shape[1]), 1, largest=False, sorted=False)
    both, places = torch.cat([values, new], 1), torch.cat([index, where + offset], 1)
    best, chosen = both.topk(keep, 1, largest=False, sorted=False)
    values.copy_(best)
    index.copy_(places.gather(1, chosen))


def _search(rows: Rows, which: Tensor, found: Tensor) -> None:
    """Direct search for rows whose neighbours the fast distances cannot tell apart."""
    most = found.shape[1]
    found[which] = math.inf
    for chosen, columns, distance in direct_rows(rows, which, rows):
        own = chosen[:, None] == torch.arange(columns.start, columns.stop, device=chosen.device)
        both = torch.cat([found[chosen], distance.masked_fill(own, math.inf)], 1)
        found[chosen] = both.topk(most, 1, largest=False).values


class Inside:
    """Which points of one set lie in the balls (k-th neighbour radii) around the other set.

    `counts` (K, N): points of `b` in each ball of `a`. `covered` (K, M): points of b in any ball
    of a. `reached` (K, N): rows of a in any ball of b; only if b's radii are given.
    """

    def __init__(
        self, a: Rows, b: Rows, radii_a: Tensor, radii_b: Tensor | None, closed: bool, tile: int
    ) -> None:
        self.a, self.b, self.closed = a, b, closed
        device, ks = a.norms.device, len(radii_a)
        self.counts = torch.zeros(ks, len(a), dtype=torch.int64, device=device)
        self.covered = torch.zeros(ks, len(b), dtype=torch.bool, device=device)
        self.reached = torch.zeros(ks, len(a), dtype=torch.bool, device=device)
        self._sweep(radii_a, radii_b, tile)

    def _sweep(self, radii_a: Tensor, radii_b: Tensor | None, tile: int) -> None:
        a, b, dtype = self.a, self.b, self.a.norms.dtype
        square_a = radii_a.square().to(dtype)
        square_b = None if radii_b is None else radii_b.square().to(dtype)
        perhaps = torch.zeros_like(self.counts)
        nearest = a.norms.new_full((2, *self.counts.shape), math.inf)
        for j in spans(len(b), tile):
            right, norms, largest = b.centred[j].T, b.norms[j], b.norms[j].amax()
            for i in spans(len(a), tile):
                part = torch.addmm(norms, a.centred[i], right, alpha=-2)  # less |x|^2
                slack = a.slack * (a.norms[i] + largest)
                for k in range(len(radii_a)):
                    limit = square_a[k, i] - a.norms[i]
                    surely = part < (limit - slack)[:, None]
                    self.counts[k, i] += _count(surely)
                    self.covered[k, j] |= surely.any(0)
                    perhaps[k, i] += _count(part <= (limit + slack)[:, None])
                    if square_b is not None:
                        beyond = (part - square_b[k, j]).amin(1) + a.norms[i]
                        for sign in (0, 1):
                            old = nearest[sign, k, i]
                            torch.minimum(old, beyond + (1 - 2 * sign) * slack, out=old)
        for k in range(len(radii_a)):
            self._settle_balls(k, radii_a[k], perhaps[k] != self.counts[k])
            if radii_b is not None:
                self.reached[k] = nearest[0, k] < 0
                self._settle_rows(k, radii_b[k], ~self.reached[k] & (nearest[1, k] <= 0))

    def _within(self, distance: Tensor, radius: Tensor) -> Tensor:
        return distance <= radius if self.closed else distance < radius

    def _settle_balls(self, k: int, radius: Tensor, unsure: Tensor) -> None:
        which = unsure.nonzero().flatten()
        self.counts[k, which] = 0
        for chosen, columns, distance in direct_rows(self.a, which, self.b):
            inside = self._within(distance, radius[chosen, None])
            self.counts[k, chosen] += inside.sum(1)
            self.covered[k, columns] |= inside.any(0)

    def _settle_rows(self, k: int, radius: Tensor, unsure: Tensor) -> None:
        which = unsure.nonzero().flatten()
        for chosen, columns, distance in direct_rows(self.a, which, self.b):
            self.reached[k, chosen] |= self._within(distance, radius[None, columns]).any(1)


def _count(mask: Tensor) -> Tensor:
    return mask.view(torch.uint8).sum(1, dtype=torch.int32)
