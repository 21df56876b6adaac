"""CurveBall against its equations, on every backend; what it counts; how lambda moves."""

import numpy as np
import pytest

import osculant
from osculant.core.arrays import namespace
from osculant.core.samples import Samples
from osculant.problems import rosenbrock_residuals, sum_of_squares
from osculant.problems.degenerate import noisy_squares, rahimi_recht

START = np.array([-1.2, 1.0])
A = np.array([[1.0, 2.0, -1.0], [0.5, -1.0, 3.0], [2.0, 0.0, 1.0], [1.0, 1.0, 1.0]])


def model(x, inputs):
    xp = namespace(x)
    return xp.tanh(xp.matmul(inputs, x))


def loss(outputs, targets):
    return namespace(outputs).sum((outputs - targets) ** 2)


def batches(backend, n=10):
    rng = np.random.default_rng(0)
    for _ in range(n):
        yield tuple(backend.from_numpy(rng.normal(size=size)) for size in ((4, 3), (4,)))


def composition(backend):
    return osculant.oracle(model=model, loss=loss, params=backend.from_numpy(np.zeros(3)))


def dense_steps(data, solver, x, n):
    """Eq. 14-19 with dense matrices, from the NumPy oracle's Hessian or Gauss-Newton matrix."""
    oracle = osculant.oracle(model=model, loss=loss, params=np.zeros(3))
    z, xs = np.zeros(3), []
    for batch in data[:n]:
        pt = oracle.at(x, *batch)
        B = pt.hvp(np.eye(3)) if solver.curvature == "hessian" else pt.ggn(np.eye(3))
        B = B + solver.damping * np.eye(3)
        dz = B @ z + pt.grad
        S = np.stack([dz, z], axis=1)
        p = -np.linalg.lstsq(S.T @ B @ S, S.T @ pt.grad, rcond=1e-12)[0]
        z = S @ p
        x = x + z
        xs.append(x)
    return xs


# The equations --------------------------------------------------------------------------------


@pytest.mark.parametrize("curvature", ["gauss-newton", "hessian"])
def test_steps_follow_equations_14_to_19(backend, curvature):
    # The damping makes this Hessian positive definite, so that no eigenvalue is turned.
    solver = osculant.CurveBall(curvature=curvature, damping=50.0, period=0)
    oracle, x = composition(backend), backend.from_numpy(np.array([0.1, -0.2, 0.3]))
    state = solver.init(oracle, x)
    data = [tuple(map(backend.to_numpy, batch)) for batch in batches(backend)]
    expected = dense_steps(data, solver, np.array([0.1, -0.2, 0.3]), 6)
    for batch, x in zip(batches(backend), expected, strict=False):
        state = solver.step(oracle, state, *batch)
        np.testing.assert_allclose(backend.to_numpy(state.x), x, rtol=1e-8)


def test_first_step_is_cauchys():
    oracle = osculant.oracle(model=rosenbrock_residuals, loss=sum_of_squares, params=START)
    solver = osculant.CurveBall(damping=0.0)
    state = solver.step(oracle, solver.init(oracle, START))
    pt = oracle.at(START)
    g = pt.grad
    np.testing.assert_allclose(state.x, START - (g @ g) / float(pt.vgv(g)) * g)
    assert float(state.rho) == 0 < float(state.beta)


def test_two_unknowns_are_solved_for_exactly():
    """The plane of dz and z is the whole space: a Gauss-Newton step on Rosenbrock's residuals."""
    oracle = osculant.oracle(model=rosenbrock_residuals, loss=sum_of_squares, params=START)
    solver = osculant.CurveBall(damping=0.0)
    state = solver.init(oracle, START)
    for _ in range(3):
        state = solver.step(oracle, state)
    np.testing.assert_allclose(state.x, np.ones(2), rtol=1e-9)


@pytest.mark.parametrize(("residual_at", "low", "high"), [("line", 0, 1e-12), ("z", 1e-4, 1)])
def test_on_one_quadratic_a_residual_on_the_line_gives_conjugate_gradients(residual_at, low, high):
    """The solution after as many steps as there are unknowns, and not without."""
    Q, n = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0], 5
    B = (Q * np.arange(1.0, 6.0)) @ Q.T
    oracle = osculant.oracle(lambda x: x @ B @ x / 2, np.ones(n))
    solver = osculant.CurveBall(curvature="hessian", damping=0.0, residual_at=residual_at)
    state = solver.init(oracle, np.ones(n))
    for _ in range(n):
        state = solver.step(oracle, state)
    assert low <= np.linalg.norm(state.x) <= high


def test_fixed_rho_and_beta_are_heavy_ball_with_curvature():
    oracle = osculant.oracle(lambda x: (A @ x) @ (A @ x) / 2, np.ones(3))
    solver = osculant.CurveBall(
        curvature="hessian", rho=0.9, beta=0.01, damping=0.5, learning_rate=0.7, period=0
    )
    state, x, z = solver.init(oracle, np.ones(3)), np.ones(3), np.zeros(3)
    for _ in range(4):
        state = solver.step(oracle, state)
        z = 0.9 * z - 0.01 * (A.T @ A @ z + 0.5 * z + A.T @ A @ x)
        x = x + 0.7 * z
        np.testing.assert_allclose(state.x, x, rtol=1e-12)


def test_indefinite_hessian_still_gives_descent():
    """|M| instead of M: near a saddle the plain solution of eq. 19 climbs to it."""
    oracle = osculant.oracle(lambda x: (x**4).sum() / 4 - (x**2).sum() / 2, np.ones(3))
    solver = osculant.CurveBall(curvature="hessian", damping=0.0, period=0)
    state = solver.init(oracle, np.array([0.1, -0.2, 0.15]))
    for _ in range(3):
        after = solver.step(oracle, state)
        assert oracle.at(state.x).grad @ (after.x - state.x) < 0
        state = after


# What it costs ----------------------------------------------------------------------------------


def spent(solver, monkeypatch, data=()):
    """Return the Jacobian products, forward passes and linearisations of the second step."""
    oracle = osculant.oracle(model=rosenbrock_residuals, loss=sum_of_squares, params=START)
    state = solver.step(oracle, solver.init(oracle, START))
    calls = {"_jvp": 0, "_vjp": 0, "_hvp": 0}
    for name in calls:
        original = getattr(type(oracle.at(START)), name)

        def counted(self, v, name=name, original=original):
            calls[name] += 1
            return original(self, v)

        monkeypatch.setattr(type(oracle.at(START)), name, counted)
    after = solver.step(oracle, state, *data)
    more = {
        name: int(count) - int(getattr(state.counts, name))
        for name, count in after.counts._asdict().items()
    }
    return calls, {name: count for name, count in more.items() if count}


def test_a_step_costs_two_jvps_and_one_vjp(monkeypatch):
    calls, counts = spent(osculant.CurveBall(), monkeypatch)
    assert calls == {"_jvp": 2, "_vjp": 1, "_hvp": 0}
    assert counts == {"gradients": 1, "ggns": 2}


def test_fixed_coefficients_save_the_second_jvp(monkeypatch):
    calls, counts = spent(osculant.CurveBall(rho=0.9, beta=0.01, period=0), monkeypatch)
    assert calls == {"_jvp": 1, "_vjp": 1, "_hvp": 0}
    assert counts == {"gradients": 1, "ggns": 1}


def test_hessian_costs_two_products(monkeypatch):
    calls, counts = spent(osculant.CurveBall(curvature="hessian"), monkeypatch)
    assert calls == {"_jvp": 0, "_vjp": 0, "_hvp": 2}
    assert counts == {"gradients": 1, "hvps": 2}


def test_ratio_costs_a_forward_pass_every_fifth_step():
    oracle = osculant.oracle(model=rosenbrock_residuals, loss=sum_of_squares, params=START)
    solver, values = osculant.CurveBall(), []
    state = solver.init(oracle, START)
    for _ in range(11):
        state = solver.step(oracle, state)
        values.append(int(state.counts.values))
    assert values == [1] * 5 + [2] * 5 + [3]


# lambda ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "options", "moved"),
    [
        (0.1, {}, 1 / 0.999**5),
        (1.0, {}, 1.0),
        (2.0, {}, 0.999**5),
        (1.0, {"good": 0.75}, 0.999**5),
        (0.1, {"poor": 0.05}, 1.0),
    ],
    ids=["poor", "good", "better than predicted", "good is less", "poor is less"],
)
def test_lambda_follows_the_ratio(scale, options, moved):
    """The ratio's sample sees ``scale`` times the function, so that gamma is scale itself."""
    oracle = osculant.oracle(lambda x, c: c * (x * x).sum() / 2, np.ones(3))
    one, other = (np.asarray(1.0),), (np.asarray(scale),)
    solver = osculant.CurveBall(curvature="hessian", damping=0.5, **options)
    state = solver.init(oracle, np.ones(3))
    after = solver.step(oracle, state, Samples(one, one, other))
    # The quadratic holds lambda/2 |z|^2 too: (1 - 1/4) and (1 - 1/3) of the plain decrease.
    np.testing.assert_allclose(float(after.damping), 0.5 * moved)
    again = solver.step(oracle, after, Samples(one, one, other))
    assert float(again.damping) == float(after.damping)
    assert int(after.counts.values) == 2 and int(after.counts.gradients) == 1


def test_step_out_of_the_domain_is_not_taken(backend):
    def fun(x):
        return namespace(x).sum(x - namespace(x).log(x))

    x = backend.from_numpy(np.array([5.0]))
    oracle = osculant.oracle(fun, x)
    solver = osculant.CurveBall(curvature="hessian", damping=1e-3)
    with np.errstate(invalid="ignore"):
        state = solver.step(oracle, solver.init(oracle, x))
    np.testing.assert_array_equal(backend.to_numpy(state.x), [5.0])
    np.testing.assert_array_equal(backend.to_numpy(state.z), [0.0])
    assert float(state.damping) == pytest.approx(1e-2)


@pytest.mark.parametrize("options", [{}, {"rho": 0.9, "beta": 0.01, "period": 0}])
def test_step_that_is_not_finite_is_not_taken_without_a_look_either(options):
    products = iter([1.0, float("nan")] if options else [1.0, 1.0, float("nan"), 1.0])
    oracle = osculant.oracle(
        lambda x: (x**4).sum(),
        np.ones(2),
        grad=lambda x: 4 * x**3,
        hvp=lambda x, v: next(products) * 12 * x**2 * v,
    )
    solver = osculant.CurveBall(curvature="hessian", damping=1e-3, **options)
    first = solver.step(oracle, solver.init(oracle, np.ones(2)))
    second = solver.step(oracle, first)
    np.testing.assert_array_equal(second.x, first.x)
    np.testing.assert_array_equal(second.z, [0.0, 0.0])
    assert float(second.damping) > float(first.damping)


# Samples, backends, transformations --------------------------------------------------------------


def test_curvature_has_a_sample_of_its_own():
    oracle = osculant.oracle(lambda x, c: (c * x * x).sum() / 2, np.ones(3))
    g, B = np.array([1.0, 2.0, 3.0]), np.array([5.0, 4.0, 7.0])
    solver = osculant.CurveBall(curvature="hessian", damping=0.0)
    state = solver.step(oracle, solver.init(oracle, np.ones(3)), Samples((g,), (B,), (g,)))
    np.testing.assert_allclose(state.x, 1 - (g @ g) / (g @ (B * g)) * g)
    assert int(state.counts.gradients) == 2


def test_float32_stays_float32(backend):
    x = backend.from_numpy(START.astype(np.float32))
    oracle = osculant.oracle(model=rosenbrock_residuals, loss=sum_of_squares, params=x)
    solver = osculant.CurveBall()
    before = solver.init(oracle, x)
    after = solver.step(oracle, solver.step(oracle, before))
    for field, value in before._asdict().items():
        if field not in ("counts", "blocks"):
            assert getattr(after, field).dtype == value.dtype, field


def test_jit_and_vmap_agree_with_the_eager_step():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    jnp = jax.numpy
    oracle = osculant.oracle(
        model=rosenbrock_residuals, loss=noisy_squares, params=jnp.asarray(START)
    )
    solver = osculant.CurveBall()
    starts = jnp.asarray(np.random.default_rng(0).uniform(-2, 2, size=(4, 2)))

    def two_steps(x):
        state = solver.init(oracle, x)
        for noise in (0.5, 0.9):
            state = solver.step(oracle, state, jnp.asarray(noise))
        return state.x

    batched = jax.jit(jax.vmap(two_steps))(starts)
    np.testing.assert_allclose(batched, [two_steps(x) for x in starts], rtol=1e-8)


def test_it_uses_nothing_beyond_the_array_api():
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")

    def fun(module):
        x = module.asarray(START)
        oracle = osculant.oracle(model=rosenbrock_residuals, loss=sum_of_squares, params=x)
        return osculant.minimize(oracle, x, method=osculant.CurveBall(damping=1.0), tol=1e-6)

    assert fun(strict).nit == fun(np).nit < 60


def test_known_solutions_are_reached(backend):
    problem, data = rahimi_recht(0)
    params = {name: backend.from_numpy(W) for name, W in problem.params.items()}
    data = tuple(map(backend.from_numpy, data))
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=params)
    solution = osculant.minimize(
        oracle, params, args=data, method=osculant.CurveBall(damping=1.0), maxiter=40
    )
    assert solution.fun < 1e-4 * solution.history["fun"][0]


def test_spectrum_of_the_linear_network_is_what_was_asked_for():
    for spectrum, second in (("geometric", 0.1), ("linear", 0.8 + 0.2e-5)):
        _, (inputs, targets) = rahimi_recht(0, spectrum=spectrum)
        sizes = np.linalg.svd(targets @ np.linalg.inv(inputs), compute_uv=False)
        np.testing.assert_allclose([sizes[0], sizes[1], sizes[5]], [1, second, 1e-5], rtol=1e-6)
    with pytest.raises(ValueError, match="spectrum is 'flat'"):
        rahimi_recht(0, spectrum="flat")


# Options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curvature": "ggn"}, "'gauss-newton' or 'hessian'"),
        ({"rho": 0.9}, "give both"),
        ({"residual_at": "end"}, "must be 'z' or 'line'"),
        ({"damping": -1.0}, "damping is -1.0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"factor": 2.0}, "factor is 2.0"),
        ({"period": -1}, "period is -1"),
        ({"good": 0.25}, "poor is 0.5; it must be at most good, which is 0.25"),
    ],
)
def test_options_out_of_range_say_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        osculant.CurveBall(**options)


def test_gauss_newton_needs_a_composition():
    with pytest.raises(osculant.ProductUnavailable, match="CurveBall needs"):
        osculant.minimize(lambda x: (x * x).sum(), np.ones(2), method="curveball")
