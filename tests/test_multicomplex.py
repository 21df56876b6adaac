"""Multicomplex arrays: accuracy, every primitive, every namespace, cost, and what they refuse."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import optree
import pytest

from osculant import NotDifferentiable, multicomplex
from osculant.backends.multicomplex import Multicomplex, derivative, step, taylor
from osculant.backends.multicomplex.formulas import _COMPOSED, _HALVES
from osculant.backends.tape.elementwise import ELEMENTWISE
from osculant.backends.tape.oracle import TapeOracle
from osculant.backends.tape.record import FUNCTIONS
from osculant.core.arrays import namespace
from osculant.core.oracle import Objective, Product
from osculant.core.structure import Structure
from osculant.testing import SCENARIOS, Scenario
from osculant.testing.support import BACKENDS, Support

FIGURE = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "complex_step_error.py"))
classical, relative_error, SCHEMES = (FIGURE[name] for name in ("f", "relative_error", "SCHEMES"))
EPS = 2.0**-52
STEPS = [10.0**-k for k in range(8, 101)]


# Accuracy ------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", ["complex", "multicomplex"])
def test_precision_is_reached_and_kept(order: int, name: str) -> None:
    scheme = SCHEMES[order][name]
    assert max(relative_error(order, scheme, h) for h in STEPS) <= 4 * EPS


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", ["forward", "central"])
def test_differences_lose_it(order: int, name: str) -> None:
    assert min(relative_error(order, SCHEMES[order][name], h) for h in STEPS) > 1e6 * EPS


def idempotent(h: float) -> float:
    """Return f'' by the idempotent representation of x + (i1 + i2) h, whose components subtract."""
    x = 1.5
    return float(np.real(classical(x) - classical(x + 2j * h))) / (2 * h**2)


def test_the_idempotent_representation_loses_it() -> None:
    assert relative_error(2, idempotent, 1e-3) < 1e-4  # it is the same algebra
    assert min(relative_error(2, idempotent, h) for h in STEPS) > 1e6 * EPS


@pytest.mark.parametrize("order", [1, 2])
def test_the_error_is_of_second_order_in_the_step(order: int) -> None:
    scheme = SCHEMES[order]["multicomplex"]
    assert 3.5 < relative_error(order, scheme, 2e-2) / relative_error(order, scheme, 1e-2) < 4.5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_order_that_the_default_step_allows(dtype: str) -> None:
    highest = {"float32": 4, "float64": 6}[dtype]
    x, v = np.array(0.3, dtype), np.array(0.5, dtype)
    found = taylor(lambda x: np.exp(2 * x), x, v, highest)
    np.testing.assert_allclose(
        found,
        np.full(highest + 1, np.exp(np.float64(2 * x))),
        rtol=3e-6 if dtype == "float32" else 3e-15,
    )
    assert all(d.dtype == x.dtype for d in found)


def test_orders_without_a_step_are_refused() -> None:
    assert step(np.ones(()), 1) == 2.0**-100 and step(np.ones((), np.float32), 3) == 2.0**-21
    assert step(np.ones(()), 18) ** 36 >= np.finfo(float).tiny
    for dtype, order in (("float32", 5), ("float64", 19)):
        with pytest.raises(ValueError, match=f"no step is small enough .* order {order}"):
            step(np.ones((), dtype), order)


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e5, 1e30])
def test_long_and_short_directions_are_scaled(size: float) -> None:
    x, v = np.array([0.5, -1.0], np.float32), np.array([3.0, -1.0], np.float32)
    size = np.float32(size)
    unit = derivative(lambda x: np.sum(np.exp(x)), x, v)
    found = derivative(lambda x: np.sum(np.exp(x)), x, v * size)
    np.testing.assert_allclose(found, unit * size, rtol=1e-6)


def test_a_zero_direction_and_a_constant_have_derivative_zero() -> None:
    x = np.array([0.5, -1.0])
    assert derivative(lambda x: np.sum(np.sin(x)), x, 0 * x, x) == 0
    assert derivative(lambda x: np.ones(()), x, x, x) == 0
    assert not np.isfinite(derivative(lambda x: np.sum(x * x), x, x * np.nan))


def test_results_are_promoted_with_their_value() -> None:
    x = np.array([0.5, -1.0], np.float32)
    found = taylor(lambda x: np.sum(x + np.ones(2)), x, x, 2)
    assert [d.dtype for d in found] == [np.float64] * 3


# The algebra, for steps so long that every term of a product counts --------------------------

FUNCTIONS_OF_COMPLEX = {name: getattr(np, name) for name in _HALVES if hasattr(np, name)}
FUNCTIONS_OF_COMPLEX |= {"atan": np.arctan, "log1p": lambda z: np.log(1 + z), "square": np.square}
FUNCTIONS_OF_COMPLEX |= {"asin": np.arcsin, "acos": np.arccos, "atanh": np.arctanh}
FUNCTIONS_OF_COMPLEX |= {"asinh": np.arcsinh, "multiply": lambda z: z * np.exp(z)}


def own(name: str, z: Any) -> Any:
    return z * np.exp(z) if name == "multiply" else FUNCTIONS[name](z)


@pytest.mark.parametrize("name", FUNCTIONS_OF_COMPLEX)
@pytest.mark.parametrize("a", [0.3, 0.6])
def test_order_one_is_complex(name: str, a: float) -> None:
    z = Multicomplex((np.array(a), np.array(0.2)))
    expected = FUNCTIONS_OF_COMPLEX[name](a + 0.2j)
    np.testing.assert_allclose(own(name, z).parts, [expected.real, expected.imag], rtol=1e-13)


@pytest.mark.parametrize("name", FUNCTIONS_OF_COMPLEX)
def test_order_two_is_bicomplex(name: str) -> None:
    """By the idempotent representation, which does no harm where the parts are of one size.

    f(u + i2 w) is the sum of e f(u -+ i1 w) over the two e = (1 +- i1 i2) / 2, with e e = e.
    """
    parts = 0.5, 0.1, 0.2, 0.15  # of 1, i1, i2, i1 i2
    u, w = complex(*parts[:2]), complex(*parts[2:])
    minus, plus = (FUNCTIONS_OF_COMPLEX[name](u + sign * 1j * w) for sign in (-1, 1))
    real, imaginary = (minus + plus) / 2, 1j * (minus - plus) / 2
    expected = [real.real, real.imag, imaginary.real, imaginary.imag]
    found = own(name, Multicomplex(tuple(map(np.array, parts))))
    np.testing.assert_allclose(found.parts, expected, rtol=1e-12)


# Every primitive -----------------------------------------------------------------------------

DOMAINS = {"acosh": (1.2, 3.0), "remainder": (1.3, 1.9)}
UNARY = [name for name, row in ELEMENTWISE.items() if len(row.d1) == 1]
BINARY = [name for name, row in ELEMENTWISE.items() if len(row.d1) == 2]


def test_every_elementwise_row_of_the_tape_has_a_formula() -> None:
    assert set(_HALVES) | set(_COMPOSED) == set(ELEMENTWISE)


def by_tape(fun: Any, params: Any) -> Any:
    structure = Structure(params)
    return TapeOracle(Objective(fun=fun), structure).at(structure.ravel(params))


@pytest.mark.parametrize("name", UNARY + BINARY)
def test_elementwise_functions_agree_with_the_tape(name: str) -> None:
    """To second order with its formulas; to third with differences of these."""
    rng = np.random.default_rng(1)
    count = 1 if name in UNARY else 2
    params = [rng.uniform(*DOMAINS.get(name, (0.2, 0.9)), (5,)) for _ in range(count)]
    u, v, w = ([rng.standard_normal(5) for _ in params] for _ in range(3))

    def fun(params: Any) -> Any:
        return np.sum(FUNCTIONS[name](*params))

    def curvature(t: float) -> Any:
        moved = [p + t * d for p, d in zip(params, w, strict=True)]
        return np.dot(np.concatenate(u), by_tape(fun, moved).hvp(np.concatenate(v)))

    h = 1e-4
    third = (8 * (curvature(h) - curvature(-h)) - curvature(2 * h) + curvature(-2 * h)) / (12 * h)
    point = by_tape(fun, params)
    scale = max(1.0, abs(curvature(0.0)), abs(third))
    np.testing.assert_allclose(
        derivative(fun, params, u), point.grad @ np.concatenate(u), rtol=1e-13
    )
    np.testing.assert_allclose(derivative(fun, params, u, v), curvature(0.0), atol=1e-13 * scale)
    np.testing.assert_allclose(derivative(fun, params, u, v, w), third, atol=1e-8 * scale)
    same = derivative(fun, params, u, u, u)
    copies = derivative(fun, params, u, [d.copy() for d in u], [d.copy() for d in u])
    np.testing.assert_allclose(same, copies, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("constant", [0, 1])
@pytest.mark.parametrize("xp", [np, array_api_strict])
def test_one_argument_may_be_constant(name: str, constant: int, xp: Any) -> None:
    args = [xp.asarray([1.3, 1.6]), xp.asarray([0.7, 0.4])]

    def fun(x: Any) -> Any:
        given = [args[0], x] if constant == 0 else [x, args[1]]
        return namespace(x).sum(FUNCTIONS[name](*given))

    x, v = args[1 - constant], xp.asarray([1.0, -2.0])
    found, expected = derivative(fun, x, v, v), by_tape(fun, x).vhv(v)
    assert float(found) == pytest.approx(float(expected), abs=1e-13)


@pytest.mark.parametrize("name", UNARY)
def test_higher_orders_on_a_strict_namespace(name: str) -> None:
    x = 1.5 if name == "acosh" else 0.5
    strict, plain = (
        taylor(FUNCTIONS[name], xp.asarray(x), xp.asarray(1.0), 5) for xp in (array_api_strict, np)
    )
    np.testing.assert_allclose([float(d) for d in strict], plain, rtol=1e-12)


PROGRAMS = {
    "tanh far out": lambda x: np.sum(np.tanh(20 * x)) + np.sum(np.tanh(0 * x)),
    "negative base": lambda x: np.sum((x - 2) ** 3 + (x - 2.0) ** -2),
    "zero base": lambda x: np.sum((x - x) ** 3 + (0 * x) ** 2),
    "array exponent": lambda x: np.sum(x ** np.array([0.5, 2.0, -1.5])),
    "prod": lambda x: np.prod(x) + np.prod(0 * x),
    "norm": lambda x: np.linalg.norm(x) + np.linalg.norm(x, 1) + np.linalg.norm(x, np.inf),
    "norm at zero": lambda x: np.linalg.norm(0 * x) + np.sum(x**2),
    "sorting": lambda x: np.sum(np.sort(x) * np.arange(3) ** 2) + np.max(x) * np.min(x),
    "branch": lambda x: x[0] ** 3 if x[0] > x[1] else x[1] ** 3,
    "clip": lambda x: np.sum(np.clip(x, 0.3, 0.5) ** 2) + np.sum(np.where(x > 0.35, x**3, x)),
    "logsumexp": lambda x: np.logaddexp(np.logaddexp(x[0], x[1]), 50 * x[2]),
    "broadcast": lambda x: np.sum((x[:1] + np.ones(3)) ** 2) + np.sum(x / np.ones((2, 3))),
    "products": lambda x: np.einsum("i,j,ij->", x, x, np.outer(x, x)) + x @ np.sin(x),
    "statistics": lambda x: np.var(x) + np.std(x) + np.mean(x) ** 2 + np.cumsum(x)[1] ** 2,
    "angles": lambda x: (
        np.arctan2(-x[0], x[1] - 1) + np.arctan2(x[2], -x[0]) + np.hypot(x[0], -x[1])
    ),
    "pieces": lambda x: np.sum(np.concatenate([x[::-1], x[:2]]) ** 2) + np.stack([x, x]).T[1, 0],
    "inv": lambda x: np.sum(np.linalg.inv(_matrix(x)) ** 2),
    "solve": lambda x: np.sum(np.linalg.solve(_matrix(x), x) ** 2),
    "solve of constants": lambda x: np.sum(np.linalg.solve(np.eye(3) * 2, x) ** 2),
    "det": lambda x: np.linalg.det(_matrix(x)),
    "slogdet": lambda x: np.linalg.slogdet(_matrix(x))[1],
    "cholesky": lambda x: np.sum(np.sin(np.linalg.cholesky(_matrix(x)))),
}


def _matrix(x: Any) -> Any:
    return np.outer(np.sin(x), np.exp(x)) + np.outer(np.exp(x), np.sin(x)) + 4 * np.eye(3)


@pytest.mark.parametrize("name", PROGRAMS)
def test_numpy_programs(name: str) -> None:
    fun, x = PROGRAMS[name], np.array([0.2, 0.7, 0.4])
    v, w = np.array([1.0, -0.5, 0.3]), np.array([0.2, 0.4, -1.0])
    point = by_tape(fun, x)
    assert derivative(fun, x, v) == pytest.approx(point.grad @ v, rel=1e-12, abs=1e-13)
    assert derivative(fun, x, v, w) == pytest.approx(v @ point.hvp(w), rel=1e-12, abs=1e-12)
    h = 1e-4
    ahead, behind, far, back = (by_tape(fun, x + t * v).vhv(w) for t in (h, -h, 2 * h, -2 * h))
    third = (8 * (ahead - behind) - far + back) / (12 * h)
    assert derivative(fun, x, v, w, w) == pytest.approx(third, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize(("name", "third"), [("tanh", -2), ("asinh", -1), ("atanh", 2)])
def test_odd_functions_at_zero(name: str, third: float) -> None:
    found = taylor(FUNCTIONS[name], np.array(0.0), np.array(1.0), 3)
    np.testing.assert_allclose(found, [0, 1, 0, third], atol=1e-15)


def test_tanh_is_accurate_where_it_is_flat() -> None:
    found = derivative(np.tanh, np.array(15.0), np.array(1.0))
    assert float(found) == pytest.approx(1 / np.cosh(15.0) ** 2, rel=1e-14, abs=0)


def test_logaddexp_of_infinities() -> None:
    x = np.array([1.0, 3.0])
    first = derivative(lambda x: np.logaddexp(x[0] - np.inf, x[1] - np.inf), x, x)
    assert float(first) == pytest.approx(2.0)


def test_ties_share_the_derivative() -> None:
    x, v = np.array([0.2, 0.7, 0.4]), np.array([1.0, -0.5, 0.3])

    def fun(x: Any) -> Any:
        return np.sum(np.maximum(x**2, 0.4**2) + 3 * np.minimum(x**3, 0.7**3))

    point = by_tape(fun, x)
    assert derivative(fun, x, v) == pytest.approx(point.grad @ v, rel=1e-13)
    assert derivative(fun, x, v, v) == pytest.approx(point.vhv(v), rel=1e-13)


# Every namespace -----------------------------------------------------------------------------

PRESENT = [support for support in BACKENDS if support.missing() is None]


@pytest.mark.parametrize("support", PRESENT, ids=str)
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scenarios_on_every_namespace(support: Support, scenario: Scenario, dtype: str) -> None:
    if scenario.name in support.excused:
        pytest.skip(support.excused[scenario.name])
    place, structure = scenario.here, Structure(scenario.params)
    v = np.random.default_rng(3).standard_normal(place.x.size)

    def convert(a: np.ndarray) -> Any:
        return support.convert(a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a)

    with support.context():
        params, data = optree.tree_map(convert, (place.params, place.data))
        direction = optree.tree_map(convert, structure.unravel(v))
        found = taylor(scenario.objective, params, direction, 2, data=data)
        dense = place.derivatives
        expected = [dense.value, dense.grad @ v, dense.apply(Product.VHV, v)]
        for number, wanted in zip(found, expected, strict=True):
            assert number.dtype == optree.tree_leaves(params)[0].dtype
            tolerance = 3e-5 if dtype == "float32" else 1e-10
            assert float(number) == pytest.approx(float(wanted), rel=tolerance, abs=tolerance)


def test_it_runs_compiled() -> None:
    jax = pytest.importorskip("jax")
    third = jax.jit(lambda x, v: derivative(lambda x: namespace(x).sum(x**4), x, v, v, v))
    x = jax.numpy.asarray([1.0, 2.0], dtype=jax.numpy.float32)
    assert float(third(x, x)) == pytest.approx(24 * 17, rel=1e-6)


def test_values_of_any_shape() -> None:
    x, v = np.array([1.0, 2.0]), np.array([1.0, -1.0])
    np.testing.assert_allclose(derivative(lambda x: np.outer(x, x), x, v, v), 2 * np.outer(v, v))


# Cost ----------------------------------------------------------------------------------------


class Counted(np.ndarray):
    """An array that counts the matrix products it takes part in."""

    products = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(a, Multicomplex) for a in inputs):
            return NotImplemented
        Counted.products += ufunc is np.matmul
        plain = [a.view(np.ndarray) if isinstance(a, Counted) else a for a in inputs]
        return np.asarray(getattr(ufunc, method)(*plain, **kwargs)).view(Counted)


def products(fun: Any, x: Any, *directions: Any) -> int:
    Counted.products = 0
    derivative(fun, x, *directions)
    return Counted.products


def test_cost_in_forward_passes() -> None:
    layers = 10
    X = np.ones((3, 4)).view(Counted)
    weights, v = ([np.full((4, 4), c).view(Counted) for _ in range(layers)] for c in (0.1, 1.0))
    w = [a + 0.0 for a in v]

    def network(weights: Any) -> Any:
        z = X
        for W in weights:
            z = np.tanh(z @ W)
        return np.sum(z * z)

    vhv = products(network, weights, v, v) / layers
    assert 5 < vhv <= 6  # of the 16 real products in a bicomplex one; the first layer has 2
    assert 11 < products(network, weights, v, w) / layers <= 12
    assert 2 * layers < products(network, weights, v) < 4 * layers  # a complex step
    assert math.isclose(vhv, (6 * (layers - 1) + 2) / layers)


# What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fun", "message"),
    [
        (lambda x: np.linalg.svd(x)[1], "linalg.svd has no"),
        (lambda x: np.fft.fft(x), "fft.fft has no"),
        (lambda x: np.imag(x), "imag has no"),
        (lambda x: float(x[0, 0]), r"float\(\) of a multicomplex array"),
        (lambda x: np.asarray(x), r"numpy.asarray\(\) of a multicomplex array"),
        (lambda x: np.ones(2)[x[0]], r"numpy.asarray\(\) of a multicomplex"),
        (lambda x: derivative(lambda y: np.sum(x * y), np.ones(2), np.ones(2)), "cannot be nested"),
    ],
)
def test_what_has_no_rule_is_named(fun: Any, message: str) -> None:
    x = np.eye(2)
    with pytest.raises(NotDifferentiable, match=message):
        derivative(fun, x, x, x)


def test_bad_arguments() -> None:
    x = np.ones(2)
    with pytest.raises(ValueError, match="at least one direction"):
        derivative(np.sum, x)
    with pytest.raises(ValueError, match="order is 0"):
        taylor(np.sum, x, x, 0)
    with pytest.raises(ValueError, match=r"step is 0\.0"):
        derivative(np.sum, x, x, h=0.0)
    with pytest.raises(ValueError, match="shape"):
        derivative(np.sum, x, np.ones(3))
    with pytest.raises(TypeError, match="dtype"):
        derivative(np.sum, x, x.astype(np.float32))
    with pytest.raises(TypeError, match="returned a float"):
        derivative(lambda x: 1.0, x, x)


def test_arguments_are_left_alone_and_results_are_new() -> None:
    x, v = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    found = derivative(lambda x: x, x, v)
    value, first = taylor(lambda x: x, x, v, 1)
    for array in (found, value, first):
        array[...] = 7.0
    np.testing.assert_array_equal(x, [1.0, 2.0])
    np.testing.assert_array_equal(v, [3.0, 4.0])


def test_it_is_public() -> None:
    assert multicomplex.derivative is derivative
