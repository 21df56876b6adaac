"""Methods for residuals: the linear problem inside, where they end, what they count."""

import numpy as np
import pytest

import osculant
from osculant.core.arrays import namespace
from osculant.core.flow import EAGER
from osculant.core.krylov.lscg import lscg
from osculant.core.oracle import Oracle, Point
from osculant.core.residual_model import (
    column_norms,
    dense_model,
    krylov_model,
    probed_column_norms,
    residuals,
)
from osculant.problems import mgh, rosenbrock_residuals, sum_of_squares

START = np.array([-1.2, 1.0, -1.2, 1.0])
SOLVERS = {
    "gauss-newton": osculant.GaussNewton(),
    "gauss-newton, products": osculant.GaussNewton(dense=False),
    "levenberg": osculant.LevenbergMarquardt(),
    "levenberg, products": osculant.LevenbergMarquardt(dense=False),
    "marquardt": osculant.LevenbergMarquardt(scaling="marquardt"),
    "marquardt, products": osculant.LevenbergMarquardt(scaling="marquardt", dense=False),
    "geodesic": osculant.LevenbergMarquardt(geodesic=True),
    "geodesic, products": osculant.LevenbergMarquardt(geodesic=True, dense=False),
}
each_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


def linear(x, A, b):
    """Return A x - b."""
    return namespace(x).matmul(A, x) - b


def decay(x, t, y):
    """Return x_0 exp(-x_1 t) + x_2 - y."""
    return x[0] * namespace(x).exp(-x[1] * t) + x[2] - y


def decay_data():
    """Return t and y with some outliers."""
    rng = np.random.default_rng(0)
    t = np.linspace(0, 4, 40)
    y = 3 * np.exp(-1.3 * t) + 0.7 + 0.02 * rng.normal(size=40)
    y[::7] += 2 * rng.random(6)
    return t, y


def matrix(m, n, rank=None, seed=0):
    rng = np.random.default_rng(seed)
    rank = rank or min(m, n)
    return rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n)) / rank**0.5


def half_squares(r, _=None):
    return sum_of_squares(r) / 2


class Counting(Oracle):
    """Counts what a solver asks of another oracle."""

    def __init__(self, inner):
        super().__init__(inner.structure)
        self.inner, self.products, self.flow = inner, inner.products, inner.flow
        self.calls = dict.fromkeys(["values", "gradients", "jvps", "vjps"], 0)

    def value(self, x, *data):
        self.calls["values"] += 1
        return self.inner.value(x, *data)

    def at(self, x, *data):
        self.calls["gradients"] += 1
        pt = self.inner.at(x, *data)
        for product in ("jvp", "vjp"):
            setattr(pt, product, self.counted(getattr(pt, product), f"{product}s"))
        return pt

    def counted(self, function, count):
        def call(V):
            self.calls[count] += 1 if V.ndim == 1 else V.shape[1]
            return function(V)

        return call


# The linear problem ------------------------------------------------------------------------


def space(A, r, radius=np.inf, rtol=1e-14, maxiter=None, calls=None):
    def matvec(v):
        if calls is not None:
            calls.append(1)
        return A @ v

    return lscg(
        matvec,
        lambda u: A.T @ u,
        r,
        A.T @ r,
        radius=np.asarray(radius),
        rtol=np.asarray(rtol),
        maxiter=maxiter or min(A.shape),
        active=np.asarray(True),
        flow=EAGER,
    )


@pytest.mark.parametrize(("m", "n"), [(12, 5), (5, 12), (7, 7)])
def test_bidiagonalisation_is_of_the_matrix(m, n):
    A, r = matrix(m, n), np.random.default_rng(1).normal(size=m)
    end = space(A, r)
    V, B = end.V, end.B
    np.testing.assert_allclose(V @ V.T, np.eye(min(m, n)), atol=1e-13)
    np.testing.assert_allclose(V @ A.T @ A @ V.T, B.T @ B, atol=1e-12)
    np.testing.assert_allclose(V @ A.T @ r, end.beta * B[0, :], atol=1e-12)


def test_lscg_stops_at_its_tolerance_or_its_radius():
    A = matrix(60, 30) * np.linspace(1, 30, 30)
    r = np.random.default_rng(1).normal(size=60)
    calls = []
    end = space(A, r, rtol=1e-3, calls=calls)
    y = np.linalg.lstsq(end.B, end.beta * np.eye(31)[0], rcond=None)[0]
    x = end.V.T @ y
    assert np.linalg.norm(A.T @ (A @ x - r)) <= 1.001e-3 * np.linalg.norm(A.T @ r)
    assert 5 < int(end.iterations) == len(calls) < 30

    short = space(A, r, radius=0.5 * np.linalg.norm(x), rtol=1e-3)
    assert 0 < int(short.iterations) < int(end.iterations)


def test_one_basis_serves_every_damping():
    A, r = matrix(12, 5), np.random.default_rng(1).normal(size=12)
    oracle = osculant.oracle(model=linear, loss=half_squares, params=np.zeros(5))
    pt = oracle.at(np.zeros(5), A, -r, None)
    dense = dense_model(A, r, np.ones(5))
    krylov = krylov_model(
        pt,
        residuals(pt),
        np.ones(5),
        radius=np.asarray(np.inf),
        rtol=np.asarray(1e-14),
        maxiter=50,
        active=np.asarray(True),
        flow=EAGER,
    )
    for damping in (0.0, 0.1, 1e3):
        expected = -np.linalg.solve(A.T @ A + damping * np.eye(5), A.T @ r)
        for model in (dense, krylov):
            y = model.minimizer(np.asarray(damping))
            np.testing.assert_allclose(model.step(y), expected, rtol=1e-9)
            np.testing.assert_allclose(model.solve(A.T @ r, np.asarray(damping)), expected)
            np.testing.assert_allclose(model.slope(y), r @ A @ expected)
            np.testing.assert_allclose(model.curvature(y), np.sum((A @ expected) ** 2))


@pytest.mark.parametrize("radius", [1e-12, 1e-3, 0.3, 1.0, 1e6])
@pytest.mark.parametrize("rank", [5, 3])
def test_damping_puts_the_step_on_the_radius(radius, rank):
    A, r = matrix(12, 5, rank), np.random.default_rng(1).normal(size=12)
    D = np.linspace(1, 3, 5)
    model = dense_model(A, r, D)
    full = np.linalg.norm(model.minimizer(np.asarray(0.0)))
    damping = model.damping(np.asarray(radius), EAGER)
    y = model.minimizer(damping)
    np.testing.assert_allclose(np.linalg.norm(D * model.step(y)), np.linalg.norm(y))
    if full <= radius:
        assert damping == 0
    else:
        assert damping > 0 and 0.999 * radius <= np.linalg.norm(y) <= 1.1 * radius


def test_column_norms_neither_overflow_nor_underflow():
    J = np.array([[3e200, 3e-200, 0.0], [4e200, 4e-200, 0.0]])
    np.testing.assert_allclose(column_norms(J), [5e200, 5e-200, 0.0])


def test_probed_column_norms_are_exact_for_few_neighbouring_rows():
    A = np.zeros((9, 4))
    for j in range(4):
        A[2 * j : 2 * j + 3, j] = [1.0, j + 1.0, 2.0]
    oracle = osculant.oracle(model=linear, loss=half_squares, params=np.zeros(4))
    pt = oracle.at(np.zeros(4), A, np.ones(9), None)
    np.testing.assert_allclose(probed_column_norms(pt, np.ones(9)), column_norms(A))


def test_residuals_stand_for_the_loss():
    """g = (W^1/2 J)' r and G = J'W J, for a separable loss with targets, as a mean."""
    t, y = decay_data()

    def model(x, t):
        return x[0] * np.exp(-x[1] * t) + x[2]

    def loss(z, y):
        return ((z - y) ** 2).mean() + (z**4).sum()

    x = np.array([1.0, 0.5, 0.2])
    pt = osculant.oracle(model=model, loss=loss, params=x).at(x, t, y)
    r, root, separable = residuals(pt)
    J = root[:, None] * pt.jvp(np.eye(3))
    assert separable
    np.testing.assert_allclose(J.T @ r, pt.grad, rtol=1e-12)
    np.testing.assert_allclose(J.T @ J, pt.ggn(np.eye(3)), rtol=1e-12)


# Where they end ----------------------------------------------------------------------------


@each_solver
def test_rosenbrock_to_the_last_digits(backend, solver):
    solution = osculant.least_squares(
        rosenbrock_residuals, backend.from_numpy(START[:2]), method=solver, tol=1e-10
    )
    assert solution.status is osculant.Status.CONVERGED, solution.message
    np.testing.assert_allclose(backend.to_numpy(solution.x), np.ones(2), rtol=1e-9)
    assert solution.cost <= 1e-20 and solution.optimality <= 1e-10


def nearest_solution(A, b, x0):
    return x0 + np.linalg.lstsq(A, b - A @ x0, rcond=None)[0]


@each_solver
@pytest.mark.parametrize(("m", "n", "rank"), [(9, 4, 4), (4, 9, 4), (9, 4, 2), (5, 5, 3)], ids=str)
def test_linear_problems_of_any_shape_and_rank(solver, m, n, rank):
    A, b = matrix(m, n, rank), np.random.default_rng(1).normal(size=m)
    x0 = np.random.default_rng(2).normal(size=n)
    solution = osculant.least_squares(linear, x0, args=(A, b), method=solver, tol=1e-9)
    nearest = nearest_solution(A, b, x0)
    assert solution.success
    np.testing.assert_allclose(A @ solution.x, A @ nearest, atol=1e-7)
    if getattr(solver, "scaling", "levenberg") == "levenberg":
        np.testing.assert_allclose(solution.x, nearest, atol=1e-7)
    if solver == osculant.GaussNewton():
        assert solution.nit == 1


@pytest.mark.parametrize("dense", [True, False])
def test_underdetermined_problem_ends_nearest_to_the_start(backend, dense):
    A, b, x0 = matrix(4, 9), np.arange(4.0), np.linspace(-1, 1, 9)
    solution = osculant.least_squares(
        linear,
        backend.from_numpy(x0),
        args=(backend.from_numpy(A), backend.from_numpy(b)),
        method=osculant.LevenbergMarquardt(dense=dense),
        tol=1e-9,
    )
    assert solution.success
    np.testing.assert_allclose(backend.to_numpy(solution.x), nearest_solution(A, b, x0), atol=1e-8)


@pytest.mark.parametrize("loss", ["linear", "soft_l1", "huber", "cauchy"])
def test_robust_losses_end_where_scipys_do(backend, loss):
    scipy_optimize = pytest.importorskip("scipy.optimize", reason="SciPy is not installed")
    t, y = decay_data()
    ours = osculant.least_squares(
        decay,
        backend.from_numpy(np.array([1.0, 1.0, 0.0])),
        args=(backend.from_numpy(t), backend.from_numpy(y)),
        loss=loss,
        f_scale=0.1,
        tol=1e-9,
    )
    theirs = scipy_optimize.least_squares(
        decay, [1.0, 1.0, 0.0], args=(t, y), loss=loss, f_scale=0.1, gtol=1e-10, xtol=1e-15
    )
    assert ours.success and ours.cost == pytest.approx(theirs.cost, rel=1e-9)
    np.testing.assert_allclose(backend.to_numpy(ours.x), theirs.x, rtol=1e-5)
    np.testing.assert_allclose(backend.to_numpy(ours.fun), theirs.fun, atol=1e-5)
    if loss == "linear":  # SciPy's carries the weights of the loss
        np.testing.assert_allclose(backend.to_numpy(ours.jac), theirs.jac, atol=1e-5)


@each_solver
def test_residuals_that_vanish_at_the_start_are_a_success(backend, solver):
    x0 = backend.from_numpy(np.ones(4))
    solution = osculant.least_squares(rosenbrock_residuals, x0, method=solver)
    assert solution.success and solution.nit == 0 and solution.cost == 0.0
    assert solution.nfev == solution.nggn == 0


def test_step_out_of_the_domain_is_refused(backend):
    def residual(x):
        return namespace(x).log(x) + 3  # the first Gauss-Newton step from 5 goes below 0

    for method in ("lm", "gauss-newton"):
        solution = osculant.least_squares(
            residual, backend.from_numpy(np.array([5.0])), method=method
        )
        assert solution.success, method
        np.testing.assert_allclose(backend.to_numpy(solution.x), [np.exp(-3)], rtol=1e-6)
        assert solution.nfev > solution.nit


@pytest.mark.parametrize("dense", [True, False])
def test_gauss_newton_passes_by_singular_jacobians(dense):
    """On Chebyquad a step shortened along itself ends at f = 0.0255, where J is singular."""
    chebyquad = mgh.problem(35, 9)
    solution = osculant.least_squares(
        chebyquad.residual,
        chebyquad.starts()[1],
        method=osculant.GaussNewton(dense=dense),
        maxiter=100,
    )
    assert solution.success
    assert 2 * solution.cost < 1e-10


@each_solver
def test_start_that_is_not_finite_is_reported(solver):
    solution = osculant.least_squares(lambda x: np.log(x), np.array([-1.0, 2.0]), method=solver)
    assert solution.status is osculant.Status.NOT_FINITE
    np.testing.assert_array_equal(solution.x, [-1.0, 2.0])


@pytest.mark.parametrize("scale", [1e-120, 1e-60, 1e60, 1e120])
@pytest.mark.parametrize("scaling", ["levenberg", "marquardt"])
def test_units_of_the_residuals_do_not_matter(scale, scaling):
    method = osculant.LevenbergMarquardt(scaling=scaling)
    solution = osculant.least_squares(
        lambda x: scale * rosenbrock_residuals(x), START, method=method, tol=1e-8 * scale**2
    )
    assert solution.success and solution.nit <= 25
    np.testing.assert_allclose(solution.x, np.ones(4), rtol=1e-6)


def test_marquardts_scaling_makes_units_of_the_variables_irrelevant():
    units = 2.0 ** np.array([0, 40, -30, 11])
    runs = {}
    for scaling in ("levenberg", "marquardt"):
        method = osculant.LevenbergMarquardt(scaling=scaling)
        plain = osculant.least_squares(rosenbrock_residuals, START, method=method, maxiter=6)
        other = osculant.least_squares(
            lambda x: rosenbrock_residuals(x * units), START / units, method=method, maxiter=6
        )
        runs[scaling] = np.max(np.abs(other.x * units - plain.x))
    assert runs["marquardt"] < 1e-10 < 1e-3 < runs["levenberg"]


def test_fit_of_a_model_with_targets_in_the_loss(backend):
    t, y = decay_data()
    x0 = backend.from_numpy(np.array([1.0, 1.0, 0.0]))
    data = (backend.from_numpy(t), backend.from_numpy(y))
    oracle = osculant.oracle(
        model=lambda x, t: decay(x, t, 0.0),
        loss=lambda z, y: namespace(z).mean((z - y) ** 2),
        params=x0,
    )
    composed = osculant.least_squares(oracle, x0, args=data, tol=1e-9)
    plain = osculant.least_squares(decay, x0, args=data, tol=1e-9)
    assert composed.success and plain.success
    np.testing.assert_allclose(backend.to_numpy(composed.x), backend.to_numpy(plain.x), rtol=1e-6)
    assert 20 * composed.cost == pytest.approx(plain.cost)  # the mean of 40, the half of the sum


def test_float32_stays_float32_and_converges(backend):
    x0 = backend.from_numpy(START[:2].astype(np.float32))
    for method in ("lm", "gauss-newton"):
        solution = osculant.least_squares(rosenbrock_residuals, x0, method=method, tol=1e-4)
        assert solution.success and solution.x.dtype == solution.fun.dtype == x0.dtype
        np.testing.assert_allclose(backend.to_numpy(solution.x), np.ones(2), atol=1e-3)


@each_solver
def test_nothing_beyond_the_array_api_is_used(solver):
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    ours = osculant.least_squares(rosenbrock_residuals, START, method=solver, maxiter=8)
    theirs = osculant.least_squares(
        rosenbrock_residuals, strict.asarray(START), method=solver, maxiter=8
    )
    assert theirs.status is ours.status and theirs.nit == ours.nit
    assert theirs.cost == pytest.approx(ours.cost, rel=1e-6, abs=1e-12)


def test_geodesic_acceleration_is_the_second_order_of_the_path():
    """For outputs that are quadratic in x the differences are exact; lambda = 0 here."""

    def model(x):
        return np.stack([x[0] + x[1] ** 2 / 4, 2 * x[1] + x[0] * x[1] / 8])

    x = np.array([0.3, 0.2])
    J = np.array([[1.0, x[1] / 2], [x[1] / 8, 2 + x[0] / 8]])
    v = -np.linalg.solve(J, model(x))
    a = -np.linalg.solve(J, [v[1] ** 2 / 2, v[0] * v[1] / 4])
    oracle = osculant.oracle(model=model, loss=half_squares, params=x)
    solver = osculant.LevenbergMarquardt(geodesic=True)
    after = solver.step(oracle, solver.init(oracle, x))
    np.testing.assert_allclose(after.x, x + v + a / 2, atol=1e-12)


# What they count ---------------------------------------------------------------------------


@each_solver
def test_counts_are_what_was_evaluated(solver):
    inner = osculant.oracle(model=rosenbrock_residuals, loss=sum_of_squares, params=START)
    oracle = Counting(inner)
    solution = osculant.minimize(oracle, START, method=solver, maxiter=12)
    assert solution.nfev == oracle.calls["values"]
    assert solution.njev == oracle.calls["gradients"]
    assert 2 * solution.nggn == oracle.calls["jvps"] + oracle.calls["vjps"] > 0


@pytest.mark.parametrize("dense", [True, False])
def test_refused_step_costs_no_derivative(dense):
    oracle = Counting(
        osculant.oracle(
            model=lambda x: np.log(x) + 3.0 * x**0, loss=sum_of_squares, params=np.ones(3)
        )
    )
    solver = osculant.LevenbergMarquardt(dense=dense)
    x = np.array([5.0, 6.0, 7.0])
    with np.errstate(invalid="ignore"):
        after = solver.step(oracle, solver.init(oracle, x))
    assert int(after.rejected) > 0 and oracle.calls["values"] == int(after.rejected) + 1
    assert oracle.calls["gradients"] == 1
    assert oracle.calls["jvps"] + oracle.calls["vjps"] == (3 if dense else 6)


def test_converged_start_costs_no_jacobian():
    oracle = Counting(
        osculant.oracle(model=rosenbrock_residuals, loss=sum_of_squares, params=START)
    )
    for solver in SOLVERS.values():
        solver.step(oracle, solver.init(oracle, np.ones(4)))
    assert oracle.calls["jvps"] == oracle.calls["vjps"] == oracle.calls["values"] == 0


def test_jacobian_takes_as_many_products_as_its_shorter_side():
    A = matrix(3, 30)
    oracle = Counting(osculant.oracle(model=linear, loss=half_squares, params=np.zeros(30)))
    solver = osculant.LevenbergMarquardt()
    solver.step(oracle, solver.init(oracle, np.zeros(30)), A, np.ones(3), None)
    assert oracle.calls["vjps"] == 3 and oracle.calls["jvps"] == 0


# What they return and refuse -----------------------------------------------------------------


def test_result_has_scipys_names_and_the_users_structure(backend):
    A, b = matrix(6, 3), np.arange(6.0)
    x0 = {"a": backend.from_numpy(np.zeros((2, 1))), "b": backend.from_numpy(np.zeros(()))}

    def residual(x, A, b):
        xp = namespace(b)
        flat = xp.concat([xp.reshape(x["a"], (-1,)), xp.reshape(x["b"], (-1,))])
        return xp.reshape(xp.matmul(A, flat) - b, (2, 3))

    solution = osculant.least_squares(
        residual, x0, args=(backend.from_numpy(A), backend.from_numpy(b))
    )
    x = np.linalg.lstsq(A, b, rcond=None)[0]
    np.testing.assert_allclose(backend.to_numpy(solution.x["a"]), x[:2, None])
    np.testing.assert_allclose(backend.to_numpy(solution["x"]["b"]), x[2])
    assert tuple(solution.fun.shape) == (2, 3) and solution.grad["a"].shape == (2, 1)
    np.testing.assert_allclose(backend.to_numpy(solution.jac), A)
    assert solution.cost == pytest.approx(np.sum((A @ x - b) ** 2) / 2)
    names = {"x", "cost", "fun", "jac", "grad", "optimality", "nfev", "njev", "status", "message"}
    assert names <= set(dict(solution))
    with pytest.raises(KeyError):
        solution["point"]


def test_lists_of_numbers_are_taken():
    solution = osculant.least_squares(rosenbrock_residuals, [-1.2, 1.0])
    np.testing.assert_allclose(solution.x, [1.0, 1.0], rtol=1e-6)


def softmax_loss(z):
    return np.log(np.sum(np.exp(z))) - z[0]


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "no loss is called 'l2'", {"loss": "l2"}),
        (ValueError, "f_scale is 0", {"f_scale": 0}),
        (ValueError, "no method is called 'trf'", {"method": "trf"}),
        (
            ValueError,
            "not a sum over the outputs",
            {"residual": lambda: osculant.oracle(model=np.sin, loss=softmax_loss, params=START)},
        ),
        (
            ValueError,
            "a loss of its own",
            {
                "residual": lambda: osculant.oracle(
                    model=np.sin, loss=sum_of_squares, params=START
                ),
                "loss": "huber",
            },
        ),
        (
            osculant.ProductUnavailable,
            "has no residuals",
            {"residual": lambda: osculant.oracle(sum_of_squares, START)},
        ),
        (ValueError, "return", {"residual": lambda: lambda x: 0.5}),
    ],
)
def test_bad_input_says_what_to_do(error, message, arguments):
    residual = arguments.pop("residual", lambda: rosenbrock_residuals)()
    if message == "return":
        error = TypeError
    with pytest.raises(error, match=message):
        osculant.least_squares(residual, START, **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: osculant.LevenbergMarquardt(scaling="newton"), "'levenberg' or 'marquardt'"),
        (lambda: osculant.LevenbergMarquardt(factor=0.0), "factor is 0.0"),
        (lambda: osculant.GaussNewton(attempts=0), "attempts is 0"),
        (lambda: osculant.GaussNewton(max_inner=0), "max_inner is 0"),
        (lambda: osculant.LevenbergMarquardt(forcing=1.0), "forcing is 1.0"),
    ],
)
def test_options_out_of_range_say_what_is_allowed(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_loss_that_is_no_sum_stalls_and_leaves_x_alone():
    oracle = osculant.oracle(model=np.sin, loss=softmax_loss, params=START)
    solution = osculant.minimize(oracle, START, method="lm")
    assert solution.status is osculant.Status.STALLED
    np.testing.assert_array_equal(solution.x, START)


def test_point_without_residuals_says_so():
    pt = osculant.oracle(sum_of_squares, START).at(START)
    assert isinstance(pt, Point)
    with pytest.raises(osculant.ProductUnavailable, match="as a composition"):
        residuals(pt)


# JAX -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gauss-newton", "marquardt, products", "geodesic"])
def test_step_is_the_same_when_jitted_and_vmapped(name):
    solver = SOLVERS[name]
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    starts = jax.numpy.asarray([[-1.2, 1.0], [0.0, 0.5], [1.0, 1.0], [3.0, -2.0]])
    oracle = osculant.oracle(model=rosenbrock_residuals, loss=sum_of_squares, params=starts[0])

    def two_steps(x):
        return solver.step(oracle, solver.step(oracle, solver.init(oracle, x)))

    batched = jax.jit(jax.vmap(two_steps))(starts)
    for i, x in enumerate(starts):
        one = two_steps(x)
        np.testing.assert_allclose(batched.x[i], one.x, rtol=1e-7, atol=1e-12)
        for a, b in zip(batched.counts, one.counts, strict=True):
            assert int(a[i]) == int(b)


def test_many_fits_in_one_compiled_call():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    rng = np.random.default_rng(0)
    truth = rng.uniform([1, 0.5, -1], [3, 2, 1], size=(50, 3))
    t = jax.numpy.linspace(0.0, 4.0, 20)
    y = jax.numpy.asarray(truth[:, :1] * np.exp(-truth[:, 1:2] * np.asarray(t)) + truth[:, 2:])
    x0 = jax.numpy.asarray([1.0, 1.0, 0.0])
    solver = osculant.LevenbergMarquardt(gtol=1e-9)
    oracle = osculant.oracle(model=decay, loss=half_squares, params=x0)

    @jax.jit
    @jax.vmap
    def fit(y):
        def running(s):
            return (s.status == osculant.Status.RUNNING) & (s.counts.gradients < 100)

        def step(s):
            return solver.step(oracle, s, t, y, None)

        return jax.lax.while_loop(running, step, solver.init(oracle, x0))

    state = fit(y)
    assert bool((state.status == osculant.Status.CONVERGED).all())
    np.testing.assert_allclose(state.x, truth, rtol=1e-5, atol=1e-6)


def test_second_fit_compiles_nothing():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    traces = []

    def residual(x, a):
        traces.append(x.shape)
        return x**3 - a

    def run(scale):
        before = len(traces)
        x0 = jax.numpy.full(3, scale)
        assert osculant.least_squares(residual, x0, args=(x0,), loss="soft_l1").success
        return len(traces) - before

    assert run(2.0) > 0
    assert run(3.0) == 0


@pytest.mark.parametrize("method", ["lm", "gauss-newton"])
def test_without_residuals_there_is_nothing_to_do(backend, method):
    x0 = backend.from_numpy(np.ones(2))
    solution = osculant.least_squares(lambda x: x[:0], x0, method=method)
    assert solution.success and solution.cost == 0.0 and solution.jac.shape == (0, 2)
