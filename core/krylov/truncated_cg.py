"""Preconditioned conjugate gradients that end at, and use, negative curvature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..arrays import Array, boolean_like, dot, guarded_divide, integer_like, like, namespace, norm
from ..flow import Flow
from ..pairs import Memory, teaches


class NewtonStep(NamedTuple):
    """An approximate solution d of H d = -g that descends, with what was learned of H."""

    d: Array
    """Shape (n,)."""
    memory: Memory
    """The pairs given, and the latest conjugate directions with their products."""
    products: Array
    """Products H v spent."""


class _CG(NamedTuple):
    d: Array
    r: Array  # g + H d
    p: Array
    rz: Array  # r'M r
    recent: Memory
    k: Array
    done: Array


def truncated_cg(
    matvec: Callable[[Array], Array],
    g: Array,
    memory: Memory,
    *,
    rtol: float,
    maxiter: Any,
    flow: Flow,
) -> NewtonStep:
    """Solve H d = -g by CG, until the residual is small or the curvature is not positive.

    Parameters
    ----------
    matvec : callable
        Maps v of shape (n,) to H v.
    g : array of shape (n,)
        Gradient.
    memory : Memory
        Pairs whose inverse is the preconditioner M; without any it is I.
    rtol : float
        Stop once |g + H d|_M <= rtol |g|_M.
    maxiter : int or 0-d integer array
        Most products; 0 returns d = 0.
    flow : Flow

    Returns
    -------
    NewtonStep

    Notes
    -----
    Nocedal and Wright 2006, Algorithm 7.1, preconditioned by the pairs (p, H p) of the runs before,
    which cost nothing (Morales and Nocedal, SIAM J. Optim. 10, 2000). Deviation: a direction p of
    negative curvature, along which Algorithm 7.1 gives up, is followed as far as if its curvature
    had the other sign, and ends the run; as g'p < 0, d still descends. One of no curvature, or
    whose product is not finite, is left out, or taken at unit length if it is the first. The
    iteration runs on g/|g|, so that squares neither under- nor overflow.
    """
    xp = namespace(g)
    g_norm = norm(g)
    scale = xp.where(g_norm > 0, g_norm, like(g, 1.0))
    unit = g / scale
    precondition = memory.inverse(like(g, 1.0))

    def keep_going(c: _CG) -> Array:
        return ~c.done & (c.k < maxiter)

    def iterate(c: _CG) -> _CG:
        Hp = matvec(c.p)
        pHp = dot(c.p, Hp)
        alpha, usable = follow(c.rz, pHp, c.p, c.k == 0, scale, flow)
        r = c.r + alpha * flow.cond(usable, lambda Hp: Hp, xp.zeros_like, Hp)
        z = precondition(r)
        rz = dot(r, z)
        return _CG(
            d=c.d + alpha * c.p,
            r=r,
            p=guarded_divide(rz, c.rz) * c.p - z,
            rz=rz,
            recent=c.recent.push(c.p, Hp, teaches(c.p, Hp), flow),
            k=c.k + 1,
            done=~usable | (pHp <= 0) | (rz <= rtol * rtol * first),
        )

    z = precondition(unit)
    first = dot(unit, z)
    start = _CG(
        d=xp.zeros_like(g),
        r=unit,
        p=-z,
        rz=first,
        recent=memory.copied(flow),
        k=integer_like(g, 0),
        done=boolean_like(g, False),
    )
    end = flow.while_loop(keep_going, iterate, start)
    return NewtonStep(scale * end.d, end.recent, end.k)


def follow(
    descent: Array, curvature: Array, p: Array, first: Array, scale: Array, flow: Flow
) -> tuple[Array, Array]:
    """Return how far to follow a direction p, and whether its curvature was of any use.

    Parameters
    ----------
    descent : 0-d array
        By how much the quadratic falls along p at first order, per unit of p.
    curvature : 0-d array
        p'Hp; only its size matters.
    p : array of shape (n,)
    first : 0-d boolean array
        Whether there is nothing but p: without curvature it is then followed to a length of 1
        in units of x, which are 1/scale of those of p.
    scale : 0-d array
    flow : Flow
    """
    xp = namespace(p)
    alpha = guarded_divide(descent, xp.abs(curvature))
    usable = (curvature != 0) & xp.isfinite(curvature) & xp.isfinite(alpha)
    blind = flow.cond(
        first & ~usable,
        lambda p: guarded_divide(like(p, 1.0), scale * norm(p)),
        lambda p: like(p, 0.0),
        p,
    )
    return xp.where(usable, alpha, blind), usable
