"""How much of a matrix lies on its diagonal."""

from __future__ import annotations

import math
from random import Random

from ..arrays import Array, as_like, indices_like, namespace
from .probes import Estimate, Matrix, as_arrays, check_count, vector_like


def diagonal_mass(
    A: Matrix, *, columns: int | None = None, seed: int = 0, at_once: int = 64
) -> Estimate:
    """Return delta_A = sum_i |A_ii| / sum_ij |A_ij|, the diagonal's share of a matrix.

    It is 1 for a diagonal matrix. Absolute values of entries need the entries: one product for each
    column. Of a sample of the columns, drawn without replacement, the ratio of both sums is the
    usual estimate, whose standard error is 0 for all columns.

    Parameters
    ----------
    A : Operator or array of shape (n, n)
    columns : int, optional
        How many of the n; all by default. At least 2.
    seed : int
    at_once : int
        Columns in a product.

    Returns
    -------
    Estimate
        0-d; 0 for a matrix of zeros.

    References
    ----------
    J. Kohler, L. Adolphs, A. Lucchi, "Adaptive norms for deep learning with regularized Newton
    methods" (2020), section 3.2, after S. Becker, Y. Le Cun (1988). Standard error: W. G. Cochran,
    "Sampling techniques", 3rd edition, eq. 6.13.
    """
    n, vector = A.shape[0], vector_like(A)
    s = n if columns is None else columns
    check_count("columns", s, min(2, n), n)
    check_count("at_once", at_once, 1)
    chosen = sorted(Random(seed).sample(range(n), s))
    xp = namespace(vector)
    diagonals, totals = [], []
    for first in range(0, s, at_once):
        E = _unit_vectors(vector, n, chosen[first : first + at_once])
        entries = xp.abs(A @ E)
        diagonals.append(xp.sum(entries * E, axis=0))
        totals.append(xp.sum(entries, axis=0))
    own, total = xp.concat(diagonals), xp.concat(totals)
    everything = xp.sum(total)
    everything = xp.where(everything > 0, everything, xp.ones_like(everything))
    share = xp.sum(own) / everything
    rest = xp.sum((own - share * total) ** 2) / max(s - 1, 1)
    return as_arrays(Estimate(share, xp.sqrt(rest * (s * (1.0 - s / n))) / everything))


def _unit_vectors(vector: Array, n: int, places: list[int]) -> Array:
    xp = namespace(vector)
    rows = indices_like(vector, n)
    return xp.astype(rows[:, None] == as_like(rows, places), vector.dtype)


def wigner_diagonal_mass(d: int, ratio: float = 1.0) -> float:
    """Return delta of E|W| for a d x d Gaussian Wigner matrix: 1 / (1 + (d - 1) ratio).

    ``ratio`` is that of the entries' standard deviations, beside the diagonal to on it. Kohler et
    al. (2020), Proposition 1.
    """
    return 1.0 / (1.0 + (d - 1) * ratio)


def ols_diagonal_mass(d: int, n: int) -> float:
    """Return delta of E|X X'| for X of shape (d, n), i.i.d. of mean zero, as n grows.

    sqrt(n) / (sqrt(n) + (d - 1) sqrt(2 / pi)): the Hessian of least squares with d parameters and
    n samples. Kohler et al. (2020), Proposition 2.
    """
    return math.sqrt(n) / (math.sqrt(n) + (d - 1) * math.sqrt(2.0 / math.pi))
