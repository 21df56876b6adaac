"""Preconditioned conjugate gradients that remember the way they came."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from ..arrays import (
    Array,
    as_like,
    boolean_like,
    dot,
    entries_like,
    guarded_divide,
    integer_like,
    like,
    namespace,
    rows_like,
)
from ..flow import Flow

#: Iterates are stored at the powers of this (Martens 2010, section 4.6).
SPACING = 1.3
#: The relative progress is taken over max(WINDOW, i / 10) iterations (Martens 2010, section 4.4).
WINDOW = 10


class Path(NamedTuple):
    """A minimisation of phi(x) = x'Ax/2 - b'x, and where it passed."""

    x: Array
    """The last iterate, of shape (n,)."""
    r: Array
    """Residual b - A x."""
    p: Array
    """Next conjugate direction."""
    ry: Array
    """r'P^-1 r."""
    phi: Array
    """phi after 0, 1, ..., maxiter iterations, of shape (maxiter + 1,)."""
    stored: Array
    """Iterates, of shape (k, n): the one of iteration :func:`storage` ``[j]`` in row j."""
    iterations: Array
    products: Array
    """Products A v: one for each iteration, and one for the residual of a start that is not 0."""
    done: Array


def storage(maxiter: int) -> list[int]:
    """Return the iterations whose iterates are stored, in increasing order: ceil(1.3^j).

    Fewer than 2 + log(maxiter) / log(1.3), which bounds the memory: 20 for 250 iterations.
    """
    number = math.floor(math.log(maxiter) / math.log(SPACING))
    return sorted({math.ceil(SPACING**j) for j in range(number + 1)} & set(range(1, maxiter + 1)))


def cg_path(
    matvec: Callable[[Array], Array],
    b: Array,
    x: Array,
    *,
    precondition: Callable[[Array], Array],
    tolerance: float,
    maxiter: int,
    active: Array,
    flow: Flow,
) -> Path:
    """Minimise phi(x) = x'Ax/2 - b'x until its relative progress stops.

    Parameters
    ----------
    matvec : callable
        Maps v of shape (n,) to A v, A positive definite.
    b : array of shape (n,)
    x : array of shape (n,)
        Where to start.
    precondition : callable
        Maps v to P^-1 v, P positive definite.
    tolerance : float
        Stop at iteration i once phi_i < 0 and (phi_i - phi_{i-k}) / phi_i < k tolerance, with
        k = max(10, i / 10).
    maxiter : int
        Most iterations, at least 1.
    active : 0-d boolean array
        If False nothing is iterated.
    flow : Flow

    Returns
    -------
    Path

    Notes
    -----
    Martens, "Deep learning via Hessian-free optimization" (2010), sections 4.4 and 4.6. A
    direction whose curvature is not positive and finite ends the iteration where it is. The store
    is written to at few iterations only, which is why it is behind a ``cond``.
    """
    xp = namespace(b)
    rows = as_like(integer_like(b, 0), storage(maxiter))

    def keep_going(c: Path) -> Array:
        return active & ~c.done & (c.iterations < maxiter)

    def iterate(c: Path) -> Path:
        Ap = matvec(c.p)
        pAp = dot(c.p, Ap)
        usable = (pAp > 0) & xp.isfinite(pAp)
        a = xp.where(usable, guarded_divide(c.ry, pAp), like(b, 0.0))
        x = c.x + a * c.p
        r = c.r - a * xp.where(usable, Ap, xp.zeros_like(Ap))
        y = precondition(r)
        ry = dot(r, y)
        i = c.iterations + 1
        phi = flow.put(c.phi, i, -dot(x, r + b) / 2)
        return Path(
            x=x,
            r=r,
            p=y + guarded_divide(ry, c.ry) * c.p,
            ry=ry,
            phi=phi,
            stored=flow.put(
                c.stored, xp.argmax(xp.astype(rows == i, xp.int32)), x, xp.any(rows == i)
            ),
            iterations=i,
            products=c.products + 1,
            done=~usable | (ry <= 0) | _stops(phi, i, tolerance),
        )

    warm = active & xp.any(x != 0)
    r = b - flow.cond(warm, matvec, xp.zeros_like, x)
    y = precondition(r)
    start = Path(
        x=x,
        r=r,
        p=y,
        ry=dot(r, y),
        phi=flow.put(entries_like(b, maxiter + 1), integer_like(b, 0), -dot(x, r + b) / 2),
        stored=rows_like(b, rows.shape[0]),
        iterations=integer_like(b, 0),
        products=xp.astype(warm, xp.int32),
        done=boolean_like(b, False),
    )
    return flow.while_loop(keep_going, iterate, start)


def _stops(phi: Array, i: Array, tolerance: float) -> Array:
    """Return whether the last k iterations brought less than ``tolerance`` each."""
    xp = namespace(phi)
    k = xp.maximum(integer_like(phi, WINDOW), i // 10)
    now, before = entry(phi, i), entry(phi, xp.maximum(i - k, integer_like(phi, 0)))
    progress = guarded_divide(now - before, now)
    return (i > k) & (now < 0) & (progress < xp.astype(k, phi.dtype) * tolerance)


def entry(a: Array, i: Array) -> Array:
    """Return a[i] for a 0-d integer array i, which may be traced."""
    xp = namespace(a)
    return xp.take(a, xp.reshape(i, (1,)), axis=0)[0, ...]
