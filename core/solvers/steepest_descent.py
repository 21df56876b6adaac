"""Cauchy's steepest descent."""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays import Array, namespace
from ..flow import Flow
from ..krylov.truncated_cg import NewtonStep, truncated_cg
from ..oracle import Point
from ..pairs import Memory
from .newton import LineSearchNewton


@dataclass(frozen=True, kw_only=True)
class SteepestDescent(LineSearchNewton):
    """Steepest descent with the step that is exact on the quadratic, x - (g'g / g'Hg) g.

    It is the first iteration of conjugate gradients. Where g'Hg is negative its size serves, and
    a line search guards the step: Goldstein's conditions.

    Parameters
    ----------
    attempts : int
        Most steps tried in one line search; 1 takes the exact step or none.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops a fit.

    Notes
    -----
    A. Cauchy, "Methode generale pour la resolution des systemes d'equations simultanees", Comptes
    rendus 25 (1847). A step costs a gradient, a Hessian product, and a forward pass for each step
    length tried. It is the Newton summary of Wolinski 2023 with one group and no anisotropic
    regularisation.
    """

    def _direction(
        self, pt: Point, g: Array, memory: Memory, active: Array, flow: Flow
    ) -> NewtonStep:
        once = namespace(g).astype(active, namespace(g).int32)
        return truncated_cg(pt.hvp, g, memory, rtol=0.0, maxiter=once, flow=flow)
