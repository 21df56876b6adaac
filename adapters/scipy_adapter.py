"""The solvers as methods of ``scipy.optimize``, and curvature as SciPy linear operators."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy

from .. import api, backends
from ..core.drive import Callback, Intermediate
from ..core.operators import Operator
from ..core.oracle import Oracle
from ..core.solvers import Solver, as_solver


def method(solver: Solver | str = "auto") -> Callable[..., Any]:
    """Return ``solver`` as a ``method`` of :func:`scipy.optimize.minimize`.

    Parameters
    ----------
    solver : Solver or str
        Or its name in :func:`osculant.minimize`.

    Returns
    -------
    callable
        Takes what SciPy hands to a method: ``fun``, ``jac`` (a function, or True), ``hess``,
        ``hessp``, ``args``, ``callback``, ``tol``, and as ``options`` those of
        :func:`osculant.minimize`. What of derivatives is not given is made by finite differences.
        Returns a :class:`scipy.optimize.OptimizeResult`, whose counts leave out what is evaluated
        for differences.

    Raises
    ------
    ValueError
        From the callable: if there are bounds or constraints.

    Examples
    --------
    >>> from scipy.optimize import minimize, rosen, rosen_der
    >>> result = minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=method("trust-region"))
    >>> result.success, result.x.round(4)
    (True, array([1., 1.]))
    """
    solver = as_solver(solver)

    def minimize(
        fun: Callable[..., Any],
        x0: Any,
        args: tuple[Any, ...] = (),
        jac: Any = None,
        hess: Any = None,
        hessp: Any = None,
        bounds: Any = None,
        constraints: Any = (),
        callback: Callable[..., Any] | None = None,
        **options: Any,
    ) -> Any:
        from scipy.optimize import OptimizeResult

        if bounds is not None or constraints:
            raise ValueError("the solvers are for problems without bounds and constraints")
        solution = api.minimize(
            _oracle(fun, x0, jac, hess, hessp),
            x0,
            method=solver,
            args=args,
            callback=None if callback is None else _calling(callback),
            **options,
        )
        result = OptimizeResult({name: solution[name] for name in _REPORTED})
        result.nfev += result.njev  # a gradient comes with a value
        return result

    return minimize


#: What of a solution SciPy's users look for.
_REPORTED = ("x", "fun", "jac", "success", "status", "message", "nit", "nfev", "njev", "nhev")


def _oracle(fun: Callable[..., Any], x0: Any, jac: Any, hess: Any, hessp: Any) -> Oracle:
    functions: dict[str, Any] = {"value": fun}
    if callable(jac):
        functions["grad"] = jac
    if callable(hessp):
        functions["hvp"] = hessp
    elif callable(hess):
        functions["hvp"] = lambda x, v, *args: numpy.asarray(hess(x, *args) @ v)
    return backends.oracle(x0=x0, products="finite-difference", **functions)


def _calling(callback: Callable[..., Any]) -> Callback:
    """Return a callback for our loop that calls one of either of SciPy's signatures."""
    from scipy.optimize import OptimizeResult

    named = set(inspect.signature(callback).parameters) == {"intermediate_result"}

    def call(step: Intermediate) -> None:
        if named:
            callback(intermediate_result=OptimizeResult(x=step.x, fun=step.fun, nit=step.nit))
        else:
            callback(step.x)

    return call


def linear_operator(operator: Operator) -> Any:
    """Return ``operator`` as a symmetric :class:`scipy.sparse.linalg.LinearOperator`.

    Parameters
    ----------
    operator : Operator
        ``pt.H``, ``pt.G`` or a shifted, scaled one, over arrays in host memory.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        Takes and gives NumPy arrays of the operator's precision.

    Raises
    ------
    TypeError
        If the arrays live on an accelerator: nothing is moved between devices silently.
    ImportError
        If SciPy is not installed.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> from scipy.sparse.linalg import eigsh
    >>> oracle = osculant.oracle(lambda x: (np.arange(1.0, 5.0) * x**2).sum(), np.ones(4))
    >>> pt = oracle.at(np.ones(4))
    >>> round(float(eigsh(pt.H.to_scipy(), k=1)[0][0]), 6)
    8.0
    """
    try:
        from scipy.sparse.linalg import LinearOperator
    except ImportError as error:
        raise ImportError('to_scipy needs SciPy: pip install "osculant[scipy]"') from error

    structure = operator.structure
    if not _in_host_memory(structure.device):
        raise TypeError(
            f"the parameters live on {structure.device}, SciPy works in host memory, and nothing "
            "is moved silently: build the oracle from parameters on the CPU"
        )
    example = structure.xp.zeros(1, dtype=structure.dtype)
    dtype = _to_numpy(example).dtype

    def apply(V: Any) -> Any:
        vector = numpy.ascontiguousarray(V, dtype=dtype)
        if vector.ndim == 2 and vector.shape[1] == 1 and vector.shape[0] != 1:
            return apply(vector[:, 0])[:, None]
        return _to_numpy(operator @ structure.xp.asarray(vector, copy=True))

    return LinearOperator(
        operator.shape, matvec=apply, rmatvec=apply, matmat=apply, rmatmat=apply, dtype=dtype
    )


def _in_host_memory(device: Any) -> bool:
    platform = getattr(device, "platform", None) or getattr(device, "type", None)
    return (platform or str(device)).lower().startswith("cpu") or "CPU_DEVICE" in str(device)


def _to_numpy(array: Any) -> Any:
    if array_api_compat.is_torch_array(array):
        return array.detach().numpy()
    try:
        return numpy.asarray(array)
    except TypeError:  # a namespace without NumPy's protocol, such as array_api_strict
        return numpy.from_dlpack(array)
