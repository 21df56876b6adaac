"""Third-order products and Taylor terms on every backend; their laws are in the conformance kit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import osculant
from osculant import NotDifferentiable, ProductUnavailable
from osculant.core.arrays import namespace
from osculant.core.oracle import HESSIAN_PRODUCTS, Oracle, Point, Product
from osculant.core.structure import Structure
from osculant.testing.subject import to_numpy
from osculant.testing.support import BACKENDS, Support

PRESENT = [support for support in BACKENDS if support.missing() is None]
X, V, W = np.array([0.4, -0.7, 1.1]), np.array([1.0, 0.5, -2.0]), np.array([0.3, -1.0, 0.6])


def kinked(x: Any, a: Any) -> Any:
    """Return a function of every kind of primitive, with kinks elsewhere."""
    xp = namespace(x)
    smooth = xp.exp(xp.sum(x * a)) + xp.sum(xp.tanh(x) * xp.log(x + 2.0))
    pieces = xp.max(x) ** 3 + xp.sum(xp.abs(x) ** 3) + xp.sum(xp.where(x > 0.0, x**3, x**2))
    return smooth + pieces + xp.sum(xp.maximum(x**3, -x))


def kinked_third() -> np.ndarray:
    """Return D^3 of :func:`kinked` at X, with a = X."""
    t, y = np.tanh(X), X + 2
    slope, bend, jerk = 1 - t**2, -2 * t * (1 - t**2), (1 - t**2) * (6 * t**2 - 2)
    entries = jerk * np.log(y) + 3 * bend / y - 3 * slope / y**2 + 2 * t / y**3
    entries += 6.0 * (X.max() == X) + 6.0 * np.sign(X) + 6.0 * (X > 0) + 6.0 * (X**3 > -X)
    third = np.exp(X @ X) * np.einsum("i,j,k->ijk", X, X, X)
    np.einsum("iii->i", third)[...] += entries
    return third


@pytest.fixture(params=PRESENT, ids=str)
def support(request: pytest.FixtureRequest) -> Any:
    with request.param.context():
        yield request.param


def at(support: Support, dtype: str = "float64") -> tuple[Point, Any, Any]:
    x, v, w = (support.convert(array.astype(dtype)) for array in (X, V, W))
    return osculant.oracle(kinked, x).at(x, x), v, w


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-13)])
def test_third_is_its_closed_form(support: Support, dtype: str, tolerance: float) -> None:
    point, v, w = at(support, dtype)
    T = kinked_third()
    scale = np.abs(T).max()

    def close(found: Any, expected: Any) -> None:
        assert found.dtype == v.dtype
        np.testing.assert_allclose(to_numpy(found), expected, atol=tolerance * scale)

    close(point.third(v), np.einsum("ijk,i,j,k", T, V, V, V))
    close(point.dhvp(v, w), np.einsum("ijk,i,j->k", T, V, W))
    both = namespace(v).stack([v, w], axis=1)
    close(point.third(both), [np.einsum("ijk,i,j,k", T, u, u, u) for u in (V, W)])
    close(point.dhvp(w, both), np.stack([np.einsum("ijk,i,j->k", T, W, u) for u in (V, W)], 1))


@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_the_length_of_the_direction_does_not_matter(support: Support, size: float) -> None:
    point, v, w = at(support)
    wanted = to_numpy(point.dhvp(v, w)) * size
    np.testing.assert_allclose(to_numpy(point.dhvp(v * size, w)), wanted, rtol=1e-12)


@pytest.mark.parametrize("order", range(7))
def test_taylor_of_an_exponential(support: Support, order: int) -> None:
    x, v = support.convert(X), support.convert(V)
    point = osculant.oracle(lambda x: namespace(x).exp(namespace(x).sum(x)), x).at(x)
    found = [float(term) for term in point.taylor(v, order)]
    expected = [np.exp(X.sum()) * V.sum() ** k for k in range(order + 1)]
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_taylor_terms_predict(support: Support) -> None:
    """The polynomial of order 5 is off by O(t^6)."""
    point, v, _ = at(support)
    terms = [float(term) for term in point.taylor(v, 5)]

    def gap(t: float) -> float:
        x = support.convert(X)
        moved = support.convert(X + t * V)
        exact = float(osculant.oracle(kinked, x).value(moved, x))
        return abs(exact - sum(term * t**k / math.factorial(k) for k, term in enumerate(terms)))

    assert 45 < gap(0.04) / gap(0.02) < 80  # 2^6


def test_derivatives_of_a_quadratic_vanish(support: Support) -> None:
    x, v = support.convert(X), support.convert(V)
    point = osculant.oracle(lambda x: namespace(x).sum(x * x), x).at(x)
    assert float(point.third(v)) == 0 and not np.any(to_numpy(point.dhvp(v, v)))
    assert [float(term) for term in point.taylor(v, 5)[3:]] == [0, 0, 0]


def test_it_works_for_compositions_of_trees(support: Support) -> None:
    params = {"b": support.convert(X[:1]), "w": support.convert(X[1:])}
    data = (
        support.convert(np.array([[1.0, 2.0], [0.5, -1.0]])),
        support.convert(np.array([0.1, 0.4])),
    )

    def model(params: Any, inputs: Any) -> Any:
        xp = namespace(params["w"])
        return xp.sin(xp.matmul(inputs, params["w"]) + params["b"])

    def loss(outputs: Any, targets: Any) -> Any:
        return namespace(outputs).sum((outputs - targets) ** 2)

    def fun(params: Any, *data: Any) -> Any:
        return loss(model(params, data[0]), data[1])

    x, v = support.convert(X), support.convert(V)
    composed = osculant.oracle(model=model, loss=loss, params=params).at(x, *data)
    plain = osculant.oracle(fun, params).at(x, *data)
    np.testing.assert_allclose(
        to_numpy(composed.dhvp(v, v)), to_numpy(plain.dhvp(v, v)), rtol=1e-12
    )
    found, expected = composed.taylor(v, 5), plain.taylor(v, 5)
    np.testing.assert_allclose([*map(float, found)], [*map(float, expected)], rtol=1e-12)


def test_bad_arguments_are_refused(support: Support) -> None:
    point, v, w = at(support)
    both = namespace(v).stack([v, w], axis=1)
    for call in (
        lambda: point.dhvp(both, v),
        lambda: point.taylor(both),
        lambda: point.taylor(both, 5),
    ):
        with pytest.raises(ValueError, match="shape"):
            call()
    with pytest.raises(ValueError, match="order is -1"):
        point.taylor(v, -1)


def test_what_depends_on_v_alone_is_done_once() -> None:
    calls = []

    def fun(x: Any) -> Any:
        calls.append(1)
        return np.sum(np.exp(x) * np.sin(x))

    point = osculant.oracle(fun, X).at(X)
    _ = point.grad, point.hvp(V), len(calls)
    point.dhvp(V, np.stack([V, W, X], axis=1))
    assert len(calls) == 2
    point.taylor(V, 6)  # one forward pass
    assert len(calls) == 3


# An oracle without them ----------------------------------------------------------------------


class CubePoint(Point):
    def __init__(self, oracle: Oracle, x: np.ndarray) -> None:
        super().__init__(oracle)
        self.x = x.copy()

    @property
    def value(self) -> Any:
        return np.sum(self.x**3)

    @property
    def grad(self) -> Any:
        return 3 * self.x**2

    def _hvp(self, v: np.ndarray) -> Any:
        return 6 * self.x * v


class CubeOracle(Oracle):
    def at(self, x: np.ndarray, *data: Any) -> CubePoint:
        return CubePoint(self, x)

    def value(self, x: np.ndarray, *data: Any) -> Any:
        return np.sum(x**3)


def test_an_oracle_without_third_order_says_so() -> None:
    point = CubeOracle(Structure(X)).at(X)
    assert [float(term) for term in point.taylor(V, 2)] == pytest.approx(
        [np.sum(X**3), 3 * X**2 @ V, 6 * X * V @ V]
    )
    for call in (lambda: point.third(V), lambda: point.dhvp(V, V), lambda: point.taylor(V)):
        with pytest.raises(
            ProductUnavailable, match=r"CubeOracle has no third; .*It has: grad, hvp"
        ):
            call()


def test_an_oracle_with_third_order_may_stop_there() -> None:
    class Third(CubePoint):
        def _third(self, v: np.ndarray) -> Any:
            return lambda w: 6 * v * w

    oracle = CubeOracle(Structure(X))
    oracle.products = HESSIAN_PRODUCTS | {Product.THIRD}
    point = Third(oracle, X)
    assert float(point.taylor(V)[3]) == pytest.approx(6 * np.sum(V**3))
    with pytest.raises(ProductUnavailable, match="has no third to order 4"):
        point.taylor(V, 4)


# Of single backends --------------------------------------------------------------------------


def test_torch_refuses_what_it_cannot_differentiate_again() -> None:
    torch = pytest.importorskip("torch")

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return Twice.apply(x) * g

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return 2 * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            return 2 * g

    x, v = torch.asarray(X), torch.asarray(V)
    point = osculant.oracle(lambda x: torch.sum(Square.apply(x) * x), x).at(x)
    np.testing.assert_allclose(to_numpy(point.hvp(v)), 6 * X * V)
    with pytest.raises(NotDifferentiable, match="once_differentiable"):
        point.third(v)


def test_torch_differentiates_in_any_mode() -> None:
    torch = pytest.importorskip("torch")
    x, v = torch.asarray(X), torch.asarray(V)
    point = osculant.oracle(lambda x: torch.sum(x**4), x).at(x)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert float(point.third(v)) == pytest.approx(24 * X @ V**3)
            assert float(point.taylor(v, 4)[4]) == pytest.approx(24 * np.sum(V**4))
    assert not point.third(v).requires_grad and not point.taylor(v, 4)[4].requires_grad


def test_jax_compiles_them() -> None:
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        x, v = jax.numpy.asarray(X), jax.numpy.asarray(V)
        oracle = osculant.oracle(lambda x: (x**4).sum(), x)
        found = jax.jit(lambda x, v: (oracle.at(x).third(v), oracle.at(x).taylor(v, 4)[4]))(x, v)
    assert [float(term) for term in found] == pytest.approx([24 * X @ V**3, 24 * np.sum(V**4)])
