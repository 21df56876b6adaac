"""Preconditioned conjugate residuals that end at, and use, negative curvature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..arrays import Array, boolean_like, dot, guarded_divide, integer_like, like, namespace, norm
from ..flow import Flow
from ..pairs import Memory, teaches
from .truncated_cg import NewtonStep, follow


class _CR(NamedTuple):
    d: Array
    r: Array  # -(g + H d)
    z: Array  # M r
    p: Array
    Hp: Array
    zHz: Array
    recent: Memory
    k: Array
    done: Array


def conjugate_residual(
    matvec: Callable[[Array], Array],
    g: Array,
    memory: Memory,
    *,
    rtol: float,
    maxiter: Any,
    flow: Flow,
) -> NewtonStep:
    """Solve H d = -g by CR, until the residual is small or the curvature is not positive.

    Conjugate residuals minimise |g + H d|_M, conjugate gradients the quadratic: they meet a
    tolerance on the residual no later. Parameters, result and preconditioner are those of
    :func:`~osculant.core.krylov.truncated_cg.truncated_cg`.

    Notes
    -----
    Dahito and Orban, "The conjugate residual method in linesearch and trust-region methods", SIAM
    J. Optim. 29 (2019), Algorithm 2, preconditioned. Deviation: where the residual z or the
    direction p has no positive curvature, it is followed as far as if its curvature had the other
    sign, unless d would climb, and ends the run; the paper gives up there.
    """
    xp = namespace(g)
    g_norm = norm(g)
    scale = xp.where(g_norm > 0, g_norm, like(g, 1.0))
    unit = g / scale
    precondition = memory.inverse(like(g, 1.0))

    def keep_going(c: _CR) -> Array:
        return ~c.done & (c.k < maxiter)

    def iterate(c: _CR) -> _CR:
        Hz = matvec(c.z)
        zHz = dot(c.z, Hz)
        beta = guarded_divide(zHz, c.zHz)
        p, Hp = c.z + beta * c.p, Hz + beta * c.Hp
        convex = (zHz > 0) & (dot(p, Hp) > 0) & xp.isfinite(zHz)
        MHp = precondition(xp.where(convex, Hp, xp.zeros_like(Hp)))
        alpha = xp.where(convex, guarded_divide(zHz, dot(Hp, MHp)), like(g, 0.0))
        r, z = c.r - alpha * Hp, c.z - alpha * MHp
        return _CR(
            d=xp.where(convex, c.d + alpha * p, _bent(c, p, Hp, zHz)),
            r=r,
            z=z,
            p=p,
            Hp=Hp,
            zHz=zHz,
            recent=c.recent.push(p, Hp, teaches(p, Hp), flow),
            k=c.k + 1,
            done=~convex | (dot(r, z) <= rtol * rtol * first),
        )

    def _bent(c: _CR, p: Array, Hp: Array, zHz: Array) -> Array:
        """Return d and as much of z, or of p where z's curvature is positive, as descends."""
        v = xp.where(zHz > 0, p, c.z)
        curvature = xp.where(zHz > 0, dot(p, Hp), zHz)
        alpha, _ = follow(dot(c.r, v), curvature, v, c.k == 0, scale, flow)
        d = c.d + alpha * v
        return xp.where(dot(unit, d) < 0, d, c.d)

    zeros, z = xp.zeros_like(g), precondition(-unit)
    first = dot(-unit, z)
    start = _CR(
        d=zeros,
        r=-unit,
        z=z,
        p=zeros,
        Hp=zeros,
        zHz=like(g, 0.0),
        recent=memory.copied(flow),
        k=integer_like(g, 0),
        done=boolean_like(g, False),
    )
    end = flow.while_loop(keep_going, iterate, start)
    return NewtonStep(scale * end.d, end.recent, end.k)
