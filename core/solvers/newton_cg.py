"""Newton's method with Krylov inner iterations and a line search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from ..arrays import Array, integer_like, namespace
from ..flow import Flow
from ..krylov.residual import conjugate_residual
from ..krylov.truncated_cg import NewtonStep, truncated_cg
from ..oracle import Oracle, Point
from ..pairs import Memory
from .enriched import arrived, quasi_newton
from .lbfgs import affordable
from .newton import LineSearchNewton, NewtonState


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
    memory : int, optional
        Pairs kept for the preconditioner; 0 goes without. By default as many as :class:`LBFGS`
        keeps.
    quasi_newton : bool
        Whether steps of :class:`LBFGS`, which take no product, go on where curvature is positive;
        only where there are pairs, and the function is fixed.
    fixed : bool
        Whether the function is one and the same at each step, so that the change of the gradient
        teaches a pair; :func:`osculant.minimize` sets it.
    attempts : int
        Most steps tried in one line search.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops a fit.

    Notes
    -----
    A step costs a gradient, the products of the inner iterations, and a forward pass for each step
    length tried. The fixed forcing converges linearly at the least; with the preconditioner, a
    tighter one spends more products than it saves steps. A gradient within ``gtol`` is enough to
    stop: a saddle point that is the start, or that the steps come so close to, is reported as
    converged. :class:`TrustRegion` confirms its minima.

    On a fixed function a step along which the curvature came out positive is followed by those of
    L-BFGS, from the same pairs and those of the steps, for as long as its line search finds one
    (the enriched method of Morales and Nocedal, Comput. Optim. Appl. 21 (2002) 143-154, as in
    :class:`TrustRegion`).

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
    memory: int | None = None
    quasi_newton: bool = True
    fixed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner not in ("cg", "cr"):
            raise ValueError(f"inner is {self.inner!r}; it must be 'cg' or 'cr'")
        if not 0 < self.forcing < 1:
            raise ValueError(f"forcing is {self.forcing}; it must lie between 0 and 1")
        if self.memory is not None and self.memory < 0:
            raise ValueError(f"memory is {self.memory}; it must be zero or positive")
        if self.max_inner is not None and self.max_inner < 1:
            raise ValueError(f"max_inner is {self.max_inner}; at least one product is needed")

    def deterministic(self) -> Self:
        """Return this solver for one fixed function."""
        return replace(self, fixed=True)

    def step(self, oracle: Oracle, state: NewtonState, *data: Any) -> NewtonState:
        """Return the state after one direction and its line search, or a step by the pairs."""
        if not self._enriched():
            return super().step(oracle, state, *data)
        newton, secant, flow = super().step, state.secant, oracle.flow

        def by_pairs(old: NewtonState) -> NewtonState:
            new, step_length = quasi_newton(oracle, old, self.gtol, *data)
            return new._replace(step_length=step_length)

        def by_products(old: NewtonState) -> NewtonState:
            new = newton(oracle, old, *data)
            return arrived(oracle, old.x, new, new.step_length > 0, *data)

        return flow.when(~secant, by_products, flow.when(secant, by_pairs, state))

    def _enriched(self) -> bool:
        """Whether steps by the pairs, which those of one fixed function teach, take turns."""
        return self.quasi_newton and self.fixed and self.memory != 0

    def _memory(self, n: int) -> int:
        return affordable(n) if self.memory is None else self.memory

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
