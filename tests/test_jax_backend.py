# ruff: noqa: E402  (the framework may be missing: nothing after it is imported then)
import subprocess
import sys
import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp

import osculant
from osculant import Product, ProductUnavailable
from osculant.backends import jax_backend, jax_oracle
from osculant.backends.jax_flow import JaxFlow

LINEAR = [Product.HVP, Product.GGN, Product.JVP, Product.VJP, Product.LOSS_HVP]
OF_OUTPUTS = [Product.VJP, Product.LOSS_HVP]


def model(params, A):
    x = jnp.concat([params["a"].reshape(-1), params["b"].reshape(1), params["c"][0]])
    return A @ x**2


def loss(z, weights):
    return (weights["c"] * z**4).sum() / 12 + (weights["s"] @ z) ** 2 / 2


def fun(params, A, weights):
    return loss(model(params, A), weights)


def to_jax(tree):
    return jax.tree.map(jax_backend.from_numpy, tree)


def composite_oracle(composition):
    return osculant.oracle(model=model, loss=loss, params=to_jax(composition.params))


def close(actual, expected, **tol):
    np.testing.assert_allclose(np.asarray(actual), expected, **tol)


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


# Closed forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["compiled", "traced", "uncompiled"])
def test_products_of_a_composition(composition, how):
    if how == "uncompiled" and composition.x.dtype == np.float32:
        pytest.skip("slow, and covered in float64")
    oracle = composite_oracle(composition)
    x = oracle.ravel(to_jax(composition.params))
    close(x, composition.x)
    assert list(oracle.groups) == ["a", "b", "c.0"]

    def answers(x, data, V, U):
        point = oracle.at(x, *data)
        both = {p: getattr(point, p)(U if p in OF_OUTPUTS else V) for p in LINEAR}
        one = {p: getattr(point, p)((U if p in OF_OUTPUTS else V)[:, 1]) for p in LINEAR}
        forms = point.vhv(V), point.vgv(V)
        return point.value, oracle.value(x, *data), point.grad, point.outputs, both, one, forms

    V, U = jnp.asarray(composition.V), jnp.asarray(composition.U)
    with jax.disable_jit(how == "uncompiled"):
        evaluate = jax.jit(answers) if how == "traced" else answers
        value, again, grad, outputs, both, one, (vhv, vgv) = evaluate(
            x, to_jax(composition.data), V, U
        )
    dense, tol = composition.dense, composition.tol
    close(value, dense.value, **tol)
    close(again, dense.value, **tol)
    close(grad, dense.grad, **tol)
    close(outputs, dense.outputs, **tol)
    for product in LINEAR:
        V = composition.U if product in OF_OUTPUTS else composition.V
        expected = getattr(dense, product) @ V
        close(both[product], expected, err_msg=product, **tol)
        close(one[product], expected[:, 1], err_msg=product, **tol)
        assert both[product].dtype == one[product].dtype == x.dtype
    V = composition.V
    close(vhv, np.sum(V * (dense.hvp @ V), axis=0), **tol)
    close(vgv, np.sum(V * (dense.ggn @ V), axis=0), **tol)


def test_products_of_a_plain_function(composition):
    oracle = osculant.oracle(fun, to_jax(composition.params))
    point = oracle.at(jnp.asarray(composition.x), *to_jax(composition.data))
    close(point.value, composition.dense.value, **composition.tol)
    close(point.grad, composition.dense.grad, **composition.tol)
    V = composition.V
    close(point.hvp(jnp.asarray(V)), composition.dense.hvp @ V, **composition.tol)
    with pytest.raises(ProductUnavailable, match="model="):
        point.ggn(jnp.asarray(V))
    with pytest.raises(ProductUnavailable, match="model="):
        _ = point.outputs


@pytest.mark.parametrize("shape", [(1,), (), (2, 0, 3), (1, 1)])
def test_awkward_shapes(shape):
    o = osculant.oracle(lambda x: (x**4).sum() / 12, jnp.zeros(shape))
    p = o.at(x := random(int(np.prod(shape))))
    close(p.grad, x**3 / 3, rtol=1e-12)
    close(p.hvp(jnp.ones_like(x)), x**2, rtol=1e-12)
    assert p.hvp(jnp.ones_like(x)[:, None]).shape == (x.size, 1)


def test_empty_batch():
    o = osculant.oracle(
        model=lambda w, X: X @ w, loss=lambda z, y: ((z - y) ** 2).sum(), params=random(3)
    )
    p = o.at(random(3), random(0, 3), random(0))
    v = random(3)
    assert p.outputs.shape == p.jvp(v).shape == (0,)
    for answer in (p.grad, p.hvp(v), p.ggn(v), p.vjp(random(0))):
        close(answer, np.zeros(3))


def test_a_linear_loss_has_no_curvature_but_its_model_has():
    c = random(4, seed=1)
    x, v, A = random(3), random(3, seed=2), random(4, 3, seed=3)
    p = osculant.oracle(model=lambda x: A @ x**2, loss=lambda z: c @ z, params=x).at(x)
    close(p.jvp(v), A @ (2 * x * v), rtol=1e-12)
    close(p.hvp(v), 2 * (A.T @ c) * v, rtol=1e-12)
    close(p.loss_hvp(c), np.zeros(4))
    close(p.ggn(v), np.zeros(3))


def test_a_model_that_returns_its_parameters():
    x, v = random(2, 2), random(4, seed=1)
    o = osculant.oracle(model=lambda x: x, loss=lambda z: (z**4).sum() / 12, params=x)
    p = o.at(o.ravel(x))
    close(p.jvp(v), v)
    close(p.vjp(v), v)
    for answer in (p.hvp(v), p.ggn(v), p.loss_hvp(v)):
        close(answer, x.reshape(-1) ** 2 * v, rtol=1e-12)


def test_parameters_that_take_no_part_have_zero_derivatives():
    params = {"used": random(2), "unused": random(2)}
    o = osculant.oracle(lambda p: (p["used"] ** 2).sum(), params)
    p = o.at(o.ravel(params))
    close(o.unravel(p.grad)["unused"], np.zeros(2))
    close(o.unravel(p.hvp(jnp.ones(4)))["unused"], np.zeros(2))


def test_loops_and_branches_in_the_model():
    def model(x, n):
        def step(h, _):
            return jax.lax.cond(h[0] > 0, jnp.sin, jnp.cos, h), h

        h, hs = jax.lax.scan(step, x, length=3)
        return jnp.concat([h[None], hs]).reshape(-1) * n

    o = osculant.oracle(model=model, loss=lambda z, y: ((z - y) ** 4).sum(), params=random(3))
    x, data = random(3), (2.0, random(12))
    p = o.at(x, *data)
    J = jax.jacobian(lambda x: model(x, 2.0))(x)
    H_L = jnp.diag(12 * (p.outputs - data[1]) ** 2)
    V = random(3, 2)
    close(p.jvp(V), J @ V, rtol=1e-10)
    close(p.ggn(V), J.T @ H_L @ J @ V, rtol=1e-10)
    close(p.vjp(data[1]), J.T @ data[1], rtol=1e-10)
    H = jax.hessian(lambda x: ((model(x, 2.0) - data[1]) ** 4).sum())(x)
    close(p.hvp(V), H @ V, rtol=1e-10)


def test_random_keys_are_data():
    o = osculant.oracle(lambda x, key: (jax.random.normal(key, x.shape) * x**2).sum(), random(3))
    p = o.at(random(3), jax.random.key(0))
    close(p.hvp(jnp.ones(3)), 2 * jax.random.normal(jax.random.key(0), (3,)), rtol=1e-12)


# Trees -----------------------------------------------------------------------------------------


@partial(jax.tree_util.register_dataclass, data_fields=["W", "bias"], meta_fields=["activation"])
@dataclass
class Layer:
    W: jax.Array
    bias: jax.Array
    activation: str


def test_trees_are_jaxs_own():
    params = Layer(random(2, 3), random(2), "tanh")
    o = osculant.oracle(lambda p: (getattr(jnp, p.activation)(p.W).sum() + p.bias**2).sum(), params)
    assert list(o.groups) == ["W", "bias"]
    x = o.ravel(params)
    back = o.unravel(x)
    assert isinstance(back, Layer) and back.activation == "tanh"
    close(back.W, params.W)
    close(o.at(x).grad[6:], 2 * params.bias, rtol=1e-12)
    assert list(osculant.oracle(lambda p: p["layers"][0].W.sum(), {"layers": [params]}).groups) == [
        "layers.0.W",
        "layers.0.bias",
    ]


# Compiling -------------------------------------------------------------------------------------


class Counted:
    """x -> a sum(x^4) / 12, counting how often it is traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, x, a):
        self.traces += 1
        return a * (x**4).sum() / 12


def test_nothing_is_traced_twice():
    fun = Counted()
    first, second = (osculant.oracle(fun, jnp.zeros(3)) for _ in range(2))
    assert first == second and hash(first) == hash(second)
    p = first.at(random(3), 2.0)
    p.hvp(random(3))
    first.value(random(3), 2.0)
    traces = fun.traces
    for o in (first, second):
        p = o.at(x := random(3, seed=1), 5.0)
        close(o.value(x, 5.0), p.value, rtol=1e-12)
        close(p.hvp(jnp.ones(3)), 5 * x**2, rtol=1e-12)
    assert fun.traces == traces
    size = jax_oracle._hvp._cache_size()
    second.at(x, 1.0).hvp(x)
    assert jax_oracle._hvp._cache_size() == size
    osculant.oracle(fun, jnp.zeros(4)).at(random(4), 1.0)
    assert fun.traces > traces


def test_oracles_of_other_functions_or_shapes_differ():
    def f(x):
        return x.sum()

    one = osculant.oracle(f, jnp.zeros(3))
    assert one != osculant.oracle(lambda x: x.sum(), jnp.zeros(3))
    assert one != osculant.oracle(f, jnp.zeros((3, 1)))
    assert one != osculant.oracle(f, jnp.zeros(3, dtype=jnp.float32))
    assert one != "oracle"


def test_weak_types_are_one_type():
    fun = Counted()
    weak = jnp.full(3, 1.0)
    o = osculant.oracle(fun, weak)
    assert weak.weak_type and not o.ravel(weak).weak_type
    p = o.at(weak, 1.0)
    answers = p.value, p.grad, p.hvp(o.ravel(weak)), p.hvp(weak), o.value(weak, 1.0)
    assert not any(answer.weak_type for answer in answers)
    assert not osculant.oracle(lambda x: jnp.where(x[0] > 0, 1.0, 0.0), weak).value(weak).weak_type


def test_a_step_is_compiled_with_the_oracle_as_static_argument():
    fun = Counted()

    def step(oracle, x, a):
        p = oracle.at(x, a)
        return x - p.grad / p.hvp(jnp.ones_like(x))

    compiled = JaxFlow().jit(step, static=(0,))
    assert JaxFlow().jit(step, static=(0,)) is compiled
    for _ in range(2):
        x = random(3)
        close(compiled(osculant.oracle(fun, x), x, 2.0), x * 2 / 3, rtol=1e-12)
    assert compiled._cache_size() == 1


def test_vmap_over_points_and_products(composition):
    oracle = composite_oracle(composition)
    data = to_jax(composition.data)
    X = jnp.stack([jnp.asarray(composition.x)] * 2) * jnp.asarray([[1], [2]], composition.x.dtype)
    V = jnp.asarray(composition.V)

    def answers(x):
        p = oracle.at(x, *data)
        rows = jax.vmap(p.hvp)(V.T)
        return p.value, p.grad, rows, p.ggn(V), oracle.value(x, *data)

    for transformed in (jax.vmap(answers), jax.jit(jax.vmap(answers))):
        value, grad, rows, ggn, again = transformed(X)
        dense, tol = composition.dense, composition.tol
        close(value[0], dense.value, **tol)
        close(again[0], dense.value, **tol)
        close(grad[0], dense.grad, **tol)
        close(rows[0].T, dense.hvp @ composition.V, **tol)
        close(ggn[0], dense.ggn @ composition.V, **tol)
        close(ggn[1], oracle.at(X[1], *data).ggn(V), rtol=1e-4)


def test_points_can_be_differentiated():
    o = osculant.oracle(lambda x: (x**4).sum() / 24, random(3))
    x, v = random(3), random(3, seed=1)
    third = jax.jvp(lambda x: o.at(x).hvp(v), (x,), (v,))[1]
    close(third, x * v * v, rtol=1e-12)


# Flow ------------------------------------------------------------------------------------------


def halve(limit):
    return JaxFlow().while_loop(lambda x: x > limit, lambda x: x / 2, jnp.asarray(16.0))


def test_a_loop_over_known_values_is_pythons(monkeypatch):
    def fail(*_):
        raise AssertionError

    monkeypatch.setattr(jax.lax, "while_loop", fail)
    monkeypatch.setattr(jax.lax, "cond", fail)
    assert halve(3.0) == 2
    assert JaxFlow().cond(jnp.asarray(False), lambda x: 1 / 0, lambda x: x + 1, 1) == 2


def test_a_traced_loop_is_laxs():
    assert jax.jit(halve)(3.0) == 2
    assert jax.vmap(halve)(jnp.asarray([3.0, 7.0])).tolist() == [2, 4]
    assert "while" in str(jax.make_jaxpr(halve)(3.0))


def test_a_traced_branch_is_laxs():
    def branch(x):
        return JaxFlow().cond(x > 0, lambda x: x + 1, lambda x: x - 1, x)

    assert branch(jnp.asarray(1.0)) == jax.jit(branch)(1.0) == 2
    assert jax.jit(branch)(-1.0) == -2
    assert "cond" in str(jax.make_jaxpr(branch)(1.0))


def test_products_inside_a_traced_loop():
    o = osculant.oracle(lambda x: (x**2 * jnp.arange(1.0, 4.0)).sum() / 2, random(3))

    def power(x):
        p = o.at(x)

        def step(state):
            k, v = state
            w = p.hvp(v)
            return k + 1, w / jnp.linalg.norm(w)

        return p.vhv(o.flow.while_loop(lambda s: s[0] < 60, step, (jnp.asarray(0), x))[1])

    x = jnp.ones(3)
    close(power(x), 3.0, rtol=1e-9)
    close(jax.jit(power)(x), 3.0, rtol=1e-9)


# Cost ------------------------------------------------------------------------------------------

LAYERS, WIDTH, BATCH = 4, 256, 16
FORWARD = LAYERS * 2 * WIDTH * WIDTH * BATCH


def mlp(weights, X):
    for W in weights:
        X = jnp.tanh(X @ W)
    return X


def forwards(function, *args):
    return function.lower(*args).compile().cost_analysis()["flops"] / FORWARD


def test_what_is_not_asked_for_is_not_computed():
    weights = [random(WIDTH, WIDTH, seed=i) / 16 for i in range(LAYERS)]
    data = random(BATCH, WIDTH), random(BATCH, WIDTH, seed=1)
    o = osculant.oracle(model=mlp, loss=lambda z, y: ((z - y) ** 2).mean(), params=weights)
    x = o.ravel(weights)
    p = o.at(x, *data)
    # Compiled apart, the linear map an argument: a point costs a gradient, though its map has
    # four components, and a product costs that of its own component.
    assert 2 < forwards(jax_oracle._linearize, o, x, data) <= 3
    assert 4 < forwards(jax_oracle._hvp, o, p._tangents, x) <= 6
    assert 2 < forwards(jax_oracle._ggn, o, p._tangents, x) <= 4
    assert 1 < forwards(jax_oracle._jvp, o, p._tangents, x) <= 2
    # Inside a trace: only what is used.
    assert 0.9 < forwards(jax.jit(lambda x: o.at(x, *data).value), x) < 1.1
    assert 2 < forwards(jax.jit(lambda x: o.at(x, *data).grad), x) <= 3


# Precision -------------------------------------------------------------------------------------


def test_conversion_copies_and_keeps_the_dtype():
    for dtype in (np.float32, np.float64, np.int64, np.int32, np.bool_):
        array = np.ones((2, 3), dtype=dtype)
        converted = jax_backend.from_numpy(array)
        array[:] = 0
        back = jax_backend.to_numpy(converted)
        assert back.all() and back.dtype == dtype and converted.dtype == dtype
        back[:] = 0
        assert converted.all()


def test_float64_is_not_lost_silently():
    array = np.ones(3)
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError, match="jax_enable_x64"):
            jax_backend.from_numpy(array)
        with pytest.raises(TypeError, match="jax_enable_x64"):
            osculant.oracle(jnp.sum, array, backend="jax")
        x = jax_backend.from_numpy(array.astype(np.float32))
        p = osculant.oracle(lambda x: (x**4).sum() / 12, x).at(x)
        assert p.hvp(x).dtype == jnp.float32
        close(p.hvp(x), 1.0, rtol=1e-6)
        labels = jax_backend.from_numpy(np.arange(3))
        assert labels.dtype == jnp.int32 and labels.tolist() == [0, 1, 2]
        with pytest.raises(ValueError, match="does not fit"):
            jax_backend.from_numpy(np.asarray([2**40]))


def test_importing_flips_no_flag():
    code = "import jax, osculant; osculant.backends.get('jax'); print(jax.config.jax_enable_x64)"
    for setting, expected in (("0", "False"), ("1", "True")):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={"JAX_ENABLE_X64": setting, "PATH": "", "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == expected


# Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fun", "error", "message"),
    [
        (lambda x: 1.0, TypeError, "float, which carries no derivative"),
        (lambda x: x**2, ValueError, r"shape \(3,\)"),
        (lambda x: (x**2).sum().astype(jnp.float32), TypeError, "float32"),
    ],
)
def test_what_a_function_must_return(fun, error, message):
    o = osculant.oracle(fun, random(3))
    for evaluate in (o.at, o.value):
        with pytest.raises(error, match=message):
            evaluate(random(3))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: (x, x), "one array"),
        (lambda x: x.astype(jnp.float32), "model returned float32"),
    ],
)
def test_what_a_model_must_return(model, message):
    o = osculant.oracle(model=model, loss=lambda z: (z**2).sum(), params=random(3))
    with pytest.raises(TypeError, match=message):
        o.at(random(3))


def test_data_that_is_no_array_is_named():
    o = osculant.oracle(lambda x, how: x.sum(), random(3))
    with pytest.raises(TypeError, match=r"contain a str.*functools\.partial"):
        o.at(random(3), {"how": "fast"})
    with pytest.raises(TypeError, match="contain a str"):
        o.value(random(3), "fast")


def test_functions_that_cannot_be_hashed_are_named():
    class Unhashable:
        __hash__ = None

        def __call__(self, x):
            return x.sum()

    with pytest.raises(TypeError, match="plain function"):
        osculant.oracle(Unhashable(), random(3))


def test_points_of_other_frameworks_shapes_and_dtypes_are_refused():
    o = osculant.oracle(lambda x: (x**2).sum(), random(3))
    for evaluate in (o.at, o.value):
        with pytest.raises(TypeError, match="numpy"):
            evaluate(np.zeros(3))
        with pytest.raises(ValueError, match=r"\(3,\)"):
            evaluate(random(4))
        with pytest.raises(TypeError, match="float32"):
            evaluate(random(3).astype(jnp.float32))


def test_version_and_devices():
    assert jax_backend.version() == jax.__version__
    assert jax_backend.devices() == [str(device) for device in jax.devices()]
