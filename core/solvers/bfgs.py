"""BFGS with a dense inverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..arrays import Array, dot, identity_like, integer_like, like, namespace
from ..oracle import Oracle
from ..result import Counts, Status
from .base import unevaluated
from .newton import check_dense
from .quasi_newton import QuasiNewton, descending, first_scale


class BFGSState(NamedTuple):
    """State of :class:`BFGS`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    H: Array
    """Inverse of the approximate Hessian, of shape (n, n)."""
    pairs: Array
    """Pairs that it has learned from; where there are none, it is not in use."""
    step_length: Array
    """The last one; 0 if no step was taken."""


@dataclass(frozen=True, kw_only=True)
class BFGS(QuasiNewton):
    """BFGS with a dense inverse and a weak Wolfe line search.

    d = -H g, H <- (I - rho s y') H (I - rho y s') + rho s s' with rho = 1 / s'y, from
    (s'y / y'y) I of the first pair (Nocedal and Wright 2006, Algorithm 6.1 and equation 6.20).

    Parameters
    ----------
    cautious : float
        A pair is learned from only if s'y > cautious |s| |y|: a relative test, so that the scale
        of the problem does not matter.
    damping : bool
        Whether a pair of too little curvature is moved towards what is known already (Powell;
        Nocedal and Wright 2006, Procedure 18.2), rather than left out.
    curvature : float
        The line search ends once the slope has risen to this fraction of the first; 0.9 as in
        Nocedal and Wright 2006, section 3.1.
    attempts : int
        Most steps tried in one line search.
    fixed : bool
        Whether the function is one and the same at each step, so that the gradient at the end of
        one serves the next; :func:`osculant.minimize` sets it.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops a fit.

    Notes
    -----
    Each y is scaled so that s'y is the curvature at the end of s, which the values there tell, and
    no longer the mean one along it (Biggs 1971), by 1/2 at least and by 2 at most.

    A step costs the gradients of its line search, mostly one, and one more for its start where
    ``fixed`` is False. The first step tried is along -g, 0.01 max(1, |x|) long. If the line search
    fails, H is forgotten and the next step is such a one; if that fails too, the run has stalled.
    More than 10,000 variables are refused.
    """

    def init(self, oracle: Oracle, x: Array, *data: Any) -> BFGSState:
        """Return the state to start from ``x``, of shape (n,).

        Raises
        ------
        ValueError
            If n is beyond what a dense matrix can be meant for.
        """
        check_dense(x, "BFGS", "LBFGS")
        return BFGSState(
            **unevaluated(x),
            H=identity_like(x, x.shape[0]),
            pairs=integer_like(x, 0),
            step_length=like(x, 0.0),
        )

    def step(self, oracle: Oracle, state: BFGSState, *data: Any) -> BFGSState:
        """Return the state after one line search."""
        start = self._start(oracle, state, *data)
        xp, g = namespace(start.g), start.g
        none = state.pairs == 0
        d = -xp.where(none, first_scale(state.x, g) * g, xp.matmul(state.H, g))
        move = self._search(oracle, state.x, start, descending(d, g, oracle.flow), *data)
        s, y, learns = self._pair(start, move)
        H = oracle.flow.cond(learns, _updated, lambda H, *_: H, state.H, s, y, none)
        forget = start.active & ~move.moved
        pairs = state.pairs + xp.astype(learns, state.pairs.dtype)
        value, grad = self._known(start, move)
        return BFGSState(
            x=move.x,
            value=value,
            grad=grad,
            status=xp.where(forget & none, integer_like(g, Status.STALLED), start.status),
            counts=state.counts.add(gradients=start.gradients + move.gradients),
            H=H,
            pairs=xp.where(forget, xp.zeros_like(pairs), pairs),
            step_length=move.step_length,
        )


def _updated(H: Array, s: Array, y: Array, first: Array) -> Array:
    """Return the BFGS update of H, or of (s'y / y'y) I by the first pair."""
    xp = namespace(s)
    sy = dot(s, y)
    H = xp.where(first, sy / dot(y, y) * identity_like(s, s.shape[0]), H)
    Hy = xp.matmul(H, y)
    u = s / sy
    cross = Hy[:, None] * u[None, :]
    return H - cross - cross.T + (sy + dot(y, Hy)) * (u[:, None] * u[None, :])
