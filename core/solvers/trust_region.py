"""Trust-region Newton and Gauss-Newton methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..arrays import (
    Array,
    eps,
    guarded_divide,
    integer_like,
    like,
    namespace,
    norm,
)
from ..flow import Flow
from ..globalize.trial import Proposal, Trial
from ..globalize.trust_radius import initial_radius, resized
from ..krylov.lanczos import Minimiser, whole_space
from ..krylov.secular import Reach
from ..krylov.steihaug import steihaug
from ..norms import length
from ..oracle import Oracle, Point
from ..pairs import Memory
from .regularized_newton import Model, RegularizedNewton, RegularizedNewtonState

#: Beyond this many variables a dense Hessian is refused.
DENSE_LIMIT = 10_000

TrustRegionState = RegularizedNewtonState


@dataclass(frozen=True, kw_only=True)
class TrustRegion(RegularizedNewton):
    """Minimise m(s) = f + g's + s'Bs/2 within |s|_A <= radius.

    Parameters
    ----------
    subproblem : {"gltr", "steihaug", "exact"}
        How the model is minimised: on a Krylov subspace that is kept, so that a step that the
        function does not confirm is computed again in a smaller radius without a new product, the
        hard case included; by truncated CG, which keeps four vectors and shortens such a step
        along itself; or on the whole space, by n products at once and an eigendecomposition
        (More and Sorensen 1983).
    radius : float, optional
        Radius to start with, in the norm. By default clip(|g|/10, 1, 100) (JSOSolvers.jl, trunk).
    max_radius : float, optional
        The radius never grows beyond this; by default 1/sqrt(eps) (trunk).
    curvature : {"hessian", "gauss-newton"}
        What B is; Gauss-Newton needs an oracle built from a model and a loss.
    norm : Norm
        A; one of ``osculant.norms``. Its statistics take in the gradient of each step.
    max_inner : int, optional
        Most products per step; "gltr" keeps two vectors for each. By default 30 for "gltr", and
        max(2n, 50) (trunk) for "steihaug".
    memory : int, optional
        Pairs (s, B s) by which "gltr" preconditions in the spherical norm; 0 for plain Lanczos. By
        default as many as :class:`LBFGS` keeps.
    forcing : float
        The residual of the subproblem is reduced by min(forcing, sqrt|g|): superlinear
        convergence at the least cost (Nocedal and Wright 2006, Algorithm 7.1).
    attempts : int
        Most trial steps per subproblem; 10 as in trunk.
    quasi_newton : bool
        Whether steps of :class:`LBFGS`, which take no product, go on where curvature is positive;
        only where there are pairs, and the function is fixed and its Hessian the curvature. They
        pay in curved valleys; on convex problems whose products are cheap False can halve the time
        (``docs/reports/linear-models.md``).
    second_order : bool, optional
        Whether a small gradient is not enough to stop: the model must also promise a decrease of
        no more than max(eps^(2/3), gtol^(3/2)) max(1, |f|), on a subspace that a fixed vector of no
        structure has a part in, so that a saddle is left even where the gradient is zero. The last
        step then takes up to ``max_inner`` products that it otherwise would not. By default where
        the function is fixed, but for "steihaug", which keeps no subspace.
    fixed : bool
        Whether the function is one and the same at each step, so that the change of the gradient
        teaches a pair; :func:`osculant.minimize` sets it.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops a fit.

    Notes
    -----
    Conn, Gould and Toint, Trust-Region Methods (2000), Algorithm 6.1.1; the ellipsoids and the
    stochastic use are Algorithm 1 of Kohler et al. 2020, which grows the radius at each success.
    One step costs a gradient, the products of the subproblem, and a forward pass per trial; the
    curvature and the ratio may have samples of their own (:class:`~osculant.core.samples.Samples`).

    The preconditioner M is the L-BFGS matrix of the Ritz vectors of the last subspace with positive
    Ritz values, which cost nothing more (Morales and Nocedal, SIAM J. Optim. 10 (2000) 1079-1096),
    and of the last steps. It shapes the subspace and measures the residual, r'M^-1 r; the trust
    region stays in the norm A. A step after which the function falls by more than the model says
    is doubled while that pays, at a forward pass each: Newton's step is too short at degenerate
    minima.

    On a fixed function a step along which the curvature came out positive is followed by those of
    L-BFGS, from the same pairs and with its line search, for as long as that finds one; the radius
    waits (the enriched method of Morales and Nocedal, Comput. Optim. Appl. 21 (2002) 143-154).
    Deviation: not some of each kind by turns.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> solver = osculant.TrustRegion(radius=50.0)
    >>> x0 = np.array([5.0])
    >>> solution = osculant.minimize(lambda x: (x - np.log(x)).sum(), x0, method=solver)
    >>> solution.success, int(solution.state.rejected)
    (True, 2)
    """

    subproblem: Literal["gltr", "steihaug", "exact"] = "gltr"
    radius: float | None = None
    max_radius: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subproblem not in ("gltr", "steihaug", "exact"):
            raise ValueError(
                f"subproblem is {self.subproblem!r}; it must be 'gltr', 'steihaug' or 'exact'"
            )
        if self.second_order and self.subproblem == "steihaug":
            raise ValueError(
                "second_order=True needs a subspace that is kept: use subproblem='gltr' or 'exact'"
            )
        for name, limit in (("radius", self.radius), ("max_radius", self.max_radius)):
            if limit is not None and not limit > 0:
                raise ValueError(f"{name} is {limit}; it must be positive")

    def init(self, oracle: Oracle, x: Array, *data: Any) -> TrustRegionState:
        """Return the state to start from ``x``, of shape (n,).

        Raises
        ------
        ValueError
            If the subproblem is "exact" and n is beyond what a dense Hessian can be meant for.
        """
        if self.subproblem == "exact" and oracle.size > DENSE_LIMIT:
            raise ValueError(
                f"subproblem='exact' makes a dense Hessian, of {oracle.size} variables here; "
                f"beyond {DENSE_LIMIT} use 'gltr' or 'steihaug'"
            )
        return super().init(oracle, x, *data)._replace(radius=like(x, self.radius or 0.0))

    def report(self, state: TrustRegionState) -> dict[str, Array]:
        """Return the radius and the length of the last step."""
        return {"radius": state.radius, "step_norm": state.step_norm}

    def _keeps(self) -> bool:
        return self.subproblem != "steihaug"

    def _learns(self) -> bool:
        return self.subproblem == "gltr" and super()._learns()

    def _first(self, size: Array, g_norm: Array) -> Array:
        return initial_radius(size, g_norm)

    def _reach(self, size: Array) -> Reach:
        return Reach(size, like(size, 0.0))

    def _proposal(self, step: Array, best: Minimiser, size: Array) -> Proposal:
        predicted = -(best.slope + best.curvature / 2)
        return Proposal.free(step, length=norm(best.y), slope=best.slope, predicted=predicted)

    def _resized(self, trial: Trial, factor: Array) -> Array:
        xp = namespace(factor)
        limit = self.max_radius or eps(factor) ** -0.5
        new = resized(trial, max_radius=limit)
        stretched = xp.minimum(factor * trial.length, like(factor, limit))
        return xp.where(factor > 1, xp.maximum(new, stretched), new)

    def _model(
        self,
        pt: Point,
        g: Array,
        size: Array,
        memory: Memory,
        norm_state: Any,
        active: Array,
        flat: Array,
        flow: Flow,
    ) -> Model:
        if self.subproblem == "gltr":
            return super()._model(pt, g, size, memory, norm_state, active, flat, flow)

        def metric(v: Array) -> Array:
            return self.norm.apply(norm_state, v)

        if self.subproblem == "exact":
            space = whole_space(self._matvec(pt), g, metric=metric, active=active, flow=flow)
            return Model(self._proposals(space, flow), space.size, memory)
        max_inner = self.max_inner or max(2 * g.shape[0], 50)
        best = steihaug(
            self._matvec(pt),
            g,
            size,
            rtol=self._rtol(g),
            maxiter=namespace(g).where(active, integer_like(g, max_inner), integer_like(g, 0)),
            flow=flow,
            metric=metric,
            solve=lambda v: self.norm.solve(norm_state, v),
        )
        reached = length(self.norm, norm_state, best.step)

        def shortened(radius: Array) -> Proposal:
            xp = namespace(g)
            ratio = guarded_divide(radius, reached, otherwise=1.0)
            factor = xp.minimum(ratio, like(g, 1.0))
            return Proposal.along(
                best.step,
                factor,
                length=factor * reached,
                slope=best.slope,
                curvature=best.curvature,
            )

        return Model(shortened, best.iterations, memory)
