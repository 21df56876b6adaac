"""Second-order optimisation, written once, for every array framework.

A curve and its osculating circle agree to second order. This library builds the quadratic that
osculates a function, on NumPy, CuPy, PyTorch and JAX arrays, and optimises with it.
"""

from importlib.metadata import PackageNotFoundError, version

from . import backends as backends
from .api import fit as fit
from .api import minimize as minimize
from .api import solve as solve
from .backends import linear_operator as linear_operator
from .backends import multicomplex as multicomplex
from .backends import ops as ops
from .backends import oracle as oracle
from .batches import Batches as Batches
from .checkpoint import Checkpoint as Checkpoint
from .core import diagnostics as diagnostics
from .core import norms as norms
from .core.drive import Evaluation as Evaluation
from .core.drive import Solved as Solved
from .core.errors import BackendUnavailable as BackendUnavailable
from .core.errors import CheckpointMismatch as CheckpointMismatch
from .core.errors import DataFormatError as DataFormatError
from .core.errors import NotAnalytic as NotAnalytic
from .core.errors import NotDifferentiable as NotDifferentiable
from .core.errors import OsculantError as OsculantError
from .core.errors import ProductUnavailable as ProductUnavailable
from .core.kronecker import Kronecker as Kronecker
from .core.oracle import Objective as Objective
from .core.oracle import Oracle as Oracle
from .core.oracle import Point as Point
from .core.oracle import Product as Product
from .core.regularize import Regularized as Regularized
from .core.result import Solution as Solution
from .core.result import Status as Status
from .core.solvers import BFGS as BFGS
from .core.solvers import KFAC as KFAC
from .core.solvers import LBFGS as LBFGS
from .core.solvers import SGD as SGD
from .core.solvers import Adagrad as Adagrad
from .core.solvers import Adam as Adam
from .core.solvers import AdaptiveDescent as AdaptiveDescent
from .core.solvers import Auto as Auto
from .core.solvers import CubicRegularization as CubicRegularization
from .core.solvers import CurveBall as CurveBall
from .core.solvers import GaussNewton as GaussNewton
from .core.solvers import HessianFree as HessianFree
from .core.solvers import LevenbergMarquardt as LevenbergMarquardt
from .core.solvers import Newton as Newton
from .core.solvers import NewtonCG as NewtonCG
from .core.solvers import NewtonKrylov as NewtonKrylov
from .core.solvers import NewtonSummary as NewtonSummary
from .core.solvers import NonlinearCG as NonlinearCG
from .core.solvers import RMSProp as RMSProp
from .core.solvers import SecondOrderAdam as SecondOrderAdam
from .core.solvers import Shampoo as Shampoo
from .core.solvers import Solver as Solver
from .core.solvers import SteepestDescent as SteepestDescent
from .core.solvers import TrustRegion as TrustRegion
from .residuals import LeastSquaresSolution as LeastSquaresSolution
from .residuals import least_squares as least_squares

try:
    __version__ = version("osculant")
except PackageNotFoundError:  # imported from a checkout that is not installed
    __version__ = "0+unknown"

del PackageNotFoundError, version
