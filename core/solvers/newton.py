"""Newton's method with a line search: what its variants share, and the dense one."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from ..arrays import (
    Array,
    boolean_like,
    dot,
    eps,
    identity_like,
    integer_like,
    like,
    namespace,
    norm,
)
from ..flow import Flow
from ..globalize.line_search import goldstein
from ..krylov.truncated_cg import NewtonStep
from ..oracle import Oracle, Point, Product
from ..pairs import Memory
from ..result import Counts, Status
from ..samples import split
from .base import Solver, unevaluated, verdict

#: A dense Hessian of more variables than this (a gigabyte in float64) is taken for a mistake.
LARGEST_DENSE = 10_000


class NewtonState(NamedTuple):
    """State of :class:`Newton`, :class:`NewtonCG` and :class:`SteepestDescent`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    memory: Memory
    """What is remembered of earlier Hessians; without any rows where nothing is."""
    step_length: Array
    """The last one, in units of the direction; 0 if no step was taken."""
    secant: Array
    """Whether the pairs make the next step; ``value`` and ``grad`` are then those of ``x``."""


@dataclass(frozen=True, kw_only=True)
class LineSearchNewton(Solver):
    """Base of the methods that take a direction from Hessian products and search along it.

    A subclass supplies :meth:`_direction`.
    """

    attempts: int = 30
    """Most steps tried in one line search."""

    samples: ClassVar[frozenset[str]] = frozenset({"curvature", "ratio"})

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; at least one trial step is needed")

    @abstractmethod
    def _direction(
        self, pt: Point, g: Array, memory: Memory, active: Array, flow: Flow
    ) -> NewtonStep:
        """Return the direction for gradient ``g``; where not ``active``, at no cost."""

    def _memory(self, n: int) -> int:
        """Return how many pairs of ``n`` variables are remembered."""
        return 0

    def needs(self) -> frozenset[Product]:
        """Products that the oracle must offer."""
        return frozenset({Product.HVP})

    def init(self, oracle: Oracle, x: Array, *data: Any) -> NewtonState:
        """Return the state to start from ``x``, of shape (n,)."""
        return NewtonState(
            **unevaluated(x),
            memory=Memory.none(x, self._memory(x.shape[0])),
            step_length=like(x, 0.0),
            secant=boolean_like(x, False),
        )

    def step(self, oracle: Oracle, state: NewtonState, *data: Any) -> NewtonState:
        """Return the state after one direction and the line search along it."""
        x, flow, sample = state.x, oracle.flow, split(data)
        pt = oracle.at(x, *sample.gradient)
        f, g = pt.value, pt.grad
        xp = namespace(g)
        status = verdict(f, g, self.gtol)
        active = status == Status.RUNNING.value
        apart = sample.curvature is not sample.gradient
        curved = sample.curved(oracle, x, pt)
        d, memory, products = self._direction(curved, g, state.memory, active, flow)
        slope = dot(g, d)
        start = sample.judged(oracle, x, f)
        search = goldstein(
            lambda a: oracle.value(x + a * d, *sample.ratio),
            lambda a: a * (slope + dot(oracle.at(x + a * d, *sample.gradient).grad, d)),
            start,
            slope,
            attempts=self.attempts,
            active=active & (slope < 0),
            flow=flow,
        )
        stuck = active & (search.step == 0)
        stalled = stuck & ~state.memory.any()
        values = search.tries + (0 if sample.ratio is sample.gradient else 1)
        return state._replace(
            x=xp.where(search.step > 0, x + search.step * d, x),
            value=f,
            grad=g,
            status=xp.where(stalled, integer_like(g, Status.STALLED), status),
            counts=state.counts.add(
                gradients=1 + int(apart) + search.gradients, values=values, hvps=products
            ),
            memory=memory.forget(stuck),
            step_length=search.step,
        )

    def report(self, state: NewtonState) -> dict[str, Array]:
        """Return the last step length."""
        return {"step_length": state.step_length}


@dataclass(frozen=True, kw_only=True)
class Newton(LineSearchNewton):
    """Newton's method with a dense Hessian and a line search.

    d = -|H|^-1 g, with |H| = Q max(|Lambda|, delta) Q' and H = Q Lambda Q': where the curvature is
    negative, its size serves (Nocedal and Wright 2006, section 3.4). The line search satisfies
    Goldstein's conditions.

    Parameters
    ----------
    floor : float, optional
        delta, as a fraction of the largest |Lambda|; by default eps^(3/4), 2e-12 in float64.
    attempts : int
        Most steps tried in one line search.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops a fit.

    Notes
    -----
    A step costs a gradient, n Hessian products at once, an eigendecomposition, and a forward pass
    for each step length tried. More than 10,000 variables are refused.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> double_well = lambda x: (x**4 - x**2).sum()
    >>> solution = osculant.minimize(double_well, np.array([0.1]), method="newton")
    >>> solution.success, np.round(solution.x, 6)
    (True, array([0.707107]))
    """

    floor: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.floor is not None and not 0 < self.floor <= 1:
            raise ValueError(f"floor is {self.floor}; it must lie between 0 and 1")

    def init(self, oracle: Oracle, x: Array, *data: Any) -> NewtonState:
        """Return the state to start from ``x``, of shape (n,).

        Raises
        ------
        ValueError
            If n is beyond what a dense Hessian can be meant for.
        """
        check_dense(x, "Newton", "NewtonCG or TrustRegion, which only need Hessian products")
        return super().init(oracle, x, *data)

    def _direction(
        self, pt: Point, g: Array, memory: Memory, active: Array, flow: Flow
    ) -> NewtonStep:
        xp, n = namespace(g), g.shape[0]

        def solve(g: Array) -> Array:
            identity = identity_like(g, n)
            H = pt.hvp(identity)
            # A decomposition of what is not finite raises on some backends.
            H = xp.where(xp.all(xp.isfinite(H)), H, identity)
            eigenvalues, Q = xp.linalg.eigh((H + H.T) / 2)
            size = xp.abs(eigenvalues)
            least = (self.floor or eps(g) ** 0.75) * xp.max(size)
            # A Hessian of zeros has no scale: a step of length 1.
            least = xp.where(least > 0, least, norm(g))
            return -xp.matmul(Q, xp.matmul(Q.T, g) / xp.maximum(size, least))

        d = flow.cond(active, solve, xp.zeros_like, g)
        return NewtonStep(d, memory, n * xp.astype(active, xp.int32))


def check_dense(x: Array, name: str, instead: str) -> None:
    """Raise if ``x`` has more entries than a dense n x n matrix can be meant for."""
    n = x.shape[0]
    if n > LARGEST_DENSE:
        raise ValueError(
            f"{name} keeps a dense {n} x {n} matrix; above {LARGEST_DENSE} variables use {instead}"
        )
