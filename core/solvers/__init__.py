"""The solvers, one family a file; add a new one to :data:`METHODS` to give it a name."""

from collections.abc import Callable

from .auto import Auto
from .base import Solver, State
from .bfgs import BFGS
from .cubic_regularization import CubicRegularization
from .curveball import CurveBall
from .first_order import SGD, Adagrad, Adam, FirstOrder, RMSProp
from .gauss_newton import GaussNewton
from .hessian_free import HessianFree
from .kfac import KFAC
from .lbfgs import LBFGS
from .levenberg_marquardt import LevenbergMarquardt
from .newton import Newton
from .newton_cg import NewtonCG
from .newton_krylov import NewtonKrylov
from .newton_summary import NewtonSummary
from .nonlinear_cg import NonlinearCG
from .second_order_adam import AdaptiveDescent, SecondOrderAdam
from .shampoo import Shampoo
from .steepest_descent import SteepestDescent
from .trust_region import TrustRegion

#: Names that ``osculant.minimize(method=...)`` takes.
METHODS: dict[str, Callable[[], Solver]] = {
    "auto": Auto,
    "lbfgs": LBFGS,
    "bfgs": BFGS,
    "newton-cg": NewtonCG,
    "newton": Newton,
    "nonlinear-cg": NonlinearCG,
    "steepest-descent": SteepestDescent,
    "trust-region": TrustRegion,
    "cubic-regularization": CubicRegularization,
    "newton-krylov": NewtonKrylov,
    "curveball": CurveBall,
    "hessian-free": HessianFree,
    "kfac": KFAC,
    "lm": LevenbergMarquardt,
    "gauss-newton": GaussNewton,
    "newton-summary": NewtonSummary,
    "second-order-adam": SecondOrderAdam,
    "adaptive-descent": AdaptiveDescent,
    "sgd": SGD,
    "adam": Adam,
    "adagrad": Adagrad,
    "rmsprop": RMSProp,
    "shampoo": Shampoo,
}


def as_solver(method: str | Solver) -> Solver:
    """Return the solver of this name in :data:`METHODS`, in any case, or the solver itself.

    Raises
    ------
    ValueError
        If none is called that.
    TypeError
        If it is a class, or neither a name nor a solver.
    """
    if isinstance(method, Solver):
        return method
    if isinstance(method, type) and issubclass(method, Solver):
        raise TypeError(f"pass an instance, {method.__name__}(), not the class")
    if not isinstance(method, str):
        raise TypeError(
            f"the solver is {method!r}; pass a name or an instance such as osculant.TrustRegion(), "
            f"not a {type(method).__name__}"
        )
    if method.lower() not in METHODS:
        raise ValueError(f"no method is called {method!r}; there are: {', '.join(METHODS)}")
    return METHODS[method.lower()]()


__all__ = [
    "BFGS",
    "KFAC",
    "LBFGS",
    "METHODS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdaptiveDescent",
    "Auto",
    "CubicRegularization",
    "CurveBall",
    "FirstOrder",
    "GaussNewton",
    "HessianFree",
    "LevenbergMarquardt",
    "Newton",
    "NewtonCG",
    "NewtonKrylov",
    "NewtonSummary",
    "NonlinearCG",
    "RMSProp",
    "SecondOrderAdam",
    "Shampoo",
    "Solver",
    "State",
    "SteepestDescent",
    "TrustRegion",
    "as_solver",
]
