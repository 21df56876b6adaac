"""Solving with an operator, against dense linear algebra, where its arrays are."""

import numpy as np
import pytest

import osculant
from osculant.core.operators import Operator


def point(backend, *, lowest=1.0, n=12, dtype="float64"):
    """Return a point of a quadratic, and its Hessian, with eigenvalues from ``lowest`` to 50."""
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))
    A = (Q * np.linspace(lowest, 50.0, n)) @ Q.T
    A = ((A + A.T) / 2).astype(dtype)
    x = backend.from_numpy(np.zeros(n, dtype=dtype))
    return osculant.oracle(lambda x, A: x @ (A @ x) / 2, x).at(x, backend.from_numpy(A)), A


def right(*shape, dtype="float64"):
    return np.random.default_rng(1).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("shape", [(40,), (40, 1), (40, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_solves_to_the_tolerance(backend, shape, dtype):
    pt, A = point(backend, n=40, dtype=dtype)
    b = right(*shape, dtype=dtype)
    solution = (pt.H + 2.0).solve(backend.from_numpy(b), rtol=1e-2)
    x = backend.to_numpy(solution.x)
    assert x.dtype == dtype and x.shape == shape
    residual = np.linalg.norm(b - A @ x - 2 * x, axis=0)
    assert np.all(residual <= 1.1e-2 * np.linalg.norm(b, axis=0))
    reported = backend.to_numpy(solution.residual)
    np.testing.assert_allclose(reported, residual, rtol=1e-3 if dtype == "float32" else 1e-8)
    assert backend.to_numpy(solution.converged).all()
    assert reported.shape == shape[1:] == backend.to_numpy(solution.converged).shape
    assert not backend.to_numpy(solution.indefinite).any()


def test_ends_as_soon_as_it_may_and_counts_its_products(backend):
    pt, _ = point(backend)
    calls = []

    def product(V):
        calls.append(V.shape)
        return pt.hvp(V)

    H = Operator(product, pt.oracle.structure, flow=pt.oracle.flow)
    loose = H.solve(backend.from_numpy(right(12, 2)), rtol=0.5)
    assert 1 <= int(loose.iterations) < 12
    if not backend.__name__.endswith("jax_backend"):  # whose products are traced
        assert len(calls) == int(loose.iterations) and set(map(tuple, calls)) == {(12, 2)}
    b = 1e3 * right(12)
    large, size = backend.from_numpy(b), float(np.linalg.norm(b))
    by_size, by_atol = (H.solve(large, rtol=r, atol=a) for r, a in ((0.3, 0.0), (0.0, 0.3 * size)))
    assert bool(by_atol.converged) and 0 < int(by_atol.iterations) < 12
    assert int(by_atol.iterations) == int(by_size.iterations)
    assert int(H.solve(large, atol=1e9).iterations) == 0
    few = H.solve(backend.from_numpy(right(12)), rtol=1e-14, maxiter=3)
    assert int(few.iterations) == 3 and not bool(few.converged) and not bool(few.indefinite)


def test_columns_end_one_by_one(backend):
    pt, A = point(backend)
    _, Q = np.linalg.eigh(A)
    b = np.stack([Q[:, 0], np.zeros(12), Q @ np.ones(12)], axis=1)
    solution = pt.H.solve(backend.from_numpy(b), rtol=1e-10)
    np.testing.assert_allclose(backend.to_numpy(solution.x), np.linalg.solve(A, b), atol=1e-8)
    assert backend.to_numpy(solution.converged).all()


def test_a_preconditioner_saves_products(backend):
    pt, A = point(backend)
    inverse = backend.from_numpy(np.linalg.inv(A))
    for b in (right(12), right(12, 3)):
        solution = pt.H.solve(
            backend.from_numpy(b), rtol=1e-8, preconditioner=lambda V: inverse @ V
        )
        assert int(solution.iterations) == 1
        np.testing.assert_allclose(backend.to_numpy(solution.x), np.linalg.solve(A, b), rtol=1e-8)


def test_an_indefinite_matrix_is_told(backend):
    pt, A = point(backend, lowest=-50.0)
    solution = pt.H.solve(backend.from_numpy(right(12)))
    assert bool(solution.indefinite) and not bool(solution.converged)
    x = backend.to_numpy(solution.x)
    assert np.isfinite(x).all()
    np.testing.assert_allclose(
        float(solution.residual), np.linalg.norm(right(12) - A @ x), rtol=1e-8
    )


def test_columns_are_what_they_are_alone(backend):
    pt, A = point(backend, lowest=-1.0)
    values, Q = np.linalg.eigh(A)
    negative = Q[:, 0] + Q[:, 5]  # whose first direction has positive curvature, but no other
    b = np.stack([negative, Q[:, 5:] @ np.ones(7), right(12)], axis=1)
    together = pt.H.solve(backend.from_numpy(b), rtol=1e-3)
    for j in range(3):
        alone = pt.H.solve(backend.from_numpy(b[:, j]), rtol=1e-3)
        np.testing.assert_allclose(
            backend.to_numpy(together.x)[:, j], backend.to_numpy(alone.x), rtol=1e-9, atol=1e-12
        )
        assert bool(together.indefinite[j]) == bool(alone.indefinite) == (j != 1)
    assert values[0] < 0 < values[1]


def test_numbers_that_are_not_finite_are_told():
    backend = osculant.backends.get("numpy")
    pt, _ = point(backend)
    b = right(12)
    b[3] = np.nan
    solution = pt.H.solve(b)
    assert not solution.converged and np.isnan(solution.residual)
    bad = Operator(lambda V: V * np.nan, pt.oracle.structure).solve(right(12))
    assert bad.indefinite and not bad.converged and np.isfinite(bad.x).all()
    np.testing.assert_allclose(bad.residual, np.linalg.norm(right(12)))


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_squares_stay_in_range(size):
    pt, A = point(osculant.backends.get("numpy"))
    solution = pt.H.solve(size * right(12), rtol=1e-10)
    assert solution.converged
    np.testing.assert_allclose(solution.x / size, np.linalg.solve(A, right(12)), rtol=1e-8)


def test_a_sum_and_its_operators_solve_by_the_same_flow():
    jax = pytest.importorskip("jax")
    backend = osculant.backends.get("jax")
    pt, A = point(backend)

    @jax.jit
    def newton(x, A, b):
        at = pt.oracle.at(x, A)
        return (0.5 * at.H + at.H / 2 + 1.0).solve(b, rtol=1e-12).x

    x, b = backend.from_numpy(np.zeros(12)), right(12)
    solved = newton(x, backend.from_numpy(A), backend.from_numpy(b))
    np.testing.assert_allclose(solved, np.linalg.solve(A + np.eye(12), b), rtol=1e-9)


@pytest.mark.parametrize("shape", [(11,), (3, 12), (12, 2, 2)])
def test_another_shape_is_refused(shape):
    pt, _ = point(osculant.backends.get("numpy"))
    with pytest.raises(ValueError, match=r"b has shape .*; \(12,\) or \(12, k\) is needed"):
        pt.H.solve(np.zeros(shape))


@pytest.mark.parametrize("b", [np.arange(12), np.zeros(12, np.float32), [0.0] * 12])
def test_another_kind_of_right_side_is_refused(b):
    pt, _ = point(osculant.backends.get("numpy"))
    with pytest.raises(TypeError, match=r"b has dtype|b is a builtins\.list"):
        pt.H.solve(b)


@pytest.mark.parametrize("option", ["rtol", "atol", "maxiter"])
def test_limits_that_are_negative_are_refused(option):
    pt, _ = point(osculant.backends.get("numpy"))
    with pytest.raises(ValueError, match=f"{option} is -1; it must be zero or positive"):
        pt.H.solve(np.ones(12), **{option: -1})
