"""Programs on the tape: plain NumPy code, and array-API code on two namespaces."""

from __future__ import annotations

import array_api_compat
import array_api_strict
import numpy as np
import pytest

from osculant.backends.tape.graph import Tape
from osculant.backends.tape.oracle import TapeOracle
from osculant.backends.tape.traced import Traced
from osculant.core.arrays import namespace
from osculant.core.errors import NotDifferentiable
from osculant.core.oracle import Objective
from osculant.core.structure import Structure

RNG = np.random.default_rng(11)
A = RNG.standard_normal((4, 4))
X = {
    "A": RNG.uniform(0.3, 0.9, (4, 4)),
    "B": RNG.uniform(0.3, 0.9, (2, 4, 3)),
    "x": RNG.uniform(0.3, 0.9, 4),
    "s": np.asarray(0.7),
}
SPD = X["A"] @ X["A"].T + np.eye(4)


def check(program, sin, total, params, xp=np):
    """Compare value, gradient and Hessian product with plain evaluation and differences."""
    shapes = []

    def fun(p):
        results = program(p)
        shapes.append([y.shape for y in results])
        return sum(total(sin(y)) for y in results)

    own = {name: xp.asarray(array) for name, array in params.items()}
    oracle = TapeOracle(Objective(fun=fun), Structure(own))
    x = np.asarray(oracle.ravel(own))
    v = np.random.default_rng(2).standard_normal(x.shape)
    h = 1e-6
    ahead, behind = (xp.asarray(z) for z in (x + h * v, x - h * v))
    pt, v_own = oracle.at(xp.asarray(x)), xp.asarray(v)
    np.testing.assert_allclose(pt.value, fun(own), rtol=1e-13)
    assert shapes[0] == shapes[-1]
    slope = (np.asarray(oracle.value(ahead)) - np.asarray(oracle.value(behind))) / (2 * h)
    np.testing.assert_allclose(np.asarray(pt.grad) @ v, slope, rtol=1e-6, atol=1e-7)
    change = np.asarray(oracle.at(ahead).grad) - np.asarray(oracle.at(behind).grad)
    np.testing.assert_allclose(pt.hvp(v_own), change / (2 * h), rtol=1e-6, atol=1e-6)


# Plain NumPy. Each maps a dict of arrays to a list of arrays, whose sines are then summed.
NUMPY_PROGRAMS = {
    "operators": lambda p: [(2 * p["x"] - 1) / (3 + p["x"]) ** 2 - p["x"] * A + 1 / p["s"]],
    "reflected": lambda p: [
        A - p["x"] + A / p["x"] + A**2 * p["x"] + 2.0 ** p["x"] - p["x"] % 0.29
    ],
    "unary": lambda p: [-abs(+p["x"]) + np.absolute(p["x"]) + np.fabs(p["s"])],
    "names": lambda p: [np.arctan2(p["x"], p["s"]), np.arcsin(p["x"]), np.power(p["x"], 3)],
    "rpow": lambda p: [A[0] ** 2, np.float64(1.5) ** p["x"], np.float64(2.0) * p["x"]],
    "matmul": lambda p: [A @ p["x"], p["x"] @ A, p["A"] @ p["x"], p["x"] @ p["x"] * p["x"]],
    "stacks": lambda p: [A @ p["B"], p["A"] @ p["B"], np.matmul(p["B"].mT, p["A"])[0].sum()],
    "stack by vector": lambda p: [
        p["B"].mT @ p["x"],
        np.matmul(p["x"], p["B"]),
        p["B"][0].T @ A[0],
    ],
    "stack by matrix": lambda p: [np.matmul(p["B"].mT, p["A"])],
    "broadcast stacks": lambda p: [p["B"][:, None] @ p["B"].mT],
    "dot": lambda p: [np.dot(p["A"], p["x"]), p["x"].dot(A), np.dot(A, p["B"])[:, 0, 0], p["s"]],
    "dot scalars": lambda p: [np.dot(p["x"], 3.0) * np.dot(p["s"], p["s"])],
    "inner": lambda p: [np.inner(p["A"], p["x"]), np.vdot(p["A"], A), np.inner(p["x"], p["x"])],
    "outer": lambda p: [np.outer(p["x"], p["x"]), np.outer(p["A"], [1.0]).reshape(4, 4)],
    "tensordot": lambda p: [
        np.tensordot(p["B"], p["A"], axes=([1], [0])) * np.tensordot(p["A"], p["A"])
    ],
    "einsum": lambda p: [np.einsum("ij,bjk,k->bi", A, p["B"], [1.0, 2.0, 3.0])],
    "einsum trace": lambda p: [np.einsum("ii", p["A"]), np.einsum("ii->i", p["A"])],
    "einsum ellipsis": lambda p: [np.einsum("...jk,j->k...", p["B"], p["x"])],
    "einsum implicit": lambda p: [np.einsum("ba", p["A"]), np.einsum("ij,ij->ij", p["A"], p["A"])],
    "einsum sums": lambda p: [
        np.einsum("ij,ij->i", p["A"], A),
        np.einsum("ij,k->j", p["A"], p["x"]),
    ],
    "einsum batch": lambda p: [np.einsum("bij,bik,j->bk", p["B"], p["B"], A[0, :3])],
    "einsum ones": lambda p: [np.einsum("ij,ij->i", p["A"], p["x"][:, None])],
    "reductions": lambda p: [p["A"].sum(axis=0), np.mean(p["A"], axis=1), p["B"].sum((0, 2))],
    "products": lambda p: [
        np.prod(p["A"], axis=0),
        p["x"].prod(),
        np.multiply.reduce(p["B"], 1).sum(),
    ],
    "kept axes": lambda p: [
        p["A"] - p["A"].max(axis=1, keepdims=True),
        np.min(p["A"], 0, keepdims=True),
    ],
    "extremes": lambda p: [
        np.max(p["A"]),
        np.amin(p["B"], axis=(0, 1)),
        np.maximum.reduce(p["A"])[0],
    ],
    "moments": lambda p: [np.var(p["A"], axis=0, ddof=1), p["A"].std(axis=1), np.var(p["s"] * A)],
    "cumulative": lambda p: [
        np.cumsum(p["A"])[:4],
        p["A"].cumsum(axis=0)[1],
        np.add.accumulate(p["x"]),
    ],
    "differences": lambda p: [np.diff(p["A"], axis=0)[:2], np.diff(p["x"], n=2)[:1]],
    "shapes": lambda p: [
        p["A"].reshape(2, 8).T.reshape((4, -1)),
        p["A"].ravel()[3],
        p["x"].flatten(),
    ],
    "axes": lambda p: [
        np.transpose(p["B"], (2, 0, 1)),
        p["B"].transpose(2, 0, 1) * p["B"].T.swapaxes(1, 2),
    ],
    "moved": lambda p: [np.moveaxis(p["B"], 0, -1), np.moveaxis(p["B"], (2, 0), (1, 2))],
    "length one": lambda p: [
        np.squeeze(p["x"][None, :, None]),
        np.expand_dims(p["x"], (0, 2)).squeeze(0).squeeze(),
    ],
    "flips": lambda p: [np.flip(p["A"]), np.roll(p["A"], 1, axis=0), np.roll(p["A"], 3)],
    "repeats": lambda p: [
        np.repeat(p["x"], 2)[:4],
        np.tile(p["x"], (2, 1)),
        p["x"].repeat([1, 0, 2, 1]),
    ],
    "tiles": lambda p: [np.tile(p["A"], 2), np.repeat(p["A"], 2, axis=1)],
    "joins": lambda p: [
        np.concatenate([p["A"], A, p["x"][None]]) @ np.hstack([p["x"][:2], p["x"][2:]])
    ],
    "stacking": lambda p: [
        np.vstack([p["x"], p["A"]]).T @ np.hstack([p["x"], p["s"]]),
        np.stack([p["x"], A[0]], 1).sum(),
    ],
    "joined lists": lambda p: [
        np.concatenate([[0.5], p["x"], [p["x"][0], 2]]) * np.append(p["x"], p["s"] * [1, 2, 3]),
        np.append([[0.1, 0.2, 0.3, 0.4]], p["A"], axis=0),
        np.stack([p["x"], [1.0, p["s"], 3.0, p["s"] ** 2]]),
        np.vstack([p["x"], [1.0, 2.0, 3.0, p["s"]]]) * np.hstack([[p["s"]], p["x"][1:]]),
    ],
    "columns": lambda p: [
        np.column_stack([p["x"], p["A"]]),
        np.concatenate([p["A"], p["s"][None]], axis=None)[:5],
    ],
    "splits": lambda p: [
        np.split(p["A"], 2)[1] * np.array_split(p["x"], 3)[0][0],
        np.split(p["A"], [1, 3], axis=0)[1],
    ],
    "indices": lambda p: [
        p["A"][1:, ::-2] * p["A"][[0, 0, 2]][:, [1, 3]],
        p["A"][-1, 0],
        p["x"][..., None][1],
    ],
    "masks": lambda p: [
        p["A"][A > 0] * 2,
        p["x"][p["x"] > 0.5].sum(),
        p["A"][np.arange(4), [0, 0, 1, 1]].sum(),
    ],
    "mixed indices": lambda p: [p["B"][:, [0, 0, 3], 1:], p["B"][1, None, [2], 0]],
    "take": lambda p: [
        np.take(p["A"], [3, 3, 0], axis=1),
        np.take(p["A"], 5),
        p["x"].take([[0, 1, 1]] * 4),
    ],
    "take along": lambda p: [np.take_along_axis(p["A"], np.argsort(A, axis=0), axis=0)],
    "sort": lambda p: [np.sort(p["A"], axis=0) * A, np.sort(p["A"], axis=None)[:4]],
    "where": lambda p: [np.where(p["A"] > 0.6, p["A"], 0.0), np.where(A > 0, A, p["x"])],
    "clip": lambda p: [
        np.clip(p["A"], 0.4, 0.7),
        p["x"].clip(0.5),
        np.clip(p["x"], a_min=None, a_max=p["s"]),
    ],
    "rectifier": lambda p: [np.maximum(p["A"] - 0.5, 0), np.minimum(A, p["x"])],
    "triangles": lambda p: [np.tril(p["A"]) @ np.triu(p["A"], 1), np.tril(p["A"], -1)],
    "diagonals": lambda p: [
        np.trace(p["A"]) * np.diag(p["A"], 1),
        np.diagonal(p["A"], -1),
        np.trace(p["A"], 1),
    ],
    "diagonal matrices": lambda p: [
        np.diag(p["x"], 1) * np.diag(p["x"], -1).T,
        np.diag(np.diag(p["A"]), 1),
    ],
    "norms": lambda p: [
        np.linalg.norm(p["A"]),
        np.linalg.norm(p["x"]),
        np.linalg.norm(p["A"], axis=1),
    ],
    "other norms": lambda p: [
        np.linalg.norm(p["A"], 1, axis=0),
        np.linalg.norm(p["x"], 3),
        np.linalg.norm(p["x"], np.inf),
    ],
    "solve": lambda p: [
        np.linalg.solve(p["A"] + 2 * np.eye(4), p["x"]),
        np.linalg.solve(SPD, p["A"]),
    ],
    "solve stack": lambda p: [
        np.linalg.solve(p["A"] + np.eye(4), p["B"]),
        np.linalg.solve(p["A"] + A, A[:, :3]),
    ],
    "inv": lambda p: [np.linalg.inv(p["A"] + 2 * np.eye(4))],
    "det": lambda p: [np.linalg.det(p["A"] + np.eye(4)), np.linalg.det(A * p["s"])],
    "slogdet": lambda p: [
        np.linalg.slogdet(p["A"] - 2 * np.eye(4))[1],
        np.linalg.slogdet(A + p["A"]).logabsdet,
    ],
    "cholesky": lambda p: [np.linalg.cholesky(p["A"] @ p["A"].T + np.eye(4))],
    "conjugates": lambda p: [p["x"].conj() @ np.conjugate(p["x"]), p["x"].real, np.real(p["s"])],
    "copies": lambda p: [
        np.copy(p["x"]),
        p["x"].copy(),
        np.atleast_2d(p["x"]),
        np.atleast_1d(p["s"]),
    ],
    "dtypes": lambda p: [p["x"].astype(float) * (9 * p["x"]).astype(int), p["A"].astype("f8") * A],
    "constant": lambda p: [np.floor(p["x"]), np.zeros_like(p["x"]), np.sign(p["s"]), p["x"] // 0.2],
    "identity": lambda p: [p["A"]],
    "iteration": lambda p: [sum(row * k for k, row in enumerate(p["A"])) * len(p["A"])],
    "in place": lambda p: [_in_place(p["x"])],
    "branch": lambda p: [p["x"] * 2 if p["x"][0] < 10 and np.all(p["x"] > 0) else p["s"]],
    "loop": lambda p: [_newton_square_root(p["x"])],
}


def _in_place(x):
    y = 2 * x
    y += 1.0
    y *= x
    return y


def _newton_square_root(x):
    y = x
    while np.max(np.abs(y * y - x)) > 1e-12:
        y = 0.5 * (y + x / y)
    return y


@pytest.mark.parametrize("program", NUMPY_PROGRAMS.values(), ids=NUMPY_PROGRAMS)
def test_numpy(program):
    check(program, np.sin, np.sum, X)


# The array API. Each is called with the namespace of the parameters, and the parameters.
ARRAY_API_PROGRAMS = {
    "arithmetic": lambda xp, p: [xp.add(p["x"], 1.0) - xp.divide(2.0, p["x"]), xp.pow(p["x"], 3)],
    "arguments": lambda xp, p: [xp.multiply(2.0, p["x"]) - xp.subtract(1.0, p["A"])],
    "hypot": lambda xp, p: [xp.hypot(p["x"], p["A"]), xp.logaddexp(p["x"], p["A"])],
    "clip": lambda xp, p: [xp.clip(p["A"], 0.4, 0.7), xp.clip(p["x"], min=0.5)],
    "extremes": lambda xp, p: [xp.max(p["A"], axis=1) - xp.min(p["A"])],
    "statistics": lambda xp, p: [
        xp.mean(p["A"], axis=0),
        xp.var(p["A"], axis=0, correction=1) * xp.std(p["x"]),
    ],
    "prod": lambda xp, p: [
        xp.prod(p["A"], axis=1),
        xp.prod(p["B"], axis=(0, 2), keepdims=True)[0, :, 0],
    ],
    "cumulative": lambda xp, p: [xp.cumulative_sum(p["A"], axis=0, include_initial=True)],
    "diff": lambda xp, p: [xp.diff(p["A"], axis=0)],
    "matmul": lambda xp, p: [xp.matmul(p["A"], p["B"]), p["A"] @ p["B"]],
    "products": lambda xp, p: [xp.vecdot(p["A"], p["x"]), xp.tensordot(p["A"], p["x"], axes=1)],
    "tensordot axes": lambda xp, p: [xp.tensordot(p["B"], p["A"], axes=((1,), (1,)))],
    "moves": lambda xp, p: [xp.permute_dims(p["B"], (1, 0, 2)), xp.moveaxis(p["B"], 0, 1)],
    "transposes": lambda xp, p: [xp.matrix_transpose(p["A"]), p["A"].T, p["A"].mT],
    "reshapes": lambda xp, p: [
        xp.reshape(xp.expand_dims(p["A"], axis=1), (-1, 2)),
        xp.squeeze(p["A"][:1, 0], axis=0),
    ],
    "orders": lambda xp, p: [
        xp.flip(p["A"], axis=0),
        xp.roll(p["A"], 1),
        xp.sort(p["A"], axis=0, descending=True),
    ],
    "repeats": lambda xp, p: [xp.tile(p["x"], (4, 1)), xp.reshape(xp.repeat(p["x"], 4), (4, 4))],
    "joins": lambda xp, p: [
        xp.concat([p["A"], xp.ones_like(p["A"])], axis=1),
        xp.stack([p["x"]] * 8, axis=1),
    ],
    "unstack": lambda xp, p: [xp.unstack(p["A"], axis=1)[2] * xp.unstack(p["B"])[0][0, 0]],
    "broadcasts": lambda xp, p: [
        xp.broadcast_to(p["x"], (3, 4)),
        xp.broadcast_arrays(p["s"], p["x"])[0],
    ],
    "triangles": lambda xp, p: [xp.tril(p["A"], k=-1), xp.triu(p["A"])],
    "take": lambda xp, p: [xp.take(p["A"], xp.asarray([1, 1, -1]), axis=1)],
    "take along axis": lambda xp, p: [
        xp.take_along_axis(p["A"], xp.argsort(p["A"], axis=1), axis=1)
    ],
    "gather": lambda xp, p: [
        p["A"][xp.asarray([0, 0, 1]), xp.asarray([2, 2, -1])] * xp.sum(p["A"][p["A"] > 0.6])
    ],
    "where": lambda xp, p: [xp.where(p["A"] > 0.6, p["A"], xp.zeros_like(p["A"]))],
    "constants": lambda xp, p: [p["x"] * xp.asarray(2.0, dtype=p["x"].dtype), xp.eye(4) * xp.pi],
    "casts": lambda xp, p: [
        xp.astype(p["x"], xp.float64),
        xp.asarray(p["x"]) * xp.finfo(p["x"].dtype).eps,
    ],
    "norms": lambda xp, p: [xp.linalg.vector_norm(p["A"], axis=0), xp.linalg.matrix_norm(p["A"])],
    "traces": lambda xp, p: [
        xp.linalg.trace(p["B"][:, :3, :]) @ xp.linalg.diagonal(p["B"], offset=1)
    ],
    "outer": lambda xp, p: [xp.linalg.outer(p["x"], p["x"])],
    "solve": lambda xp, p: [xp.linalg.solve(p["A"] + 2 * xp.eye(4), p["x"])],
    "solve stack": lambda xp, p: [xp.linalg.solve(p["A"] + xp.eye(4), p["B"])],
    "inv": lambda xp, p: [xp.linalg.inv(p["A"] + 2 * xp.eye(4))],
    "det": lambda xp, p: [xp.linalg.det(xp.stack([p["A"], p["A"].T + xp.eye(4)]))],
    "slogdet": lambda xp, p: [xp.linalg.slogdet(p["A"] - 2 * xp.eye(4)).logabsdet],
    "cholesky": lambda xp, p: [xp.linalg.cholesky(p["A"] @ p["A"].T + xp.eye(4), upper=True)],
}


@pytest.mark.parametrize("xp", [np, array_api_strict], ids=["numpy", "strict"])
@pytest.mark.parametrize("program", ARRAY_API_PROGRAMS.values(), ids=ARRAY_API_PROGRAMS)
def test_array_api(program, xp):
    def sin(y):
        return namespace(y).sin(y)

    def total(y):
        return namespace(y).sum(y)

    check(lambda p: program(array_api_compat.array_namespace(p["x"]), p), sin, total, X, xp)


HOLOMORPHIC = """
operators matmul tensordot einsum products kept_axes moments joins indices masks take sort
where clip norms solve inv det slogdet
""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", HOLOMORPHIC)
def test_complex_step(name):
    """The imaginary part of the gradient at x + i h v is h H v."""
    program = NUMPY_PROGRAMS[name.replace("_", " ")]
    vs = [np.random.default_rng(6).standard_normal(a.shape) for a in X.values()]
    h = 1e-20

    def gradient(inputs):
        tape = Tape(np, inputs)
        traced = [Traced(tape, x, node) for x, node in zip(inputs, tape.inputs, strict=True)]
        results = program(dict(zip(X, traced, strict=True)))
        total = sum(np.sum(np.sin(y)) for y in results)
        tape.finish(total.node, total.value)
        return tape, tape.reverse(np.ones((), total.dtype), keep=True)

    _, stepped = gradient([x + 1j * h * v for x, v in zip(X.values(), vs, strict=True)])
    tape, _ = gradient(list(X.values()))
    products = tape.tangent_of_reverse(tape.tangent(vs), None)
    for g, product in zip(stepped, products, strict=True):
        np.testing.assert_allclose(np.imag(g) / h, product, rtol=1e-9, atol=1e-9)


# Awkward places --------------------------------------------------------------------------------


def derivatives(fun, x):
    """Return the value, gradient and Hessian, as lists."""
    x = np.asarray(x)
    pt = TapeOracle(Objective(fun=fun), Structure(x)).at(x)
    return pt.value.tolist(), pt.grad.tolist(), pt.hvp(np.eye(x.shape[0])).tolist()


def test_product_with_zeros():
    assert derivatives(np.prod, [0.0, 2.0, 0.0]) == (
        0.0,
        [0.0, 0.0, 0.0],
        [[0.0, 0.0, 2.0], [0.0, 0.0, 0.0], [2.0, 0.0, 0.0]],
    )


@pytest.mark.parametrize(
    "norm",
    [np.linalg.norm, np.std, lambda x: np.linalg.norm(x, 3), lambda x: np.hypot(x[0], x[1])],
    ids=["norm", "std", "3-norm", "hypot"],
)
def test_norms_have_the_subgradient_zero_at_zero(norm):
    value, gradient, hessian = derivatives(norm, [0.0, 0.0])
    assert value == 0.0 and gradient == [0.0, 0.0] and np.all(np.isfinite(hessian))


def test_norm_neither_overflows_nor_underflows():
    for scale in (1e-200, 1e200):
        value, gradient, _ = derivatives(np.linalg.norm, [3 * scale, 4 * scale])
        assert value == pytest.approx(5 * scale)
        assert gradient == pytest.approx([0.6, 0.8])


def test_logaddexp_at_a_tie_far_out_and_at_log_zero():
    for x in (0.0, 1000.0, -1000.0):
        _, gradient, hessian = derivatives(lambda x: np.logaddexp(x[0], x[1]), [x, x])
        assert gradient == [0.5, 0.5] and hessian == [[0.25, -0.25], [-0.25, 0.25]]
    _, gradient, _ = derivatives(lambda x: np.logaddexp(x[0], 0.0), [-40.0])
    assert gradient == pytest.approx([np.exp(-40.0)], rel=1e-12)
    assert derivatives(lambda x: np.logaddexp(x[0], -np.inf), [3.0]) == (3.0, [1.0], [[0.0]])


def test_ties_are_shared_evenly():
    assert derivatives(lambda x: np.maximum(x[0], x[1]), [1.0, 1.0])[1] == [0.5, 0.5]
    assert derivatives(np.max, [2.0, 1.0, 2.0])[1] == [0.5, 0.0, 0.5]
    assert derivatives(np.min, [2.0, 1.0, 2.0])[1] == [0.0, 1.0, 0.0]
    assert derivatives(lambda x: np.sum(np.abs(x)), [0.0, -3.0])[1] == [0.0, -1.0]


@pytest.mark.parametrize("power", [0, 1, 2, 3, 2.0, np.asarray([1.0])])
def test_integral_powers_of_zero_and_below(power):
    p = float(np.asarray(power).reshape(-1)[0])
    for x in (0.0, -2.0):
        value, gradient, hessian = derivatives(lambda x: np.sum(x**power), [x])
        assert value == x**p
        assert gradient == [p * x ** max(p - 1, 0)]
        assert hessian == [[p * (p - 1) * x ** max(p - 2, 0)]]


def test_infinite_entries_do_not_poison_a_maximum():
    masked = derivatives(lambda x: np.max(np.where([True, False], x, -np.inf)), [1.0, 2.0])
    assert masked == (1.0, [1.0, 0.0], [[0.0, 0.0], [0.0, 0.0]])


def test_nan_is_seen_in_the_value():
    assert np.isnan(derivatives(np.max, [1.0, np.nan])[0])


def test_singular_determinant_raises():
    with pytest.raises(np.linalg.LinAlgError):
        derivatives(lambda x: np.linalg.det(x[0] * np.ones((2, 2))), [1.0])


# What cannot be differentiated -------------------------------------------------------------------

x4 = np.asarray([0.1, 0.2, 0.3, 0.4])


def _assign(x):
    x[0] = 1.0
    return np.sum(x)


def _assign_into_plain(x):
    y = np.zeros(4)
    y[0] = x[0]
    return np.sum(y)


def _add_into_plain(x):
    y = np.zeros(4)
    y += x
    return np.sum(y)


@pytest.mark.parametrize(
    ("fun", "words"),
    [
        (lambda x: np.asarray(float(x[0])), r"float\(\).*keep the 0-d array.*finite-difference"),
        (lambda x: np.asarray(x[0].item()), r"\.item\(\)"),
        (lambda x: np.asarray(x.tolist()), r"\.tolist\(\)"),
        (lambda x: np.sum(np.asarray(x)), r"numpy\.asarray\(\)"),
        (lambda x: np.sum(np.array([x[0], x[1]])), r"numpy\.stack"),
        (lambda x: np.eye(int(x[0])), r"int\(\)"),
        (lambda x: np.asarray([1.0, 2.0])[x], r"numpy\.asarray\(\)"),
        (lambda x: np.asarray([1.0, 2.0][x[0]]), "an index made of"),
        (lambda x: x[x], "index"),
        (_assign, "cannot be assigned to.*where, concat or stack"),
        (_assign_into_plain, r"entries of a NumPy array.*build the array with numpy\.stack"),
        (_add_into_plain, r"x = x \+ y instead of x \+= y"),
        (lambda x: np.sum(np.exp(x, out=np.zeros(4))), "out="),
        (lambda x: np.sum(np.exp(x, dtype=np.float32)), "dtype="),
        (lambda x: np.sum(x, where=x > 0), "where="),
        (lambda x: np.add.reduce(x, initial=1.0), "initial="),
        (lambda x: np.sum(np.convolve(x, x)), "convolve.*torch"),
        (lambda x: np.linalg.svd(x.reshape(2, 2))[1][0], r"linalg\.svd.*slogdet"),
        (lambda x: np.linalg.norm(x.reshape(2, 2), 2), r"'fro'"),
        (lambda x: np.sum(np.fft.fft(x)), r"fft\.fft"),
        (lambda x: np.sum(np.cbrt(x)), "cbrt"),
        (lambda x: np.sum(np.subtract.outer(x, x)), r"subtract\.outer"),
        (lambda x: np.sum(x.reshape(2, 2, order="F")), "order='F'"),
        (lambda x: namespace(x).sum(namespace(x).cumulative_prod(x)), "cumulative_prod.*exp of"),
        (lambda x: np.sum(x * 1j), "float64 into complex128"),
    ],
)
def test_lost_derivatives_raise(fun, words):
    with pytest.raises(NotDifferentiable, match=words):
        TapeOracle(Objective(fun=fun), Structure(x4)).at(x4)


def test_a_traced_number_can_be_printed():
    def fun(x):
        assert f"{x[0]:.3f} {x[1]:>6}" == "0.100    0.2" and f"{x}" == str(x)
        return np.sum(x)

    TapeOracle(Objective(fun=fun), Structure(x4)).at(x4)


def test_unknown_names_are_attribute_errors():
    def fun(x):
        assert not hasattr(x, "cpu") and not hasattr(namespace(x), "no_such_function")
        return np.sum(x)

    TapeOracle(Objective(fun=fun), Structure(x4)).at(x4)


def test_constants_pass_through_the_traced_namespace():
    def fun(x):
        xp = namespace(x)
        assert type(xp.cumulative_prod(x4)) is np.ndarray
        assert xp.float32 is np.float32 and xp.inf == np.inf
        assert isinstance(xp.sum(x4), np.floating) and xp is namespace(x * 2, x)
        assert not xp.isdtype(x.dtype, "integral") and xp.all(x > 0)
        assert repr(x).startswith("Traced(array(") and "numpy" in repr(xp)
        assert type(np.argmax(x)) is np.int64 and type(x.argmax()) is np.int64
        assert np.shape(x) == (4,) == x.shape and np.ndim(x) == 1 and x.size == 4
        assert np.allclose(x, x4) and bool(x[0])
        return xp.sum(x)

    TapeOracle(Objective(fun=fun), Structure(x4)).at(x4)


def test_errors_are_those_of_the_plain_program():
    for fun in (lambda x: x @ np.ones(3), lambda x: x + np.ones(3), lambda x: x.reshape(3, 2)):
        with pytest.raises(ValueError):
            TapeOracle(Objective(fun=fun), Structure(x4)).at(x4)
