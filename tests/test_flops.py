"""The cost contract, in units of one forward pass: one test, three ways to count operations."""

import math
from typing import Any
from unittest import mock

import array_api_compat.numpy
import numpy as np
import pytest

import osculant
from osculant import multicomplex
from osculant.core.arrays import namespace
from osculant.core.partition import canonical
from osculant.testing.mutants import MUTANTS

LAYERS, WIDTH, BATCH = 24, 128, 16
FORWARD = LAYERS * 2 * WIDTH * WIDTH * BATCH


def model(weights: list[Any], X: Any) -> Any:
    for W in weights:
        X = namespace(W).tanh(X @ W)
    return X


def loss(z: Any, y: Any) -> Any:
    return 0.5 * namespace(z).sum((z - y) ** 2)


class Counted(np.ndarray):
    """An array that counts the operations of the matrix products it takes part in."""

    flops = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if not all(isinstance(a, np.ndarray | np.generic | float | int) for a in inputs):
            return NotImplemented  # a traced array knows better
        plain = [_plain(a) for a in inputs]
        if "out" in kwargs:
            kwargs["out"] = tuple(_plain(a) for a in kwargs["out"])
        result = getattr(ufunc, method)(*plain, **kwargs)
        if ufunc in (np.matmul, np.vecdot, np.matvec, np.vecmat):
            # each entry of the result is a sum over the axis that is gone
            factor = 4 if np.iscomplexobj(result) else 1
            Counted.flops += factor * 2 * result.size * plain[0].shape[-1]
        return np.asarray(result).view(Counted)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        assert function not in (np.dot, np.einsum, np.inner, np.tensordot), "not counted"
        return super().__array_function__(function, types, args, kwargs)


def _plain(a: Any) -> Any:
    return a.view(np.ndarray) if isinstance(a, Counted) else a


class NumpyMeter:
    def array(self, a: np.ndarray) -> Any:
        return a.copy().view(Counted)

    def flops(self, call: Any, *args: Any) -> float:
        Counted.flops = 0
        call(*args)
        return Counted.flops


class TapeMeter:
    """Counts the real matrix products that the tape asks of its namespace."""

    def array(self, a: np.ndarray) -> Any:
        return a.copy()

    def flops(self, call: Any, *args: Any) -> float:
        total = 0

        def matmul(a: Any, b: Any) -> Any:
            nonlocal total
            factor = 4 if np.iscomplexobj(a) or np.iscomplexobj(b) else 1
            total += factor * 2 * a.size * b.shape[-1]
            return np.matmul(a, b)

        with mock.patch.object(array_api_compat.numpy, "matmul", matmul):
            call(*args)
        return total


class TorchMeter:
    def __init__(self) -> None:
        self.torch = pytest.importorskip("torch")

    def array(self, a: np.ndarray) -> Any:
        return self.torch.asarray(a)

    def flops(self, call: Any, *args: Any) -> float:
        from torch.utils.flop_counter import FlopCounterMode

        def product(a: Any, b: Any, **_: Any) -> int:
            factor = 4 if a.is_complex() or b.is_complex() else 1
            return factor * 2 * a.numel() * b.shape[-1]

        product._get_raw = True  # type: ignore[attr-defined]  # of tensors, not of their shapes
        formulas = {self.torch.ops.aten.mm: product}
        with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
            call(*args)
        return counter.get_total_flops()


class JaxMeter:
    """Counts all operations of the compiled function, elementwise ones as well."""

    def __init__(self) -> None:
        self.jax = pytest.importorskip("jax")

    def array(self, a: np.ndarray) -> Any:
        return self.jax.numpy.asarray(a)

    def flops(self, call: Any, *args: Any) -> float:
        return self.jax.jit(call).lower(*args).compile().cost_analysis()["flops"]


class JaxProductsMeter(JaxMeter):
    """Counts the matrix products that the program asks for, before it is compiled."""

    def flops(self, call: Any, *args: Any) -> float:
        return self._of(self.jax.make_jaxpr(call)(*args).jaxpr)

    def _of(self, program: Any) -> float:
        total = 0
        for step in program.eqns:
            if step.primitive.name == "dot_general":
                (summed, _), _ = step.params["dimension_numbers"]
                a, (y,) = step.invars[0].aval, step.outvars
                factor = 4 if np.issubdtype(y.aval.dtype, np.complexfloating) else 1
                total += factor * 2 * y.aval.size * math.prod(a.shape[i] for i in summed)
            if "jaxpr" in step.params:
                total += self._of(step.params["jaxpr"].jaxpr)
        return total


def _array(meter: Any, seed: int, *shape: int) -> Any:
    normal = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return meter.array(normal / WIDTH**0.5)


def _problem(meter: Any) -> tuple[Any, Any, Any, tuple[Any, Any]]:
    """Return an oracle, parameters, a direction and data."""
    weights = [_array(meter, seed, WIDTH, WIDTH) for seed in range(LAYERS)]
    oracle = osculant.oracle(model=model, loss=loss, params=weights)
    x, v = _array(meter, 30, oracle.size), _array(meter, 31, oracle.size)
    return oracle, x, v, (_array(meter, 32, BATCH, WIDTH), _array(meter, 33, BATCH, WIDTH))


@pytest.mark.parametrize("meter_of", [NumpyMeter, TorchMeter, JaxMeter])
def test_cost_in_forward_passes(meter_of: Any) -> None:
    meter = meter_of()
    oracle, x, v, data = _problem(meter)

    def cost(call: Any, *args: Any) -> float:
        return meter.flops(call, *args) / FORWARD

    assert 0.99 < cost(oracle.value, x, *data) < 1.01
    gradient = cost(lambda x, *data: oracle.at(x, *data).grad, x, *data)
    assert 2.9 < gradient <= 3
    assert cost(lambda x, *data: oracle.at(x, *data).value, x, *data) <= gradient

    point = oracle.at(x, *data)
    _ = point.grad  # which a backend may leave for when it is first asked for
    assert 5 < cost(point.hvp, v) <= 6
    assert 5 < cost(point.vhv, v) <= 6
    assert 3 < cost(point.ggn, v) <= 4
    assert 1 < cost(point.vgv, v) <= 2


@pytest.mark.parametrize(
    ("meter_of", "most", "along_a_tensor"),
    [(NumpyMeter, 8, 4), (TapeMeter, 8, 4), (TorchMeter, 20, 3.1), (JaxMeter, 9, 9)],
)
def test_third_order_in_forward_passes(meter_of: Any, most: float, along_a_tensor: float) -> None:
    """A forward sweep to order 3; PyTorch's differentiates its graph twice more instead."""
    meter = meter_of()
    oracle, x, v, data = _problem(meter)
    point = oracle.at(x, *data)
    _ = point.grad
    assert 5 < meter.flops(point.third, v) / FORWARD <= most
    U = canonical(oracle.structure).restrictions(v)
    assert meter.flops(point.third, U) / LAYERS / FORWARD <= along_a_tensor


@pytest.mark.parametrize("meter_of", [NumpyMeter, TapeMeter, TorchMeter])
def test_products_along_single_tensors_leave_out_the_others(meter_of: Any) -> None:
    """Half of the tangents, on average, and half of what they enter; JAX's sweeps are whole."""
    meter = meter_of()
    oracle, x, v, data = _problem(meter)
    point = oracle.at(x, *data)
    _ = point.grad
    U = canonical(oracle.structure).restrictions(v)
    assert meter.flops(point.hvp, U) / LAYERS / FORWARD < 3.5
    assert meter.flops(point.jvp, U) / LAYERS / FORWARD < 0.7


@pytest.mark.parametrize("meter_of", [NumpyMeter, TorchMeter])
def test_evaluating_again_is_noticed(meter_of: Any) -> None:
    meter = meter_of()
    oracle, x, v, data = _problem(meter)
    point = MUTANTS["Reevaluates"].wrap(oracle).at(x, *data)
    assert meter.flops(point.hvp, v) / FORWARD > 8


@pytest.mark.parametrize("meter_of", [TapeMeter, TorchMeter, JaxProductsMeter])
def test_complex_step_in_gradients(meter_of: Any) -> None:
    """A complex product is three real ones; two where it is of the data, which stay real."""
    meter = meter_of()
    exact, x, v, data = _problem(meter)
    weights = exact.unravel(x)
    oracle = osculant.oracle(model=model, loss=loss, params=weights, products="complex-step")
    gradient = meter.flops(lambda x, *data: exact.at(x, *data).grad, x, *data)
    point = oracle.at(x, *data)
    _ = point.grad
    assert 2.5 < meter.flops(point.hvp, v) / gradient <= 3.0


def test_bicomplex_form_in_forward_passes() -> None:
    """v'Hv by one bicomplex pass: nine real products at most for each of the function's."""
    meter = TapeMeter()
    oracle, x, v, data = _problem(meter)
    weights, direction = oracle.unravel(x), oracle.unravel(v)

    def fun(weights: Any, X: Any, y: Any) -> Any:
        return loss(model(weights, X), y)

    def form() -> Any:
        return multicomplex.derivative(fun, weights, direction, direction, data=data)

    assert 2 < meter.flops(form) / FORWARD <= 9
    np.testing.assert_allclose(form(), oracle.at(x, *data).vhv(v), rtol=1e-3)
