"""Factors of covariances and the nuclear norm of their product, by paths that never square.

tr (S_a S_b)^(1/2) is the nuclear norm of F_a' F_b for any factors S = F F'. Eigenvalues of the
product S_a S_b carry errors of order eps |S|^2 under the root: sqrt(eps) |S| for each null
direction.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

EPS = torch.finfo(torch.float64).eps
BLOCK = 64  # columns of pivoted Cholesky between two matrix products
SMALL_PIVOT = 1e-7  # of the largest: below it, eigenvalues of M M' lose what svdvals keep
TOLERANCE = 5e-11  # of the distance, for the error of those eigenvalues' roots


class LastOrder(Function):
    """`value`, a function of `inputs` whose derivative is asked for in vain."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *inputs: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(
            "frechet_distance: it has first derivatives only, got a request for more"
        )


class Factor(Function):
    """cov (d, d) -> G (r, d) with cov = G' G, for functions that depend on G' G alone."""

    @staticmethod
    def forward(ctx: Any, cov: Tensor) -> Tensor:
        g = factor(cov)
        ctx.save_for_backward(cov, g)
        return g

    @staticmethod
    def backward(ctx: Any, dg: Tensor) -> Tensor:  # type: ignore[override]
        """The symmetric H with 2 H F = K, F = G', K = dG'; zero where cov has no range.

        H = (K F+ + (K F+)' - P K F+) / 2 with P = F F+, since F' K is symmetric.
        """
        cov, g = ctx.saved_tensors
        with torch.no_grad():
            q, r = torch.linalg.qr(g.mT)
            solved = torch.linalg.solve_triangular(r, dg.mT, upper=True, left=False) @ q.mT
            h = 0.5 * (solved + solved.mT - q @ (q.mT @ solved))
        return LastOrder.apply(h, cov, dg)


class NuclearNorm(Function):
    """Sum of the singular values of M (r, s); its derivative U V'. `rest`: see `nuclear_norm`."""

    @staticmethod
    def forward(ctx: Any, m: Tensor, rest: float, steep: bool) -> Tensor:
        ctx.save_for_backward(m)
        return nuclear_norm(m, rest, steep)

    @staticmethod
    def backward(ctx: Any, go: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (m,) = ctx.saved_tensors
        with torch.no_grad():
            u, _, v = torch.linalg.svd(m, full_matrices=False)
            dm = go * (u @ v)
        return LastOrder.apply(dm, m, go), None, None


def nuclear_norm(m: Tensor, rest: float, steep: bool) -> Tensor:
    """The sum s of m's singular values, to within TOLERANCE of the distance rest - 2 s.

    Roots of the eigenvalues of M M' (a quarter of the time) serve where their errors, eps |M|^2
    under the root, are that small; not tried if `steep`.
    """
    if not steep:
        m = m if m.shape[0] <= m.shape[1] else m.mT
        squares = torch.linalg.eigvalsh(lower_product(m))
        roots = squares.clamp_min(0).sqrt()
        # Each eigenvalue is off by EPS of the largest, either way; measured: a tenth of this.
        error = EPS * squares[-1] * (0.25 / squares.clamp_min(0)).sum().sqrt()
        total = roots.sum()
        if bool(error <= TOLERANCE * (rest - 2 * total)):  # False if it is NaN
            return total
    return torch.linalg.svdvals(m).sum()


def _blocks(d: int) -> list[tuple[int, int]]:
    """Of an eighth or more: smaller products run below the machine's rate."""
    step = max(256, -(-d // 8))
    return [(start, min(start + step, d)) for start in range(0, d, step)]


def lower_product(m: Tensor) -> Tensor:
    """M M', its lower triangle (and a little more): half the work. For `eigvalsh`."""
    product = m.new_zeros(len(m), len(m))
    for start, stop in _blocks(len(m)):
        torch.mm(m[start:stop], m[:stop].mT, out=product[start:stop, :stop])
    return product


def upper_times_lower(f: Tensor, g: Tensor) -> Tensor:
    """F G' of upper triangular F and G (d, d): two fifths of the work."""
    product = torch.empty_like(f)
    for start, stop in _blocks(len(f)):
        here = slice(start, stop)
        product[here, :stop] = f[here, start:] @ g[:stop, start:].mT
        product[:start, here] = f[:start, start:] @ g[here, start:].mT
    return product


def factor(cov: Tensor) -> Tensor:
    """G (r, d), r the rank, with cov (d, d) = G' G to rounding.

    Cholesky; pivoted where that meets a singular matrix; by eigenvectors where cov is indefinite
    from rounding (of a file in float32). Raises ValueError where it is so beyond that.
    """
    lower, info = torch.linalg.cholesky_ex(cov)
    limit = len(cov) * EPS
    pivots = lower.diagonal().square()
    if int(info) == 0 and bool(pivots.min() > limit * pivots.max()):
        return lower.mT
    g = pivoted_cholesky(cov, limit)
    missed = (cov.diagonal() - g.square().sum(0)).abs().max()
    if bool(missed <= 8 * limit * cov.diagonal().max()):
        return g
    values, vectors = torch.linalg.eigh(cov)
    if bool(values[0] < -1e-3 * values[-1].abs()):
        raise ValueError(
            "frechet_distance: expected positive semidefinite covariances, got one with "
            f"eigenvalues from {values[0].item():.3g} to {values[-1].item():.3g}"
        )
    kept = values > limit * values[-1]
    return (vectors[:, kept] * values[kept].sqrt()).mT


def pivoted_cholesky(cov: Tensor, limit: float) -> Tensor:
    """Rows of G until every remaining pivot is within `limit` of the largest diagonal element."""
    d = len(cov)
    rest = cov.clone()
    blocks: list[Tensor] = []
    floor = float(limit * cov.diagonal().max())
    free = torch.ones(d, dtype=torch.bool, device=cov.device)
    for start in range(0, d, BLOCK):
        block = cov.new_zeros(min(BLOCK, d - start), d)
        pivots = rest.diagonal().where(free, -1.0)
        for k in range(len(block)):
            p = int(pivots.argmax())
            top = float(pivots[p])
            if not top > floor:
                return torch.cat((*blocks, block[:k]))
            row = block[k]
            torch.sub(rest[p], block[:k, p] @ block[:k], out=row)
            row.mul_(free).div_(top**0.5)
            pivots -= row.square()
            pivots[p] = -1.0
            free[p] = False
        blocks.append(block)
        rest.addmm_(block.mT, block, alpha=-1.0)
    return torch.cat(blocks)


def is_upper(g: Tensor) -> bool:
    """Is G square and upper triangular? Cholesky's is, pivoted ones are not."""
    return g.shape[0] == g.shape[1] and not bool(g.tril(-1).any())


def is_steep(g: Tensor) -> bool:
    """Is a pivot of G small beside the largest, or is the factor not square?"""
    if g.shape[0] < g.shape[1]:
        return True
    pivots = g.diagonal().square()
    return bool(pivots.min() < SMALL_PIVOT * pivots.max())
