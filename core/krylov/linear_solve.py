"""Preconditioned conjugate gradients for one right side, or several at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from ..arrays import (
    Array,
    columnwise_dot,
    guarded_divide,
    integer_like,
    like,
    namespace,
    norm,
)
from ..flow import Flow


class LinearSolution(NamedTuple):
    """What conjugate gradients made of A x = b; everything of b's shape without its first axis."""

    x: Array
    """Of the shape of b."""
    residual: Array
    """|b - A x|, as the iteration keeps it."""
    converged: Array
    """Whether the residual is within the tolerance."""
    indefinite: Array
    """Whether a direction without positive curvature, or a product that is not finite, ended it."""
    iterations: Array
    """Products A V that it took, as a 0-d array."""


class _CG(NamedTuple):
    X: Array
    R: Array
    P: Array
    RZ: Array
    residual: Array
    going: Array
    indefinite: Array
    k: Array


def linear_solve(
    matvec: Callable[[Array], Array],
    B: Array,
    *,
    precondition: Callable[[Array], Array],
    rtol: float,
    atol: float,
    maxiter: int,
    flow: Flow,
) -> LinearSolution:
    """Solve A X = B for a positive definite A, each column by its own conjugate gradients.

    Parameters
    ----------
    matvec : callable
        Maps V of the shape of B to A V.
    B : array of shape (n,) or (n, k)
    precondition : callable
        Maps V of the shape of B to P^-1 V, P positive definite.
    rtol, atol : float
        A column ends once |b - A x| <= max(rtol |b|, atol).
    maxiter : int
        Most products.
    flow : Flow

    Returns
    -------
    LinearSolution

    Notes
    -----
    Nocedal and Wright 2006, Algorithm 5.3, on b/|b|, so that squares neither under- nor overflow.
    A column that meets a direction whose curvature is not positive ends where it is.
    """
    xp = namespace(B)
    sizes = norm(B)
    scale = xp.where((sizes > 0) & (sizes < math.inf), sizes, like(B, 1.0))
    tolerance = xp.maximum(like(B, rtol), atol / scale)

    def keep_going(c: _CG) -> Array:
        return xp.any(c.going) & (c.k < maxiter)

    def iterate(c: _CG) -> _CG:
        AP = matvec(c.P)
        curvature = columnwise_dot(c.P, AP)
        usable = (curvature > 0) & (curvature < math.inf)
        advances, zero = c.going & usable, like(B, 0.0)
        a = xp.where(advances, guarded_divide(c.RZ, curvature), zero)
        R = c.R - a * xp.where(usable, AP, zero)
        Z = precondition(R)
        RZ, residual = columnwise_dot(R, Z), norm(R)
        return _CG(
            X=c.X + a * c.P,
            R=R,
            P=Z + guarded_divide(RZ, c.RZ) * c.P,
            RZ=RZ,
            residual=residual,
            going=advances & ~(residual <= tolerance),
            indefinite=c.indefinite | (c.going & ~usable),
            k=c.k + 1,
        )

    R = B / scale
    Z, residual = precondition(R), norm(R)
    start = _CG(
        X=xp.zeros_like(B),
        R=R,
        P=Z,
        RZ=columnwise_dot(R, Z),
        residual=residual,
        going=~(residual <= tolerance),
        indefinite=residual != residual,
        k=integer_like(B, 0),
    )
    end = flow.while_loop(keep_going, iterate, start)
    return LinearSolution(
        x=scale * end.X,
        residual=scale * end.residual,
        converged=end.residual <= tolerance,
        indefinite=end.indefinite,
        iterations=end.k,
    )
