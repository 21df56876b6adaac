"""jit, vmap and compilation counts of the solvers on JAX."""

import numpy as np
import pytest

import osculant
from osculant.core.result import Status

jax = pytest.importorskip("jax", reason="JAX is not installed")
import jax.numpy as jnp  # noqa: E402

SOLVERS = [
    osculant.TrustRegion(),
    osculant.NewtonKrylov(),
    osculant.LBFGS(),
    osculant.Auto(),
    osculant.Adam(),
]


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def name_of(solver):
    return type(solver).__name__


@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
def test_step_can_be_jitted_and_equals_the_eager_step(solver):
    x = jnp.array([-1.2, 1.0, 0.7])
    oracle = osculant.oracle(rosenbrock, x)
    eager = solver.step(oracle, solver.init(oracle, x))
    jitted = jax.jit(lambda s: solver.step(oracle, s))(solver.init(oracle, x))
    for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(jitted), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
def test_step_can_be_vmapped(solver):
    starts = jnp.array([[-1.2, 1.0], [0.0, 0.0], [1.0, 1.0], [3.0, -2.0]])
    oracle = osculant.oracle(rosenbrock, starts[0])

    def two_steps(x):
        state = solver.step(oracle, solver.init(oracle, x))
        return solver.step(oracle, state).x

    batched = jax.jit(jax.vmap(two_steps))(starts)
    one_by_one = jnp.stack([two_steps(x) for x in starts])
    np.testing.assert_allclose(batched, one_by_one, rtol=1e-9)


def test_whole_minimisation_in_one_compiled_vmapped_call():
    starts = jnp.asarray(np.random.default_rng(0).uniform(-2, 2, size=(1000, 2)))
    solver = osculant.TrustRegion(gtol=1e-8)
    oracle = osculant.oracle(rosenbrock, starts[0])

    @jax.jit
    @jax.vmap
    def solve(x):
        running = lambda s: (s.status == Status.RUNNING) & (s.counts.gradients < 200)  # noqa: E731
        return jax.lax.while_loop(running, lambda s: solver.step(oracle, s), solver.init(oracle, x))

    state = solve(starts)
    assert bool(jnp.all(state.status == Status.CONVERGED))
    np.testing.assert_allclose(state.x, np.ones((1000, 2)), rtol=1e-6)


def test_second_minimisation_compiles_nothing():
    traces = []

    def fun(x, a):
        traces.append(x.shape)
        return jnp.sum((x - a) ** 4) + jnp.sum(x**2)

    def run(x0, a):
        before = len(traces)
        assert osculant.minimize(fun, x0, args=(a,)).success
        return len(traces) - before

    assert run(jnp.full(3, 0.0), jnp.ones(3)) > 0  # weakly typed: no program of its own
    assert run(jnp.ones(3), 2 * jnp.ones(3)) == 0
    assert run(jnp.zeros(4), jnp.ones(4)) > 0  # another shape is another program


def test_data_are_not_baked_into_the_compiled_step():
    def fun(x, a):
        return jnp.sum((x - a) ** 2)

    for a in (1.0, 5.0):
        solution = osculant.minimize(fun, jnp.zeros(2), args=(jnp.full(2, a),))
        np.testing.assert_allclose(solution.x, [a, a])
