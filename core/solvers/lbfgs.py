"""Limited-memory BFGS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..arrays import Array, integer_like, like, namespace
from ..oracle import Oracle
from ..pairs import Memory
from ..result import Counts, Status
from .base import unevaluated
from .quasi_newton import QuasiNewton, descending, first_scale

#: By default as many pairs are kept as there are variables, within these bounds, ...
FEWEST, MOST = 30, 100
#: ... but no more than make S and Y so many entries each, down to this number of pairs.
ENTRIES, FLOOR = 100_000, 10


class LBFGSState(NamedTuple):
    """State of :class:`LBFGS`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    memory: Memory
    """The last steps, and the changes of the gradient over them."""
    step_length: Array
    """The last one; 0 if no step was taken."""


@dataclass(frozen=True, kw_only=True)
class LBFGS(QuasiNewton):
    """Limited-memory BFGS with a weak Wolfe line search.

    d = -H g with H the BFGS update of gamma I by the last pairs s, y, where gamma = s'y / y'y of
    the latest (Nocedal and Wright 2006, Algorithms 7.4 and 7.5).

    Parameters
    ----------
    memory : int, optional
        Pairs kept. By default as many as there are variables, but at least 30, as the function need
        not be quadratic, and at most 100; beyond 1000 variables 100,000 / n, but at least 10.
    cautious : float
        A pair is kept only if s'y > cautious |s| |y|: a relative test, so that the scale of the
        problem does not matter.
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
    fails, the pairs are forgotten and the next step is such a one; if that fails too, the run has
    stalled.
    """

    memory: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory is not None and self.memory < 1:
            raise ValueError(f"memory is {self.memory}; at least one pair is needed")

    def init(self, oracle: Oracle, x: Array, *data: Any) -> LBFGSState:
        """Return the state to start from ``x``, of shape (n,)."""
        return LBFGSState(
            **unevaluated(x),
            memory=Memory.none(x, self.memory or affordable(x.shape[0])),
            step_length=like(x, 0.0),
        )

    def step(self, oracle: Oracle, state: LBFGSState, *data: Any) -> LBFGSState:
        """Return the state after one line search."""
        start = self._start(oracle, state, *data)
        xp, g = namespace(start.g), start.g
        H = state.memory.inverse(first_scale(state.x, g))
        d = descending(-H(g), g, oracle.flow)
        move = self._search(oracle, state.x, start, d, *data)
        memory = state.memory.own(oracle.flow).push(*self._pair(start, move), oracle.flow)
        forget = start.active & ~move.moved
        stalled = forget & ~state.memory.any()
        value, grad = self._known(start, move)
        return LBFGSState(
            x=move.x,
            value=value,
            grad=grad,
            status=xp.where(stalled, integer_like(g, Status.STALLED), start.status),
            counts=state.counts.add(gradients=start.gradients + move.gradients),
            memory=memory.forget(forget),
            step_length=move.step_length,
        )


def affordable(n: int) -> int:
    """Return how many pairs of ``n`` variables are kept by default."""
    return min(max(n, FEWEST), MOST, max(ENTRIES // max(n, 1), FLOOR))
