"""The only host loops: :func:`minimize` on one function, :func:`fit` over batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from .arrays import Array, eps, max_abs, namespace, norm
from .errors import ProductUnavailable
from .oracle import Oracle
from .result import Counts, Solution, Status
from .solvers.base import Solver

#: ``fit`` gives up after this many batches in a row on which nothing is finite.
NOT_FINITE_PATIENCE = 10


class Intermediate:
    """What a callback is given after each step, as ``intermediate_result``.

    Attributes
    ----------
    nit : int
        Steps so far.
    fun : float
        Function where the step started.
    grad_norm : float
        Euclidean norm of the gradient there.
    cost : float
        Gradient-equivalents so far.
    state : NamedTuple of arrays
        The solver's state.
    """

    def __init__(self, oracle: Oracle, state: Any, row: dict[str, float], nit: int) -> None:
        self._oracle = oracle
        self.state = state
        self.nit = nit
        self.fun = row["fun"]
        self.grad_norm = row["grad_norm"]
        self.cost = row["cost"]

    @property
    def x(self) -> Any:
        """The parameters after the step, in the user's own structure; a copy."""
        return self._oracle.unravel(self.state.x)


Callback = Callable[[Intermediate], Any]


class _Report(NamedTuple):
    status: Array
    counts: Counts
    columns: dict[str, Array]


def _advance(solver: Solver, oracle: Oracle, state: Any, *data: Any) -> tuple[Any, _Report]:
    """Step, and reduce what the host wants to know to scalars, in one compiled call."""
    state = solver.step(oracle, state, *data)
    columns = {"fun": state.value, "grad_norm": norm(state.grad), **solver.report(state)}
    return state, _Report(state.status, state.counts, columns)


class _Run:
    """One run: its state, its history, and the step that advances both."""

    def __init__(
        self,
        oracle: Oracle,
        x: Array,
        solver: Solver,
        callback: Callback | None,
        jit: bool,
        deterministic: bool,
    ) -> None:
        check_start(oracle, x, solver)
        self.oracle, self.solver, self.callback = oracle, solver, callback
        self.advance = oracle.flow.jit(_advance, static=(0, 1)) if jit else _advance
        self.state = solver.init(oracle, x)
        self.deterministic = deterministic
        self.history: dict[str, list[float]] = {}
        self.nit = 0

    def step(self, *data: Any) -> Status:
        """Advance by one step on ``data``; a start that is already converged counts as none."""
        self.state, report = self.advance(self.solver, self.oracle, self.state, *data)
        status = Status(int(report.status))
        if status is Status.CONVERGED:
            if self.solver.gtol > 0 or self.deterministic:
                return status
            status = Status.RUNNING  # one batch without gradient says nothing about the next
        self.nit += 1
        row = {name: float(value) for name, value in report.columns.items()}
        row["cost"] = report.counts.gradient_equivalents()
        for name, value in row.items():
            self.history.setdefault(name, []).append(value)
        if self.callback is not None:
            try:
                self.callback(Intermediate(self.oracle, self.state, row, self.nit))
            except StopIteration:
                return Status.CALLBACK
        return status

    def solution(self, status: Status, value: Any, grad: Array) -> Solution:
        """Return the result, with ``value`` and ``grad`` as its ``fun`` and ``jac``."""
        counts = self.state.counts
        return Solution(
            x=self.oracle.unravel(self.state.x),
            fun=float(value),
            jac=self.oracle.unravel(grad),
            success=status.success,
            status=status,
            message=status.message,
            nit=self.nit,
            nfev=int(counts.values),
            njev=int(counts.gradients),
            nhev=int(counts.hvps),
            nggn=int(counts.ggns),
            history=self.history,
            state=self.state,
        )


def minimize(
    oracle: Oracle,
    x0: Array,
    *,
    solver: Solver,
    data: tuple[Any, ...] = (),
    tol: float | None = None,
    maxiter: int = 10_000,
    callback: Callback | None = None,
    jit: bool = True,
) -> Solution:
    """Minimise one fixed function; :func:`osculant.minimize` is the public face of this.

    Parameters
    ----------
    oracle : Oracle
    x0 : array of shape (n,)
        Where to start; not modified.
    solver : Solver
    data : tuple
        Data arguments of the function.
    tol : float, optional
        Largest absolute gradient entry at which to stop. By default the solver's own ``gtol``
        if that is positive, else eps^(3/8): 1.4e-6 in float64, 2.5e-3 in float32.
    maxiter : int
        Most steps.
    callback : callable, optional
        Called with an :class:`Intermediate` after each step; StopIteration ends the run.
    jit : bool
        Whether to compile the step where the backend can.

    Returns
    -------
    Solution
    """
    solver = solver.deterministic()
    gtol = tol if tol is not None else solver.gtol or eps(x0) ** 0.375
    if not gtol >= 0:
        raise ValueError(f"tol is {tol}; it must be zero or positive")
    if maxiter < 0:
        raise ValueError(f"maxiter is {maxiter}; it must be zero or positive")
    run = _Run(oracle, x0, replace(solver, gtol=float(gtol)), callback, jit, deterministic=True)
    status = Status.RUNNING
    while status is Status.RUNNING and run.nit < maxiter:
        status = run.step(*data)
    if status is Status.CONVERGED:
        return run.solution(status, run.state.value, run.state.grad)
    pt = oracle.at(run.state.x, *data)
    run.state = run.state._replace(counts=run.state.counts.add(gradients=1))
    if status is Status.RUNNING:
        status = Status.CONVERGED if bool(max_abs(pt.grad) <= gtol) else Status.MAXITER
    return run.solution(status, pt.value, pt.grad)


def fit(
    oracle: Oracle,
    params: Any,
    batches: Iterable[tuple[Any, ...]],
    *,
    solver: Solver,
    epochs: int | None = None,
    budget: float | None = None,
    callback: Callback | None = None,
    jit: bool = True,
) -> Solution:
    """Train on mini-batches.

    Parameters
    ----------
    oracle : Oracle
        From :func:`osculant.oracle`.
    params : tree of arrays
        Where to start; not modified.
    batches : iterable of tuples
        Each tuple holds the data arguments of one step, arrays of the oracle's framework. It is
        iterated over anew for every epoch, so for more than one it must not be an iterator.
    solver : Solver
    epochs : int, optional
        Passes over ``batches``; by default 1, or as many as the ``budget`` allows.
    budget : float, optional
        Stop once this many gradient-equivalents are spent (a forward pass 1/3, a gradient 1,
        a Hessian product 2, a Gauss-Newton product 4/3).
    callback : callable, optional
        Called with an :class:`Intermediate` after each step; StopIteration ends the run.
    jit : bool
        Whether to compile the step where the backend can.

    Returns
    -------
    Solution
        ``fun`` and ``jac`` belong to the last batch, where the last step started.

    Raises
    ------
    ValueError
        If ``batches`` is empty, or is an iterator that more than one epoch would need again.
    """
    for name, limit in (("epochs", epochs), ("budget", budget)):
        if limit is not None and not limit > 0:
            raise ValueError(f"{name} is {limit}; it must be positive")
    run = _Run(oracle, oracle.ravel(params), solver, callback, jit, deterministic=False)
    last_epoch = math.inf if budget is not None and epochs is None else (epochs or 1)
    epoch, status = 0, Status.RUNNING
    while status is Status.RUNNING and epoch < last_epoch:
        status = _epoch(run, batches, math.inf if budget is None else budget)
        epoch += 1
    if status is Status.RUNNING:
        status = Status.FINISHED
    return run.solution(status, run.state.value, run.state.grad)


def _epoch(run: _Run, batches: Iterable[tuple[Any, ...]], budget: float) -> Status:
    """Run one pass over ``batches``; RUNNING if nothing ended it."""
    run.state = run.solver.refresh(run.oracle, run.state, batches)
    failures, steps = 0, 0
    for data in batches:
        if not isinstance(data, tuple | list):
            raise TypeError(
                f"a batch is a {type(data).__name__}; it must be a tuple of the function's data "
                "arguments: (inputs, targets), or (inputs,) for one"
            )
        steps += 1
        status = run.step(*data)
        if status in (Status.CALLBACK, Status.CONVERGED, Status.UNBOUNDED):
            return status
        failures = failures + 1 if status is Status.NOT_FINITE else 0
        if failures >= NOT_FINITE_PATIENCE:
            return status
        if run.history["cost"][-1] >= budget:
            return Status.BUDGET
    if steps == 0:
        raise ValueError(
            "batches gave nothing in this epoch; pass something that can be iterated over anew "
            "(a list, a loader), not a generator or an iterator that is used up"
        )
    return Status.RUNNING


def check_start(oracle: Oracle, x: Array, solver: Solver) -> None:
    """Raise unless ``solver`` can start at ``x`` with what ``oracle`` offers."""
    if not isinstance(solver, Solver):
        raise TypeError(
            f"solver is {solver!r}; pass an instance such as osculant.TrustRegion(), not a "
            f"{type(solver).__name__}"
        )
    oracle.structure.check(x, name="the start")
    xp = namespace(x)
    if not bool(xp.all(xp.isfinite(x))):
        raise ValueError("the start has entries that are not finite")
    for product in sorted(solver.needs() - oracle.products):
        raise ProductUnavailable(
            f"{type(solver).__name__} needs {product}, which {type(oracle).__name__} does not "
            f"offer; it has: {', '.join(sorted(oracle.products))}"
        )
