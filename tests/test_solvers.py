"""Every solver on every backend: where it ends, what it counts, what it refuses."""

import numpy as np
import pytest

import osculant
from osculant.core import drive
from osculant.core.arrays import namespace
from osculant.core.flow import EAGER
from osculant.core.oracle import Oracle, Product
from osculant.core.pairs import Memory, Pairs
from osculant.core.solvers import METHODS
from osculant.problems import rosenbrock, rosenbrock_residuals, sum_of_squares, x_minus_log

SECOND_ORDER = [osculant.TrustRegion(), osculant.NewtonKrylov()]
#: Take products to see that it is a minimum.
CONFIRMING = (osculant.Auto, osculant.TrustRegion)
ALL = [*SECOND_ORDER, osculant.LBFGS(), osculant.Auto(), osculant.SGD(), osculant.Adam()]
START = np.array([-1.2, 1.0, -1.2, 1.0])


def name_of(solver):
    return type(solver).__name__


def quadratic(x, A):
    """Return x'Ax/2 - sum(x)."""
    xp = namespace(x)
    return xp.sum(x * xp.matmul(A, x)) / 2 - xp.sum(x)


def spd(n=5):
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))
    return (Q * np.linspace(1, 10, n)) @ Q.T


class Counting(Oracle):
    """Counts what a solver asks of another oracle."""

    def __init__(self, inner):
        super().__init__(inner.structure)
        self.inner, self.products, self.flow = inner, inner.products, inner.flow
        self.calls = {"values": 0, "gradients": 0, "hvps": 0, "ggns": 0}

    def value(self, x, *data):
        self.calls["values"] += 1
        return self.inner.value(x, *data)

    def at(self, x, *data):
        self.calls["gradients"] += 1
        pt = self.inner.at(x, *data)
        for product, count in (("hvp", "hvps"), ("ggn", "ggns"), ("vhv", "hvps")):
            setattr(pt, product, self.counted(getattr(pt, product), count))
        return pt

    def counted(self, function, count):
        def call(*args):
            self.calls[count] += 1
            return function(*args)

        return call


# Where they end ----------------------------------------------------------------------------


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
def test_trust_region_solves_four_dimensional_rosenbrock(backend, jit):
    solution = osculant.minimize(
        rosenbrock, backend.from_numpy(START), method="trust-region", tol=1e-11, jit=jit
    )
    assert solution.status is osculant.Status.CONVERGED, solution.message
    assert np.linalg.norm(backend.to_numpy(solution.jac)) <= 1e-10
    np.testing.assert_allclose(backend.to_numpy(solution.x), np.ones(4), rtol=1e-9)


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
def test_newton_krylov_ends_at_a_minimum_of_rosenbrock(backend, jit):
    solution = osculant.minimize(
        rosenbrock, backend.from_numpy(START), method="newton-krylov", tol=1e-11, jit=jit
    )
    assert solution.success and np.linalg.norm(backend.to_numpy(solution.jac)) <= 1e-10
    # The chained function has a second, local minimum (3.70), which is near this start.
    assert min(abs(solution.fun), abs(solution.fun - 3.7014286104300176)) < 1e-12


def test_step_beyond_the_domain_is_rejected_and_counted(backend):
    solver = osculant.TrustRegion(radius=50.0, quasi_newton=False)
    solution = osculant.minimize(x_minus_log, backend.from_numpy(np.array([5.0])), method=solver)
    assert solution.success
    np.testing.assert_allclose(backend.to_numpy(solution.x), [1.0], atol=1e-6)
    # The Newton step from 5 goes to -15; a third of it to -1.67, a ninth to 2.78.
    assert int(solution.state.rejected) == 2
    assert solution.nfev == solution.nit + 2


@pytest.mark.parametrize("solver", SECOND_ORDER, ids=name_of)
def test_quadratic_takes_the_newton_step(backend, solver):
    A = backend.from_numpy(spd())
    solution = osculant.minimize(
        quadratic, backend.from_numpy(np.zeros(5)), args=(A,), method=solver, tol=1e-10
    )
    assert solution.success and solution.nit <= 16
    np.testing.assert_allclose(
        backend.to_numpy(solution.x), np.linalg.solve(spd(), np.ones(5)), rtol=1e-8
    )


def test_gauss_newton_uses_gauss_newton_products_only(backend):
    x0 = backend.from_numpy(START)
    oracle = osculant.oracle(model=rosenbrock_residuals, loss=sum_of_squares, params=x0)
    solution = osculant.minimize(
        oracle, x0, method=osculant.TrustRegion(curvature="gauss-newton"), tol=1e-10
    )
    assert solution.success and solution.nhev == 0 < solution.nggn
    np.testing.assert_allclose(backend.to_numpy(solution.x), np.ones(4), rtol=1e-8)


@pytest.mark.parametrize("method", ["auto", "lbfgs", "trust-region"])
def test_function_without_a_minimum_is_reported(backend, method):
    def fun(x):
        return -namespace(x).sum(namespace(x).exp(x))

    solution = osculant.minimize(fun, backend.from_numpy(np.zeros(2)), method=method)
    assert solution.status is osculant.Status.UNBOUNDED and not solution.success
    assert "check its sign" in solution.message and np.isfinite(solution.fun)


@pytest.mark.parametrize("solver", ALL, ids=name_of)
def test_start_at_the_optimum_is_a_success_in_no_iterations(backend, solver):
    x0 = backend.from_numpy(np.ones(4))
    solution = osculant.minimize(rosenbrock, x0, method=solver)
    assert solution.success and solution.nit == 0 and solution.fun == 0.0
    assert solution.nfev == 0
    if not isinstance(solver, CONFIRMING):
        assert solution.njev == 1 and solution.nhev == 0


@pytest.mark.parametrize(
    ("solver", "nit"),
    [(osculant.SGD(learning_rate=0.1, momentum=0.5), 200), (osculant.Adam(), 5000)],
)
def test_first_order_methods_reach_a_quadratics_minimum(solver, nit):
    solution = osculant.minimize(quadratic, np.zeros(5), args=(spd(),), method=solver, tol=1e-5)
    assert solution.success and solution.nit <= nit


def test_adam_takes_the_papers_first_step():
    """Bias correction makes it learning_rate * sign(g)."""
    oracle = osculant.oracle(lambda x: (np.array([3.0, -1e-3]) * x).sum(), np.zeros(2))
    adam = osculant.Adam(learning_rate=0.5)
    state = adam.step(oracle, adam.init(oracle, np.zeros(2)))
    np.testing.assert_allclose(state.x, [-0.5, 0.5], rtol=1e-4)


@pytest.mark.parametrize("solver", ALL, ids=name_of)
def test_float32_stays_float32(backend, solver):
    x0 = backend.from_numpy(START.astype(np.float32))
    oracle = osculant.oracle(rosenbrock, x0)
    state = solver.init(oracle, x0)
    after = solver.step(oracle, solver.step(oracle, state))
    for field, before in state._asdict().items():
        value = getattr(after, field)
        if not isinstance(before, tuple):
            assert value.dtype == before.dtype and value.shape == before.shape, field
    assert after.x.dtype == x0.dtype


def test_float32_converges_as_far_as_float32_goes(backend):
    x0 = backend.from_numpy(START.astype(np.float32))
    solution = osculant.minimize(rosenbrock, x0, tol=1e-4)
    assert solution.success
    np.testing.assert_allclose(backend.to_numpy(solution.x), np.ones(4), atol=1e-3)


@pytest.mark.parametrize("method", ["lbfgs", "auto"])
def test_quasi_newton_methods_solve_rosenbrock(backend, method):
    x0 = backend.from_numpy(np.array([-1.2, 1.0]))
    solution = osculant.minimize(rosenbrock, x0, method=method, tol=1e-9)
    assert solution.success and solution.nfev == 0
    assert solution.nhev == (0 if method == "lbfgs" else 2)  # to confirm the minimum
    assert solution.njev <= 60
    np.testing.assert_allclose(backend.to_numpy(solution.x), np.ones(2), rtol=1e-7)


def test_lbfgs_direction_is_the_dense_bfgs_one():
    rng = np.random.default_rng(0)
    S = rng.normal(size=(3, 5))
    Y = S @ spd()
    g = rng.normal(size=5)
    H = np.eye(5) * (S[-1] @ Y[-1]) / (Y[-1] @ Y[-1])
    for s, y in zip(S, Y, strict=True):
        V = np.eye(5) - np.outer(y, s) / (y @ s)
        H = V.T @ H @ V + np.outer(s, s) / (y @ s)
    unfilled = np.zeros((2, 5))
    pairs = Pairs(np.vstack([unfilled, S]), np.vstack([unfilled, Y]))
    np.testing.assert_allclose(Memory.of(pairs).inverse(np.asarray(7.0))(g), H @ g, rtol=1e-10)
    nothing = Memory.of(Pairs(unfilled, unfilled))
    np.testing.assert_allclose(nothing.inverse(np.asarray(7.0))(g), 7 * g)


@pytest.mark.parametrize(("n", "rows"), [(2, 30), (40, 40), (1000, 100), (2000, 50), (30_000, 10)])
def test_lbfgs_keeps_as_many_pairs_as_there_are_variables_and_room(n, rows):
    x = np.zeros(n)
    oracle = osculant.oracle(lambda x: (x * x).sum(), x)
    for solver, expected in ((osculant.LBFGS(), rows), (osculant.LBFGS(memory=3), 3)):
        assert solver.init(oracle, x).memory.pairs.S.shape == (expected, n)


def test_memory_grows_into_what_would_be_made_anew():
    """Past its size, past a pair that is refused, and after all was forgotten."""
    rng = np.random.default_rng(0)
    S, v, yes = rng.normal(size=(7, 5)), rng.normal(size=5), np.asarray(True)
    Y = S @ spd()
    memory = Memory.none(v, 3)
    assert not memory.any()
    for s, y in zip(S, Y, strict=True):
        memory = memory.push(s, y, yes, EAGER).push(v, v, ~yes, EAGER)
    made = Memory.of(Pairs(S[4:], Y[4:]))
    order = (np.arange(3) + memory.oldest) % 3
    np.testing.assert_array_equal(memory.pairs.S[order], S[4:])
    R_inv = memory.R_inv[np.ix_(order, order)]
    np.testing.assert_allclose(R_inv, made.R_inv, rtol=1e-10, atol=1e-12)
    for each in memory, made:
        np.testing.assert_allclose(each.gamma, S[-1] @ Y[-1] / (Y[-1] @ Y[-1]))
    forgetful = memory.forget(yes)
    assert memory.any() and not forgetful.any()
    np.testing.assert_allclose(forgetful.inverse(np.asarray(7.0))(v), 7 * v)
    s, y = S[0], Y[0]
    one = Memory.of(Pairs(s[None, :], y[None, :])).inverse(np.asarray(1.0))(v)
    again = forgetful.push(s, y, yes, EAGER).inverse(np.asarray(1.0))(v)
    np.testing.assert_allclose(again, one, rtol=1e-10)


def test_a_pair_out_of_range_is_gone_once_it_is_dropped_or_forgotten():
    v, yes = np.ones(5), np.asarray(True)
    with np.errstate(over="ignore", invalid="ignore"):
        memory = Memory.none(v, 2).push(1e-160 * v, 1e-160 * v, yes, EAGER)
        assert np.isinf(memory.R_inv).any() and not memory.forget(yes).R_inv.any()
        for _ in range(2):
            memory = memory.push(v, v, yes, EAGER)
    np.testing.assert_allclose(memory.inverse(np.asarray(1.0))(2 * v), 2 * v)


def test_a_step_is_no_longer_a_program_for_more_memory():
    jax = pytest.importorskip("jax")

    def lines(memory):
        x = jax.numpy.ones(3)
        oracle = osculant.oracle(lambda x: (x**4).sum(), x)
        solver = osculant.LBFGS(memory=memory)
        step = jax.jit(lambda state: solver.step(oracle, state))
        return len(step.lower(solver.init(oracle, x)).as_text().splitlines())

    assert lines(20) == lines(5)


def test_auto_hands_over_to_the_trust_region_where_the_line_search_stalls():
    def fun(x):  # the line search finds nothing: its gradient is blind to the wall
        wall = np.where(x[1] > 0, 1e12 * x[1], 0 * x[1])
        return (x[0] - 1) ** 4 + wall + x[1] ** 2 - 1e-3 * x[1]

    solver = osculant.Auto(lbfgs=osculant.LBFGS(attempts=1))
    oracle = osculant.oracle(fun, START[:2])
    solution = osculant.minimize(oracle, np.array([3.0, 0.0]), method=solver, tol=1e-6)
    assert bool(solution.state.exact) and solution.nhev > 0
    np.testing.assert_array_equal(solution.state.x, solution.state.trust_region.x)
    counts = solution.state.trust_region.counts
    assert int(counts.gradients) + 1 >= solution.njev  # carried over, not started again


def test_auto_without_hessian_products_is_lbfgs():
    class GradientOnly(Counting):
        def __init__(self, inner):
            super().__init__(inner)
            self.products = frozenset({Product.GRAD})

    oracle = GradientOnly(osculant.oracle(rosenbrock, START))
    a = osculant.minimize(oracle, START, method="auto", tol=1e-9)
    b = osculant.minimize(rosenbrock, START, method="lbfgs", tol=1e-9)
    assert a.success and a.nit == b.nit
    np.testing.assert_array_equal(a.x, b.x)


def test_lbfgs_on_batches_evaluates_where_each_step_starts():
    oracle = Counting(osculant.oracle(quadratic, np.zeros(5)))
    lbfgs = osculant.LBFGS()
    state = lbfgs.init(oracle, np.zeros(5))
    for scale in (1.0, 2.0, 3.0):
        state = lbfgs.step(oracle, state, scale * spd())
    assert int(state.counts.gradients) == oracle.calls["gradients"] >= 6


@pytest.mark.parametrize("solver", ALL, ids=name_of)
def test_solvers_use_nothing_beyond_the_array_api(solver):
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    ours = osculant.minimize(rosenbrock, START, method=solver, maxiter=20)
    theirs = osculant.minimize(rosenbrock, strict.asarray(START), method=solver, maxiter=20)
    assert theirs.status is ours.status and theirs.nit == ours.nit
    assert theirs.fun == pytest.approx(ours.fun, rel=1e-6, abs=1e-12)


# What they count ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "solver",
    [
        osculant.SGD(learning_rate=1e-3),
        *ALL[:2],
        osculant.Adam(),
        osculant.TrustRegion(radius=50.0),
        osculant.TrustRegion(curvature="gauss-newton"),
    ],
    ids=name_of,
)
def test_counts_are_what_was_evaluated(solver):
    oracle = Counting(
        osculant.oracle(model=rosenbrock_residuals, loss=sum_of_squares, params=START)
    )
    solution = drive.minimize(oracle, START, solver=solver, maxiter=30)
    reported = {
        "values": solution.nfev,
        "gradients": solution.njev,
        "hvps": solution.nhev,
        "ggns": solution.nggn,
    }
    assert reported == oracle.calls
    # The solver's own counts lack the driver's gradient at the end.
    counts = solution.state.counts
    assert int(counts.gradients) == solution.njev - (solution.status is osculant.Status.MAXITER)
    cost = counts.values / 3 + counts.gradients + 2 * counts.hvps + counts.ggns * 4 / 3
    assert counts.gradient_equivalents() == pytest.approx(float(cost))


def test_no_solver_evaluates_anything_in_init():
    oracle = Counting(osculant.oracle(rosenbrock, START))
    for make in METHODS.values():
        make().init(oracle, START)
    assert not any(oracle.calls.values())


# Newton-Krylov's own mechanisms --------------------------------------------------------------


def indefinite(x, sign):
    xp = namespace(x)
    return xp.sum(sign * x * x) / 2 + xp.sum(x**4) / 4


def nk_step(solver, x, *data, **changes):
    oracle = osculant.oracle(indefinite, x)
    return solver.step(oracle, solver.init(oracle, x)._replace(**changes), *data)


def test_batch_whose_gradient_opposes_the_global_one_is_skipped():
    x, sign = np.array([1.0, 2.0]), np.ones(2)
    g = x * sign + x**3
    state = nk_step(osculant.NewtonKrylov(global_gradient="full"), x, sign, global_grad=-g)
    np.testing.assert_array_equal(state.x, x)
    assert int(state.screened) == 1 and int(state.counts.hvps) == 0 == int(state.counts.values)


def test_direction_does_not_climb_along_the_global_gradient():
    x, sign = np.array([1.0, 2.0]), np.array([1.0, 50.0])
    g = x * sign + x**3
    # In the half space of g, yet the Newton direction climbs along it.
    newton = -np.linalg.solve(np.diag(sign + 3 * x**2), g)
    gbar = np.array([-30.0, 4.0])
    assert gbar @ g > 0 and gbar @ newton > 0
    solver = osculant.NewtonKrylov(global_gradient="full", forcing=1e-10)
    state = nk_step(solver, x, sign, global_grad=gbar)
    move = state.x - x
    assert move @ g < 0
    np.testing.assert_allclose(move @ gbar, 0.0, atol=1e-12)
    assert int(state.counts.hvps) == 2 + 1  # the search's, and one for d'Hd after the screening


def test_negative_first_curvature_steps_along_the_gradient():
    x, sign = np.array([0.01, 0.02]), -np.ones(2)
    state = nk_step(osculant.NewtonKrylov(), x, sign)
    g = sign * x + x**3
    move = state.x - x
    np.testing.assert_allclose(move / np.linalg.norm(move), -g / np.linalg.norm(g))
    assert int(state.counts.hvps) == 1


def test_carried_search_takes_up_the_next_batchs_hessian():
    def fun(x, b, c):
        return (b * x + c * x * x / 2).sum()

    x, b, c = np.zeros(2), np.array([1.0, 2.0]), np.array([2.0, 5.0])
    solver = osculant.NewtonKrylov(negative_curvature="carry", forcing=1e-10)
    oracle = osculant.oracle(fun, x)
    state = solver.step(oracle, solver.init(oracle, x), b, -c)
    np.testing.assert_array_equal(state.x, x)
    np.testing.assert_allclose(state.carried, -b)
    assert int(state.status) == osculant.Status.RUNNING

    # The next batch has another gradient; H d = -b is solved with its Hessian.
    after = solver.step(oracle, state, 1.1 * b, c)
    np.testing.assert_allclose(after.x, float(after.step_length) * -b / c)
    assert float(after.step_length) > 0 and not after.carried.any()

    # One that bars the way again is not waited for: a plain gradient step.
    again = solver.step(oracle, state, b, -c)
    assert not again.carried.any() and (again.x - x) @ b < 0


def test_mean_and_full_global_gradients():
    x, sign = np.array([1.0, 2.0]), np.ones(2)
    g = sign * x + x**3
    state = nk_step(osculant.NewtonKrylov(decay=0.75), x, sign)
    np.testing.assert_allclose(state.global_grad, 0.25 * g)

    solver = osculant.NewtonKrylov(global_gradient="full")
    oracle = osculant.oracle(indefinite, x)
    state = solver.refresh(oracle, solver.init(oracle, x), [(sign,), (3 * sign,)])
    np.testing.assert_allclose(state.global_grad, 2 * sign * x + x**3)
    assert int(state.counts.gradients) == 2


# Options that make no sense ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: osculant.TrustRegion(curvature="fisher"), "'hessian' or 'gauss-newton'"),
        (lambda: osculant.TrustRegion(radius=-1.0), "must be positive"),
        (lambda: osculant.TrustRegion(attempts=0), "at least one"),
        (lambda: osculant.NewtonKrylov(interval=(0.5, 0.1)), "0 <= low < high"),
        (lambda: osculant.NewtonKrylov(global_gradient="half"), "global_gradient is 'half'"),
    ],
)
def test_options_out_of_range_say_what_is_allowed(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_missing_product_names_who_needs_it():
    class GradientOnly(Counting):
        def __init__(self, inner):
            super().__init__(inner)
            self.products = frozenset({Product.GRAD})

    oracle = GradientOnly(osculant.oracle(rosenbrock, START))
    with pytest.raises(osculant.ProductUnavailable, match="TrustRegion needs hvp"):
        osculant.minimize(oracle, START, method="trust-region")
    with pytest.raises(osculant.ProductUnavailable, match="TrustRegion needs ggn"):
        osculant.minimize(rosenbrock, START, method=osculant.TrustRegion(curvature="gauss-newton"))
