"""Features that are not finite are refused before they spoil what they join."""

from __future__ import annotations

import torch
from torch import Tensor


def check_finite(features: Tensor, before: int) -> None:
    """Raises ValueError naming the first row (N, d) that is not; `before` rows came earlier.

    One sum finds whether to look; looking finds the row.
    """
    wide = torch.float64 if features.dtype == torch.float64 else torch.float32
    if bool(features.sum(dtype=wide).isfinite()):
        return
    bad = (~features.isfinite()).any(1).nonzero()
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"FeatureStats: expected finite features, got {_first_bad(features[row])} in row {row} "
            f"of this batch (row {before + row} of all); nothing of the batch was taken"
        )


def _first_bad(row: Tensor) -> str:
    column = int((~row.isfinite()).nonzero()[0])
    return f"{row[column].item()} at feature {column}"
