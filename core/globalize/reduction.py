"""Telling progress from rounding."""

from __future__ import annotations

from collections.abc import Callable

from ..arrays import Array, eps, like, namespace
from ..flow import Flow

#: Decreases below this many eps max(1, |f|) may be rounding noise (JSOSolvers.jl, trunk).
NOISE = 1e4


def recheck(
    decrease: Array,
    predicted: Array,
    f: Array,
    slopes_at: Callable[[Array], Array],
    where: Array,
    suspicious: Array,
    flow: Flow,
) -> tuple[Array, Array]:
    """Recompute a ``decrease`` f(x) - f(x + s) from gradients if it may be rounding noise.

    Near a minimum the difference of two values is noise: judged by it, a good step is rejected,
    and a trust radius shrinks to nothing. The trapezoid -s'(g + g_new)/2 equals the decrease up
    to third order and does not cancel.

    Parameters
    ----------
    decrease : 0-d array
        f(x) - f(x + s), by subtraction.
    predicted : 0-d array
        The model's decrease.
    f : 0-d array
        f(x).
    slopes_at : callable
        Maps ``where`` to s'(g + g_new). Costs one gradient, and is only called if needed.
    where : array
        Its argument.
    suspicious : 0-d boolean array
        Whether the step would be refused as it stands; one that passes is left alone.
    flow : Flow

    Returns
    -------
    decrease, doubtful : 0-d arrays
        The decrease to judge by, and whether a gradient was spent on it.
    """
    xp = namespace(f)
    noise = NOISE * eps(f) * xp.maximum(xp.abs(f), like(f, 1.0))
    doubtful = suspicious & (predicted > 0) & (predicted < noise) & (xp.abs(decrease) < noise)
    slopes = flow.cond(doubtful, slopes_at, lambda _: like(f, 0.0), where)
    return xp.where(doubtful, -slopes / 2, decrease), doubtful
