"""Hessian-free optimisation: its CG, each of its mechanisms, and every backend."""

import numpy as np
import pytest

import osculant
from osculant.core.arrays import namespace
from osculant.core.flow import EAGER
from osculant.core.krylov.cg import cg_path, storage
from osculant.core.samples import Samples
from osculant.core.solvers.hessian_free import backtrack, fisher_diagonal, shorten
from osculant.problems import rosenbrock_residuals, sum_of_squares

X0 = np.array([0.1, -0.2, 0.3])


def model(x, inputs):
    xp = namespace(x)
    return xp.tanh(xp.matmul(inputs, x))


def loss(outputs, targets):
    return namespace(outputs).mean((outputs - targets) ** 2)


def batches(backend, n=10):
    rng = np.random.default_rng(0)
    for _ in range(n):
        yield tuple(backend.from_numpy(rng.normal(size=size)) for size in ((16, 3), (16,)))


def composition(backend):
    return osculant.oracle(model=model, loss=loss, params=backend.from_numpy(X0))


def spd(n, condition=100.0):
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))
    return (Q * np.geomspace(1, condition, n)) @ Q.T


def path_of(A, b, x=None, *, P=1.0, tolerance=0.0, maxiter=40):
    return cg_path(
        lambda v: A @ v,
        b,
        np.zeros_like(b) if x is None else x,
        precondition=lambda v: v / P,
        tolerance=tolerance,
        maxiter=maxiter,
        active=np.asarray(True),
        flow=EAGER,
    )


# Conjugate gradients -----------------------------------------------------------------------------


@pytest.mark.parametrize("P", [1.0, np.linspace(1, 30, 12)], ids=["plain", "preconditioned"])
def test_cg_solves_and_counts(P):
    A, b = spd(12), np.arange(12.0) + 1
    path = path_of(A, b, P=P, maxiter=14)
    np.testing.assert_allclose(path.x, np.linalg.solve(A, b), rtol=1e-6)
    assert int(path.products) == int(path.iterations) <= 14
    warm = path_of(A, b, np.linalg.solve(A, b), P=P)
    assert int(warm.products) == int(warm.iterations) + 1
    np.testing.assert_allclose(warm.x, np.linalg.solve(A, b), rtol=1e-6)


def test_phi_is_the_quadratic_and_the_store_holds_the_iterates():
    A, b = spd(30, 1e4), np.ones(30)
    path = path_of(A, b, maxiter=25)
    for row, i in enumerate(storage(25)):
        x = path_of(A, b, maxiter=i).x
        np.testing.assert_allclose(path.stored[row], x, rtol=1e-9)
        np.testing.assert_allclose(path.phi[i], x @ A @ x / 2 - b @ x, rtol=1e-9)


def test_store_is_geometrically_spaced_and_bounded():
    assert storage(12) == [1, 2, 3, 4, 5, 7, 9, 11]
    assert storage(1) == [1]
    assert len(storage(250)) == 20 and max(storage(250)) <= 250


def test_stop_is_by_relative_progress():
    """At the first i > k with phi_i < 0 and (phi_i - phi_{i-k}) / phi_i < k 5e-4."""
    A, b = spd(300, 1e5), np.random.default_rng(1).normal(size=300)
    full, path = path_of(A, b, maxiter=250), path_of(A, b, tolerance=5e-4, maxiter=250)
    phi = full.phi

    def stops(i):
        k = max(10, i // 10)
        return i > k and phi[i] < 0 and (phi[i] - phi[i - k]) / phi[i] < k * 5e-4

    expected = next(i for i in range(1, 251) if stops(i))
    assert int(path.iterations) == expected > 100  # where k is more than 10
    np.testing.assert_array_equal(path.x, path_of(A, b, maxiter=expected).x)


def test_direction_of_negative_curvature_ends_cg_where_it_is():
    path = path_of(np.diag([1.0, -5.0]), np.array([1.0, 1.0]))
    assert bool(path.done) and int(path.iterations) == 1
    np.testing.assert_array_equal(path.x, np.zeros(2))


# Backtracking over iterates, and along the chosen one ---------------------------------------------


def test_backtracking_stops_where_the_function_no_longer_falls():
    path = path_of(spd(30, 1e4), np.ones(30), maxiter=25)
    tried = []

    def value_at(p):  # least at the iterate of i = 7
        tried.append(p)
        return ((p - path.stored[storage(25).index(7)]) ** 2).sum()

    chosen = backtrack(value_at, path, 25, active=np.asarray(True), flow=EAGER)
    np.testing.assert_array_equal(chosen.p, path.stored[storage(25).index(7)])
    assert float(chosen.phi) == path.phi[7]
    later = [i for i in storage(25) if 7 <= i < int(path.iterations)]
    assert int(chosen.tries) == len(tried) == 1 + len(later) + 1


def test_backtracking_keeps_the_last_iterate_if_that_is_best():
    path = path_of(spd(30, 1e4), np.ones(30), maxiter=25)
    chosen = backtrack(
        lambda p: ((p - path.x) ** 2).sum(), path, 25, active=np.asarray(True), flow=EAGER
    )
    np.testing.assert_array_equal(chosen.p, path.x)
    assert int(chosen.tries) == 2


@pytest.mark.parametrize(
    ("value", "rate"),
    [(lambda r: 1 - r / 2, 1.0), (lambda r: 1 - r + r * r, 0.8**1), (lambda r: np.nan, 0.0)],
)
def test_line_search_takes_the_first_sufficient_length(value, rate):
    found = shorten(
        value,
        np.asarray(1.0),
        np.asarray(-1.0),
        np.asarray(value(1.0)),
        active=np.asarray(True),
        flow=EAGER,
    )
    assert float(found.rate) == pytest.approx(rate)


# The mechanisms in a step -------------------------------------------------------------------------


def full_step(solver, x, *data, **changes):
    oracle = osculant.oracle(model=model, loss=loss, params=X0)
    return solver.step(oracle, solver.init(oracle, x)._replace(**changes), *data)


def test_step_solves_the_damped_gauss_newton_system():
    from osculant import backends

    batch = next(batches(backends.get("numpy")))
    pt = osculant.oracle(model=model, loss=loss, params=X0).at(X0, *batch)
    state = full_step(osculant.HessianFree(damping=0.3), X0, *batch)
    step = -np.linalg.solve(pt.ggn(np.eye(3)) + 0.3 * np.eye(3), pt.grad)
    np.testing.assert_allclose(state.search, step, rtol=1e-6)
    assert float(state.step_length) == 1.0


def test_next_search_starts_from_the_decayed_last_one(monkeypatch):
    from osculant import backends

    first, second = list(batches(backends.get("numpy"), 2))
    solver = osculant.HessianFree()
    state = full_step(solver, X0, *first)
    oracle = osculant.oracle(model=model, loss=loss, params=X0)
    seen, kind = [], type(oracle.at(X0, *first))
    original = kind.ggn
    monkeypatch.setattr(kind, "ggn", lambda self, v: seen.append(v) or original(self, v))
    solver.step(oracle, state, *second)
    np.testing.assert_allclose(seen[0], 0.95 * state.search)
    seen.clear()
    osculant.HessianFree(decay=0.0).step(oracle, state, *second)
    assert np.abs(seen[0]).max() > 0  # no product is spent on a start at 0


def test_preconditioner_is_the_damped_fisher_diagonal_to_three_quarters():
    from osculant import backends

    batch = next(batches(backends.get("numpy")))
    oracle = osculant.oracle(model=model, loss=loss, params=X0)
    pt = oracle.at(X0, *batch)
    solver = osculant.HessianFree(damping=0.3, max_inner=1, chunks=16)
    P = (fisher_diagonal(oracle, X0, batch, 16) + 0.3) ** 0.75
    p = -pt.grad / P
    G = pt.ggn(np.eye(3)) + 0.3 * np.eye(3)
    state = full_step(solver, X0, *batch)
    np.testing.assert_allclose(state.search, -(p @ pt.grad) / (p @ G @ p) * p, rtol=1e-10)


def test_fisher_diagonal_of_single_samples_is_the_mean_square():
    from osculant import backends

    inputs, targets = next(batches(backends.get("numpy")))
    oracle = osculant.oracle(model=model, loss=loss, params=X0)
    single = np.stack(
        [oracle.at(X0, inputs[i : i + 1], targets[i : i + 1]).grad for i in range(16)]
    )
    exact = (single**2).mean(axis=0)
    estimate = fisher_diagonal(oracle, X0, (inputs, targets), 16)
    np.testing.assert_allclose(estimate, exact + single.var(axis=0) / 15, rtol=1e-10)


def test_fisher_diagonal_of_chunks_is_right_on_average():
    rng = np.random.default_rng(0)
    oracle = osculant.oracle(lambda x, c: (c @ x).mean(), np.zeros(2))
    c = rng.normal(loc=[1.0, -3.0], scale=[2.0, 0.5], size=(40_000, 2))
    estimates = [fisher_diagonal(oracle, np.zeros(2), (part,), 4) for part in np.split(c, 1000)]
    np.testing.assert_allclose(np.mean(estimates, axis=0), [1 + 4, 9 + 0.25], rtol=0.05)


@pytest.mark.parametrize(
    ("scale", "moved"), [(0.1, 3 / 2), (0.5, 1.0), (1.0, 2 / 3)], ids=["poor", "fair", "good"]
)
def test_lambda_follows_the_ratio(scale, moved):
    """The ratio's sample sees ``scale`` times a quadratic, so that the ratio is scale itself."""
    oracle = osculant.oracle(
        model=lambda x, c: np.sqrt(c) * x, loss=lambda r, _: (r * r).sum() / 2, params=np.ones(3)
    )
    one, other = (np.ones(3), 0.0), (scale * np.ones(3), 0.0)
    solver = osculant.HessianFree(damping=0.5, chunks=0)
    state = solver.init(oracle, np.ones(3))
    after = solver.step(oracle, state, Samples(one, one, other))
    assert float(after.damping) == pytest.approx(0.5 * moved)


def test_curvature_has_a_sample_of_its_own():
    oracle = osculant.oracle(
        model=lambda x, c: c * x, loss=lambda r, _: (r * r).sum() / 2, params=np.ones(3)
    )
    c, k = np.array([1.0, 2.0, 3.0]), np.array([4.0, 3.0, 5.0])
    solver = osculant.HessianFree(damping=0.5, chunks=0)
    state = solver.init(oracle, np.ones(3))
    after = solver.step(oracle, state, Samples((c, 0.0), (k, 0.0), (c, 0.0)))
    np.testing.assert_allclose(after.search, -(c**2) / (k**2 + 0.5), rtol=1e-8)
    assert int(after.counts.gradients) == 2


def test_step_out_of_the_domain_is_shortened_or_refused(backend):
    def barrier(outputs):
        return namespace(outputs).sum(outputs - namespace(outputs).log(outputs))

    x = backend.from_numpy(np.array([5.0]))
    oracle = osculant.oracle(model=lambda x: x + 0.0, loss=barrier, params=x)
    solver = osculant.HessianFree(damping=1e-3, chunks=0)
    with np.errstate(invalid="ignore"):
        state = solver.step(oracle, solver.init(oracle, x))
    assert 0 < float(state.step_length) < 1 and float(state.x[0]) > 0
    assert float(state.damping) == pytest.approx(1e-2)


def test_counts_are_what_was_evaluated(monkeypatch):
    from osculant import backends

    first, second = list(batches(backends.get("numpy"), 2))
    oracle = osculant.oracle(model=model, loss=loss, params=X0)
    solver, calls = osculant.HessianFree(chunks=4), {"ggns": 0, "values": 0, "gradients": 0}
    state = solver.step(oracle, solver.init(oracle, X0), *first)
    for owner, method, name in (
        (type(oracle.at(X0, *first)), "ggn", "ggns"),
        (type(oracle), "value", "values"),
        (type(oracle), "at", "gradients"),
    ):
        original = getattr(owner, method)

        def counted(self, *args, name=name, original=original):
            calls[name] += 1
            return original(self, *args)

        monkeypatch.setattr(owner, method, counted)
    after = solver.step(oracle, state, *second)
    spent = {n: int(getattr(after.counts, n)) - int(getattr(state.counts, n)) for n in calls}
    calls["gradients"] -= 4 - 1  # four quarters of a batch are one gradient
    assert spent == calls


@pytest.mark.parametrize(
    "change",
    [
        {"damping": 5.0},
        {"tolerance": 0.1},
        {"max_inner": 2},
        {"decay": 0.0},
        {"exponent": 0.0},
        {"chunks": 0},
    ],
    ids=str,
)
def test_every_option_changes_the_trajectory(change):
    from dataclasses import replace

    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(64, 20)) * np.geomspace(1, 0.01, 20), rng.normal(size=64)
    oracle = osculant.oracle(model=model, loss=loss, params=np.zeros(20))

    def run(solver):
        state = solver.init(oracle, np.zeros(20))
        for _ in range(3):
            state = solver.step(oracle, state, inputs, targets)
        return state.x

    base = osculant.HessianFree(damping=0.01, max_inner=12)
    # A looser tolerance ends CG, which has nearly converged, one iteration earlier.
    assert np.abs(run(base) - run(replace(base, **change))).max() > 1e-10


# Backends, transformations ------------------------------------------------------------------------


def test_it_solves_rosenbrock(backend):
    x = backend.from_numpy(np.array([-1.2, 1.0]))
    oracle = osculant.oracle(model=rosenbrock_residuals, loss=sum_of_squares, params=x)
    solution = osculant.minimize(oracle, x, method="hessian-free", tol=1e-8)
    assert solution.success and solution.nit < 40
    np.testing.assert_allclose(backend.to_numpy(solution.x), np.ones(2), rtol=1e-6)


def test_float32_stays_float32(backend):
    x = backend.from_numpy(X0.astype(np.float32))
    rng = np.random.default_rng(0)
    batch = [backend.from_numpy(rng.normal(size=s).astype(np.float32)) for s in ((16, 3), (16,))]
    oracle = osculant.oracle(model=model, loss=loss, params=x)
    solver = osculant.HessianFree()
    before = solver.init(oracle, x)
    after = solver.step(oracle, solver.step(oracle, before, *batch), *batch)
    for field, value in before._asdict().items():
        if field != "counts":
            assert getattr(after, field).dtype == value.dtype, field


def test_jit_and_vmap_agree_with_the_eager_step():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    jnp = jax.numpy
    solver = osculant.HessianFree(max_inner=20)
    oracle = osculant.oracle(model=model, loss=loss, params=jnp.asarray(X0))
    rng = np.random.default_rng(0)
    starts = jnp.asarray(rng.normal(size=(3, 3)))
    batch = jnp.asarray(rng.normal(size=(16, 3))), jnp.asarray(rng.normal(size=16))

    def two_steps(x):
        state = solver.step(oracle, solver.init(oracle, x), *batch)
        return solver.step(oracle, state, *batch).x

    batched = jax.jit(jax.vmap(two_steps))(starts)
    np.testing.assert_allclose(batched, [two_steps(x) for x in starts], rtol=1e-8)


def test_it_uses_nothing_beyond_the_array_api():
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")

    def run(module):
        x = module.asarray(np.array([-1.2, 1.0]))
        oracle = osculant.oracle(model=rosenbrock_residuals, loss=sum_of_squares, params=x)
        return osculant.minimize(oracle, x, method="hessian-free", tol=1e-6)

    assert run(strict).nit == run(np).nit


# Options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": 0.0}, "damping is 0.0"),
        ({"tolerance": -1.0}, "tolerance is -1.0"),
        ({"max_inner": 0}, "max_inner is 0"),
        ({"decay": 1.5}, "decay is 1.5"),
        ({"exponent": -0.5}, "exponent is -0.5"),
        ({"chunks": 1}, "chunks is 1"),
    ],
)
def test_options_out_of_range_say_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        osculant.HessianFree(**options)


def test_batch_that_cannot_be_cut_says_what_to_do():
    oracle = osculant.oracle(model=model, loss=loss, params=X0)
    solver = osculant.HessianFree(chunks=8)
    with pytest.raises(ValueError, match="pass chunks=0"):
        solver.step(oracle, solver.init(oracle, X0), np.ones((4, 3)), np.ones(4))
