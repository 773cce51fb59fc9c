"""Sources: an endless stream of batches whose position can be saved and restored exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ganops import use_impl
from ganops.ops import random_uniform

ORDER_STREAM = 0x64617461  # Philox stream of the data order
EPOCH_SLOT = 1 << 32  # counter elements set aside for each epoch


class Source(Protocol):
    """What the trainer needs of data."""

    name: str
    shape: tuple[int, int, int]  # C, H, W
    classes: int  # 0 where there are no integer labels

    def take(self, count: int) -> tuple[Tensor, Tensor | None]:
        """The next images (count, C, H, W), uint8 or float in [-1, 1], and labels (count, ...)."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def permutation(length: int, seed: int, epoch: int) -> Tensor:
    """A permutation of 0 ... length-1, a function of (seed, epoch) alone. -> (length,) int64

    Sorts 48-bit Philox keys, so that a tie (broken by index) is out of reach for any real set.
    """
    with use_impl("auto"):  # GANOPS_IMPL is for the networks; these bits are the same anyhow
        drawn = random_uniform(
            (2, length), seed=seed, offset=epoch * EPOCH_SLOT, stream=ORDER_STREAM
        )
    high, low = drawn.mul(2.0**24).to(torch.int64)
    return torch.argsort((high << 24) | low, stable=True)


class ImageSet:
    """A set of known length: every image once per epoch, in an order drawn from (seed, epoch).

    `read` gives uint8 or float images (n, C, H, W) for a list of indices; a tensor serves as well.
    `digest` feeds what the images are read from into a hash, for `fingerprint`.
    """

    def __init__(
        self,
        images: Tensor | Callable[[Sequence[int]], Tensor],
        labels: Tensor | None = None,
        *,
        name: str = "tensor",
        seed: int = 0,
        length: int | None = None,
        shape: tuple[int, int, int] | None = None,
        digest: Callable[[Any], None] | None = None,
    ) -> None:
        if isinstance(images, Tensor):
            check_images(images, name)
            length, shape = images.shape[0], (images.shape[1], images.shape[2], images.shape[3])
        if not length or shape is None:
            raise ValueError(f"data {name!r} holds no images")
        if labels is not None and not isinstance(labels, Tensor):
            raise TypeError(f"data {name!r}: labels must be a tensor, got {type(labels).__name__}")
        if labels is not None and len(labels) != length:
            raise ValueError(f"data {name!r} has {length} images but {len(labels)} labels")
        self.name, self.seed, self.length, self.shape = name, seed, length, shape
        self.labels, self.classes = labels, 0
        if labels is not None and labels.ndim == 1 and not labels.is_floating_point():
            if labels.min() < 0:
                raise ValueError(f"data {name!r}: classes must be >= 0, got {int(labels.min())}")
            self.classes = int(labels.max()) + 1
        self._images, self._digest = images, digest
        self._position = 0
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return self.length

    def read(self, indices: Tensor) -> Tensor:
        """Images at these indices, as stored."""
        if isinstance(self._images, Tensor):
            return self._images[indices]
        return self._images(indices.tolist())

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the content: equal for equal images, whatever their path."""
        hashed = hashlib.sha256(repr((self.length, self.shape)).encode())
        if self._digest is not None:
            self._digest(hashed)
        elif isinstance(self._images, Tensor):
            pixels = self._images.detach().cpu().contiguous()
            hashed.update(str(pixels.dtype).encode())
            hashed.update(pixels.view(torch.uint8).numpy().tobytes())
        else:
            raise TypeError(f"data {self.name!r} cannot be hashed: give ImageSet a digest")
        return hashed.hexdigest()

    def indices(self, position: int, count: int) -> Tensor:
        """Which images stand at `position` ... `position + count - 1` of the endless stream."""
        parts = []
        while count > 0:
            epoch, start = divmod(position, self.length)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, permutation(self.length, self.seed, epoch)
            parts.append(self._order[start : start + count])
            position, count = position + len(parts[-1]), count - len(parts[-1])
        return torch.cat(parts)

    def take(self, count: int) -> tuple[Tensor, Tensor | None]:
        chosen = self.indices(self._position, count)
        self._position += count
        return self.read(chosen), None if self.labels is None else self.labels[chosen]

    def state_dict(self) -> dict[str, Any]:
        return {"position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._position = int(state["position"])


class LoaderSource:
    """Any DataLoader or iterable of batches of images, or of (images, labels), repeated for ever.

    Exact resume of a shuffled loader: torch's generators (the global one, and the loader's own if
    it has one) are seeded from (seed, epoch) when an epoch begins and are the loader's alone while
    it works; after a restart the epoch is replayed up to the saved position. Python's and numpy's
    generators are not covered.
    """

    def __init__(self, loader: Iterable[Any], *, name: str = "loader", seed: int = 0) -> None:
        if isinstance(loader, Iterator):
            raise TypeError(
                f"data must be iterable more than once (a DataLoader, a list of batches), got a "
                f"{type(loader).__name__}, which is exhausted after one pass"
            )
        self.name, self.seed = name, seed
        self._loader = loader
        self._epoch, self._used = 0, 0  # samples handed out since the epoch began
        self._batches: Iterator[Any] | None = None
        self._rng = torch.get_rng_state()
        self._rest: tuple[Tensor, Tensor | None] | None = None
        images, labels = self._next()
        self.shape = (images.shape[1], images.shape[2], images.shape[3])
        whole = labels is not None and labels.ndim == 1 and not labels.is_floating_point()
        self.classes = int(getattr(loader, "classes", 0)) if whole else 0
        self._restart(0, 0)

    def take(self, count: int) -> tuple[Tensor, Tensor | None]:
        images: list[Tensor] = []
        labels: list[Tensor] = []
        while count > 0:
            if self._rest is None:
                self._rest = self._next()
            x, y = self._rest
            images.append(x[:count])
            if y is not None:
                labels.append(y[:count])
            left = x[count:], None if y is None else y[count:]
            self._rest = left if len(left[0]) else None
            self._used += len(images[-1])
            count -= len(images[-1])
        return torch.cat(images), torch.cat(labels) if labels else None

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "used": self._used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._restart(int(state["epoch"]), int(state["used"]))

    def _restart(self, epoch: int, used: int) -> None:
        self._epoch, self._used, self._batches, self._rest = epoch, 0, None, None
        if used:
            self.take(used)

    def _next(self) -> tuple[Tensor, Tensor | None]:
        with torch.random.fork_rng(devices=[]):
            fresh = self._batches is None
            if self._batches is None:
                mixed = (self.seed * 1_000_003 + self._epoch) & 0x7FFFFFFFFFFFFFFF
                torch.manual_seed(mixed)
                own = getattr(self._loader, "generator", None)
                if isinstance(own, torch.Generator):
                    own.manual_seed(mixed)
                self._batches = iter(self._loader)
            else:
                torch.set_rng_state(self._rng)
            batch = next(self._batches, None)
            self._rng = torch.get_rng_state()
        if batch is None:
            if fresh:
                raise ValueError(f"data {self.name!r} gives no batches")
            self._epoch, self._used, self._batches = self._epoch + 1, 0, None
            return self._next()
        parts = batch if isinstance(batch, (tuple, list)) else (batch,)
        if not 1 <= len(parts) <= 2:
            raise ValueError(
                f"data {self.name!r} must give images or (images, labels), got {len(parts)} parts"
            )
        images, labels = (*parts, None)[:2]
        check_images(images, self.name, values=fresh)
        return images, labels


def check_images(images: Any, name: str, *, values: bool = True) -> None:
    """Raises unless images are (N, C, H, W), uint8 or floating and, if `values`, in [-1, 1]."""
    if not isinstance(images, Tensor):
        raise TypeError(f"data {name!r} must give tensors of images, got {type(images).__name__}")
    if images.ndim != 4 or not 1 <= images.shape[1] <= 4:
        raise ValueError(
            f"data {name!r} must give images (N, C, H, W) with 1 to 4 channels, "
            f"got shape {tuple(images.shape)}"
        )
    if images.is_floating_point():
        if not values:
            return
        low, high = torch.aminmax(images) if images.numel() else (images.sum(), images.sum())
        if not (low >= -1.001 and high <= 1.001):
            raise ValueError(
                f"data {name!r}: floating images must lie in [-1, 1], got {low:.4g} to {high:.4g}"
            )
    elif images.dtype != torch.uint8:
        raise TypeError(f"data {name!r} must be uint8 or floating, got {images.dtype}")
