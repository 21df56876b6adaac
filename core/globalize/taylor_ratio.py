"""Step lengths from the error of the second-order Taylor expansion."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..arrays import Array, boolean_like, guarded_divide, integer_like, like, namespace
from ..flow import Flow
from .reduction import recheck


class StepLength(NamedTuple):
    """The best step length found, and the search for it."""

    best: Array
    """Length of the accepted step; 0 if none descends."""
    decrease: Array
    """How far the function falls there."""
    s: Array
    """Length to try next."""
    tries: Array
    """Forward passes spent."""
    gradients: Array
    """Gradients spent on telling progress from rounding."""
    done: Array


def taylor_step(
    value_at: Callable[[Array], Array],
    slopes_at: Callable[[Array], Array],
    f: Array,
    slope: Array,
    curvature: Array,
    *,
    interval: tuple[float, float],
    attempts: int,
    active: Array,
    flow: Flow,
) -> StepLength:
    """Return a step length s whose Taylor ratio lies in ``interval``.

    The ratio is rho(s) = |f(w + s d) - f - s g'd - s^2 d'Hd/2| / |f(w + s d) - f|.

    Parameters
    ----------
    value_at : callable
        Maps s to f(w + s d).
    slopes_at : callable
        Maps s to s d'(grad f(w) + grad f(w + s d)).
    f, slope, curvature : 0-d arrays
        f(w), g'd and d'Hd.
    interval : tuple of float
        Ratios that are accepted: above it the step shrinks, below it the step is stretched.
    attempts : int
        Most lengths tried; each costs one forward pass.
    active : 0-d boolean array
        If False nothing is tried.
    flow : Flow

    Returns
    -------
    StepLength

    Notes
    -----
    Shen et al. 2020, eq. (13). What the text leaves open, we fill in so: (1) a step that is
    not finite or does not descend shrinks, whatever its ratio, and is never taken; (2) the
    ratio grows like s^2, which gives the factor by which to shrink, kept in [0.1, 0.7];
    (3) a ratio below the interval says that the quadratic can be trusted, so the step is
    stretched only where the quadratic itself goes on descending (never beyond the minimiser
    s = 1 of a Krylov solve), and not where it has just been shrunk; (4) if no attempt falls
    inside, the best that descends is taken.
    """
    xp = namespace(f)
    low, high = interval

    def model(s: Array) -> Array:
        return s * slope + s * s * curvature / 2

    def ratio_of(s: Array, decrease: Array) -> Array:
        return guarded_divide(xp.abs(decrease + model(s)), xp.abs(decrease), otherwise=float("inf"))

    def attempt(c: StepLength) -> StepLength:
        value = value_at(c.s)
        finite = xp.isfinite(value)
        decrease = xp.where(finite, f - value, like(f, -1.0))
        refused = finite & ~(ratio_of(c.s, decrease) <= high)
        decrease, doubtful = recheck(decrease, -model(c.s), f, slopes_at, c.s, refused, flow)
        descends, ratio = decrease > 0, ratio_of(c.s, decrease)
        better = decrease > c.decrease
        wild = ~descends | (ratio > high)
        stretched = 2 * c.s
        longer = (c.s >= 1) & (model(stretched) < model(c.s))
        stretches = ~wild & better & longer & (ratio < low)
        take = better | (~wild & (c.s < c.best))
        overshot = ~better & (c.s > c.best) & (c.best > 0)
        shrink = 0.9 * xp.sqrt(guarded_divide(like(f, high), ratio, otherwise=1.0))
        shrink = xp.minimum(xp.maximum(shrink, like(f, 0.1)), like(f, 0.7))
        shrink = xp.where(descends, shrink, like(f, 0.25))
        return StepLength(
            best=xp.where(take, c.s, c.best),
            decrease=xp.where(take, decrease, c.decrease),
            s=xp.where(stretches, stretched, shrink * c.s),
            tries=c.tries + 1,
            gradients=c.gradients + xp.astype(doubtful, c.gradients.dtype),
            done=(~wild & ~stretches) | overshot,
        )

    def keep_going(c: StepLength) -> Array:
        return active & ~c.done & (c.tries < attempts)

    start = StepLength(
        best=like(f, 0.0),
        decrease=like(f, 0.0),
        s=like(f, 1.0),
        tries=integer_like(f, 0),
        gradients=integer_like(f, 0),
        done=boolean_like(f, False),
    )
    return flow.while_loop(keep_going, attempt, start)
