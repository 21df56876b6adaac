"""Trust regions and cubic regularisation: their models, their products, their samples."""

from dataclasses import replace

import numpy as np
import pytest

import osculant
from osculant.core import drive
from osculant.core.arrays import namespace
from osculant.core.flow import EAGER, Flow
from osculant.core.globalize.trial import Proposal
from osculant.core.globalize.trial import search as search_trial
from osculant.core.globalize.trust_radius import resized, stretch
from osculant.core.krylov.lanczos import lanczos, minimise, ritz_pairs, whole_space
from osculant.core.krylov.secular import Reach
from osculant.core.krylov.steihaug import steihaug
from osculant.core.norms import Adagrad, Adam, Preconditioner, RMSProp, Spherical
from osculant.core.oracle import Oracle
from osculant.core.samples import Samples
from osculant.problems import rosenbrock, rosenbrock_residuals, sum_of_squares, x_minus_log

RNG = np.random.default_rng(0)
N = 7
Q = np.linalg.qr(RNG.normal(size=(N, N)))[0]
G = RNG.normal(size=N)
A = np.eye(N) + Q @ np.diag(RNG.uniform(0, 3, N)) @ Q.T / 2
YES = np.asarray(True)
START = np.array([-1.2, 1.0, -1.2, 1.0])
SOLVERS = [
    osculant.TrustRegion(subproblem="gltr"),
    osculant.TrustRegion(subproblem="steihaug"),
    osculant.TrustRegion(subproblem="exact"),
    osculant.CubicRegularization(),
]
NORMS = [
    Spherical(),
    *(norm(full=full) for norm in (Adagrad, RMSProp, Adam) for full in (False, True)),
    RMSProp(power=1.0),
    Preconditioner(diagonal=np.array([1.0, 2.0, 0.5, 1.0])),
]


def name_of(solver):
    return type(solver).__name__ + getattr(solver, "subproblem", "")


# The model in a subspace -----------------------------------------------------------------------


def space_of(B, g, reach, metric=None, *, dense=False, memory=30, rtol=1e-12, counted=None):
    metric = np.eye(len(g)) if metric is None else metric

    def product(V):
        if counted is not None:
            counted.append(1)
        return B @ V

    options = {"metric": lambda v: metric @ v, "active": YES, "flow": EAGER}
    if dense:
        return whole_space(product, g, **options)
    return lanczos(
        product,
        g,
        reach,
        precondition=lambda v: np.linalg.solve(metric, v),
        rtol=np.asarray(rtol),
        memory=memory,
        **options,
    )


def region(radius):
    return Reach(np.asarray(radius), np.asarray(0.0))


def cubic(sigma):
    return Reach(np.asarray(0.0), np.asarray(1 / sigma))


def check_optimal(B, g, reach, metric, **options):
    """More and Sorensen 1983, Theorem 3.1 of Cartis, Gould and Toint 2011."""
    space = space_of(B, g, reach, metric, **options)
    best = minimise(space, reach, EAGER)
    s, shift = best.y @ space.V, float(best.shift)
    size = max(np.linalg.norm(g), np.linalg.norm(B, 2) * np.linalg.norm(s))
    np.testing.assert_allclose(B @ s + shift * metric @ s, -g, atol=1e-11 * size)
    L = np.linalg.inv(np.linalg.cholesky(metric))
    assert np.linalg.eigvalsh(L @ B @ L.T)[0] + shift >= -1e-10 * np.linalg.norm(B, 2)
    length = np.sqrt(s @ metric @ s)
    target = float(reach.radius + shift * reach.slope)
    if shift > 0:
        np.testing.assert_allclose(length, target, rtol=1e-9)
    else:
        assert length <= target * (1 + 1e-12)
    np.testing.assert_allclose(best.slope, g @ s, rtol=1e-9)
    np.testing.assert_allclose(best.curvature, s @ B @ s, rtol=1e-8, atol=1e-10 * size)
    return space, best


@pytest.mark.parametrize("dense", [False, True], ids=["lanczos", "dense"])
@pytest.mark.parametrize("metric", [np.eye(N), A], ids=["sphere", "ellipsoid"])
@pytest.mark.parametrize("reach", [region(0.7), region(50.0), cubic(3.0), cubic(0.01)], ids=str)
@pytest.mark.parametrize("least", [1.0, 0.0, -4.0], ids=["definite", "singular", "indefinite"])
def test_minimiser_satisfies_the_optimality_conditions(dense, metric, reach, least):
    B = (Q * np.linspace(least, 9.0, N)) @ Q.T
    space, _ = check_optimal(B, G, reach, metric, dense=dense)
    used = space.V[: int(space.size)]
    np.testing.assert_allclose(used @ metric @ used.T, np.eye(len(used)), atol=1e-12)


@pytest.mark.parametrize("dense", [False, True], ids=["lanczos", "dense"])
@pytest.mark.parametrize("reach", [region(3.0), cubic(0.1)], ids=["region", "cubic"])
def test_hard_case_leaves_the_gradients_subspace(dense, reach):
    B, g = np.diag([-2.0, 1.0, 1.5, 3.0]), np.array([0.0, 1.0, -1.0, 0.5])
    _, best = check_optimal(B, g, reach, np.eye(4), dense=dense)
    np.testing.assert_allclose(best.shift, 2.0, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_models_whose_squares_leave_the_range_of_floats(scale):
    B = (Q * np.linspace(-1.0, 3.0, N)) @ Q.T
    check_optimal(B, scale * G, region(2 * scale), np.eye(N))


def test_lanczos_makes_a_tridiagonal_matrix():
    """With M = A the basis is Lanczos' (Gould et al. 1999, section 5)."""
    B = (Q * np.linspace(-4.0, 9.0, N)) @ Q.T
    T = space_of(B, G, region(50.0), A).T
    np.testing.assert_allclose(np.triu(T, 2), 0.0, atol=1e-11)
    assert np.all(np.abs(np.diag(T, 1)) > 1e-3)


def test_another_radius_takes_no_product_and_is_optimal_in_the_subspace():
    B, products = (Q * np.linspace(-4.0, 9.0, N)) @ Q.T, []
    space = space_of(B, G, region(50.0), counted=products)
    spent = len(products)
    for radius in (5.0, 0.5, 0.05):
        best = minimise(space, region(radius), EAGER)
        s = best.y @ space.V
        np.testing.assert_allclose(np.linalg.norm(s), radius)
        np.testing.assert_allclose(B @ s + best.shift * s, -G, atol=1e-9)
    assert len(products) == spent == int(space.size) == N


@pytest.mark.parametrize("reach", [region, lambda size: cubic(1 / size)], ids=["region", "cubic"])
def test_secular_equation_is_solved_in_a_few_iterations(reach):
    class Counting(Flow):
        def while_loop(self, keep_going, step, state):
            steps = 0
            while keep_going(state):
                state, steps = step(state), steps + 1
            assert steps <= 7
            return state

    rng = np.random.default_rng(0)
    for i in range(200):
        c = rng.normal(size=N) * 10.0 ** rng.uniform(-6, 0, size=N)  # some of them almost hard
        B = (Q * rng.normal(size=N) * 10.0 ** rng.uniform(-3, 0, size=N)) @ Q.T
        space = space_of(B + (i % 2) * np.eye(N), Q @ c, region(1.0), dense=True)
        minimise(space, reach(10.0 ** rng.uniform(-6, 4)), Counting())


def test_basis_is_orthonormal_to_rounding_however_little_is_new():
    space = lanczos(
        lambda v: A @ v,
        G,
        region(50.0),
        metric=lambda v: v,
        precondition=lambda v: v + 1e8 * v[0] * G,  # almost in the subspace, which begins with G
        rtol=np.asarray(1e-14),
        memory=30,
        active=YES,
        flow=EAGER,
    )
    assert int(space.size) > 3
    np.testing.assert_allclose(space.V @ space.V.T, np.eye(int(space.size)), atol=1e-13)


def test_eager_subspace_holds_what_is_in_use():
    space = space_of(A, G, region(50.0), rtol=0.1)
    assert space.V.shape == space.BV.shape == (int(space.size), N)
    assert 1 <= int(space.size) < N and space.T.shape == 2 * space.h.shape


def test_memory_bounds_the_subspace_and_the_step_still_decreases_the_model():
    B, products = (Q * np.linspace(-4.0, 9.0, N)) @ Q.T, []
    space = space_of(B, G, region(2.0), memory=3, counted=products)
    assert len(products) == 3 and space.V.shape == (3, N)
    best = minimise(space, region(2.0), EAGER)
    cauchy = steihaug(
        lambda v: B @ v, G, np.asarray(2.0), rtol=np.asarray(0.0), maxiter=1, flow=EAGER
    )
    assert best.slope + best.curvature / 2 < cauchy.slope + cauchy.curvature / 2


def test_ritz_pairs_are_conjugate_products_of_positive_curvature():
    B = (Q * np.linspace(-4.0, 9.0, N)) @ Q.T
    S, Y = ritz_pairs(space_of(B, G, region(50.0)), 6)
    np.testing.assert_allclose(Y, S @ B, atol=1e-10)
    curvatures = S @ Y.T
    np.testing.assert_allclose(curvatures - np.diag(np.diag(curvatures)), 0.0, atol=1e-10)
    values = np.diag(curvatures)[np.any(S != 0, axis=1)]
    np.testing.assert_allclose(values, [v for v in np.linspace(9.0, -4.0, N) if v > 0])
    assert not S[0].any() and S[1].any()  # what there is none of comes first


def test_product_that_is_not_finite_is_no_curvature():
    space = space_of(np.full((N, N), np.nan), G, region(2.0))
    best = minimise(space, region(2.0), EAGER)
    np.testing.assert_allclose(best.y @ space.V, -2.0 * G / np.linalg.norm(G), rtol=1e-9)


def test_steihaug_in_an_ellipsoid_is_steihaug_on_the_scaled_variables():
    B = (Q * np.linspace(-4.0, 9.0, N)) @ Q.T
    d = RNG.uniform(0.5, 4.0, N)
    options = {"rtol": np.asarray(1e-8), "maxiter": 20, "flow": EAGER}
    ours = steihaug(
        lambda v: B @ v,
        G,
        np.asarray(2.0),
        metric=lambda v: d * v,
        solve=lambda v: v / d,
        **options,
    )
    root = np.sqrt(d)
    scaled = B / np.outer(root, root)
    theirs = steihaug(lambda v: scaled @ v, G / root, np.asarray(2.0), **options)
    np.testing.assert_allclose(ours.step, theirs.step / root, rtol=1e-9)
    assert int(ours.iterations) == int(theirs.iterations)


# Radii and stretches -----------------------------------------------------------------------------


def tried(f, x, step, slope, curvature, radius=1.0, **options):
    """Try a step, shortened to the radius, as the solver with Steihaug's CG does."""

    def propose(size):
        t = min(float(size) / abs(step), 1.0)
        predicted = -(t * slope + t * t * curvature / 2)
        return Proposal.free(
            np.asarray([t * step]),
            length=np.asarray(abs(t * step)),
            slope=np.asarray(t * slope),
            predicted=np.asarray(predicted),
        )

    options = {"attempts": 10, "active": YES, "size": np.asarray(radius), **options}
    return search_trial(
        propose,
        lambda s: np.asarray(f(x + s[0])),
        lambda s: np.asarray(0.0),
        np.asarray([x]),
        np.asarray(f(x)),
        flow=EAGER,
        **options,
    )


def test_exact_model_on_the_boundary_doubles_the_radius():
    trial = tried(lambda x: x**2, 5.0, -1.0, -10.0, 2.0)
    assert trial.accepted and float(resized(trial, max_radius=100.0)) == 2.0
    assert float(resized(trial, max_radius=1.5)) == 1.5


def test_exact_model_in_the_interior_keeps_the_radius():
    trial = tried(lambda x: x**2, 0.5, -0.5, -0.5, 0.5)
    assert trial.accepted and float(resized(trial, max_radius=100.0)) == 1.0


def test_refusals_leave_a_smaller_radius():
    trial = tried(lambda x: -x, 0.0, -1.0, -1.0, 0.0, attempts=3)
    assert not trial.accepted and float(resized(trial, max_radius=100.0)) <= 0.5**3


def stretched(f, x, step, slope, curvature):
    values = []

    def value_at(s):
        values.append(x + float(s[0]))
        return np.asarray(f(x + s[0]))

    trial = tried(f, x, step, slope, curvature, radius=100.0)
    longer = stretch(value_at, trial, np.asarray(f(x)), active=YES, flow=EAGER)
    assert int(longer.tries) == len(values)
    return float(longer.factor), values


def test_newton_step_on_a_flat_minimum_is_doubled():
    # On |x|^3, s = -x/2: from 1 to 1/2, twice that to 0; four times overshoots to -1.
    factor, values = stretched(lambda x: abs(x) ** 3, 1.0, -0.5, -1.5, 1.5)
    assert factor == 2.0 and values == [0.0, -1.0]


def test_step_that_the_model_predicts_is_not_stretched():
    assert stretched(lambda x: x**2, 1.0, -1.0, -2.0, 2.0) == (1.0, [])


# The solvers -------------------------------------------------------------------------------


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
def test_solves_rosenbrock_on_every_backend(backend, solver, jit):
    x0 = backend.from_numpy(START)
    solution = osculant.minimize(rosenbrock, x0, method=solver, tol=1e-9, jit=jit)
    assert solution.success, solution.message
    # The chained function has a second, local minimum, which is near this start.
    assert min(abs(solution.fun), abs(solution.fun - 3.7014286104300176)) < 1e-12


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
def test_solves_rosenbrock_in_every_norm(solver, norm):
    solution = osculant.minimize(rosenbrock, START, method=replace(solver, norm=norm), tol=1e-7)
    assert solution.success, solution.message


@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
def test_nothing_beyond_the_array_api(solver):
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    for norm in (Spherical(), RMSProp(), Adam(full=True)):
        solver = replace(solver, norm=norm)
        ours = osculant.minimize(rosenbrock, START, method=solver, maxiter=15)
        theirs = osculant.minimize(rosenbrock, strict.asarray(START), method=solver, maxiter=15)
        assert theirs.status is ours.status and theirs.nit == ours.nit
        assert theirs.fun == pytest.approx(ours.fun, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
def test_float32_goes_as_far_as_float32_can(backend, solver):
    x0 = backend.from_numpy(START[:2].astype(np.float32))
    solution = osculant.minimize(rosenbrock, x0, method=solver, tol=1e-3)
    assert solution.success and solution.x.dtype == x0.dtype
    np.testing.assert_allclose(backend.to_numpy(solution.x), np.ones(2), atol=1e-2)


@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
def test_far_start_whose_first_steps_leave_the_domain(solver):
    size = {"sigma": 1e-8} if isinstance(solver, osculant.CubicRegularization) else {"radius": 50.0}
    solution = osculant.minimize(x_minus_log, np.array([5.0]), method=replace(solver, **size))
    assert solution.success and int(solution.state.rejected) >= 2
    np.testing.assert_allclose(solution.x, [1.0], atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
def test_flat_minimum_like_a_cube(solver):
    def cube(x):
        return namespace(x).sum(namespace(x).abs(x) ** 3)

    solution = osculant.minimize(cube, np.array([1.0, -2.0, 3.0]), method=solver, tol=1e-10)
    assert solution.success and solution.fun < 1e-14 and solution.nit <= 40


@pytest.mark.parametrize(
    "solver", [s for s in SOLVERS if name_of(s) != "TrustRegionsteihaug"], ids=name_of
)
def test_saddle_is_left_although_the_gradient_does_not_show_the_way(solver):
    def saddle(x):
        return x[0] ** 2 - 2 * x[1] ** 2 + x[1] ** 4

    solution = osculant.minimize(saddle, np.array([1.0, 0.0]), method=solver, tol=1e-8)
    assert solution.success
    np.testing.assert_allclose(solution.fun, -1.0, atol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
@pytest.mark.parametrize("least", [0.0, -1.0], ids=["singular", "indefinite"])
def test_singular_and_indefinite_hessians(solver, least):
    def fun(x):
        xp = namespace(x)
        return least * x[0] ** 2 + 3 * x[1] ** 2 + xp.sum(x**4)

    solution = osculant.minimize(fun, np.array([0.3, 0.2]), method=solver, tol=1e-9)
    assert solution.success
    np.testing.assert_allclose(solution.fun, -0.25 if least else 0.0, atol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
def test_start_at_the_optimum_costs_one_gradient(solver):
    solver = replace(solver, second_order=False)
    solution = osculant.minimize(rosenbrock, np.ones(4), method=solver)
    assert solution.success and solution.nit == 0 and solution.njev == 1
    assert solution.nfev == solution.nhev == 0


class Counting(Oracle):
    """Counts what a solver asks of another oracle, and can refuse to confirm steps."""

    def __init__(self, inner, refusals=0):
        super().__init__(inner.structure)
        self.inner, self.products, self.flow = inner, inner.products, inner.flow
        self.calls = {"values": 0, "gradients": 0, "hvps": 0, "ggns": 0}
        self.refusals = refusals

    def value(self, x, *data):
        self.calls["values"] += 1
        self.refusals -= 1
        value = self.inner.value(x, *data)
        return value + np.inf if self.refusals >= 0 else value

    def at(self, x, *data):
        self.calls["gradients"] += 1
        pt = self.inner.at(x, *data)
        for product, count in (("hvp", "hvps"), ("ggn", "ggns")):
            setattr(pt, product, self.counted(getattr(pt, product), count))
        return pt

    def counted(self, function, count):
        def call(V):
            self.calls[count] += 1 if V.ndim == 1 else V.shape[1]
            return function(V)

        return call


@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
def test_rejections_within_a_step_take_no_product(solver):
    steps = {}
    for refusals in (0, 4):
        oracle = Counting(osculant.oracle(rosenbrock, START), refusals)
        state = solver.step(oracle, solver.init(oracle, START))
        assert int(state.rejected) == refusals and float(state.step_norm) > 0
        steps[refusals] = oracle.calls["hvps"], float(state.step_norm)
    assert steps[4][0] == steps[0][0] > 0
    assert steps[4][1] < 0.5 * steps[0][1]


@pytest.mark.parametrize(
    "solver", [*SOLVERS, *(replace(s, curvature="gauss-newton") for s in SOLVERS)], ids=str
)
def test_counts_are_what_was_evaluated(solver):
    oracle = Counting(
        osculant.oracle(model=rosenbrock_residuals, loss=sum_of_squares, params=START)
    )
    solution = drive.minimize(oracle, START, solver=solver, maxiter=12)
    assert oracle.calls == {
        "values": solution.nfev,
        "gradients": solution.njev,
        "hvps": solution.nhev,
        "ggns": solution.nggn,
    }
    assert (solution.nggn > 0) == (solver.curvature == "gauss-newton")


def test_pairs_save_products():
    """An ill-conditioned quadratic, on which plain Lanczos starts from nothing at each step."""
    d = np.geomspace(1.0, 1e4, 60)

    def fun(x):
        return (d * x * x).sum() / 2 + (x**4).sum() / 400

    work = {}
    for memory in (0, 10):
        solver = osculant.TrustRegion(memory=memory)
        solution = osculant.minimize(fun, np.ones(60), method=solver, tol=1e-6)
        assert solution.success
        work[memory] = solution.nhev
    assert work[10] < 0.8 * work[0]


@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
def test_quasi_newton_steps_take_no_product_and_leave_the_size(solver):
    d = np.geomspace(1.0, 1e2, 20)
    oracle = osculant.oracle(lambda x: (d * x * x).sum() / 2 + (x**4).sum() / 40, np.ones(20))
    learns = getattr(solver, "subproblem", "gltr") == "gltr"
    for fixed, quasi_newton in ((True, True), (True, False), (False, True)):
        enriched = learns and fixed and quasi_newton
        method = replace(solver, fixed=fixed, quasi_newton=quasi_newton)
        first = method.step(oracle, method.init(oracle, np.ones(20)))
        second = method.step(oracle, first)
        assert int(first.counts.hvps) > 0 and float(second.step_norm) > 0
        assert bool(first.secant) == enriched
        assert (int(second.counts.hvps) == int(first.counts.hvps)) == enriched
        assert not enriched or float(second.radius) == float(first.radius)
        assert float(oracle.value(second.x)) < float(oracle.value(first.x))


PAIRED = [osculant.TrustRegion(fixed=True), osculant.CubicRegularization(fixed=True)]


@pytest.mark.parametrize("solver", PAIRED, ids=name_of)
def test_quasi_newton_steps_evaluate_a_gradient_for_each_point(solver):
    d = np.geomspace(1.0, 1e2, 20)
    oracle = Counting(osculant.oracle(lambda x: (d * x * x).sum() / 2, np.ones(20)))
    state = solver.step(oracle, solver.init(oracle, np.ones(20)))
    before = dict(oracle.calls)
    state = solver.step(oracle, state)
    more = {kind: calls - before[kind] for kind, calls in oracle.calls.items()}
    assert more == {"values": 0, "gradients": 1, "hvps": 0, "ggns": 0}
    pt = oracle.at(state.x)
    assert float(state.value) == float(pt.value) and np.array_equal(state.grad, pt.grad)


@pytest.mark.parametrize(
    "solver", [replace(PAIRED[0], radius=0.1), replace(PAIRED[1], sigma=100.0)], ids=name_of
)
def test_quasi_newton_steps_wait_for_positive_curvature_along_a_step(solver):
    def saddle(x):
        return x[0] ** 2 - 2 * x[1] ** 2 + x[1] ** 4

    oracle = osculant.oracle(saddle, START[:2])
    state = solver.init(oracle, np.array([0.01, 0.01]))
    seen = []
    while len(seen) < 20:
        before, x, state = state, state.x, solver.step(oracle, state)
        y = oracle.at(state.x).grad - oracle.at(x).grad
        assert bool(state.secant) == bool((state.x - x) @ y > 0)
        assert (state.counts.hvps > before.counts.hvps) == (not before.secant)
        seen.append(bool(state.secant))
        if np.max(np.abs(state.grad)) < 1e-6:
            break
    assert not seen[0] and True in seen
    assert np.isclose(saddle(state.x), -1.0)


@pytest.mark.parametrize("solver", PAIRED, ids=name_of)
def test_products_are_next_where_a_quasi_newton_step_fails(solver):
    oracle = osculant.oracle(rosenbrock, START)
    state = solver.step(oracle, solver.init(oracle, START))
    assert state.secant
    refused = solver.step(oracle, state._replace(value=np.asarray(-1e9)))
    assert not refused.secant and np.array_equal(refused.x, state.x)
    assert refused.memory.any() and int(refused.counts.hvps) == int(state.counts.hvps)
    again = solver.step(oracle, refused)
    assert again.counts.hvps > refused.counts.hvps and again.step_norm > 0


@pytest.mark.parametrize("solver", PAIRED, ids=name_of)
def test_as_many_pairs_are_kept_as_by_lbfgs(solver):
    for n, pairs in ((4, 30), (50, 50), (500, 100)):
        x = np.ones(n)
        oracle = osculant.oracle(rosenbrock, x)
        assert solver.init(oracle, x).memory.pairs.S.shape == (pairs, n)
        assert replace(solver, memory=7).init(oracle, x).memory.pairs.S.shape == (7, n)


# Samples -------------------------------------------------------------------------------


def quartic(x, b):
    """One function for each b, with a Hessian of its own."""
    return namespace(x).sum(x**4 / 4 + b * x * x / 2 - x)


X = np.array([1.5, 2.0])


@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
@pytest.mark.parametrize("norm", [Spherical(), RMSProp(), Adam(full=True)], ids=str)
def test_each_part_of_a_step_sees_its_own_sample(solver, norm):
    """Gradient of one sample, curvature of another, ratio of a third: each is told by its value."""
    solver = replace(solver, norm=norm, forcing=1e-10)
    b, c, r = (np.full(2, value) for value in (0.0, 5.0, 10.0))
    seen = {"value": [], "at": []}

    class Watching(Counting):
        def value(self, x, *data):
            seen["value"].append(float(data[0][0]))
            return super().value(x, *data)

        def at(self, x, *data):
            seen["at"].append(float(data[0][0]))
            return super().at(x, *data)

    oracle = Watching(osculant.oracle(quartic, X))
    state = solver.step(oracle, solver.init(oracle, X), Samples((b,), (c,), (r,)))
    assert seen["at"] == [0.0, 5.0] and set(seen["value"]) == {10.0}
    assert int(state.counts.gradients) == 2
    assert int(state.counts.values) == oracle.calls["values"] == len(seen["value"])
    np.testing.assert_allclose(state.grad, X**3 - 1)
    if isinstance(norm, Spherical) and isinstance(solver, osculant.TrustRegion):
        # Newton's step with this gradient and that curvature, or the one that is twice as long.
        newton = -(X**3 - 1) / (3 * X**2 + 5.0)
        ratio = (state.x - X) / newton
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


def test_statistics_of_the_norm_take_in_every_steps_gradient():
    solver = osculant.TrustRegion(norm=RMSProp(decay=0.5), attempts=1)
    oracle = Counting(osculant.oracle(quartic, X), refusals=100)  # no step is ever taken
    state, b = solver.init(oracle, X), np.zeros(2)
    for _ in range(3):
        state = solver.step(oracle, state, b)
    np.testing.assert_array_equal(state.x, X)
    np.testing.assert_allclose(state.norm.V, (1 - 0.5**3) * (X**3 - 1) ** 2)


# JAX -------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [*SOLVERS, replace(SOLVERS[0], norm=RMSProp())], ids=name_of)
def test_step_can_be_jitted_and_vmapped(solver):
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    starts = jax.numpy.asarray([[-1.2, 1.0, 0.7], [0.0, 0.5, 0.0], [3.0, -2.0, 1.0]])
    oracle = osculant.oracle(rosenbrock, starts[0])
    solver = replace(solver, memory=2)  # what is compiled grows with it

    def two_steps(x):
        state = solver.step(oracle, solver.init(oracle, x))
        return solver.step(oracle, state).x

    one_by_one = jax.numpy.stack([two_steps(x) for x in starts])
    np.testing.assert_allclose(jax.jit(two_steps)(starts[0]), one_by_one[0], rtol=1e-7)
    np.testing.assert_allclose(jax.jit(jax.vmap(two_steps))(starts), one_by_one, rtol=1e-7)


# Options -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: osculant.TrustRegion(subproblem="dogleg"), "'gltr', 'steihaug' or 'exact'"),
        (lambda: osculant.TrustRegion(max_radius=0.0), "max_radius is 0.0"),
        (lambda: osculant.TrustRegion(forcing=1.0), "between 0 and 1"),
        (lambda: osculant.TrustRegion(memory=-1), "zero or positive"),
        (lambda: osculant.TrustRegion(max_inner=0), "at least one product"),
        (lambda: osculant.CubicRegularization(sigma=0.0), "must be positive"),
        (lambda: osculant.CubicRegularization(curvature="fisher"), "'hessian' or 'gauss-newton'"),
    ],
)
def test_options_out_of_range_say_what_is_allowed(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_norm_that_is_none_says_what_is():
    with pytest.raises(TypeError, match=r"one of osculant\.norms"):
        osculant.TrustRegion(norm="adam")


def test_exact_refuses_what_no_dense_hessian_is_meant_for():
    x = np.zeros(10_001)
    solver = osculant.TrustRegion(subproblem="exact")
    with pytest.raises(ValueError, match="use 'gltr' or 'steihaug'"):
        solver.init(osculant.oracle(lambda x: (x * x).sum(), x), x)
