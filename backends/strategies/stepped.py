"""The oracle that differentiates by steps: every product is the derivative of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import array_api_compat

from ...core.arrays import Array, namespace
from ...core.oracle import (
    GAUSS_NEWTON_PRODUCTS,
    HESSIAN_PRODUCTS,
    Objective,
    Oracle,
    Point,
    Product,
)
from ...core.structure import Structure
from .steps import Step


class Stepped(Oracle):
    """Products of one function by steps.

        H v = D g(x)[v]      J v = D z(x)[v]      H_L u = D grad L(z)[u]

    where D is :meth:`Step.along`, and g_i = D f(x)[e_i] where there is no gradient to ask for.

    Parameters
    ----------
    objective : Objective
    exact : Oracle
        Answers at the points themselves: the value, and what else it has of gradient and VJP.
    extended : Oracle
        Answers where the steps lead.
    extend : callable
        ``extend(objective, structure)`` makes another such oracle, for the loss.
    step : Step
    """

    def __init__(
        self,
        objective: Objective,
        exact: Oracle,
        extended: Oracle,
        extend: Callable[[Objective, Structure], Oracle],
        step: Step,
    ) -> None:
        super().__init__(exact.structure)
        self.flow = exact.flow
        self.objective = objective
        self.exact, self.extended, self.extend, self.step = exact, extended, extend, step
        self.products = HESSIAN_PRODUCTS
        if Product.GRAD not in extended.products and step.nested() is None:
            self.products = frozenset({Product.GRAD})
        if objective.composite:
            self.products |= GAUSS_NEWTON_PRODUCTS
        self.products |= exact.products & {Product.THIRD}

    def remedy(self, product: Product) -> str:
        """Return what to do where ``product``, which is missing, is wanted."""
        if product not in HESSIAN_PRODUCTS:
            return super().remedy(product)
        return (
            "a complex step gives Hessian products of a gradient: give grad=, a function of "
            "complex arrays, or fun instead of value= to have it differentiated"
        )

    @contextmanager
    def held(self, seed: int, *, track: bool = True) -> Iterator[None]:
        """Hold the function where the steps lead as well; its state moves once."""
        with self.exact.held(seed, track=track), self.extended.held(seed, track=False):
            yield

    @property
    def buffers(self) -> Mapping[str, Array]:
        """What the model keeps beside its parameters; not copies."""
        return self.exact.buffers

    def at(self, x: Array, *data: Any) -> SteppedPoint:
        """Evaluate at ``x``, of shape (n,)."""
        self.structure.check(x)
        return SteppedPoint(self, x, data)

    def value(self, x: Array, *data: Any) -> Array:
        """Return the function at ``x`` as a 0-d array."""
        return self.exact.value(x, *data)

    def ravel(self, tree: Any) -> Array:
        """Return a tree of parameters as a new vector of shape (n,)."""
        return self.exact.ravel(tree)


class SteppedPoint(Point):
    """A place, and the functions around it.

    Parameters
    ----------
    oracle : Stepped
    x : array of shape (n,)
        Copied.
    data : tuple
    """

    oracle: Stepped

    def __init__(self, oracle: Stepped, x: Array, data: tuple[Any, ...]) -> None:
        super().__init__(oracle)
        self._x = oracle.structure.xp.asarray(x, copy=True)
        self._data = data
        self._exact = oracle.exact.at(self._x, *data)

    @property
    def value(self) -> Array:
        """The function, a 0-d array."""
        return self._exact.value

    @property
    def grad(self) -> Array:
        """The gradient, of shape (n,)."""
        if Product.GRAD in self.oracle.exact.products:
            return self._exact.grad
        return self.oracle.structure.xp.asarray(self._stepped_grad, copy=True)

    @property
    def outputs(self) -> Array:
        """The model's outputs, flattened to shape (m,)."""
        return self._exact.outputs if self.oracle.objective.composite else super().outputs

    @property
    def loss_grad(self) -> Array:
        """The gradient u of the loss by the model's outputs, of shape (m,)."""
        return self._exact.loss_grad

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape in which the loss takes the model's outputs."""
        return self._exact.output_shape

    @cached_property
    def _stepped_grad(self) -> Array:
        return _gradient(self.oracle.step, self._value_at, self._x)

    def _hvp(self, v: Array) -> Array:
        oracle = self.oracle
        return _second(oracle.step, oracle.extended, self._x, v, self._data)

    def _jvp(self, v: Array) -> Array:
        return self.oracle.step.along(self._outputs_at, self._x, v)

    def _vjp(self, u: Array) -> Array:
        if Product.VJP in self.oracle.exact.products:
            return self._exact.vjp(u)
        xp = self.oracle.structure.xp
        return _gradient(self.oracle.step, lambda x: xp.sum(u * self._outputs_at(x)), self._x)

    def _loss_hvp(self, u: Array) -> Array:
        oracle, z = self.oracle, self._exact.outputs
        structure = Structure(oracle.structure.xp.reshape(z, self.output_shape))
        structure = structure.with_dtype(oracle.extended.structure.dtype)
        loss = oracle.extend(Objective(fun=oracle.objective.loss), structure)
        return _second(oracle.step, loss, z, u, self._data[-1:])

    def _third(self, v: Array) -> Callable[[Array], Array]:
        """Return the exact oracle's: on the tape, a complex step over its Hessian product."""
        return self._exact._third(v)

    def _taylor(self, v: Array, order: int) -> Sequence[Array]:
        return self._exact._taylor(v, order)

    def _value_at(self, x: Array) -> Array:
        return self.oracle.extended.value(x, *self._data)

    def _outputs_at(self, x: Array) -> Array:
        return self.oracle.extended.at(x, *self._data).outputs


def _second(step: Step, oracle: Oracle, x: Array, v: Array, data: tuple[Any, ...]) -> Array:
    """Return H v: the gradient's derivative along ``v``."""
    if Product.GRAD in oracle.products:
        return step.along(lambda x: oracle.at(x, *data).grad, x, v)
    nested = step.nested()
    assert nested is not None, "the product was not declared"
    return nested.along(lambda x: _gradient(nested, lambda x: oracle.value(x, *data), x), x, v)


def _gradient(step: Step, f: Callable[[Array], Array], x: Array) -> Array:
    """Return the gradient of ``f``, coordinate by coordinate."""
    xp = namespace(x)
    places = xp.arange(x.shape[0], device=array_api_compat.device(x))
    return xp.stack([step.along(f, x, xp.astype(places == i, x.dtype)) for i in range(x.shape[0])])
