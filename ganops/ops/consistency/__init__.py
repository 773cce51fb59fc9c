"""Consistency regularisation: the loss on a batch [x ; T(x)], and the penalties made of it.

`consistency_loss` is the reduction alone; `cr_penalty`, `bcr_penalty` and `zcr_d_penalty` call the
critic themselves, `consistency_scores` shares that call with the critic's own loss (ICR is its
three penalties together); `zcr_g_penalty` is the generator's term, `perturb_latent` makes latents.
"""

from .loss import consistency_loss
from .penalties import cr_penalty, perturb_latent, zcr_d_penalty, zcr_g_penalty
from .scores import ConsistencyScores, bcr_penalty, consistency_scores

__all__ = [
    "ConsistencyScores",
    "bcr_penalty",
    "consistency_loss",
    "consistency_scores",
    "cr_penalty",
    "perturb_latent",
    "zcr_d_penalty",
    "zcr_g_penalty",
]
