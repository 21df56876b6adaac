"""The damping of a quadratic model, by how well the model foretold the function."""

from __future__ import annotations

from collections.abc import Callable

from ..arrays import Array, guarded_divide, like, namespace
from ..flow import Flow

#: What a ratio that is not finite multiplies the damping by.
SURPRISE = 10.0


def look(
    looks: Array, change: Callable[[Array], Array], x: Array, predicted: Array, flow: Flow
) -> Array:
    """Return the change of the function over that of the quadratic; 1 where it is not looked at.

    Parameters
    ----------
    looks : 0-d boolean array
    change : callable
        The function at ``x`` less what it was before the step; called only to look.
    x : array of shape (n,)
        Where the step ends.
    predicted : 0-d array
        The change of the quadratic.
    flow : Flow
    """
    made = flow.cond(looks, change, lambda _: predicted, x)
    return guarded_divide(made, predicted, otherwise=1.0)


def rescale(damping: Array, ratio: Array, *, poor: float, good: float, factor: float) -> Array:
    """Return the damping for the next step.

    Parameters
    ----------
    damping : 0-d array
        lambda, added to the diagonal of the quadratic's matrix.
    ratio : 0-d array
        Change of the function over the change of the quadratic.
    poor, good : float
        Below ``poor`` the damping grows, above ``good`` it shrinks.
    factor : float
        In (0, 1]; the damping is divided by it to grow, multiplied to shrink. A ratio that is not
        finite makes it grow by :data:`SURPRISE`.
    """
    xp = namespace(damping)
    grown = xp.where(xp.isfinite(ratio), like(damping, 1 / factor), like(damping, SURPRISE))
    kept = xp.where(ratio > good, like(damping, factor), like(damping, 1.0))
    return damping * xp.where(xp.isfinite(ratio) & (ratio >= poor), kept, grown)
