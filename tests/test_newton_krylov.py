"""Newton-Krylov over batches: each mechanism and each option, on every backend."""

from dataclasses import replace

import numpy as np
import pytest

import osculant
from osculant.core.arrays import namespace
from osculant.core.flow import EAGER
from osculant.core.globalize.direction import Direction, with_momentum
from osculant.core.samples import Samples
from osculant.problems import mlp

X0 = np.array([0.3, -0.5, 0.8])


def fun(x, A, b):
    """Quartic, so that the Taylor ratio is not 0: x'Ax/2 - b'x + sum x^4 / 12."""
    xp = namespace(x)
    return xp.sum(x * xp.matmul(A, x)) / 2 - xp.sum(b * x) + xp.sum(x**4) / 12


def quadratic(x, A, b):
    xp = namespace(x)
    return xp.sum(x * xp.matmul(A, x)) / 2 - xp.sum(b * x)


def matrix(rng, n, least):
    Q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return (Q * np.linspace(least, 6, n)) @ Q.T


def batches(backend, n=10, least=-0.5):
    rng = np.random.default_rng(0)
    b = rng.normal(size=3)
    for _ in range(n):
        A, noise = matrix(rng, 3, least), 0.3 * rng.normal(size=3)
        yield backend.from_numpy(A), backend.from_numpy(b + noise)


def step(solver, function, x, *data, **changes):
    oracle = osculant.oracle(function, x)
    return solver.step(oracle, solver.init(oracle, x)._replace(**changes), *data)


# Carrying a search over batches -------------------------------------------------------------------


def test_search_without_a_direction_is_carried_to_the_next_hessian_once():
    b, good = np.array([1.0, 2.0]), np.diag([2.0, 5.0])
    solver = osculant.NewtonKrylov(negative_curvature="carry", forcing=1e-12)
    state = step(solver, quadratic, np.zeros(2), -good, b)
    assert not state.x.any() and float(state.step_length) == 0
    assert int(state.counts.values) == 0 and int(state.status) == osculant.Status.RUNNING
    np.testing.assert_array_equal(state.carried, b)

    oracle = osculant.oracle(quadratic, np.zeros(2))
    after = solver.step(oracle, state, good, 1.1 * b)  # another gradient; the search keeps its own
    np.testing.assert_allclose(after.d, np.linalg.solve(good, b))
    assert not after.carried.any() and after.x.any()
    again = solver.step(oracle, state, -good, b)
    assert not again.carried.any() and again.x @ b > 0  # along -g


@pytest.mark.parametrize("answer", ["gradient", "carry"])
def test_search_that_has_a_direction_goes_that_way(answer):
    """The second direction is the one of negative curvature."""
    A, b = np.diag([4.0, 1.0, -6.0]), np.array([1.0, 1.0, 0.5])
    solver = osculant.NewtonKrylov(negative_curvature=answer, forcing=1e-12)
    state = step(solver, quadratic, np.zeros(3), A, b)
    np.testing.assert_allclose(state.d, (b @ b) / (b @ A @ b) * b)
    np.testing.assert_allclose(state.x, float(state.step_length) * state.d)
    assert float(state.step_length) > 0 and int(state.counts.hvps) == 2


def test_screened_batch_leaves_a_carried_search_alone():
    b = np.array([1.0, 2.0])
    solver = osculant.NewtonKrylov(negative_curvature="carry", global_gradient="full")
    state = step(solver, quadratic, np.zeros(2), -np.eye(2), b, global_grad=-b)
    oracle = osculant.oracle(quadratic, np.zeros(2))
    after = solver.step(oracle, state, np.eye(2), -b)  # its gradient opposes the global one
    assert int(after.screened) == 1
    np.testing.assert_array_equal(after.carried, b)


# Warm start ---------------------------------------------------------------------------------------


def test_warm_start_begins_at_the_scaled_last_direction():
    A, b = matrix(np.random.default_rng(1), 3, 1.0), np.array([1.0, -2.0, 0.5])
    last = np.array([0.2, -0.5, 0.1])
    solver = osculant.NewtonKrylov(warm_start=0.5, max_inner=1, forcing=1e-12)
    state = step(solver, quadratic, np.zeros(3), A, b, d=last)
    r = b - A @ (0.5 * last)
    np.testing.assert_allclose(state.d, 0.5 * last + (r @ r) / (r @ A @ r) * r)
    assert int(state.counts.hvps) == 2


def test_warm_start_that_is_no_improvement_is_dropped():
    A, b = matrix(np.random.default_rng(1), 3, 1.0), np.array([1.0, -2.0, 0.5])
    solver = osculant.NewtonKrylov(warm_start=0.5, max_inner=1, forcing=1e-12)
    state = step(solver, quadratic, np.zeros(3), A, b, d=-b)
    np.testing.assert_allclose(state.d, (b @ b) / (b @ A @ b) * b)


# Momentum and preconditioner ----------------------------------------------------------------------


def test_momentum_on_one_quadratic_is_conjugate_gradients():
    """The plane of the gradient and the last step holds CG's next iterate."""
    A, b = matrix(np.random.default_rng(1), 3, 1.0), np.array([1.0, -2.0, 0.5])
    oracle = osculant.oracle(quadratic, np.zeros(3))
    solver = osculant.NewtonKrylov(momentum=True, max_inner=1, global_gradient="batch")
    state = solver.init(oracle, np.zeros(3))
    for _ in range(3):
        state = solver.step(oracle, state, A, b)
    np.testing.assert_allclose(state.x, np.linalg.solve(A, b), rtol=1e-9)
    assert int(state.counts.hvps) == 1 + 2 + 2


def test_momentum_that_is_not_finite_is_left_out():
    z, g = np.ones(2), np.array([1.0, -2.0])
    found = Direction(-g, -g @ g, g @ g, np.asarray(0))
    kept = with_momentum(found, z, lambda v: np.nan * v, g, active=np.asarray(True), flow=EAGER)
    np.testing.assert_array_equal(kept.d, found.d)
    assert (kept.slope, kept.curvature, int(kept.products)) == (found.slope, found.curvature, 1)


def network(**options):
    """Return a solver with a preconditioner, a network's oracle, a state and a batch."""
    rng = np.random.default_rng(0)
    problem = mlp([4, 3, 2], seed=0)
    data = rng.normal(size=(20, 4)), np.eye(2)[rng.integers(0, 2, 20)]
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=problem.params)
    solver = osculant.NewtonKrylov(preconditioner=osculant.Kronecker(), **options)
    return solver, oracle, solver.init(oracle, oracle.ravel(problem.params)), data


def test_first_direction_is_the_preconditioned_gradient():
    solver, oracle, start, data = network(max_inner=1, curvature="gauss-newton", damping=0.1)
    state = solver.step(oracle, start, *data)
    pt, K = oracle.at(start.x, *data), solver.preconditioner
    blocks = K.update(oracle, start.blocks, start.x, np.asarray(0.1), data)
    y = K.solve(oracle, blocks, start.x, pt.grad, data)
    np.testing.assert_allclose(state.d, -(pt.grad @ y) / pt.vgv(y) * y)
    assert (int(state.counts.gradients), int(state.counts.ggns)) == (2, 1)
    assert int(state.counts.hvps) == 0


def test_barred_search_steps_back_along_the_preconditioned_gradient(monkeypatch):
    solver, oracle, start, data = network(damping=0.1)
    point = type(oracle.at(start.x, *data))
    monkeypatch.setattr(point, "_hvp", lambda self, v: -2 * v)
    state = solver.step(oracle, start, *data)
    pt, K = oracle.at(start.x, *data), solver.preconditioner
    blocks = K.update(oracle, start.blocks, start.x, np.asarray(0.1), data)
    y = K.solve(oracle, blocks, start.x, pt.grad, data)
    np.testing.assert_allclose(state.d, -(pt.grad @ y) / (2 * y @ y) * y)


def test_damping_of_the_preconditioner_follows_what_the_quadratic_promised():
    """A short step leaves undone what the quadratic promised, although it was right that far."""
    b, A = np.array([1.0, -2.0, 0.5]), np.eye(3)
    good = step(osculant.NewtonKrylov(), quadratic, np.zeros(3), A, b)
    np.testing.assert_allclose(good.damping, 3e-4 * 19 / 20)
    wrong = Samples((A, b), (A / 20, b))  # twenty times too long
    short = step(osculant.NewtonKrylov(), quadratic, np.zeros(3), wrong)
    assert 0 < float(short.step_length) < 1
    np.testing.assert_allclose(short.damping, 3e-4 * 20 / 19)
    screened = step(osculant.NewtonKrylov(), quadratic, np.zeros(3), A, b, global_grad=b)
    assert int(screened.screened) == 1
    np.testing.assert_allclose(screened.damping, 3e-4)


# The global gradient ------------------------------------------------------------------------------


def test_full_gradient_is_refreshed_each_epoch_and_within_it():
    from osculant import backends

    data = list(batches(backends.get("numpy"), 6, least=1.0))
    oracle = osculant.oracle(quadratic, X0)

    def refreshes(**options):
        seen = []

        class Watched(osculant.NewtonKrylov):
            def refresh(self, oracle, state, batches):
                after = super().refresh(oracle, state, batches)
                if int(after.refreshed) != int(state.refreshed):
                    seen.append(int(after.counts.gradients) - int(state.counts.gradients))
                return after

        solver = Watched(global_gradient="full", **options)
        osculant.fit(oracle, X0, data, solver=solver, epochs=2)
        return seen

    assert refreshes() == [6, 6]
    assert refreshes(refresh_period=4) == [6, 6, 6, 6]  # at 0 and 4 of each epoch
    assert refreshes(refresh_period=3) == [6, 6, 6, 6, 6]  # 0, 3, 6 which is 0, 3, 6


def test_refreshed_gradient_is_that_of_the_epoch_at_x():
    from osculant import backends

    data = list(batches(backends.get("numpy"), 4))
    oracle = osculant.oracle(fun, X0)
    solver = osculant.NewtonKrylov(global_gradient="full")
    state = solver.refresh(oracle, solver.init(oracle, X0), data)
    np.testing.assert_allclose(
        state.global_grad, np.mean([oracle.at(X0, *batch).grad for batch in data], axis=0)
    )
    assert solver.refresh(oracle, state, data) is state  # nothing has moved


def test_decayed_mean_follows_the_batches():
    from osculant import backends

    data, solver = list(batches(backends.get("numpy"), 3)), osculant.NewtonKrylov(decay=0.75)
    oracle = osculant.oracle(fun, X0)
    state, mean = solver.init(oracle, X0), np.zeros(3)
    for batch in data:
        mean = 0.75 * mean + 0.25 * oracle.at(state.x, *batch).grad
        state = solver.step(oracle, state, *batch)
        np.testing.assert_allclose(state.global_grad, mean)


def test_batch_gradient_screens_nothing():
    A, b = np.eye(3), np.array([1.0, 2.0, 3.0])
    solver = osculant.NewtonKrylov(global_gradient="batch")
    state = step(solver, quadratic, np.zeros(3), A, b, global_grad=b)
    assert int(state.screened) == 0 and state.x.any()


# Flat directions, step lengths --------------------------------------------------------------------


def test_temporary_momentum_is_the_searchs_own_speed():
    """H = 0: k = mu |p|^2 with mu = |p|, so that d = r'r / k p has length 1, whatever |g| is."""
    for b in (np.array([3.0, 4.0]), np.array([300.0, 400.0])):
        solver = osculant.NewtonKrylov(max_inner=1)
        state = step(solver, quadratic, np.zeros(2), np.zeros((2, 2)), b)
        np.testing.assert_allclose(state.d, [0.6, 0.8])


def test_interval_bounds_the_taylor_ratio():
    x, A, b = np.array([0.1, 0.2, 0.1]), 0.05 * np.eye(3), np.array([1.0, 2.0, 1.0])
    lengths = [
        float(step(osculant.NewtonKrylov(interval=(0.0, high)), fun, x, A, b).step_length)
        for high in (0.02, 0.2, 2.0)
    ]
    assert 0 < lengths[0] < lengths[1] < lengths[2] <= 1


# Options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"max_inner": 1},
        {"forcing": 0.9},
        {"interval": (0.0, 0.02)},
        {"attempts": 1},
        {"global_gradient": "batch"},
        {"global_gradient": "full"},
        {"global_gradient": "full", "refresh_period": 2},
        {"decay": 0.1},
        {"negative_curvature": "carry"},
        {"warm_start": 0.9},
        {"momentum": True},
    ],
    ids=str,
)
def test_every_option_changes_the_trajectory(change):
    from osculant import backends

    oracle = osculant.oracle(fun, X0)
    rng, numpy = np.random.default_rng(3), backends.get("numpy")
    least = -9.0 if "negative_curvature" in change else -4.0  # bars the first direction, or later
    data = [(A, b + rng.normal(size=3)) for A, b in batches(numpy, 12, least)]
    base = osculant.NewtonKrylov()
    if "refresh_period" in change:
        base = replace(base, global_gradient="full")

    def ends(solver):
        return osculant.fit(oracle, X0, data, solver=solver, epochs=1).x

    assert np.abs(ends(base) - ends(replace(base, **change))).max() > 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_inner": 0}, "max_inner is 0"),
        ({"attempts": 0}, "attempts is 0"),
        ({"forcing": 1.0}, "forcing is 1.0"),
        ({"decay": 1.0}, "decay is 1.0"),
        ({"warm_start": 2.0}, "warm_start is 2.0"),
        ({"damping": 0.0}, "damping is 0.0"),
        ({"curvature": "fisher"}, "'hessian', 'gauss-newton'"),
        ({"negative_curvature": "ignore"}, "'gradient', 'carry'"),
        ({"refresh_period": 3}, "needs global_gradient='full'"),
        ({"refresh_period": 0, "global_gradient": "full"}, "at least 1"),
    ],
)
def test_options_out_of_range_say_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        osculant.NewtonKrylov(**options)


# Samples, products, backends ----------------------------------------------------------------------


def test_curvature_and_ratio_have_samples_of_their_own():
    b, A = np.array([1.0, -2.0, 0.5]), matrix(np.random.default_rng(1), 3, 1.0)
    gradient, curvature, ratio = (np.eye(3), b), (A, 0 * b), (np.eye(3), 3 * b)
    solver = osculant.NewtonKrylov(forcing=1e-12)
    state = step(solver, quadratic, np.zeros(3), Samples(gradient, curvature, ratio))
    np.testing.assert_allclose(state.d, np.linalg.solve(A, b))
    assert int(state.counts.gradients) == 3
    uphill = Samples(gradient, curvature, (np.eye(3), -b))  # where the ratio looks, d climbs
    refused = step(solver, quadratic, np.zeros(3), uphill)
    assert float(refused.step_length) == 0 and int(refused.status) == osculant.Status.STALLED


def losses(module, solver, products="autodiff", least=-0.5):
    oracle = osculant.oracle(fun, module.from_numpy(X0), products=products)
    state = solver.init(oracle, module.from_numpy(X0))
    values = []
    for batch in batches(module, least=least):
        state = solver.step(oracle, state, *batch)
        values.append(float(state.value))
    return values


def test_complex_step_products_give_the_same_run(backend):
    solver = osculant.NewtonKrylov()
    np.testing.assert_allclose(
        losses(backend, solver, "complex-step"), losses(backend, solver), rtol=1e-9
    )


def test_complex_step_over_a_gradient_of_the_users_own():
    def value(x):
        return float(np.sum(x**4) / 4 + np.sum(x) ** 2)

    def grad(x):
        return x**3 + 2 * np.sum(x)

    oracle = osculant.oracle(value, X0, grad=grad, products="complex-step")
    solution = osculant.minimize(oracle, X0, method="newton-krylov")
    assert solution.success and solution.nhev > 0
    np.testing.assert_allclose(solution.x, np.zeros(3), atol=1e-2)


def test_counts_are_what_was_evaluated(monkeypatch):
    from osculant import backends

    data = list(batches(backends.get("numpy"), 10, least=-3.0))
    oracle = osculant.oracle(fun, X0)
    solver = osculant.NewtonKrylov(negative_curvature="carry", warm_start=0.9, momentum=True)
    calls = {"hvps": 0, "values": 0, "gradients": 0}
    point = type(oracle.at(X0, *data[0]))
    for owner, method, name in (
        (point, "_hvp", "hvps"),
        (type(oracle), "value", "values"),
        (type(oracle), "at", "gradients"),
    ):
        original = getattr(owner, method)

        def counted(self, *args, name=name, original=original):
            calls[name] += 1
            return original(self, *args)

        monkeypatch.setattr(owner, method, counted)
    state = solver.init(oracle, X0)
    for batch in data:
        state = solver.step(oracle, state, *batch)
    assert calls == {name: int(getattr(state.counts, name)) for name in calls}
    assert calls["hvps"] > 5


def test_jit_and_vmap_agree_with_the_eager_step():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    from osculant import backends

    jnp = jax.numpy
    data = list(batches(backends.get("jax"), 3, least=-3.0))
    oracle = osculant.oracle(fun, jnp.asarray(X0))
    solver = osculant.NewtonKrylov(negative_curvature="carry", warm_start=0.9, momentum=True)

    def run(x):
        state = solver.init(oracle, x)
        for batch in data:
            state = solver.step(oracle, state, *batch)
        return state.x

    starts = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(starts), [run(x) for x in starts], rtol=1e-8)
