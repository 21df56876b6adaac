"""What every solver is: hyper-parameters, an ``init`` and a pure ``step``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from ..arrays import Array, integer_like, largest, like, max_abs, namespace
from ..oracle import Oracle, Product
from ..result import Counts, Status

S = TypeVar("S", bound=Any)


class Products(NamedTuple):
    """How a curvature B is asked for: the methods of a point, and what they are counted as."""

    product: str
    """B v."""
    form: str
    """v'B v."""
    counted: str


PRODUCTS = {
    "hessian": Products("hvp", "vhv", "hvps"),
    "gauss-newton": Products("ggn", "vgv", "ggns"),
}


class State(Protocol):
    """Fields that every solver's state has; it is a NamedTuple of 0-d and 1-d arrays."""

    @property
    def x(self) -> Array:
        """Parameters, of shape (n,)."""

    @property
    def value(self) -> Array:
        """Function where the last step started (where it also stays, if the step was rejected)."""

    @property
    def grad(self) -> Array:
        """Gradient where the last step started, of shape (n,)."""

    @property
    def status(self) -> Array:
        """A :class:`~osculant.core.result.Status` as an integer."""

    @property
    def counts(self) -> Counts:
        """Evaluations so far."""

    def _replace(self, **changes: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Solver(ABC):
    """Base of the solvers: a frozen dataclass of hyper-parameters.

    ``init`` evaluates nothing. ``step`` is pure: it linearises at ``state.x`` with the data it
    is given, and returns the next state; it can be jitted and vmapped on JAX. No solver owns
    an outer loop: :func:`osculant.minimize`, :func:`osculant.fit` and the adapters do.

    When a step finds that its start already satisfies ``gtol``, it sets the status and leaves
    ``x`` alone.
    """

    gtol: float = 0.0
    """Largest absolute gradient entry at which to stop; 0, for batches, never stops a fit.

    The host loops put an array here while a step is compiled, so that other tolerances compile
    nothing: a step passes it to :func:`verdict`, and never branches on it in Python.
    """

    samples: ClassVar[frozenset[str]] = frozenset()
    """Fields of :class:`~osculant.core.samples.Samples` that a step can see apart."""

    @abstractmethod
    def init(self, oracle: Oracle, x: Array, *data: Any) -> Any:
        """Return the state to start from ``x``, of shape (n,)."""

    @abstractmethod
    def step(self, oracle: Oracle, state: Any, *data: Any) -> Any:
        """Return the state after one iteration on ``data``."""

    def needs(self) -> frozenset[Product]:
        """Products that the oracle must offer."""
        return frozenset({Product.GRAD})

    def deterministic(self) -> Solver:
        """Return this solver as it should run on one fixed function instead of on batches."""
        return self

    def refresh(self, oracle: Oracle, state: Any, batches: Any) -> Any:
        """Return the state with what the solver wants to know of a whole epoch's ``batches``.

        :func:`osculant.fit` calls it where it is :meth:`refresh_due`.
        """
        return state

    def refresh_due(self, index: int) -> bool:
        """Whether :meth:`refresh` is to be called before the batch ``index`` of an epoch."""
        return index == 0

    def report(self, state: Any) -> dict[str, Array]:
        """Return the 0-d quantities worth a column in the history (radius, step length, ...)."""
        return {}


def unevaluated(x: Array) -> dict[str, Any]:
    """Return the fields of every :class:`State` at ``x``, of shape (n,), before any evaluation."""
    return {
        "x": x,
        "value": like(x, 0.0),
        "grad": namespace(x).zeros_like(x),
        "status": integer_like(x, Status.RUNNING),
        "counts": Counts.zero(x),
    }


def adopt(state: S, new: Any) -> S:
    """Return ``state`` with what every solver's state has taken from ``new``."""
    return state._replace(
        x=new.x, value=new.value, grad=new.grad, status=new.status, counts=new.counts
    )


def verdict(value: Array, grad: Array, gtol: float) -> Array:
    """Return the status of a start as a 0-d integer: RUNNING, or why not to go on.

    A value below minus the square root of the largest number is taken for unbounded.
    """
    xp = namespace(grad)
    size = max_abs(grad)
    finite = xp.isfinite(value) & xp.isfinite(size)
    unbounded = value < -(largest(value) ** 0.5)
    status = xp.where(
        size <= gtol,
        integer_like(size, Status.CONVERGED),
        xp.where(
            unbounded,
            integer_like(size, Status.UNBOUNDED),
            integer_like(size, Status.RUNNING),
        ),
    )
    return xp.where(finite, status, integer_like(size, Status.NOT_FINITE))
