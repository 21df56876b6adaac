"""The solvers, one family a file; add a new one to :data:`METHODS` to give it a name."""

from collections.abc import Callable

from .auto import Auto
from .base import Solver, State
from .first_order import SGD, Adam
from .lbfgs import LBFGS
from .newton_krylov import NewtonKrylov
from .trust_region import TrustRegion

#: Names that ``osculant.minimize(method=...)`` takes.
METHODS: dict[str, Callable[[], Solver]] = {
    "auto": Auto,
    "lbfgs": LBFGS,
    "trust-region": TrustRegion,
    "newton-krylov": NewtonKrylov,
    "sgd": SGD,
    "adam": Adam,
}

__all__ = [
    "LBFGS",
    "METHODS",
    "SGD",
    "Adam",
    "Auto",
    "NewtonKrylov",
    "Solver",
    "State",
    "TrustRegion",
]
