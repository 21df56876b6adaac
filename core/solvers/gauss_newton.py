"""The Gauss-Newton method, and what methods for residuals share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..arrays import Array, dot, integer_like, like, namespace, norm
from ..flow import Flow
from ..globalize.trial import Proposal, Trial, search
from ..oracle import Oracle, Point, Product
from ..residual_model import (
    ResidualModel,
    Residuals,
    column_norms,
    dense_model,
    jacobian,
    krylov_model,
    probed_column_norms,
    residuals,
)
from ..result import Counts, Status
from .base import Solver, unevaluated, verdict

#: Where ``dense`` is not given, the Jacobian is made whole if it takes no more products than this.
DENSE = 50


class Linearised(NamedTuple):
    """Where a step starts."""

    pt: Point
    residual: Residuals
    status: Array
    running: Array
    active: Array
    """Whether there is a step to take: it runs, and the loss is one of residuals."""


@dataclass(frozen=True, kw_only=True)
class ResidualSolver(Solver):
    """Base of the methods for an oracle whose loss is a sum over the model's outputs.

    Such a loss, sum_i l_i(z_i) with outputs z = model(x), has a diagonal Hessian W, and
    Gauss-Newton solves the linear least-squares problem min_s |r + W^1/2 J s|, where J is the
    model's Jacobian, u the loss's gradient at the outputs, and r = W^-1/2 u. For the loss
    |z|^2 / 2 that is min_s |z + J s|. A loss of another kind, such as a cross-entropy over a
    softmax, ends the run as stalled; ``TrustRegion(curvature="gauss-newton")`` takes it.

    Parameters
    ----------
    dense : bool, optional
        Whether J is made whole, by min(m, n) products, and decomposed; else LSQR takes one
        product of J and one of J' an iteration. By default where min(m, n) <= 50.
    forcing : float
        LSQR goes on to the gradient of the linear problem that is min(forcing, sqrt|g|) of the
        first (Nocedal and Wright 2006, Algorithm 7.1).
    max_inner : int
        Most iterations of LSQR, which keeps a vector of shape (n,) for each.
    attempts : int
        Most steps tried at one linearisation.
    """

    dense: bool | None = None
    forcing: float = 0.01
    max_inner: int = 50
    attempts: int = 50

    def __post_init__(self) -> None:
        if not 0 < self.forcing < 1:
            raise ValueError(f"forcing is {self.forcing}; it must lie between 0 and 1")
        for name in ("max_inner", "attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def needs(self) -> frozenset[Product]:
        """Products that the oracle must offer."""
        return frozenset({Product.JVP, Product.VJP, Product.LOSS_HVP})

    def model(
        self,
        pt: Point,
        residual: Residuals,
        D: Array | None,
        *,
        radius: Array,
        active: Array,
        flow: Flow,
    ) -> ResidualModel:
        """Return the linear least-squares problem at ``pt``.

        Where ``D``, of shape (n,), is given, each variable is scaled by the larger of it and the
        norm of its column; else by 1. ``radius`` may end LSQR.
        """
        g = pt.grad
        xp = namespace(g)
        m, n = residual.r.shape[0], g.shape[0]
        ones = xp.ones_like(g)

        def scale(columns: Array) -> Array:
            largest = xp.maximum(D, columns)
            return xp.where((largest > 0) & xp.isfinite(largest), largest, ones)

        if self.dense if self.dense is not None else min(m, n) <= DENSE:
            blank = xp.zeros_like(xp.broadcast_to(g, (m, n)))
            J = flow.cond(active, lambda: residual.root[:, None] * jacobian(pt), lambda: blank)
            made = dense_model(J, residual.r, ones if D is None else scale(column_norms(J)))
            return made._replace(products=xp.where(active, made.products, 0 * made.products))

        probes = 0
        if D is not None:
            D = flow.cond(
                active, lambda: scale(probed_column_norms(pt, residual.root)), lambda: scale(D)
            )
            probes = 2
        made = krylov_model(
            pt,
            residual,
            ones if D is None else D,
            radius=radius,
            rtol=xp.minimum(like(g, self.forcing), xp.sqrt(norm(g))),
            maxiter=self.max_inner,
            active=active,
            flow=flow,
        )
        extra = xp.where(active, integer_like(g, probes), integer_like(g, 0))
        return made._replace(products=made.products + extra)

    def start(self, oracle: Oracle, x: Array, *data: Any) -> Linearised:
        """Linearise at ``x``, of shape (n,)."""
        pt = oracle.at(x, *data)
        residual, status = residuals(pt), verdict(pt.value, pt.grad, self.gtol)
        running = status == Status.RUNNING.value
        return Linearised(pt, residual, status, running, running & residual.separable)

    def search(
        self,
        oracle: Oracle,
        start: Linearised,
        x: Array,
        propose: Callable[[Array], Proposal],
        size: Array,
        *data: Any,
    ) -> tuple[Trial, Array]:
        """Return the step that the function confirms, and the status to end with."""
        pt = start.pt
        trial = search(
            propose,
            lambda s: oracle.value(x + s, *data),
            lambda s: dot(s, pt.grad + oracle.at(x + s, *data).grad),
            x,
            pt.value,
            size=size,
            attempts=self.attempts,
            active=start.active,
            flow=oracle.flow,
        )
        xp, stalled = namespace(x), start.running & ~trial.accepted
        return trial, xp.where(stalled, integer_like(x, Status.STALLED), start.status)


class GaussNewtonState(NamedTuple):
    """State of :class:`GaussNewton`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    step_length: Array
    """a of the last step, up to a tenth; 0 if no step was taken."""


@dataclass(frozen=True, kw_only=True)
class GaussNewton(ResidualSolver):
    """Minimise a sum over residuals: x + s with s = argmin |r + W^1/2 J s|, of least length.

    Where the function does not fall by 1e-4 of what the linear model says, s is that of least
    |r + W^1/2 J s| within a fraction a of its first length. Each iteration starts at a = 1 again;
    :class:`LevenbergMarquardt` remembers how far the last step could go. Fast where the residuals
    are small or nearly linear at the solution.

    Parameters
    ----------
    dense, forcing, max_inner, attempts
        See :class:`ResidualSolver`.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.

    Notes
    -----
    Nocedal and Wright 2006, section 10.3; a is chosen as in Dennis and Schnabel 1983, Algorithm
    A6.3.1. Deviation: they shorten s along itself, which may end where J is singular and the
    gradient is not zero (Powell, "A hybrid method for nonlinear equations", 1970). A step costs a
    gradient, min(m, n) products of J or two for each iteration of LSQR, and a forward pass per
    trial; in ``counts``, two products are one of Gauss-Newton.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> def residual(x):
    ...     return np.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])
    >>> solution = osculant.least_squares(residual, np.array([-1.2, 1.0]), method="gauss-newton")
    >>> solution.success, solution.nit
    (True, 26)
    """

    def init(self, oracle: Oracle, x: Array, *data: Any) -> GaussNewtonState:
        """Return the state to start from ``x``, of shape (n,)."""
        return GaussNewtonState(
            **unevaluated(x),
            step_length=like(x, 0.0),
        )

    def step(self, oracle: Oracle, state: GaussNewtonState, *data: Any) -> GaussNewtonState:
        """Return the state after one linear problem and its line search."""
        start = self.start(oracle, state.x, *data)
        f, g = start.pt.value, start.pt.grad
        xp = namespace(g)
        model = self.model(
            start.pt,
            start.residual,
            None,
            radius=like(g, float("inf")),
            active=start.active,
            flow=oracle.flow,
        )
        longest = norm(model.minimizer(like(g, 0.0)))

        def propose(a: Array) -> Proposal:
            y = model.minimizer(model.damping(a * longest, oracle.flow))
            slope = model.slope(y)
            predicted = -(slope + model.curvature(y) / 2)
            return Proposal.free(model.step(y), length=a, slope=slope, predicted=predicted)

        trial, status = self.search(oracle, start, state.x, propose, like(g, 1.0), *data)
        return GaussNewtonState(
            x=state.x + trial.step,
            value=f,
            grad=g,
            status=status,
            counts=state.counts.add(
                gradients=1 + trial.gradients, values=trial.tries, ggns=model.products
            ),
            step_length=xp.where(trial.accepted, trial.size, like(g, 0.0)),
        )

    def report(self, state: GaussNewtonState) -> dict[str, Array]:
        """Return the last step length."""
        return {"step_length": state.step_length}
