"""The solvers, one family a file; add a new one to :data:`METHODS` to give it a name."""

from collections.abc import Callable

from .base import Solver, State
from .first_order import SGD, Adam
from .newton_krylov import NewtonKrylov
from .trust_region import TrustRegion

#: Names that ``osculant.minimize(method=...)`` takes.
METHODS: dict[str, Callable[[], Solver]] = {
    "trust-region": TrustRegion,
    "newton-krylov": NewtonKrylov,
    "sgd": SGD,
    "adam": Adam,
}

__all__ = ["METHODS", "SGD", "Adam", "NewtonKrylov", "Solver", "State", "TrustRegion"]
