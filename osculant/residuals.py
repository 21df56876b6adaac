"""Least squares: residuals in, a fit out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from . import api, backends
from .core.arrays import Array, max_abs, namespace
from .core.errors import ProductUnavailable
from .core.oracle import GAUSS_NEWTON_PRODUCTS, Oracle, Point
from .core.residual_model import jacobian, residuals
from .core.result import Result, Status
from .core.solvers import LevenbergMarquardt, Solver

#: rho(t^2) by the namespace and t = r / f_scale.
_LOSSES: dict[str, Callable[[Any, Array], Array]] = {
    "linear": lambda xp, t: t**2,
    "soft_l1": lambda xp, t: 2 * t**2 / (1 + xp.sqrt(1 + t**2)),
    "huber": lambda xp, t: xp.where(xp.abs(t) <= 1, t**2, 2 * xp.abs(t) - 1),
    "cauchy": lambda xp, t: xp.log1p(t**2),
}


@dataclass(frozen=True)
class SumOfRho:
    """The loss scale^2 / 2 sum_i rho((r_i / scale)^2) of residuals r of any shape.

    It compares equal to others of the same name and scale, so that JAX compiles it once.
    """

    name: str = "linear"
    scale: float = 1.0

    def __call__(self, r: Array, _: Any = None) -> Array:
        """Return the loss as a 0-d array; the second argument is not read."""
        xp = namespace(r)
        return self.scale**2 / 2 * xp.sum(_LOSSES[self.name](xp, r / self.scale))


@dataclass(eq=False, repr=False)
class LeastSquaresSolution(Result):
    """What :func:`least_squares` returns; names as in ``scipy.optimize.least_squares``.

    A mapping of these, as :class:`Solution` is.

    Attributes
    ----------
    x : tree
        Best parameters found, in the user's own structure.
    cost : float
        Half the sum of squares, or the robust loss.
    fun : array
        Residuals at ``x``, as the user's function returns them.
    grad : tree
        Gradient of the cost, in the user's own structure.
    optimality : float
        Its largest absolute entry.
    success, status, message, nit, nfev, njev, nggn, history, state
        As in :class:`Solution`: ``nfev`` counts forward passes on their own, ``njev`` gradients,
        and ``nggn`` pairs of products of J or J', of which a Jacobian takes min(m, n) / 2.
    """

    x: Any
    cost: float
    fun: Array
    grad: Any
    optimality: float
    success: bool
    status: Status
    message: str
    nit: int
    nfev: int
    njev: int
    nggn: int
    history: dict[str, list[float]] = field(repr=False)
    state: Any = field(repr=False)
    _point: Point = field(repr=False)

    @cached_property
    def jac(self) -> Array:
        """Jacobian of the residuals at ``x``, of shape (m, n), without the robust loss's weights.

        Its columns are in the order of ``oracle.ravel(x)``. It is computed when it is first asked
        for, by min(m, n) products that are in no count. The covariance of the fit is, as usual,
        2 cost / (m - n) inv(jac.T @ jac).
        """
        return jacobian(self._point)

    def _names(self) -> list[str]:
        return [name for name in super()._names() if name != "_point"] + ["jac"]


def least_squares(
    residual: Callable[..., Any] | Oracle,
    x0: Any,
    *,
    method: str | Solver = "auto",
    args: Any = (),
    loss: str = "linear",
    f_scale: float = 1.0,
    **options: Any,
) -> LeastSquaresSolution:
    """Minimise half the sum of squares of residuals, or of a robust loss of them.

    Parameters
    ----------
    residual : callable or Oracle
        ``residual(x, *args)`` returns one array of any shape, computed with the array functions
        of ``x``; there may be fewer residuals than variables. Or an oracle made of a model and a
        loss that is a sum over the model's outputs.
    x0 : tree of arrays
        Where to start, as for :func:`osculant.minimize`. Not modified.
    method : str or Solver
        ``"lm"`` is :class:`LevenbergMarquardt` and ``"gauss-newton"`` :class:`GaussNewton`.
        ``"auto"`` is Levenberg-Marquardt, which makes the Jacobian whole where that takes at most
        50 products, and works by products beyond. Or a solver with options of its own; one for
        general functions, such as ``TrustRegion(curvature="gauss-newton")``, serves too.
    args : tuple
        Further arguments of ``residual``: the data. Anything else than a tuple is the only one.
    loss : {"linear", "soft_l1", "huber", "cauchy"}
        rho in f_scale^2 / 2 sum rho((r / f_scale)^2), with rho(z) = z, 2 ((1 + z)^1/2 - 1),
        z up to 1 and 2 z^1/2 - 1 beyond, and log(1 + z).
    f_scale : float
        Residuals beyond it count as outliers.
    **options
        ``tol``, ``atol``, ``rtol``, ``ftol``, ``xtol``, ``maxiter``, ``max_seconds``,
        ``callback``, ``progress``, ``return_all`` and ``jit`` of :func:`osculant.minimize`;
        tolerances refer to the cost and its gradient.

    Returns
    -------
    LeastSquaresSolution
        With SciPy's names: ``x``, ``cost``, ``fun`` (residuals), ``jac``, ``grad``,
        ``optimality``, ``nfev``, ``njev``, ``success``, ``status``, ``message``.

    Raises
    ------
    ValueError
        If ``method``, ``loss`` or ``f_scale`` is none of the above, if the oracle's loss is not a
        sum over the outputs, or for the reasons of :func:`osculant.minimize`.
    TypeError, ProductUnavailable
        As :func:`osculant.minimize`.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> t = np.array([0.0, 1.0, 2.0, 3.0])
    >>> y = np.array([1.0, 3.0, 5.0, 70.0])
    >>> def residual(x):
    ...     return x["slope"] * t + x["intercept"] - y
    >>> x0 = {"slope": np.array(0.0), "intercept": np.array(0.0)}
    >>> fit = osculant.least_squares(residual, x0, loss="cauchy", f_scale=0.1)
    >>> round(float(fit.x["slope"]), 2), round(float(fit.x["intercept"]), 2)
    (2.0, 1.0)

    Notes
    -----
    A robust loss is minimised by generalised Gauss-Newton: its weights are its second derivatives,
    raised to a small positive number where it is concave (Triggs et al. 2000, section 4.3).
    """
    x0 = backends.as_parameters(x0)
    oracle, data = _oracle(residual, x0, api.as_data(args), loss, f_scale)
    solver = LevenbergMarquardt() if method == "auto" else method
    solution = api.minimize(oracle, x0, method=solver, args=data, **options)
    with np.errstate(**api._QUIET):
        pt = oracle.at(oracle.ravel(solution.x), *data)
    return LeastSquaresSolution(
        x=solution.x,
        cost=solution.fun,
        fun=namespace(pt.outputs).reshape(pt.outputs, pt.output_shape),
        grad=solution.jac,
        optimality=float(max_abs(oracle.ravel(solution.jac))),
        success=solution.success,
        status=solution.status,
        message=solution.message,
        nit=solution.nit,
        nfev=solution.nfev,
        njev=solution.njev + 1,
        nggn=solution.nggn,
        history=solution.history,
        state=solution.state,
        _point=pt,
    )


def _oracle(
    residual: Callable[..., Any] | Oracle,
    x0: Any,
    args: tuple[Any, ...],
    loss: str,
    f_scale: float,
) -> tuple[Oracle, tuple[Any, ...]]:
    """Return the oracle of the cost, and the data that go with it."""
    if loss not in _LOSSES:
        raise ValueError(f"no loss is called {loss!r}; there are: {', '.join(_LOSSES)}")
    if not f_scale > 0:
        raise ValueError(f"f_scale is {f_scale}; it must be positive")
    if not isinstance(residual, Oracle):
        # The last of the data is the loss's, which reads none.
        data = (*args, None) if args else ()
        rho = SumOfRho(loss, float(f_scale))
        return backends.oracle(model=residual, loss=rho, params=x0), data
    if loss != "linear":
        raise ValueError(f"the oracle has a loss of its own: leave loss={loss!r} out")
    if not residual.products >= GAUSS_NEWTON_PRODUCTS:
        raise ProductUnavailable(
            f"{type(residual).__name__} has no residuals: build it with "
            "osculant.oracle(model=..., loss=..., params=...), or pass the residuals' function"
        )
    if not bool(residuals(residual.at(residual.ravel(x0), *args)).separable):
        raise ValueError(
            "the oracle's loss is not a sum over the outputs of its model: its Hessian is not "
            "diagonal; minimize it with TrustRegion(curvature='gauss-newton')"
        )
    return residual, args
