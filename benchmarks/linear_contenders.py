"""Who solves the linear models of ``linear_models.py``, and with whose derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize as scipy_minimize
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

import osculant
from osculant.core.oracle import Oracle, Point
from osculant.core.solvers import Solver
from osculant.problems.models import logistic_regression, squared_hinge_svm
from osculant.testing import Wrapped, WrappedPoint

SUBOPTIMALITY = 1e-8
MANY = 100_000
OURS: dict[str, str | Solver] = {
    "newton-krylov": "newton-krylov",
    "trust-region": "trust-region",
    "trust-region, products": osculant.TrustRegion(quasi_newton=False, second_order=False),
    "newton-cg": "newton-cg",
    "newton-cg, products": osculant.NewtonCG(quasi_newton=False),
    "cubic-regularization": "cubic-regularization",
    "lbfgs": "lbfgs",
    "auto": "auto",
}
SCIPY: dict[str, dict[str, Any]] = {
    "trust-ncg": {"gtol": 1e-14},
    "trust-krylov": {"gtol": 1e-14},
    "Newton-CG": {"xtol": 1e-16},
    "L-BFGS-B": {"gtol": 0.0, "ftol": 0.0, "maxfun": MANY},
}


class Reached(Exception):
    """The target has been seen."""


class Losses(NamedTuple):
    """A loss of the margins z = y w'x with its first two derivatives, by hand."""

    value: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]
    bend: Callable[[np.ndarray], np.ndarray]


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * z)


LOSSES = {
    logistic_regression: Losses(
        value=lambda z: np.maximum(-z, 0) + np.log1p(np.exp(-np.abs(z))),
        slope=lambda z: -_sigmoid(-z),
        bend=lambda z: _sigmoid(z) * _sigmoid(-z),
    ),
    squared_hinge_svm: Losses(
        value=lambda z: np.maximum(1 - z, 0) ** 2,
        slope=lambda z: -2 * np.maximum(1 - z, 0),
        bend=lambda z: 2.0 * (z < 1),
    ),
}


class ByHand:
    """mean loss(y_i w'x_i) + l2/2 |w|^2 with derivatives; keeps the margins of the last w."""

    def __init__(self, losses: Losses, X: Any, y: np.ndarray, l2: float, target: float) -> None:
        self.losses, self.X, self.XT, self.y, self.l2 = losses, X, X.T, y, l2
        self.target = target
        self._w: np.ndarray | None = None

    def _move(self, w: np.ndarray) -> None:
        if self._w is None or not np.array_equal(w, self._w):
            self._w, self._z, self._bend = np.array(w), self.y * (self.X @ w), None

    def value(self, w: np.ndarray) -> np.float64:
        self._move(w)
        f = np.mean(self.losses.value(self._z)) + self.l2 / 2 * (w @ w)
        if f <= self.target:
            raise Reached
        return f

    def grad(self, w: np.ndarray) -> np.ndarray:
        self._move(w)
        return self.XT @ (self.y * self.losses.slope(self._z)) / len(self.y) + self.l2 * w

    def both(self, w: np.ndarray) -> tuple[np.float64, np.ndarray]:
        return self.value(w), self.grad(w)

    def hvp(self, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        self._move(w)
        if self._bend is None:
            self._bend = self.losses.bend(self._z) / len(self.y)
        return self.XT @ (self._bend * (self.X @ v)) + self.l2 * v


class Watched(Wrapped):
    """An oracle that ends the run once the target has been seen."""

    def __init__(self, inner: Oracle, target: float) -> None:
        super().__init__(inner)
        self.target = target

    def _watch(self, value: Any) -> None:
        if value <= self.target:
            raise Reached

    def at(self, x: Any, *data: Any) -> WrappedPoint:
        pt = super().at(x, *data)
        self._watch(pt.value)
        return pt

    def value(self, x: Any, *data: Any) -> Any:
        value = super().value(x, *data)
        self._watch(value)
        return value


class ByTape:
    """An oracle as the functions that SciPy takes; the last point is kept."""

    def __init__(self, oracle: Oracle, data: tuple[Any, ...]) -> None:
        self.oracle, self.data = oracle, data
        self._x: np.ndarray | None = None

    def _at(self, x: np.ndarray) -> Point:
        if self._x is None or not np.array_equal(x, self._x):
            self._x, self._point = np.array(x), self.oracle.at(x, *self.data)
        return self._point

    def value(self, x: np.ndarray) -> Any:
        return self._at(x).value

    def grad(self, x: np.ndarray) -> Any:
        return self._at(x).grad

    def both(self, x: np.ndarray) -> tuple[Any, Any]:
        return self.value(x), self.grad(x)

    def hvp(self, x: np.ndarray, v: np.ndarray) -> Any:
        return self._at(x).hvp(v)


class Task:
    """One loss on the data, scaled as scikit-learn's and LIBLINEAR's with C = 1."""

    def __init__(self, make: Callable[..., Any], data: tuple[Any, np.ndarray]) -> None:
        self.X, self.y = data
        samples, features = self.X.shape
        self.l2 = 1 / samples
        problem = make(features, l2=self.l2)
        self.name, self.x0, self.losses = problem.name, problem.params, LOSSES[make]
        self.tape = osculant.oracle(model=problem.model, loss=problem.loss, params=problem.params)
        self.lowest = self._minimum()
        self.target = self.lowest * (1 + SUBOPTIMALITY)

    def _minimum(self) -> float:
        """Return the least value that two methods find."""
        found = [
            osculant.minimize(self.tape, self.x0, args=(self.X, self.y), method=method, tol=1e-13)
            for method in ("trust-region", "newton-cg")
        ]
        values = [solution.fun for solution in found]
        if abs(values[0] - values[1]) > 1e-3 * SUBOPTIMALITY * values[0]:
            raise SystemExit(f"{self.name}: the minimum is in doubt, {values}")
        return min(values)

    def value(self, x: np.ndarray) -> float:
        return float(self.tape.value(x, self.X, self.y))

    def ours(self, method: str | Solver, kind: str, X: Any) -> None:
        if kind == "tape":
            oracle: Oracle = Watched(self.tape, self.target)
            data = (X, self.y)
        else:
            hand = ByHand(self.losses, X, self.y, self.l2, self.target)
            oracle = osculant.oracle(
                hand.value, self.x0, grad=hand.grad, hvp=hand.hvp, products="complex-step"
            )
            data = ()
        osculant.minimize(oracle, self.x0, args=data, method=method, tol=0.0, maxiter=MANY)

    def scipy(self, method: str, kind: str, X: Any) -> None:
        functions: Any = (
            ByTape(Watched(self.tape, self.target), (X, self.y))
            if kind == "tape"
            else ByHand(self.losses, X, self.y, self.l2, self.target)
        )
        options = {**SCIPY[method], "maxiter": MANY}
        if method == "L-BFGS-B":
            given: dict[str, Any] = {"fun": functions.both, "jac": True}
        else:
            given = {"fun": functions.value, "jac": functions.grad, "hessp": functions.hvp}
        scipy_minimize(x0=self.x0, method=method, options=options, **given)


class Contender(NamedTuple):
    """A row of the table."""

    name: str
    kind: str  # of derivatives
    run: Callable[[Any], Any]  # of the design matrix
    counts: bool = True


def contenders(task: Task) -> Iterator[Contender]:
    for kind in ("tape", "hand"):
        for name, method in OURS.items():
            yield Contender(f"osculant {name}", kind, partial(task.ours, method, kind))
        for method in SCIPY:
            yield Contender(f"SciPy {method}", kind, partial(task.scipy, method, kind))
    logistic = task.name == "logistic regression"
    for solver in ("newton-cholesky", "newton-cg", "lbfgs", "liblinear") if logistic else ("svc",):
        yield from packaged(task, solver)


def packaged(task: Task, solver: str) -> Iterator[Contender]:
    """Yield scikit-learn's solver with the loosest tolerance that reaches the target, if any."""

    def estimator(tolerance: float) -> Any:
        if solver == "svc":
            return LinearSVC(
                dual=False, fit_intercept=False, tol=tolerance, max_iter=MANY, random_state=0
            )
        return LogisticRegression(
            solver=solver, fit_intercept=False, tol=tolerance, max_iter=MANY, random_state=0
        )

    for tolerance in 10.0 ** -np.arange(1, 13):
        fitted = estimator(tolerance).fit(task.X, task.y)
        if task.value(np.ravel(fitted.coef_)) <= task.target:
            name = "liblinear" if solver == "svc" else solver
            run = partial(estimator(tolerance).fit, y=task.y)
            yield Contender(f"scikit-learn {name}, tol {tolerance:.0e}", "own", run, False)
            return
    print(f"{solver} does not reach the target at any tolerance")
