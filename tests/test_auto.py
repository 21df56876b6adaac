"""The default method: what it adds to L-BFGS, which the tests of all solvers cover as well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import osculant
from osculant.core.oracle import Oracle
from osculant.core.result import Status
from osculant.core.solvers.base import Solver
from osculant.problems import mgh, rosenbrock
from osculant.testing import Wrapped

CONFIRMING = [osculant.Auto(), osculant.TrustRegion(), osculant.CubicRegularization()]


def saddle(x):
    """Return 3 x0^2 - x1^2 + x1^4 + x2^2 + ..., with minima at x1 = +-1/sqrt(2)."""
    return (3 * x**2).sum() - 4 * x[1] ** 2 + x[1] ** 4


def double_well(x):
    """Return two wells whose saddle any start with x0 = x1 leads to, and never leaves."""
    a, b = x[0], x[1]
    return (a + b - 2) ** 2 + ((a - b) ** 2 - 1) ** 2


@pytest.mark.parametrize("solver", CONFIRMING, ids=lambda s: type(s).__name__)
class TestSaddles:
    def test_a_start_on_a_saddle_is_left(self, solver: Solver, backend) -> None:
        solution = osculant.minimize(saddle, backend.from_numpy(np.zeros(4)), method=solver)
        assert solution.success
        assert solution.fun == pytest.approx(-0.25, abs=1e-9)

    def test_a_saddle_that_the_gradient_never_shows_is_left(self, solver: Solver) -> None:
        x0 = np.array([5.0, 5.0])
        blind = osculant.minimize(double_well, x0, method="lbfgs")
        assert blind.success and blind.fun == pytest.approx(1.0)
        assert osculant.minimize(double_well, x0, method=solver).fun == pytest.approx(0, abs=1e-9)

    def test_biggs_exp6(self, solver: Solver) -> None:
        (problem,) = (p for p in mgh.benchmark() if p.name.startswith("Biggs"))
        x0 = problem.starts()[1]
        assert osculant.minimize(problem.fun, x0, method="lbfgs").fun > 5e-3  # the saddle
        solution = osculant.minimize(problem.fun, x0, method=solver, tol=1e-8)
        assert solution.success and solution.fun < 1e-10

    def test_a_minimum_is_confirmed_where_it_starts(self, solver: Solver, backend) -> None:
        solution = osculant.minimize(rosenbrock, backend.from_numpy(np.ones(4)), method=solver)
        assert solution.success and solution.nit == 0
        # The whole space once, and one product for the length of a first step of L-BFGS.
        assert 1 <= solution.nhev <= 4 + 1

    def test_a_flat_function_is_a_success(self, solver: Solver) -> None:
        solution = osculant.minimize(lambda x: 0 * x.sum(), np.ones(3), method=solver)
        assert solution.success and solution.nit == 0


def test_a_flat_valley_is_followed_to_its_end() -> None:
    (problem,) = (p for p in mgh.benchmark() if p.name == "Watson" and p.n == 12)
    x0 = problem.starts()[1]
    early = osculant.minimize(problem.fun, x0, method="lbfgs", tol=1e-6)
    assert early.success and early.fun > 1e-8
    solution = osculant.minimize(problem.fun, x0, tol=1e-6)
    assert solution.success and solution.fun < 1e-8


def test_a_loose_tolerance_stays_loose() -> None:
    solution = osculant.minimize(lambda x: (x**4).sum(), np.full(3, 5.0), tol=1e-2)
    tight = osculant.minimize(lambda x: (x**4).sum(), np.full(3, 5.0), tol=1e-8)
    assert solution.success and solution.njev <= 20 < tight.njev


def test_confirming_can_be_turned_off() -> None:
    plain = osculant.Auto(trust_region=osculant.TrustRegion(second_order=False))
    solution = osculant.minimize(saddle, np.zeros(4), method=plain)
    assert solution.success and solution.fun == 0 and solution.nit == 0


def test_batches_are_not_confirmed() -> None:
    for solver in CONFIRMING[1:]:
        assert not solver.second_order and solver.deterministic().second_order
        assert not replace(solver, second_order=False).deterministic().second_order


class Recording(Wrapped):
    """An oracle that keeps the points at which it was asked."""

    def __init__(self, inner: Oracle) -> None:
        super().__init__(inner)
        self.asked: list[np.ndarray] = []

    def at(self, x: Any, *data: Any) -> Any:
        self.asked.append(x)
        return super().at(x, *data)


@pytest.mark.parametrize("solver", [osculant.LBFGS(), osculant.BFGS()], ids=["lbfgs", "bfgs"])
@pytest.mark.parametrize("start", [0.0, 0.5, 50.0])
def test_the_first_step_tried_is_short_and_its_slopes_say_how_long_it_should_be(
    solver: Solver, start: float
) -> None:
    def fun(x: Any) -> Any:
        return 9 * (x[0] - 1) ** 2 / 2 + (x[1] + 2) ** 2 / 2

    x0 = np.array([start, 0.0])
    oracle = Recording(osculant.oracle(fun, x0))
    fixed = solver.deterministic()
    fixed.step(oracle, fixed.init(oracle, x0))
    g = np.array([9 * (start - 1), 2.0])
    short = -0.01 * max(1.0, start) * g / np.linalg.norm(g)
    cauchy = -(g @ g) / (9 * g[0] ** 2 + g[1] ** 2) * g
    longest = 50 * np.linalg.norm(short) / np.linalg.norm(cauchy)
    steps = [x - x0 for x in oracle.asked]
    np.testing.assert_allclose(steps, [0 * g, short, min(1.0, longest) * cauchy], rtol=1e-6)


def test_batches_get_the_quasi_newton_method_alone() -> None:
    oracle = osculant.oracle(lambda x, a: ((x - a) ** 2).sum(), np.zeros(2))
    solution = osculant.fit(oracle, np.zeros(2), [(1.0,), (1.0,)], solver="auto", epochs=4)
    assert not bool(solution.state.exact)
    np.testing.assert_allclose(solution.x, 1.0, rtol=1e-6)


def test_a_state_that_was_moved_goes_on_from_there() -> None:
    oracle = osculant.oracle(rosenbrock, np.zeros(2))
    solver = osculant.Auto()
    state = solver.step(oracle, solver.init(oracle, np.array([-1.2, 1.0])))
    moved = solver.step(oracle, state._replace(x=np.array([0.5, 0.5])))
    assert moved.value == pytest.approx(rosenbrock(np.array([0.5, 0.5])))


def test_steihaug_keeps_no_subspace_to_confirm_with() -> None:
    with pytest.raises(ValueError, match="gltr"):
        osculant.TrustRegion(subproblem="steihaug", second_order=True)
    assert not osculant.TrustRegion(subproblem="steihaug").deterministic().second_order


def test_a_stall_at_a_small_gradient_is_a_success() -> None:
    """Values too coarse to show the decrease that the model still promises."""

    def fun(x):
        return 1e3 + (x**2).sum() * 1e-9

    solution = osculant.minimize(fun, np.full(2, 30.0), tol=1e-6)
    assert solution.status is Status.CONVERGED
