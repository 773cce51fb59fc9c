"""What a metric asks of a feature extractor, and how any module becomes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ganops.metrics.classifier import FEATURES, Classifier, cached_classifier, content_hash


@runtime_checkable
class Extractor(Protocol):
    """uint8 images (N, C, H, W), 0..255 -> features (N, dim), a floating dtype.

    The attributes travel with every statistic, so that only numbers of one kind are compared. A
    call has images of one size: whoever has several sizes calls once for each.
    """

    name: str
    dim: int
    resize: str  # what is done to the images before the network sees them
    weights_sha256: str | None

    def __call__(self, images: Tensor, /) -> Tensor: ...


class _Wrapped(nn.Module):
    def __init__(
        self, module: Callable[[Tensor], Tensor], name: str, dim: int, resize: str, batch: int
    ) -> None:
        super().__init__()
        self.module = module  # kept as a submodule if it is one
        self.name, self.dim, self.resize, self.batch = name, dim, resize, batch
        self.weights_sha256 = _weights_hash(module)

    def train(self, mode: bool = True) -> _Wrapped:
        """Stays in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            found = [self.checked(part) for part in check_images(images).split(self.batch)]
        return torch.cat(found) if found else torch.empty(0, self.dim, device=images.device)

    def checked(self, images: Tensor) -> Tensor:
        if len(images) == 0:
            return torch.empty(0, self.dim, device=images.device)
        features = self.module(images)
        if not isinstance(features, Tensor) or features.shape != (len(images), self.dim):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"extractor {self.name}: expected features ({len(images)}, {self.dim}), got {got}"
            )
        return features


def as_extractor(
    module: Callable[[Tensor], Tensor],
    *,
    name: str,
    dim: int,
    resize: str = "none",
    batch: int = 512,
) -> Extractor:
    """Any module or function, uint8 (N, C, H, W) -> (N, dim), as an `Extractor`.

    A module is set to evaluation mode; `weights_sha256` is the hash of its parameters and buffers
    (None for a function). It runs without gradients, on `batch` images at a time.

    Args:
        name: what its numbers are called; "inception" is refused: that name is for
            `ganops.metrics.InceptionFeatures`.
        resize: in words, what `module` does to the images first.

    Raises:
        ValueError: a name that begins with inception, is empty; features of another shape.
        TypeError: images are no uint8 tensor.
    """
    if not name or name.lower().startswith("inception"):
        raise ValueError(
            f"as_extractor: expected a name of its own, got {name!r} (numbers called inception are "
            "compared with published ones)"
        )
    if dim < 1 or batch < 1:
        raise ValueError(f"as_extractor: expected dim and batch >= 1, got {dim} and {batch}")
    wrapped = _Wrapped(module, name, dim, resize, batch)
    wrapped.eval()
    return wrapped


def digits_extractor(
    images: Tensor, labels: Tensor, *, cache: str, name: str = "digits-cnn"
) -> Extractor:
    """The small classifier of a labelled set (N, C, H, W) as an extractor of 64 features.

    For MNIST-like sets, offline: trained on the set itself in seconds, cached by content. Its
    numbers compare runs on that set; they are no FID, and `name` says whose they are.
    """
    model: Classifier = cached_classifier(images, labels, cache=cache, name=name)
    return as_extractor(model, name=name, dim=FEATURES)


def check_images(images: Any) -> Tensor:
    """`images` if they are uint8 (N, C, H, W). Raises TypeError or ValueError."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"features: expected images as a uint8 tensor (0..255), got {got}")
    if images.dim() != 4:
        raise ValueError(f"features: expected images (N, C, H, W), got {tuple(images.shape)}")
    return images


def _weights_hash(module: Any) -> str | None:
    if not isinstance(module, nn.Module):
        return None
    return content_hash(*module.state_dict().values())
