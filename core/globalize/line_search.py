"""A line search for quasi-Newton methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..arrays import Array, boolean_like, eps, guarded_divide, integer_like, like, namespace
from ..flow import Flow

#: Sufficient decrease (Nocedal and Wright 2006, section 3.1).
DECREASE = 1e-4
#: A value is no increase if it exceeds f by at most this many eps |f| (cf. Hager and Zhang 2005).
NOISE = 1e4
#: A step is lengthened at most tenfold and at least doubled at a time.
GROWTH = (2.0, 10.0)


class Wolfe(NamedTuple):
    """The longest step known to decrease the function enough, and the bracket beyond it."""

    step: Array
    """Its length; 0 while there is none."""
    value: Array
    """Function there."""
    slope: Array
    """Directional derivative there."""
    grad: Array
    """Gradient there, of shape (n,)."""
    high: Array
    """Shortest step known to be too long; infinity while there is none."""
    trial: Array
    """Length to try next."""
    tries: Array
    """Gradients spent."""
    done: Array
    """Whether ``step`` satisfies the curvature condition too."""


def wolfe(
    at: Callable[[Array], tuple[Array, Array, Array]],
    f: Array,
    slope: Array,
    grad: Array,
    *,
    curvature: float,
    attempts: int,
    active: Array,
    flow: Flow,
) -> Wolfe:
    """Find a step that satisfies the weak Wolfe conditions, starting from 1.

    Parameters
    ----------
    at : callable
        Maps a step a to f, the directional derivative and the gradient at x + a d.
    f, slope : 0-d arrays
        Of the start, a = 0.
    grad : array of shape (n,)
        Gradient at the start.
    curvature : float
        The slope must rise to this fraction of the first one.
    attempts : int
        Most steps tried; each costs one gradient.
    active : 0-d boolean array
        If False nothing is tried.
    flow : Flow

    Returns
    -------
    Wolfe
        ``step`` is 0 if nothing decreased the function; if only the curvature condition could not
        be met, the longest step that decreases it enough.

    Notes
    -----
    Nocedal and Wright 2006, section 3.1. The bracket [step, high] is narrowed as in Lewis and
    Overton 2013, but by cubic and secant interpolation, safeguarded. Near a minimum, where values
    are rounding noise, sufficient decrease is read off the slopes (Hager and Zhang 2005, the
    approximate Wolfe conditions). A value or slope that is not finite is too long a step.
    """
    xp = namespace(f)

    def attempt(c: Wolfe) -> Wolfe:
        value, slope_a, grad_a = at(c.trial)
        finite = xp.isfinite(value) & xp.isfinite(slope_a)
        level = value <= f + NOISE * eps(f) * xp.abs(f)
        decreases = finite & (
            (value <= f + DECREASE * c.trial * slope)
            | (level & ((2 * DECREASE - 1) * slope >= slope_a))
        )
        flat = decreases & (slope_a >= curvature * slope)
        shorter = _shorter(c, value, slope_a, finite)
        longer = _longer(c, slope_a)
        return Wolfe(
            step=xp.where(decreases, c.trial, c.step),
            value=xp.where(decreases, value, c.value),
            slope=xp.where(decreases, slope_a, c.slope),
            grad=xp.where(decreases, grad_a, c.grad),
            high=xp.where(decreases, c.high, c.trial),
            trial=xp.where(decreases, longer, shorter),
            tries=c.tries + 1,
            done=flat,
        )

    def keep_going(c: Wolfe) -> Array:
        resolved = c.high - c.step > eps(f) * c.high
        return active & ~c.done & (c.tries < attempts) & (resolved | ~xp.isfinite(c.high))

    start = Wolfe(
        step=like(f, 0.0),
        value=f,
        slope=slope,
        grad=grad,
        high=like(f, float("inf")),
        trial=like(f, 1.0),
        tries=integer_like(f, 0),
        done=boolean_like(f, False),
    )
    return flow.while_loop(keep_going, attempt, start)


def _shorter(c: Wolfe, value: Array, slope: Array, finite: Array) -> Array:
    """Return where the cubic through both ends of [step, trial] is least, inside [0.1, 0.8] of it.

    Where there is no cubic, the middle; where the trial is not finite, a tenth.
    """
    xp = namespace(value)
    width = c.trial - c.step
    z = 3 * guarded_divide(c.value - value, width) + c.slope + slope
    under = z * z - c.slope * slope
    root = xp.sqrt(xp.where(under > 0, under, like(value, 0.0)))
    fraction = 1 - guarded_divide(slope + root - z, slope - c.slope + 2 * root, otherwise=0.5)
    usable = finite & (under > 0) & xp.isfinite(fraction)
    fraction = _clip(xp.where(usable, fraction, like(value, 0.5)), 0.1, 0.8)
    return c.step + width * xp.where(finite, fraction, like(value, 0.1))


def _longer(c: Wolfe, slope: Array) -> Array:
    """Return where the secant of the slopes vanishes, inside the bracket or the allowed growth."""
    xp = namespace(slope)
    step = c.trial
    ahead = (step - c.step) * guarded_divide(slope, c.slope - slope, otherwise=float("inf"))
    ahead = xp.where((slope > c.slope) & xp.isfinite(ahead), ahead, like(slope, float("inf")))
    bounded = xp.isfinite(c.high)
    width = xp.where(bounded, c.high, step) - step
    least, most = GROWTH
    free = xp.minimum(xp.maximum(ahead, (least - 1) * step), (most - 1) * step)
    inside = xp.where(xp.isfinite(ahead), xp.maximum(ahead, 0.1 * width), 0.5 * width)
    return step + xp.where(bounded, xp.minimum(inside, 0.9 * width), free)


def _clip(a: Array, low: float, high: float) -> Array:
    xp = namespace(a)
    return xp.minimum(xp.maximum(a, like(a, low)), like(a, high))
