"""What becomes of a direction that a search has found: momentum, and screening."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..arrays import Array, dot, guarded_divide, namespace, norm
from ..flow import Flow
from .plane import Plane, minimiser


class Direction(NamedTuple):
    """A direction d and the quadratic along it."""

    d: Array
    """Shape (n,)."""
    slope: Array
    """g'd."""
    curvature: Array
    """d'B d."""
    products: Array
    """Products and forms spent on it."""


def with_momentum(
    found: Direction,
    z: Array,
    product: Callable[[Array], Array],
    g: Array,
    *,
    active: Array,
    flow: Flow,
) -> Direction:
    """Return the minimiser of g's + s'B s/2 on the plane of d and z, for one more product.

    Parameters
    ----------
    found : Direction
    z : array of shape (n,)
        The direction before it, zeros if there is none: then, and where the quadratic on the plane
        is not finite, ``found`` is returned.
    product : callable
        v -> B v.
    g : array of shape (n,)
        Gradient.
    active : 0-d boolean array
        If False nothing is evaluated and ``found`` is returned.
    flow : Flow

    Notes
    -----
    Negative eigenvalues of the plane's matrix count by their size (:mod:`.plane`).
    """
    xp = namespace(g)
    active = active & xp.any(z != 0)
    Bz = flow.cond(active, product, xp.zeros_like, z)
    plane = Plane.spanned(found.d, z, Bz, found.curvature, g)
    p = minimiser(plane, norm(found.d), norm(z))
    usable = active & xp.any(p != 0)
    return Direction(
        d=xp.where(usable, p[0] * found.d + p[1] * z, found.d),
        slope=xp.where(usable, dot(plane.b, p), found.slope),
        curvature=xp.where(usable, dot(p, xp.matmul(plane.M, p)), found.curvature),
        products=found.products + xp.astype(active, found.products.dtype),
    )


def screened(
    found: Direction,
    gbar: Array,
    form: Callable[[Array], Array],
    g: Array,
    *,
    active: Array,
    flow: Flow,
) -> Direction:
    """Return the direction without the part along gbar, if it would climb there.

    Parameters
    ----------
    found : Direction
    gbar : array of shape (n,)
        The global gradient.
    form : callable
        v -> v'B v; called only if there is something to take away.
    g, active, flow
        As for :func:`with_momentum`.
    """
    xp, climb = namespace(g), dot(found.d, gbar)
    climbs = active & (climb > 0)
    along = guarded_divide(climb, dot(gbar, gbar)) * gbar
    d = xp.where(climbs, found.d - along, found.d)
    return Direction(
        d=d,
        slope=dot(g, d),
        curvature=flow.cond(climbs, form, lambda _: found.curvature, d),
        products=found.products + xp.astype(climbs, found.products.dtype),
    )
