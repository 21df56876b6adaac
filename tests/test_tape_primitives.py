"""Every row of the tape's tables, in all four sweeps; a new row is tested as it stands there."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest

from osculant.backends.linear_operators import linear_operator
from osculant.backends.tape.bilinear import BILINEAR
from osculant.backends.tape.elementwise import ELEMENTWISE
from osculant.backends.tape.graph import Tape
from osculant.backends.tape.linear import LINEAR
from osculant.backends.tape.oracle import TapeOracle
from osculant.backends.tape.record import apply
from osculant.backends.tape.traced import Traced
from osculant.core.arrays import namespace
from osculant.core.oracle import Objective
from osculant.core.structure import Structure

NAMESPACES = {"numpy": np, "strict": array_api_strict}

# Where a row's function is smooth, if not between 0.2 and 0.9.
DOMAINS = {"acosh": (1.2, 3.0), "remainder": (1.3, 1.9), "sqrt": (0.5, 2.0)}


def _padded(u):
    xp = namespace(u)
    return xp.concat([2.0 * u, xp.zeros((1, *u.shape[1:]), dtype=u.dtype)])


# [[2, 0, 0], [0, 2, 0]], in any namespace
DOUBLED = linear_operator((lambda x: 2.0 * x[:2], _padded), shape=(2, 3))

# Shapes of the arguments and parameters of a row; one square matrix, if it is not here.
CASES = {
    "add": [([(3, 1), (2,)], {}), ([(), (2, 2)], {})],
    "subtract": [([(3, 1), (2,)], {}), ([(2,), (2,)], {})],
    "where": [([(3, 1), (2,)], {"condition": [[True, False], [False, False], [True, True]]})],
    "concat": [([(2, 2), (2, 1), (2, 3)], {"axis": 1}), ([(2,), (1,)], {"axis": -1})],
    "astype": [([(3,)], {"dtype": "float64"})],
    "broadcast_to": [([(3, 1)], {"shape": (2, 3, 4)}), ([()], {"shape": (2,)})],
    "reshape": [([(2, 3)], {"shape": (3, 2)})],
    "permute_dims": [([(2, 3, 4)], {"axes": (2, 0, 1)})],
    "sum": [
        ([(2, 3)], {"axis": None, "keepdims": False}),
        ([(2, 3, 2)], {"axis": (0, -1), "keepdims": False}),
        ([(2, 3)], {"axis": 1, "keepdims": True}),
    ],
    "cumulative_sum": [([(2, 3)], {"axis": 1})],
    "flip": [([(2, 3)], {}), ([(2, 3)], {"axis": 1})],
    "roll": [([(2, 3)], {"shift": 2}), ([(2, 3)], {"shift": (1, -1), "axis": (0, 1)})],
    "tril": [([(3, 4)], {"k": 1})],
    "triu": [([(2, 3, 3)], {"k": 1})],
    "getitem": [
        ([(4, 3)], {"key": (slice(1, None, 2), 0)}),
        ([(4, 3)], {"key": (Ellipsis, None, -1)}),
        ([(4,)], {"key": slice(None, None, -2)}),
        ([(3,)], {"key": [True, False, True]}),
        ([(4,)], {"key": [2, 0, 2, -1]}),
    ],
    "take": [([(3, 4)], {"indices": [1, 1, -1], "axis": 1})],
    "take_along_axis": [([(2, 3)], {"indices": [[0, 0], [2, -1]], "axis": 1})],
    "zero_pad": [([(2, 3)], {"widths": ((1, 0), (0, 2))})],
    "patches": [
        ([(2, 1, 3, 4)], {"size": (2, 3), "stride": (1, 1), "dilation": (1, 1)}),
        ([(1, 2, 6, 5)], {"size": (3, 2), "stride": (1, 2), "dilation": (2, 3)}),
    ],
    "constant_matmul": [([(3,)], {"A": DOUBLED}), ([(3, 2)], {"A": DOUBLED})],
    "solve": [([(2, 3)], {"A": [[2.0, 0.5], [0.1, 1.0]]})],
    "matmul": [([(2, 3), (3, 4)], {}), ([(2, 2, 3), (2, 3, 1)], {})],
    "multiply": [([(2, 3), (3,)], {}), ([(), (2,)], {})],
}


def cases():
    for name, row in ELEMENTWISE.items():
        for shapes in [[(2, 3)]] if len(row.d1) == 1 else [[(2, 3), (2, 3)], [(2, 1), (3,)]]:
            yield pytest.param(row, shapes, {}, id=f"{name}-{shapes}")
    for name, row in (LINEAR | BILINEAR).items():
        for shapes, params in CASES.get(name, [([(3, 3)], {})]):
            yield pytest.param(row, shapes, params, id=f"{name}-{shapes}")


def test_every_case_belongs_to_a_row():
    assert set(CASES) <= set(LINEAR | BILINEAR)
    assert set(DOMAINS) <= set(ELEMENTWISE)


def parameters(xp, params):
    """Return the parameters with nested lists made arrays, and dtypes by name."""
    of_list = {k: xp.asarray(v) if isinstance(v, list) else v for k, v in params.items()}
    return {k: getattr(xp, v) if k == "dtype" else v for k, v in of_list.items()}


def arguments(row, shapes):
    low, high = DOMAINS.get(row.name, (0.2, 0.9))
    rng = np.random.default_rng(3)
    return [np.asarray(rng.uniform(low, high, shape)) for shape in shapes]


class Checked:
    """The oracle of sum sin(row(x)), on one namespace, with NumPy vectors going in and out."""

    def __init__(self, xp, row, args, traced, params, dtype="float64"):
        self.xp, self.dtype = xp, dtype
        constants = [self.own(a) for a in args]
        params = parameters(xp, params)
        which = [i for i, t in enumerate(traced) if t]

        def model(leaves):
            full = list(constants)
            for i, leaf in zip(which, leaves, strict=True):
                full[i] = leaf
            return apply(row, *full, **params)

        def loss(y):
            nx = namespace(y)
            return nx.sum(nx.sin(y))

        leaves = [constants[i] for i in which]
        self.oracle = TapeOracle(Objective(model=model, loss=loss), Structure(leaves))
        self.x = np.asarray(self.oracle.ravel(leaves))

    def own(self, array):
        return self.xp.asarray(array, dtype=getattr(self.xp, self.dtype))

    def at(self, x):
        return self.oracle.at(self.own(x))


def difference(function, x, v, h=1e-6):
    return (np.asarray(function(x + h * v)) - np.asarray(function(x - h * v))) / (2 * h)


@pytest.mark.parametrize("xp", NAMESPACES.values(), ids=NAMESPACES)
@pytest.mark.parametrize(("row", "shapes", "params"), list(cases()))
def test_sweeps(xp, row, shapes, params):
    args = arguments(row, shapes)
    n = len(args)
    for traced in {(True,) * n, *(tuple(i == j for j in range(n)) for i in range(n))}:
        check_sweeps(Checked(xp, row, args, traced, params))


def check_sweeps(f):
    rng = np.random.default_rng(5)
    x, pt = f.x, f.at(f.x)
    v = rng.standard_normal(x.shape)
    u = rng.standard_normal(pt.outputs.shape)
    # The references: differences of the forward sweep, then of the gradient once that holds.
    np.testing.assert_allclose(pt.value, f.oracle.value(f.own(x)), rtol=1e-14)
    directional = difference(lambda z: f.oracle.value(f.own(z)), x, v)
    np.testing.assert_allclose(np.asarray(pt.grad) @ v, directional, rtol=2e-7, atol=1e-8)
    Jv = np.asarray(pt.jvp(f.own(v)))
    np.testing.assert_allclose(Jv, difference(lambda z: f.at(z).outputs, x, v), 2e-7, 1e-8)
    np.testing.assert_allclose(np.asarray(pt.vjp(f.own(u))) @ v, u @ Jv, rtol=1e-12)
    np.testing.assert_allclose(
        pt.hvp(f.own(v)), difference(lambda z: f.at(z).grad, x, v), rtol=2e-7, atol=2e-8
    )
    y = np.asarray(pt.outputs)
    np.testing.assert_allclose(pt.loss_hvp(f.own(u)), -np.sin(y) * u, rtol=1e-12)


@pytest.mark.parametrize(("row", "shapes", "params"), list(cases()))
def test_float32_stays_float32(row, shapes, params):
    if row.name == "astype":
        params = {"dtype": "float32"}
    if row.name == "solve":
        params = {"A": np.asarray(params["A"], dtype=np.float32)}
    args = arguments(row, shapes)
    pt = (f := Checked(np, row, args, [True] * len(args), params, "float32")).at(f.x)
    v = f.x
    for result in (pt.value, pt.grad, pt.hvp(v), pt.jvp(v), pt.vjp(pt.outputs)):
        assert result.dtype == np.float32


@pytest.mark.parametrize(("row", "shapes", "params"), list(cases()))
def test_holomorphic(row, shapes, params):
    """The imaginary part of the gradient at x + i h v is h H v: exact, and nothing conjugates."""
    params = parameters(np, params)
    if row.name == "astype":
        params = {"dtype": np.complex128}
    args = arguments(row, shapes)
    rng = np.random.default_rng(7)
    vs = [rng.standard_normal(a.shape) for a in args]
    h = 1e-20
    complex_args = [a + 1j * h * v for a, v in zip(args, vs, strict=True)]

    def gradient(tape, xs):
        traced = [Traced(tape, x, node) for x, node in zip(xs, tape.inputs, strict=True)]
        result = np.sum(np.sin(apply(row, *traced, **params)))
        tape.finish(result.node, result.value)
        return tape.reverse(np.ones((), result.dtype), keep=True)

    stepped = gradient(Tape(np, complex_args), complex_args)
    if row.name == "astype":
        params = {"dtype": np.float64}
    gradient(tape := Tape(np, args), args)
    products = tape.tangent_of_reverse(tape.tangent(vs), None)
    for g, product in zip(stepped, products, strict=True):
        np.testing.assert_allclose(g.imag / h, product, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", [n for n, row in ELEMENTWISE.items() if len(row.d1) == 2])
@pytest.mark.parametrize("order", [0, 1])
def test_python_scalars(name, order):
    """A Python number is an argument like any other, and keeps float32."""
    args = [1.7, 1.5] if name == "remainder" else [0.4, 0.7]
    x = np.asarray([args[order]], dtype=np.float32)

    def fun(x):
        full = list(args)
        full[order] = x
        return np.sum(apply(ELEMENTWISE[name], *full))

    point = TapeOracle(Objective(fun=fun), Structure(x)).at(x)
    row, y = ELEMENTWISE[name], np.asarray([0.0])
    full = [np.asarray([a]) for a in args]
    y = row.forward(np, *full)
    np.testing.assert_allclose(point.grad, row.d1[order](np, y, *full), rtol=1e-5)
    second = row.d2[order][order]
    expected = second(np, y, *full) if second else 0.0
    np.testing.assert_allclose(point.hvp(np.ones_like(x)), expected, rtol=1e-5, atol=1e-6)
    assert point.grad.dtype == point.hvp(x).dtype == np.float32
