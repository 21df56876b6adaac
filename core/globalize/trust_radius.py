"""The trust radius and the cubic weight: chosen first, resized after a trial; the stretch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..arrays import Array, eps, integer_like, like, namespace
from ..flow import Flow
from .reduction import NOISE
from .trial import Trial

#: Below this ratio an accepted step still halves the radius; above the other it may grow
#: (Nocedal and Wright 2006, Algorithm 4.1).
POOR, GOOD = 0.25, 0.75
#: Above this ratio the function falls faster than the model says, and a longer step is tried.
BETTER = 1.1
#: Most doublings of a step.
DOUBLINGS = 4


class Stretch(NamedTuple):
    """How much longer than on trial a step is to be."""

    factor: Array
    value: Array
    """Function at the end of it."""
    tries: Array
    """Forward passes spent."""
    done: Array


def initial_radius(radius: Array, g_norm: Array) -> Array:
    """Return ``radius`` if it is positive, else clip(|g|/10, 1, 100), as JSOSolvers' trunk does."""
    xp = namespace(g_norm)
    automatic = xp.minimum(xp.maximum(g_norm / 10, like(g_norm, 1.0)), like(g_norm, 100.0))
    return xp.where(radius > 0, radius, automatic)


def resized(trial: Trial, *, max_radius: float) -> Array:
    """Return the radius for the next step, after ``trial``.

    Doubled after a good step to the boundary, half the step's length after a poor one; after a
    refusal, what the trial ended with.
    """
    xp = namespace(trial.size)
    at_boundary = trial.length >= 0.99 * trial.size
    grown = xp.minimum(xp.maximum(trial.size, 2 * trial.length), like(trial.size, max_radius))
    new = xp.where((trial.ratio > GOOD) & at_boundary, grown, trial.size)
    new = xp.where(trial.ratio < POOR, trial.length / 2, new)
    return xp.where(trial.accepted, new, trial.size)


def stretch(
    value_at: Callable[[Array], Array],
    trial: Trial,
    f: Array,
    *,
    active: Array,
    flow: Flow,
) -> Stretch:
    """Double an accepted step for as long as that decreases the function.

    Parameters
    ----------
    value_at : callable
        Maps a step s to f(x + s).
    trial : Trial
        The step.
    f : 0-d array
        f(x).
    active : 0-d boolean array
        If False nothing is tried.
    flow : Flow

    Notes
    -----
    Newton's step is short by a fixed factor where the minimum is degenerate (s = -x/3 on x^4), and
    the ratio shows it: there 1.2. Each doubling costs a forward pass. A decrease that may be
    rounding is left alone.
    """
    xp = namespace(f)
    noise = NOISE * eps(f) * xp.maximum(xp.abs(f), like(f, 1.0))
    worth = active & trial.accepted & (trial.ratio > BETTER) & (f - trial.value > noise)

    def double(s: Stretch) -> Stretch:
        value = value_at(2 * s.factor * trial.step)
        lower = (value < s.value) & xp.isfinite(value)
        return Stretch(
            factor=xp.where(lower, 2 * s.factor, s.factor),
            value=xp.where(lower, value, s.value),
            tries=s.tries + 1,
            done=~lower | (s.tries + 1 >= DOUBLINGS),
        )

    start = Stretch(like(f, 1.0), trial.value, integer_like(f, 0), ~worth)
    return flow.while_loop(lambda s: ~s.done, double, start)
