"""Newton's method with Krylov inner iterations and a line search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..arrays import Array, integer_like, namespace
from ..flow import Flow
from ..krylov.residual import conjugate_residual
from ..krylov.truncated_cg import NewtonStep, truncated_cg
from ..oracle import Point
from ..pairs import Memory
from .newton import LineSearchNewton


@dataclass(frozen=True, kw_only=True)
class NewtonCG(LineSearchNewton):
    """Line-search Newton-CG, preconditioned by what its inner iterations learn.

    H d = -g is solved roughly by conjugate gradients, or conjugate residuals. Each of their
    directions p comes with H p: these pairs make the L-BFGS preconditioner of the next iteration
    (Morales and Nocedal 2000). Negative curvature is followed as far as if it were positive, and
    from there by the line search, which satisfies Goldstein's conditions.

    Parameters
    ----------
    inner : {"cg", "cr"}
        Conjugate gradients (Nocedal and Wright 2006, Algorithm 7.1) or conjugate residuals (Dahito
        and Orban 2019).
    forcing : float
        The residual is brought below this part of the gradient, both in the preconditioner's norm.
    max_inner : int, optional
        Most products per step; by default max(2n, 50) (JSOSolvers.jl, trunk).
    memory : int
        Pairs kept for the preconditioner; 0 goes without.
    attempts : int
        Most steps tried in one line search.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops a fit.

    Notes
    -----
    A step costs a gradient, the products of the inner iterations, and a forward pass for each step
    length tried. The fixed forcing converges linearly at the least; with the preconditioner, a
    tighter one spends more products than it saves steps. At a start whose gradient is exactly zero
    there is nothing to go on: a saddle point is reported as converged. From any other gradient
    above ``gtol`` a strict saddle is left.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> saddle = lambda x: x[0] ** 2 / 2 - x[1] ** 2 / 2 + x[1] ** 4 / 4
    >>> x0 = np.array([1.0, 1e-5])
    >>> solution = osculant.minimize(saddle, x0, method=osculant.NewtonCG(gtol=1e-8))
    >>> np.round(np.abs(solution.x), 6)
    array([0., 1.])
    """

    inner: Literal["cg", "cr"] = "cg"
    forcing: float = 0.5
    max_inner: int | None = None
    memory: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner not in ("cg", "cr"):
            raise ValueError(f"inner is {self.inner!r}; it must be 'cg' or 'cr'")
        if not 0 < self.forcing < 1:
            raise ValueError(f"forcing is {self.forcing}; it must lie between 0 and 1")
        if self.memory < 0:
            raise ValueError(f"memory is {self.memory}; it must be zero or positive")
        if self.max_inner is not None and self.max_inner < 1:
            raise ValueError(f"max_inner is {self.max_inner}; at least one product is needed")

    def _memory(self) -> int:
        return self.memory

    def _direction(
        self, pt: Point, g: Array, memory: Memory, active: Array, flow: Flow
    ) -> NewtonStep:
        most = integer_like(g, self.max_inner or max(2 * g.shape[0], 50))
        solve = truncated_cg if self.inner == "cg" else conjugate_residual
        return solve(
            pt.hvp,
            g,
            memory,
            rtol=self.forcing,
            maxiter=namespace(g).where(active, most, integer_like(g, 0)),
            flow=flow,
        )
