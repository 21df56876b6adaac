"""The method of Levenberg, Marquardt and More."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..arrays import Array, integer_like, like, namespace, norm
from ..globalize.trial import Proposal, Trial
from ..oracle import Oracle, Point
from ..residual_model import ResidualModel, Residuals
from ..result import Counts
from .base import unevaluated
from .gauss_newton import ResidualSolver

#: Step with which the model is differenced along a velocity (Transtrum and Sethna 2012, h = 0.1).
DIFFERENCE = 0.1
#: The acceleration is used where 2 |a| is at most this part of |v| (the same, alpha = 0.75).
ACCELERATION = 0.75


class LevenbergMarquardtState(NamedTuple):
    """State of :class:`LevenbergMarquardt`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    D: Array
    """Largest norm so far of each column of W^1/2 J, of shape (n,); zeros at first."""
    radius: Array
    """Bound on |D s|; 0 before the first step."""
    rejected: Array
    """Steps rejected so far."""


@dataclass(frozen=True, kw_only=True)
class LevenbergMarquardt(ResidualSolver):
    """Minimise a sum over residuals by damped Gauss-Newton steps, (J'W J + lambda D^2) s = -g.

    lambda is not a parameter: it is what makes |D s| the radius of a trust region, and 0 where the
    Gauss-Newton step is inside. It is found from one decomposition of J, so that a step that is
    refused costs a forward pass and no derivative, and so that it cannot under- or overflow.

    Parameters
    ----------
    scaling : {"levenberg", "marquardt"}
        D = I, or D_j the largest norm so far of column j of W^1/2 J, which makes the iteration
        independent of the units of the variables. Where J is not made whole, the norms are
        estimated, by four more products of J' a step.
    geodesic : bool
        Whether to add half of the geodesic acceleration to the step, which follows curved valleys
        at the price of a gradient and a Gauss-Newton product per trial.
    factor : float
        The first radius is this times |D x|, or itself if x = 0; 100 as in MINPACK.
    dense, forcing, max_inner, attempts
        See :class:`ResidualSolver`.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.

    Notes
    -----
    J. J. More, "The Levenberg-Marquardt algorithm: implementation and theory" (Numerical Analysis,
    Springer 1978), with the radius updated as in MINPACK's ``lmder``. Deviations: the linear
    problem is solved by a singular value decomposition instead of QR, or on the Krylov space of
    LSQR; a radius that the step did not reach is cut to twice the step.

    The geodesic acceleration is a = -(J'W J + lambda D^2)^-1 J'W z_vv with z_vv the second
    derivative of the outputs along v = s, by a difference of outputs and J v (Transtrum and
    Sethna, arXiv:1201.5885, equations 7 and 10). Deviation: where 2 |D a| > 0.75 |D v| the step is
    taken without it, instead of refused.

    Costs are counted as by :class:`GaussNewton`.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> t = np.linspace(0.0, 2.0, 9)
    >>> def residual(x):
    ...     return x[0] * np.exp(-x[1] * t) - 3 * np.exp(-2 * t)
    >>> method = osculant.LevenbergMarquardt(scaling="marquardt")
    >>> osculant.least_squares(residual, np.array([1.0, 0.0]), method=method).x.round(6)
    array([3., 2.])
    """

    scaling: Literal["levenberg", "marquardt"] = "levenberg"
    geodesic: bool = False
    factor: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scaling not in ("levenberg", "marquardt"):
            raise ValueError(f"scaling is {self.scaling!r}; it must be 'levenberg' or 'marquardt'")
        if not self.factor > 0:
            raise ValueError(f"factor is {self.factor}; it must be positive")

    def init(self, oracle: Oracle, x: Array, *data: Any) -> LevenbergMarquardtState:
        """Return the state to start from ``x``, of shape (n,)."""
        zeros = namespace(x).zeros_like(x)
        return LevenbergMarquardtState(
            **unevaluated(x),
            D=zeros,
            radius=like(x, 0.0),
            rejected=integer_like(x, 0),
        )

    def step(
        self, oracle: Oracle, state: LevenbergMarquardtState, *data: Any
    ) -> LevenbergMarquardtState:
        """Return the state after one linear problem and its trial steps."""
        x, start = state.x, self.start(oracle, state.x, *data)
        pt, g = start.pt, start.pt.grad
        xp = namespace(g)
        known = xp.where(state.radius > 0, state.radius, like(g, float("inf")))
        D = state.D if self.scaling == "marquardt" else None
        model = self.model(
            pt, start.residual, D, radius=known, active=start.active, flow=oracle.flow
        )
        propose = self._proposals(oracle, pt, x, start.residual, model, *data)
        size = xp.where(state.radius > 0, state.radius, self._first_radius(model.D * x))
        trial, status = self.search(oracle, start, x, propose, size, *data)
        return LevenbergMarquardtState(
            x=x + trial.step,
            value=pt.value,
            grad=g,
            status=status,
            counts=state.counts.add(
                gradients=1 + trial.gradients,
                values=trial.tries,
                ggns=model.products + trial.products,
            ),
            D=xp.where(start.active, model.D, state.D),
            radius=xp.where(start.active, _resized(trial), state.radius),
            rejected=state.rejected + trial.tries - xp.astype(trial.accepted, trial.tries.dtype),
        )

    def _first_radius(self, Dx: Array) -> Array:
        xp = namespace(Dx)
        length = norm(Dx)
        return self.factor * xp.where(length > 0, length, like(Dx, 1.0))

    def _proposals(
        self,
        oracle: Oracle,
        pt: Point,
        x: Array,
        residual: Residuals,
        model: ResidualModel,
        *data: Any,
    ) -> Callable[[Array], Proposal]:
        """Return what maps a radius to the step that it allows."""
        xp = namespace(x)

        def propose(radius: Array) -> Proposal:
            damping = model.damping(radius, oracle.flow)
            y = model.minimizer(damping)
            length = norm(y)
            predicted = model.curvature(y) / 2 + damping * length * length
            damped = Proposal.free(
                model.step(y), length=length, slope=model.slope(y), predicted=predicted
            )
            return bend(damped, damping) if self.geodesic else damped

        def bend(p: Proposal, damping: Array) -> Proposal:
            v, h = p.step, DIFFERENCE
            moved = oracle.at(x + h * v, *data).outputs
            second = 2 / h * ((moved - pt.outputs) / h - pt.jvp(v))
            a = model.solve(pt.vjp(residual.root * residual.root * second), damping)
            near = 2 * norm(model.D * a) <= ACCELERATION * p.length  # False where not a number
            return p._replace(
                step=xp.where(near, v + a / 2, v),
                gradients=p.gradients + 1,
                products=p.products + 1,
            )

        return propose

    def report(self, state: LevenbergMarquardtState) -> dict[str, Array]:
        """Return the radius."""
        return {"radius": state.radius}


def _resized(trial: Trial) -> Array:
    """Return the radius for the next step (More 1978, section 4, and MINPACK's lmder)."""
    xp = namespace(trial.size)
    inside = trial.length < 0.9 * trial.size
    good = xp.where(inside | (trial.ratio >= 0.75), 2 * trial.length, trial.size)
    poor = xp.minimum(trial.size, trial.length) / 2
    return xp.where(trial.accepted, xp.where(trial.ratio <= 0.25, poor, good), trial.size)
