"""JAX: the gradient is linearised once, inside one compiled function; its linear map is data.

``jax.linearize`` of p -> (L, z, u, g), with z = model(p), L = loss(z), u = grad loss(z) and
g = J' u, gives dL, J v, H_L J v and H v at once. The map is a pytree (:class:`jax.tree_util.
Partial`), so it leaves the compiled function as a result and enters the next as an argument;
each product takes one component, and the compiler drops the rest. Within somebody else's trace
the same functions are inlined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core.arrays import Array
from ..core.errors import NotDifferentiable
from ..core.oracle import (
    GAUSS_NEWTON_PRODUCTS,
    HESSIAN_PRODUCTS,
    Objective,
    Oracle,
    Point,
    Product,
    check_outputs,
    check_scalar,
)
from ..core.structure import Structure, Trees
from .jax_flow import JaxFlow

#: The parameters x, of shape (n,), and the data.
Place = tuple[Array, tuple[Any, ...]]


def _flatten(tree: Any) -> tuple[list[str], list[Any], Any]:
    paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    return names, [leaf for _, leaf in paths], treedef


#: Whatever is registered with JAX: its containers, dataclasses, the modules of its libraries.
JAX_TREES = Trees(_flatten, jax.tree_util.tree_unflatten)


class JaxOracle(Oracle):
    """A scalar function of JAX arrays.

    Oracles of the same functions and shapes are equal, so that what was compiled for one serves
    the other.
    """

    flow = JaxFlow()
    products = HESSIAN_PRODUCTS | {Product.THIRD}

    def __init__(self, objective: Objective, structure: Structure) -> None:
        super().__init__(structure)
        self.objective = objective
        if objective.composite:
            self.products |= GAUSS_NEWTON_PRODUCTS
        self._hash = hash((objective, structure))

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, JaxOracle)
            and self.objective == other.objective
            and self.structure == other.structure
        )

    def __hash__(self) -> int:
        return self._hash

    def at(self, x: Array, *data: Any) -> JaxPoint:
        """Linearise once at ``x``, of shape (n,).

        Raises
        ------
        NotDifferentiable
            If the function runs a loop of unknown length, which has no reverse mode.
        """
        self._check(x, data)
        try:
            return JaxPoint(self, (x, data), *_linearize(self, x, data))
        except ValueError as error:
            if "Reverse-mode differentiation" not in str(error):
                raise
            raise NotDifferentiable(
                "JAX has no gradient of a lax.while_loop, nor of a fori_loop with traced bounds: "
                "how many steps there are to go back through is not known when it is compiled. "
                "Take lax.scan or a fori_loop between Python integers, lax.custom_root for the "
                "solution of an equation, or products='finite-difference', which needs values alone"
            ) from error

    def value(self, x: Array, *data: Any) -> Array:
        """Return the function at ``x`` as a 0-d array, by a forward pass that keeps nothing."""
        self._check(x, data)
        return _value(self, x, data)

    def ravel(self, tree: Any) -> Array:
        """Return a tree of parameters as a new vector of shape (n,)."""
        return _strong(super().ravel(tree), self.structure)

    def sibling(self, objective: Objective, example: Any) -> JaxOracle:
        """Return the oracle of another function."""
        return JaxOracle(objective, Structure(example, JAX_TREES))

    def _check(self, x: Array, data: tuple[Any, ...]) -> None:
        self.structure.check(x, name="x")
        for leaf in jax.tree_util.tree_leaves(data):
            if not isinstance(leaf, jax.Array | np.ndarray | np.generic | int | float | complex):
                raise TypeError(
                    f"the data contain a {type(leaf).__name__}; data are arrays, or trees of "
                    "them, that a compiled function takes as arguments: give what is fixed to "
                    "the function itself, for example with functools.partial"
                )


class JaxPoint(Point):
    """A gradient and its linear map.

    Parameters
    ----------
    oracle : JaxOracle
    place : tuple
        The parameters x and the data, for derivatives beyond the second.
    values : Values
        What was computed at the point.
    tangents : Partial
        Maps tangents of the parameters, by leaf, to those of ``values``.
    loss_tangents : Partial or None
        Maps tangents of the outputs to those of ``values.loss_grad``.
    """

    oracle: JaxOracle

    def __init__(
        self, oracle: JaxOracle, place: Place, values: Values, tangents: Any, loss_tangents: Any
    ) -> None:
        super().__init__(oracle)
        self._place = place
        self._values = values
        self._tangents = tangents
        self._loss_tangents = loss_tangents

    @property
    def value(self) -> Array:
        """The function, a 0-d array."""
        return self._values.value

    @property
    def grad(self) -> Array:
        """The gradient, of shape (n,)."""
        return self._values.grad

    @property
    def outputs(self) -> Array:
        """The model's outputs, flattened to shape (m,)."""
        z = self._values.outputs
        return super().outputs if z is None else z.reshape(-1)

    @property
    def loss_grad(self) -> Array:
        """The gradient u of the loss by the model's outputs, of shape (m,)."""
        u = self._values.loss_grad
        return super().loss_grad if u is None else u.reshape(-1)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape in which the loss takes the model's outputs."""
        return tuple(self._values.outputs.shape)

    def _hvp(self, v: Array) -> Array:
        return _hvp(self.oracle, self._tangents, v)

    def _jvp(self, v: Array) -> Array:
        return _jvp(self.oracle, self._tangents, v)

    def _vjp(self, w: Array) -> Array:
        return _vjp(self.oracle, self._tangents, w)

    def _loss_hvp(self, w: Array) -> Array:
        return _loss_hvp(self.oracle, self._loss_tangents, w)

    def _ggn(self, v: Array) -> Array:
        return _ggn(self.oracle, self._tangents, v)

    def _third(self, v: Array) -> Callable[[Array], Array]:
        return partial(_dhvp, self.oracle, self._place, v)

    def _taylor(self, v: Array, order: int) -> Sequence[Array]:
        return _taylor(self.oracle, order, self._place, v)

    def third(self, V: Array) -> Array:
        """Return D^3 f[v, v, v] for each column v of V, all in one program."""
        self._check(Product.THIRD, V)
        return _taylor(self.oracle, 3, self._place, V)[3]

    def _columns(self, product: Callable[[Array], Array], V: Array) -> Array:
        return product(V)  # what is compiled below takes columns too


# What is compiled, once for equal oracles ------------------------------------------------------


class Values(NamedTuple):
    """The functions' values at a point, or their tangents."""

    value: Array
    """L."""
    grad: Array
    """g, of shape (n,)."""
    outputs: Any = None
    """z, in the model's own shape; None for a plain function."""
    loss_grad: Any = None
    """u, of the same shape."""


@partial(jax.jit, static_argnums=0, inline=True)
def _value(oracle: JaxOracle, x: Array, data: tuple[Any, ...]) -> Array:
    structure = oracle.structure
    return _checked(oracle, oracle.objective(structure.build(structure.split(x)), *data))


@partial(jax.jit, static_argnums=0, inline=True)
def _linearize(oracle: JaxOracle, x: Array, data: tuple[Any, ...]) -> tuple[Values, Any, Any]:
    leaves = oracle.structure.split(x)
    values, tangents = jax.linearize(partial(_values, oracle, data), leaves)
    if not oracle.objective.composite:
        return values, tangents, None

    def loss(flat: Array) -> Array:
        return _loss(oracle, data, flat.reshape(values.outputs.shape))

    _, loss_tangents = jax.linearize(jax.grad(loss), values.outputs.reshape(-1))
    return values, tangents, loss_tangents


def _values(oracle: JaxOracle, data: tuple[Any, ...], leaves: list[Array]) -> Values:
    structure, objective = oracle.structure, oracle.objective

    def fun(leaves: list[Array]) -> Array:
        return _checked(oracle, objective(structure.build(leaves), *data))

    def model(leaves: list[Array]) -> Array:
        z = objective.outputs(structure.build(leaves), data)
        check_outputs(z, structure)
        return z

    if not objective.composite:
        value, g = jax.value_and_grad(fun)(leaves)
        return Values(value, structure.join(g))
    z, pull_back = jax.vjp(model, leaves)
    value, u = jax.value_and_grad(partial(_loss, oracle, data))(z)
    (g,) = pull_back(u)
    return Values(value, structure.join(g), z, u)


def _loss(oracle: JaxOracle, data: tuple[Any, ...], z: Array) -> Array:
    return _checked(oracle, oracle.objective.loss_of(z, data))


def _checked(oracle: JaxOracle, value: Any) -> Array:
    check_scalar(value, oracle.structure, "loss" if oracle.objective.composite else "fun")
    return _strong(value, oracle.structure)


def _strong(array: Array, structure: Structure) -> Array:
    """Return ``array`` without JAX's weak type, which would make loops and caches see two types."""
    return jnp.asarray(array, dtype=structure.dtype)


def _product(product: Callable[[Structure, Any, Array], Array]) -> Callable[..., Array]:
    """Compile a product with one vector for V of shape (n,) or (n, k)."""

    @partial(jax.jit, static_argnums=0, inline=True)
    @wraps(product)
    def compiled(oracle: JaxOracle, tangents: Any, V: Array) -> Array:
        one = partial(product, oracle.structure, tangents)
        return one(V) if V.ndim == 1 else jax.vmap(one, in_axes=1, out_axes=1)(V)

    return compiled


@_product
def _hvp(structure: Structure, tangents: Any, v: Array) -> Array:
    return tangents(structure.split(v)).grad


@_product
def _jvp(structure: Structure, tangents: Any, v: Array) -> Array:
    return tangents(structure.split(v)).outputs.reshape(-1)


@_product
def _ggn(structure: Structure, tangents: Any, v: Array) -> Array:
    return _pull_back(structure, tangents, tangents(structure.split(v)).loss_grad.reshape(-1))


@_product
def _loss_hvp(structure: Structure, loss_tangents: Any, w: Array) -> Array:
    return loss_tangents(w)


def _pull_back(structure: Structure, tangents: Any, w: Array) -> Array:
    """Return J' w by transposing the linear map from parameters to outputs."""
    leaves = [jax.ShapeDtypeStruct(shape, structure.dtype) for shape in structure.shapes]
    transpose = jax.linear_transpose(lambda v: tangents(v).outputs.reshape(-1), leaves)
    (g,) = transpose(w)
    return structure.join(g)


_vjp = _product(_pull_back)

# Beyond the second derivative, where the linear map no longer serves -------------------------


def _fun(oracle: JaxOracle, data: tuple[Any, ...], x: Array) -> Array:
    structure = oracle.structure
    return _checked(oracle, oracle.objective(structure.build(structure.split(x)), *data))


@partial(jax.jit, static_argnums=0, inline=True)
def _dhvp(oracle: JaxOracle, place: Place, v: Array, W: Array) -> Array:
    """Return D^3 f[v, w, .] for W of shape (n,) or (n, k), forward over forward over reverse."""
    x, data = place
    grad = jax.grad(partial(_fun, oracle, data))

    def hvp(w: Array, x: Array) -> Array:
        return jax.jvp(grad, (x,), (w,))[1]

    def one(w: Array) -> Array:
        return jax.jvp(partial(hvp, w), (x,), (v,))[1]

    return one(W) if W.ndim == 1 else jax.vmap(one, in_axes=1, out_axes=1)(W)


@partial(jax.jit, static_argnums=(0, 1), inline=True)
def _taylor(oracle: JaxOracle, order: int, place: Place, V: Array) -> list[Array]:
    """Return the derivatives at t = 0 of f(x + t v), by nested jvp: jet lacks many rules.

    Each is 0-d for V of shape (n,), and of shape (k,) for (n, k). What the levels have in common
    the compiler evaluates once.
    """
    if V.ndim == 2:
        return jax.vmap(partial(_taylor, oracle, order, place), in_axes=1)(V)
    x, data = place
    t = jnp.zeros((), dtype=x.dtype)

    def derivative(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return lambda t: jax.jvp(function, (t,), (jnp.ones_like(t),))[1]

    functions: list[Callable[[Array], Array]] = [lambda t: _fun(oracle, data, x + t * V)]
    for _ in range(order):
        functions.append(derivative(functions[-1]))
    return [function(t) for function in functions]
