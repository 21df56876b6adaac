"""Trust-region Newton and Gauss-Newton methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..arrays import Array, dot, eps, integer_like, like, namespace, norm
from ..globalize.trust_radius import initial_radius, search_radius
from ..krylov.steihaug import steihaug
from ..oracle import Oracle, Product
from ..result import Counts, Status
from .base import Solver, verdict


class TrustRegionState(NamedTuple):
    """State of :class:`TrustRegion`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    radius: Array
    """Trust radius; 0 before the first step where it is to be chosen automatically."""
    step_norm: Array
    """Length of the last step taken; 0 if it was rejected."""
    rejected: Array
    """Steps rejected so far."""


@dataclass(frozen=True, kw_only=True)
class TrustRegion(Solver):
    """Minimise m(s) = f + g's + s'Bs/2 within |s| <= radius, by Steihaug-Toint CG.

    B is the Hessian or the Gauss-Newton matrix, known by its products only. A step that the
    function does not confirm is shortened along itself at the price of a forward pass each.

    Parameters
    ----------
    radius : float, optional
        Radius to start with, in the units of x. By default clip(|g|/10, 1, 100)
        (JSOSolvers.jl, trunk).
    curvature : {"hessian", "gauss-newton"}
        What B is; Gauss-Newton needs an oracle built from a model and a loss.
    max_inner : int, optional
        Most products per step; by default max(2n, 50) (trunk).
    forcing : float
        The subproblem is solved to min(forcing, sqrt|g|) |g|: superlinear convergence at
        the least cost (Nocedal and Wright 2006, Algorithm 7.1).
    max_radius : float, optional
        The radius never grows beyond this; by default 1/sqrt(eps) (trunk).
    attempts : int
        Most trial steps per subproblem; 10 as in trunk.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.

    Notes
    -----
    Conn, Gould and Toint, Trust-Region Methods (2000), Algorithm 6.1.1; the stochastic use is
    Algorithm 1 of Kohler et al. 2020 with the spherical norm. One step costs a gradient, the
    products of the subproblem, and a forward pass per trial.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> solver = osculant.TrustRegion(radius=50.0)
    >>> x0 = np.array([5.0])
    >>> solution = osculant.minimize(lambda x: (x - np.log(x)).sum(), x0, method=solver)
    >>> solution.success, int(solution.state.rejected)
    (True, 2)
    """

    radius: float | None = None
    curvature: Literal["hessian", "gauss-newton"] = "hessian"
    max_inner: int | None = None
    forcing: float = 0.5
    max_radius: float | None = None
    attempts: int = 10

    def __post_init__(self) -> None:
        if self.curvature not in ("hessian", "gauss-newton"):
            raise ValueError(
                f"curvature is {self.curvature!r}; it must be 'hessian' or 'gauss-newton'"
            )
        if self.radius is not None and not self.radius > 0:
            raise ValueError(f"radius is {self.radius}; it must be positive")
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; at least one trial step is needed")

    def needs(self) -> frozenset[Product]:
        """Products that the oracle must offer."""
        return frozenset({Product.HVP if self.curvature == "hessian" else Product.GGN})

    def init(self, oracle: Oracle, x: Array, *data: Any) -> TrustRegionState:
        """Return the state to start from ``x``, of shape (n,)."""
        zero = like(x, 0.0)
        return TrustRegionState(
            x=x,
            value=zero,
            grad=namespace(x).zeros_like(x),
            status=integer_like(x, Status.RUNNING),
            counts=Counts.zero(x),
            radius=like(x, self.radius or 0.0),
            step_norm=zero,
            rejected=integer_like(x, 0),
        )

    def step(self, oracle: Oracle, state: TrustRegionState, *data: Any) -> TrustRegionState:
        """Return the state after one subproblem and its trial steps."""
        flow = oracle.flow
        pt = oracle.at(state.x, *data)
        f, g = pt.value, pt.grad
        xp = namespace(g)
        status = verdict(f, g, self.gtol)
        active = status == Status.RUNNING.value

        g_norm = norm(g)
        radius = initial_radius(state.radius, g_norm)
        max_inner = self.max_inner or max(2 * oracle.size, 50)
        model = steihaug(
            pt.hvp if self.curvature == "hessian" else pt.ggn,
            g,
            radius,
            rtol=xp.minimum(like(g, self.forcing), xp.sqrt(g_norm)),
            maxiter=xp.where(active, integer_like(g, max_inner), integer_like(g, 0)),
            flow=flow,
        )
        trial = search_radius(
            lambda s: oracle.value(state.x + s, *data),
            lambda s: dot(s, g + oracle.at(state.x + s, *data).grad),
            f,
            model,
            radius,
            max_radius=self.max_radius or eps(g) ** -0.5,
            attempts=self.attempts,
            active=active,
            flow=flow,
        )
        x = xp.where(trial.accepted, state.x + trial.step, state.x)
        tiny = trial.radius <= eps(g) * xp.maximum(norm(state.x), like(g, eps(g)))
        stalled = active & ~trial.accepted & tiny
        products = "hvps" if self.curvature == "hessian" else "ggns"
        return TrustRegionState(
            x=x,
            value=f,
            grad=g,
            status=xp.where(stalled, integer_like(g, Status.STALLED), status),
            counts=state.counts.add(
                gradients=1 + trial.gradients, values=trial.tries, **{products: model.iterations}
            ),
            radius=xp.where(active, trial.radius, state.radius),
            step_norm=xp.where(trial.accepted, norm(trial.step), like(g, 0.0)),
            rejected=state.rejected + trial.tries - xp.astype(trial.accepted, trial.tries.dtype),
        )

    def report(self, state: TrustRegionState) -> dict[str, Array]:
        """Return the radius and the length of the last step."""
        return {"radius": state.radius, "step_norm": state.step_norm}
