"""Minimising one fixed function in a single loop that can be traced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from ..arrays import Array, integer_like, namespace
from ..oracle import Oracle
from ..result import Counts, Status
from ..solvers.base import Solver
from .run import check_solver, default_tolerance


class Solved(NamedTuple):
    """What :func:`osculant.solve` returns: arrays, so that it passes through ``jit`` and ``vmap``.

    On JAX ``x`` and ``fun`` can be differentiated by the data, the others cannot.
    """

    x: Any
    """Parameters found, in the user's own structure."""
    fun: Array
    """Function there, 0-d."""
    status: Array
    """A :class:`Status` as a 0-d integer."""
    nit: Array
    """Iterations, a 0-d integer."""
    counts: Counts
    """Evaluations of the solver."""

    @property
    def success(self) -> Array:
        """Whether the run has converged, a 0-d boolean."""
        return self.status == Status.CONVERGED


class _Turn(NamedTuple):
    state: Any
    nit: Array


def solve(
    oracle: Oracle,
    x0: Array,
    *,
    solver: Solver,
    data: tuple[Any, ...] = (),
    atol: float | None = None,
    maxiter: int = 1000,
) -> Solved:
    """Minimise one fixed function; :func:`osculant.solve` is the public face of this.

    Parameters
    ----------
    oracle : Oracle
    x0 : array of shape (n,)
    solver : Solver
    data : tuple
    atol, maxiter
        As for :func:`osculant.solve`.

    Returns
    -------
    Solved
    """
    check_solver(oracle, solver)
    gtol = default_tolerance(solver, x0) if atol is None else atol
    solver = replace(solver.deterministic(), gtol=gtol)

    def going(turn: _Turn) -> Array:
        return (turn.state.status == Status.RUNNING) & (turn.nit < maxiter)

    def loop(x: Array, *data: Any) -> tuple[Array, tuple[Array, Array, Counts]]:
        xp = namespace(x)

        def step(turn: _Turn) -> _Turn:
            new = solver.step(oracle, turn.state, *data)
            # A step that finds its start converged goes nowhere, and is none.
            return _Turn(new, xp.where(new.status == Status.CONVERGED, turn.nit, turn.nit + 1))

        start = _Turn(solver.init(oracle, x), integer_like(x, 0))
        state, nit = oracle.flow.while_loop(going, step, start)
        unfinished = state.status == Status.RUNNING
        status = xp.where(unfinished, integer_like(x, Status.MAXITER), state.status)
        return state.x, (status, nit, state.counts)

    def gradient(x: Array, *data: Any) -> Array:
        return oracle.at(x, *data).grad

    x, (status, nit, counts) = oracle.flow.root(gradient, loop, x0, data)
    return Solved(oracle.unravel(x), oracle.value(x, *data), status, nit, counts)
