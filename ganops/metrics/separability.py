"""Linear separability of latents by attributes of the images made from them.

Karras et al. 2019, arXiv 1812.04948. Needs scikit-learn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ganops.data.extras import require
from ganops.metrics._features import Result, checked


@dataclass(frozen=True)
class Separability(Result):
    """`value` = 2 ** (sum of `entropies`, in bits); 1 is perfectly separable."""

    value: float
    entropies: tuple[float, ...]
    one_class: tuple[int, ...]
    unconverged: tuple[int, ...]
    n: int
    kept: int
    dim: int
    seed: int

    def numbers(self) -> dict[str, float]:
        return {"linear separability": self.value}

    def protocol(self) -> str:
        notes = "".join(
            f", attributes {list(which)} {what}"
            for which, what in (
                (self.one_class, "of one class only"), (self.unconverged, "not converged"),
            )
            if which
        )  # fmt: skip
        return (
            f"{len(self.entropies)} attributes, the {self.kept} most confident of {self.n} latents "
            f"of dimension {self.dim} each, LinearSVC's defaults, seed {self.seed}{notes}"
        )


def linear_separability(
    latents: Tensor, logits: Tensor, *, keep: float = 0.5, seed: int = 0
) -> Separability:
    """2 ** sum_i H(Y_i | X_i): what a linear SVM on latents leaves unknown of attribute i, in bits.

    Y_i is the sign of attribute i's logit, X_i the SVM's prediction of it on the latents that it
    was fitted to: those of the `keep` share of samples with the largest |logit|. An attribute with
    a single class among them counts as known (H = 0), as in the original; the result names it.

    The SVM (scikit-learn's LinearSVC, defaults) is not invariant to the scale of the latents. The
    classifiers are the caller's: published numbers use 40 of CelebA, which are not shipped.

    Args:
        latents: (N, d), floating and finite: z, or w.
        logits: (N, attributes), floating and finite: the classifiers' logits of the N images.
        keep: share of samples kept for each attribute, in (0, 1].
        seed: of the solver.

    Returns: Separability.
    Raises: TypeError, ValueError for arguments not as above; ModuleNotFoundError without sklearn.
    Memory: the kept latents in float64.
    Source: arXiv 1812.04948 and its official code.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep: expected a share in (0, 1], got {keep!r}")
    latents = checked("latents", latents, least=2).cpu().double()
    logits = checked("logits", logits, least=2).cpu()
    if len(latents) != len(logits):
        raise ValueError(
            f"expected as many latents as logits, got {len(latents)} and {len(logits)}"
        )
    svm = require("sklearn.svm", "linear separability", "scikit-learn")
    kept = max(math.floor(keep * len(latents)), 2)
    entropies, one_class, unconverged = [], [], []
    for attribute, logit in enumerate(logits.T):
        # A stable sort: ties keep the order of the samples.
        chosen = logit.abs().argsort(descending=True, stable=True)[:kept]
        labels = (logit[chosen] > 0).long()
        if labels.min() == labels.max():
            entropies.append(0.0)
            one_class.append(attribute)
            continue
        model = svm.LinearSVC(random_state=seed)
        points = latents[chosen].numpy()
        model.fit(points, labels.numpy())
        if model.n_iter_ >= model.max_iter:
            unconverged.append(attribute)
        predicted = torch.from_numpy(model.predict(points))
        table = torch.bincount(2 * predicted + labels, minlength=4).view(2, 2)
        entropies.append(conditional_entropy(table))
    return Separability(
        2.0 ** sum(entropies), tuple(entropies), tuple(one_class), tuple(unconverged),
        len(latents), kept, latents.shape[1], seed,
    )  # fmt: skip


def conditional_entropy(table: Tensor) -> float:
    """H(Y | X) >= 0 in bits of a table of counts or shares, X in rows and Y in columns."""
    joint = table.double() / table.double().sum()
    both, given = torch.special.entr(joint).sum(), torch.special.entr(joint.sum(1)).sum()
    return max(float(both - given) / math.log(2), 0.0)
