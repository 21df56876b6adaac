"""What is known to defeat solvers, tried on every deterministic method."""

import numpy as np
import pytest

import osculant
from osculant.core.oracle import GAUSS_NEWTON_PRODUCTS
from osculant.core.solvers import METHODS
from osculant.problems import rosenbrock, x_minus_log

#: Methods that make no claim on these functions, and why.
EXCLUDED = {
    **dict.fromkeys(
        ["sgd", "adam", "adagrad", "rmsprop", "shampoo", "second-order-adam"],
        "the length of a step is set beforehand",
    ),
    **dict.fromkeys(
        ["adaptive-descent", "curveball", "newton-summary"],
        "for mini-batches: no step is refused that increases the function",
    ),
    "newton-krylov": "for mini-batches: its Taylor ratio refuses steps that a minimiser would take",
}
#: Linear convergence is too slow for a curved valley.
SLOW = ("steepest-descent",)


every_method = pytest.mark.parametrize(
    "method",
    [
        name
        for name, make in METHODS.items()
        # Those on residuals are not for plain functions.
        if name not in EXCLUDED and not make().needs() & GAUSS_NEWTON_PRODUCTS
    ],
)


def test_exclusions_are_methods():
    assert set(EXCLUDED) | set(SLOW) <= set(METHODS)


@every_method
@pytest.mark.parametrize("far", [5.0, 1e3, 1e-3])
def test_x_minus_log_from_far(method, far):
    """A Newton step from the right of 2 leaves the domain."""
    solution = osculant.minimize(x_minus_log, np.array([far]), method=method)
    assert solution.success, solution.message
    np.testing.assert_allclose(solution.x, [1.0], atol=1e-5)


@every_method
def test_start_at_the_optimum(method):
    solution = osculant.minimize(rosenbrock, np.ones(4), method=method)
    assert solution.success and solution.nit == 0 and solution.fun == 0.0
    if method not in ("auto", "trust-region", "cubic-regularization"):  # they confirm a minimum
        assert (solution.njev, solution.nfev, solution.nhev) == (1, 0, 0)


@every_method
def test_region_without_values(method):
    """Nothing is known beyond x = 1.1, and the first steps want to go there."""

    def fun(x):
        return ((x**2 - 1) ** 2 - 1e-3 * np.log(1.1 - x)).sum()

    solution = osculant.minimize(fun, np.array([0.1, 0.2]), method=method)
    assert solution.success, solution.message
    np.testing.assert_allclose(np.abs(solution.x), [1.0, 1.0], atol=1e-2)


@every_method
def test_function_unbounded_below(method):
    def fun(x):
        return -np.exp(x).sum()

    solution = osculant.minimize(fun, np.zeros(2), method=method)
    assert solution.status is osculant.Status.UNBOUNDED and not solution.success
    assert np.isfinite(solution.fun) and np.isfinite(solution.x).all()


@every_method
def test_strict_saddle_is_left(method):
    """On its stable manifold but for 1e-5, the gradient nearly vanishes on the way."""

    def fun(x):
        return x[0] ** 2 / 2 - x[1] ** 2 / 2 + x[1] ** 4 / 4

    solution = osculant.minimize(fun, np.array([1.0, 1e-5]), method=method, tol=1e-8)
    assert solution.success, solution.message
    np.testing.assert_allclose(np.abs(solution.x), [0.0, 1.0], atol=1e-6)


@every_method
def test_rounding_plateaus(method):
    """Values differ by less than rounding long before the gradient is small."""
    scales = np.array([1.0, 3.0, 10.0])

    def fun(x):
        return 1e8 + (scales * (x - 1) ** 2).sum() + ((x - 1) ** 4).sum()

    solution = osculant.minimize(fun, np.array([2.0, -1.0, 0.5]), method=method, tol=1e-8)
    assert solution.success, solution.message
    np.testing.assert_allclose(solution.x, np.ones(3), atol=1e-8)


@every_method
def test_no_progress_but_rounding(method):
    """The gradient is 2e-4 by rounding where it vanishes: no step is ever refused."""

    def fun(x):
        return 1e12 * (((x - 1) ** 2).sum() + (x[0] * x[1]) ** 2)

    solution = osculant.minimize(fun, np.zeros(6), method=method)
    assert solution.status is osculant.Status.STALLED, solution.message
    assert solution.nit < 1000
    t = 0.6823278038280193  # root of t^3 + t = 1
    np.testing.assert_allclose(solution.fun, 1e12 * (2 * (t - 1) ** 2 + t**4), rtol=1e-12)


@every_method
def test_flat_minimum(method):
    """The Hessian vanishes at the minimum, and is only Lipschitz."""

    def fun(x):
        return (np.abs(x) ** 3).sum()

    solution = osculant.minimize(fun, np.array([2.0, -3.0, 0.1]), method=method, tol=1e-8)
    assert solution.success, solution.message
    np.testing.assert_allclose(solution.x, np.zeros(3), atol=1e-4)


@every_method
def test_single_precision(backend, method):
    if method in SLOW:
        pytest.skip("linear convergence is too slow for a curved valley")
    x0 = backend.from_numpy(np.array([-1.2, 1.0], dtype=np.float32))
    solution = osculant.minimize(rosenbrock, x0, method=method, tol=1e-3)
    assert solution.success, solution.message
    assert solution.x.dtype == x0.dtype
    np.testing.assert_allclose(backend.to_numpy(solution.x), np.ones(2), atol=5e-3)


@every_method
def test_single_precision_to_the_end(method):
    """A tolerance beyond reach ends the run, close to the minimum, and is not claimed."""
    if method in SLOW:
        pytest.skip("linear convergence is too slow for a curved valley")
    x0 = np.array([-1.2, 1.0], dtype=np.float32)
    solution = osculant.minimize(rosenbrock, x0, method=method, tol=1e-12, maxiter=500)
    assert solution.success == bool(np.max(np.abs(solution.jac)) <= 1e-12)
    np.testing.assert_allclose(solution.x, np.ones(2), atol=1e-3)


@every_method
def test_options_and_starts_are_reused(method):
    solver, x0 = METHODS[method](), np.array([2.0, -1.0])
    before, kept = repr(solver), x0.copy()
    runs = [osculant.minimize(x_plus_quartic, x0, method=solver) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].x, runs[1].x)
    np.testing.assert_array_equal(x0, kept)
    assert repr(solver) == before and runs[0].njev == runs[1].njev


@every_method
def test_callback_that_stops(method):
    def stop(intermediate_result):
        raise StopIteration

    solution = osculant.minimize(
        x_plus_quartic, np.array([2.0, -1.0]), method=method, callback=stop
    )
    assert solution.status is osculant.Status.CALLBACK and solution.nit == 1
    assert solution.fun < x_plus_quartic(np.array([2.0, -1.0]))


def x_plus_quartic(x):
    return x.sum() + (x**4).sum()
