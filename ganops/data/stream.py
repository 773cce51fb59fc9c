"""One pass over a set of images: uint8 batches in stored order, decoded by threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ganops.data.pixels import to_uint8
from ganops.data.source import ImageSet, permutation


class ImageStream:
    """``for images in ImageStream(source): ...`` gives uint8 (n <= batch, C, H, W) on the CPU.

    Every image once, in stored order; floating ones become bytes by `to_uint8`. `workers` threads
    read ahead by two batches each (decoders release Python's lock); 0 reads in the caller's thread.
    `limit`: only so many, chosen at random but always the same ones. Of `world` processes, process
    `rank` gets the images rank, rank + world, ... of those: together all of them, each once, in
    numbers that differ by at most one.
    """

    def __init__(
        self,
        source: ImageSet,
        *,
        batch: int = 64,
        workers: int | None = None,
        limit: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not isinstance(source, ImageSet):
            raise TypeError(
                f"one pass needs a set of known length (a folder, zip, array or tensor), and data "
                f"{getattr(source, 'name', source)!r} is a {type(source).__name__}"
            )
        for name, value, least in (("batch", batch, 1), ("workers", workers, 0)):
            if value is not None and (not isinstance(value, int) or value < least):
                raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
        if limit is not None and not 1 <= limit <= len(source):
            raise ValueError(
                f"data {source.name!r} has {len(source)} images, and {limit} are asked"
            )
        if not 0 <= rank < world:
            raise ValueError(f"expected 0 <= rank < world, got rank {rank} and world {world}")
        self.source, self.batch = source, batch
        self.workers = min(os.cpu_count() or 1, 8) if workers is None else workers
        self.total = len(source) if limit is None else limit
        chosen = torch.arange(self.total)
        if self.total < len(source):  # sets are often sorted by class
            chosen = permutation(len(source), 0, 0)[: self.total].sort().values
        self.indices = chosen[rank::world]

    def __len__(self) -> int:
        """Images that this process gets."""
        return len(self.indices)

    def __iter__(self) -> Iterator[Tensor]:
        starts = range(0, len(self.indices), self.batch)
        chunks = (self.indices[s : s + self.batch] for s in starts)
        if not self.workers:
            yield from map(self._read, chunks)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            ahead: deque[Future[Tensor]] = deque()
            try:
                for chunk in chunks:
                    ahead.append(pool.submit(self._read, chunk))
                    if len(ahead) > 2 * self.workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:  # a caller that stops early, or a bad image, must not wait for the rest
                for future in ahead:
                    future.cancel()

    def _read(self, chunk: Tensor) -> Tensor:
        images = self.source.read(chunk)
        return images if images.dtype == torch.uint8 else to_uint8(images)
