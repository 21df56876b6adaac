"""Newton's method with a cubic term in place of a trust radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..arrays import Array, eps, guarded_divide, like, namespace, norm
from ..globalize.trial import Proposal, Trial
from ..globalize.trust_radius import GOOD, POOR, initial_radius
from ..krylov.lanczos import Minimiser
from ..krylov.secular import Reach
from ..oracle import Oracle
from .regularized_newton import RegularizedNewton, RegularizedNewtonState

#: After a good step sigma is divided by this; ten loses robustness on long curved valleys.
RELAX = 2.0


@dataclass(frozen=True, kw_only=True)
class CubicRegularization(RegularizedNewton):
    """Minimise m(s) = f + g's + s'Bs/2 + sigma |s|_A^3 / 3, adaptively (ARC).

    Parameters
    ----------
    sigma : float, optional
        Weight to start with. By default that of a step of length clip(|g|/10, 1, 100) where there
        is no curvature: |g| over its square.
    curvature : {"hessian", "gauss-newton"}
        What B is; Gauss-Newton needs an oracle built from a model and a loss.
    norm : Norm
        A; one of ``osculant.norms``. Its statistics take in the gradient of each step.
    max_inner : int, optional
        Most products per step, each of which keeps two vectors; by default 30.
    memory : int, optional
        Pairs (s, B s) by which the subspace is preconditioned in the spherical norm.
    forcing, attempts, quasi_newton, second_order, fixed, gtol
        As in :class:`TrustRegion`.

    Notes
    -----
    Cartis, Gould and Toint, Math. Program. 127 (2011) 245-295, Algorithm 2.1, with the model
    minimised in one Krylov subspace (section 6.2) for all weights: a rejection takes no new
    product. The subspace, its preconditioner and the stretching of steps are those of
    :class:`TrustRegion`. Deviations: a rejection raises sigma to where the cubic term is felt,
    sigma |s|^3 >= max(|g's|, |g's + s'Bs|), and on by the interpolated factor that shortens a trust
    radius. The norms are footnote 5 of Kohler et al. 2020.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> cusp = lambda x: (np.abs(x) ** 3).sum()
    >>> solution = osculant.minimize(cusp, np.ones(3), method=osculant.CubicRegularization())
    >>> solution.success
    True
    """

    sigma: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma is not None and not self.sigma > 0:
            raise ValueError(f"sigma is {self.sigma}; it must be positive")

    def init(self, oracle: Oracle, x: Array, *data: Any) -> RegularizedNewtonState:
        """Return the state to start from ``x``, of shape (n,)."""
        first = 0.0 if self.sigma is None else 1 / self.sigma
        return super().init(oracle, x, *data)._replace(radius=like(x, first))

    def report(self, state: RegularizedNewtonState) -> dict[str, Array]:
        """Return sigma and the length of the last step."""
        return {
            "sigma": guarded_divide(like(state.radius, 1.0), state.radius),
            "step_norm": state.step_norm,
        }

    def _first(self, size: Array, g_norm: Array) -> Array:
        radius = initial_radius(like(g_norm, 0.0), g_norm)
        automatic = guarded_divide(radius * radius, g_norm, otherwise=1.0)
        return namespace(size).where(size > 0, size, automatic)

    def _reach(self, size: Array) -> Reach:
        return Reach(like(size, 0.0), size)

    def _proposal(self, step: Array, best: Minimiser, size: Array) -> Proposal:
        length = norm(best.y)
        cube = length * length * length
        predicted = -(best.slope + best.curvature / 2) - guarded_divide(cube, 3 * size)
        xp, bent = namespace(cube), best.slope + best.curvature
        felt = guarded_divide(cube, xp.maximum(xp.abs(best.slope), xp.abs(bent)))
        return Proposal.free(step, length=felt, slope=best.slope, predicted=predicted)

    def _resized(self, trial: Trial, factor: Array) -> Array:
        xp = namespace(factor)
        most = like(factor, 1 / eps(factor))
        felt = xp.minimum(trial.size, trial.length)
        relaxed = xp.minimum(RELAX * trial.size, most)
        new = xp.where(trial.ratio > GOOD, relaxed, trial.size)
        new = xp.where(trial.ratio < POOR, felt / 2, new)
        return xp.where(trial.accepted, new, trial.size)
