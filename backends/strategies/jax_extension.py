"""JAX at complex points: the program of real arrays, evaluated in complex arithmetic.

The function, or its gradient, is traced as a program (jaxpr) of real arrays, and that is run on
complex ones: JAX's own derivatives stay those of a real function, whatever branches by the
real part does so, what is real stays real, and the conventions of complex differentiation
never come in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import sparse
from jax.extend.core import primitives

from ...core.arrays import Array
from ...core.errors import NotAnalytic
from ...core.oracle import Objective, Oracle, Point, Product
from ...core.structure import Structure
from ..jax_backend import JaxFlow


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


# The interpreter ---------------------------------------------------------------------------


def evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Run a program of real arrays on complex ones.

    Raises
    ------
    NotAnalytic
        If a step of it has no rule for complex arrays.
    """
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= zip(jaxpr.invars, args, strict=True)

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]

    for step in jaxpr.eqns:
        inputs = [read(atom) for atom in step.invars]
        results = _apply(step, inputs)
        values |= zip(step.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _apply(step: Any, inputs: list[Any]) -> Sequence[Any]:
    name, params = step.primitive.name, step.params
    inner = next((params[key] for key in _INNER if key in params), None)
    if inner is not None and name not in _LOOPS:
        return _run(inner, inputs)  # a call is inlined
    if any(map(_is_complex, inputs)):
        if name in _RULES:
            result = _RULES[name](*inputs, **params)
            return result if step.primitive.multiple_results else [result]
        if name in _LOOPS or name in _REFUSED:
            raise NotAnalytic(
                f"JAX's {name} has no rule for a complex step: use products='autodiff' or "
                "'finite-difference', or a gradient of your own"
            )
        inputs = [_re(x) for x in inputs] if name in _OF_REAL_PARTS else _promoted(inputs)
    results = step.primitive.bind(*inputs, **params)
    return results if step.primitive.multiple_results else [results]


def _run(inner: Any, inputs: list[Any]) -> list[Any]:
    if hasattr(inner, "consts"):
        return evaluate(inner.jaxpr, inner.consts, inputs)
    return evaluate(inner, [], inputs)


def _promoted(inputs: Sequence[Any]) -> list[Any]:
    """Return floating arrays as complex ones; integers and booleans stay."""
    dtype = next(x.dtype for x in inputs if _is_complex(x))
    return [
        jnp.asarray(x, dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x
        for x in inputs
    ]


def _is_complex(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.complexfloating)


def _re(x: Any) -> Any:
    return jnp.real(x) if _is_complex(x) else x


# Rules -------------------------------------------------------------------------------------

#: Where a call keeps the program that it calls.
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")

_LOOPS = frozenset({"scan", "while", "cond", "custom_linear_solve"})

#: Piecewise constant functions, and those that select by order.
_OF_REAL_PARTS = frozenset(
    """
    argmax argmin ceil eq floor ge gt is_finite le lt ne round sign
    """.split()  # noqa: SIM905
)

#: Without a complex version, or with one that is not analytic.
_REFUSED = frozenset(
    """
    cholesky digamma eigh erf_inv igamma igammac imag lgamma qr svd nextafter polygamma
    bessel_i0e bessel_i1e cummax cummin cumlogsumexp reduce_precision triangular_solve
    bcoo_dot_general_sampled bcoo_spdot_general
    """.split()  # noqa: SIM905
)


def _elementwise(f: Callable[[Any], Any]) -> Callable[..., Any]:
    """f(a + ib) = f(a) + i b f'(a), up to O(b^2), where JAX has no (fast) complex version."""

    def rule(z: Array, **_: Any) -> Array:
        return jax.lax.complex(*jax.jvp(f, (z.real,), (z.imag,)))

    return rule


def _select_by_real_part(sign: float) -> Callable[..., Any]:
    def rule(x: Array, y: Array, **_: Any) -> Array:
        x, y = _promoted([x, y])
        difference = sign * (x.real - y.real)
        return jnp.where(difference == 0, 0.5 * (x + y), jnp.where(difference > 0, x, y))

    return rule


def _reduce_by_real_part(reduce: Callable[..., Array]) -> Callable[..., Any]:
    def rule(x: Array, axes: Any, **_: Any) -> Array:
        ties = x.real == reduce(x.real, axis=axes, keepdims=True)
        count = jnp.sum(ties, axis=axes)
        im = jnp.sum(jnp.where(ties, x.imag, 0.0), axis=axes) / jnp.maximum(count, 1)
        return jax.lax.complex(reduce(x.real, axis=axes), im)

    return rule


def _bilinear(primitive: Any) -> Callable[..., Any]:
    """By products of real arrays: XLA's complex product costs ten of them on the CPU.

    Between the factors stand the indices of a sparse one.
    """

    def rule(x: Array, *between: Array, **params: Any) -> Array:
        *indices, y = between

        def product(x: Array, y: Array) -> Array:
            return primitive.bind(x, *indices, y, **params)

        if not _is_complex(x):
            return jax.lax.complex(product(x, y.real), product(x, y.imag))
        if not _is_complex(y):
            return jax.lax.complex(product(x.real, y), product(x.imag, y))
        re = product(x.real, y.real) - product(x.imag, y.imag)
        return jax.lax.complex(re, product(x.real, y.imag) + product(x.imag, y.real))

    return rule


def _scatter_add(x: Array, indices: Array, updates: Array, **params: Any) -> Array:
    x, updates = _promoted([x, updates])  # params hold the addition of real numbers
    add = partial(primitives.scatter_add_p.bind, **params)
    return jax.lax.complex(add(x.real, indices, updates.real), add(x.imag, indices, updates.imag))


def _linear_by(primitive: Any) -> Callable[..., Any]:
    """Return the rule for a linear function of x that selects by the order of y."""

    def rule(x: Array, y: Array, **params: Any) -> Array:
        select = partial(primitive.bind, **params)
        if not _is_complex(x):
            return select(x, y.real)
        return jax.lax.complex(select(x.real, _re(y)), select(x.imag, _re(y)))

    return rule


def _convert(x: Array, *, new_dtype: Any, **_: Any) -> Array:
    if jnp.issubdtype(new_dtype, jnp.floating):
        return x.astype(jnp.result_type(new_dtype, jnp.complex64))
    return x.real.astype(new_dtype)


def _clamp(low: Any, x: Any, high: Any, **_: Any) -> Array:
    low, x, high = _promoted([low, x, high])
    x = jnp.where(x.real < low.real, low, x)
    return jnp.where(x.real > high.real, high, x)


def _sorted(*operands: Any, dimension: int, num_keys: int, **_: Any) -> list[Array]:
    if num_keys > 1:
        raise NotAnalytic("JAX's sort by several keys has no rule for a complex step")
    order = jnp.argsort(_re(operands[0]), axis=dimension, stable=True)
    return [jnp.take_along_axis(each, order, axis=dimension) for each in operands]


_RULES: dict[str, Callable[..., Any]] = {
    "abs": lambda x, **_: x * jnp.sign(x.real),
    "real": lambda x, **_: x,
    "conj": lambda x, **_: x,
    "max": _select_by_real_part(1.0),
    "min": _select_by_real_part(-1.0),
    "reduce_max": _reduce_by_real_part(jnp.max),
    "reduce_min": _reduce_by_real_part(jnp.min),
    "dot_general": _bilinear(primitives.dot_general_p),
    "bcoo_dot_general": _bilinear(sparse.bcoo_dot_general_p),
    "bcsr_dot_general": _bilinear(sparse.bcsr_dot_general_p),
    "conv_general_dilated": _bilinear(primitives.conv_general_dilated_p),
    "scatter-add": _scatter_add,
    "reduce_window_max": lambda z, **params: _elementwise(
        partial(primitives.reduce_window_max_p.bind, **params)
    )(z),
    "select_and_gather_add": _linear_by(primitives.select_and_gather_add_p),
    "select_and_scatter_add": _linear_by(primitives.select_and_scatter_add_p),
    "convert_element_type": _convert,
    "clamp": _clamp,
    "sort": _sorted,
    "stop_gradient": lambda x, **_: x,
    "rem": lambda x, y, **_: x - y * jnp.trunc(_re(x) / _re(y)),
    "atan2": lambda y, x, **_: _atan2(y, x),
    "select_n": lambda which, *cases, **_: jax.lax.select_n(_re(which), *_promoted(cases)),
    **{
        name: _elementwise(getattr(jax.lax, name))
        for name in (
            "tanh",
            "logistic",
            "erf",
            "erfc",
            "cbrt",
            "expm1",
            "log1p",
            "tan",
            "asinh",
            "acosh",
        )
    },
}


def _atan2(y: Any, x: Any) -> Array:
    a, b = _re(x), _re(y)
    tangents = (jnp.imag(y), jnp.imag(x))
    return jax.lax.complex(*jax.jvp(jnp.arctan2, (b, a), tangents))
