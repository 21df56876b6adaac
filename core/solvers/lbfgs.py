"""Limited-memory BFGS."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..arrays import Array, dot, guarded_divide, integer_like, like, namespace, norm
from ..globalize.line_search import wolfe
from ..oracle import Oracle
from ..result import Counts, Status
from .base import Solver, verdict


class LBFGSState(NamedTuple):
    """State of :class:`LBFGS`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    S: Array
    """Last steps, of shape (memory, n), the latest at the end; zeros where there is none yet."""
    Y: Array
    """Changes of the gradient over them, of shape (memory, n)."""
    step_length: Array
    """The last one; 0 if no step was taken."""


@dataclass(frozen=True, kw_only=True)
class LBFGS(Solver):
    """Limited-memory BFGS with a weak Wolfe line search.

    d = -H g with H the BFGS update of gamma I by the last pairs s, y, where gamma = s'y / y'y of
    the latest (Nocedal and Wright 2006, Algorithms 7.4 and 7.5).

    Parameters
    ----------
    memory : int
        Pairs kept; 10 as in L-BFGS-B.
    curvature : float
        The line search ends once the slope has risen to this fraction of the first; 0.9 as in
        Nocedal and Wright 2006, section 3.1.
    cautious : float
        A pair is kept only if s'y > cautious |s| |y|: a relative test, so that the scale of the
        problem does not matter.
    attempts : int
        Most steps tried in one line search.
    fixed : bool
        Whether the function is one and the same at each step, so that the gradient at the end of
        one serves the next; :func:`osculant.minimize` sets it.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops a fit.

    Notes
    -----
    A step costs the gradients of its line search, mostly one, and one more for its start where
    ``fixed`` is False. The first direction has length 1. If the line search fails, the pairs are
    forgotten and the next step is along -g; if that fails too, the run has stalled.
    """

    memory: int = 10
    curvature: float = 0.9
    cautious: float = 1e-10
    attempts: int = 30
    fixed: bool = False

    def __post_init__(self) -> None:
        if self.memory < 1:
            raise ValueError(f"memory is {self.memory}; at least one pair is needed")
        if not 1e-4 < self.curvature < 1:
            raise ValueError(f"curvature is {self.curvature}; it must lie between 1e-4 and 1")
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; at least one trial step is needed")

    def deterministic(self) -> LBFGS:
        """Return this solver for one fixed function."""
        return replace(self, fixed=True)

    def init(self, oracle: Oracle, x: Array, *data: Any) -> LBFGSState:
        """Return the state to start from ``x``, of shape (n,)."""
        xp = namespace(x)
        pairs = xp.stack([xp.zeros_like(x)] * self.memory)
        return LBFGSState(
            x=x,
            value=like(x, 0.0),
            grad=xp.zeros_like(x),
            status=integer_like(x, Status.RUNNING),
            counts=Counts.zero(x),
            S=pairs,
            Y=pairs,
            step_length=like(x, 0.0),
        )

    def step(self, oracle: Oracle, state: LBFGSState, *data: Any) -> LBFGSState:
        """Return the state after one line search."""
        flow, (f, g, spent) = oracle.flow, self._start(oracle, state, *data)
        xp = namespace(g)
        status = verdict(f, g, self.gtol)
        active = status == Status.RUNNING.value

        d = _direction(g, state.S, state.Y)
        descends = dot(g, d) < 0  # False when it is not a number
        d = xp.where(descends, d, -g * guarded_divide(like(g, 1.0), norm(g)))
        slope = dot(g, d)

        def at(a: Array) -> tuple[Array, Array, Array]:
            pt = oracle.at(state.x + a * d, *data)
            return pt.value, dot(pt.grad, d), pt.grad

        search = wolfe(
            at,
            f,
            slope,
            g,
            curvature=self.curvature,
            attempts=self.attempts,
            active=active & (slope < 0),
            flow=flow,
        )
        moved = search.step > 0
        s, y = search.step * d, search.grad - g
        keeps = moved & (dot(s, y) > self.cautious * norm(s) * norm(y))
        S = xp.where(keeps, xp.concat([state.S[1:, :], s[None, :]]), state.S)
        Y = xp.where(keeps, xp.concat([state.Y[1:, :], y[None, :]]), state.Y)
        forget = active & ~moved
        stalled = forget & ~xp.any(state.S != 0)
        return LBFGSState(
            x=xp.where(moved, state.x + s, state.x),
            value=search.value if self.fixed else f,
            grad=search.grad if self.fixed else g,
            status=xp.where(stalled, integer_like(g, Status.STALLED), status),
            counts=state.counts.add(gradients=spent + search.tries),
            S=xp.where(forget, xp.zeros_like(S), S),
            Y=xp.where(forget, xp.zeros_like(Y), Y),
            step_length=search.step,
        )

    def _start(self, oracle: Oracle, state: LBFGSState, *data: Any) -> tuple[Array, Array, Array]:
        """Return value and gradient at the start, and the gradients that they cost."""

        def evaluate(x: Array) -> tuple[Array, Array, Array]:
            pt = oracle.at(x, *data)
            return pt.value, pt.grad, integer_like(x, 1)

        def recall(x: Array) -> tuple[Array, Array, Array]:
            return state.value, state.grad, integer_like(x, 0)

        if not self.fixed:
            return evaluate(state.x)
        return oracle.flow.cond(state.counts.gradients > 0, recall, evaluate, state.x)

    def report(self, state: LBFGSState) -> dict[str, Array]:
        """Return the last step length."""
        return {"step_length": state.step_length}


def _direction(g: Array, S: Array, Y: Array) -> Array:
    """Return -H g by the two-loop recursion; pairs of zeros contribute nothing.

    Without any pair, -g/|g|.
    """
    xp = namespace(g)
    memory = S.shape[0]
    curvatures = xp.sum(S * Y, axis=1)
    q, alphas = g, []
    for i in reversed(range(memory)):
        alpha = guarded_divide(dot(S[i, :], q), curvatures[i])
        q = q - alpha * Y[i, :]
        alphas.append(alpha)
    last = memory - 1
    gamma = guarded_divide(curvatures[last], dot(Y[last, :], Y[last, :]))
    q = xp.where(gamma > 0, gamma, guarded_divide(like(g, 1.0), norm(g))) * q
    for i, alpha in zip(range(memory), reversed(alphas), strict=True):
        beta = guarded_divide(dot(Y[i, :], q), curvatures[i])
        q = q + (alpha - beta) * S[i, :]
    return -q
