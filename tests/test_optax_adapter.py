"""The solvers as optax transformations."""

from functools import partial

import numpy as np
import pytest

import osculant
from osculant.core import drive

jax = pytest.importorskip("jax", reason="JAX is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
import jax.numpy as jnp  # noqa: E402

from osculant.adapters import optax_adapter  # noqa: E402

BOTH = [(optax_adapter.trust_region, "TrustRegion"), (optax_adapter.newton_krylov, "NewtonKrylov")]


def model(params, inputs):
    return jnp.tanh(inputs @ params["w"]) + params["b"]


def loss(outputs, targets):
    return jnp.mean((outputs - targets) ** 2)


def fun(params, inputs, targets):
    return loss(model(params, inputs), targets)


def data():
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(20, 3)))
    return inputs, jnp.tanh(inputs @ jnp.array([1.0, -2.0, 0.5])) + 0.3


def start():
    return {"w": jnp.array([0.1, 0.1, 0.1]), "b": jnp.zeros(())}


def train(transformation, steps=8, **extra):
    @partial(jax.jit, donate_argnums=(0, 1))  # as training loops do
    def step(params, state, batch):
        updates, state = transformation.update(None, state, params, data=batch, **extra)
        return optax.apply_updates(params, updates), state

    params, state = start(), transformation.init(start())
    for _ in range(steps):
        params, state = step(params, state, data())
    assert step._cache_size() == 1
    return params


@pytest.mark.parametrize(("transform", "name"), BOTH)
def test_it_is_the_solver_and_nothing_else(transform, name):
    params = train(transform(fun))
    oracle = osculant.oracle(fun, start())
    solution = drive.fit(oracle, start(), [data()] * 8, solver=getattr(osculant, name)())
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(solution.x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_gauss_newton_from_a_model_and_a_loss():
    transformation = optax_adapter.trust_region(model=model, loss=loss, curvature="gauss-newton")
    params = train(transformation, steps=15)
    np.testing.assert_allclose(params["w"], [1.0, -2.0, 0.5], rtol=1e-5)
    np.testing.assert_allclose(params["b"], 0.3, rtol=1e-5)


def test_value_fn_takes_the_extra_arguments_that_it_names():
    def value_fn(params, inputs, targets):
        return fun(params, inputs, targets)

    inputs, targets = data()
    transformation = optax_adapter.trust_region()
    state = transformation.init(start())
    updates, _ = transformation.update(
        None, state, start(), value_fn=value_fn, inputs=inputs, targets=targets, unknown=3
    )
    given = optax_adapter.trust_region(fun)
    expected, _ = given.update(None, given.init(start()), start(), data=data())
    np.testing.assert_allclose(updates["w"], expected["w"])


def test_rejected_step_is_an_update_of_zeros():
    transformation = optax_adapter.trust_region(lambda x: jnp.sum(jnp.log(x)), attempts=2)
    x = jnp.array([1e-3])  # every descent step leaves the domain or lands at its edge
    update = jax.jit(lambda state: transformation.update(None, state, x))
    updates, state = update(transformation.init(x)._replace(radius=jnp.asarray(50.0)))
    assert int(state.rejected) == 2
    np.testing.assert_array_equal(updates, [0.0])


def test_update_can_be_vmapped():
    transformation = optax_adapter.trust_region(lambda x, c: jnp.sum(c * x**2))
    xs = jnp.arange(1.0, 7.0).reshape(3, 2)
    cs = jnp.array([1.0, 2.0, 3.0])

    def update(x, c):
        return transformation.update(None, transformation.init(x), x, data=(c,))[0]

    batched, single = jax.jit(jax.vmap(update))(xs, cs), jax.jit(update)
    one_by_one = jnp.stack([single(x, c) for x, c in zip(xs, cs, strict=True)])
    np.testing.assert_allclose(batched, one_by_one, rtol=1e-12)


def test_it_chains_with_other_transformations():
    half = optax.chain(optax_adapter.trust_region(lambda x: jnp.sum(x**2)), optax.scale(0.5))
    x = jnp.array([0.5])
    updates, _ = half.update(x, half.init(x), x, value=jnp.asarray(0.0))
    np.testing.assert_allclose(updates, [-0.25])


def test_what_is_missing_is_named():
    transformation = optax_adapter.newton_krylov()
    state = transformation.init(start())
    with pytest.raises(ValueError, match="needs the parameters"):
        transformation.update(None, state)
    with pytest.raises(ValueError, match="no function to minimise"):
        transformation.update(None, state, start())
    transformation = optax_adapter.newton_krylov(fun)
    with pytest.raises(
        TypeError, match=r"data of 0 arrays.*argument: 'inputs'.*data=\(inputs, targets\)"
    ):
        transformation.update(None, state, start())
    transformation = optax_adapter.newton_krylov(model=model, loss=loss)
    with pytest.raises(TypeError, match=r"data of 3 arrays.*too many positional arguments"):
        transformation.update(None, state, start(), data=(*data(), data()[1]))
    with pytest.raises(TypeError, match="must be a tuple of arguments"):
        transformation.update(None, state, start(), data=data()[0])


def test_what_cannot_work_is_refused_at_the_start():
    with pytest.raises(ValueError, match="there are: auto"):
        optax_adapter.from_solver("lbgfs", fun)
    with pytest.raises(osculant.ProductUnavailable, match=r"KFAC needs.*as a composition"):
        optax_adapter.from_solver("kfac", fun).init(start())
    with pytest.raises(TypeError, match="are bfloat16; the solvers compute in"):
        optax_adapter.from_solver("sgd", fun).init(jnp.zeros(2, jnp.bfloat16))
    labels = {"w": "ours", "b": "frozen"}
    parts = {"ours": optax_adapter.trust_region(fun), "frozen": optax.set_to_zero()}
    with pytest.raises(ValueError, match="keeps some of the parameters back"):
        optax.multi_transform(parts, labels).init(start())
    whole = optax.multi_transform(parts, {"w": "ours", "b": "ours"})
    updates, _ = whole.update(start(), whole.init(start()), start(), data=data())
    assert float(jnp.max(jnp.abs(updates["w"]))) > 0
