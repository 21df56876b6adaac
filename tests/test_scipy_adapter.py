"""Curvature in SciPy's hands."""

import numpy as np
import pytest

import osculant
from osculant.adapters.scipy_adapter import linear_operator, method

pytest.importorskip("scipy", reason="SciPy is not installed")
from scipy.optimize import minimize, rosen, rosen_der, rosen_hess, rosen_hess_prod
from scipy.sparse.linalg import cg, eigsh

A = np.diag([1.0, 2.0, 5.0]) + 0.3


def point(backend):
    matrix = backend.from_numpy(A)
    x0 = backend.from_numpy(np.ones(3))
    return osculant.oracle(lambda x: x @ (matrix @ x) / 2, x0).at(x0)


def test_it_is_the_matrix(backend):
    operator = (point(backend).H + 0.5).to_scipy()
    assert operator.shape == (3, 3) and operator.dtype == np.float64
    np.testing.assert_allclose(operator @ np.eye(3), A + 0.5 * np.eye(3), rtol=1e-12)
    np.testing.assert_allclose(operator.T @ np.ones(3), (A + 0.5 * np.eye(3)) @ np.ones(3))
    np.testing.assert_allclose(operator @ np.ones((3, 1)), (A @ np.ones(3) + 0.5)[:, None])


def test_scipys_solvers_take_it(backend):
    operator = point(backend).H.to_scipy()
    b = np.array([1.0, -1.0, 2.0])
    solved, failed = cg(operator, b, rtol=1e-12)
    assert failed == 0
    np.testing.assert_allclose(solved, np.linalg.solve(A, b), rtol=1e-9)
    np.testing.assert_allclose(eigsh(operator, k=1)[0], np.linalg.eigvalsh(A)[-1:], rtol=1e-9)


def test_shifts_and_scales_combine():
    H = point(osculant.backends.get("numpy")).H
    np.testing.assert_allclose((2 * (H - 1.0) + 0.25) @ np.eye(3), 2 * A - 1.75 * np.eye(3))
    np.testing.assert_allclose(-H @ np.eye(3), -A)
    with pytest.raises(TypeError, match="real numbers"):
        H + np.ones(3)


def test_operators_combine(backend):
    H, v = point(backend).H, np.array([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0]])
    own = backend.from_numpy(v)
    combined = (sum([H, H + 1.0, 2 * H]) - H.T) / 2
    np.testing.assert_allclose(combined @ backend.from_numpy(v.T), (3 * A + np.eye(3)) @ v.T / 2)
    np.testing.assert_allclose(own @ (1.0 - H), v - v @ A, rtol=1e-12)
    np.testing.assert_allclose(own[0, :] @ H, v[0] @ A, rtol=1e-12)
    assert repr(H) == "<Operator of shape (3, 3), float64>"
    other = osculant.oracle(lambda x: (x**2).sum(), backend.from_numpy(np.ones(2)))
    with pytest.raises(ValueError, match="different parameters"):
        H + other.at(backend.from_numpy(np.ones(2))).H


def test_nothing_is_moved_from_an_accelerator():
    H = point(osculant.backends.get("numpy")).H
    H.structure.device = "cuda:0"
    with pytest.raises(TypeError, match="nothing is moved silently"):
        linear_operator(H)


@pytest.mark.parametrize(
    "derivatives",
    [
        {},
        {"jac": rosen_der},
        {"jac": rosen_der, "hess": rosen_hess},
        {"jac": rosen_der, "hessp": rosen_hess_prod},
    ],
    ids=lambda derivatives: "-".join(derivatives) or "none",
)
def test_a_solver_is_a_method_of_scipys_minimize(derivatives):
    solver = osculant.TrustRegion(quasi_newton=False)
    result = minimize(rosen, [-1.2, 1, 0.5], method=method(solver), tol=1e-5, **derivatives)
    assert result.success and result.nhev > 0
    np.testing.assert_allclose(result.x, np.ones(3), atol=1e-4)
    assert np.max(np.abs(result.jac)) <= 1e-5


def test_a_method_of_scipys_counts_as_scipy_does():
    calls = {"fun": 0, "jac": 0}

    def counted(name, function):
        def count(x):
            calls[name] += 1
            return function(x)

        return count

    fun, jac = counted("fun", rosen), counted("jac", rosen_der)
    result = minimize(fun, [-1.2, 1, 0.5], jac=jac, method=method("lbfgs"))
    assert calls == {"fun": result.nfev, "jac": result.njev}


def test_a_method_of_scipys_takes_what_scipy_passes():
    def fun(x, a):
        return np.sum((x - a) ** 4), 4 * (x - a) ** 3

    places, steps = [], []

    def callback(intermediate_result):
        steps.append(intermediate_result.fun)
        if len(steps) == 2:
            raise StopIteration

    options = {"args": 2.0, "jac": True, "method": method("lbfgs")}
    result = minimize(fun, np.zeros(2), callback=lambda xk: places.append(xk), **options)
    assert len(places) == result.nit and result.success
    assert minimize(fun, np.zeros(2), callback=callback, **options).nit == 2 == len(steps)
    assert minimize(fun, np.zeros(2), options={"maxiter": 3}, **options).nit == 3
    with pytest.raises(ValueError, match="without bounds"):
        minimize(fun, np.zeros(2), bounds=[(0, 1)] * 2, **options)
    with pytest.raises(TypeError, match="no argument 'disp'"):
        minimize(fun, np.zeros(2), options={"disp": True}, **options)
