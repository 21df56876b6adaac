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
]
