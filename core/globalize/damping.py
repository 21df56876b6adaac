"""The damping of a quadratic model, by how well the model foretold the function."""

from __future__ import annotations

from ..arrays import Array, like, namespace

#: What a ratio that is not finite multiplies the damping by.
SURPRISE = 10.0


def rescale(
    damping: Array, ratio: Array, *, poor: float, good: float, grow: float, shrink: float
) -> Array:
    """Return the damping for the next step.

    Parameters
    ----------
    damping : 0-d array
        lambda, added to the diagonal of the quadratic's matrix.
    ratio : 0-d array
        Change of the function over the change of the quadratic.
    poor, good : float
        Below ``poor`` the damping grows, above ``good`` it shrinks.
    grow, shrink : float
        By what factors. A ratio that is not finite makes it grow by :data:`SURPRISE`.
    """
    xp = namespace(damping)
    grown = xp.where(xp.isfinite(ratio), like(damping, grow), like(damping, SURPRISE))
    kept = xp.where(ratio > good, like(damping, shrink), like(damping, 1.0))
    return damping * xp.where(xp.isfinite(ratio) & (ratio >= poor), kept, grown)
