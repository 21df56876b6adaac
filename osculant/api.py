"""The functions that most users call: an oracle, a solver and a host loop put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from os import PathLike
from typing import Any, Never, cast

import numpy as np

from . import backends
from .checkpoint import Checkpoint
from .core import drive
from .core.drive import Callback, Evaluation, Solved
from .core.oracle import Oracle
from .core.result import Solution
from .core.sampler import Batched
from .core.solvers import Solver, as_solver
from .progress import reporting

# A trial step may leave the function's domain: the solvers refuse it, and report it where it
# matters, so NumPy need not warn.
_QUIET: Any = {"over": "ignore", "invalid": "ignore", "divide": "ignore"}

#: What is passed to SciPy's functions by habit, and what there is instead.
_INSTEAD = {
    **dict.fromkeys(
        ("jac", "hess", "hessp"),
        "derivatives are made automatically; your own go into the oracle, as in "
        "minimize(osculant.oracle(fun, x0, grad=..., hvp=...), x0)",
    ),
    **dict.fromkeys(
        ("bounds", "constraints"),
        "the solvers are for problems without constraints: substitute the variables, as by "
        "x = exp(z) for x > 0, or take scipy.optimize with this library's derivatives",
    ),
    "options": "give options of the run by name, as maxiter=100, and those of a solver to the "
    "solver, as method=osculant.LBFGS(memory=20)",
    "max_nfev": "the limits are maxiter and max_seconds",
}


def minimize(
    fun: Callable[..., Any] | Oracle,
    x0: Any,
    *,
    method: str | Solver = "auto",
    args: Any = (),
    tol: float | None = None,
    atol: float | None = None,
    rtol: float | None = 0.0,
    ftol: float | None = 0.0,
    xtol: float | None = 0.0,
    maxiter: int = 10_000,
    max_seconds: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    return_all: bool = False,
    jit: bool = True,
    **others: Never,
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
        A name in :data:`osculant.core.solvers.METHODS`, or a solver with options of its own, such
        as ``TrustRegion(radius=50.0)``. ``"auto"`` is L-BFGS, and where that ends or stalls, a
        trust-region Newton method. Others for any function: ``"lbfgs"``, ``"bfgs"``,
        ``"nonlinear-cg"``, ``"steepest-descent"``, ``"newton"``, ``"newton-cg"``,
        ``"trust-region"``, ``"cubic-regularization"``; for an oracle of residuals and their loss:
        ``"lm"``, ``"gauss-newton"``. The rest are for mini-batches (:func:`fit`).
    args : tuple
        Further arguments of ``fun``: the data. Anything else than a tuple is the only one.
    tol : float, optional
        SciPy's name of ``atol``; give one of them.
    atol, rtol : float
        Stop once no gradient entry exceeds atol + rtol max|g(x0)| (Kelley 1999, Iterative Methods
        for Optimization, section 2.3; a positive ``rtol`` costs one gradient). By default
        ``atol`` is the solver's ``gtol`` if that is positive, else 0 if ``rtol`` is given, else
        eps^(2/5): 5.5e-7 in float64, 1.7e-3 in float32.
    ftol : float
        Stop once |f_old - f| <= ftol max(|f_old|, |f|, 1) over a step that was taken (L-BFGS-B:
        Zhu et al. 1997). 0 and None never stop.
    xtol : float
        Stop once a step that was taken has |s| <= xtol (xtol + |x|), in the Euclidean norm (as
        ``scipy.optimize.least_squares``). 0 and None never stop.
    maxiter : int
        Most iterations.
    max_seconds : float, optional
        Stop after the iteration in which this time has passed.
    callback : callable, optional
        Called as ``callback(intermediate_result)`` after each iteration, with ``x``, ``fun``,
        ``grad_norm``, ``nit`` and ``cost``; raising StopIteration ends the run.
    progress : bool
        Whether to show a progress line (needs ``osculant[demo]``).
    return_all : bool
        Whether to keep all iterates, in ``solution.allvecs``; ``solution.history`` has scalars.
    jit : bool
        Whether to compile the step where the backend can (JAX).

    Returns
    -------
    Solution
        With SciPy's names: ``x`` (in your own structure), ``fun``, ``jac``, ``success``,
        ``status``, ``message``, ``nit``, ``nfev``, ``njev``, ``nhev``, and ``history``. Where
        ``x0`` or ``args`` are traced by JAX it is what :func:`solve` returns.

    Raises
    ------
    ValueError, TypeError
        If ``x0`` is not finite or not of float32 or float64, if ``fun`` does not return a scalar
        of its dtype, if an option is out of range, or is one of SciPy's that there is not.
    ProductUnavailable
        If the solver needs a product that the oracle does not offer.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> solution = osculant.minimize(lambda x, a: ((x - a) ** 2).sum(), np.zeros(3), args=(2.0,))
    >>> solution.x
    array([2., 2., 2.])
    """
    _refuse(others)
    if backends.in_trace((x0, args)):
        of_the_host = {
            "rtol": rtol,
            "ftol": ftol,
            "xtol": xtol,
            "max_seconds": max_seconds,
            "callback": callback,
            "progress": progress,
            "return_all": return_all,
        }
        if given := [name for name, value in of_the_host.items() if value]:
            raise TypeError(
                "inside jax.jit, jax.vmap and jax.grad minimize is osculant.solve, one traced loop "
                f"without {', '.join(given)}"
            )
        atol = tol if atol is None else atol
        traced = solve(fun, x0, method=method, args=args, atol=atol, maxiter=maxiter)
        return cast(Solution, traced)  # as JAX has its tracers typed as arrays
    oracle, start = _start(fun, x0)
    limits = {"nit": maxiter, "seconds": max_seconds}
    with np.errstate(**_QUIET), reporting(callback, progress, limits) as report:
        return drive.minimize(
            oracle,
            start,
            solver=as_solver(method),
            data=as_data(args),
            tol=tol,
            atol=atol,
            rtol=rtol,
            ftol=ftol,
            xtol=xtol,
            maxiter=maxiter,
            max_seconds=max_seconds,
            callback=report,
            return_all=return_all,
            jit=jit,
        )


def solve(
    fun: Callable[..., Any] | Oracle,
    x0: Any,
    *,
    method: str | Solver = "auto",
    args: Any = (),
    atol: float | None = None,
    maxiter: int = 1000,
) -> Solved:
    """Minimise as :func:`minimize` does, inside ``jax.jit``, ``jax.vmap`` and ``jax.grad``.

    Parameters
    ----------
    fun, x0, method, args
        As for :func:`minimize`. What the solution is to be differentiated by must be in ``args``.
    atol : float, optional
        Stop once no gradient entry exceeds it. By default the solver's ``gtol`` if that is
        positive, else eps^(2/5).
    maxiter : int
        Most iterations.

    Returns
    -------
    Solved
        Arrays: ``x`` (in your own structure), ``fun``, ``status``, ``nit``, ``counts``.

    Raises
    ------
    TypeError, ProductUnavailable
        As :func:`minimize`. A start that is not finite is no error here: ``status`` says it.

    Notes
    -----
    It is one loop, ``oracle.flow.while_loop``: traced on JAX, and Python's on other arrays. On JAX,
    derivatives of ``x`` by ``args`` are those of the implicit function grad f(x, args) = 0,

        dx = -H^-1 (d grad f / d args) dargs,

    by conjugate gradients on Hessian products, in both modes and of any order. They hold where the
    run has converged to a point with a positive definite Hessian; by ``x0`` they are zero.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, osculant
    >>> def fun(x, a):
    ...     return jnp.sum((x - a) ** 2) + jnp.sum(x) ** 2
    >>> def largest(a):
    ...     return jnp.max(osculant.solve(fun, jnp.zeros(2), args=(a,)).x)
    >>> print(jax.grad(largest)(jnp.array([0.0, 3.0])).round(2))
    [-0.33  0.67]
    """
    oracle, start = _start(fun, x0)
    with np.errstate(**_QUIET):
        return drive.solve(
            oracle,
            start,
            solver=as_solver(method),
            data=as_data(args),
            atol=atol,
            maxiter=maxiter,
        )


def fit(
    oracle: Oracle,
    params: Any,
    batches: Batched,
    *,
    solver: str | Solver = "newton-krylov",
    curvature: Batched | None = None,
    ratio: Batched | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    budget: float | None = None,
    seed: int = 0,
    evaluation: Evaluation | Callable[[Any], Any] | None = None,
    checkpoint: Checkpoint | str | PathLike[str] | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    jit: bool = True,
) -> Solution:
    """Train on mini-batches.

    Parameters
    ----------
    oracle : Oracle
        From :func:`osculant.oracle`.
    params : tree of arrays
        Where to start; not modified.
    batches : iterable or callable
        Gives tuples or lists, each the data arguments of one step in arrays of the oracle's
        framework: :class:`osculant.Batches` of your arrays, a list, a ``DataLoader``; a
        function that returns such an iterable, given the epoch's number if it takes an argument;
        a generator, which lasts for one epoch.
    solver : str or Solver
        As ``method`` of :func:`osculant.minimize`.
    curvature, ratio : iterable or callable, optional
        Batches for the curvature, and for the values by which a step is judged, where they are to
        be others than the gradient's: one a step, over and over. ``ratio=[(X, y)]`` judges each
        step on all of the data.
    epochs : int, optional
        Passes over ``batches``; 1 if no other limit is given.
    steps : int, optional
    seconds : float, optional
    budget : float, optional
        In gradient-equivalents (a forward pass 1/3, a gradient 1, a Hessian product 2, a
        Gauss-Newton product 4/3). The run ends at the first limit that it reaches.
    seed : int
        Of what the model draws at random in each step (a torch module's Dropout). The batches
        have a seed of their own.
    evaluation : Evaluation or callable, optional
        What to measure on the way; a plain function of the parameters is evaluated after each
        epoch.
    checkpoint : Checkpoint or path, optional
        A file that keeps the run, and from which it goes on if the file is there (needs
        ``osculant[checkpoint]``). A run that was killed ends, when started again, as it would
        have, to the last bit, if its batches are :class:`osculant.Batches` or a function of the
        epoch, or are always the same.
    callback : callable, optional
        Called with an ``intermediate_result`` after each step, as by :func:`osculant.minimize`.
    progress : bool
        Whether to show a progress line (needs ``osculant[demo]``).
    jit : bool
        Whether to compile the step where the backend can (JAX).

    Returns
    -------
    Solution
        ``fun`` and ``jac`` belong to the last batch on which they were finite, where its step
        started.

    Raises
    ------
    ValueError
        If a limit is not positive, ``batches`` give nothing, or the solver takes no such samples.
    TypeError
        If a batch is not a tuple or a list, or ``oracle`` is not one. Errors of the function itself
        come with a note of what the batch was.
    CheckpointMismatch
        If the checkpoint is of another solver, shape, dtype, seed or batches.

    Notes
    -----
    Where the loss or its gradient is not finite, the step that led there is halved, towards the
    last place where they were finite; if the batch is not finite there either, it is passed over.
    After :data:`~osculant.core.drive.NOT_FINITE_PATIENCE` times in a row the run ends, and ``x``
    is that place. The message says if there were such steps; their rows in the history are not
    finite.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> X = np.random.default_rng(0).normal(size=(60, 3))
    >>> y = X @ np.array([1.0, -2.0, 0.5])
    >>> w = np.zeros(3)
    >>> oracle = osculant.oracle(lambda w, X, y: ((X @ w - y) ** 2).mean(), w)
    >>> batches = osculant.Batches((X, y), 20, seed=0)
    >>> solution = osculant.fit(oracle, w, batches, solver="trust-region", epochs=5)
    >>> solution.nit, solution.x.round(6)
    (15, array([ 1. , -2. ,  0.5]))
    """
    if not isinstance(oracle, Oracle):
        raise TypeError(
            f"the oracle is a {type(oracle).__name__}; make one of your function, which is called "
            "as fun(params, *batch), by osculant.oracle(fun, params), or of a model and a loss, by "
            "osculant.oracle(model=..., loss=..., params=...)"
        )
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint(checkpoint)
    if steps is None and epochs is not None and isinstance(batches, Sized):
        expected: float | None = epochs * len(batches)
    else:
        expected = steps
    limits = {"cost": budget, "seconds": seconds, "nit": expected}
    with np.errstate(**_QUIET), reporting(callback, progress, limits) as report:
        return drive.fit(
            oracle,
            params,
            batches,
            solver=as_solver(solver),
            curvature=curvature,
            ratio=ratio,
            epochs=epochs,
            steps=steps,
            seconds=seconds,
            budget=budget,
            seed=seed,
            evaluation=evaluation,
            checkpoint=checkpoint,
            callback=report,
            jit=jit,
        )


def _refuse(others: Mapping[str, object]) -> None:
    for name in others:
        instead = f": {_INSTEAD[name]}" if name in _INSTEAD else ""
        raise TypeError(f"there is no argument {name!r}{instead}")


def as_data(args: Any) -> tuple[Any, ...]:
    """Return the data arguments of a function, of which a single one may stand by itself."""
    return args if isinstance(args, tuple) else (args,)


def _start(fun: Callable[..., Any] | Oracle, x0: Any) -> tuple[Oracle, Any]:
    """Return the oracle, and ``x0`` as its flat vector."""
    if isinstance(fun, Oracle):
        return fun, fun.ravel(x0)
    x0 = backends.as_parameters(x0)
    oracle = backends.oracle(fun, x0)
    return oracle, oracle.ravel(x0)
