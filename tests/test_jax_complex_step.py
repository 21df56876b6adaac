"""Complex steps through JAX programs: control flow, rules of the user's own, linear algebra."""

import numpy as np
import pytest

import osculant
from osculant import NotAnalytic, NotDifferentiable

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402

from osculant.backends.strategies.jax_interpreter import evaluate  # noqa: E402


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


@jax.custom_jvp
def straight_through(x):
    return jnp.round(x)


straight_through.defjvp(lambda primals, tangents: (straight_through(*primals), tangents[0]))


def halvings(a):
    """Halve as often as it takes: under vmap, some loops end before others."""
    return lax.while_loop(lambda y: y > 0.3, lambda y: y / 2, a)


halved = jax.custom_vjp(halvings)
halved.defvjp(lambda a: (halvings(a), halvings(a) / a), lambda slope, g: (g * slope,))


def by_sign(x):
    """Return something else on each side; the second branch does not depend on x."""
    one = lax.cond(x[0] > 0, lambda x: jnp.sin(x) @ x, lambda x: 2.0, x)
    other = lax.cond(x[1] > 0, lambda x: jnp.sin(x) @ x, lambda x: 2.0, x)
    return (one + other) * jnp.sum(x**2)


def slow_to_become_complex(x):
    """Return a carry of which one more entry depends on x with every step."""

    def step(i, carry):
        _, b, c = carry
        return b * i, 0.5 * c, c + x * x

    return sum(jnp.sum(c**2) for c in lax.fori_loop(0, 4, step, (jnp.ones(4),) * 3))


def backwards(x):
    """Scan from the end, with an integer in the carry and among the inputs."""

    def step(carry, inputs):
        (c, i), (y, j) = carry, inputs
        return (jnp.tanh(c + y * x), i + 1), c * i * j

    (c, _), ys = lax.scan(step, (jnp.zeros(4), 0), (x, jnp.arange(4)), reverse=True)
    return c @ c + jnp.sum(ys**3)


def nested(x):
    def step(c, y):
        return lax.cond(y > 0.5, lambda c: c * c * y, lambda c: jnp.cos(c) + y, c), None

    return lax.scan(step, jnp.sum(x), x)[0]


def noisy(x):
    def step(i, carry):
        y, key = carry
        return y * jnp.sin(x) + jax.random.normal(key, (4,)), jax.random.fold_in(key, i)

    return jnp.sum(lax.fori_loop(0, 3, step, (x, jax.random.key(0)))[0])


def matrix(x):
    return jnp.outer(x, x) + jnp.diag(1 + x * x)


PROGRAMS = {
    "cond": by_sign,
    "switch": lambda x: lax.switch(x[2].astype(int), [jnp.sin, jnp.exp, jnp.tanh], x) @ x,
    "fori_loop": slow_to_become_complex,
    "scan": backwards,
    "cond in scan": nested,
    "keys in a loop": noisy,
    "while_loop": lambda x: jnp.sum(jnp.sin(x) * jax.vmap(halved)(1 + x * x)),
    "custom_jvp": lambda x: jnp.sum(straight_through(x) * x**2),
    "stop_gradient": lambda x: jnp.sum(lax.stop_gradient(x) * x**2),
    "checkpoint": jax.checkpoint(lambda x: jnp.sum(jax.jit(jnp.sin)(x) * jax.nn.silu(x))),
    "reduce": lambda x: lax.reduce(x * x + 1, jnp.ones(()), lambda a, b: a * b, (0,)),
    "solve": lambda x: jnp.sum(jnp.linalg.solve(matrix(x), jnp.sin(x)) ** 2),
    "cholesky": lambda x: jnp.sum(jnp.sin(jnp.linalg.cholesky(matrix(x)))),
    "interp": lambda x: jnp.sum(jnp.interp(x, jnp.arange(5.0) - 2, jnp.arange(5.0) ** 2) ** 2),
}
X, V = np.array([0.7, -1.3, 2.1, 0.4]), np.array([[1.0, 0.2], [-2.0, 1.0], [0.5, -0.7], [0.3, 1.4]])


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_autodiff(name):
    """Each place takes other branches, of k steps at once."""
    exact, stepped = (
        osculant.oracle(PROGRAMS[name], jnp.asarray(X), products=products)
        for products in ("autodiff", "complex-step")
    )
    for x in (X, -X[::-1]):
        expected = exact.at(jnp.asarray(x)).hvp(jnp.asarray(V))
        found = stepped.at(jnp.asarray(x)).hvp(jnp.asarray(V))
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


def test_float32_stays():
    x = jnp.asarray(X, jnp.float32)
    found = osculant.oracle(nested, x, products="complex-step").at(x).hvp(x)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, osculant.oracle(nested, x).at(x).hvp(x), rtol=1e-5)


@pytest.mark.parametrize("products", ["autodiff", "complex-step"])
def test_a_loop_of_unknown_length_has_no_gradient(products):
    def fun(x):
        return jnp.sum(lax.while_loop(lambda y: jnp.sum(y) < 10, lambda y: 2 * y, x) ** 2)

    x = jnp.ones(2)
    with pytest.raises(NotDifferentiable, match="how many steps"):
        osculant.oracle(fun, x, products=products).at(x)
    found = osculant.oracle(fun, x, products="finite-difference").at(x).hvp(x)
    np.testing.assert_allclose(found, 2 * 8**2, rtol=1e-5)


def test_complex_numbers_of_ones_own_are_refused():
    """They cannot be told from the step, and the result would be silently wrong."""
    x = jnp.asarray(X)
    oracle = osculant.oracle(lambda x: jnp.sum(jnp.abs(jnp.fft.rfft(x)) ** 2), x)
    assert jnp.all(jnp.isfinite(oracle.at(x).hvp(x)))
    stepped = osculant.oracle(oracle.objective.fun, x, products="complex-step")
    with pytest.raises(NotAnalytic, match="complex numbers of its own"):
        stepped.at(x).hvp(x)


def test_what_would_lose_the_derivative_is_refused():
    """Such as code that JAX cannot see into, and whose result is declared real."""
    x = jnp.asarray(X)
    program = jax.make_jaxpr(lambda x: jax.pure_callback(np.sin, x, x))(x)
    with pytest.raises(NotAnalytic, match="pure_callback has no rule"):
        jax.eval_shape(lambda z: evaluate(program.jaxpr, program.consts, [z]), x + 1e-30j)
