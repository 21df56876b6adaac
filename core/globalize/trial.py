"""Steps on trial, shortened until the function confirms the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..arrays import Array, boolean_like, eps, guarded_divide, integer_like, like, namespace
from ..flow import Flow
from .reduction import recheck

#: Accept a step whose actual decrease is at least this part of the predicted one
#: (More 1978, section 7: "if rho > 0.0001").
ACCEPT = 1e-4


class Proposal(NamedTuple):
    """A step of a certain size."""

    step: Array
    """s, of shape (n,)."""
    length: Array
    """How much of the size it uses."""
    slope: Array
    """g's."""
    predicted: Array
    """The model's decrease, positive."""
    gradients: Array
    """Linearisations spent on proposing it."""
    products: Array
    """Gauss-Newton products spent on proposing it."""

    @classmethod
    def free(cls, step: Array, *, length: Array, slope: Array, predicted: Array) -> Proposal:
        """Return a proposal that took no evaluation."""
        none = integer_like(length, 0)
        return cls(step, length, slope, predicted, gradients=none, products=none)

    @classmethod
    def along(
        cls, step: Array, factor: Array, *, length: Array, slope: Array, curvature: Array
    ) -> Proposal:
        """Return ``factor`` times a step of which g's and s'Bs are known."""
        slope = factor * slope
        predicted = -(slope + factor * factor * curvature / 2)
        return cls.free(factor * step, length=length, slope=slope, predicted=predicted)


class Trial(NamedTuple):
    """The last step tried."""

    step: Array
    """s if it was accepted, else zeros, of shape (n,)."""
    size: Array
    """Size of an accepted step; of one refused, a smaller one to go on with."""
    length: Array
    """Length of the step tried."""
    value: Array
    """Function there."""
    ratio: Array
    """Its decrease over the predicted one, or over -g's where the model promises more than that."""
    accepted: Array
    tries: Array
    """Forward passes spent."""
    gradients: Array
    """Linearisations spent, on proposals and on telling progress from rounding."""
    products: Array
    """Gauss-Newton products spent on proposals."""


def search(
    propose: Callable[[Array], Proposal],
    value_at: Callable[[Array], Array],
    slopes_at: Callable[[Array], Array],
    x: Array,
    f: Array,
    *,
    size: Array,
    attempts: int,
    active: Array,
    flow: Flow,
) -> Trial:
    """Try steps of decreasing size until the function confirms one.

    Parameters
    ----------
    propose : callable
        Maps a size to the :class:`Proposal`.
    value_at : callable
        Maps a step s to f(x + s).
    slopes_at : callable
        Maps a step s to s'(grad f(x) + grad f(x + s)).
    x, f : arrays of shape (n,) and ()
        The start, and f(x).
    size : 0-d array
        Of the first step.
    attempts : int
        Most steps tried; each costs one forward pass.
    active : 0-d boolean array
        If False nothing is tried and nothing is accepted.
    flow : Flow

    Returns
    -------
    Trial

    Notes
    -----
    After a refusal the size becomes that of the step tried times the place in [0.1, 0.5] where
    the parabola through f, the slope and the new value is least (More 1978, section 4; Dennis and
    Schnabel 1983, section 6.3.2); a quarter where the value is not finite.

    Acceptance asks for a part of the predicted decrease. ``ratio``, by which the next size is
    chosen, does not ask for more than -g's: negative curvature need not last to the end of the
    step, and where the function falls as the gradient says, that the model promised more is no
    reason to take shorter steps.
    """
    xp = namespace(f)

    def attempt(t: Trial) -> Trial:
        p = propose(t.size)
        value = value_at(p.step)
        finite = xp.isfinite(value)
        decrease = xp.where(finite, f - value, -xp.abs(p.predicted))
        refused = decrease < ACCEPT * p.predicted
        decrease, doubtful = recheck(
            decrease, p.predicted, f, slopes_at, p.step, refused & finite, flow
        )
        accepted = finite & (decrease >= ACCEPT * p.predicted) & (p.predicted > 0)
        owed = xp.minimum(p.predicted, xp.maximum(-p.slope, eps(f) * p.predicted))
        shrink = _shrink_factor(p.slope, decrease, finite)
        return Trial(
            step=xp.where(accepted, p.step, xp.zeros_like(p.step)),
            size=xp.where(accepted, t.size, shrink * xp.minimum(t.size, p.length)),
            length=p.length,
            value=value,
            ratio=guarded_divide(decrease, owed),
            accepted=accepted,
            tries=t.tries + 1,
            gradients=t.gradients + p.gradients + xp.astype(doubtful, t.gradients.dtype),
            products=t.products + p.products,
        )

    def keep_going(t: Trial) -> Array:
        return active & ~t.accepted & (t.tries < attempts) & (t.size > 0)

    start = Trial(
        step=xp.zeros_like(x),
        size=size,
        length=like(f, 0.0),
        value=f,
        ratio=like(f, 0.0),
        accepted=boolean_like(f, False),
        tries=integer_like(f, 0),
        gradients=integer_like(f, 0),
        products=integer_like(f, 0),
    )
    return flow.while_loop(keep_going, attempt, start)


def _shrink_factor(slope: Array, decrease: Array, finite: Array) -> Array:
    xp = namespace(slope)
    bend = -2 * (decrease + slope)
    factor = guarded_divide(-slope, bend, otherwise=0.5)
    factor = xp.minimum(xp.maximum(factor, like(slope, 0.1)), like(slope, 0.5))
    return xp.where(finite & (bend > 0), factor, like(slope, 0.25))
