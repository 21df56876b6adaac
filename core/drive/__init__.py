"""The only outer loops: :func:`minimize` and :func:`fit` on the host, :func:`solve` traced."""

from .evaluation import Evaluation
from .fitting import NOT_FINITE_PATIENCE, fit
from .minimization import minimize
from .run import Callback, Intermediate, check_solver, check_start
from .solving import Solved, solve

__all__ = [
    "NOT_FINITE_PATIENCE",
    "Callback",
    "Evaluation",
    "Intermediate",
    "Solved",
    "check_solver",
    "check_start",
    "fit",
    "minimize",
    "solve",
]
