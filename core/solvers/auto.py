"""The default: quasi-Newton steps, and exact curvature where these end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..arrays import Array, boolean_like
from ..oracle import Oracle, Product
from ..result import Counts, Status
from .base import Solver, adopt, unevaluated
from .lbfgs import LBFGS, LBFGSState
from .trust_region import TrustRegion, TrustRegionState


class AutoState(NamedTuple):
    """State of :class:`Auto`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    exact: Array
    """Whether the trust region has taken over."""
    lbfgs: LBFGSState
    trust_region: TrustRegionState


@dataclass(frozen=True, kw_only=True)
class Auto(Solver):
    """L-BFGS until it converges or stalls, then a trust-region Newton method.

    A quasi-Newton method needs the fewest evaluations on most functions. It stalls on those whose
    scales it cannot learn, and it takes saddle points and flat valleys for minima. So where it
    ends, by either way, Hessian products go on: a trust region stops only where its model promises
    no decrease any more. At a minimum that is one model, of at most ``trust_region.max_inner``
    products, and no step. An oracle without Hessian products gets L-BFGS alone, as do batches.

    Parameters
    ----------
    lbfgs : LBFGS
        The quasi-Newton method; its ``gtol`` is not read.
    trust_region : TrustRegion
        What takes over; its ``gtol`` is not read. With ``second_order=False`` a small gradient is
        enough to stop, and nothing is spent on confirming it.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops a fit.
    fixed : bool
        Whether the function is one and the same at each step; :func:`osculant.minimize` sets it.
    """

    lbfgs: LBFGS = field(default_factory=LBFGS)
    trust_region: TrustRegion = field(default_factory=lambda: TrustRegion(second_order=True))
    fixed: bool = False

    def deterministic(self) -> Auto:
        """Return this solver for one fixed function."""
        return replace(
            self,
            lbfgs=self.lbfgs.deterministic(),
            trust_region=self.trust_region.deterministic(),
            fixed=True,
        )

    def init(self, oracle: Oracle, x: Array, *data: Any) -> AutoState:
        """Return the state to start from ``x``, of shape (n,)."""
        return AutoState(
            **unevaluated(x),
            exact=boolean_like(x, False),
            lbfgs=self.lbfgs.init(oracle, x, *data),
            trust_region=self.trust_region.init(oracle, x, *data),
        )

    def step(self, oracle: Oracle, state: AutoState, *data: Any) -> AutoState:
        """Return the state after one step of the method whose turn it is."""
        if not self.fixed or Product.HVP not in oracle.products:
            return self._quasi_newton(oracle, state, *data)
        flow = oracle.flow
        state = flow.when(~state.exact, lambda s: self._quasi_newton(oracle, s, *data), state)
        ended = (state.status == Status.CONVERGED.value) | (state.status == Status.STALLED.value)
        return flow.when(state.exact | ended, lambda s: self._newton(oracle, s, *data), state)

    def report(self, state: AutoState) -> dict[str, Array]:
        """Return whether the trust region has taken over."""
        return {"exact": state.exact}

    def _quasi_newton(self, oracle: Oracle, state: AutoState, *data: Any) -> AutoState:
        solver = replace(self.lbfgs, gtol=self.gtol)
        new = solver.step(oracle, state.lbfgs._replace(x=state.x), *data)
        return adopt(state, new)._replace(lbfgs=new)

    def _newton(self, oracle: Oracle, state: AutoState, *data: Any) -> AutoState:
        """Step by the trust region, from where the line search has converged or stalled."""
        solver = replace(self.trust_region, gtol=self.gtol)
        start = state.trust_region._replace(x=state.x, counts=state.counts)
        new = solver.step(oracle, start, *data)
        return adopt(state, new)._replace(exact=boolean_like(state.x, True), trust_region=new)
