"""The test problems against closed forms, SciPy, and on every backend."""

from __future__ import annotations

from functools import partial

import array_api_strict
import numpy as np
import optree
import pytest
import scipy.optimize
import scipy.special

import osculant
from osculant import backends
from osculant.problems import (
    autoencoder,
    glorot,
    logistic_regression,
    mlp,
    one_hot,
    ridge,
    rosenbrock,
    rosenbrock_residuals,
    rosenbrock_start,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    sparse,
    squared_error,
    squared_hinge_svm,
    sum_of_squares,
    x_minus_log,
)

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=["numpy", "torch", "jax"])
def backend(request):
    reason = backends.available()[request.param]
    if reason is not None:
        pytest.skip(reason)
    return backends.get(request.param)


class On:
    """A composite oracle on a backend, spoken to in NumPy."""

    def __init__(self, backend, model, loss, params):
        self.backend = backend
        self.oracle = osculant.oracle(model=model, loss=loss, params=self.tree(params))

    def tree(self, tree):
        return optree.tree_map(self.backend.from_numpy, tree)

    def at(self, params, *data):
        x = self.oracle.ravel(self.tree(params))
        self.point = self.oracle.at(x, *(self.tree(array) for array in data))
        return self

    def product(self, name, v):
        return self.numpy(getattr(self.point, name)(self.tree(v)))

    def numpy(self, array):
        return self.backend.to_numpy(array)


close = partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11)


# Functions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_rosenbrock_is_scipys(n):
    x = np.random.default_rng(n).normal(size=n)
    assert rosenbrock(x) == pytest.approx(scipy.optimize.rosen(x), rel=1e-14)
    assert rosenbrock(np.ones(n)) == 0


def test_rosenbrock_start_is_the_standard_one():
    np.testing.assert_array_equal(rosenbrock_start(5), [-1.2, 1, -1.2, 1, -1.2])
    assert rosenbrock(rosenbrock_start(2)) == pytest.approx(24.2)


@pytest.mark.parametrize("x", [np.ones(1), np.ones((2, 2))])
def test_rosenbrock_needs_a_vector_of_two(x):
    with pytest.raises(ValueError, match="vector of 2 or more"):
        rosenbrock(x)


def test_functions_run_on_the_strict_namespace():
    x = array_api_strict.asarray([-1.2, 1.0, 0.5])
    assert float(rosenbrock(x)) == pytest.approx(scipy.optimize.rosen(np.array([-1.2, 1.0, 0.5])))
    assert float(x_minus_log(array_api_strict.asarray([1.0, 1.0]))) == 2.0


def test_rosenbrock_derivatives(backend):
    x, v = rosenbrock_start(4), np.array([1.0, -2.0, 0.5, 3.0])
    on = On(backend, rosenbrock_residuals, sum_of_squares, x).at(x)
    close(on.numpy(on.point.grad), scipy.optimize.rosen_der(x))
    close(on.product("hvp", v), scipy.optimize.rosen_hess_prod(x, v))
    residuals_vanish = np.ones(4)
    on.at(residuals_vanish)
    close(on.product("ggn", v), scipy.optimize.rosen_hess_prod(residuals_vanish, v))


# Linear classifiers ------------------------------------------------------------------------


@pytest.fixture
def separated():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(12, 4))
    return inputs, np.where(inputs @ np.array([1.0, -1.0, 0.5, 0.0]) > 0, 1.0, -1.0)


def test_logistic_regression_at_zero_has_its_whole_hessian(backend, separated):
    """Where log(1 + exp(-|z|)) has a kink, and where every run starts."""
    X, y = separated
    problem = logistic_regression(4, l2=0.3)
    on = On(backend, problem.model, problem.loss, problem.params).at(problem.params, X, y)
    v = np.array([1.0, -2.0, 0.5, 3.0])
    expected = X.T @ (X @ v) / 4 / len(y) + 0.3 * v
    assert float(on.point.value) == pytest.approx(np.log(2), rel=1e-13)
    close(on.numpy(on.point.grad), -X.T @ y / 2 / len(y))
    close(on.product("hvp", v), expected)
    close(on.product("ggn", v), expected)


def test_logistic_regression_closed_form(backend, separated):
    X, y = separated
    w, v = np.array([0.3, -0.2, 1.0, 2.0]), np.array([1.0, -2.0, 0.5, 3.0])
    problem = logistic_regression(4, l2=0.1)
    on = On(backend, problem.model, problem.loss, problem.params).at(w, X, y)
    p = scipy.special.expit(-y * (X @ w))
    hessian = (X.T * (p * (1 - p))) @ X / len(y) + 0.1 * np.eye(4)
    value = np.mean(np.logaddexp(0, -y * (X @ w))) + 0.05 * w @ w
    assert float(on.point.value) == pytest.approx(value, rel=1e-13)
    close(on.numpy(on.point.grad), -X.T @ (y * p) / len(y) + 0.1 * w)
    close(on.product("hvp", v), hessian @ v)
    close(on.product("ggn", v), hessian @ v)


def test_squared_hinge_closed_form(backend, separated):
    X, y = separated
    w, v = np.array([0.3, -0.2, 1.0, 2.0]), np.array([1.0, -2.0, 0.5, 3.0])
    problem = squared_hinge_svm(4, l2=0.1)
    on = On(backend, problem.model, problem.loss, problem.params).at(w, X, y)
    slack = 1 - y * (X @ w)
    inside = slack > 0
    assert 0 < inside.sum() < len(y)
    hessian = 2 * X[inside].T @ X[inside] / len(y) + 0.1 * np.eye(4)
    value = np.mean(np.maximum(slack, 0) ** 2) + 0.05 * w @ w
    assert float(on.point.value) == pytest.approx(value, rel=1e-13)
    gradient = -2 * X[inside].T @ (y * slack)[inside] / len(y) + 0.1 * w
    close(on.numpy(on.point.grad), gradient)
    close(on.product("hvp", v), hessian @ v)
    close(on.product("ggn", v), hessian @ v)


def test_log_loss_neither_overflows_nor_saturates():
    problem = logistic_regression(1)
    X = np.array([[1e4], [-1e4]])
    value = problem.loss(problem.model(np.ones(1), X), np.ones(2))
    assert value == pytest.approx(0.5e4)
    tiny = problem.loss(problem.model(np.ones(1), np.array([[40.0]])), np.ones(1))
    assert tiny == pytest.approx(np.exp(-40.0), rel=1e-12)


def test_linear_classifiers_reject_what_they_cannot_use():
    with pytest.raises(ValueError, match="l2 is -1"):
        logistic_regression(3, l2=-1.0)
    problem = squared_hinge_svm(3)
    with pytest.raises(ValueError, match=r"shape \(5,\) for 4 outputs"):
        problem.loss(problem.model(problem.params, np.ones((4, 3))), np.ones(5))


# Networks ----------------------------------------------------------------------------------


def test_softmax_cross_entropy_is_scipys_and_stable():
    z = np.random.default_rng(0).normal(size=(5, 3)) * 1e4
    labels = np.array([0, 1, 2, 1, 0])
    expected = -np.mean(scipy.special.log_softmax(z, axis=1)[np.arange(5), labels])
    assert softmax_cross_entropy(z, one_hot(labels, 3)) == pytest.approx(expected, rel=1e-14)


def test_softmax_cross_entropy_where_logits_tie(backend):
    """The subtracted maximum has no derivative there; the loss has all of them."""
    z, targets = np.zeros((1, 3)), np.array([[0.0, 1.0, 0.0]])
    on = On(backend, lambda z: z, softmax_cross_entropy, z)
    on.oracle = osculant.oracle(lambda z, t: softmax_cross_entropy(z, t), on.tree(z))
    on.at(z, targets)
    close(on.numpy(on.point.grad), np.full(3, 1 / 3) - targets[0])
    v = np.array([1.0, -2.0, 4.0])
    close(on.product("hvp", v), (np.eye(3) / 3 - 1 / 9) @ v)


def test_sigmoid_cross_entropy_is_bernoullis_and_stable():
    z, t = np.array([[0.5, -2.0], [3.0, 0.0]]), np.array([[1.0, 0.25], [0.0, 0.5]])
    p = scipy.special.expit(z)
    expected = np.mean(-np.sum(t * np.log(p) + (1 - t) * np.log(1 - p), axis=1))
    assert sigmoid_cross_entropy(z, t) == pytest.approx(expected, rel=1e-14)
    assert sigmoid_cross_entropy(np.array([[1e4, -1e4]]), np.array([[1.0, 0.0]])) == 0


def test_squared_error():
    assert squared_error(np.array([[1.0, 2.0], [0.0, 0.0]]), np.zeros((2, 2))) == 1.25


@pytest.mark.parametrize("loss", [softmax_cross_entropy, sigmoid_cross_entropy, squared_error])
def test_losses_do_not_broadcast_labels(loss):
    with pytest.raises(ValueError, match=r"targets have shape \(3,\)"):
        loss(np.zeros((3, 3)), np.zeros(3))


def test_mlp_is_its_formula(backend):
    rng = np.random.default_rng(0)
    problem = mlp([5, 4, 3], seed=1)
    inputs, targets = rng.normal(size=(6, 5)), one_hot(rng.integers(3, size=6), 3)
    on = On(backend, problem.model, problem.loss, problem.params)
    on.at(problem.params, inputs, targets)
    (first, second) = problem.params
    hidden = np.tanh(inputs @ first["weight"] + first["bias"])
    outputs = hidden @ second["weight"] + second["bias"]
    close(on.numpy(on.point.outputs), outputs.ravel())
    gradient = hidden.T @ (scipy.special.softmax(outputs, axis=1) - targets) / 6
    name = next(name for name in on.oracle.groups if "1" in name and "weight" in name)
    close(on.numpy(on.point.grad)[on.oracle.groups[name]], gradient.ravel())


def test_ridge_adds_a_multiple_of_the_identity(backend):
    rng = np.random.default_rng(0)
    plain = mlp([5, 4, 3], seed=1)
    data = rng.normal(size=(6, 5)), one_hot(rng.integers(3, size=6), 3)
    on = On(backend, plain.model, plain.loss, plain.params).at(plain.params, *data)
    x, v = on.numpy(on.oracle.ravel(on.tree(plain.params))), rng.normal(size=on.oracle.size)
    ridged = ridge(plain, 0.3)
    off = On(backend, ridged.model, ridged.loss, ridged.params).at(ridged.params, *data)
    assert float(off.point.value) == pytest.approx(float(on.point.value) + 0.15 * x @ x, rel=1e-13)
    close(off.numpy(off.point.grad), on.numpy(on.point.grad) + 0.3 * x)
    for product in ("hvp", "ggn"):
        close(off.product(product, v), on.product(product, v) + 0.3 * v)
    outputs = ridged.predict(on.tree(plain.params), on.tree(data[0]))
    close(on.numpy(outputs).ravel(), on.numpy(on.point.outputs))


def test_autoencoder_mirrors_its_encoder_around_a_linear_code():
    problem = autoencoder((6, 5, 2), seed=3, initialise=glorot)
    assert [layer["weight"].shape for layer in problem.params] == [(6, 5), (5, 2), (2, 5), (5, 6)]
    a, b, c, d = problem.params
    x = np.random.default_rng(0).uniform(size=(3, 6))
    code = scipy.special.expit(x @ a["weight"]) @ b["weight"]
    outputs = scipy.special.expit(code @ c["weight"]) @ d["weight"]
    np.testing.assert_allclose(problem.model(problem.params, x), outputs, rtol=1e-12)
    assert problem.loss is sigmoid_cross_entropy


def test_autoencoder_with_sigmoid_outputs_gives_pixels():
    pixels = autoencoder((6, 5, 2), seed=3, loss="squared-error", outputs="sigmoid")
    logits = autoencoder((6, 5, 2), seed=3, loss="squared-error")
    x = np.random.default_rng(0).uniform(size=(3, 6))
    expected = scipy.special.expit(logits.model(logits.params, x))
    np.testing.assert_allclose(pixels.model(pixels.params, x), expected, rtol=1e-12)


def test_autoencoder_gauss_newton_is_semidefinite(backend):
    problem = autoencoder((6, 5, 2), loss="squared-error", activation="tanh", seed=3)
    x = np.random.default_rng(0).uniform(size=(3, 6))
    on = On(backend, problem.model, problem.loss, problem.params).at(problem.params, x, x)
    v = np.random.default_rng(1).normal(size=on.oracle.size)
    Jv = on.product("jvp", v)
    assert v @ on.product("ggn", v) == pytest.approx(Jv @ Jv / 3, rel=1e-11)


def test_deep_autoencoder_has_the_fields_shape():
    problem = autoencoder(initialise=partial(glorot))
    widths = [layer["weight"].shape[0] for layer in problem.params]
    assert widths == [784, 1000, 500, 250, 30, 250, 500, 1000]


def test_glorot_fills_its_bounds_and_follows_its_seed():
    (layer,) = glorot([300, 200], seed=4)
    bound = np.sqrt(6 / 500)
    assert 0.99 * bound < np.max(np.abs(layer["weight"])) <= bound
    assert np.std(layer["weight"]) == pytest.approx(bound / np.sqrt(3), rel=0.01)
    np.testing.assert_array_equal(layer["bias"], 0)
    np.testing.assert_array_equal(layer["weight"], glorot([300, 200], seed=4)[0]["weight"])
    assert not np.array_equal(layer["weight"], glorot([300, 200], seed=5)[0]["weight"])


def test_sparse_gives_each_unit_fifteen_weights():
    first, second = sparse([40, 30, 8], seed=0, bias=0.5)
    np.testing.assert_array_equal(np.count_nonzero(first["weight"], axis=0), 15)
    np.testing.assert_array_equal(np.count_nonzero(second["weight"], axis=0), 15)
    np.testing.assert_array_equal(first["bias"], 0.5)
    weights = first["weight"][first["weight"] != 0]
    assert np.std(weights) == pytest.approx(1, rel=0.1)
    (narrow,) = sparse([4, 3], seed=0)
    assert np.count_nonzero(narrow["weight"]) == 12


def test_dtype_is_kept_throughout():
    for problem in (
        mlp([4, 3, 2], dtype=np.float32),
        autoencoder((4, 3), dtype=np.float32),
        logistic_regression(4, l2=0.1, dtype=np.float32),
    ):
        assert {leaf.dtype for leaf in optree.tree_leaves(problem.params)} == {np.dtype("f4")}
        outputs = problem.model(problem.params, np.ones((3, 4), "f4"))
        assert outputs.dtype == np.float32
        targets = np.ones(3, "f4") if outputs.ndim == 1 else np.zeros_like(outputs)
        assert problem.loss(outputs, targets).dtype == np.float32


def test_networks_reject_what_they_do_not_know():
    with pytest.raises(ValueError, match=r"no activation 'relu6'.*tanh"):
        mlp([4, 3, 2], activation="relu6")
    with pytest.raises(ValueError, match="two or more positive"):
        mlp([4])
    with pytest.raises(ValueError, match="no loss 'l1'"):
        autoencoder(loss="l1")
    with pytest.raises(ValueError, match="takes logits; leave outputs='linear'"):
        autoencoder(outputs="sigmoid")
