"""Truncated conjugate gradients for the trust-region subproblem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..arrays import Array, boolean_like, dot, guarded_divide, integer_like, like, namespace, norm
from ..flow import Flow


class Subproblem(NamedTuple):
    """An approximate minimiser s of m(s) = g's + s'Bs/2 within a radius."""

    step: Array
    """s, of shape (n,)."""
    slope: Array
    """g's."""
    curvature: Array
    """s'Bs."""
    on_boundary: Array
    """Whether the radius stopped the iteration."""
    iterations: Array
    """Products B v that it took."""


class _CG(NamedTuple):
    s: Array
    sAs: Array
    r: Array  # g + B s
    p: Array
    rr: Array  # r'A^-1 r
    k: Array
    on_boundary: Array
    done: Array


def steihaug(
    matvec: Callable[[Array], Array],
    g: Array,
    radius: Array,
    *,
    rtol: Array,
    maxiter: Any,
    flow: Flow,
    metric: Callable[[Array], Array] = lambda v: v,
    solve: Callable[[Array], Array] = lambda v: v,
) -> Subproblem:
    """Minimise m(s) = g's + s'Bs/2 over |s|_A <= radius by Steihaug-Toint truncated CG.

    Parameters
    ----------
    matvec : callable
        Maps v of shape (n,) to B v.
    g : array of shape (n,)
        Gradient.
    radius : 0-d array
        Trust radius, positive.
    rtol : 0-d array
        Stop once |g + B s| <= rtol |g|, both in the norm of A^-1.
    maxiter : int or 0-d integer array
        Most products; 0 returns s = 0.
    flow : Flow
    metric, solve : callable
        v -> A v and v -> A^-1 v, which preconditions; by default A = I.

    Returns
    -------
    Subproblem

    Notes
    -----
    Steihaug, SIAM J. Numer. Anal. 20 (1983) 626-637; Conn, Gould and Toint, Trust-Region
    Methods (2000), Algorithm 7.5.1. Deviations: the iteration runs on g/|g|, so that squares
    neither under- nor overflow; a product that is not finite is taken for zero curvature, so
    that the step goes on to the boundary and the ratio test judges it.
    """
    xp = namespace(g)
    g_norm = norm(g)
    scale = xp.where(g_norm > 0, g_norm, like(g, 1.0))
    unit, reach = g / scale, radius / scale

    def keep_going(c: _CG) -> Array:
        return ~c.done & (c.k < maxiter)

    def iterate(c: _CG) -> _CG:
        Bp = matvec(c.p)
        pBp = dot(c.p, Bp)
        finite = xp.isfinite(pBp)
        pBp = xp.where(finite, pBp, like(g, 0.0))
        Ap = metric(c.p)
        pAp, sAp = dot(c.p, Ap), dot(c.s, Ap)

        def square(alpha: Array) -> Array:
            """Return the square of |s + alpha p|_A."""
            return c.sAs + alpha * (2 * sAp + alpha * pAp)

        alpha = guarded_divide(c.rr, pBp)
        leaves = (pBp <= 0) | (square(alpha) >= reach * reach)
        alpha = xp.where(leaves, _to_boundary(c.sAs, sAp, pAp, reach), alpha)
        r = c.r + alpha * flow.cond(finite, lambda Bp: Bp, xp.zeros_like, Bp)
        z = solve(r)
        rr = dot(r, z)
        return _CG(
            s=c.s + alpha * c.p,
            sAs=square(alpha),
            r=r,
            p=guarded_divide(rr, c.rr) * c.p - z,
            rr=rr,
            k=c.k + 1,
            on_boundary=leaves,
            done=leaves | (rr <= rtol * rtol * start.rr),
        )

    z = solve(unit)
    start = _CG(
        s=xp.zeros_like(g),
        sAs=like(g, 0.0),
        r=unit,
        p=-z,
        rr=dot(unit, z),
        k=integer_like(g, 0),
        on_boundary=boolean_like(g, False),
        done=~(g_norm > 0),
    )
    end = flow.while_loop(keep_going, iterate, start)
    slope = dot(unit, end.s)
    return Subproblem(
        step=scale * end.s,
        slope=scale * scale * slope,
        curvature=scale * scale * (dot(end.s, end.r) - slope),
        on_boundary=end.on_boundary,
        iterations=end.k,
    )


def _to_boundary(ss: Array, sp: Array, pp: Array, radius: Array) -> Array:
    """Return the tau >= 0 at which |s + tau p| = radius, for s inside; free of cancellation."""
    xp = namespace(ss)
    missing = xp.maximum(radius * radius - ss, like(ss, 0.0))
    root = xp.sqrt(sp * sp + pp * missing)
    return xp.where(sp > 0, guarded_divide(missing, sp + root), guarded_divide(root - sp, pp))
