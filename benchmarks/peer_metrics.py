"""Other libraries' metrics as arms: imported at the first call, so that a missing one says why."""

from __future__ import annotations

import contextlib
import importlib
import io
from typing import Any

import torch
from torch import Tensor

from ganops._timing import Arm


def torch_fidelity_precision_recall(real: Tensor, generated: Tensor, k: int) -> Arm:
    def arm() -> Tensor:
        peer: Any = importlib.import_module("torch_fidelity.metric_prc")
        return torch.tensor(peer.calculate_precision_recall_full(generated, real, k))

    return arm


def prdc_package(real: Tensor, generated: Tensor, k: int) -> Arm:
    """Its balls are open; a pair of random features is never at a boundary."""
    r, g = real.cpu().numpy(), generated.cpu().numpy()

    def arm() -> Tensor:
        with contextlib.redirect_stdout(io.StringIO()):
            found = importlib.import_module("prdc").compute_prdc(r, g, k)
        return torch.tensor([found["precision"], found["recall"]])

    return arm


def torch_fidelity_kid(real: Tensor, generated: Tensor, subsets: int, size: int, seed: int) -> Arm:
    def arm() -> Tensor:
        peer: Any = importlib.import_module("torch_fidelity.metric_kid")
        found = peer.kid_features_to_metric(
            generated, real, kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False
        )
        return torch.tensor(found[peer.KEY_METRIC_KID_MEAN])

    return arm


def torchmetrics_all_pairs(real: Tensor, generated: Tensor) -> Arm:
    def arm() -> Tensor:
        peer: Any = importlib.import_module("torchmetrics.image.kid")
        return peer.poly_mmd(real.double(), generated.double())

    return arm


def torchmetrics_memorisation(real: Tensor, generated: Tensor) -> Arm:
    def arm() -> Tensor:
        peer: Any = importlib.import_module("torchmetrics.image.mifid")
        return peer._compute_cosine_distance(real, generated, cosine_distance_eps=2.0)

    return arm
