"""Second-order Adam and adaptive descent: the step lengths that they find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import osculant
from osculant.core.arrays import namespace
from osculant.core.result import Status
from osculant.problems import digits, mlp
from osculant.problems.datasets import batches

H = np.array([0.01, 1.0, 30.0, 400.0])
START = np.array([1.0, -2.0, 3.0, 4.0])


def quadratic(x: Any, h: Any) -> Any:
    return namespace(x).sum(h * x * x) / 2


def run(solver: Any, backend: Any, steps: int, *, stay: bool = False, h: np.ndarray = H) -> Any:
    x, h = backend.from_numpy(START), backend.from_numpy(h)
    oracle = osculant.oracle(quadratic, x)
    step = oracle.flow.jit(type(solver).step, static=(0, 1))
    state = solver.init(oracle, x)
    for _ in range(steps):
        state = step(solver, oracle, state._replace(x=x) if stay else state, h)
    return state


def eta(solver: Any, state: Any) -> np.ndarray:
    one = np.ones_like(START)
    return (
        solver.learning_rate * solver._norm().solve(state.moments, one) * np.exp(state.log_factor)
    )


@pytest.mark.parametrize(
    "solver",
    [osculant.SecondOrderAdam(bound=1e3), osculant.AdaptiveDescent(learning_rate=1e-3)],
)
def test_step_lengths_on_a_diagonal_quadratic_are_the_inverse_hessian(solver: Any) -> None:
    """From wherever they start; held in place, so that the gradient does not vanish meanwhile."""
    state = run(solver, osculant.backends.get("numpy"), 600, stay=True)
    np.testing.assert_allclose(eta(solver, state) * H, 1.0, rtol=0.03)


@pytest.mark.parametrize("solver", [osculant.SecondOrderAdam(), osculant.AdaptiveDescent()])
def test_it_minimises_a_quadratic_whatever_the_first_step_length(solver: Any) -> None:
    state = run(solver, osculant.backends.get("numpy"), 700)
    assert float(state.value) < 1e-15


def test_the_rule_by_hand() -> None:
    solver = osculant.AdaptiveDescent(learning_rate=0.5, beta1=0.5, beta3=0.25, rate=0.1, period=2)
    x, log_factor, mean, drift, drifting, noise = START, np.zeros(4), 0.0, 0.0, 0.0, 0.0
    foretold = updates = 0.0
    oracle = osculant.oracle(quadratic, x)
    state = solver.init(oracle, x)
    for t, h in enumerate([H, 1.1 * H, 0.9 * H, 1.2 * H, H], 1):
        state = solver.step(oracle, state, h)
        g = h * x
        mean = 0.5 * mean + 0.5 * g
        ghat = mean / (1 - 0.5**t)
        step = 0.5 * np.exp(log_factor) * ghat
        if t % 2 == 0:
            noise = 0.25 * noise + 0.75 * (g - foretold) ** 2 / 2
        else:
            drift = 0.25 * drift + 0.75 * h * step
            drifting = 0.25 * drifting + 0.75 * ghat
            power = (drifting / (1 - 0.25 ** (updates + 1))) ** 2
            v = noise / (1 - 0.25**updates) if updates else 0.0
            signal = power / (power + v / 3)
            log_factor = log_factor + 0.1 * np.clip(signal - drift / drifting, -3, 1)
            foretold, updates = g - h * step, updates + 1
        x = x - step
        np.testing.assert_allclose(state.x, x, rtol=1e-12)
    assert int(state.counts.hvps) == 3 and int(state.counts.gradients) == 5


def test_noise_shortens_the_steps_to_the_share_of_the_signal() -> None:
    """On f = h x^2/2 + noise x, held at one x, eta ends near q/h."""
    rng = np.random.default_rng(0)
    x, h = np.ones(400), np.linspace(0.5, 2.0, 400)
    oracle = osculant.oracle(lambda x, h, b: (h * x * x).sum() / 2 + (b * x).sum(), x)
    solver = osculant.AdaptiveDescent(learning_rate=0.1, beta1=0.0, beta3=0.99, rate=0.02, period=1)
    state = solver.init(oracle, x)
    for _ in range(1500):
        state = solver.step(oracle, state._replace(x=x), h, 2 * h * rng.normal(size=400))
    # Held in place, what the step was to take from the gradient is in the surprise, too.
    eta_h = 0.1 * np.exp(state.log_factor) * h
    surprise = 2 * 4 + eta_h**2 * 5
    assert np.median(eta_h / (1 / (1 + surprise / 2))) == pytest.approx(1.0, abs=0.25)
    assert np.median(eta_h) < 0.35


def test_step_lengths_grow_under_negative_curvature_and_stay_without_a_gradient() -> None:
    state = run(
        osculant.AdaptiveDescent(learning_rate=1e-3),
        osculant.backends.get("numpy"),
        20,
        stay=True,
        h=np.array([-1.0, 0.0, 1.0, -5.0]),
    )
    np.testing.assert_allclose(state.log_factor[[0, 3]], 0.5)
    assert state.log_factor[1] == 0


def test_a_gradient_that_comes_back_moves_nothing_far() -> None:
    """On log(1 + exp(-b x)), whose gradient vanishes while b is 1, and comes back with b = -1."""
    oracle = osculant.oracle(lambda x, b: namespace(x).log1p(namespace(x).exp(-b * x)), START[0])
    solver = osculant.SecondOrderAdam(bound=20.0)
    state, longest = solver.init(oracle, START[:1]), 0.0
    for b in np.where(np.arange(1, 401) % 100, 1.0, -1.0):
        before, state = state.x, solver.step(oracle, state, b)
        longest = max(longest, float(np.max(np.abs(state.x - before))))
    assert 0.1 < longest <= 20 * solver.learning_rate * (1 + 1e-12)


def test_a_step_length_stays_finite_where_there_is_no_curvature() -> None:
    """In float32, where exp(100) is not, and infinity times a gradient of 0 is not a number."""
    c = np.array([1.0, -1.0, 0.0], dtype=np.float32)
    oracle = osculant.oracle(lambda x, c: (c * x).sum(), c)
    solver = osculant.SecondOrderAdam(rate=1.0, period=1)
    state = solver.init(oracle, np.zeros_like(c))
    for _ in range(120):
        state = solver.step(oracle, state, c)
    assert np.all(np.isfinite(np.exp(state.log_factor))) and state.log_factor.dtype == c.dtype
    np.testing.assert_allclose(np.sign(state.x), -c)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    oracle = osculant.oracle(quadratic, START)
    solver = osculant.SecondOrderAdam()
    before = solver.step(oracle, solver.init(oracle, START), H)
    after = solver.step(oracle, before, np.nan * H)
    assert after.status == Status.NOT_FINITE and int(after.counts.hvps) == 1
    for name in ("x", "mean", "drift", "log_factor", "t"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


@pytest.mark.parametrize(("size", "share"), [(None, 0.1), (64, 2.0)])
def test_it_trains_digits_as_well_as_the_best_adam_of_a_grid(
    size: int | None, share: float
) -> None:
    """At equal gradient-equivalents; benchmarks/second_order_adam.py has the rest."""
    problem, data = mlp([64, 32, 10], seed=0), digits()
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=problem.params)

    def loss(solver: Any) -> float:
        loader = batches(data.train, size, seed=0)
        solution = osculant.fit(oracle, problem.params, loader, solver=solver, budget=450)
        return float(oracle.value(solution.state.x, *data.train))

    adam = min(loss(osculant.Adam(learning_rate=rate)) for rate in (0.01, 0.03, 0.1))
    assert loss(osculant.SecondOrderAdam()) < share * adam


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bound": 0.0}, "bound is 0.0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"rate": -1.0}, "rate is -1.0"),
        ({"beta3": 1.0}, "beta3 is 1.0"),
        ({"period": 0}, "period is 0"),
    ],
)
def test_options_out_of_range_say_what_is_allowed(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        osculant.SecondOrderAdam(**options)
