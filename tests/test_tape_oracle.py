"""The tape's oracle: costs, aliasing, compositions, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import array_api_strict
import numpy as np
import pytest

from osculant.backends import numpy_backend
from osculant.backends.tape.bilinear import BILINEAR
from osculant.backends.tape.oracle import TapeOracle
from osculant.core.arrays import namespace
from osculant.core.errors import NotDifferentiable, ProductUnavailable
from osculant.core.oracle import Objective
from osculant.core.structure import Structure

RNG = np.random.default_rng(4)


def plain(fun, x):
    return TapeOracle(Objective(fun=fun), Structure(x))


def composite(model, loss, params):
    return TapeOracle(Objective(model=model, loss=loss), Structure(params))


# A model with a rectangular Jacobian and a loss whose Hessian is not a multiple of the identity:
# y = B x^2, L = sum w exp(y), so that J = 2 B diag(x) and H_L = diag(w exp(y)).
B = RNG.standard_normal((5, 3))
w = RNG.uniform(0.5, 2.0, 5)
x3 = np.asarray([0.3, -0.7, 0.2])


def model(x):
    return B @ (x * x)


def loss(y):
    return np.sum(w * np.exp(y))


J = 2 * B * x3
curvature = w * np.exp(B @ x3**2)
grad = J.T @ curvature
G = J.T * curvature @ J
H = G + np.diag(2 * B.T @ curvature)


def test_closed_forms_of_a_composition():
    pt = composite(model, loss, x3).at(x3)
    V, U = RNG.standard_normal((3, 2)), RNG.standard_normal((5, 2))
    np.testing.assert_allclose(pt.value, loss(model(x3)), rtol=1e-14)
    np.testing.assert_allclose(pt.outputs, model(x3), rtol=1e-14)
    np.testing.assert_allclose(pt.grad, grad, rtol=1e-13)
    np.testing.assert_allclose(pt.hvp(V), H @ V, rtol=1e-12)
    np.testing.assert_allclose(pt.ggn(V), G @ V, rtol=1e-12)
    np.testing.assert_allclose(pt.jvp(V), J @ V, rtol=1e-13)
    np.testing.assert_allclose(pt.vjp(U), J.T @ U, rtol=1e-13)
    np.testing.assert_allclose(pt.loss_hvp(U), curvature[:, None] * U, rtol=1e-13)
    np.testing.assert_allclose(pt.vhv(V), np.sum(V * (H @ V), axis=0), rtol=1e-12)
    np.testing.assert_allclose(pt.vgv(V[:, 0]), V[:, 0] @ G @ V[:, 0], rtol=1e-12)


def test_products_do_not_need_the_gradient_first():
    v, u = x3 + 1, w
    np.testing.assert_allclose(composite(model, loss, x3).at(x3).hvp(v), H @ v, rtol=1e-12)
    np.testing.assert_allclose(composite(model, loss, x3).at(x3).ggn(v), G @ v, rtol=1e-12)
    np.testing.assert_allclose(composite(model, loss, x3).at(x3).loss_hvp(u), curvature * u)


def test_a_plain_function_has_no_gauss_newton_products():
    pt = plain(lambda x: loss(model(x)), x3).at(x3)
    np.testing.assert_allclose(pt.hvp(np.eye(3)), H, rtol=1e-12)
    for ask in (lambda: pt.ggn(x3), lambda: pt.outputs, lambda: pt.jvp(x3)):
        with pytest.raises(ProductUnavailable, match="model="):
            ask()


# Zero derivatives ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fun", "gradient", "hessian"),
    [
        (lambda p: np.asarray(3.0), 0.0, 0.0),
        (lambda p: np.sum(np.floor(p["a"])), 0.0, 0.0),
        (lambda p: np.sum(p["a"] * 2.0), 2.0, 0.0),
        (lambda p: p["a"][0] * 0.0 + 1.0, 0.0, 0.0),
    ],
    ids=["constant", "piecewise constant", "linear", "times zero"],
)
def test_functions_without_curvature(fun, gradient, hessian):
    params = {"a": np.ones(2), "unused": np.ones((2, 2))}
    oracle = plain(fun, params)
    pt = oracle.at(oracle.ravel(params))
    np.testing.assert_array_equal(pt.grad, [gradient] * 2 + [0.0] * 4)
    np.testing.assert_array_equal(pt.hvp(np.ones(6)), hessian)


def test_outputs_that_do_not_depend_on_the_parameters():
    pt = composite(lambda x: np.ones(2), lambda y: np.sum(y**2), x3).at(x3)
    assert pt.grad.tolist() == pt.hvp(x3).tolist() == pt.ggn(x3).tolist() == [0.0] * 3
    assert pt.jvp(x3).tolist() == [0.0, 0.0] and pt.loss_hvp(np.ones(2)).tolist() == [2.0, 2.0]


def test_a_loss_that_does_not_depend_on_the_outputs():
    pt = composite(model, lambda y: np.asarray(1.0), x3).at(x3)
    assert pt.grad.tolist() == pt.hvp(x3).tolist() == pt.ggn(x3).tolist() == [0.0] * 3
    np.testing.assert_allclose(pt.jvp(x3), J @ x3)


def test_steps_that_lead_nowhere_are_dropped():
    def fun(x):
        np.sum(x[:, None] @ x[None, :])
        return x @ x

    with counted_flops() as flops:
        pt = plain(fun, x3).at(x3)
        assert flops.of(lambda: pt.grad) == 2 * 6  # both transposes of x @ x alone


# Cost ------------------------------------------------------------------------------------------


class counted_flops:
    """Counts 2 m n k for each product of matrices, while it is entered."""

    def __enter__(self):
        self.total = 0
        self.original = row = BILINEAR["matmul"]
        BILINEAR["matmul"] = replace(
            row,
            map=self.counting(row.map, lambda a, b: a.size * b.shape[-1]),
            left=self.counting(row.left, lambda g, b: g.size * b.shape[-2]),
            right=self.counting(row.right, lambda g, a: g.size * a.shape[-1]),
        )
        return self

    def __exit__(self, *_):
        BILINEAR["matmul"] = self.original

    def counting(self, function, products):
        def wrapped(xp, a, b):
            self.total += 2 * products(a, b)
            return function(xp, a, b)

        return wrapped

    def of(self, function):
        before = self.total
        function()
        return self.total - before


def test_flops_on_a_deep_square_network():
    depth, width, batch = 24, 8, 5
    params = [
        {"W": RNG.standard_normal((width, width)), "b": np.zeros(width)} for _ in range(depth)
    ]
    inputs, targets = RNG.standard_normal((2, batch, width))
    forward = depth * 2 * batch * width**2

    def network(params, z):
        for layer in params:
            z = np.tanh(z @ layer["W"] + layer["b"])
        return z

    with counted_flops() as flops:
        oracle = composite(network, lambda y, t: np.mean((y - t) ** 2), params)
        x = oracle.ravel(params)
        v = np.ones_like(x)
        first = 1 / depth  # the inputs of the first layer have neither tangent nor cotangent
        cost = {}

        def measure(name, function):
            cost[name] = flops.of(function) / forward

        points = []
        measure("at", lambda: points.append(oracle.at(x, inputs, targets)))
        (pt,) = points
        measure("grad", lambda: pt.grad)
        measure("grad again", lambda: pt.grad)
        measure("hvp", lambda: pt.hvp(v))
        measure("hvp again", lambda: pt.hvp(v))
        measure("vhv", lambda: pt.vhv(v))
        measure("ggn", lambda: pt.ggn(v))
        measure("vgv", lambda: pt.vgv(v))
    assert cost == pytest.approx(
        {
            "at": 1,
            "grad": 2 - first,
            "grad again": 0,
            "hvp": 6 - 4 * first,
            "hvp again": 6 - 4 * first,
            "vhv": 6 - 4 * first,
            "ggn": 4 - 2 * first,
            "vgv": 2 - first,
        }
    )


def test_the_function_runs_once():
    calls = []

    def fun(x):
        calls.append(1)
        return np.sum(x**3)

    pt = plain(fun, x3).at(x3)
    for _ in range(2):
        _ = pt.value, pt.grad, pt.hvp(x3), pt.vhv(np.eye(3))
    assert calls == [1]


# Memory ----------------------------------------------------------------------------------------


def results(pt, v, u):
    return [
        pt.value,
        pt.grad,
        pt.hvp(v),
        pt.outputs,
        pt.jvp(v),
        pt.vjp(u),
        pt.loss_hvp(u),
        pt.ggn(v),
    ]


@pytest.mark.parametrize("single", [True, False], ids=["one leaf", "two leaves"])
def test_results_share_no_memory(single):
    # The identity, a view and a constant derivative: places where a result may be a view.
    params = x3.copy() if single else {"a": x3.copy(), "b": x3.copy()}
    get = (lambda p: p) if single else (lambda p: p["a"])
    oracle = composite(get, lambda y: np.sum(y) + y @ y / 2, params)
    x = oracle.ravel(params)
    v, u = np.ones_like(x), np.ones(3)
    pt = oracle.at(x)
    first = [np.array(r) for r in results(pt, v, u)]
    for result in results(pt, v, u):
        assert not any(np.shares_memory(result, a) for a in (x, v, u))
        result[...] = np.nan
    for result, expected in zip(results(pt, v, u), first, strict=True):
        np.testing.assert_array_equal(result, expected)
    assert v.tolist() == [1.0] * v.size and u.tolist() == [1.0] * 3


def test_a_point_outlives_its_x():
    x = x3.copy()
    pt = composite(model, loss, x).at(x)
    x[...] = np.nan
    np.testing.assert_allclose(pt.grad, grad, rtol=1e-13)
    np.testing.assert_allclose(pt.hvp(x3), H @ x3, rtol=1e-12)


def test_user_code_that_writes_in_place_harms_nothing():
    def fun(x, data):
        x += 1.0
        return np.sum(x * x) + np.sum(data)

    x, data = x3.copy(), np.ones(2)
    oracle = plain(fun, x)
    pt = oracle.at(x, data)
    assert pt.value == oracle.value(x, data)
    np.testing.assert_allclose(pt.grad, 2 * (x3 + 1))
    np.testing.assert_array_equal(x, x3)
    np.testing.assert_array_equal(data, 1.0)


# Namespaces and dtypes --------------------------------------------------------------------------


def test_strict_arrays_in_and_out():
    xp = array_api_strict

    def fun(p):
        nx = namespace(p["a"])
        return nx.sum(nx.tanh(p["a"] @ p["a"].T)) + nx.sum(p["b"] ** 3)

    params = {"a": xp.asarray([[0.1, 0.2], [0.3, 0.4]]), "b": xp.asarray(0.5)}
    oracle = plain(fun, params)
    x = oracle.ravel(params)
    pt = oracle.at(x)
    for result in (pt.value, pt.grad, pt.hvp(x), oracle.value(x)):
        assert namespace(result) is xp and result.dtype == xp.float64
    same = plain(fun, {k: np.asarray(a) for k, a in params.items()}).at(np.asarray(x))
    np.testing.assert_allclose(np.asarray(pt.hvp(x)), same.hvp(np.asarray(x)), rtol=1e-13)


def test_float32_in_and_out():
    x = x3.astype(np.float32)
    pt = plain(lambda x: np.mean(np.exp(2 * x) / 3.0 + np.clip(x, 0.0, 1.0) ** 2), x).at(x)
    for result in (pt.value, pt.grad, pt.hvp(x), pt.vhv(x)):
        assert result.dtype == np.float32


def test_float64_data_in_a_float32_function_are_reported():
    x = x3.astype(np.float32)
    oracle = plain(lambda x, data: np.sum(x * data), x)
    for evaluate in (oracle.at, oracle.value):
        with pytest.raises(TypeError, match="float64 for parameters of float32"):
            evaluate(x, np.ones(3))
    with pytest.raises(TypeError, match="model returned float64"):
        composite(lambda x: x * np.ones(3), lambda y: np.sum(y), x).at(x)


def test_a_step_through_another_precision_comes_back():
    x = x3.astype(np.float32)
    pt = plain(lambda x: np.sum(np.exp(x * np.ones(3))).astype(np.float32), x).at(x)
    assert pt.grad.dtype == pt.hvp(x).dtype == np.float32
    np.testing.assert_allclose(pt.grad, np.exp(x), rtol=1e-6)


# Refusals --------------------------------------------------------------------------------------


def test_scalars_are_needed():
    for fun, error, words in [
        (lambda x: x, ValueError, r"fun returned shape \(3,\)"),
        (lambda x: 1.0, TypeError, "float, which carries no derivative"),
    ]:
        for evaluate in (plain(fun, x3).at, plain(fun, x3).value):
            with pytest.raises(error, match=words):
                evaluate(x3)
    with pytest.raises(ValueError, match="loss returned shape"):
        composite(model, lambda y: y, x3).at(x3)
    with pytest.raises(TypeError, match="model returned a tuple; one array is needed"):
        composite(lambda x: (x, x), lambda y: y[0], x3).at(x3)


def test_a_loss_sees_the_outputs_alone():
    kept = []

    def keeping(x):
        kept.append(x)
        return model(x)

    for sneaky in (lambda y: loss(y) + kept[-1] @ kept[-1], lambda y: np.sum(kept[-1])):
        with pytest.raises(NotDifferentiable, match="only through the model's outputs"):
            composite(keeping, sneaky, x3).at(x3)


def test_traced_arrays_are_of_no_use_afterwards():
    kept = []

    def fun(x):
        kept.append(x)
        return np.sum(x)

    plain(fun, x3).at(x3)
    with pytest.raises(NotDifferentiable, match="keeping traced arrays"):
        kept[0] * 2


def test_wrong_vectors_are_reported():
    oracle = composite(model, loss, x3)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        oracle.at(np.ones(4))
    with pytest.raises(ValueError, match=r"\(5,\)"):
        oracle.at(x3).vjp(np.ones(3))
    with pytest.raises(TypeError, match="float32"):
        oracle.at(x3).hvp(x3.astype(np.float32))


# The backend ----------------------------------------------------------------------------------


def test_numpy_backend():
    x = {"a": x3}
    oracle = numpy_backend.make_oracle(Objective(fun=lambda p: np.sum(p["a"] ** 2)), x)
    np.testing.assert_allclose(oracle.at(x3).grad, 2 * x3)
    for convert in (numpy_backend.from_numpy, numpy_backend.to_numpy):
        copy = convert(x3)
        assert not np.shares_memory(copy, x3)
        np.testing.assert_array_equal(copy, x3)
    assert numpy_backend.version() == np.__version__ and numpy_backend.devices() == ["cpu"]
