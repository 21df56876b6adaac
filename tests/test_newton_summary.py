"""NewtonSummary and its parts: the cubic step, the limits it recovers, its invariance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from hypothesis import example, given, settings
from hypothesis import strategies as st

import osculant
from osculant.core.arrays import namespace
from osculant.core.flow import EAGER
from osculant.core.globalize.anisotropic import cubic_step, inverse, positive_cubic_step
from osculant.core.globalize.plateau import Plateau
from osculant.core.partition import Partition
from osculant.core.result import Status
from osculant.core.samples import Samples
from osculant.core.solvers.first_order import SGD, Adam
from osculant.core.solvers.newton_summary import NewtonSummary
from osculant.problems import digits, mlp

# The cubic step ------------------------------------------------------------------------------


def cubic_model(eta: np.ndarray, H: np.ndarray, D: np.ndarray, g: np.ndarray, lam: float) -> Any:
    return -g @ eta + eta @ H @ eta / 2 + lam / 6 * np.linalg.norm(D * eta) ** 3


def brute_force(H: np.ndarray, D: np.ndarray, g: np.ndarray, lam: float) -> float:
    """Return the least value that SciPy finds from many starts."""
    rng = np.random.default_rng(0)
    scale = 1 + np.abs(H).max() / (lam * max(D.min(), 0.1) ** 3)

    def gradient(eta: np.ndarray, *_: Any) -> np.ndarray:
        return -g + H @ eta + lam / 2 * np.linalg.norm(D * eta) * D**2 * eta

    starts = [np.zeros(len(g)), *scale * rng.normal(size=(20, len(g)))]
    runs = [
        scipy.optimize.minimize(cubic_model, s, args=(H, D, g, lam), jac=gradient) for s in starts
    ]
    return min(run.fun for run in runs)


def symmetric(n: int) -> Any:
    entries = st.floats(-4, 4).map(lambda a: round(a, 3))
    return st.lists(entries, min_size=n * n, max_size=n * n).map(
        lambda a: np.reshape(a, (n, n)) + np.reshape(a, (n, n)).T
    )


@st.composite
def cubic_models(draw: Any) -> Any:
    """Definite, indefinite and singular matrices, with entries of D down to 0."""
    n = draw(st.integers(1, 4))
    H = draw(symmetric(n))
    if draw(st.booleans()):
        H = H @ H / 4
    weights = st.sampled_from([0.0, 1e-9, 0.1, 0.5, 1.0, 3.0])
    D = np.array(draw(st.lists(weights, min_size=n, max_size=n)))
    slopes = st.floats(-4, 4).map(lambda a: round(a, 3))
    g = np.array(draw(st.lists(slopes, min_size=n, max_size=n)))
    return H, D, g, draw(st.sampled_from([0.1, 1.0, 10.0]))


@settings(max_examples=300, deadline=None)
@given(cubic_models())
@example((np.diag([2.0, 1.0]), np.array([1.0, 0.0]), np.array([1.0, 1.0]), 1.0))
@example(
    (
        np.array([[0.25, 0.5, 0.0], [0.5, 1.25, 0.0], [0.0, 0.0, 1.0]]),
        np.array([0.0, 1e-9, 0.1]),
        np.array([0.0, 1.0, 0.0]),
        0.1,
    )
)
@example((np.diag([-2.0, 1.0]), np.array([1.0, 0.0]), np.array([1.0, 1.0]), 1.0))
@example((np.array([[-3.078]]), np.array([1e-9]), np.array([4.0]), 10.0))
@example(
    (
        np.array([[0.0, 1.0, 1.0], [1.0, 2.0, 0.0], [1.0, 0.0, 0.0]]),
        np.array([1e-9, 0.0, 0.1]),
        np.array([0.0, 0.0, 1.0]),
        0.1,
    )
)
@example((np.array([[0.0, 1.0], [1.0, 0.0]]), np.ones(2), np.array([1.0, 2.0]), 1.0))
def test_cubic_step_is_the_stationary_point_where_the_matrix_is_definite(model: Any) -> None:
    H, D, g, lam = model
    step = cubic_step(H, D, g, lam, EAGER)
    if not step.solved:
        assert not np.any(step.eta)
        return
    M = H + lam / 2 * float(step.r) * np.diag(D**2)
    size = (np.abs(H) + np.abs(M - H)) @ np.abs(step.eta) + np.abs(g)
    energy = np.abs(np.diag(M)) * (np.abs(step.eta) @ size)
    assert np.all(np.abs(M @ step.eta - g) <= 1e-7 * (size + np.sqrt(energy)))
    np.testing.assert_allclose(np.linalg.norm(D * step.eta), step.r, rtol=1e-7, atol=1e-12)
    scale = np.sqrt(np.abs(np.diag(H)) + np.diag(M - H))
    scale = 1 / np.where(scale > 0, scale, 1.0)
    assert np.linalg.eigvalsh(scale[:, None] * M * scale)[0] >= -1e-7


@settings(max_examples=100, deadline=None)
@given(cubic_models())
@example((np.diag([0.0, 1.0, 1.0])[:, [0, 2, 1]], np.zeros(3), np.array([0.0, 0.0, 2.0]), 0.1))
@example(
    (
        np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 2.0]]),
        np.zeros(3),
        np.array([0.0, 0.0, 1.0]),
        0.1,
    )
)
def test_cubic_step_is_solved_wherever_it_can_be(model: Any) -> None:
    """Not definite for any r, or nothing along the singular direction: there is no other reason."""
    H, D, g, lam = model
    D = np.maximum(D, 0.1)
    if cubic_step(H, D, g, lam, EAGER).solved:
        return
    w, V = np.linalg.eigh(H / D[:, None] / D)
    low = w < w[0] + 1e-9 * np.abs(w).max()
    assert w[0] < 1e-9 and np.linalg.norm(V[:, low].T @ (g / D)) < 1e-6


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("case", ["definite", "indefinite", "vanishing D"])
def test_cubic_step_is_the_global_minimum(case: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 1 + seed % 4
    H = rng.normal(size=(n, n))
    H = H @ H.T if case == "definite" else H + H.T
    D, g, lam = rng.uniform(0.3, 2, size=n), rng.normal(size=n), 10 ** rng.uniform(-1, 1)
    if case == "vanishing D":
        D[0], H[0, 0] = 0.0, 5.0
    step = cubic_step(H, D, g, lam, EAGER)
    least = brute_force(H, D, g, lam)
    assert step.solved
    assert cubic_model(step.eta, H, D, g, lam) == pytest.approx(least, rel=1e-7, abs=1e-9)


def test_cubic_step_in_closed_form() -> None:
    """One group: eta (H + lam/2 D^3 |eta|) = g."""
    for H, D, g, lam in [(2.0, 1.0, 3.0, 2.0), (-2.0, 1.0, 3.0, 2.0), (-2.0, 0.5, -3.0, 1.0)]:
        a = lam / 2 * D**3
        eta = np.sign(g) * (-H + np.sqrt(H * H + 4 * a * abs(g))) / (2 * a)
        arrays = (np.array(H).reshape(1, 1), np.array([D]), np.array([g]))
        np.testing.assert_allclose(cubic_step(*arrays, lam, EAGER).eta, [eta], rtol=1e-14)


@pytest.mark.parametrize(
    ("H", "D", "g"),
    [
        (np.diag([1.0, -1.0]), [1.0, 0.0], [1.0, 1.0]),  # unbounded below
        (np.diag([1.0, -1.0]), [1.0, 1.0], [1e-3, 0.0]),  # the hard case
        (np.diag([1.0, np.nan]), [1.0, 1.0], [1.0, 1.0]),
        (np.eye(2), [1.0, np.inf], [1.0, 1.0]),
        (-np.eye(2), [1.0, 1.0], [0.0, 0.0]),
    ],
)
def test_cubic_step_without_a_solution_says_so(backend: Any, H: Any, D: Any, g: Any) -> None:
    arrays = [backend.from_numpy(np.asarray(a, float)) for a in (H, D, g)]
    step = cubic_step(*arrays, 1.0, EAGER)
    assert not bool(step.solved) and not np.any(backend.to_numpy(step.eta))


def test_scaling_a_group_scales_its_step_the_other_way() -> None:
    rng = np.random.default_rng(0)
    H, D, g = rng.normal(size=(5, 5)), rng.uniform(0.1, 2, 5), rng.normal(size=5)
    H, c = H + H.T, 10.0 ** rng.uniform(-6, 6, 5)
    eta = cubic_step(H, D, g, 1.0, EAGER).eta
    scaled = cubic_step(c[:, None] * H * c, c * D, c * g, 1.0, EAGER).eta
    np.testing.assert_allclose(scaled * c, eta, rtol=1e-10)


def test_groups_on_which_nothing_depends_are_left_out() -> None:
    H, D, g = np.diag([2.0, 0.0, 4.0]), np.array([1.0, 0.0, 1.0]), np.array([1.0, 0.0, 1.0])
    H[0, 2] = H[2, 0] = 1.0
    found, rest = cubic_step(H, D, g, 1.0, EAGER), [0, 2]
    alone = cubic_step(H[np.ix_(rest, rest)], D[rest], g[rest], 1.0, EAGER)
    np.testing.assert_allclose(found.eta[rest], alone.eta, rtol=1e-14)
    assert found.solved and found.eta[1] == 0
    P, regular = inverse(H)
    assert regular and not P[1].any() and not P[:, 1].any()
    np.testing.assert_allclose(
        P[np.ix_(rest, rest)], np.linalg.inv(H[np.ix_(rest, rest)]), rtol=1e-14
    )


@pytest.mark.parametrize("seed", range(20))
def test_positive_cubic_step_is_close_to_the_least_with_eta_positive(seed: int) -> None:
    """Of a definite model of collinear directions, against SciPy's non-negative least squares."""
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(12, 10)) + 2 * rng.normal(size=(12, 1)), rng.normal(size=12)
    H, g, none = A.T @ A, A.T @ b, np.zeros(10)
    least = cubic_model(scipy.optimize.nnls(A, b)[0], H, none, g, 0.0)
    step = positive_cubic_step(H, none, g, 0.0, EAGER)
    assert step.solved and np.all(step.eta >= 0)
    assert cubic_model(step.eta, H, none, g, 0.0) <= 0.5 * least
    clipped = np.maximum(cubic_step(H, none, g, 0.0, EAGER).eta, 0.0)
    assert cubic_model(clipped, H, none, g, 0.0) > 0.5 * least


def test_positive_cubic_step_solves_again_without_the_negative() -> None:
    H, D, g = np.array([[2.0, 1.9], [1.9, 2.0]]), np.array([0.5, 1.0]), np.array([2.0, 1.0])
    step, alone = positive_cubic_step(H, D, g, 1.0, EAGER), (H[:1, :1], D[:1], g[:1])
    assert cubic_step(H, D, g, 1.0, EAGER).eta[1] < 0
    expected = cubic_step(*alone, 1.0, EAGER).eta
    np.testing.assert_allclose(step.eta, [expected[0], 0.0], rtol=1e-14)


def test_inverse_of_a_badly_scaled_indefinite_matrix_and_of_a_singular_one() -> None:
    H = np.array([[1.0, 2.0], [2.0, 1.0]])
    c = np.array([1e-9, 1e7])
    P, regular = inverse(c[:, None] * H * c)
    assert regular
    np.testing.assert_allclose(c[:, None] * P * c, np.linalg.inv(H), rtol=1e-13)
    for singular in (np.ones((2, 2)), np.diag([1.0, np.nan])):
        P, regular = inverse(singular)
        assert not regular and not P.any()


# The solver ----------------------------------------------------------------------------------

A = np.array([[0.9, -0.4, 0.3], [0.2, 1.1, -0.6], [-0.5, 0.3, 0.8], [0.1, 0.7, 0.4]])
PARAMS = {"a": np.array([0.4, -0.3]), "b": np.array([0.6])}
EXACT = {
    "lam_int": 0.0,
    "damping": 1.0,
    "period": 1,
    "averaging": 0.0,
    "positive": False,
    "direction": SGD(),
}


def convex(x: Any) -> Any:
    """Return sum log cosh(A x - b) + 0.05 |x|^2 over two tensors: smooth, and nowhere quadratic."""
    xp = namespace(x["a"])
    flat = xp.concat([x["a"], x["b"]])
    z = [sum(float(r) * flat[i] for i, r in enumerate(row)) - 0.3 * k for k, row in enumerate(A)]
    return sum(xp.log(xp.exp(a) + xp.exp(-a)) for a in z) + 0.05 * xp.sum(flat * flat)


def dense(oracle: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pt = oracle.at(x)
    return pt.grad, pt.hvp(np.eye(len(x)))


def test_the_trivial_partition_is_cauchys_steepest_descent() -> None:
    oracle = osculant.oracle(convex, PARAMS)
    solver = NewtonSummary(partition="trivial", **EXACT)
    state = solver.init(oracle, oracle.ravel(PARAMS))
    x = state.x
    for _ in range(5):
        g, H = dense(oracle, x)
        state = solver.step(oracle, state)
        np.testing.assert_allclose(state.summary.eta, [g @ g / (g @ H @ g)], rtol=1e-12)
        x = x - g @ g / (g @ H @ g) * g
        np.testing.assert_allclose(state.x, x, rtol=1e-12)


def test_the_discrete_partition_is_newtons_method() -> None:
    oracle = osculant.oracle(convex, PARAMS)
    solver = NewtonSummary(partition="discrete", **EXACT)
    state = solver.init(oracle, oracle.ravel(PARAMS))
    x = state.x
    for _ in range(6):
        g, H = dense(oracle, x)
        state, x = solver.step(oracle, state), x - np.linalg.solve(H, g)
        np.testing.assert_allclose(state.x, x, rtol=1e-11, atol=1e-11)
    assert np.abs(state.grad).max() < 1e-8


def test_summary_and_step_are_the_papers_equation() -> None:
    oracle = osculant.oracle(convex, PARAMS)
    solver = replace(NewtonSummary(), direction=SGD(), period=1, lam_int=2.0, damping=0.7)
    x = oracle.ravel(PARAMS)
    state = solver.step(oracle, solver.init(oracle, x))
    g, H = dense(oracle, x)
    U = np.array([[g[0], 0], [g[1], 0], [0, g[2]]])
    s = state.summary
    np.testing.assert_allclose(s.gbar, U.T @ g, rtol=1e-14)
    np.testing.assert_allclose(s.Hbar, U.T @ H @ U, rtol=1e-13)
    np.testing.assert_allclose(s.Hbar_inverse, np.linalg.inv(U.T @ H @ U), rtol=1e-12)
    np.testing.assert_allclose(s.D, np.abs(oracle.at(x).third(U)) ** (1 / 3), rtol=1e-12)
    r = np.linalg.norm(s.D * s.eta)
    np.testing.assert_allclose((s.Hbar + r * np.diag(s.D**2)) @ s.eta, s.gbar, rtol=1e-12)
    np.testing.assert_allclose(state.x, x - 0.7 * U @ s.eta, rtol=1e-14)


SCALES, SHIFTS = {"a": 25.0, "b": 1e-3}, {"a": 0.7, "b": -2.0}


@pytest.mark.parametrize(
    "direction", [SGD(), SGD(momentum=0.9, dampening=0.9), SGD(momentum=0.5, nesterov=True)]
)
def test_affine_reparameterisation_of_the_groups_changes_nothing(direction: SGD) -> None:
    problem, data = mlp([64, 12, 10], seed=0), digits().train
    batches = [tuple(a[i : i + 100] for a in data) for i in range(0, 1000, 100)] * 2
    start = problem.params
    scales = [{"weight": 30.0, "bias": 1e-2}, {"weight": 1e-3, "bias": 7.0}]
    shifts = [{"weight": 0.1, "bias": -0.5}, {"weight": -0.3, "bias": 2.0}]

    def mapped(function: Any) -> Any:
        return [
            {name: function(leaf, c[name], d[name]) for name, leaf in layer.items()}
            for layer, c, d in zip(start, scales, shifts, strict=True)
        ]

    def model(params: Any, inputs: Any) -> Any:  # x = c y + d in each tensor
        layers = zip(params, scales, shifts, strict=True)
        own = [{k: c[k] * layer[k] + d[k] for k in layer} for layer, c, d in layers]
        return problem.model(own, inputs)

    reparameterised = mapped(lambda leaf, c, d: (leaf - d) / c)
    plain = osculant.oracle(model=problem.model, loss=problem.loss, params=start)
    other = osculant.oracle(model=model, loss=problem.loss, params=reparameterised)
    c, d = (plain.ravel(mapped(lambda leaf, *cd, k=k: 0 * leaf + cd[k])) for k in (0, 1))
    solver = NewtonSummary(direction=direction, period=2, momentum=0.5)
    ours, theirs = (
        solver.init(oracle, oracle.ravel(params))
        for oracle, params in ((plain, start), (other, reparameterised))
    )
    for batch in batches:
        ours, theirs = solver.step(plain, ours, *batch), solver.step(other, theirs, *batch)
        np.testing.assert_allclose(c * theirs.x + d, ours.x, rtol=1e-8, atol=1e-8)
        assert float(theirs.value) == pytest.approx(float(ours.value), rel=1e-8)
    assert int(ours.summary.solutions) == 10 and float(ours.value) < 1.0


def test_all_backends_train_alike(backend: Any) -> None:
    reference, losses = (_losses(b) for b in (osculant.backends.get("numpy"), backend))
    np.testing.assert_allclose(losses, reference, rtol=1e-9)
    assert losses[-1] < 0.8 * losses[0]


def _losses(backend: Any) -> list[float]:
    problem, data = mlp([64, 12, 10], seed=0), digits().train
    layers = [{k: backend.from_numpy(a) for k, a in layer.items()} for layer in problem.params]
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=layers)
    batches = [tuple(backend.from_numpy(a[i : i + 128]) for a in data) for i in range(0, 1280, 128)]
    solver = NewtonSummary(period=3, plateau=Plateau(every=2, patience=0))
    return osculant.fit(oracle, layers, batches, solver=solver).history["fun"]


def test_a_step_can_be_jitted_and_vmapped() -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    solver, params = NewtonSummary(period=2), {k: jax.numpy.asarray(a) for k, a in PARAMS.items()}
    oracles = [osculant.oracle(convex, tree) for tree in (PARAMS, params)]
    step = jax.jit(lambda state: solver.step(oracles[1], state))
    eager, jitted = (
        solver.init(oracle, oracle.ravel(PARAMS if oracle is oracles[0] else params))
        for oracle in oracles
    )
    starts = jitted.x * jax.numpy.asarray([[1.0], [0.5], [-1.0]])
    init = jax.vmap(lambda x: solver.init(oracles[1], x))
    together = jax.vmap(step)(init(starts))
    for _ in range(3):
        eager, jitted = solver.step(oracles[0], eager), step(jitted)
        np.testing.assert_allclose(jitted.x, eager.x, rtol=1e-9)
        np.testing.assert_allclose(jitted.summary.eta, eager.summary.eta, rtol=1e-9)
    one_by_one = [solver.step(oracles[0], solver.init(oracles[0], np.array(x))).x for x in starts]
    np.testing.assert_allclose(together.x, one_by_one, rtol=1e-9)


def test_float32_solves_the_small_system_in_float64_where_there_is_one(backend: Any) -> None:
    params = {name: backend.from_numpy(leaf.astype(np.float32)) for name, leaf in PARAMS.items()}
    oracle = osculant.oracle(convex, params)
    solver = NewtonSummary(period=1, momentum=0.0)
    state = solver.step(oracle, solver.init(oracle, oracle.ravel(params)))
    assert "float32" in str(state.x.dtype) and "float64" in str(state.summary.eta.dtype)


def test_jax_of_32_bits_stays_in_them() -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    with jax.enable_x64(False):
        params = {name: jax.numpy.asarray(leaf, "float32") for name, leaf in PARAMS.items()}
        oracle = osculant.oracle(convex, params)
        solution = osculant.minimize(oracle, params, method=NewtonSummary(), tol=1e-3)
        assert solution.success and solution.state.summary.eta.dtype == "float32"


# Its mechanisms ------------------------------------------------------------------------------


def cubic(x: Any, h: Any, b: Any) -> Any:
    """Return b'x + x'diag(h)x/2 + sum(x^3)/6."""
    xp = namespace(x)
    return xp.sum(b * x) + xp.sum(h * x * x) / 2 + xp.sum(x**3) / 6


def test_without_a_solution_the_last_step_lengths_are_kept() -> None:
    x, b = np.array([0.0, 0.0]), np.array([1.0, 2.0])
    oracle = osculant.oracle(cubic, x)
    solver = NewtonSummary(partition="discrete", **{**EXACT, "positive": True})
    singular = np.zeros(2)
    first = solver.step(oracle, solver.init(oracle, x), singular, b)
    np.testing.assert_array_equal(first.x, x)
    assert first.status == Status.STALLED and int(first.summary.solutions) == 0
    good = solver.step(oracle, first, np.array([2.0, 4.0]), b)
    np.testing.assert_allclose(good.summary.eta, [0.5, 0.25])
    nan = solver.step(oracle, good._replace(x=x), singular, b)
    np.testing.assert_array_equal(nan.summary.eta, good.summary.eta)
    assert not bool(nan.summary.solved) and nan.status == Status.RUNNING


def test_period_momentum_and_positive_part() -> None:
    x, b = np.zeros(2), np.array([1.0, 2.0])
    oracle = osculant.oracle(cubic, x)
    solver = NewtonSummary(
        partition="discrete",
        lam_int=0.0,
        direction=SGD(),
        period=2,
        averaging=0.0,
        momentum=0.25,
    )
    etas, state = [], solver.init(oracle, x)
    for h in ([2.0, 4.0], [9.0, 9.0], [1.0, 8.0], [9.0, 9.0], [1.0, -1.0]):
        state = solver.step(oracle, state._replace(x=x), np.array(h), b)
        etas.append(state.summary.eta)
    second = 0.25 * np.array([0.5, 0.25]) + 0.75 * np.array([1.0, 0.125])
    third = 0.25 * second + 0.75 * np.array([1.0, 0.0])
    np.testing.assert_allclose(etas, [[0.5, 0.25], [0.5, 0.25], second, second, third], rtol=1e-14)
    assert int(state.counts.hvps) == 6 and int(state.counts.gradients) == 5
    assert int(state.counts.thirds) == 0


def test_means_of_summaries() -> None:
    """A running mean at first, then a decayed one; a batch that is not finite has no part in it."""
    x, b = np.zeros(2), np.array([1.0, 2.0])
    oracle = osculant.oracle(cubic, x)
    solver = NewtonSummary(partition="discrete", **{**EXACT, "averaging": 0.6})
    state, mean = solver.init(oracle, x), 0.0
    for k, h in enumerate([2.0, 4.0, np.nan, 6.0, 8.0], 1):
        state = solver.step(oracle, state._replace(x=x), np.full(2, h), b)
        if np.isfinite(h):
            mean += (h - mean) * max(1 / (k - (k > 3)), 0.4)
        np.testing.assert_allclose(np.diag(state.summary.Hbar), mean * b * b, rtol=1e-14)
        np.testing.assert_allclose(state.summary.eta, 1 / mean, rtol=1e-14)
    assert int(state.summary.count) == int(state.summary.solutions) == 4


def test_gauss_newton_summaries(backend: Any) -> None:
    problem, data = mlp([64, 12, 10], seed=0), digits().train
    layers = [{k: backend.from_numpy(a) for k, a in layer.items()} for layer in problem.params]
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=layers)
    batch = tuple(backend.from_numpy(a[:100]) for a in data)
    solver = NewtonSummary(curvature="gauss-newton", lam_int=0.0, direction=SGD())
    state = solver.step(oracle, solver.init(oracle, oracle.ravel(layers)), *batch)
    pt = oracle.at(oracle.ravel(layers), *batch)
    U = solver.groups(oracle.structure).restrictions(pt.grad)
    expected = backend.to_numpy(U).T @ backend.to_numpy(pt.ggn(U))
    np.testing.assert_allclose(backend.to_numpy(state.summary.Hbar), expected, rtol=1e-10)
    assert int(state.counts.values) == 8 and int(state.counts.hvps) == 0
    plain = osculant.oracle(lambda x: (x * x).sum(), np.ones(2))
    with pytest.raises(osculant.ProductUnavailable, match="Gauss-Newton"):
        osculant.minimize(plain, np.ones(2), method=solver)


def test_the_curvature_has_a_sample_of_its_own() -> None:
    x, b = np.zeros(2), np.array([1.0, 2.0])
    oracle = osculant.oracle(cubic, x)
    solver = NewtonSummary(partition="discrete", **EXACT)
    assert "curvature" in solver.samples
    for_gradient, for_curvature = (np.array([9.0, 9.0]), b), (np.array([2.0, 4.0]), 3 * b)
    sample = Samples(for_gradient, for_curvature, for_gradient)
    state = solver.step(oracle, solver.init(oracle, x), sample)
    # gbar, too, is of the summary's sample: g'u_s with g = 3 b and u = b.
    np.testing.assert_allclose(state.summary.eta, [3 / 2, 3 / 4], rtol=1e-14)
    np.testing.assert_allclose(state.x, [-1.5, -1.5], rtol=1e-14)
    assert int(state.counts.gradients) == 2


def test_any_proposal_is_a_direction() -> None:
    problem, data = mlp([64, 12, 10], seed=0), digits().train
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=problem.params)
    for direction in (SGD(), Adam(), osculant.core.solvers.first_order.RMSProp()):
        solver = NewtonSummary(direction=direction, period=5)
        solution = osculant.fit(oracle, problem.params, [tuple(data)] * 30, solver=solver)
        assert solution.history["fun"][-1] < 0.3 * solution.history["fun"][0]


def test_own_partition_and_its_size() -> None:
    oracle = osculant.oracle(convex, PARAMS)
    own = Partition({"one": [slice(0, 1)], "rest": [slice(1, 3)]}, 3)
    assert own == Partition({"one": [slice(0, 1)], "rest": [slice(1, None)]}, 3)
    assert len({own, Partition({"one": [slice(0, 1)], "rest": [slice(1, 3)]}, 3)}) == 1
    solution = osculant.minimize(oracle, PARAMS, method=NewtonSummary(partition=own))
    assert solution.success
    wrong = NewtonSummary(partition=Partition({"all": [slice(0, 4)]}, 4))
    with pytest.raises(ValueError, match="partition is of 4 parameters, and the point has 3"):
        osculant.minimize(oracle, PARAMS, method=wrong)


def test_spread_is_what_restrictions_weigh() -> None:
    own = Partition({"a": [slice(3, 5), slice(0, 2)], "b": [slice(2, 3), slice(5, None)]}, 7)
    u, eta = np.arange(1.0, 8.0), np.array([2.0, -3.0])
    np.testing.assert_array_equal(own.spread(eta) * u, own.restrictions(u) @ eta)


def test_plateau_is_torchs_scheduler_on_window_means() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the reference")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    plateau = Plateau(every=3, patience=1, factor=0.5)
    state = plateau.init(np.zeros(1), 1.0)
    rng = np.random.default_rng(0)
    for window in range(40):
        losses = np.maximum(1.0, 3.0 - 0.2 * window) + 0.05 * rng.normal(size=3)
        for loss in losses:
            state = plateau.update(state, np.asarray(loss))
        scheduler.step(losses.mean())
        assert float(state.damping) == optimizer.param_groups[0]["lr"]
    assert float(state.damping) < 1e-2


def test_the_damping_scales_the_step_and_falls_on_a_plateau() -> None:
    oracle = osculant.oracle(lambda x: (x * x).sum(), np.ones(2))
    solver = NewtonSummary(
        partition="trivial", plateau=Plateau(every=1, patience=2), **{**EXACT, "damping": 1e-3}
    )
    state = solver.init(oracle, np.ones(2))
    state = solver.step(oracle, state)
    np.testing.assert_allclose(state.x, 1 - 1e-3, rtol=1e-14)
    for _ in range(4):
        state = solver.step(oracle, state._replace(x=np.ones(2)))
    assert float(solver.report(state)["damping"]) == 0.5e-3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"partition": "layers"}, ValueError, "one of canonical, trivial, discrete"),
        ({"direction": osculant.LBFGS()}, TypeError, "must be a first-order method"),
        ({"lam_int": -1.0}, ValueError, "lam_int is -1.0"),
        ({"damping": 0.0}, ValueError, "damping 0.0"),
        ({"period": 0}, ValueError, "period is 0"),
        ({"momentum": 1.0}, ValueError, "momentum is 1.0"),
        ({"averaging": -0.1}, ValueError, "averaging is -0.1"),
        ({"curvature": "fisher"}, ValueError, "curvature is 'fisher'"),
        ({"plateau": 3}, TypeError, "must be a Plateau"),
    ],
)
def test_options_out_of_range_say_what_is_allowed(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        NewtonSummary(**options)


def test_options_of_the_plateau() -> None:
    with pytest.raises(ValueError, match="every is 0"):
        Plateau(every=0)
    with pytest.raises(ValueError, match="factor is 2"):
        Plateau(factor=2.0)
