"""The trust radius: tried, judged against rounding, and resized."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..arrays import Array, boolean_like, guarded_divide, integer_like, like, namespace, norm
from ..flow import Flow
from ..krylov.steihaug import Subproblem
from .reduction import recheck

#: Accept a step whose actual decrease is at least this part of the predicted one
#: (SolverTools.jl, ``acceptance_threshold``).
ACCEPT = 1e-4
#: Below this ratio an accepted step still halves the radius; above the other it may grow
#: (Nocedal and Wright 2006, Algorithm 4.1).
POOR, GOOD = 0.25, 0.75


class Trial(NamedTuple):
    """A step on trial, and after :func:`search_radius` the verdict on it."""

    step: Array
    slope: Array
    curvature: Array
    radius: Array
    value: Array
    accepted: Array
    tries: Array
    """Forward passes spent."""
    gradients: Array
    """Gradients spent on telling progress from rounding."""


def initial_radius(radius: Array, g_norm: Array) -> Array:
    """Return ``radius`` if it is positive, else clip(|g|/10, 1, 100), as JSOSolvers' trunk does."""
    xp = namespace(g_norm)
    automatic = xp.minimum(xp.maximum(g_norm / 10, like(g_norm, 1.0)), like(g_norm, 100.0))
    return xp.where(radius > 0, radius, automatic)


def search_radius(
    value_at: Callable[[Array], Array],
    slopes_at: Callable[[Array], Array],
    f: Array,
    model: Subproblem,
    radius: Array,
    *,
    max_radius: float,
    attempts: int,
    active: Array,
    flow: Flow,
) -> Trial:
    """Try the model's step, and shorter ones along it, until the function agrees with the model.

    Parameters
    ----------
    value_at : callable
        Maps a step s to f(x + s).
    slopes_at : callable
        Maps a step s to s'(grad f(x) + grad f(x + s)).
    f : 0-d array
        f(x).
    model : Subproblem
        Step and its model along the ray: m(t s) = t slope + t^2 curvature / 2.
    radius : 0-d array
        Trust radius that the step obeyed.
    max_radius : float
        It never grows beyond this.
    attempts : int
        Most steps tried; each costs one forward pass.
    active : 0-d boolean array
        If False nothing is tried and nothing is accepted.
    flow : Flow

    Returns
    -------
    Trial
        With the radius for the next iteration.

    Notes
    -----
    A rejected step is shortened along itself before a new subproblem is solved (Nocedal and
    Yuan 1998), which costs forward passes only. A step refused for what may be rounding is
    judged again by its gradients (:func:`~osculant.core.globalize.reduction.recheck`). A value
    that is not finite is a refusal.
    """
    xp = namespace(f)

    def attempt(trial: Trial) -> Trial:
        value = value_at(trial.step)
        predicted = -(trial.slope + trial.curvature / 2)
        finite = xp.isfinite(value)
        # Where there is no value, a decrease that any ratio refuses.
        decrease = xp.where(finite, f - value, -xp.abs(predicted))
        refused = guarded_divide(decrease, predicted) < ACCEPT
        decrease, doubtful = recheck(
            decrease, predicted, f, slopes_at, trial.step, refused & finite, flow
        )
        ratio = guarded_divide(decrease, predicted)
        accepted = finite & (ratio >= ACCEPT) & (predicted > 0)
        length = norm(trial.step)
        shrink = _shrink_factor(trial.slope, decrease, finite)
        factor = xp.where(accepted, like(f, 1.0), shrink)
        return Trial(
            step=factor * trial.step,
            slope=factor * trial.slope,
            curvature=factor * factor * trial.curvature,
            radius=xp.where(
                accepted,
                _resized(trial.radius, length, ratio, model.on_boundary, max_radius),
                shrink * length,
            ),
            value=xp.where(accepted, value, trial.value),
            accepted=accepted,
            tries=trial.tries + 1,
            gradients=trial.gradients + xp.astype(doubtful, trial.gradients.dtype),
        )

    def keep_going(trial: Trial) -> Array:
        return active & ~trial.accepted & (trial.tries < attempts) & (trial.radius > 0)

    trial = Trial(
        step=model.step,
        slope=model.slope,
        curvature=model.curvature,
        radius=radius,
        value=f,
        accepted=boolean_like(f, False),
        tries=integer_like(f, 0),
        gradients=integer_like(f, 0),
    )
    return flow.while_loop(keep_going, attempt, trial)


def _shrink_factor(slope: Array, decrease: Array, finite: Array) -> Array:
    """Return where the parabola through f, its slope and f_new is least, kept in [0.1, 0.5].

    Where f_new is not finite there is no parabola: a third (SolverTools.jl).
    """
    xp = namespace(slope)
    bend = -2 * (decrease + slope)
    factor = guarded_divide(-slope, bend, otherwise=0.5)
    factor = xp.minimum(xp.maximum(factor, like(slope, 0.1)), like(slope, 0.5))
    return xp.where(finite & (bend > 0), factor, like(slope, 1 / 3))


def _resized(
    radius: Array, length: Array, ratio: Array, on_boundary: Array, max_radius: float
) -> Array:
    xp = namespace(radius)
    grown = xp.minimum(xp.maximum(radius, 2 * length), like(radius, max_radius))
    radius = xp.where((ratio > GOOD) & on_boundary, grown, radius)
    return xp.where(ratio < POOR, length / 2, radius)
