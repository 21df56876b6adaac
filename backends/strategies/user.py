"""The user's own functions: opaque ones as an oracle, and products that replace an oracle's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import array_api_compat

from ...core.arrays import Array, is_complex, namespace
from ...core.errors import NotAnalytic
from ...core.oracle import (
    GAUSS_NEWTON_PRODUCTS,
    HESSIAN_PRODUCTS,
    Objective,
    Oracle,
    Point,
    Product,
    check_outputs,
    check_scalar,
)
from ...core.structure import Structure
from .analytic import Analytic, unwatched, watching
from .check import Discrepancy, check

#: ``name(params, *data)``, or ``name(params, v, *data)`` for a product with v.
Functions = Mapping[str, Callable[..., Any]]


class BlackBox(Oracle):
    """Calls the user's functions, which are never traced, on plain arrays: real or complex ones.

    It has values, and outputs if the function is a composition, and no derivatives.

    Parameters
    ----------
    objective : Objective
    structure : Structure
        Of real or complex arrays.
    host : Oracle
        Of the same function, on the backend that holds it (:meth:`Oracle.held`).
    """

    products = frozenset()

    def __init__(self, objective: Objective, structure: Structure, host: Oracle) -> None:
        super().__init__(structure)
        self.objective, self.host = objective, host
        self.flow = host.flow

    def remedy(self, product: Product) -> str:
        """Return what to do where ``product``, which is missing, is wanted."""
        if product not in HESSIAN_PRODUCTS:
            return super().remedy(product)
        return (
            "give it as a function of your own, or choose products='complex-step' or "
            "'finite-difference'"
        )

    def at(self, x: Array, *data: Any) -> BlackBoxPoint:
        """Return a point that evaluates when it is asked."""
        self.structure.check(x)
        return BlackBoxPoint(self, x, data)

    def held(self, seed: int, *, track: bool = True) -> AbstractContextManager[None]:
        """Hold the function as its backend does."""
        return self.host.held(seed, track=track)

    def ravel(self, tree: Any) -> Array:
        """Return a tree of parameters as a new vector of shape (n,), outside any graph."""
        return self.host.ravel(tree)

    def prepare(self) -> None:
        """Make ready for an evaluation."""
        self.host.prepare()

    @property
    def buffers(self) -> Mapping[str, Array]:
        """What the model keeps beside its parameters; not copies."""
        return self.host.buffers

    def value(self, x: Array, *data: Any) -> Array:
        """Return the function at ``x`` as a 0-d array."""
        self.structure.check(x)
        self.prepare()
        return _scalar(
            self.structure, _call(self.structure, "fun", self.objective.__call__, x, (), data)
        )


class BlackBoxPoint(Point):
    """A place where the user's functions can be called."""

    oracle: BlackBox

    def __init__(self, oracle: BlackBox, x: Array, data: tuple[Any, ...]) -> None:
        super().__init__(oracle)
        self._x = oracle.structure.xp.asarray(x, copy=True)
        self._data = data

    @cached_property
    def _value(self) -> Array:
        return self.oracle.value(self._x, *self._data)

    @property
    def value(self) -> Array:
        """The function, a 0-d array."""
        return namespace(self._value).asarray(self._value, copy=True)

    @property
    def grad(self) -> Array:
        """There is none."""
        raise self._unavailable(Product.GRAD)

    @cached_property
    def _outputs(self) -> Array:
        structure, objective = self.oracle.structure, self.oracle.objective

        def model(params: Any, *data: Any) -> Any:
            return objective.outputs(params, data)

        self.oracle.prepare()
        z = _call(structure, "model", model, self._x, (), self._data)
        check_outputs(z, structure)
        return z

    @property
    def outputs(self) -> Array:
        """The model's outputs, flattened to shape (m,)."""
        if not self.oracle.objective.composite:
            return super().outputs
        return namespace(self._outputs).asarray(_flat(self._outputs), copy=True)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape in which the loss takes the model's outputs."""
        return tuple(self._outputs.shape)


class Overridden(Oracle):
    """An oracle, some of whose products are the user's own functions.

    Parameters
    ----------
    base : Oracle
    functions : mapping
        By product, and ``value``. Each is called with trees and arrays of the user's own kind:
        ``value`` and ``grad`` as ``grad(params, *data)``, the others as ``hvp(params, v, *data)``,
        where v is a tree like the parameters, or for ``vjp`` and ``loss_hvp`` an array like the
        model's outputs.
    reference : Oracle, optional
        What :meth:`check_analytic` compares with.
    """

    def __init__(self, base: Oracle, functions: Functions, reference: Oracle | None = None) -> None:
        super().__init__(base.structure)
        self.flow = base.flow
        self.base, self.functions = base, dict(functions)
        self.reference = reference
        self.products = _closure(
            base.products | {Product(name) for name in functions if name != "value"}
        )

    def at(self, x: Array, *data: Any) -> OverriddenPoint:
        """Linearise the oracle underneath; the user's functions are called when asked for."""
        self.structure.check(x)
        return OverriddenPoint(self, x, data)

    def value(self, x: Array, *data: Any) -> Array:
        """Return the function at ``x`` as a 0-d array."""
        if "value" not in self.functions:
            return self.base.value(x, *data)
        self.structure.check(x)
        value = _call(self.structure, "value", self.functions["value"], x, (), data)
        return _scalar(self.structure, value)

    def ravel(self, tree: Any) -> Array:
        """Return a tree of parameters as a new vector of shape (n,)."""
        return self.base.ravel(tree)

    def remedy(self, product: Product) -> str:
        """Return what to do where ``product``, which is missing, is wanted."""
        return self.base.remedy(product)

    def held(self, seed: int, *, track: bool = True) -> AbstractContextManager[None]:
        """Hold the oracle underneath; the user's functions answer for themselves."""
        return self.base.held(seed, track=track)

    @property
    def buffers(self) -> Mapping[str, Array]:
        """What the model keeps beside its parameters; not copies."""
        return self.base.buffers

    def check_analytic(self, x: Array, *data: Any, rtol: float | None = None) -> Discrepancy:
        """Compare the gradient and a Hessian product at ``x`` with central differences.

        Parameters
        ----------
        x : array of shape (n,)
        *data
        rtol : float, optional
            Largest error allowed, in units of the largest entry. By default the fourth root of
            machine epsilon: 1e-4 in float64, 2e-2 in float32.

        Returns
        -------
        Discrepancy
            The worst coordinate.

        Raises
        ------
        NotAnalytic
            If the worst coordinate is off by more, naming it.
        """
        if self.reference is None:
            raise TypeError("only an oracle with products='complex-step' has something to check")
        return check(self, self.reference, x, data, rtol)


class OverriddenPoint(Point):
    """A place, where the user's functions answer first."""

    oracle: Overridden

    def __init__(self, oracle: Overridden, x: Array, data: tuple[Any, ...]) -> None:
        super().__init__(oracle)
        self._x = oracle.structure.xp.asarray(x, copy=True)
        self._data = data
        self._base = oracle.base.at(self._x, *data)

    @cached_property
    def _value(self) -> Array:
        return self.oracle.value(self._x, *self._data)

    @property
    def value(self) -> Array:
        """The function, a 0-d array."""
        if "value" not in self.oracle.functions:
            return self._base.value
        return namespace(self._value).asarray(self._value, copy=True)

    @cached_property
    def _grad(self) -> Array:
        return self._flattened("grad", self._call("grad"))

    @property
    def grad(self) -> Array:
        """The gradient, of shape (n,)."""
        if "grad" not in self.oracle.functions:
            return self._base.grad
        return namespace(self._grad).asarray(self._grad, copy=True)

    @property
    def outputs(self) -> Array:
        """The model's outputs, flattened to shape (m,)."""
        return self._base.outputs

    @property
    def loss_grad(self) -> Array:
        """The gradient u of the loss by the model's outputs, of shape (m,)."""
        return self._base.loss_grad

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape in which the loss takes the model's outputs."""
        return self._base.output_shape

    def _hvp(self, v: Array) -> Array:
        return self._of_params("hvp", v, self._base_hvp)

    def _base_hvp(self, v: Array) -> Array:
        return self._base._hvp(v)

    def _ggn(self, v: Array) -> Array:
        parts = {"jvp", "vjp", "loss_hvp"}
        if parts & self.oracle.functions.keys() or Product.GGN not in self.oracle.base.products:
            return self._of_params("ggn", v, super()._ggn)
        return self._of_params("ggn", v, lambda v: self._base._ggn(v))

    def _jvp(self, v: Array) -> Array:
        if "jvp" not in self.oracle.functions:
            return self._base._jvp(v)
        return _flat(self._call("jvp", self._tree(v)))

    def _vjp(self, u: Array) -> Array:
        if "vjp" not in self.oracle.functions:
            return self._base._vjp(u)
        return self._flattened("vjp", self._call("vjp", self._like_outputs(u)))

    def _loss_hvp(self, u: Array) -> Array:
        if "loss_hvp" not in self.oracle.functions:
            return self._base._loss_hvp(u)
        return _flat(self._call("loss_hvp", self._like_outputs(u)))

    def _third(self, v: Array) -> Callable[[Array], Array]:
        return self._base._third(v)

    def _taylor(self, v: Array, order: int) -> Sequence[Array]:
        return self._base._taylor(v, order)

    def vhv(self, V: Array) -> Array:
        """Return v' H v for each column v of V: 0-d for V of shape (n,), (k,) for (n, k)."""
        return self._form(Product.VHV, V, super().vhv)

    def vgv(self, V: Array) -> Array:
        """Return v' G v for each column v of V."""
        return self._form(Product.VGV, V, super().vgv)

    def _form(self, product: Product, V: Array, derived: Callable[[Array], Array]) -> Array:
        if product not in self.oracle.functions:
            return derived(V)
        return self._apply(product, lambda v: self._call(product, self._tree(v)), V)

    def _columns(self, product: Callable[[Array], Array], V: Array) -> Array:
        columns = [product(V[:, j]) for j in range(V.shape[1])]
        return namespace(V).stack(columns, axis=columns[0].ndim if columns else 0)

    def _of_params(self, name: str, v: Array, otherwise: Callable[[Array], Array]) -> Array:
        if name not in self.oracle.functions:
            return otherwise(v)
        return self._flattened(name, self._call(name, self._tree(v)))

    def _like_outputs(self, u: Array) -> Array:
        return namespace(u).reshape(u, self.output_shape)

    def _tree(self, v: Array) -> Any:
        return self.oracle.structure.unravel(v)

    def _call(self, name: str, *vectors: Any) -> Any:
        function = self.oracle.functions[name]
        return _call(self.oracle.structure, name, function, self._x, vectors, self._data)

    def _flattened(self, name: str, tree: Any) -> Array:
        structure = self.oracle.structure
        if _is_complex_structure(structure):
            for leaf in structure.trees.flatten(tree)[1]:
                _check_complex(leaf, name)
        return structure.ravel(tree)


# ---------------------------------------------------------------------------------------------


def _call(
    structure: Structure,
    name: str,
    function: Callable[..., Any],
    x: Array,
    vectors: tuple[Any, ...],
    data: tuple[Any, ...],
) -> Any:
    """Call the user's function with new trees; complex arrays of NumPy's are kept under watch."""
    leaves = structure.split(structure.xp.asarray(x, copy=True))
    if not (_is_complex_structure(structure) and array_api_compat.is_numpy_array(x)):
        return function(structure.build(leaves), *vectors, *data)
    with watching(name):
        result = function(
            structure.build([leaf.view(Analytic) for leaf in leaves]), *vectors, *data
        )
    _, leaves, treedef = structure.trees.flatten(result)
    return structure.trees.unflatten(treedef, [unwatched(leaf) for leaf in leaves])


def _flat(array: Array) -> Array:
    return namespace(array).reshape(array, (-1,))


def _is_complex_structure(structure: Structure) -> bool:
    return bool(structure.xp.isdtype(structure.dtype, "complex floating"))


def _check_complex(array: Any, name: str) -> None:
    if not is_complex(array):
        raise NotAnalytic(
            f"{name} returned {getattr(array, 'dtype', type(array).__name__)} for complex "
            "arguments, so that its derivative is lost: compute without abs, real, conj or a cast "
            "to real dtypes, or use products='finite-difference'"
        )


def _scalar(structure: Structure, value: Any) -> Array:
    """Return what a black box returned, a number perhaps, as a 0-d array."""
    xp = structure.xp
    if _is_complex_structure(structure) and not isinstance(value, complex):
        _check_complex(value, "the function")
    if isinstance(value, float | complex) and not hasattr(value, "dtype"):
        value = xp.asarray(value, dtype=structure.dtype, device=structure.device)
    check_scalar(value, structure)
    return xp.asarray(value, copy=True)


def _closure(products: frozenset[Product]) -> frozenset[Product]:
    """Return the products, and those that are derived from them."""
    if Product.HVP in products:
        products |= {Product.VHV}
    if products >= {Product.JVP, Product.LOSS_HVP}:
        products |= {Product.VGV}
    if products >= {Product.JVP, Product.VJP, Product.LOSS_HVP}:
        products |= {Product.GGN}
    return products


def check_functions(functions: Functions, composite: bool) -> None:
    """Raise TypeError unless these are functions that an oracle's products can be."""
    names = {"value", *(product.value for product in Product if product is not Product.THIRD)}
    for name, function in functions.items():
        if name not in names:
            raise TypeError(
                f"oracle() has no argument {name!r}; the functions of your own that it takes are: "
                f"{', '.join(sorted(names))}"
            )
        if not callable(function):
            raise TypeError(f"{name}= is a {type(function).__name__}; a function is needed")
        if name in GAUSS_NEWTON_PRODUCTS - {Product.GGN, Product.VGV} and not composite:
            raise TypeError(f"{name}= needs the function as a composition: give model= and loss=")
