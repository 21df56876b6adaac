"""What a run ends with: why it stopped, what it cost, what it found."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any, NamedTuple

from .arrays import Array, integer_like

#: Gradient-equivalents of each kind of evaluation: on a dense network a gradient is three
#: forward passes, and amortised Hessian and Gauss-Newton products are six and four.
COST = {"values": 1 / 3, "gradients": 1.0, "hvps": 2.0, "ggns": 4 / 3}


class Counts(NamedTuple):
    """Evaluations so far, as 0-d int32 arrays (so that they survive tracing and checkpoints)."""

    values: Array
    """Forward passes on their own."""
    gradients: Array
    """Linearisations: a value and a gradient."""
    hvps: Array
    """Hessian-vector products."""
    ggns: Array
    """Gauss-Newton-vector products."""

    @classmethod
    def zero(cls, x: Array) -> Counts:
        """No evaluations yet, on the device of ``x``."""
        return cls(*(integer_like(x, 0) for _ in cls._fields))

    def add(self, **more: Any) -> Counts:
        """Return these counts with ``more`` added, by name."""
        return self._replace(**{name: getattr(self, name) + count for name, count in more.items()})

    def gradient_equivalents(self) -> float:
        """Total cost in gradients (:data:`COST`). Waits for the device."""
        return sum(COST[name] * int(getattr(self, name)) for name in self._fields)


class Status(IntEnum):
    """Why a run stands where it stands. Inside a solver it is its integer; an Enum outside."""

    RUNNING = 0
    CONVERGED = 1
    MAXITER = 2
    STALLED = 3
    NOT_FINITE = 4
    CALLBACK = 5
    BUDGET = 6
    FINISHED = 7
    UNBOUNDED = 8

    @property
    def success(self) -> bool:
        """Whether the run met its tolerance, or spent what it was given to spend."""
        return self in (Status.CONVERGED, Status.BUDGET, Status.FINISHED)

    @property
    def message(self) -> str:
        """What happened and what to try, as a sentence."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.RUNNING: "The run has not stopped yet.",
    Status.CONVERGED: "Converged: the largest gradient entry is within the tolerance.",
    Status.MAXITER: "The iteration limit was reached; raise maxiter, or look at the history for a "
    "plateau that a looser tol would accept.",
    Status.STALLED: "No step improves the function any more although the gradient is above the "
    "tolerance: either rounding hides the progress (loosen tol, or use float64), or the gradient "
    "does not belong to the function (check it with osculant.testing).",
    Status.NOT_FINITE: "The function or its gradient is not finite where the run stands; start "
    "where it is finite, or rescale the data.",
    Status.CALLBACK: "The callback raised StopIteration.",
    Status.BUDGET: "The evaluation budget is spent.",
    Status.FINISHED: "All epochs are done.",
    Status.UNBOUNDED: "The function seems unbounded below: it fell beyond any value that a minimum "
    "would have; check its sign, or add what keeps it bounded (a regulariser).",
}


@dataclass
class Solution:
    """What :func:`minimize` and :func:`fit` return; names as in ``scipy.optimize.OptimizeResult``.

    Attributes
    ----------
    x : tree
        Best parameters found, in the user's own structure.
    fun : float
        Function there (for :func:`fit`, the last batch's loss).
    jac : tree
        Gradient that goes with ``fun``, in the user's own structure.
    success : bool
        Whether the tolerance was met (:func:`fit`: or the epochs or the budget are done).
    status : Status
        Why it stopped.
    message : str
        The same as a sentence, with advice.
    nit : int
        Iterations.
    nfev, njev, nhev, nggn : int
        Forward passes on their own, linearisations (value and gradient), Hessian products,
        Gauss-Newton products.
    history : dict of str to list of float
        One entry per iteration: ``"fun"``, ``"grad_norm"``, ``"cost"`` (gradient-equivalents so
        far), and whatever else the solver reports.
    state : NamedTuple of arrays
        The solver's last state.
    """

    x: Any
    fun: float
    jac: Any
    success: bool
    status: Status
    message: str
    nit: int
    nfev: int
    njev: int
    nhev: int
    nggn: int
    history: dict[str, list[float]] = field(repr=False)
    state: Any = field(repr=False)

    def keys(self) -> list[str]:
        """Names of the fields, so that ``dict(solution)`` works as with SciPy's result."""
        return [f.name for f in fields(self)]

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)
