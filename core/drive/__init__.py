"""The only host loops: :func:`minimize` on one function, :func:`fit` over batches."""

from .evaluation import Evaluation
from .fitting import NOT_FINITE_PATIENCE, fit
from .minimization import minimize
from .run import Callback, Intermediate, check_solver, check_start

__all__ = [
    "NOT_FINITE_PATIENCE",
    "Callback",
    "Evaluation",
    "Intermediate",
    "check_solver",
    "check_start",
    "fit",
    "minimize",
]
