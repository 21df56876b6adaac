"""The functions that most users call: an oracle, a solver and a host loop put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from . import backends
from .core import drive
from .core.drive import Callback
from .core.oracle import Oracle
from .core.result import Solution
from .core.solvers import METHODS, Solver
from .progress import reporting

# A trial step may leave the function's domain: the solvers refuse it, and report it where it
# matters, so NumPy need not warn.
_QUIET: Any = {"over": "ignore", "invalid": "ignore", "divide": "ignore"}


def minimize(
    fun: Callable[..., Any] | Oracle,
    x0: Any,
    *,
    method: str | Solver = "auto",
    args: tuple[Any, ...] = (),
    tol: float | None = None,
    maxiter: int = 10_000,
    callback: Callback | None = None,
    progress: bool = False,
    jit: bool = True,
) -> Solution:
    """Minimise a function of any array, or of any tree of arrays.

    Parameters
    ----------
    fun : callable or Oracle
        ``fun(x, *args)`` returns a scalar, computed with the array functions of ``x``; or an
        oracle from :func:`osculant.oracle`, as for Gauss-Newton methods.
    x0 : tree of arrays
        Where to start: an array of NumPy, CuPy, PyTorch, JAX or another array-API namespace, or
        dicts, lists and tuples of them. A plain number or list of numbers becomes a float64
        NumPy array. Not modified.
    method : str or Solver
        A name (``"auto"``, ``"lbfgs"``, ``"trust-region"``, ``"newton-krylov"``, ``"sgd"``,
        ``"adam"``), or a solver with options of its own, such as ``TrustRegion(radius=50.0)``.
        ``"auto"`` is L-BFGS, and where that stalls, a trust-region Newton method.
    args : tuple
        Further arguments of ``fun``: the data.
    tol : float, optional
        Stop once no gradient entry exceeds this in absolute value. By default the solver's
        ``gtol`` if that is positive, else eps^(3/8): 1.4e-6 in float64, 2.5e-3 in float32.
    maxiter : int
        Most iterations.
    callback : callable, optional
        Called as ``callback(intermediate_result)`` after each iteration, with ``x``, ``fun``,
        ``grad_norm``, ``nit`` and ``cost``; raising StopIteration ends the run.
    progress : bool
        Whether to show a progress line (needs ``osculant[demo]``).
    jit : bool
        Whether to compile the step where the backend can (JAX).

    Returns
    -------
    Solution
        With SciPy's names: ``x`` (in your own structure), ``fun``, ``jac``, ``success``,
        ``status``, ``message``, ``nit``, ``nfev``, ``njev``, ``nhev``, and ``history``.

    Raises
    ------
    ValueError, TypeError
        If ``x0`` is not real floating point or not finite, if ``fun`` does not return a scalar
        of its dtype, or if an option is out of range.
    ProductUnavailable
        If the solver needs a product that the oracle does not offer.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> solution = osculant.minimize(lambda x, a: ((x - a) ** 2).sum(), np.zeros(3), args=(2.0,))
    >>> solution.x
    array([2., 2., 2.])
    """
    oracle, start = _start(fun, x0)
    with np.errstate(**_QUIET), reporting(callback, progress, steps=maxiter) as report:
        return drive.minimize(
            oracle,
            start,
            solver=_solver(method),
            data=tuple(args),
            tol=tol,
            maxiter=maxiter,
            callback=report,
            jit=jit,
        )


def fit(
    oracle: Oracle,
    params: Any,
    batches: Iterable[tuple[Any, ...]],
    *,
    solver: str | Solver = "newton-krylov",
    epochs: int | None = None,
    budget: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    jit: bool = True,
) -> Solution:
    """Train on mini-batches; see :func:`osculant.core.drive.fit` for the parameters.

    ``solver`` may also be a name, as in :func:`minimize`; ``progress`` shows a progress line.
    """
    with np.errstate(**_QUIET), reporting(callback, progress, budget=budget) as report:
        return drive.fit(
            oracle,
            params,
            batches,
            solver=_solver(solver),
            epochs=epochs,
            budget=budget,
            callback=report,
            jit=jit,
        )


def _start(fun: Callable[..., Any] | Oracle, x0: Any) -> tuple[Oracle, Any]:
    """Return the oracle, and ``x0`` as its flat vector."""
    if isinstance(fun, Oracle):
        return fun, fun.ravel(x0)
    x0 = backends.as_parameters(x0)
    oracle = backends.oracle(fun, x0)
    return oracle, oracle.ravel(x0)


def _solver(method: str | Solver) -> Solver:
    if isinstance(method, Solver):
        return method
    if isinstance(method, type) and issubclass(method, Solver):
        raise TypeError(f"pass an instance, {method.__name__}(), not the class")
    if method not in METHODS:
        raise ValueError(f"no method is called {method!r}; there are: {', '.join(METHODS)}")
    return METHODS[method]()
