"""Minimising one fixed function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

from ..arrays import Array, eps, max_abs
from ..history import History
from ..oracle import Oracle
from ..result import Solution, Status
from ..solvers.base import Solver
from .run import Callback, Run, check_limits, default_tolerance

#: A run has stalled after so many iterations without any progress, ...
PATIENCE = 200
#: ... over which its values were the same, to so many times the machine epsilon.
SAME = 100.0


class _Tolerances(NamedTuple):
    atol: float
    rtol: float
    ftol: float
    xtol: float


def minimize(
    oracle: Oracle,
    x0: Array,
    *,
    solver: Solver,
    data: tuple[Any, ...] = (),
    tol: float | None = None,
    atol: float | None = None,
    rtol: float | None = 0.0,
    ftol: float | None = 0.0,
    xtol: float | None = 0.0,
    maxiter: int = 10_000,
    max_seconds: float | None = None,
    callback: Callback | None = None,
    return_all: bool = False,
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
    tol, atol, rtol, ftol, xtol, maxiter, max_seconds, callback, return_all, jit
        As for :func:`osculant.minimize`.

    Returns
    -------
    Solution
    """
    solver = solver.deterministic()
    tolerances = _tolerances(x0, solver, tol, atol, rtol, ftol, xtol)
    if not isinstance(maxiter, Real):
        raise TypeError(f"maxiter is {maxiter!r}; it must be a number")
    if maxiter < 0:
        raise ValueError(f"maxiter is {maxiter}; it must be zero or positive")
    check_limits(max_seconds=max_seconds)
    measure = tolerances.ftol > 0 or tolerances.xtol > 0
    run = Run(oracle, x0, solver, gtol=0.0, callback=callback, jit=jit, measure=measure)
    gtol = _gradient_tolerance(run, tolerances, data)
    run.stop_within(gtol)
    iterates = [run.state.x]
    status, moved, progress = Status.RUNNING, False, _Progress(SAME * eps(x0))
    while status is Status.RUNNING and run.nit < maxiter:
        status = run.advance(*data)
        if status is Status.CONVERGED:
            break
        if return_all:
            iterates.append(run.state.x)
        if not run.call_back():
            status = Status.CALLBACK
        elif status is Status.RUNNING and measure:
            status, moved = _small(run, tolerances, moved)
        if status is Status.RUNNING and run.lasted(max_seconds):
            status = Status.TIME
        if status is Status.RUNNING and progress.ended(run.history):
            status = Status.STALLED
    solution = _conclude(run, status, gtol, data)
    if return_all:
        solution.allvecs = [oracle.unravel(x) for x in iterates]
    return solution


@dataclass
class _Progress:
    """The value and the gradient at the last progress, and how long ago it was.

    Steps of a line search may go on for ever where rounding is all that tells their ends apart.
    """

    rtol: float
    value: float = math.inf
    grad_norm: float = math.inf
    idle: int = 0

    def ended(self, history: History) -> bool:
        """Whether there has been none for long; to be asked after each iteration."""
        value, grad_norm = history["fun"][-1], history["grad_norm"][-1]
        same = abs(value - self.value) <= self.rtol * abs(value)
        if same and not grad_norm < self.grad_norm:
            self.idle += 1
        else:
            self.value, self.grad_norm = value, min(grad_norm, self.grad_norm)
            self.idle = 0
        return self.idle >= PATIENCE


def _tolerances(
    x: Array,
    solver: Solver,
    tol: float | None,
    atol: float | None,
    rtol: float | None,
    ftol: float | None,
    xtol: float | None,
) -> _Tolerances:
    if tol is not None and atol is not None:
        raise ValueError("tol is another name of atol: give one of them")
    given = {"tol": tol, "atol": atol, "rtol": rtol, "ftol": ftol, "xtol": xtol}
    for name, value in given.items():
        if value is not None and not value >= 0:
            raise ValueError(f"{name} is {value}; it must be zero or positive")
    absolute = atol if tol is None else tol
    if absolute is None:
        absolute = solver.gtol if rtol else default_tolerance(solver, x)
    return _Tolerances(float(absolute), rtol or 0.0, ftol or 0.0, xtol or 0.0)


def _gradient_tolerance(run: Run, tolerances: _Tolerances, data: tuple[Any, ...]) -> float:
    """Return atol + rtol |g_0|, at the price of a gradient where rtol is not zero."""
    if tolerances.rtol == 0:
        return tolerances.atol
    pt = run.oracle.at(run.state.x, *data)
    run.spend("gradients")
    first = float(max_abs(pt.grad))
    return tolerances.atol + (tolerances.rtol * first if math.isfinite(first) else 0.0)


def _small(run: Run, tolerances: _Tolerances, moved_before: bool) -> tuple[Status, bool]:
    """Return whether the last step was too small to go on, and whether there was one.

    A rejected step says nothing. Values are compared after two steps in a row, because the value
    in the history is the one before the step or the one after it, depending on the solver.
    """
    assert run.move is not None
    step, size = (float(a) for a in run.move)
    moved = step > 0
    if moved and step <= tolerances.xtol * (tolerances.xtol + size):
        return Status.XTOL, moved
    if moved and moved_before and tolerances.ftol > 0:
        before, now = run.history["fun"][-2:]
        if abs(before - now) <= tolerances.ftol * max(abs(before), abs(now), 1.0):
            return Status.FTOL, moved
    return Status.RUNNING, moved


def _conclude(run: Run, status: Status, gtol: float, data: tuple[Any, ...]) -> Solution:
    """Return the result, evaluated where the run stands unless the last step has done it."""
    state = run.state
    if status is Status.CONVERGED:
        return run.solution(status, state.x, state.value, state.grad)
    pt = run.oracle.at(state.x, *data)
    run.spend("gradients")
    if status is Status.RUNNING:
        status = Status.MAXITER
    if status in (Status.MAXITER, Status.TIME, Status.FTOL, Status.XTOL) and bool(
        max_abs(pt.grad) <= gtol
    ):
        status = Status.CONVERGED
    return run.solution(status, state.x, pt.value, pt.grad)
