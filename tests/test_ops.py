"""osculant.ops: PyTorch's own functions are the reference for values and derivatives.

All cases are one function of a tree of parameters, so that JAX compiles once; its Hessian is block
diagonal, and a test looks at the block of one case.
"""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache
from itertools import pairwise
from typing import Any
from unittest import mock

import array_api_compat.numpy
import array_api_strict
import numpy as np
import optree
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import osculant
from osculant import multicomplex, ops
from osculant.backends.ops import generic
from osculant.backends.tape import special, windows
from osculant.backends.tape.linear import LINEAR
from osculant.core.arrays import namespace

torch = pytest.importorskip("torch")
F = torch.nn.functional

BACKENDS = ("numpy", "strict", "torch", "jax")
STRATEGIES = ("autodiff", "complex-step")


# The cases ------------------------------------------------------------------------------------


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def _int(p: Any, values: Any) -> Any:
    return namespace(p).asarray(values)


@dataclasses.dataclass(frozen=True)
class Case:
    ours: Any
    theirs: Any
    params: list[np.ndarray]


LABELS, TOKENS, KEEP = [0, 2, 1, 1], [[0, 1, 1], [2, 0, 0]], [True, False, True]
IMAGES = _normal(2, 4, 7, 6)

CASES = {
    "conv2d": Case(
        lambda x, w, b: ops.conv2d(
            x, w, b, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2
        ),
        lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), 2),
        [IMAGES, _normal(6, 2, 3, 2), _normal(6)],
    ),
    "conv2d same": Case(
        lambda x, w: ops.conv2d(x, w, padding="same"),
        lambda x, w: F.conv2d(F.pad(x, (0, 1, 1, 1)), w),
        [IMAGES, _normal(3, 4, 3, 2)],
    ),
    "depthwise": Case(
        lambda x, w: ops.conv2d(x, w, groups=4, padding="valid"),
        lambda x, w: F.conv2d(x, w, groups=4),
        [IMAGES, _normal(8, 1, 2, 2)],
    ),
    "avg_pool2d": Case(
        lambda x: ops.avg_pool2d(x, 3, stride=(2, 1), padding=1),
        lambda x: F.avg_pool2d(x, 3, (2, 1), 1),
        [IMAGES],
    ),
    "max_pool2d": Case(
        lambda x: ops.max_pool2d(x, 3, stride=2, padding=1),
        lambda x: F.max_pool2d(x, 3, 2, 1),
        [IMAGES],
    ),
    "max_pool2d same": Case(
        lambda x: ops.max_pool2d(x, 2, padding="same"),
        lambda x: F.max_pool2d(F.pad(x, (0, 0, 0, 1), value=-math.inf), 2),
        [IMAGES],
    ),
    "pad": Case(
        lambda x: ops.pad(x, ((0, 1), (2, 0)), value=0.5),
        lambda x: F.pad(x, (2, 0, 0, 1), value=0.5),
        [_normal(2, 3)],
    ),
    "batch_norm": Case(
        lambda x, w, b: ops.batch_norm(x, w, b),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        [IMAGES, _normal(4), _normal(4)],
    ),
    "batch_norm given": Case(
        lambda x, m, s: ops.batch_norm(x, statistics=ops.Statistics(m, s * s)),
        lambda x, m, s: (x - m) / torch.sqrt(s * s + 1e-5),
        [_normal(5, 4), _normal(4), _normal(4)],
    ),
    "batch_statistics": Case(
        lambda x: namespace(x).concat(ops.batch_statistics(x)),
        lambda x: torch.cat([x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)]),
        [IMAGES],
    ),
    "layer_norm": Case(
        lambda x, w, b: ops.layer_norm(x, w, b, axes=2),
        lambda x, w, b: F.layer_norm(x, (7, 6), w, b),
        [IMAGES, _normal(7, 6), _normal(7, 6)],
    ),
    "embedding": Case(
        lambda x: ops.embedding(x, _int(x, TOKENS)),
        lambda x: F.embedding(_int(x, TOKENS), x),
        [_normal(3, 2)],
    ),
    "dropout": Case(
        lambda x: ops.dropout(x, _int(x, KEEP), 0.2),
        lambda x: x * _int(x, KEEP) / 0.8,
        [_normal(2, 3)],
    ),
    "elu scaled": Case(lambda x: ops.elu(x, 0.7), lambda x: F.elu(x, 0.7), [3 * _normal(4, 5)]),
    "gelu tanh": Case(
        lambda x: ops.gelu(x, "tanh"),
        lambda x: F.gelu(x, approximate="tanh"),
        [3 * _normal(4, 5)],
    ),
    "cross_entropy": Case(
        lambda x: ops.cross_entropy(x, _int(x, LABELS)),
        lambda x: F.cross_entropy(x, _int(x, LABELS)),
        [3 * _normal(4, 5)],
    ),
    "cross_entropy of distributions": Case(
        lambda x, y: ops.cross_entropy(x, ops.softmax(y)),
        lambda x, y: F.cross_entropy(x, torch.softmax(y, -1)),
        [3 * _normal(4, 5), _normal(5, 4).T.copy()],
    ),
    "softmax": Case(
        lambda x: ops.softmax(x, 0), lambda x: torch.softmax(x, 0), [3 * _normal(4, 5)]
    ),
    "logsumexp": Case(
        lambda x: ops.logsumexp(x, keepdims=True),
        lambda x: torch.logsumexp(x, -1, keepdim=True),
        [3 * _normal(4, 5)],
    ),
    "log_softmax": Case(
        lambda x: ops.log_softmax(x), lambda x: torch.log_softmax(x, -1), [3 * _normal(4, 5)]
    ),
    **{
        name: Case(getattr(ops, name), theirs, [3 * _normal(4, 5)])
        for name, theirs in {
            "relu": F.relu,
            "elu": F.elu,
            "gelu": F.gelu,
            "erf": torch.erf,
            "sigmoid": torch.sigmoid,
            "softplus": lambda x: -F.logsigmoid(-x),
        }.items()
    },
}
PARAMS = {name: CASES[name].params for name in sorted(CASES)}  # the order of a vector


def make(backend: str, array: np.ndarray) -> Any:
    if backend == "strict":
        return array_api_strict.asarray(array.copy())
    return osculant.backends.get(backend).from_numpy(array)


def host(array: Any) -> np.ndarray:
    return np.asarray(array.detach() if isinstance(array, torch.Tensor) else array)


def everything(params: Any) -> Any:
    results = [CASES[name].ours(*of_case) for name, of_case in params.items()]
    xp = namespace(results[0])
    return xp.concat([xp.reshape(each, (-1,)) for each in results])


def sine(z: Any) -> Any:
    xp = namespace(z)
    return xp.sum(xp.sin(z))


@lru_cache
def evaluated(backend: str, strategy: str, dtype: str = "float64") -> tuple[Any, dict[str, Any]]:
    """Return an oracle of all cases and what it answers at one point."""
    params = optree.tree_map(lambda a: make(backend, a.astype(dtype)), PARAMS)
    oracle = osculant.oracle(model=everything, loss=sine, params=params, products=strategy)
    V, W = (
        make(backend, np.random.default_rng(s).standard_normal(oracle.size).astype(dtype))
        for s in (1, 2)
    )
    pt = oracle.at(oracle.ravel(params))
    found = {"outputs": pt.outputs, "grad": pt.grad, "hvp": pt.hvp(V), "ggn": pt.ggn(V)}
    if (strategy, dtype) == ("autodiff", "float64"):
        found["third"] = pt.dhvp(V, W)
    return oracle, {name: host(a) for name, a in found.items()}


def block(array: np.ndarray, name: str) -> np.ndarray:
    """Return the part of a vector of parameters that belongs to one case."""
    lengths = [sum(a.size for a in params) for params in PARAMS.values()]
    ends = np.cumsum([0, *lengths])
    place = dict(zip(PARAMS, pairwise(ends), strict=True))
    return array[slice(*place[name])]


@lru_cache
def reference(name: str) -> dict[str, np.ndarray]:
    """Return what PyTorch makes of its own function."""
    case = CASES[name]
    leaves = [torch.tensor(a, requires_grad=True) for a in case.params]

    def joined(parts: Any) -> Any:
        return torch.cat([part.reshape(-1) for part in parts])

    z = case.theirs(*leaves)
    g = torch.autograd.grad(torch.sin(z).sum(), leaves, create_graph=True)
    V, W = (np.random.default_rng(s).standard_normal(_total()) for s in (1, 2))
    v, w = (torch.tensor(block(a, name)) for a in (V, W))
    Hv = torch.autograd.grad(joined(g), leaves, v, create_graph=True)
    third = torch.autograd.grad(joined(Hv), leaves, w, materialize_grads=True)
    return {
        "outputs": host(z).reshape(-1),
        **{k: host(joined(p)) for k, p in {"grad": g, "hvp": Hv, "third": third}.items()},
    }


def _total() -> int:
    return sum(a.size for params in PARAMS.values() for a in params)


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    scale = max(1.0, float(np.max(np.abs(expected))))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


# Values and derivatives ----------------------------------------------------------------------

#: Whose own third derivatives PyTorch gets wrong: it takes statistics that depend on x as constant.
WRONG_THIRD = {"batch_norm", "layer_norm"}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_pytorchs(name: str) -> None:
    case, (_, found) = CASES[name], evaluated("numpy", "autodiff")
    expected = reference(name)
    z = case.ours(*[a.copy() for a in case.params])
    assert_close(np.reshape(z, -1), expected["outputs"], 1e-12)
    for product in ("grad", "hvp", "third"):
        if product == "third" and name in WRONG_THIRD:
            continue
        assert_close(block(found[product], name), expected[product], 1e-12)


@pytest.mark.parametrize("name", sorted(WRONG_THIRD))
def test_third_derivatives_that_pytorch_gets_wrong(name: str) -> None:
    """Against a difference of Hessian products; PyTorch's own function is off by far more."""
    case = CASES[name]
    oracle = osculant.oracle(lambda params: sine(case.ours(*params)), list(case.params))
    V, W = (block(np.random.default_rng(s).standard_normal(_total()), name) for s in (1, 2))
    x, h = oracle.ravel(list(case.params)), 1e-5
    expected = (oracle.at(x + h * V).hvp(W) - oracle.at(x - h * V).hvp(W)) / (2 * h)
    for backend in BACKENDS:
        assert_close(block(evaluated(backend, "autodiff")[1]["third"], name), expected, 1e-8)
    with pytest.raises(AssertionError):
        assert_close(reference(name)["third"], expected, 1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_backends_and_strategies_agree(name: str, backend: str, strategy: str) -> None:
    expected, found = evaluated("numpy", "autodiff")[1], evaluated(backend, strategy)[1]
    assert_close(found["outputs"], expected["outputs"], 1e-12)
    for product in set(found) - {"outputs"}:
        assert_close(block(found[product], name), block(expected[product], name), 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_differences_of_values(name: str) -> None:
    case = CASES[name]
    oracle = osculant.oracle(lambda params: sine(case.ours(*params)), list(case.params))
    x, h = oracle.ravel(list(case.params)), 1e-6
    v = np.random.default_rng(3).standard_normal(x.shape)
    slope = (oracle.value(x + h * v) - oracle.value(x - h * v)) / (2 * h)
    assert float(oracle.at(x).grad @ v) == pytest.approx(float(slope), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_multicomplex(backend: str) -> None:
    """One bicomplex and one tricomplex pass, on the arrays of every backend."""
    few = ("conv2d", "log_softmax", "max_pool2d same")  # of JAX, which compiles step by step
    params = {name: PARAMS[name] for name in few} if backend == "jax" else PARAMS

    def fun(params: Any) -> Any:
        return sine(everything(params))

    exact = osculant.oracle(fun, params)
    V, W = (np.random.default_rng(s).standard_normal(exact.size) for s in (1, 2))
    pt = exact.at(exact.ravel(params))
    tree, v, w = (
        optree.tree_map(lambda a: make(backend, a), t)
        for t in (params, exact.unravel(V), exact.unravel(W))
    )
    assert_close(host(multicomplex.derivative(fun, tree, v, v)), V @ pt.hvp(V), 1e-12)
    if backend != "jax":
        third = multicomplex.derivative(fun, tree, v, v, w)
        assert_close(host(third), V @ pt.dhvp(V, W), 1e-12)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_float32_stays_float32(backend: str, strategy: str) -> None:
    expected, found = evaluated("numpy", "autodiff")[1], evaluated(backend, strategy, "float32")[1]
    for product, array in found.items():
        assert array.dtype == np.float32
        assert_close(array, expected[product], 2e-5)


def test_float32_stays_float32_on_jax() -> None:
    """The values: JAX derives in the dtype of these."""
    params = optree.tree_map(lambda a: make("jax", a.astype(np.float32)), PARAMS)
    outputs = host(everything(params))
    assert outputs.dtype == np.float32
    assert_close(outputs, evaluated("numpy", "autodiff")[1]["outputs"], 2e-5)


def test_data_are_not_traced() -> None:
    """A function of the kernels alone computes windows of the images once, as a constant."""
    x, w = IMAGES, _normal(3, 4, 3, 3)
    oracle = osculant.oracle(
        model=lambda w, x: ops.conv2d(x, w), loss=lambda z, y: sine(z), params=w
    )
    with mock.patch.object(generic, "pad", side_effect=generic.pad) as counted:
        pt = oracle.at(oracle.ravel(w), x, np.zeros(()))
        pt.hvp(oracle.ravel(w))
    assert counted.call_count == 1
    expected = osculant.oracle(lambda w: sine(ops.conv2d(x, w)), w).at(oracle.ravel(w))
    np.testing.assert_allclose(pt.grad, expected.grad)


# Any geometry --------------------------------------------------------------------------------


@st.composite
def convolutions(draw: Any) -> tuple[Any, Any, dict[str, Any]]:
    small, pair = st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3))
    groups, size, dilation = draw(small), draw(pair), draw(pair)
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    image = [
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 9))
        for k, d, p in zip(size, dilation, padding, strict=True)
    ]
    x = _normal(draw(small), groups * draw(small), *image)
    w = _normal(groups * draw(small), x.shape[1] // groups, *size)
    options = {"stride": draw(pair), "padding": padding, "dilation": dilation, "groups": groups}
    return x, w, options


def check_convolution(x: np.ndarray, w: np.ndarray, options: dict[str, Any]) -> None:
    """Compare values, gradients and Hessian products on the tape with PyTorch's own."""
    oracle = osculant.oracle(lambda p: sine(ops.conv2d(*p, **options)), [x, w])
    pt = oracle.at(oracle.ravel([x, w]))
    v = np.random.default_rng(4).standard_normal(oracle.size)
    own = osculant.oracle(
        lambda p: torch.sin(F.conv2d(*p, **options)).sum(), [torch.tensor(x), torch.tensor(w)]
    )
    expected = own.at(torch.tensor(oracle.ravel([x, w])))
    assert_close(pt.value, expected.value.numpy(), 1e-12)
    assert_close(pt.grad, expected.grad.numpy(), 1e-12)
    assert_close(pt.hvp(v), expected.hvp(torch.tensor(v)).numpy(), 1e-12)


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_convolutions_of_any_geometry(case: Any) -> None:
    check_convolution(*case)


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # of PyTorch, about its speed
@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_same_padding_keeps_the_size(case: Any) -> None:
    x, w, options = case
    options |= {"padding": "same"}
    y = ops.conv2d(x, w, **options)
    assert y.shape[2:] == tuple(
        -(-n // s) for n, s in zip(x.shape[2:], options["stride"], strict=True)
    )
    options |= {"stride": 1}
    expected = F.conv2d(torch.tensor(x), torch.tensor(w), **options)
    assert_close(ops.conv2d(x, w, **options), expected.numpy(), 1e-12)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_pooling_of_any_geometry(data: Any) -> None:
    numbers = st.integers(1, 4)
    size = data.draw(st.tuples(numbers, numbers))
    stride = data.draw(st.tuples(numbers, numbers))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in size)
    x = _normal(
        2,
        2,
        *(data.draw(st.integers(max(1, k - 2 * p), 8)) for k, p in zip(size, padding, strict=True)),
    )
    for ours, theirs in ((ops.max_pool2d, F.max_pool2d), (ops.avg_pool2d, F.avg_pool2d)):
        oracle = osculant.oracle(
            lambda x, f=ours: sine(f(x, size, stride=stride, padding=padding)), x
        )
        leaf = torch.tensor(x, requires_grad=True)
        z = theirs(leaf, size, stride, padding)
        (grad,) = torch.autograd.grad(torch.sin(z).sum(), leaf)
        pt = oracle.at(oracle.ravel(x))
        assert_close(ours(x, size, stride=stride, padding=padding), z.detach().numpy(), 1e-13)
        assert_close(pt.grad, grad.numpy().reshape(-1), 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_of_a_maximum_go_to_the_first(backend: str) -> None:
    x = make(backend, np.zeros((1, 1, 2, 2)))
    oracle = osculant.oracle(lambda x: namespace(x).sum(ops.max_pool2d(x, 2)), x)
    assert host(oracle.at(oracle.ravel(x)).grad).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "slope"), [("relu", 0.0), ("elu", 1.0)])
def test_slopes_at_kinks(backend: str, name: str, slope: float) -> None:
    x = make(backend, np.zeros(1))
    oracle = osculant.oracle(lambda x: namespace(x).sum(getattr(ops, name)(x)), x)
    assert host(oracle.at(oracle.ravel(x)).grad).tolist() == [slope]


# Mutants -------------------------------------------------------------------------------------


def averaged(xp: Any, g: Any, i: int, specs: Any, **taps: Any) -> Any:
    """Return col2im that takes the mean where several windows overlap."""
    count = windows.overlapped(xp, np.ones_like(g), *specs, **taps)
    return windows.overlapped(xp, g, *specs, **taps) / np.maximum(count, 1)


MUTANTS = {
    "zeros at the other end": (
        "zero_pad",
        {"map": lambda xp, x, widths: windows.padded(xp, x, [(a + b, 0) for a, b in widths])},
    ),
    "overlapping windows averaged": ("patches", {"transposed": averaged}),
    "dilation ignored": (
        "patches",
        {
            "map": lambda xp, x, size, stride, dilation: windows.patches(
                xp, x, size, stride, (1, 1)
            )[..., : windows.extent(x.shape[3], size[1], stride[1], dilation[1])]
        },
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(monkeypatch: Any, name: str) -> None:
    x, w = _normal(2, 3, 6, 5), _normal(4, 3, 3, 2)
    options = {"stride": (1, 2), "padding": (1, 1), "dilation": (1, 2)}
    check_convolution(x, w, options)
    row, changes = MUTANTS[name]
    monkeypatch.setitem(LINEAR, row, dataclasses.replace(LINEAR[row], **changes))
    with pytest.raises(AssertionError):
        check_convolution(x, w, options)


def test_a_conjugated_transpose_is_caught(monkeypatch: Any) -> None:
    """It is the identity on real arrays, so that a complex step alone can tell."""
    row = LINEAR["patches"]

    def hvp() -> Any:
        w = _normal(2, 1, 2, 2)
        oracle = osculant.oracle(
            lambda p: sine(ops.conv2d(*p)), [_normal(1, 1, 4, 4), w], products="complex-step"
        )
        x = oracle.ravel([_normal(1, 1, 4, 4), w])
        return oracle.at(x).hvp(np.ones_like(x))

    expected = hvp()
    mutant = dataclasses.replace(
        row, transposed=lambda *args, **p: np.conj(row.transposed(*args, **p))
    )
    monkeypatch.setitem(LINEAR, "patches", mutant)
    assert np.abs(hvp() - expected).max() > 1e-2


# Cost ----------------------------------------------------------------------------------------


def _stack(weights: list[Any], x: Any) -> Any:
    for w in weights:
        x = namespace(w).tanh(ops.conv2d(x, w, padding=1))
    return x


def test_cost_in_forward_passes() -> None:
    """Counts products of matrices, which is what a convolution is on the tape."""
    weights = [0.1 * _normal(8, 8, 3, 3) for _ in range(24)]
    x = _normal(2, 8, 6, 6)
    oracle = osculant.oracle(model=_stack, loss=lambda z, y: sine(z), params=weights)
    vector = oracle.ravel(weights)
    forward = 24 * 2 * 8 * 8 * 9 * 2 * 36

    def cost(call: Any, *args: Any) -> float:
        total = 0

        def matmul(a: Any, b: Any) -> Any:
            nonlocal total
            total += 2 * a.size * b.shape[-1]
            return np.matmul(a, b)

        with mock.patch.object(array_api_compat.numpy, "matmul", matmul):
            call(*args)
        return total / forward

    data = (x, np.zeros(()))
    assert cost(oracle.value, vector, *data) == pytest.approx(1)
    pt = oracle.at(vector, *data)
    assert cost(lambda: oracle.at(vector, *data).grad) <= 3
    _ = pt.grad
    assert 5 < cost(pt.hvp, vector) <= 6
    assert 3 < cost(pt.ggn, vector) <= 4
    assert 1 < cost(pt.vgv, vector) <= 2


# Extreme arguments ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["erf", "erfc"])
def test_error_functions_in_double_precision(name: str) -> None:
    x = np.concatenate([np.linspace(-6, 6, 4001), np.logspace(-300, 1.4, 500), [0.0]])
    expected = np.array([getattr(math, name)(t) for t in x])
    np.testing.assert_allclose(getattr(special, name)(np, x), expected, rtol=4e-15)
    ends = getattr(special, name)(np, np.array([-np.inf, np.inf, np.nan]))
    assert ends.tolist()[:2] == ([-1, 1] if name == "erf" else [2, 0]) and np.isnan(ends[2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_overflow(backend: str, dtype: str) -> None:
    x = make(backend, np.array([-1e4, -500.0, -3.0, 0.0, 3.0, 500.0, 1e4], dtype))
    names = ("elu", "erf", "gelu", "log_softmax", "relu", "sigmoid", "softmax", "softplus")

    def model(params: Any) -> Any:
        return namespace(params["erf"]).concat([getattr(ops, n)(params[n]) for n in names])

    params = dict.fromkeys(names, x)
    oracle = osculant.oracle(model=model, loss=sine, params=params)
    pt = oracle.at(oracle.ravel(params))
    for found in (pt.outputs, pt.grad, pt.hvp(oracle.ravel(params))):
        assert np.all(np.isfinite(host(found)))
    assert_close(host(ops.softplus(x))[[0, 3, 6]], [0, math.log(2), 1e4], 1e-7)
    assert float(ops.logsumexp(x)) == pytest.approx(1e4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_probabilities_keep_their_digits(backend: str) -> None:
    x = make(backend, np.array([-40.0, -35.0]))
    np.testing.assert_allclose(host(ops.sigmoid(x)), np.exp([-40.0, -35.0]), rtol=1e-12)
    np.testing.assert_allclose(host(ops.softplus(x)), np.exp([-40.0, -35.0]), rtol=1e-12)
    np.testing.assert_allclose(
        host(ops.log_softmax(x)), [-5 - math.log1p(math.exp(-5)), -math.log1p(math.exp(-5))]
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_logits(backend: str) -> None:
    x = make(backend, np.array([1.0, -np.inf, 2.0]))
    np.testing.assert_allclose(host(ops.softmax(x))[1], 0)
    assert host(ops.log_softmax(x))[1] == -np.inf
    assert float(ops.logsumexp(x)) == pytest.approx(np.logaddexp(1, 2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_labels_may_be_of_any_integers(backend: str, dtype: str) -> None:
    logits, labels = np.random.default_rng(0).normal(size=(3, 4)), np.array([2, 0, 3])
    loss = ops.cross_entropy(make(backend, logits), make(backend, labels.astype(dtype)))
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(host(loss), -logs[[0, 1, 2], labels].mean(), rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_hot(backend: str) -> None:
    labels = make(backend, np.array([2, 0, 3]))
    dtype = namespace(labels).float32
    found = host(ops.one_hot(labels, 3, dtype))
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]


# Other people's modules ----------------------------------------------------------------------


def test_modules_of_pytorch_take_a_complex_step() -> None:
    """PyTorch's complex convolution subtracts, and would lose the step without a word."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3, padding=1),
        torch.nn.MaxPool2d(2),
        torch.nn.GELU(),
        torch.nn.ConvTranspose2d(3, 2, 2, stride=2),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
    ).double()
    x = torch.tensor(_normal(2, 1, 4, 4))
    exact, stepped = (
        osculant.oracle(model=module, loss=lambda z, y: torch.sin(z).sum(), products=products)
        for products in STRATEGIES
    )
    vector = exact.ravel(dict(module.named_parameters()))
    v = torch.ones_like(vector)
    for product in ("hvp", "ggn"):
        found, expected = (
            getattr(oracle.at(vector, x, None), product)(v) for oracle in (stepped, exact)
        )
        assert_close(found.numpy(), expected.numpy(), 1e-12)


def test_gradients_of_ones_own_take_a_complex_step() -> None:
    def grad(x: Any) -> Any:
        z = ops.conv2d(x, _normal(1, 1, 2, 2), padding="same")
        return ops.gelu(z) + ops.relu(x) * ops.max_pool2d(x, 2, stride=1, padding="same")

    x, v = _normal(1, 1, 3, 4), _normal(1, 1, 4, 3).reshape(1, 1, 3, 4)
    oracle = osculant.oracle(None, x, value=np.sum, grad=grad, products="complex-step")
    found = oracle.at(oracle.ravel(x)).hvp(oracle.ravel(v))
    assert_close(found, multicomplex.derivative(grad, x, v).reshape(-1), 1e-13)
    z = torch.complex(torch.tensor(x), 1e-30 * torch.tensor(v))  # as an own gradient is given
    w = torch.tensor(_normal(1, 1, 2, 2))
    expected = ops.conv2d(v, w.numpy())
    assert_close(ops.conv2d(z, w).imag.numpy() / 1e-30, expected, 1e-13)


# Errors --------------------------------------------------------------------------------------

X, W = np.ones((1, 2, 4, 4)), np.ones((2, 2, 3, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.conv2d(X[0], W),
            r"images of shape \(N, C, H, W\); these have shape \(2, 4, 4\)",
        ),
        (lambda: ops.conv2d(X, W[0]), r"kernels have shape \(O, C, k_h, k_w\)"),
        (lambda: ops.conv2d(X, W[:, :1]), "take 1 channels; the images have 2"),
        (lambda: ops.conv2d(X, W, groups=3), "must divide the 2 channels and the 2 kernels"),
        (lambda: ops.conv2d(X, W, np.ones(3)), r"the bias has shape \(3,\) for 2 kernels"),
        (lambda: ops.conv2d(X, W, dilation=2), "over 5 rows does not fit into an image of 4"),
        (lambda: ops.conv2d(X, W, padding="full"), "padding is 'full'; it is a number, a pair"),
        (lambda: ops.conv2d(X, W, padding=-1), "padding is -1; it is an integer of at least 0"),
        (lambda: ops.conv2d(X, W, stride=0), "stride is 0; it is an integer of at least 1"),
        (lambda: ops.conv2d(X, W, stride=(1, 2, 3)), r"stride is \(1, 2, 3\)"),
        (lambda: ops.max_pool2d(X, 3, padding=2), "more than half a window"),
        (lambda: ops.pad(X, ((1, 1),)), "for an array of 4 axes"),
        (lambda: ops.pad(X[0, 0, 0], ((-1, 1),)), "at least 0"),
        (lambda: ops.gelu(X, "sigmoid"), "it is 'none' or 'tanh'"),
        (lambda: ops.batch_norm(X[0, 0, 0]), r"it is \(N, C\) or \(N, C, ...\)"),
        (lambda: ops.batch_norm(X, np.ones(3)), "x has 2 channels"),
        (lambda: ops.layer_norm(X, np.ones(3)), r"the last axes of x have \(4,\)"),
        (lambda: ops.layer_norm(X, axes=5), "axes is 5; x has 4"),
        (lambda: ops.dropout(X, X > 0, 1.0), "a probability below 1"),
        (lambda: ops.cross_entropy(X[0, 0], np.ones(3)), r"give labels of shape \(4,\)"),
        (
            lambda: ops.cross_entropy(X[0, 0], np.ones(4)),
            "the labels are float64; they are integers",
        ),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("backend", BACKENDS)
def test_dtypes_are_not_mixed(backend: str) -> None:
    with pytest.raises(TypeError, match="nothing is promoted silently"):
        ops.conv2d(make(backend, X), make(backend, W.astype(np.float32)))
