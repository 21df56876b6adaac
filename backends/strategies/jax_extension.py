"""JAX at complex points: the program of real arrays, evaluated in complex arithmetic.

The function, or its gradient, is traced as a program (jaxpr) of real arrays, and that is run on
complex ones: JAX's own derivatives stay those of a real function, whatever branches by the
real part does so, what is real stays real, and the conventions of complex differentiation
never come in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from ...core.arrays import Array
from ...core.oracle import Objective, Oracle, Point, Product
from ...core.structure import Structure
from ..jax_flow import JaxFlow
from .jax_interpreter import evaluate


class HolomorphicJaxOracle(Oracle):
    """Gradients and outputs of the analytic extension of a function; its structure is complex."""

    flow = JaxFlow()
    products = frozenset({Product.GRAD})

    def __init__(self, objective: Objective, structure: Structure) -> None:
        super().__init__(structure)
        self.objective = objective

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, HolomorphicJaxOracle)
            and self.objective == other.objective
            and self.structure == other.structure
        )

    def __hash__(self) -> int:
        return hash((self.objective, self.structure))

    def at(self, x: Array, *data: Any) -> HolomorphicJaxPoint:
        """Return the point ``x``, complex and of shape (n,); it evaluates when it is asked."""
        return HolomorphicJaxPoint(self, x, data)

    def value(self, x: Array, *data: Any) -> Array:
        """Return the function at ``x`` as a complex 0-d array."""
        return _value(self, x, data)


class HolomorphicJaxPoint(Point):
    """A place off the real axis."""

    oracle: HolomorphicJaxOracle

    def __init__(self, oracle: HolomorphicJaxOracle, x: Array, data: tuple[Any, ...]) -> None:
        super().__init__(oracle)
        self._x, self._data = x, data

    @property
    def value(self) -> Array:
        """The function, a 0-d array."""
        return _value(self.oracle, self._x, self._data)

    @property
    def grad(self) -> Array:
        """The gradient, of shape (n,)."""
        return _grad(self.oracle, self._x, self._data)

    @property
    def outputs(self) -> Array:
        """The model's outputs, flattened to shape (m,)."""
        return _outputs(self.oracle, self._x, self._data)


def _extended(function: Callable[..., Array]) -> Callable[..., Array]:
    """Compile the extension of ``function(oracle, data, x)``, for x of shape (n,)."""

    @partial(jax.jit, static_argnums=0)
    def compiled(oracle: HolomorphicJaxOracle, x: Array, data: tuple[Any, ...]) -> Array:
        real = x.real
        program = jax.make_jaxpr(partial(function, oracle))(data, real)
        (result,) = evaluate(program.jaxpr, program.consts, [*jax.tree_util.tree_leaves(data), x])
        return result.astype(x.dtype)  # a constant is real

    return compiled


def _fun(oracle: HolomorphicJaxOracle, data: tuple[Any, ...], leaves: list[Array]) -> Array:
    return oracle.objective(oracle.structure.build(leaves), *data)


@_extended
def _value(oracle: HolomorphicJaxOracle, data: tuple[Any, ...], x: Array) -> Array:
    return _fun(oracle, data, oracle.structure.split(x))


@_extended
def _grad(oracle: HolomorphicJaxOracle, data: tuple[Any, ...], x: Array) -> Array:
    structure = oracle.structure
    return structure.join(jax.grad(partial(_fun, oracle, data))(structure.split(x)))


@_extended
def _outputs(oracle: HolomorphicJaxOracle, data: tuple[Any, ...], x: Array) -> Array:
    structure = oracle.structure
    return oracle.objective.outputs(structure.build(structure.split(x)), data).reshape(-1)
