"""Second-order Adam and adaptive descent: step lengths set by the drift of the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import norms
from ..arrays import Array, guarded_divide, integer_like, like, namespace
from ..oracle import Oracle, Product
from ..result import Counts, Status
from .base import Solver, unevaluated, verdict
from .first_order import unbiased


class SecondOrderAdamState(NamedTuple):
    """State of :class:`SecondOrderAdam` and :class:`AdaptiveDescent`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    mean: Array
    """Decayed mean of the gradient, of shape (n,)."""
    drift: Array
    """Decayed mean of H (eta * ghat), of shape (n,)."""
    drifting: Array
    """Decayed mean of ghat, of shape (n,)."""
    moments: Any
    """State of the norm A."""
    log_factor: Array
    """Logarithm of what eta has been multiplied by so far, of shape (n,)."""
    t: Array
    """Steps so far."""


@dataclass(frozen=True, kw_only=True)
class SecondOrderAdam(Solver):
    """Adam whose step lengths follow the drift of the gradient (McAllester 2017, speculative).

        ghat <- beta1 ghat + (1 - beta1) g
        gdot <- beta3 gdot + (1 - beta3) H (eta * ghat)
        x <- x - eta * ghat

    ghat estimates the gradient and gdot its drift, what a step takes from it. The lecture says that
    the drift "should help in setting eta_i", and its formulas for that are lost. The rule is our
    own: ghat_i / gdot_i is the number of steps until the gradient of coordinate i vanishes, and
    eta_i grows while it takes more than one and shrinks while it takes less,

        gbar <- beta3 gbar + (1 - beta3) ghat
        log eta_i <- log eta_i + rate clip(1 - gdot_i / gbar_i, -3, 1),

    where gbar averages the same gradients that gdot averages the drift of. Where the Hessian is
    diagonal this ends at eta_i = 1 / H_ii; under negative curvature eta_i grows.
    It is applied to a factor s_i in eta_i = s_i learning_rate / (sqrt(vhat_i) + epsilon), which is
    Adam's own step length at the start, s = 1.

    Parameters
    ----------
    learning_rate : float
        Step length per coordinate at the start. It is forgotten at the rate of ``rate``.
    beta1, beta2, beta3 : float
        Decay rates: of the gradient and its square as in Adam, and of the drift.
    epsilon : float
        Keeps Adam's denominator from zero.
    rate : float
        How fast eta follows. 0.05 is calibrated in ``docs/reports/second_order_adam.md``; 0.1 is
        faster on a fixed function, and diverges on small batches.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.

    Notes
    -----
    A step costs a gradient and a Hessian product. ghat is freed of its bias towards 0 as in Adam;
    that of gdot and gbar cancels. The shrinking is bounded three times wider than the growth: too
    long a step does harm, too short a one only costs time. Where gbar_i is 0, eta_i stays.

    The rule sees the drift of the gradient and not its noise. On batches so small that noise
    dominates it lengthens the steps too far, and Adam at its best rate is better.

    References
    ----------
    D. McAllester, "Second order optimization methods", TTIC 31230, lecture slides, April 2017.
    """

    learning_rate: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.999
    beta3: float = 0.9
    epsilon: float = 1e-8
    rate: float = 0.05

    def __post_init__(self) -> None:
        for name in ("learning_rate", "rate", "epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        for name in ("beta1", "beta2", "beta3"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")

    def _norm(self) -> norms.Norm:
        """Return A, with eta = s learning_rate A^-1."""
        return norms.Adam(decay=self.beta2, epsilon=self.epsilon)

    def needs(self) -> frozenset[Product]:
        """Products that the oracle must offer."""
        return frozenset({Product.HVP})

    def init(self, oracle: Oracle, x: Array, *data: Any) -> SecondOrderAdamState:
        """Return the state to start from ``x``, of shape (n,)."""
        zeros, none = namespace(x).zeros_like(x), integer_like(x, 0)
        return SecondOrderAdamState(
            **unevaluated(x),
            mean=zeros,
            drift=zeros,
            drifting=zeros,
            moments=self._norm().init(x),
            log_factor=zeros,
            t=none,
        )

    def step(self, oracle: Oracle, state: SecondOrderAdamState, *data: Any) -> SecondOrderAdamState:
        """Return the state after one step; a gradient that is not finite moves nothing."""
        pt = oracle.at(state.x, *data)
        status = verdict(pt.value, pt.grad, self.gtol)
        state = state._replace(
            value=pt.value, grad=pt.grad, status=status, counts=state.counts.add(gradients=1)
        )

        def move(state: SecondOrderAdamState) -> SecondOrderAdamState:
            return self._move(pt.hvp, state)

        return oracle.flow.cond(status == Status.RUNNING.value, move, lambda state: state, state)

    def _move(self, hvp: Any, state: SecondOrderAdamState) -> SecondOrderAdamState:
        """Return the state after a step from where it has been linearised."""
        xp, norm, t = namespace(state.x), self._norm(), state.t + 1
        mean = self.beta1 * state.mean + (1 - self.beta1) * state.grad
        moments = norm.update(state.moments, state.grad)
        ghat = unbiased(mean, self.beta1, t)
        scaled = self.learning_rate * norm.solve(moments, ghat)

        product = hvp(xp.exp(state.log_factor) * scaled)
        product = xp.where(xp.isfinite(product), product, ghat)  # which leaves eta as it is
        drift = self.beta3 * state.drift + (1 - self.beta3) * product
        drifting = self.beta3 * state.drifting + (1 - self.beta3) * ghat
        lost = guarded_divide(drift, drifting, otherwise=1.0)
        change = xp.minimum(xp.maximum(1 - lost, like(lost, -3.0)), like(lost, 1.0))
        log_factor = state.log_factor + self.rate * change
        return state._replace(
            x=state.x - xp.exp(log_factor) * scaled,
            counts=state.counts.add(hvps=1),
            mean=mean,
            drift=drift,
            drifting=drifting,
            moments=moments,
            log_factor=log_factor,
            t=t,
        )

    def report(self, state: SecondOrderAdamState) -> dict[str, Array]:
        """Return the geometric mean of what the step lengths have been multiplied by."""
        xp = namespace(state.x)
        return {"factor": xp.exp(xp.mean(state.log_factor))}


@dataclass(frozen=True, kw_only=True)
class AdaptiveDescent(SecondOrderAdam):
    """Second-order adaptive descent: :class:`SecondOrderAdam` without Adam's denominator.

    eta_i = s_i learning_rate, so that nothing but the drift tells the coordinates apart. The
    lecture's formulas are lost: the rule is our own, as there.

    Parameters
    ----------
    learning_rate : float
        Step length per unit of gradient at the start.
    beta1, beta3, rate, gtol
        As in :class:`SecondOrderAdam`; ``beta2`` and ``epsilon`` have no part in this.
    """

    learning_rate: float = 0.1

    def _norm(self) -> norms.Norm:
        return norms.Spherical()
