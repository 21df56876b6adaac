"""The default: quasi-Newton steps, and exact curvature where these stall."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..arrays import Array, integer_like, namespace
from ..oracle import Oracle, Product
from ..result import Counts, Status
from .base import Solver
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
    """Whether the quasi-Newton method has stalled and the trust region has taken over."""
    lbfgs: LBFGSState
    trust_region: TrustRegionState


@dataclass(frozen=True, kw_only=True)
class Auto(Solver):
    """L-BFGS until it stalls, then a trust-region Newton method.

    A quasi-Newton method needs the fewest evaluations on most functions, and stalls on those whose
    scales it cannot learn. There, Hessian products go on, from where it stands. An oracle that
    offers none gets L-BFGS alone.

    Parameters
    ----------
    lbfgs : LBFGS
        The quasi-Newton method; its ``gtol`` is not read.
    trust_region : TrustRegion
        What takes over; its ``gtol`` is not read.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops a fit.
    """

    lbfgs: LBFGS = field(default_factory=LBFGS)
    trust_region: TrustRegion = field(default_factory=TrustRegion)

    def deterministic(self) -> Auto:
        """Return this solver for one fixed function."""
        return replace(self, lbfgs=self.lbfgs.deterministic())

    def init(self, oracle: Oracle, x: Array, *data: Any) -> AutoState:
        """Return the state to start from ``x``, of shape (n,)."""
        first = self.lbfgs.init(oracle, x, *data)
        return AutoState(
            x=x,
            value=first.value,
            grad=first.grad,
            status=first.status,
            counts=first.counts,
            exact=first.status != Status.RUNNING.value,
            lbfgs=first,
            trust_region=self.trust_region.init(oracle, x, *data),
        )

    def step(self, oracle: Oracle, state: AutoState, *data: Any) -> AutoState:
        """Return the state after one step of the method whose turn it is."""
        if Product.HVP not in oracle.products:
            return self._quasi_newton(oracle, state, *data)
        return oracle.flow.cond(
            state.exact,
            lambda s: self._newton(oracle, s, *data),
            lambda s: self._hand_over(self._quasi_newton(oracle, s, *data)),
            state,
        )

    def report(self, state: AutoState) -> dict[str, Array]:
        """Return whether the trust region has taken over."""
        return {"exact": state.exact}

    def _quasi_newton(self, oracle: Oracle, state: AutoState, *data: Any) -> AutoState:
        new = replace(self.lbfgs, gtol=self.gtol).step(oracle, state.lbfgs, *data)
        return _adopt(state, new)._replace(lbfgs=new)

    def _newton(self, oracle: Oracle, state: AutoState, *data: Any) -> AutoState:
        new = replace(self.trust_region, gtol=self.gtol).step(oracle, state.trust_region, *data)
        return _adopt(state, new)._replace(trust_region=new)

    def _hand_over(self, state: AutoState) -> AutoState:
        """Let the trust region go on from here if the line search has stalled."""
        xp = namespace(state.x)
        stalled = state.status == Status.STALLED.value
        return state._replace(
            exact=stalled,
            status=xp.where(stalled, integer_like(state.x, Status.RUNNING), state.status),
            trust_region=state.trust_region._replace(x=state.x, counts=state.counts),
        )


def _adopt(state: AutoState, new: LBFGSState | TrustRegionState) -> AutoState:
    """Return ``state`` with what every solver's state has taken from ``new``."""
    return state._replace(
        x=new.x, value=new.value, grad=new.grad, status=new.status, counts=new.counts
    )
