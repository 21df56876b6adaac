"""Second-order Adam and adaptive descent: step lengths set by the drift of the gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import norms
from ..arrays import Array, guarded_divide, integer_like, largest, like, namespace
from ..flow import Flow
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
    noise: Array
    """Decayed mean of the variance of a gradient, of shape (n,)."""
    foretold: Array
    """g - H (eta * ghat) where the drift was last taken, of shape (n,)."""
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
    own. With gbar a mean of ghat as gdot is one of its drift, gbar_i / gdot_i is the number of
    steps until the gradient of coordinate i vanishes. Of a model with curvature h_i, the step
    that decreases it most on average is eta_i = q_i / h_i, where q_i is the share of the signal in
    E ghat_i^2, as noise is no descent but costs curvature like it. So, every ``period`` steps,

        gbar <- beta3 gbar + (1 - beta3) ghat
        v <- beta3 v + (1 - beta3) (g' - (g - H (eta * ghat)))^2 / 2
        q = gbar^2 / (gbar^2 + v (1 - beta1) / (1 + beta1))
        log eta_i <- log eta_i + rate clip(q_i - gdot_i / gbar_i, -3, 1),

    where g' is the gradient after the step: what it differs by from g less its drift is the noise
    of two batches, and a mean of beta1 leaves (1 - beta1) / (1 + beta1) of their variance v.
    Without noise this ends at eta_i = 1 / H_ii where the Hessian is diagonal, and under negative
    curvature eta_i grows.
    It is applied to a factor s_i in eta_i = s_i learning_rate / (sqrt(vhat_i) + epsilon), which is
    Adam's own step length at the start, s = 1. No coordinate moves by more than
    ``bound * learning_rate`` in a step.

    Parameters
    ----------
    learning_rate : float
        Step length per coordinate at the start. It is forgotten at the rate of ``rate``, but for
        the bound on a step.
    beta1, beta2, beta3 : float
        Decay rates: of the gradient and its square as in Adam, and of the drift.
    epsilon : float
        Keeps Adam's denominator from zero.
    rate : float
        How fast eta follows. It, ``beta3`` and ``period`` are calibrated in
        ``docs/reports/second_order_adam.md``.
    period : int
        Steps from one Hessian product, and change of eta, to the next.
    bound : float
        Longest step of a coordinate, in ``learning_rate``; infinity for none.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.

    Notes
    -----
    A step costs a gradient, and every ``period``-th a Hessian product. ghat is freed of its bias
    towards 0 as in Adam, and so are gbar and v in q; that of gdot and gbar cancels. The shrinking
    is bounded three times wider than the growth: too long a step does harm, too short a one only
    costs time. Where all gradients were 0, eta_i stays.

    Where a gradient vanishes without curvature, as that of a unit which saturates, eta_i grows as
    the model says; the model does not say how far it holds. When such a gradient comes back,
    eta_i ghat_i is thousands of learning rates long. Adam's own step is hardly longer than one,
    which its authors call a trust region (Kingma and Ba 2015, section 2.1): ``bound`` keeps it one.
    gdot is the drift of the step as it is taken.

    References
    ----------
    D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    D. McAllester, "Second order optimization methods", TTIC 31230, lecture slides, April 2017.
    """

    learning_rate: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.999
    beta3: float = 0.8
    epsilon: float = 1e-8
    rate: float = 0.1
    period: int = 4
    bound: float = 30.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "rate", "epsilon", "bound"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        for name in ("beta1", "beta2", "beta3"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")
        if self.period < 1:
            raise ValueError(f"period is {self.period}; it must be at least 1")

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
            noise=zeros,
            foretold=zeros,
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
            return self._move(pt.hvp, state, oracle.flow)

        return oracle.flow.cond(status == Status.RUNNING.value, move, lambda state: state, state)

    def _move(self, hvp: Any, state: SecondOrderAdamState, flow: Flow) -> SecondOrderAdamState:
        """Return the state after a step from where it has been linearised."""
        xp, norm, t = namespace(state.x), self._norm(), state.t + 1
        mean = self.beta1 * state.mean + (1 - self.beta1) * state.grad
        moments = norm.update(state.moments, state.grad)
        ghat = unbiased(mean, self.beta1, t)
        scaled = self.learning_rate * norm.solve(moments, ghat)
        longest = like(scaled, self.bound * self.learning_rate)
        step = xp.exp(state.log_factor) * scaled
        step = xp.minimum(xp.maximum(step, -longest), longest)

        foretold = (state.t > 0) & ((state.t - 1) % self.period == 0)
        noise = flow.cond(foretold, self._noise, lambda state: state.noise, state)
        due = state.t % self.period == 0
        state = state._replace(mean=mean, moments=moments, noise=noise, t=t)

        def learn(state: SecondOrderAdamState) -> SecondOrderAdamState:
            return self._learn(hvp(step), ghat, state)

        return flow.cond(due, learn, lambda state: state, state)._replace(x=state.x - step)

    def _noise(self, state: SecondOrderAdamState) -> Array:
        """Return v with what the gradient differs by from what was foretold."""
        surprise = state.grad - state.foretold
        return self.beta3 * state.noise + (1 - self.beta3) * surprise * surprise / 2

    def _learn(
        self, product: Array, ghat: Array, state: SecondOrderAdamState
    ) -> SecondOrderAdamState:
        """Return the state with eta changed by the drift, ``product``."""
        xp = namespace(product)
        product = xp.where(xp.isfinite(product), product, ghat)  # which lets no eta grow
        drift = self.beta3 * state.drift + (1 - self.beta3) * product
        drifting = self.beta3 * state.drifting + (1 - self.beta3) * ghat
        seen = (state.t - 1) // self.period
        power = unbiased(drifting, self.beta3, seen + 1) ** 2
        kept = (1 - self.beta1) / (1 + self.beta1)
        signal = guarded_divide(power, power + kept * unbiased(state.noise, self.beta3, seen), 1.0)
        lost = guarded_divide(drift, drifting, otherwise=1.0)
        change = xp.minimum(xp.maximum(signal - lost, like(lost, -3.0)), like(lost, 1.0))
        finite = like(change, math.log(largest(change)) / 2)  # so that exp(finite) * 0 is 0
        return state._replace(
            counts=state.counts.add(hvps=1),
            drift=drift,
            drifting=drifting,
            foretold=state.grad - product,
            log_factor=xp.minimum(state.log_factor + self.rate * change, finite),
        )

    def report(self, state: SecondOrderAdamState) -> dict[str, Array]:
        """Return the geometric mean of what the step lengths have been multiplied by."""
        xp = namespace(state.x)
        return {"factor": xp.exp(xp.mean(state.log_factor))}


@dataclass(frozen=True, kw_only=True)
class AdaptiveDescent(SecondOrderAdam):
    """Second-order adaptive descent: :class:`SecondOrderAdam` without Adam's denominator.

    eta_i = s_i learning_rate, so that nothing but the drift tells the coordinates apart, and a
    learning rate is no length that a step could be bounded by. The lecture's formulas are lost:
    the rule is our own, as there.

    Parameters
    ----------
    learning_rate : float
        Step length per unit of gradient at the start.
    beta1, beta3, rate, period, bound, gtol
        As in :class:`SecondOrderAdam`, with no bound; ``beta2`` and ``epsilon`` have no part in
        this.
    """

    learning_rate: float = 0.1
    bound: float = math.inf

    def _norm(self) -> norms.Norm:
        return norms.Spherical()
