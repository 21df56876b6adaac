"""What both host loops share: a compiled step, its record, and the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from numbers import Real
from typing import Any, NamedTuple

from ..arrays import Array, eps, like, namespace, norm
from ..errors import ProductUnavailable
from ..history import History
from ..oracle import Oracle
from ..result import COST, Solution, Status
from ..solvers.base import Solver


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
    record : dict of str to float
        These and what else the history has of this step.
    state : NamedTuple of arrays
        The solver's state.
    """

    def __init__(self, oracle: Oracle, state: Any, record: dict[str, float], nit: int) -> None:
        self._oracle = oracle
        self.state = state
        self.record = record
        self.nit = nit
        self.fun = record["fun"]
        self.grad_norm = record["grad_norm"]
        self.cost = record["cost"]

    @property
    def x(self) -> Any:
        """The parameters after the step, in the user's own structure; a copy."""
        return self._oracle.unravel(self.state.x)


Callback = Callable[[Intermediate], Any]


class Move(NamedTuple):
    """How far a step went."""

    step: Array
    """|x_new - x|."""
    size: Array
    """|x_new|."""


class _Report(NamedTuple):
    status: Array
    columns: dict[str, Array]
    move: Move | None


#: What of a state the loops hold on to after the next step; the rest is donated to it.
_KEPT = ("x", "value", "grad")


def _advance(
    solver: Solver,
    oracle: Oracle,
    measure: bool,
    gtol: Array,
    kept: dict[str, Array],
    rest: Any,
    *data: Any,
) -> tuple[Any, _Report]:
    """Step, and reduce what the host wants to know to scalars, in one compiled call.

    The tolerance is an argument, not a part of the solver, so that another one compiles nothing.
    """
    state = rest._replace(**kept)
    new = replace(solver, gtol=gtol).step(oracle, state, *data)
    columns = {"fun": new.value, "grad_norm": norm(new.grad), **solver.report(new)}
    move = Move(norm(new.x - state.x), norm(new.x)) if measure else None
    return new, _Report(new.status, columns, move)


class Run:
    """One run: its state, its history, and the step that advances both.

    Parameters
    ----------
    oracle : Oracle
    x : array of shape (n,)
    solver : Solver
        Its ``gtol`` is not read.
    gtol : float, optional
        Largest absolute gradient entry at which to stop; None never stops: one batch without
        gradient says nothing about the next.
    callback : callable or None
    jit : bool
    measure : bool
        Whether :attr:`move` is wanted.
    """

    def __init__(
        self,
        oracle: Oracle,
        x: Array,
        solver: Solver,
        *,
        gtol: float | None,
        callback: Callback | None = None,
        jit: bool = True,
        measure: bool = False,
    ) -> None:
        check_start(oracle, x, solver)
        self.oracle, self.solver, self.callback = oracle, replace(solver, gtol=0.0), callback
        self._donates = jit and callback is None  # a callback may keep the states it is shown
        donate = (5,) if self._donates else ()
        self.compiled = oracle.flow.jit(_advance, (0, 1, 2), donate) if jit else _advance
        self._measure = measure
        self.state = self.solver.init(oracle, x)
        self._made: Any = None  # the state that the last step returned, whose arrays are its own
        self.stop_within(gtol)
        self._began = time.monotonic()
        self.spent = dict.fromkeys(COST, 0)  # by the loop itself, beside the solver
        self.history = History()
        self.nit = 0
        self.move: Move | None = None

    def stop_within(self, gtol: float | None) -> None:
        """Set the largest absolute gradient entry at which to stop; None never stops."""
        self._never = gtol is None
        self._gtol = like(self.state.x, gtol or 0.0)

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._began

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._began = time.monotonic() - value

    def lasted(self, limit: float | None) -> bool:
        """Whether it has lasted ``limit`` seconds, by a clock on which its processes agree."""
        return limit is not None and self.oracle.agreed(self.seconds) >= limit

    @property
    def reserved(self) -> frozenset[str]:
        """Columns of the history that belong to the run and its solver."""
        return frozenset({"fun", "grad_norm", "cost", "seconds", *self.solver.report(self.state)})

    @property
    def cost(self) -> float:
        """Gradient-equivalents so far. Waits for the device."""
        own = sum(COST[name] * number for name, number in self.spent.items())
        return self.state.counts.gradient_equivalents() + own

    def spend(self, kind: str) -> None:
        """Count an evaluation, one of the fields of Counts, that the loop itself has made."""
        self.spent[kind] += 1

    def parted(self) -> tuple[dict[str, Array], Any]:
        """Return what is kept of the state, and the rest, which the next step may take.

        Of a state that was not made by the last step the rest is copied: it may share arrays.
        """
        kept = {name: getattr(self.state, name) for name in _KEPT}
        rest = self.state._replace(**dict.fromkeys(_KEPT))
        if self._donates and self.state is not self._made:
            rest = self.oracle.flow.own(rest)
        return kept, rest

    def advance(self, *data: Any) -> Status:
        """Step on ``data``, and enter it into the history unless its start had converged."""
        kept, rest = self.parted()
        self.state, report = self.compiled(
            self.solver, self.oracle, self._measure, self._gtol, kept, rest, *data
        )
        self._made = self.state
        status = Status(int(report.status))
        if status is Status.CONVERGED:
            if not self._never:
                return status
            status = Status.RUNNING
        self.nit += 1
        self.move = report.move
        row = {name: float(value) for name, value in report.columns.items()}
        self.history.append({**row, "cost": self.cost, "seconds": self.seconds})
        return status

    def call_back(self) -> bool:
        """Show the last step to the callback; return whether the run is to go on."""
        if self.callback is None:
            return True
        row = {name: column[-1] for name, column in self.history.items()}
        try:
            self.callback(Intermediate(self.oracle, self.state, row, self.nit))
        except StopIteration:
            return False
        return True

    def solution(
        self, status: Status, x: Array, value: Any, grad: Array, message: str | None = None
    ) -> Solution:
        """Return the result at ``x``, with ``value`` and ``grad`` as its ``fun`` and ``jac``."""
        counts = {
            name: int(number) + self.spent[name]
            for name, number in self.state.counts._asdict().items()
        }
        return Solution(
            x=self.oracle.unravel(x),
            fun=float(value),
            jac=self.oracle.unravel(grad),
            success=status.success,
            status=status,
            message=status.message if message is None else message,
            nit=self.nit,
            nfev=counts["values"],
            njev=counts["gradients"],
            nhev=counts["hvps"],
            nggn=counts["ggns"],
            history=self.history,
            state=self.state,
        )


def check_solver(oracle: Oracle, solver: Solver) -> None:
    """Raise unless ``oracle`` offers what ``solver`` needs, in single or double precision."""
    structure = oracle.structure
    if structure.xp.finfo(structure.dtype).bits not in (32, 64):
        raise TypeError(
            f"the parameters are {structure.dtype}; the solvers compute in float32 or float64: "
            "keep the parameters in one of them, and cast inside the function"
        )
    for product in sorted(solver.needs() - oracle.products):
        raise ProductUnavailable(
            f"{type(solver).__name__} needs {product}, which {type(oracle).__name__} does not "
            f"offer; {oracle.advice(product)}"
        )


def check_start(oracle: Oracle, x: Array, solver: Solver) -> None:
    """Raise unless ``solver`` can start at ``x`` with what ``oracle`` offers."""
    oracle.structure.check(x, name="the start")
    if oracle.size == 0:
        raise ValueError("the start has no entries: there is nothing to choose")
    xp = namespace(x)
    if not bool(xp.all(xp.isfinite(x))):
        raise ValueError("the start has entries that are not finite")
    check_solver(oracle, solver)


def default_tolerance(solver: Solver, x: Array) -> float:
    """Return the largest gradient entry at which to stop on a fixed function, if none is given."""
    return solver.gtol or eps(x) ** 0.4


def check_limits(**limits: float | None) -> None:
    """Raise unless each limit that is given is a positive number, whole if it counts something."""
    for name, limit in limits.items():
        if limit is None:
            continue
        if not isinstance(limit, Real):
            raise TypeError(f"{name} is {limit!r}; it must be a number")
        whole = name in ("epochs", "steps")
        if not limit > 0 or (whole and limit % 1 > 0):
            kind = "positive and whole" if whole else "positive"
            raise ValueError(f"{name} is {limit}; it must be {kind}")
