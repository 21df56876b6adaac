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

    @jax.jit
    @jax.vmap
    def solve(x):
        return osculant.solve(rosenbrock, x, method="trust-region", atol=1e-8, maxiter=200)

    solved = solve(starts)
    assert bool(jnp.all(solved.status == Status.CONVERGED))
    np.testing.assert_allclose(solved.x, np.ones((1000, 2)), rtol=1e-6)
    alone = osculant.minimize(rosenbrock, starts[0], method="trust-region", tol=1e-8)
    assert (int(solved.nit[0]), int(solved.counts.gradients[0])) == (alone.nit, alone.njev)


def quartic(p, a, B, key):
    x = p["x"]
    noise = jax.random.normal(key, ())
    return jnp.sum((x - a) ** 4) + jnp.sum((B @ x) ** 2) / 2 + (p["y"][0] - x @ a * noise) ** 2


def test_solutions_are_differentiated_as_implicit_functions():
    a, B = jnp.array([1.0, -2.0]), jnp.array([[1.0, 0.3], [0.2, 0.7]])
    start, key = {"x": jnp.zeros(2), "y": [jnp.zeros(())]}, jax.random.key(0)

    def solution(a, B):
        solved = osculant.solve(quartic, start, args=(a, B, key), method="newton", atol=1e-12)
        return jnp.append(solved.x["x"], solved.x["y"][0])

    def closed_form(a, B):
        p = solution(a, B)
        fun = lambda p, a, B: quartic({"x": p[:2], "y": [p[2]]}, a, B, key)  # noqa: E731
        H = jax.hessian(fun)(p, a, B)
        mixed = jax.jacobian(jax.grad(fun), argnums=(1, 2))(p, a, B)
        return [-jnp.tensordot(jnp.linalg.inv(H), m, 1) for m in mixed]

    expected = closed_form(a, B)
    first = jax.jit(jax.jacrev(solution, (0, 1)))(a, B)
    for ours, theirs in zip(first, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)
    second = jax.jit(jax.jacfwd(jax.jacrev(solution)))(a, B)
    h = 1e-5
    for j, e in enumerate(jnp.eye(2)):
        change = closed_form(a + h * e, B)[0] - closed_form(a - h * e, B)[0]
        np.testing.assert_allclose(second[..., j], change / (2 * h), rtol=1e-6, atol=1e-7)


def test_minimize_is_solve_inside_a_transformation():
    starts = jnp.array([[-1.2, 1.0], [3.0, -2.0]])
    ours = jax.jit(jax.vmap(lambda x: osculant.minimize(rosenbrock, x, tol=1e-8)))(starts)
    solved = jax.jit(jax.vmap(lambda x: osculant.solve(rosenbrock, x, atol=1e-8)))(starts)
    assert bool(jnp.all(ours.success))
    np.testing.assert_array_equal(ours.x, solved.x)
    np.testing.assert_array_equal(ours.nit, solved.nit)


def test_what_a_traced_minimization_cannot_do():
    for transform in (jax.jit, jax.vmap, jax.grad):
        with pytest.raises(TypeError, match="without xtol, callback"):
            transform(lambda x: osculant.minimize(rosenbrock, x, xtol=1e-3, callback=print).fun)(
                jnp.ones((2, 2))
            )


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
