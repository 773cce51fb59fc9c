"""A small classifier of the training set itself: features and class probabilities for its images.

Its numbers compare runs on one small data set. They are no FID: that needs Inception features.
"""

from __future__ import annotations

import hashlib
import os

import torch
from torch import Tensor, nn

from ganops.data.extras import require

FEATURES = 64
STEPS = 500
BATCH = 128


class Classifier(nn.Module):
    """uint8 images (B, C, H, W) -> `features` (B, 64) and `probabilities` (B, classes)."""

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        h, w = -(-height // 2), -(-width // 2)
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * h * w, FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.body(images.float() / 127.5 - 1.0)
        return features

    @torch.no_grad()
    def features(self, images: Tensor, batch: int = 512) -> Tensor:
        """Penultimate activations -> (N, 64)."""
        return torch.cat([self(chunk) for chunk in images.split(batch)])

    @torch.no_grad()
    def probabilities(self, features: Tensor) -> Tensor:
        """Softmax over classes from `features`. -> (N, classes)"""
        probabilities: Tensor = self.head(features).softmax(1)
        return probabilities


def train_classifier(images: Tensor, labels: Tensor, *, seed: int = 0) -> Classifier:
    """Fit on all images (N, C, H, W) uint8, labels (N,); a function of data and seed. Seconds."""
    _, channels, height, width = images.shape
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = Classifier(channels, height, width, int(labels.max()) + 1)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
        for _ in range(STEPS):
            chosen = torch.randint(len(images), (BATCH,))
            loss = nn.functional.cross_entropy(model.head(model(images[chosen])), labels[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return model.eval().requires_grad_(False)


def content_hash(*tensors: Tensor) -> str:
    """SHA-256 of shapes, dtypes and values, in hexadecimal."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def cached_classifier(images: Tensor, labels: Tensor, *, cache: str, name: str) -> Classifier:
    """`train_classifier`, its weights kept in ``cache/name-HASH.safetensors``, HASH of the data.

    Raises ValueError, naming the file, if it is damaged.
    """
    store = require("safetensors.torch", "measuring quality", "safetensors")
    path = os.path.join(cache, f"{name}-{content_hash(images, labels)[:16]}.safetensors")
    if os.path.exists(path):
        return _load(path, images, labels)
    model = train_classifier(images, labels)
    os.makedirs(cache, exist_ok=True)
    metadata = {"sha256": content_hash(*model.state_dict().values())}
    store.save_file(model.state_dict(), f"{path}.tmp", metadata)
    os.replace(f"{path}.tmp", path)
    return model


def _load(path: str, images: Tensor, labels: Tensor) -> Classifier:
    safetensors = require("safetensors", "measuring quality")
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, then overwritten
        _, channels, height, width = images.shape
        model = Classifier(channels, height, width, int(labels.max()) + 1)
    try:
        with safetensors.safe_open(path, "pt") as file:
            expected = (file.metadata() or {}).get("sha256")
            model.load_state_dict({key: file.get_tensor(key) for key in model.state_dict()})
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"cached classifier {path} is damaged; remove it: {error}") from error
    if content_hash(*model.state_dict().values()) != expected:
        raise ValueError(f"cached classifier {path} is damaged; remove it: wrong checksum")
    return model.eval().requires_grad_(False)
