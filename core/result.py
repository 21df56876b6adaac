"""What a run ends with: why it stopped, what it cost, what it found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple

import optree

from .arrays import Array, integer_like, is_array, namespace
from .history import History

#: Gradient-equivalents of each kind of evaluation: on a dense network a gradient is three
#: forward passes, and amortised Hessian and Gauss-Newton products are six and four. Third-order
#: derivatives are forward sweeps of eight and a half; PyTorch's, which are none, take up to 19,
#: and 3 along a group of a single tensor.
COST = {"values": 1 / 3, "gradients": 1.0, "hvps": 2.0, "ggns": 4 / 3, "thirds": 17 / 6}


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
    thirds: Array
    """Third-order derivatives along one vector, D^3 f[v, v, v]."""

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
    FTOL = 9
    XTOL = 10
    TIME = 11
    EARLY_STOP = 12

    @property
    def success(self) -> bool:
        """Whether the run met a tolerance that was asked for, or spent what it was given."""
        return self in _SUCCESSES

    @property
    def message(self) -> str:
        """What happened and what to try, as a sentence."""
        return _MESSAGES[self]


_SUCCESSES = frozenset(
    {
        Status.CONVERGED,
        Status.BUDGET,
        Status.FINISHED,
        Status.FTOL,
        Status.XTOL,
        Status.EARLY_STOP,
    }
)
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
    Status.BUDGET: "The budget of steps, seconds or gradient-equivalents is spent.",
    Status.FINISHED: "All epochs are done.",
    Status.UNBOUNDED: "The function seems unbounded below: it fell beyond any value that a minimum "
    "would have; check its sign, or add what keeps it bounded (a regulariser).",
    Status.FTOL: "The function changed by no more than ftol, relative to its size, in the last "
    "step. This was asked for; whether the gradient is small is another question: see jac.",
    Status.XTOL: "The last step was no longer than xtol, relative to x. This was asked for; "
    "whether the gradient is small is another question: see jac.",
    Status.TIME: "The time is up; raise max_seconds, or go on from x.",
    Status.EARLY_STOP: "The evaluation has not improved for as long as the patience lasts; x is "
    "where it was best.",
}


#: Arrays of more entries are printed by their ends, as in SciPy's results.
_PRINTED_WHOLE = 12


class Result(Mapping[str, Any]):
    """A dataclass that is a mapping of its fields, too, and prints as a table of them.

    Two results are equal if they are the same object.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def _names(self) -> list[str]:
        return [f.name for f in fields(self)]

    def __getitem__(self, name: str) -> Any:
        if name not in self._names():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        rows = {f.name: _printed(getattr(self, f.name)) for f in fields(self) if f.repr}
        width = max(map(len, rows))
        indent = "\n" + " " * (width + 2)
        return "\n".join(f"{name:>{width}}: {indent.join(rows[name])}" for name in rows)


def _printed(value: Any) -> list[str]:
    """Return the lines that stand for a number, a text or a tree of arrays."""
    if isinstance(value, str):
        return [value]
    return repr(optree.tree_map(_abbreviated, value, none_is_leaf=True)).splitlines()


def _abbreviated(leaf: Any) -> Any:
    size = math.prod(leaf.shape) if is_array(leaf) else 0
    if size <= _PRINTED_WHOLE:
        return leaf
    flat = namespace(leaf).reshape(leaf, (-1,))
    a, b, y, z = (f"{float(flat[i]):.4g}" for i in (0, 1, size - 2, size - 1))
    dtype = str(leaf.dtype).rpartition(".")[-1]
    return _Text(f"[{a} {b} ... {y} {z}] {dtype} of shape {tuple(leaf.shape)}")


class _Text(str):
    """Text that is printed without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


@dataclass(eq=False, repr=False)
class Solution(Result):
    """What :func:`minimize` and :func:`fit` return; names as in ``scipy.optimize.OptimizeResult``.

    A mapping of these, too: ``solution["x"]``, ``dict(solution)``.

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
    history : History
        A dict of columns with one entry per iteration: ``"fun"``, ``"grad_norm"``, whatever else
        the solver reports, ``"cost"`` (gradient-equivalents so far) and ``"seconds"``;
        ``history.to_csv()`` is the table as text.
    state : NamedTuple of arrays
        The solver's last state.
    allvecs : list of trees, optional
        The start and the parameters after each iteration, if ``minimize`` was asked to keep them.
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
    history: History = field(repr=False)
    state: Any = field(repr=False)
    allvecs: list[Any] | None = field(default=None, repr=False)
