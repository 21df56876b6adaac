"""Nonlinear conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from ..arrays import Array, dot, guarded_divide, integer_like, like, namespace, norm
from ..oracle import Oracle
from ..result import Counts, Status
from .base import unevaluated
from .quasi_newton import GradientSearch


class NonlinearCGState(NamedTuple):
    """State of :class:`NonlinearCG`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    d: Array
    """Last direction; zeros where the next one is to be -g."""
    y: Array
    """Change of the gradient over the last step."""
    step_length: Array
    """The last one, in units of the direction; 0 if no step was taken."""


@dataclass(frozen=True, kw_only=True)
class NonlinearCG(GradientSearch):
    """Nonlinear conjugate gradients with a strong Wolfe line search.

    d <- -g + beta d, and -g where that does not descend. With y = g - g_old,

    - Hager and Zhang: beta = max((y - 2 d y'y / d'y)'g / d'y, 0.4 d'g_old / d'd)
      (SIAM J. Optim. 16, 2005, equation 1.3; the bound: SIAM J. Optim. 23, 2013, equation 1.5);
    - Polak and Ribiere, PR+: beta = max(y'g / g_old'g_old, 0) (Nocedal and Wright 2006,
      equation 5.45).

    Parameters
    ----------
    beta : {"hager-zhang", "polak-ribiere"}
        Which beta.
    curvature : float
        The line search ends once the slope is at most this fraction of the first in size. Nocedal
        and Wright 2006, section 5.2, have 0.1, which takes a few more gradients.
    attempts : int
        Most steps tried in one line search.
    fixed : bool
        Whether the function is one and the same at each step, so that the gradient at the end of
        one serves the next; :func:`osculant.minimize` sets it.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops a fit.

    Notes
    -----
    A step costs the gradients of its line search, and one more for its start where ``fixed`` is
    False. The first step tried is expected to decrease the function as the last one did, to first
    order (Nocedal and Wright 2006, equation 3.60), and the very first has length 1. If the line
    search fails, the next step is along -g; if that fails too, the run has stalled.
    """

    beta: Literal["hager-zhang", "polak-ribiere"] = "hager-zhang"
    curvature: float = 0.3

    strong: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta not in ("hager-zhang", "polak-ribiere"):
            raise ValueError(f"beta is {self.beta!r}; it must be 'hager-zhang' or 'polak-ribiere'")

    def init(self, oracle: Oracle, x: Array, *data: Any) -> NonlinearCGState:
        """Return the state to start from ``x``, of shape (n,)."""
        zeros = namespace(x).zeros_like(x)
        return NonlinearCGState(
            **unevaluated(x),
            d=zeros,
            y=zeros,
            step_length=like(x, 0.0),
        )

    def step(self, oracle: Oracle, state: NonlinearCGState, *data: Any) -> NonlinearCGState:
        """Return the state after one line search."""
        start = self._start(oracle, state, *data)
        xp, g = namespace(start.g), start.g
        d, length = self._direction(g, state)
        move = self._search(oracle, state.x, start, length * d, *data)
        restart = start.active & ~move.moved
        stalled = restart & ~xp.any(state.d != 0)
        value, grad = self._known(start, move)
        return NonlinearCGState(
            x=move.x,
            value=value,
            grad=grad,
            status=xp.where(stalled, integer_like(g, Status.STALLED), start.status),
            counts=state.counts.add(gradients=start.gradients + move.gradients),
            d=xp.where(move.moved, d, xp.zeros_like(d)),
            y=move.y,
            step_length=length * move.step_length,
        )

    def _direction(self, g: Array, state: NonlinearCGState) -> tuple[Array, Array]:
        """Return the direction, and the length to try first."""
        xp, last, y = namespace(g), state.d, state.y
        old, zero = g - y, like(g, 0.0)
        if self.beta == "hager-zhang":
            dy = dot(last, y)
            conjugate = y - 2 * guarded_divide(dot(y, y), dy) * last
            beta = guarded_divide(dot(conjugate, g), dy)
            beta = xp.maximum(beta, 0.4 * guarded_divide(dot(last, old), dot(last, last)))
        else:
            beta = xp.maximum(guarded_divide(dot(y, g), dot(old, old)), zero)
        d = beta * last - g
        fresh = ~xp.any(last != 0)
        d = xp.where(~fresh & (dot(g, d) < 0), d, -g)
        length = state.step_length * guarded_divide(dot(last, old), dot(d, g))
        usable = ~fresh & (length > 0) & xp.isfinite(length)
        return d, xp.where(usable, length, guarded_divide(like(g, 1.0), norm(g)))
