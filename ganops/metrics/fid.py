"""FID as a streaming metric, as torchmetrics' users expect it."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ganops.metrics.feature_stats import FeatureStats
from ganops.metrics.frechet import frechet_distance

_Base: Any = nn.Module
if importlib.util.find_spec("torchmetrics") is not None:
    try:  # a collection takes nothing but its own Metric
        from torchmetrics import Metric

        _Base = Metric
    except ImportError as error:
        warnings.warn(
            f"ganops.metrics.FID: torchmetrics is installed but cannot be imported ({error}); FID "
            "works without it, outside its collections",
            RuntimeWarning,
            stacklevel=2,
        )


class FID(_Base):  # type: ignore[misc]
    """Frechet distance between features of real and generated images, in one pass over them.

    ``update(images, real=True or False)`` any number of times, then ``compute()``; ``reset()``
    begins anew. Works inside a ``torchmetrics.MetricCollection`` (if torchmetrics is installed this
    is a Metric), and under torch.distributed: `compute` sums over all ranks, whatever each has seen
    (collective: every rank calls it), and leaves each rank's own state as it is.

    Args:
        features: module or function, uint8 images (B, C, H, W) -> (B, d) features. Its attributes
            `name`, `weights_sha256`, `resize` and `dtype`, where it has them, are kept with the
            statistics. None: `InceptionFeatures()`, the network that gives the distance its name;
            with any other the number is no FID to compare with published ones.
        normalize: images are floats in [0, 1], and are rounded to the nearest of 256 levels
            (torchmetrics truncates). False: uint8.
        reset_real_features: does `reset` forget the real images, too?
        mode: of `FeatureStats`.

    Memory: two `FeatureStats`, 76 MB at d = 2048; as much again inside `compute`.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    def __init__(
        self,
        features: Callable[[Tensor], Tensor] | None = None,
        normalize: bool = False,
        *,
        reset_real_features: bool = True,
        mode: str = "exact",
    ) -> None:
        super().__init__()
        if features is None:
            from ganops.metrics.inception import InceptionFeatures

            features = InceptionFeatures()
        if not callable(features):
            raise TypeError(f"FID: expected features as a module, got {type(features).__name__}")
        if isinstance(features, nn.Module):
            features.eval()
        self.features = features
        self.normalize = normalize
        self.reset_real_features = reset_real_features
        self.mode = mode
        self._stats: dict[bool, FeatureStats] = {}

    def update(self, imgs: Tensor, real: bool) -> None:
        """Adds images (B, C, H, W), B >= 0.

        Raises TypeError for images of another dtype, ValueError for another rank, floats outside
        [0, 1] or features that are not (B, d) or not finite; the state is then as it was.
        """
        images = self._pixels(imgs)
        if not len(images):
            return
        with torch.no_grad():
            features = self.features(images)
        if features.ndim != 2 or len(features) != len(images):
            raise ValueError(
                f"FID: expected features ({len(images)}, d) of {len(images)} images, got "
                f"{tuple(features.shape)}"
            )
        real = bool(real)
        stats = self._stats.get(real) or self._new(features)
        stats.to(features.device).update(features)  # the module may have moved
        self._stats[real] = stats

    def forward(self, imgs: Tensor, real: bool) -> None:
        """`update`: a batch has no distance of its own."""
        self.update(imgs, real=real)

    def _new(self, features: Tensor) -> FeatureStats:
        known = {key: getattr(self.features, key, None) for key in ("weights_sha256", "resize")}
        name = getattr(self.features, "name", None) or type(self.features).__name__
        known = {key: None if value is None else str(value) for key, value in known.items()}
        dtype = getattr(self.features, "dtype", None) or features.dtype
        return FeatureStats(
            features.shape[1], device=features.device, mode=self.mode, extractor=str(name),
            dtype=str(dtype).removeprefix("torch."), **known,
        )  # fmt: skip

    def _pixels(self, images: Tensor) -> Tensor:
        if not isinstance(images, Tensor) or images.ndim != 4:
            got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(f"FID: expected images (B, C, H, W), got {got}")
        if not self.normalize:
            if images.dtype != torch.uint8:
                raise TypeError(
                    f"FID: expected uint8 images, got {images.dtype}; normalize=True takes floats "
                    "in [0, 1]"
                )
            return images
        if not images.is_floating_point():
            raise TypeError(f"FID: normalize=True expected floats in [0, 1], got {images.dtype}")
        images = images.detach()
        if len(images):
            low, high = (float(x) for x in images.aminmax())
            if not (low >= 0.0 and high <= 1.0):  # also NaN
                raise ValueError(
                    f"FID: normalize=True expected floats in [0, 1], got [{low:.4g}, {high:.4g}]"
                )
        return (images.float() * 255.0).round().to(torch.uint8)

    def compute(self) -> Tensor:
        """The distance, 0-d float64. Raises ValueError below two images on either side."""
        both = self._reduced()
        for real, name in ((True, "real"), (False, "generated")):
            count = both[real].count if real in both else 0
            if count is None or count < 2:
                raise ValueError(f"FID: expected 2 {name} images or more, got {count}")
        distance = frechet_distance(both[True], both[False])
        return torch.tensor(distance, dtype=torch.float64, device=both[True].device)

    def _reduced(self) -> dict[bool, FeatureStats]:
        """The statistics of all ranks; a rank without images needs another's dimension first."""
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            return self._stats
        if distributed.get_world_size() == 1:
            return self._stats
        own = {real: (s.dim, vars(s.provenance), str(s.device)) for real, s in self._stats.items()}
        everyone: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(everyone, own)
        found = {}
        for real in (True, False):
            known = [one[real] for one in everyone if real in one]
            if not known:
                continue
            for dim, origin, _ in known[1:]:
                if (dim, origin) != known[0][:2]:
                    raise ValueError(
                        f"FID: ranks have different features: {known[0][:2]} and {(dim, origin)}"
                    )
            mine = self._stats.get(real)
            if mine is None:
                device = next((s.device for s in self._stats.values()), _device(known[0][2]))
                mine = FeatureStats(known[0][0], device=device, mode=self.mode, **known[0][1])
            found[real] = mine.copy().all_reduce()
        return found

    def reset(self) -> None:
        """Forgets all images, or (reset_real_features=False) the generated ones."""
        kept = None if self.reset_real_features else self._stats.get(True)
        super_reset = getattr(super(), "reset", None)
        if super_reset is not None:
            super_reset()
        self._stats = {} if kept is None else {True: kept}

    def get_extra_state(self) -> dict[str, Any]:
        """The statistics, for `state_dict`."""
        return {"real" if real else "fake": s.state_dict() for real, s in self._stats.items()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._stats = {}
        for key, one in state.items():
            stats = FeatureStats(
                one["dim"], device=one["mean"].device, mode=one["mode"], block=one["block"]
            )
            stats.load_state_dict(one)
            self._stats[key == "real"] = stats


def _device(text: str) -> torch.device:
    """Of a rank that has no images: the kind of device the others use."""
    device = torch.device(text)
    index = torch.cuda.current_device() if device.type == "cuda" else None
    return torch.device(device.type) if index is None else torch.device("cuda", index)
