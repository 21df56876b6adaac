"""The solvers that are compared, each as a function of a counted problem.

A solver returns what it claims: its last point, and whether it says that it succeeded.
Tolerances are set far below what B and C ask for, so that a solver is judged by how it gets
there and not by when it stops.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from counting import Problem

import osculant
from osculant.core.oracle import GAUSS_NEWTON_PRODUCTS
from osculant.core.solvers import METHODS

TOLERANCE = 1e-8  # on the gradient, of whoever has such an option
MANY = 100_000  # iterations: the ledger ends a run before


class Claim(NamedTuple):
    """What a solver says."""

    x: np.ndarray
    success: bool
    message: str


Solver = Callable[[Problem], Claim]

# Ours --------------------------------------------------------------------------------------


def ours(method: str | osculant.Solver, problem: Problem, *, residuals: bool = False) -> Claim:
    """Run ``osculant.minimize``; with ``residuals`` on an oracle that has them."""
    oracle = problem.composite if residuals else problem.oracle
    solution = osculant.minimize(oracle, problem.x0, method=method, tol=TOLERANCE, maxiter=MANY)
    return Claim(solution.x, solution.success, str(solution.message))


# SciPy -------------------------------------------------------------------------------------

#: Options by method. Those that evaluate the value and the gradient together at every trial
#: point are given both in one function, so that they are not charged for a value as well.
_SCIPY: dict[str, dict[str, Any]] = {
    "trust-ncg": {"gtol": TOLERANCE},
    "trust-krylov": {"gtol": TOLERANCE},
    "trust-exact": {"gtol": TOLERANCE},
    "Newton-CG": {"xtol": 1e-12},
    "BFGS": {"gtol": TOLERANCE},
    "L-BFGS-B": {"gtol": TOLERANCE, "ftol": 0.0, "maxfun": MANY, "maxls": 50},
}
_TOGETHER = ("Newton-CG", "BFGS", "L-BFGS-B")


def scipy_minimize(method: str, problem: Problem) -> Claim:
    from scipy.optimize import minimize

    if method in _TOGETHER:
        first = {"fun": problem.fun_and_grad, "jac": True}
    else:
        first = {"fun": problem.fun, "jac": problem.grad}
    second: dict[str, Any] = {}
    if method in ("trust-ncg", "trust-krylov", "Newton-CG"):
        second = {"hessp": problem.hvp}
    elif method == "trust-exact":
        second = {"hess": problem.hessian}
    options = {**_SCIPY[method], "maxiter": MANY}
    result = minimize(x0=problem.x0, method=method, options=options, **first, **second)
    return Claim(result.x, bool(result.success), str(result.message))


def scipy_least_squares(method: str, problem: Problem) -> Claim:
    from scipy.optimize import least_squares

    result = least_squares(
        problem.residual,
        problem.x0,
        jac=problem.jacobian,
        method=method,
        xtol=1e-15,
        ftol=1e-15,
        gtol=TOLERANCE,
        max_nfev=MANY,
    )
    return Claim(result.x, bool(result.success), str(result.message))


# pytorch-minimize ---------------------------------------------------------------------------

_TORCH: dict[str, dict[str, Any]] = {
    "l-bfgs": {"gtol": TOLERANCE, "xtol": 0.0, "gtd_tol": 0.0},
    "bfgs": {"gtol": TOLERANCE, "xtol": 0.0, "gtd_tol": 0.0},
    "newton-cg": {"xtol": 1e-12},
    "trust-ncg": {"gtol": TOLERANCE},
}


def torch_minimize(method: str, problem: Problem) -> Claim:
    import torch
    import torchmin

    fun = _torch_function(problem)
    x0 = torch.from_numpy(np.array(problem.x0))
    options = dict(_TORCH[method])  # which the callee writes to
    result = torchmin.minimize(fun, x0, method=method, max_iter=MANY, options=options)
    return Claim(result.x.numpy(), bool(result.success), str(result.message))


def _torch_function(problem: Problem) -> Any:
    """Return the counted function as one that autograd differentiates twice."""
    import torch

    class Gradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return torch.from_numpy(problem.fun_and_grad(x.detach().numpy(), "backward")[1])

        @staticmethod
        def backward(ctx: Any, v: Any) -> Any:
            (x,) = ctx.saved_tensors
            return torch.from_numpy(problem.hvp(x.detach().numpy(), v.detach().numpy()))

    class Value(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return torch.tensor(problem.fun(x.detach().numpy()), dtype=x.dtype)

        @staticmethod
        def backward(ctx: Any, scale: Any) -> Any:
            (x,) = ctx.saved_tensors
            return scale * Gradient.apply(x)

    return Value.apply


# JAX: optimistix and jaxopt -------------------------------------------------------------------


def _jax_in_double() -> Any:
    """Return jax with 64 bits on for the process: callbacks run in threads of their own."""
    import jax

    jax.config.update("jax_enable_x64", True)
    logging.getLogger("jax").setLevel(logging.CRITICAL)  # it reports a limit that ends a run
    return jax


def optimistix_minimise(method: str, problem: Problem) -> Claim:
    jax = _jax_in_double()
    import optimistix

    solver = getattr(optimistix, method)(rtol=1e-12, atol=1e-12)
    least_squares = method in ("LevenbergMarquardt", "GaussNewton", "Dogleg")
    solve = optimistix.least_squares if least_squares else optimistix.minimise
    fun = _jax_residual(problem) if least_squares else _jax_function(problem)
    x0 = jax.numpy.asarray(problem.x0)
    solution = solve(lambda x, args: fun(x), solver, x0, max_steps=MANY, throw=False)
    success = bool(solution.result == optimistix.RESULTS.successful)
    return Claim(np.asarray(solution.value), success, "" if success else "not successful")


def jaxopt_minimise(method: str, problem: Problem) -> Claim:
    jax = _jax_in_double()
    import jaxopt

    least_squares = method == "LevenbergMarquardt"
    fun = _jax_residual(problem) if least_squares else _jax_function(problem)
    options: dict[str, Any] = {}
    if least_squares:  # the Jacobian is asked for whole, once a trial step
        options = {"xtol": 0.0, "gtol": TOLERANCE, "materialize_jac": True, "solver": "cholesky"}
    solver = getattr(jaxopt, method)(fun, tol=TOLERANCE, maxiter=MANY, **options)
    x, state = solver.run(jax.numpy.asarray(problem.x0))
    return Claim(np.asarray(x), bool(state.error <= TOLERANCE), f"error {float(state.error):.1e}")


def _jax_function(problem: Problem) -> Any:
    """Return the counted function as one that JAX differentiates once."""
    import jax
    import jax.numpy as jnp

    scalar = jax.ShapeDtypeStruct((), np.float64)
    vector = jax.ShapeDtypeStruct(problem.x0.shape, np.float64)

    @jax.custom_jvp
    def fun(x: Any) -> Any:
        return jax.pure_callback(lambda x: np.float64(problem.fun(np.asarray(x))), scalar, x)

    def both(x: Any) -> Any:
        f, g = problem.fun_and_grad(np.asarray(x))
        return np.float64(f), g

    @fun.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        value, grad = jax.pure_callback(both, (scalar, vector), primals[0])
        return value, jnp.vdot(grad, tangents[0])

    return fun


def _jax_residual(problem: Problem) -> Any:
    """Return the counted residuals as a function whose Jacobian JAX takes as a whole."""
    import jax

    n, m = problem.x0.size, problem.instance.residual(problem.x0).size
    vector = jax.ShapeDtypeStruct((m,), np.float64)
    matrix = jax.ShapeDtypeStruct((m, n), np.float64)

    @jax.custom_jvp
    def residual(x: Any) -> Any:
        return jax.pure_callback(lambda x: problem.residual(np.asarray(x)), vector, x)

    def both(x: Any) -> Any:
        return problem.residual(np.asarray(x)), problem.jacobian(np.asarray(x))

    @residual.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        r, J = jax.pure_callback(both, (vector, matrix), primals[0])
        return r, J @ tangents[0]

    return residual


# The list ------------------------------------------------------------------------------------


class Peer(NamedTuple):
    """A solver, and what it needs: an installed package, a function with residuals."""

    run: Solver
    package: str
    residuals: bool = False

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


#: Methods for noisy gradients, which have no line search: they are not run here.
STOCHASTIC = (
    *("sgd", "adam", "adagrad", "rmsprop", "second-order-adam", "adaptive-descent"),
    *("newton-krylov", "newton-summary", "curveball", "kfac", "shampoo"),
)


#: Methods with other options than the defaults.
VARIANTS = {
    "newton-cg, cr": osculant.NewtonCG(inner="cr"),
    "newton-cg, plain": osculant.NewtonCG(memory=0),
    "nonlinear-cg, polak-ribiere": osculant.NonlinearCG(beta="polak-ribiere"),
    "lm, marquardt": osculant.LevenbergMarquardt(scaling="marquardt"),
    "lm, geodesic": osculant.LevenbergMarquardt(geodesic=True),
    "lm, products": osculant.LevenbergMarquardt(dense=False),
}


def _ours() -> dict[str, Peer]:
    """Return our methods by name; one that can do without residuals is not given them.

    ``auto`` chooses by what the oracle offers, so that it is run both ways.
    """
    table = {}
    for method in METHODS:
        if method in STOCHASTIC:
            continue
        residuals = bool(METHODS[method]().needs() & GAUSS_NEWTON_PRODUCTS)
        run = partial(ours, method, residuals=residuals)
        table[f"osculant {method}"] = Peer(run, "osculant", residuals)
        if method == "auto":
            run = partial(ours, method, residuals=True)
            table["osculant auto, residuals"] = Peer(run, "osculant", True)
    for name, solver in VARIANTS.items():
        residuals = bool(solver.needs() & GAUSS_NEWTON_PRODUCTS)
        run = partial(ours, solver, residuals=residuals)
        table[f"osculant {name}"] = Peer(run, "osculant", residuals)
    return table


def peers() -> dict[str, Peer]:
    """Return all solvers by name."""
    return _ours() | {
        **{f"scipy {name}": Peer(partial(scipy_minimize, name), "scipy") for name in _SCIPY},
        "scipy least_squares-trf": Peer(partial(scipy_least_squares, "trf"), "scipy", True),
        **{
            f"pytorch-minimize {name}": Peer(partial(torch_minimize, name), "torchmin")
            for name in _TORCH
        },
        **{
            f"optimistix {name}": Peer(partial(optimistix_minimise, name), "optimistix", residuals)
            for name, residuals in (("LevenbergMarquardt", True), ("BFGS", False))
        },
        **{
            f"jaxopt {name}": Peer(partial(jaxopt_minimise, name), "jaxopt", residuals)
            for name, residuals in (("LBFGS", False), ("LevenbergMarquardt", True))
        },
    }
