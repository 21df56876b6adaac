"""Newton, Newton-CG, steepest descent, BFGS and nonlinear CG, and the parts they share."""

from dataclasses import replace

import numpy as np
import pytest

import osculant
from osculant.core.arrays import namespace
from osculant.core.flow import EAGER
from osculant.core.globalize.line_search import goldstein
from osculant.core.krylov.residual import conjugate_residual
from osculant.core.krylov.truncated_cg import truncated_cg
from osculant.core.oracle import Oracle
from osculant.core.pairs import Memory, at_end, damped, teaches
from osculant.core.samples import Samples
from osculant.core.solvers import newton
from osculant.problems import rosenbrock

FAST = [
    osculant.NewtonCG(),
    osculant.NewtonCG(inner="cr"),
    osculant.NewtonCG(memory=0),
    osculant.Newton(),
    osculant.BFGS(),
    osculant.BFGS(damping=True),
    osculant.LBFGS(damping=True),
    osculant.NonlinearCG(),
    osculant.NonlinearCG(beta="polak-ribiere"),
]
ALL = [*FAST, osculant.SteepestDescent()]
START = np.array([-1.2, 1.0, -1.2, 1.0])
YES = np.asarray(True)


def name_of(solver):
    changed = [str(v) for v in (getattr(solver, k, None) for k in ("inner", "memory", "beta")) if v]
    return "-".join([type(solver).__name__, *changed, *["damped"] * getattr(solver, "damping", 0)])


every_solver = pytest.mark.parametrize("solver", ALL, ids=name_of)


def spd(n=6, low=1.0, high=10.0, seed=0):
    Q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return (Q * np.linspace(low, high, n)) @ Q.T


def quadratic(x, A):
    """Return x'Ax/2 - sum(x)."""
    xp = namespace(x)
    return xp.sum(x * xp.matmul(A, x)) / 2 - xp.sum(x)


@pytest.fixture
def g():
    return np.random.default_rng(1).normal(size=6)


class Counting(Oracle):
    """Counts what a solver asks of another oracle."""

    def __init__(self, inner):
        super().__init__(inner.structure)
        self.inner, self.products, self.flow = inner, inner.products, inner.flow
        self.calls = {"values": 0, "gradients": 0, "hvps": 0}

    def value(self, x, *data):
        self.calls["values"] += 1
        return self.inner.value(x, *data)

    def at(self, x, *data):
        self.calls["gradients"] += 1
        pt = self.inner.at(x, *data)
        inner = pt.hvp

        def hvp(V):
            self.calls["hvps"] += 1 if V.ndim == 1 else V.shape[1]
            return inner(V)

        pt.hvp = hvp
        return pt


# Every solver --------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", FAST, ids=name_of)
def test_rosenbrock_is_solved_on_every_backend(backend, solver):
    x0 = backend.from_numpy(np.array([-1.2, 1.0]))
    solution = osculant.minimize(rosenbrock, x0, method=solver, tol=1e-8)
    assert solution.success, solution.message
    np.testing.assert_allclose(backend.to_numpy(solution.x), np.ones(2), rtol=1e-6)


@every_solver
def test_quadratic_is_solved(backend, solver):
    A, x0 = backend.from_numpy(spd()), backend.from_numpy(np.zeros(6))
    solution = osculant.minimize(quadratic, x0, args=(A,), method=solver, tol=1e-7, jit=False)
    assert solution.success, solution.message
    np.testing.assert_allclose(
        backend.to_numpy(solution.x), np.linalg.solve(spd(), np.ones(6)), rtol=1e-6, atol=1e-7
    )


@every_solver
def test_counts_are_what_was_evaluated(solver):
    oracle = Counting(osculant.oracle(rosenbrock, START))
    solution = osculant.minimize(oracle, START, method=solver, maxiter=30)
    reported = {"values": solution.nfev, "gradients": solution.njev, "hvps": solution.nhev}
    assert reported == oracle.calls


@every_solver
def test_nothing_is_evaluated_by_init(solver):
    oracle = Counting(osculant.oracle(rosenbrock, START))
    solver.init(oracle, START)
    assert not any(oracle.calls.values())


@every_solver
def test_states_keep_shape_and_dtype_in_single_precision(backend, solver):
    x0 = backend.from_numpy(START.astype(np.float32))
    oracle = osculant.oracle(rosenbrock, x0)
    state = solver.init(oracle, x0)
    after = solver.step(oracle, solver.step(oracle, state))
    for before, value in zip(leaves(state), leaves(after), strict=True):
        assert value.dtype == before.dtype and value.shape == before.shape


def leaves(tree):
    return [leaf for part in tree for leaf in leaves(part)] if isinstance(tree, tuple) else [tree]


@every_solver
def test_nothing_beyond_the_array_api_is_used(solver):
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    ours = osculant.minimize(rosenbrock, START, method=solver, maxiter=8)
    theirs = osculant.minimize(rosenbrock, strict.asarray(START), method=solver, maxiter=8)
    assert theirs.status is ours.status and theirs.nit == ours.nit
    assert theirs.fun == pytest.approx(ours.fun, rel=1e-6)


@pytest.mark.parametrize(
    "solver",
    [
        osculant.NewtonCG(memory=2),
        osculant.NewtonCG(inner="cr", memory=2),
        osculant.NewtonCG(fixed=True),
        osculant.Newton(),
        osculant.BFGS(),
        osculant.LBFGS(memory=2, damping=True),
        osculant.NonlinearCG(),
        osculant.SteepestDescent(),
    ],
    ids=name_of,
)
def test_step_on_jax_is_one_program_that_vectorises(solver):
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    starts = jax.numpy.asarray([[-1.2, 1.0], [0.0, 0.0], [1.0, 1.0], [3.0, -2.0]])
    oracle = osculant.oracle(rosenbrock, starts[0])

    def two_steps(x):
        return solver.step(oracle, solver.step(oracle, solver.init(oracle, x)))

    batched = jax.jit(jax.vmap(two_steps))(starts)
    for i, x in enumerate(starts):
        one = two_steps(x)
        np.testing.assert_allclose(batched.x[i], one.x, rtol=1e-9)
        assert batched.status[i] == one.status
        np.testing.assert_array_equal([c[i] for c in batched.counts], list(one.counts))


@every_solver
def test_batches_of_different_data_are_each_evaluated_where_the_step_starts(solver):
    batches = [(scale * spd(),) for scale in (1.0, 2.0, 3.0, 1.0, 2.0, 3.0)]
    oracle = Counting(osculant.oracle(quadratic, np.zeros(6)))
    solution = osculant.fit(oracle, np.zeros(6), batches, solver=solver)
    assert solution.njev == oracle.calls["gradients"] >= len(batches)
    assert np.isfinite(solution.fun)


# Newton, dense ---------------------------------------------------------------------------------


def test_newton_solves_a_quadratic_in_one_step():
    solution = osculant.minimize(quadratic, np.zeros(6), args=(spd(),), method="newton", tol=1e-10)
    assert solution.nit == 1 and solution.nhev == 6


def test_newton_takes_negative_curvature_by_its_size():
    A, x = np.diag([2.0, -4.0]), np.array([1.0, 1.0])
    solver = osculant.Newton(attempts=1)
    oracle = osculant.oracle(lambda x: quadratic(x, A), x)
    state = solver.step(oracle, solver.init(oracle, x))
    g = A @ x - 1
    np.testing.assert_allclose(state.x, x - g / np.array([2.0, 4.0]))


def test_newton_survives_a_hessian_without_entries_that_count(backend):
    """Where the Hessian is zero the step has length 1, and the line search stretches it."""
    solution = osculant.minimize(
        lambda x: namespace(x).sum((x - 3.0) ** 4 * 1e-3 + x * 0),
        backend.from_numpy(np.array([3.0, 1e3])),
        method="newton",
        tol=1e-9,
    )
    assert solution.success
    oracle = osculant.oracle(lambda x: x.sum(), np.zeros(2))
    solver = osculant.Newton(attempts=1)
    state = solver.step(oracle, solver.init(oracle, np.zeros(2)))
    np.testing.assert_allclose(state.x, -np.ones(2) / np.sqrt(2))


@pytest.mark.parametrize("solver", [osculant.Newton(), osculant.BFGS()], ids=name_of)
def test_dense_methods_refuse_sizes_that_cannot_be_meant(monkeypatch, solver):
    monkeypatch.setattr(newton, "LARGEST_DENSE", 3)
    with pytest.raises(ValueError, match=r"dense 4 x 4 matrix; above 3 variables use \w+"):
        osculant.minimize(rosenbrock, START, method=solver)


# Krylov iterations -----------------------------------------------------------------------------


def solve(method, B, g, memory=0, known=None, rtol=1e-12, maxiter=50):
    memory = known or Memory.none(g, memory)
    return method(lambda v: B @ v, g, memory, rtol=rtol, maxiter=maxiter, flow=EAGER)


both = pytest.mark.parametrize("method", [truncated_cg, conjugate_residual])


@both
def test_krylov_iterations_end_at_the_newton_step(method, g):
    step = solve(method, spd(), g)
    np.testing.assert_allclose(step.d, -np.linalg.solve(spd(), g), rtol=1e-9)
    assert int(step.products) == 6


@both
@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_krylov_iterations_survive_gradients_of_any_scale(method, scale, g):
    step = solve(method, spd(), scale * g)
    np.testing.assert_allclose(step.d / scale, -np.linalg.solve(spd(), g), rtol=1e-9)


@both
def test_krylov_iterations_keep_exact_pairs(method, g):
    B = spd()
    pairs = solve(method, B, g, memory=4).memory.pairs
    np.testing.assert_allclose(pairs.Y, pairs.S @ B, rtol=1e-8, atol=1e-10)
    conjugate = pairs.S @ B @ (pairs.S if method is truncated_cg else pairs.S @ B).T
    off = conjugate - np.diag(np.diag(conjugate))
    np.testing.assert_allclose(off, 0.0, atol=1e-9 * np.max(conjugate))


def test_pairs_of_one_run_precondition_the_next(g):
    B = spd(high=1e4)
    first = solve(truncated_cg, B, g, memory=6)
    again = solve(truncated_cg, B, np.ones(6), known=first.memory, rtol=1e-6)
    assert int(first.products) >= 6 and int(again.products) == 1
    np.testing.assert_allclose(again.d, -np.linalg.solve(B, np.ones(6)), rtol=1e-5, atol=1e-9)


@both
def test_preconditioned_iterations_end_at_the_newton_step(method, g):
    known = solve(truncated_cg, spd(high=100.0), np.ones(6), memory=3).memory
    assert known.any()
    step = solve(method, spd(), g, known=known)
    np.testing.assert_allclose(step.d, -np.linalg.solve(spd(), g), rtol=1e-8)
    assert 6 <= int(step.products) <= 7


def test_conjugate_residuals_leave_the_smaller_residual(g):
    B = spd(high=1e3)
    for k in range(1, 6):
        cg, cr = (solve(m, B, g, maxiter=k).d for m in (truncated_cg, conjugate_residual))
        assert np.linalg.norm(B @ cr + g) < np.linalg.norm(B @ cg + g)
        assert cg @ B @ cg / 2 + g @ cg < cr @ B @ cr / 2 + g @ cr


@both
def test_first_negative_curvature_counts_by_its_size(method):
    g = np.array([3.0, 4.0])
    step = solve(method, -2.0 * np.eye(2), g)
    np.testing.assert_allclose(step.d, -g / 2)
    assert int(step.products) == 1


@both
@pytest.mark.parametrize("seed", range(5))
def test_later_negative_curvature_is_used_and_descends(method, seed):
    rng = np.random.default_rng(seed)
    B, g = spd(low=-1.0, seed=seed), rng.normal(size=6)
    step = solve(method, B, g)
    before = solve(method, B, g, maxiter=int(step.products) - 1)
    assert step.d @ g < 0 and 1 < int(step.products) <= 6
    assert not np.allclose(step.d, before.d)


@both
def test_products_without_information_leave_a_step_of_length_one(method, g):
    for B in (np.zeros((6, 6)), np.full((6, 6), np.nan), np.full((6, 6), np.inf)):
        with np.errstate(invalid="ignore"):
            step = solve(method, B, g, memory=2)
        np.testing.assert_allclose(step.d, -g / np.linalg.norm(g))
        assert not step.memory.any() and not step.memory.pairs.S.any()


@both
def test_no_gradient_and_no_budget_give_no_step(method, g):
    assert not solve(method, spd(), np.zeros(6)).d.any()
    assert not solve(method, spd(), g, maxiter=0).d.any()


# Newton-CG and steepest descent ----------------------------------------------------------------


def test_preconditioner_saves_products():
    x0, solver = np.tile([-1.2, 1.0], 10), osculant.NewtonCG(quasi_newton=False)
    plain, learned = (
        osculant.minimize(rosenbrock, x0, method=replace(solver, memory=m), tol=1e-8)
        for m in (0, 10)
    )
    assert plain.success and learned.success
    assert learned.nhev < 0.8 * plain.nhev


def convex(x):
    """A quadratic of condition 100 and a little of a quartic."""
    return (np.geomspace(1.0, 1e2, 20) * x * x).sum() / 2 + (x**4).sum() / 40


PAIRED = [osculant.NewtonCG(fixed=True), osculant.NewtonCG(inner="cr", fixed=True)]
every_paired = pytest.mark.parametrize("solver", PAIRED, ids=name_of)


@every_paired
def test_quasi_newton_steps_evaluate_a_gradient_for_each_point(solver):
    oracle = Counting(osculant.oracle(convex, np.ones(20)))
    state = solver.step(oracle, solver.init(oracle, np.ones(20)))
    assert state.secant and int(state.counts.hvps) > 0
    s, newest = state.x - np.ones(20), int(state.memory.oldest) - 1
    np.testing.assert_array_equal(state.memory.pairs.S[newest], s)
    y = state.grad - oracle.inner.at(np.ones(20)).grad
    np.testing.assert_array_equal(state.memory.pairs.Y[newest], y)
    before = dict(oracle.calls)
    after = solver.step(oracle, state)
    more = {kind: calls - before[kind] for kind, calls in oracle.calls.items()}
    assert more == {"values": 0, "gradients": 1, "hvps": 0}
    assert int(after.counts.gradients) - int(state.counts.gradients) == 1
    assert after.secant and float(after.step_length) > 0
    pt = oracle.at(after.x)
    assert float(after.value) == float(pt.value) < float(state.value)
    assert np.array_equal(after.grad, pt.grad)


@pytest.mark.parametrize("changes", [{"quasi_newton": False}, {"fixed": False}, {"memory": 0}])
@every_paired
def test_every_step_takes_products_without_pairs_or_a_fixed_function(solver, changes):
    solver = replace(solver, **changes)
    oracle = Counting(osculant.oracle(convex, np.ones(20)))
    state = solver.init(oracle, np.ones(20))
    for k in range(1, 5):
        before, state = state, solver.step(oracle, state)
        assert not state.secant and int(state.counts.hvps) > int(before.counts.hvps)
        assert int(state.counts.gradients) == k
        assert np.array_equal(state.grad, oracle.inner.at(before.x).grad)


@every_paired
def test_quasi_newton_steps_wait_for_positive_curvature_along_a_step(solver):
    def saddle(x):
        return x[0] ** 2 - 2 * x[1] ** 2 + x[1] ** 4

    oracle = osculant.oracle(saddle, START[:2])
    state = solver.init(oracle, np.array([1e-5, 0.01]))
    seen = []
    while len(seen) < 30 and state.status == 0:
        before, x, state = state, state.x, replace(solver, gtol=1e-6).step(oracle, state)
        y = oracle.at(state.x).grad - oracle.at(x).grad
        assert bool(state.secant) == bool((state.x - x) @ y > 0) or before.secant
        assert (state.counts.hvps > before.counts.hvps) == (not before.secant)
        seen.append(bool(state.secant))
    assert not seen[0] and True in seen
    assert np.isclose(saddle(state.x), -1.0)


@every_paired
def test_products_are_next_where_a_quasi_newton_step_fails(solver):
    oracle = osculant.oracle(rosenbrock, START)
    state = solver.step(oracle, solver.init(oracle, START))
    while not state.secant:
        state = solver.step(oracle, state)
    refused = solver.step(oracle, state._replace(value=np.asarray(-1e9)))
    assert not refused.secant and np.array_equal(refused.x, state.x)
    assert refused.status == state.status and float(refused.step_length) == 0
    assert refused.memory.any() and int(refused.counts.hvps) == int(state.counts.hvps)
    again = solver.step(oracle, refused)
    assert again.counts.hvps > refused.counts.hvps and again.step_length > 0


def test_newton_cg_keeps_as_many_pairs_as_lbfgs():
    solver = PAIRED[0]
    for n in (4, 50, 500):
        x = np.ones(n)
        oracle = osculant.oracle(rosenbrock, x)
        as_many = osculant.LBFGS().init(oracle, x).memory.pairs.S.shape[0]
        for changes, pairs in (({}, as_many), ({"memory": 7}, 7), ({"fixed": False}, as_many)):
            state = replace(solver, **changes).init(oracle, x)
            assert state.memory.pairs.S.shape == (pairs, n)


@pytest.mark.parametrize("neg", [1, 3])
def test_newton_cg_leaves_a_saddle_whose_stable_manifold_it_starts_close_to(neg):
    d = np.concatenate([-np.ones(neg), np.geomspace(1.0, 30.0, 9)])
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(d.size, d.size)))

    def fun(x):
        return (d * (Q.T @ x) ** 2).sum() / 2 + ((Q.T @ x) ** 4).sum() / 4

    x0 = Q @ np.where(d < 0, 1e-4, 1.0)
    for inner in ("cg", "cr"):
        solution = osculant.minimize(fun, x0, method=osculant.NewtonCG(inner=inner), tol=1e-6)
        assert solution.success and np.isclose(solution.fun, -neg / 4)


def test_quasi_newton_steps_spare_products():
    x0 = np.tile([-1.2, 1.0], 10)
    newton, enriched = (
        osculant.minimize(rosenbrock, x0, method=osculant.NewtonCG(quasi_newton=q), tol=1e-8)
        for q in (False, True)
    )
    assert newton.success and enriched.success
    assert enriched.njev + 2 * enriched.nhev < 0.6 * (newton.njev + 2 * newton.nhev)
    assert enriched.nhev < 0.5 * newton.nhev


def test_curvature_and_ratio_are_taken_from_their_own_samples():
    def fun(x, a):
        return (a * x * x).sum() / 2 - x.sum()

    x, solver = np.array([3.0, 3.0]), osculant.SteepestDescent(attempts=1)
    oracle = Counting(osculant.oracle(fun, x))
    one, five = (np.ones(2),), (5 * np.ones(2),)
    state = solver.step(oracle, solver.init(oracle, x), Samples(one, five, five))
    np.testing.assert_allclose(state.x, x - (x - 1) / 5)
    assert oracle.calls == {"values": 2, "gradients": 2, "hvps": 1}
    assert [int(c) for c in state.counts][:3] == [2, 2, 1]


def test_steepest_descent_takes_cauchys_step():
    A, x = spd(), np.arange(6.0)
    oracle = osculant.oracle(lambda x: quadratic(x, A), x)
    solver = osculant.SteepestDescent()
    state = solver.step(oracle, solver.init(oracle, x))
    g = A @ x - 1
    np.testing.assert_allclose(state.x, x - (g @ g) / (g @ A @ g) * g)
    assert [int(c) for c in state.counts][:3] == [1, 1, 1]


def test_steepest_descent_converges_at_the_rate_of_kantorovich():
    """The error in the norm of A falls by (kappa - 1) / (kappa + 1) each step or faster."""
    A = spd(high=4.0)
    x_star = np.linalg.solve(A, np.ones(6))
    oracle = osculant.oracle(lambda x: quadratic(x, A), x_star)
    solver, x = osculant.SteepestDescent(), x_star + np.arange(6.0)
    state = solver.init(oracle, x)
    for _ in range(5):
        before = state.x - x_star
        state = solver.step(oracle, state)
        after = state.x - x_star
        assert after @ A @ after <= (3 / 5) ** 2 * (before @ A @ before)


def test_exactly_zero_gradient_at_a_saddle_is_taken_for_convergence():
    """There is nothing to go on: the docstring says so."""
    solution = osculant.minimize(
        lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4, np.array([1.0, 0.0]), method="newton-cg"
    )
    assert solution.success and abs(solution.x[1]) == 0.0


# Quasi-Newton updates --------------------------------------------------------------------------


def test_bfgs_is_the_textbook_update():
    solver = osculant.BFGS(fixed=True)
    oracle = osculant.oracle(rosenbrock, START)
    before = solver.step(oracle, solver.init(oracle, START))
    after = solver.step(oracle, before)
    s, y, H = after.x - before.x, after.grad - before.grad, before.H
    y = at_end(s, y, after.grad, before.value - after.value, np.asarray(0.0))
    rho, identity = 1 / (s @ y), np.eye(4)
    V = identity - rho * np.outer(y, s)
    np.testing.assert_allclose(after.H, V.T @ H @ V + rho * np.outer(s, s), rtol=1e-9)
    np.testing.assert_allclose(after.H @ y, s, rtol=1e-9)  # the secant equation


def test_first_bfgs_update_starts_from_the_scale_of_the_pair():
    solver, A = osculant.BFGS(fixed=True), 1e6 * np.eye(3)
    oracle = osculant.oracle(lambda x: quadratic(x, A), np.ones(3))
    state = solver.step(oracle, solver.init(oracle, np.ones(3)))
    np.testing.assert_allclose(state.H, 1e-6 * np.eye(3), rtol=1e-9, atol=1e-20)


def test_inverse_of_pairs_is_the_dense_bfgs_one():
    rng = np.random.default_rng(0)
    S = rng.normal(size=(3, 6))
    Y, v = S @ spd(), rng.normal(size=6)
    H = np.eye(6) * (S[-1] @ Y[-1]) / (Y[-1] @ Y[-1])
    for s, y in zip(S, Y, strict=True):
        V = np.eye(6) - np.outer(y, s) / (y @ s)
        H = V.T @ H @ V + np.outer(s, s) / (y @ s)
    memory = Memory.none(v, 5)
    np.testing.assert_array_equal(memory.inverse(np.asarray(3.0))(v), 3 * v)
    for s, y in zip(S, Y, strict=True):
        memory = memory.push(s, y, YES, EAGER).push(y, s, ~YES, EAGER)
    np.testing.assert_allclose(memory.inverse(np.asarray(1.0))(v), H @ v, rtol=1e-10)


def test_pairs_have_the_curvature_at_the_end_of_a_step():
    rng, A = np.random.default_rng(0), spd()
    x, s, c = rng.normal(size=(3, 6))

    def cubic(x):
        return x @ A @ x / 2 + c @ x**3 / 6, A @ x + c * x**2 / 2

    (f, g), (f_new, g_new) = cubic(x), cubic(x + s)
    y = at_end(s, g_new - g, g_new, np.asarray(f - f_new), np.asarray(0.0))
    np.testing.assert_allclose(s @ y, s @ A @ s + c @ ((x + s) * s**2))
    np.testing.assert_allclose(y / (g_new - g), s @ y / (s @ (g_new - g)))  # and the direction of y


def test_curvature_at_the_end_is_bounded_and_not_read_off_rounding():
    s, y, none = np.array([1.0, 2.0]), np.array([3.0, 1.0]), np.asarray(0.0)
    for decrease, factor in ((-100.0, 0.5), (100.0, 2.0)):
        decrease = np.asarray(decrease)
        np.testing.assert_array_equal(at_end(s, y, y, decrease, none), factor * y)
        np.testing.assert_array_equal(at_end(s, y, y, decrease, s @ y), y)
    np.testing.assert_array_equal(at_end(s, 0 * y, y, none, none), 0 * y)


def test_lbfgs_steps_are_not_short_far_from_a_minimum():
    """With the mean curvature along the last step it takes 39 gradients: 0.755 of x is left."""
    x = 100 * np.arange(1.0, 3.0)
    solution = osculant.minimize(lambda x: (x**4).sum(), x, method="lbfgs", tol=1e-6)
    assert solution.success and solution.njev <= 30


def test_damping_keeps_a_fifth_of_the_known_curvature():
    s, Bs = np.array([1.0, 2.0]), np.array([3.0, 1.0])
    enough = np.array([1.0, 1.0])
    np.testing.assert_array_equal(damped(s, enough, Bs), enough)
    for y in (-Bs, np.zeros(2), np.array([10.0, -20.0])):
        np.testing.assert_allclose(s @ damped(s, y, Bs), 0.2 * (s @ Bs))


def test_pairs_are_judged_whatever_their_scale():
    s, y = np.array([1.0, 0.0]), np.array([1e-3, 1.0])
    for scale in (1e-200, 1.0, 1e100):
        assert teaches(scale * s, y) and not teaches(scale * s, -y)
        assert not teaches(scale * s, np.array([1e-12, 1.0]))
    assert not teaches(s, 0 * y) and not teaches(s, np.array([np.inf, 1.0]))


def test_damped_lbfgs_learns_where_the_plain_one_refuses():
    """A slope that falls in every batch: without damping nothing is ever learned."""

    def fun(x):
        return -x.sum() - (x**2).sum() / 2

    for damping in (False, True):
        solver = osculant.LBFGS(damping=damping, attempts=1)
        oracle = osculant.oracle(fun, np.ones(2))
        state = solver.step(oracle, solver.init(oracle, np.ones(2)))
        assert state.memory.any() == damping
        if damping:
            assert (state.memory.pairs.S * state.memory.pairs.Y).sum() > 0


def test_nonlinear_cg_is_linear_cg_on_a_quadratic():
    """With an exact line search; nearly so with a tight one."""
    for beta in ("hager-zhang", "polak-ribiere"):
        solution = osculant.minimize(
            quadratic,
            np.zeros(6),
            args=(spd(),),
            method=osculant.NonlinearCG(beta=beta, curvature=1.1e-4),
            tol=1e-3,
        )
        assert solution.success and solution.nit <= 7


@pytest.mark.parametrize("seed", range(4))
def test_nonlinear_cg_directions_are_the_papers(seed):
    rng = np.random.default_rng(seed)
    last, old, g = rng.normal(size=(3, 6))
    last = last if last @ old < 0 else -last
    y = g - old
    zhang = (y - 2 * last * (y @ y) / (last @ y)) @ g / (last @ y)
    betas = {
        "hager-zhang": max(zhang, 0.4 * (last @ old) / (last @ last)),
        "polak-ribiere": max(g @ y / (old @ old), 0.0),
    }
    for name, beta in betas.items():
        solver, x = osculant.NonlinearCG(beta=name), np.zeros(6)
        state = solver.init(osculant.oracle(rosenbrock, x), x)
        state = state._replace(d=last, y=y, step_length=np.asarray(0.5))
        expected = beta * last - g
        expected = expected if expected @ g < 0 else -g
        d, length = solver._direction(g, state)
        np.testing.assert_allclose(d, expected)
        np.testing.assert_allclose(length * (d @ g), 0.5 * (last @ old))


# The line search by values ---------------------------------------------------------------------


def line(phi, dphi, attempts=30, active=YES):
    tried, gradients = [], []

    def value_at(a):
        tried.append(float(a))
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(phi(float(a)))

    def slopes_at(a):
        gradients.append(float(a))
        return np.asarray(a * (dphi(0.0) + dphi(float(a))))

    f, slope = np.asarray(phi(0.0)), np.asarray(dphi(0.0))
    search = goldstein(value_at, slopes_at, f, slope, attempts=attempts, active=active, flow=EAGER)
    assert int(search.tries) == len(tried) and int(search.gradients) == len(gradients)
    return float(search.step), tried


def test_newtons_step_on_a_quadratic_is_taken_at_once():
    assert line(lambda a: (a - 1) ** 2, lambda a: 2 * (a - 1)) == (1.0, [1.0])


def test_short_step_is_stretched_while_that_helps():
    step, tried = line(lambda a: (a / 30 - 1) ** 2, lambda a: (a / 30 - 1) / 15)
    assert step == 16.0 and tried == [1.0, 4.0, 16.0]
    step, tried = line(lambda a: -a - a * a, lambda a: -1 - 2 * a, attempts=5)
    assert step == 256.0 and len(tried) == 5


def test_stretch_that_overshoots_keeps_the_best():
    step, tried = line(lambda a: -a if a < 3 else 10.0, lambda a: -1.0)
    assert step == 1.0 and tried == [1.0, 4.0]


def test_long_step_is_cut_at_the_least_of_the_parabola():
    step, tried = line(lambda a: (5 * a - 1) ** 2, lambda a: 10 * (5 * a - 1))
    np.testing.assert_allclose(tried, [1.0, 0.2])
    assert step == tried[-1]


def test_value_that_is_not_finite_cuts_to_a_tenth():
    step, tried = line(lambda a: -a if a < 0.05 else np.nan, lambda a: -1.0)
    np.testing.assert_allclose(tried, [1.0, 0.1, 0.01])
    assert step == tried[-1]


def test_what_climbs_is_never_taken():
    step, tried = line(lambda a: a, lambda a: -1.0, attempts=6)
    assert step == 0.0 and len(tried) == 6
    assert line(lambda a: -a, lambda a: -1.0, active=~YES) == (0.0, [])


def test_decrease_below_rounding_is_read_off_the_slopes():
    step, tried = line(lambda a: 1e6, lambda a: 1e-12 * (a - 1))
    assert step == 1.0 and tried == [1.0]
    step, _ = line(lambda a: 1e6, lambda a: 1e-12 * (3 * a - 1))  # climbs at 1
    assert 0 < step < 2 / 3


# Options that make no sense --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: osculant.NewtonCG(inner="gmres"), "'cg' or 'cr'"),
        (lambda: osculant.NewtonCG(forcing=1.0), "between 0 and 1"),
        (lambda: osculant.NewtonCG(memory=-1), "zero or positive"),
        (lambda: osculant.NewtonCG(max_inner=0), "at least one"),
        (lambda: osculant.Newton(floor=0.0), "between 0 and 1"),
        (lambda: osculant.SteepestDescent(attempts=0), "at least one"),
        (lambda: osculant.BFGS(curvature=1.0), "between 1e-4 and 1"),
        (lambda: osculant.LBFGS(memory=0), "at least one"),
        (lambda: osculant.NonlinearCG(beta="fletcher"), "'hager-zhang' or 'polak-ribiere'"),
    ],
)
def test_options_out_of_range_say_what_is_allowed(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_solvers_are_frozen():
    solver = osculant.NewtonCG()
    assert replace(solver, gtol=1.0) != solver
    with pytest.raises(AttributeError):
        solver.forcing = 0.1
