"""Features of the 2015 Inception network: what FID, KID and the Inception Score are taken on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganops.metrics.inception_graph import CLASSES, POOL3, Outputs, folded
from ganops.metrics.inception_weights import load_weights
from ganops.ops import resize_normalize
from ganops.ops.resize import RESIZES

SIDE = 299


class InceptionFeatures(nn.Module):
    """uint8 images (N, 1 or 3, H, W) -> features (N, 2048), by the network of 2015.

    ``InceptionFeatures()(images)`` are pool3's; `outputs` gives the logits too, with and without
    their bias. One fused pass resizes and normalises, batch norms are folded into the convolutions,
    memory is channels_last; gradients, autocast and TensorFloat-32 are off while it runs. Features
    of an image do not depend on its batch (2e-5 of the largest).

    Args:
        weights: None: the published file, from torch.hub's cache folder, downloaded if it is not
            there (95.6 MB, resumes). Else a path, an http(s) URL, or "random" ("random:SEED"):
            numbers that mean nothing, for tests and timings; `name` says so.
        resize: the protocol of `ganops.ops.resize_normalize`: "tf" (torch-fidelity, StyleGAN,
            TensorFlow), "torch" (pytorch-fid), "clean" (clean-fid) or "antialias" (torchmetrics'
            default). Numbers of two protocols do not compare.
        dtype: of the network. bfloat16 and float16 change features, and `name`;
            ``python -m ganops.metrics.inception_deviation`` measures by how much.
        compile: run the network through torch.compile. Rounding alone differs.
        device: where; `to` moves it later.
        batch: images at a time in the network; results do not depend on it.
        sha256: what the file's SHA-256 must begin with. The published file's is always checked.
        progress: a bar for the download; None: where stderr is a terminal.

    Attributes:
        name: "inception-2015-12-05" for the published weights. For others it has their hash, or
            RANDOM-WEIGHTS; and the dtype if that is not float32.
        dim: 2048.
        resize: the protocol.
        weights_sha256: of the file.

    Raises:
        FileNotFoundError: no such path.
        ConnectionError: no network; the message says where the file would be looked for.
        ValueError: a wrong hash (always), a file of something else, an unknown protocol.
        TypeError: a dtype that is not float32, bfloat16 or float16.

    Source: Szegedy et al., arXiv 1512.00567; the frozen graph "inception-2015-12-05" of Salimans et
    al., arXiv 1606.03498; the converted weights are pytorch-fid's and torch-fidelity's.
    """

    dim = POOL3
    classes = CLASSES

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        *,
        resize: str = "tf",
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        device: torch.device | str = "cpu",
        batch: int = 64,
        sha256: str | None = None,
        progress: bool | None = None,
    ) -> None:
        super().__init__()
        if resize not in RESIZES:
            raise ValueError(f"inception: expected resize as one of {RESIZES}, got {resize!r}")
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise TypeError(f"inception: expected float32, bfloat16 or float16, got {dtype}")
        if batch < 1:
            raise ValueError(f"inception: expected batch >= 1, got {batch}")
        found = load_weights(weights, sha256=sha256, progress=progress)
        half = "" if dtype == torch.float32 else f"-{str(dtype).removeprefix('torch.')}"
        self.name = found.name + half
        self.weights_sha256 = found.sha256
        self.resize, self.dtype, self.batch = resize, dtype, batch
        self.trunk = folded(found.tensors, dtype)
        # In float64: a thousandth of the work, and no setting of matrix products can touch it.
        self.register_buffer("fc_weight", found.tensors["fc.weight"].to(torch.float64))
        self.register_buffer("fc_bias", found.tensors["fc.bias"].to(torch.float64))
        # In a list: as a submodule of its own it would repeat the trunk's tensors in state_dict.
        self._compiled: list[Any] = [torch.compile(self.trunk)] if compile else []
        self.to(device)
        self.eval()

    def train(self, mode: bool = True) -> InceptionFeatures:
        """Stays in evaluation mode: metrics move along when a model is set to train."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        return self.get_buffer("fc_weight").device

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, 1 or 3, H, W), on any device -> pool3 (N, 2048) float32 on this one."""
        with torch.inference_mode(), _in_full(self.device):
            found = [self._pool3(part) for part in images.split(self.batch)]
            features = torch.cat(found) if found else self._pool3(images)
        return features.clone()  # outside inference mode: a tensor like any other

    def outputs(self, images: Tensor) -> Outputs:
        """The same, and the logits (N, 1008) with and without bias."""
        pool3 = self(images)
        with torch.no_grad():
            unbiased = F.linear(pool3.to(torch.float64), self.get_buffer("fc_weight"))
            biased = unbiased + self.get_buffer("fc_bias")
        return Outputs(pool3, unbiased.to(torch.float32), biased.to(torch.float32))

    def _pool3(self, images: Tensor) -> Tensor:
        x = resize_normalize(images.to(self.device), SIDE, protocol=self.resize, dtype=self.dtype)
        if len(images) == 0:
            return x.new_empty((0, POOL3), dtype=torch.float32)
        run = self._compiled[0] if self._compiled else self.trunk
        features: Tensor = run(x)
        return features

    def extra_repr(self) -> str:
        return f"{self.name}, resize={self.resize}"


@contextlib.contextmanager
def _in_full(device: torch.device) -> Iterator[None]:
    """No autocast, and no TensorFloat-32 in convolutions: cuDNN's default, a thousandth off."""
    known: Any = torch.backends
    convolutions = (known.cudnn.conv, known.mkldnn.conv)
    before = [each.fp32_precision for each in convolutions]
    try:
        for each in convolutions:
            each.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for each, precision in zip(convolutions, before):
            each.fp32_precision = precision
