"""Conjugate gradients that stop at the first direction of negative curvature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..arrays import Array, boolean_like, dot, guarded_divide, integer_like, like, namespace
from ..flow import Flow


class Search(NamedTuple):
    """A Krylov search for d in H d = -g."""

    d: Array
    """The direction so far."""
    Hd: Array
    """H d, without any momentum."""
    r: Array
    """Residual that CG works on."""
    p: Array
    """Next conjugate direction."""
    rr: Array
    """r'P^-1 r."""
    curvature: Array
    """p'Hp of the last direction tried, per unit of p'p."""
    iterations: Array
    """Products H v so far."""
    negative: Array
    """Whether negative curvature ended it."""
    done: Array


def _same(v: Array) -> Array:
    return v


def start(
    r: Array,
    d: Array | None = None,
    Hd: Array | None = None,
    precondition: Callable[[Array], Array] = _same,
) -> Search:
    """Return the search with residual ``r``, at ``d`` and ``Hd`` or at 0 (where r is -g)."""
    zeros, p = namespace(r).zeros_like(r), precondition(r)
    return Search(
        d=zeros if d is None else d,
        Hd=zeros if Hd is None else Hd,
        r=r,
        p=p,
        rr=dot(r, p),
        curvature=like(r, 0.0),
        iterations=integer_like(r, 0),
        negative=boolean_like(r, False),
        done=boolean_like(r, False),
    )


def early_cg(
    matvec: Callable[[Array], Array],
    search: Search,
    *,
    tolerance: Array,
    maxiter: Any,
    flatness: float,
    flow: Flow,
    precondition: Callable[[Array], Array] = _same,
) -> Search:
    """Run CG on H d = r until it converges or meets negative curvature.

    Parameters
    ----------
    matvec : callable
        Maps v of shape (n,) to H v.
    search : Search
        Where to go on from; :func:`start` makes a new one.
    tolerance : 0-d array
        Stop once (r'P^-1 r)^(1/2) is at most this.
    maxiter : int or 0-d integer array
        Most products.
    flatness : float
        Curvature p'Hp / p'p below which the direction counts as flat.
    flow : Flow
    precondition : callable
        v -> P^-1 v, P positive definite, as in :func:`start`.

    Returns
    -------
    Search
        The last one; a non-finite product ends it as negative curvature does.

    Notes
    -----
    Shen et al. 2020, Algorithm 1, lines 12-27. In a flat direction the iteration is given a
    *temporary momentum*: mu |p|^2 is added to the curvature, and mu p to H p, for this
    iteration only, with mu = |p|, the search's own speed.
    """
    xp = namespace(search.d)

    def keep_going(c: Search) -> Array:
        return ~c.done & (c.iterations < maxiter)

    def iterate(c: Search) -> Search:
        Hp = matvec(c.p)
        pp, pHp = dot(c.p, c.p), dot(c.p, Hp)
        c = c._replace(curvature=guarded_divide(pHp, pp), iterations=c.iterations + 1)
        barred = ~(pHp >= 0)  # also when it is not a number
        return flow.cond(barred, bar, go, c, Hp, pp, pHp)

    def bar(c: Search, Hp: Array, pp: Array, pHp: Array) -> Search:
        yes = boolean_like(pp, True)
        return c._replace(negative=yes, done=yes)

    def go(c: Search, Hp: Array, pp: Array, pHp: Array) -> Search:
        mu = xp.where(pHp < flatness * pp, xp.sqrt(pp), like(pp, 0.0))
        a = guarded_divide(c.rr, pHp + mu * pp)
        r = c.r - a * flow.cond(mu > 0, lambda: Hp + mu * c.p, lambda: Hp)
        # After the last product nothing asks for another direction.
        y = flow.cond(c.iterations < maxiter, precondition, _same, r)
        rr = dot(r, y)
        return c._replace(
            d=c.d + a * c.p,
            Hd=c.Hd + a * Hp,
            r=r,
            p=y + guarded_divide(rr, c.rr) * c.p,
            rr=rr,
            done=rr <= tolerance * tolerance,
        )

    return flow.while_loop(keep_going, iterate, search)
