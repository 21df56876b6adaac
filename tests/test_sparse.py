"""Constant linear operators: right on every backend, never dense, and as few products as can be."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import osculant
from osculant import linear_operator, multicomplex
from osculant.backends import framework
from osculant.core.arrays import Array, namespace
from osculant.problems import (
    batches,
    libsvm,
    load_libsvm,
    logistic_regression,
    squared_hinge_svm,
)

RNG = np.random.default_rng(0)
S = sp.csr_array(sp.random_array((6, 4), density=0.5, rng=np.random.default_rng(1)))
D = S.toarray()
X, V = 0.3 * RNG.standard_normal(4), RNG.standard_normal((4, 3))
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


def model(x: Array, A: Any) -> Array:
    """Return exp(A x) + (x A')^3: every way to multiply that all backends have."""
    z, w = A @ x, x @ A.T
    return namespace(z).exp(z) + w**3


def total(x: Array, A: Any) -> Array:
    y = model(x, A)
    return namespace(y).sum(y)


def raw_of(like: Array, matrix: sp.csr_array) -> Any:
    """Return what a user has who never heard of operators."""
    if framework(like) == "numpy":
        return matrix.astype(like.dtype)
    if framework(like) == "torch":
        import torch

        coo = matrix.tocoo()
        entries = torch.tensor(coo.data).to(like.dtype)
        return torch.sparse_coo_tensor(
            np.stack([coo.row, coo.col]), entries, matrix.shape, check_invariants=True
        )
    from jax.experimental.sparse import BCOO

    return BCOO.from_scipy_sparse(matrix.astype(like.dtype))


def bcsr_of(like: Array, matrix: sp.csr_array) -> Any:
    if framework(like) != "jax":
        pytest.skip("BCSR is JAX's")
    from jax.experimental.sparse import BCSR

    return linear_operator(BCSR.from_scipy_sparse(matrix.astype(like.dtype)))


def pair_of(like: Array, matrix: sp.csr_array) -> Any:
    dense = namespace(like).asarray(matrix.toarray(), dtype=like.dtype)
    return linear_operator((lambda x: dense @ x, lambda u: dense.T @ u), shape=matrix.shape)


FORMS = {
    "raw": raw_of,
    "wrapped": lambda like, matrix: linear_operator(raw_of(like, matrix)),
    "converted": lambda like, matrix: linear_operator(matrix, like=like),
    "dense": lambda like, matrix: linear_operator(
        namespace(like).asarray(matrix.toarray(), dtype=like.dtype)
    ),
    "pair": pair_of,
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Any:
    return FORMS[request.param]


# Values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_product_equals_the_dense_one(backend: Any, form: Any, dtype: str) -> None:
    x, W = (backend.from_numpy(a.astype(dtype)) for a in (X, V))
    A, dense = form(x, S), backend.from_numpy(D.astype(dtype))

    def loss(y: Array) -> Array:
        return (y**4).sum()

    def at(A: Any) -> Any:
        # The last of the data is the loss's.
        return osculant.oracle(model=model, loss=lambda y, _: loss(y), params=x).at(x, A, x)

    pt, ref = at(A), at(dense)
    for name, product in {
        "value": lambda pt: pt.value,
        "grad": lambda pt: pt.grad,
        "hvp": lambda pt: pt.hvp(W),
        "hvp of one": lambda pt: pt.hvp(W[:, 0]),
        "ggn": lambda pt: pt.ggn(W),
        "vgv": lambda pt: pt.vgv(W),
        "jvp": lambda pt: pt.jvp(W),
        "vjp": lambda pt: pt.vjp(pt.outputs),
        "third": lambda pt: pt.third(W),
        "taylor": lambda pt: pt.taylor(W[:, 0], 4)[4],
    }.items():
        found, expected = product(pt), product(ref)
        assert found.dtype == x.dtype
        found, expected = backend.to_numpy(found), backend.to_numpy(expected)
        np.testing.assert_allclose(
            found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], err_msg=name
        )


@pytest.mark.parametrize("form", [*FORMS.values(), bcsr_of], ids=[*FORMS, "bcsr"])
@pytest.mark.parametrize("products", ["complex-step", "finite-difference"])
def test_strategies(backend: Any, form: Any, products: str) -> None:
    x, W = backend.from_numpy(X), backend.from_numpy(V)
    expected = osculant.oracle(total, X).at(X, D)
    pt = osculant.oracle(total, x, products=products).at(x, form(x, S))
    rtol = 1e-12 if products == "complex-step" else 1e-5
    np.testing.assert_allclose(backend.to_numpy(pt.grad), expected.grad, rtol=rtol)
    np.testing.assert_allclose(backend.to_numpy(pt.hvp(W)), expected.hvp(V), rtol=rtol, atol=rtol)


def test_a_complex_step_through_bcsr() -> None:
    """Left to itself, JAX's product with a complex vector drops the imaginary part."""
    sparse = pytest.importorskip("jax.experimental.sparse")
    x = osculant.backends.get("jax").from_numpy(X)
    A = sparse.BCSR.from_scipy_sparse(S)
    composite = {"model": lambda x, A: A @ x, "loss": lambda z, _: (z**4).sum(), "params": x}
    pt = osculant.oracle(**composite, products="complex-step").at(x, A, x)
    np.testing.assert_allclose(
        np.asarray(pt.jvp(pt.oracle.structure.xp.asarray(V))), D @ V, rtol=1e-12
    )


def test_what_is_real_stays_real_in_a_complex_step() -> None:
    def real(product: Any) -> Any:
        def checked(x: Array) -> Array:
            assert x.dtype == np.float64
            return product(x)

        return checked

    A = linear_operator((real(lambda x: S @ x), real(lambda u: S.T @ u)), shape=S.shape)
    pt = osculant.oracle(total, X, products="complex-step").at(X, A)
    np.testing.assert_allclose(
        pt.hvp(V), osculant.oracle(total, X).at(X, D).hvp(V), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(
    "product",
    [
        lambda x: S @ x,
        lambda x: S.tocoo() @ x,
        lambda x: S.T.T @ x,
        lambda x: S.dot(x),
        lambda x: x @ S.T,
        lambda x: (S @ x[:, None])[:, 0],
        lambda x: (S @ np.stack([x, x * x], axis=1))[:, 0],
        lambda x: (np.stack([x, x * x]) @ S.T)[0],
        lambda x: sp.csr_matrix(S) @ x,
        lambda x: sp.csr_matrix(S) * x,
        lambda x: linear_operator(aslinearoperator(S)) @ x,
        lambda x: x @ linear_operator(S).T,
    ],
)
def test_scipy_sparse_as_it_is_written(product: Any) -> None:
    def fun(x: Array) -> Array:
        return np.sum(np.exp(product(x)))

    oracle, v = osculant.oracle(fun, X), V[:, 0]
    pt, ref = oracle.at(X), osculant.oracle(lambda x: np.sum(np.exp(D @ x)), X).at(X)
    np.testing.assert_allclose(oracle.value(X), ref.value, rtol=1e-14)
    for name in ("hvp", "third"):
        found, expected = (getattr(p, name)(v) for p in (pt, ref))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(multicomplex.derivative(fun, X, v, v), v @ ref.hvp(v), rtol=1e-12)


def test_a_users_gradient_with_sparse_data() -> None:
    def fun(x: Array, A: Any) -> float:
        return float(np.sum(np.exp(A @ x)))

    def grad(x: Array, A: Any) -> Array:
        return A.T @ np.exp(A @ x)

    oracle = osculant.oracle(fun, X, grad=grad, products="complex-step")
    H = D.T @ (np.exp(D @ X)[:, None] * D)
    np.testing.assert_allclose(oracle.at(X, S).hvp(V), H @ V, rtol=1e-12, atol=1e-14)


# Cost --------------------------------------------------------------------------------------


class Counter:
    """A sparse matrix that counts its products."""

    def __init__(self, like: Array) -> None:
        self.count = 0
        matrix = linear_operator(S, like=like)
        self.operator = linear_operator(
            (
                lambda x: self._counted(matrix.matrix, x),
                lambda u: self._counted(matrix.T.matrix, u),
            ),
            shape=S.shape,
        )

    def _counted(self, matrix: Any, x: Array) -> Array:
        self.count += 1
        return matrix @ x

    def of(self, evaluation: Any) -> int:
        before = self.count
        evaluation()
        return self.count - before


def logistic(x: Array, A: Any, y: Array) -> Array:
    margins = y * (A @ x)
    xp = namespace(margins)
    return xp.mean(xp.logaddexp(-margins, xp.zeros_like(margins)))


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_a_gradient_costs_two_sparse_products_and_a_hessian_product_two_more(name: str) -> None:
    pytest.importorskip(name)
    backend = osculant.backends.get(name)
    x, y, v = (backend.from_numpy(a) for a in (X, np.sign(D @ X + 0.1), V[:, 0]))
    counter = Counter(x)
    oracle = osculant.oracle(logistic, x)
    assert counter.of(lambda: oracle.value(x, counter.operator, y)) == 1
    points = []
    assert counter.of(lambda: points.append(oracle.at(x, counter.operator, y))) == 1
    assert counter.of(lambda: points[0].grad) == 1
    for _ in range(2):
        assert counter.of(lambda: points[0].hvp(v)) == 2


def test_gauss_newton_costs_two_sparse_products() -> None:
    counter = Counter(X)
    oracle = osculant.oracle(
        model=lambda x, A: A @ x, loss=lambda z, y: ((z - y) ** 4).sum(), params=X
    )
    pt, v = oracle.at(X, counter.operator, D @ V[:, 0]), V[:, 0]
    assert counter.of(lambda: pt.vgv(v)) == 1
    assert counter.of(lambda: pt.ggn(v)) == 2


def test_a_complex_step_costs_four_products_of_the_two_parts() -> None:
    counter, y = Counter(X), np.sign(D @ X + 0.1)
    pt = osculant.oracle(logistic, X, products="complex-step").at(X, counter.operator, y)
    assert counter.of(lambda: pt.hvp(V[:, 0])) == 4


def test_nothing_is_made_dense(backend: Any, form: Any, request: Any) -> None:
    """The dense matrix would take 320 GB."""
    if request.node.callspec.params["form"] in ("dense", "pair"):
        pytest.skip("the test itself makes these dense")
    m, n = 200_000, 200_000
    rows, columns = np.arange(m), (np.arange(m) * 7919) % n
    matrix = sp.csr_array((np.ones(m), (rows, columns)), shape=(m, n))
    x = backend.from_numpy(np.linspace(-1.0, 1.0, n))
    pt = osculant.oracle(total, x).at(x, form(x, matrix))
    expected = np.zeros(n)  # each column has one entry
    z = np.linspace(-1.0, 1.0, n)
    expected[columns] = (np.exp(z) + 3 * z**2)[columns]
    np.testing.assert_allclose(backend.to_numpy(pt.grad), expected, rtol=1e-12)
    np.testing.assert_allclose(
        backend.to_numpy(pt.hvp(x)), (np.exp(z) + 6 * z) * z, rtol=1e-12, atol=1e-12
    )


def test_memory_is_that_of_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("made dense")

    for name in ("toarray", "todense"):
        monkeypatch.setattr(type(S), name, refused)
    matrix = sp.csr_array(sp.random_array((3000, 2000), density=1e-3, rng=RNG))
    x = RNG.standard_normal(2000)
    y, oracle = np.sign(RNG.standard_normal(3000)), osculant.oracle(logistic, x)
    tracemalloc.start()
    try:
        pt = oracle.at(x, matrix, y)
        pt.hvp(pt.grad)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * 3000 * 8 < 3000 * 2000 * 8 / 10


# Solvers and problems ----------------------------------------------------------------------


def test_data_of_a_compiled_run(backend: Any, form: Any) -> None:
    x, y = backend.from_numpy(0 * X), backend.from_numpy(np.array([1.0, -1, 1, 1, -1, 1]))

    def fun(x: Array, A: Any, y: Array) -> Array:
        return logistic(x, A, y) + 0.05 * (x * x).sum()

    found = osculant.minimize(fun, x, args=(form(x, S), y), method="lbfgs", tol=1e-8)
    dense = osculant.minimize(fun, 0 * X, args=(D, backend.to_numpy(y)), method="lbfgs", tol=1e-8)
    assert found.success and dense.success
    np.testing.assert_allclose(backend.to_numpy(found.x), dense.x, rtol=1e-6, atol=1e-7)


def test_an_operator_is_an_argument_of_what_jax_compiles() -> None:
    jax = pytest.importorskip("jax")
    traced = []

    @jax.jit
    def product(A: Any, x: Array) -> Array:
        traced.append(A)
        return A @ x

    x = jax.numpy.asarray(X)
    for scale in (1.0, 2.0):
        A = linear_operator(scale * S, like=x)
        np.testing.assert_allclose(product(A, x), scale * D @ X, rtol=1e-12)
    assert len(traced) == 1


@pytest.mark.parametrize("make", [logistic_regression, squared_hinge_svm])
def test_linear_classifiers_take_sparse_inputs(backend: Any, make: Any) -> None:
    problem = make(4, l2=0.1)
    x, y = backend.from_numpy(X), backend.from_numpy(np.sign(D @ X + 0.1))
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=x)
    pt, ref = (
        oracle.at(x, inputs, y) for inputs in (linear_operator(S, like=x), backend.from_numpy(D))
    )
    v = backend.from_numpy(V[:, 0])
    for name in ("hvp", "ggn"):
        found, expected = (backend.to_numpy(getattr(p, name)(v)) for p in (pt, ref))
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_mini_batches_of_a_sparse_file(tmp_path: Any) -> None:
    lines = [f"{1 + k % 2} {1 + k % 3}:{0.5 + k} {4 + k % 2}:-1" for k in range(40)]
    (tmp_path / "data").write_text("\n".join(lines))
    runs = []
    for dense in (False, True):
        data = libsvm(tmp_path, "data", dense=dense)
        assert sp.issparse(data.train.inputs) != dense
        problem = logistic_regression(5, l2=1e-2)
        oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=problem.params)
        runs.append(osculant.fit(oracle, problem.params, batches(data.train, 8), epochs=3).x)
    np.testing.assert_allclose(*runs, rtol=1e-10)


def test_a9a_stays_sparse(real_data: Any) -> None:
    inputs, targets = load_libsvm(real_data / "a9a", n_features=123)
    assert sp.issparse(inputs) and inputs.shape[1] == 123
    problem = logistic_regression(123, l2=1e-4)
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=problem.params)
    found = [
        oracle.at(0.01 * np.arange(123.0), data, targets) for data in (inputs, inputs.toarray())
    ]
    np.testing.assert_allclose(*(pt.hvp(pt.grad) for pt in found), rtol=1e-10)


# Errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: S * x, "would lose its derivative"),
        (lambda x: S.multiply(x), "would lose its derivative"),
        (lambda x: x * S.T, "write x @ A"),
        (lambda x: aslinearoperator(S) @ x, "osculant.linear_operator"),
        (lambda x: np.asarray(x), "would lose its derivative"),
    ],
)
def test_what_has_no_rule_says_so(function: Any, message: str) -> None:
    with pytest.raises(osculant.NotDifferentiable, match=message):
        osculant.oracle(lambda x: function(x).sum(), X).at(X)


def test_nothing_is_converted_between_frameworks() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"is of numpy, .* array of torch; .* like=x"):
        linear_operator(S) @ torch.ones(4, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"is of torch, .* array of numpy"):
        linear_operator(S, like=torch.ones(4)) @ X


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: linear_operator(S) @ np.ones(5), ValueError, r"\(6, 4\) .* shape \(5,\)"),
        (lambda: linear_operator(S) @ np.ones((4, 1, 1)), ValueError, r"shape \(4, 1, 1\)"),
        (lambda: linear_operator(S) @ [1.0] * 4, TypeError, "not a list"),
        (lambda: linear_operator(1j * S), TypeError, "complex128; real ones only"),
        (lambda: linear_operator(1j * D), TypeError, "complex128; real ones only"),
        (lambda: linear_operator(np.ones(3)), ValueError, r"two axes, .* \(3,\)"),
        (lambda: linear_operator(sp.coo_array(np.ones(3))), ValueError, r"two axes, .* \(3,\)"),
        (lambda: linear_operator((abs, abs)), ValueError, "needs its shape"),
        (lambda: linear_operator(S, shape=(6, 4)), TypeError, "belongs to a pair"),
        (lambda: linear_operator("A"), TypeError, "a str is no linear operator"),
        (lambda: linear_operator(D, like=X), TypeError, "of scipy.sparse, not a ndarray"),
    ],
)
def test_bad_arguments(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_an_operator_without_its_transpose_has_values_only() -> None:
    A = linear_operator(LinearOperator(S.shape, matvec=lambda x: S @ x, dtype=np.float64))
    oracle = osculant.oracle(lambda x: ((A @ x) ** 2).sum(), X)
    np.testing.assert_allclose(oracle.value(X), np.sum((D @ X) ** 2))
    with pytest.raises(NotImplementedError):
        _ = oracle.at(X).grad
