"""Line searches: by gradients for quasi-Newton methods, by values for Newton methods.

Near a minimum values are rounding noise, and both read the decrease off the slopes instead (Hager
and Zhang 2005, the approximate Wolfe conditions).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..arrays import Array, boolean_like, eps, guarded_divide, integer_like, like, namespace
from ..flow import Flow
from .reduction import recheck

#: Sufficient decrease (Nocedal and Wright 2006, section 3.1).
DECREASE = 1e-4
#: A value is no increase if it exceeds f by at most this many eps |f| (cf. Hager and Zhang 2005).
NOISE = 1e4
#: A step that is lengthened is at least doubled.
GROWTH = 2.0
#: A step whose decrease is more than this part of the first-order one is too short (Goldstein's
#: conditions, Nocedal and Wright 2006, section 3.1), and is made so many times as long.
SHORT, STRETCH = 0.9, 4.0


def noise(f: Array) -> Array:
    """Return how much two values near ``f`` may differ by rounding."""
    return NOISE * eps(f) * namespace(f).abs(f)


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
    growth: float = 10.0,
    strong: bool = False,
) -> Wolfe:
    """Find a step that satisfies the weak or strong Wolfe conditions, starting from 1.

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
    growth : float
        A step is made at most so many times as long at once.
    strong : bool
        Whether a step is too long as well where the slope exceeds the same fraction upwards.

    Returns
    -------
    Wolfe
        ``step`` is 0 if nothing decreased the function; if only the curvature condition could not
        be met, the longest step that decreases it enough.

    Notes
    -----
    Nocedal and Wright 2006, section 3.1. The bracket [step, high] is narrowed as in Lewis and
    Overton 2013, but by cubic and secant interpolation, safeguarded. A value or slope that is not
    finite is too long a step.
    """
    xp = namespace(f)

    def attempt(c: Wolfe) -> Wolfe:
        value, slope_a, grad_a = at(c.trial)
        finite = xp.isfinite(value) & xp.isfinite(slope_a)
        level = value <= f + noise(f)
        decreases = finite & (
            (value <= f + DECREASE * c.trial * slope)
            | (level & ((2 * DECREASE - 1) * slope >= slope_a))
        )
        if strong:
            decreases = decreases & (slope_a <= -curvature * slope)
        flat = decreases & (slope_a >= curvature * slope)
        trial, grad = flow.cond(
            decreases,
            lambda: (_longer(c, slope_a, growth), grad_a),
            lambda: (_shorter(c, value, slope_a, finite), c.grad),
        )
        return Wolfe(
            step=xp.where(decreases, c.trial, c.step),
            value=xp.where(decreases, value, c.value),
            slope=xp.where(decreases, slope_a, c.slope),
            grad=grad,
            high=xp.where(decreases, c.high, c.trial),
            trial=trial,
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


class Goldstein(NamedTuple):
    """The best step known, and the one to try next."""

    step: Array
    """Its length; 0 while nothing decreases the function enough."""
    value: Array
    """Function there."""
    trial: Array
    """Length to try next."""
    tries: Array
    """Forward passes spent."""
    gradients: Array
    """Gradients spent on telling progress from rounding."""
    done: Array


def goldstein(
    value_at: Callable[[Array], Array],
    slopes_at: Callable[[Array], Array],
    f: Array,
    slope: Array,
    *,
    attempts: int,
    active: Array,
    flow: Flow,
) -> Goldstein:
    """Find a step that decreases the function enough and is not too short, starting from 1.

    Parameters
    ----------
    value_at : callable
        Maps a step a to f(x + a d).
    slopes_at : callable
        Maps a step a to a d'(grad f(x) + grad f(x + a d)); only called where rounding hides
        the decrease.
    f, slope : 0-d arrays
        f(x) and d'grad f(x), negative.
    attempts : int
        Most steps tried; each costs one forward pass.
    active : 0-d boolean array
        If False nothing is tried.
    flow : Flow

    Returns
    -------
    Goldstein
        ``step`` is 0 if nothing decreased the function.

    Notes
    -----
    The Goldstein conditions need no gradients, and a Newton step satisfies them where the quadratic
    can be trusted (Nocedal and Wright 2006, section 3.1). A step that is too short is stretched for
    as long as that helps, which is what negative curvature asks for; one that is too long is cut
    where the parabola through f, its slope and the value is least. A bracket is not narrowed: an
    iteration of Newton's method is the better use of what that costs. The decrease by slopes,
    -a d'(g + g_new)/2 (:func:`~osculant.core.globalize.reduction.recheck`), makes the first
    condition the approximate Wolfe condition of Hager and Zhang 2005, equation (4.1).
    """
    xp = namespace(f)

    def attempt(c: Goldstein) -> Goldstein:
        value = value_at(c.trial)
        finite = xp.isfinite(value)
        linear = -c.trial * slope
        decrease = xp.where(finite, f - value, -linear)  # one that is refused
        refused = decrease < DECREASE * linear
        decrease, doubtful = recheck(
            decrease, linear, f, slopes_at, c.trial, refused & finite, flow
        )
        enough = finite & (decrease >= DECREASE * linear)
        better = enough & ((c.step == 0) | (value < c.value))
        stretch = better & ~doubtful & (decrease > SHORT * linear) & (c.trial >= 1)
        return Goldstein(
            step=xp.where(better, c.trial, c.step),
            value=xp.where(better, value, c.value),
            trial=c.trial * xp.where(stretch, like(f, STRETCH), _cut(linear, decrease, finite)),
            tries=c.tries + 1,
            gradients=c.gradients + xp.astype(doubtful, c.gradients.dtype),
            done=(better & ~stretch) | (c.step > 0) & ~better,
        )

    def keep_going(c: Goldstein) -> Array:
        return active & ~c.done & (c.tries < attempts)

    start = Goldstein(
        step=like(f, 0.0),
        value=f,
        trial=like(f, 1.0),
        tries=integer_like(f, 0),
        gradients=integer_like(f, 0),
        done=boolean_like(f, False),
    )
    return flow.while_loop(keep_going, attempt, start)


def _cut(linear: Array, decrease: Array, finite: Array) -> Array:
    """Return where the parabola is least, inside [0.1, 0.5]; a tenth where there is no value."""
    fraction = guarded_divide(linear / 2, linear - decrease, otherwise=0.5)
    return namespace(finite).where(finite, _clip(fraction, 0.1, 0.5), like(linear, 0.1))


def _shorter(c: Wolfe, value: Array, slope: Array, finite: Array) -> Array:
    """Return where the cubic through both ends of [step, trial] is least, as far as [0.001, 0.8].

    It is near ``step`` only where f is like a quadratic, and right there: where f is steeper than a
    cubic, its least point is too far. Where there is no cubic, the middle; where the trial is not
    finite, a tenth.
    """
    xp = namespace(value)
    width = c.trial - c.step
    z = 3 * guarded_divide(c.value - value, width) + c.slope + slope
    under = z * z - c.slope * slope
    root = xp.sqrt(xp.where(under > 0, under, like(value, 0.0)))
    fraction = 1 - guarded_divide(slope + root - z, slope - c.slope + 2 * root, otherwise=0.5)
    usable = finite & (under > 0) & xp.isfinite(fraction)
    fraction = _clip(xp.where(usable, fraction, like(value, 0.5)), 0.001, 0.8)
    return c.step + width * xp.where(finite, fraction, like(value, 0.1))


def _longer(c: Wolfe, slope: Array, growth: float) -> Array:
    """Return where the secant of the slopes vanishes, inside the bracket or the allowed growth."""
    xp = namespace(slope)
    step = c.trial
    ahead = (step - c.step) * guarded_divide(slope, c.slope - slope, otherwise=float("inf"))
    ahead = xp.where((slope > c.slope) & xp.isfinite(ahead), ahead, like(slope, float("inf")))
    bounded = xp.isfinite(c.high)
    width = xp.where(bounded, c.high, step) - step
    free = xp.minimum(xp.maximum(ahead, (GROWTH - 1) * step), (growth - 1) * step)
    inside = xp.where(xp.isfinite(ahead), xp.maximum(ahead, 0.1 * width), 0.5 * width)
    return step + xp.where(bounded, xp.minimum(inside, 0.9 * width), free)


def _clip(a: Array, low: float, high: float) -> Array:
    xp = namespace(a)
    return xp.minimum(xp.maximum(a, like(a, low)), like(a, high))
