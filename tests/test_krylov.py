"""The Krylov iterations against dense linear algebra."""

import numpy as np
import pytest

import osculant
from osculant.core.flow import EAGER
from osculant.core.krylov.early_cg import early_cg, start
from osculant.core.krylov.steihaug import steihaug
from osculant.core.pairs import Memory


def spd(n, seed=0, low=1.0, high=10.0):
    Q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return (Q * np.linspace(low, high, n)) @ Q.T


def solve(B, g, radius, rtol=1e-12, maxiter=100):
    return steihaug(
        lambda v: B @ v, g, np.asarray(radius), rtol=np.asarray(rtol), maxiter=maxiter, flow=EAGER
    )


@pytest.fixture
def g():
    return np.random.default_rng(1).normal(size=6)


def test_interior_solution_is_the_newton_step(g):
    B = spd(6)
    model = solve(B, g, 1e3)
    newton = -np.linalg.solve(B, g)
    np.testing.assert_allclose(model.step, newton, rtol=1e-10)
    np.testing.assert_allclose(model.slope, g @ newton, rtol=1e-10)
    np.testing.assert_allclose(model.curvature, newton @ B @ newton, rtol=1e-10)
    assert not model.on_boundary
    assert int(model.iterations) == 6


def test_small_radius_gives_the_cauchy_direction_on_the_boundary(g):
    model = solve(spd(6), g, 1e-3)
    np.testing.assert_allclose(model.step, -1e-3 * g / np.linalg.norm(g), rtol=1e-10)
    assert model.on_boundary and int(model.iterations) == 1


def test_negative_curvature_goes_to_the_boundary_and_is_reported_exactly(g):
    B = spd(6, low=-3.0)
    model = solve(B, g, 2.0)
    s = model.step
    assert model.on_boundary
    np.testing.assert_allclose(np.linalg.norm(s), 2.0, rtol=1e-12)
    np.testing.assert_allclose(model.slope, g @ s, rtol=1e-10)
    np.testing.assert_allclose(model.curvature, s @ B @ s, rtol=1e-9, atol=1e-9)
    cauchy = solve(B, g, 2.0, maxiter=1)
    assert model.slope + model.curvature / 2 < cauchy.slope + cauchy.curvature / 2


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_gradients_whose_squares_leave_the_range_of_floats(g, scale):
    model = solve(spd(6), scale * g, 1e3 * scale)
    np.testing.assert_allclose(model.step / scale, -np.linalg.solve(spd(6), g), rtol=1e-10)


def test_zero_gradient_and_zero_budget_give_the_zero_step(g):
    assert not solve(spd(6), np.zeros(6), 1.0).step.any()
    assert not solve(spd(6), g, 1.0, maxiter=0).step.any()
    assert int(solve(spd(6), g, 1.0, maxiter=0).iterations) == 0


def test_product_that_is_not_finite_leaves_a_finite_step(g):
    model = solve(np.full((6, 6), np.nan), g, 0.5)
    np.testing.assert_allclose(model.step, -0.5 * g / np.linalg.norm(g))


def run(B, g, tolerance=1e-12, maxiter=100, flatness=1e-8, precondition=lambda v: v):
    return early_cg(
        lambda v: B @ v,
        start(-g, precondition=precondition),
        tolerance=np.asarray(tolerance),
        maxiter=maxiter,
        flatness=flatness,
        flow=EAGER,
        precondition=precondition,
    )


def test_early_cg_solves_where_curvature_is_positive(g):
    B = spd(6)
    search = run(B, g)
    np.testing.assert_allclose(search.d, -np.linalg.solve(B, g), rtol=1e-9)
    np.testing.assert_allclose(search.Hd, B @ search.d, rtol=1e-9)
    assert not search.negative and int(search.iterations) == 6


def test_preconditioned_early_cg_is_early_cg_in_other_variables(g):
    """With P = L^2 the search for s is that for L s, in which the curvature is L^-1 B L^-1."""
    B, L = spd(6), np.linspace(0.5, 3, 6)
    solved = []
    search = run(B, g, maxiter=3, precondition=lambda r: (solved.append(r), r / L**2)[1])
    expected = run(B / np.outer(L, L), g / L, maxiter=3)
    np.testing.assert_allclose(L * search.d, expected.d, rtol=1e-10)
    np.testing.assert_allclose(search.Hd, B @ search.d, rtol=1e-10)
    assert len(solved) == 3  # one for each product
    tolerance = float(np.sqrt(run(B / np.outer(L, L), g / L, maxiter=2).rr)) * 1.001
    stopped = run(B, g, tolerance=tolerance, precondition=lambda r: r / L**2)
    assert int(stopped.iterations) == 2


def test_early_cg_stops_at_negative_curvature_with_what_it_has():
    B = np.diag([4.0, 1.0, -1.0])
    g = np.array([1.0, 1.0, 0.1])
    search = run(B, g)
    assert search.negative
    assert search.d @ g < 0  # a descent direction all the same
    np.testing.assert_allclose(search.Hd, B @ search.d, rtol=1e-12)
    assert int(search.iterations) >= 2


def test_early_cg_with_negative_curvature_at_once_has_no_direction():
    search = run(np.diag([-2.0, -2.0]), np.array([3.0, 4.0]))
    assert search.negative and int(search.iterations) == 1
    assert not search.d.any()
    np.testing.assert_allclose(search.curvature, -2.0)


def test_flat_direction_gets_a_momentum_of_the_searchs_own_speed():
    g = np.array([3.0, 4.0])
    search = run(np.zeros((2, 2)), g, maxiter=1)
    # k = mu |p|^2 with mu = |p| = 5, so a = |r|^2 / (5 * 25) = 1/5 and d = p / 5.
    np.testing.assert_allclose(search.d, -g / 5)
    assert not search.Hd.any()  # the momentum is not curvature


# What they keep ----------------------------------------------------------------------------------


def test_remembered_pairs_are_those_of_a_queue(backend):
    make, rng = backend.from_numpy, np.random.default_rng(0)
    vectors = [make(v) for v in rng.normal(size=(8, 5))]
    flow = osculant.oracle(lambda x: (x * x).sum(), vectors[0]).flow
    queue = [np.zeros(5)] * 3
    memory = Memory.none(vectors[0], 3)
    for i, v in enumerate(vectors):
        memory = memory.push(v, 2 * v, v[0] == v[0] if i != 4 else v[0] != v[0], flow)
        queue = [*queue[1:], backend.to_numpy(v)] if i != 4 else queue
        for rows, times in zip(memory.pairs, (1, 2), strict=True):
            oldest_first = np.roll(backend.to_numpy(rows), -int(memory.oldest), axis=0)
            np.testing.assert_array_equal(oldest_first, times * np.stack(queue))
    nothing = Memory.none(vectors[0], 0)
    assert nothing.push(v, v, v[0] == v[0], flow) is nothing
    np.testing.assert_array_equal(*map(backend.to_numpy, (nothing.inverse(v[0])(v), v[0] * v)))


def test_owned_pairs_leave_those_they_began_with_alone(backend):
    ones = backend.from_numpy(np.ones(3))
    flow = osculant.oracle(lambda x: (x * x).sum(), ones).flow
    memory = Memory.none(ones, 2)
    memory.own(flow).push(ones, ones, ones[0] == 1, flow)
    assert not any(backend.to_numpy(rows).any() for rows in memory.pairs)


def test_rows_are_put_and_cut_the_same_way_eager_and_traced():
    jax = pytest.importorskip("jax")
    traced = osculant.oracle(lambda x: (x * x).sum(), jax.numpy.ones(3)).flow
    row, i = np.arange(3.0), np.asarray(1, np.int32)
    rows = jax.jit(traced.put)(jax.numpy.zeros((4, 3)), i, row)
    np.testing.assert_array_equal(rows, EAGER.put(np.zeros((4, 3)), i, row))
    for where in np.asarray(True), np.asarray(False):
        for put in (
            jax.jit(traced.put)(rows, i, 2 * row, where),
            EAGER.put(np.array(rows), i, 2 * row, where),
        ):
            np.testing.assert_array_equal(put, rows * (1 + where))
    np.testing.assert_array_equal(EAGER.leading(np.asarray(rows), i + 1), rows[:2])
    assert traced.leading(rows, i + 1) is rows


def test_a_state_changes_where_it_is_to_eager_traced_and_mapped():
    jax = pytest.importorskip("jax")
    flow = osculant.oracle(lambda x: (x * x).sum(), jax.numpy.ones(3)).flow
    both, state = jax.numpy.asarray([False, True]), (jax.numpy.arange(3.0), jax.numpy.ones(()))

    def doubled(where):
        return flow.when(where, lambda s: (2 * s[0], s[1] + 1), state)

    mapped = jax.vmap(doubled)(both)
    for i, where in enumerate(both):
        for each in doubled(where), jax.jit(doubled)(where), [leaf[i] for leaf in mapped]:
            np.testing.assert_array_equal(each[0], state[0] * (1 + i))
            assert each[1] == 1 + i
