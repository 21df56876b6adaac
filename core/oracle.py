"""The contract: an oracle linearises a function at a point; the point answers products.

To plug in derivatives of your own, subclass :class:`Oracle` with two methods (``at`` and
``value``) and :class:`Point` with the primitives you have. Everything else is derived here,
once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Any, NamedTuple

from .arrays import Array, columnwise_dot, dot, namespace
from .errors import ProductUnavailable
from .flow import EAGER, Flow
from .operators import Operator
from .structure import Structure, check_vector


class Product(StrEnum):
    """What a point can be asked for."""

    GRAD = "grad"
    HVP = "hvp"
    VHV = "vhv"
    GGN = "ggn"
    VGV = "vgv"
    JVP = "jvp"
    VJP = "vjp"
    LOSS_HVP = "loss_hvp"
    THIRD = "third"


#: The products of a plain scalar function.
HESSIAN_PRODUCTS = frozenset({Product.GRAD, Product.HVP, Product.VHV})
#: The products that need the function to be given as ``loss`` of a ``model``.
GAUSS_NEWTON_PRODUCTS = frozenset(
    {Product.GGN, Product.VGV, Product.JVP, Product.VJP, Product.LOSS_HVP}
)
#: What to do where they are missing.
AS_COMPOSITION = (
    "Gauss-Newton products need the function as a composition: build the oracle with "
    "osculant.oracle(model=..., loss=..., params=...)"
)


class Objective(NamedTuple):
    """The user's functions: either ``fun``, or the composition ``loss(model(params))``.

    ``fun(params, *data)`` returns a scalar. In a composition the last of the data belongs to
    the loss and all before it to the model: ``loss(model(params, *data[:-1]), data[-1])``;
    without data it is ``loss(model(params))``.
    """

    fun: Callable[..., Any] | None = None
    model: Callable[..., Any] | None = None
    loss: Callable[..., Any] | None = None

    @property
    def composite(self) -> bool:
        """Whether it is a composition, so that it has Gauss-Newton products."""
        return self.fun is None

    def outputs(self, params: Any, data: tuple[Any, ...]) -> Any:
        """Return the model's outputs."""
        assert self.model is not None
        return _call(self.model, params, *data[:-1])

    def loss_of(self, outputs: Any, data: tuple[Any, ...]) -> Any:
        """Return the loss of the model's outputs."""
        assert self.loss is not None
        return _call(self.loss, outputs, *data[-1:])

    def __call__(self, params: Any, *data: Any) -> Any:
        """Return the scalar."""
        if self.fun is not None:
            return _call(self.fun, params, *data)
        return self.loss_of(self.outputs(params, data), data)


_KIND = (
    "The function is called with arrays of the framework that the parameters are from. If it was "
    "written for another, give it its own: jax.numpy.asarray(x0) for jax.numpy, and so on."
)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the user, and note what an error may come from."""
    try:
        return function(*arguments)
    except (TypeError, AttributeError) as error:
        if _KIND not in getattr(error, "__notes__", ()):
            error.add_note(_KIND)
        raise


class Oracle(ABC):
    """Answers value, gradient and curvature products of one function of a flat vector.

    Attributes
    ----------
    structure : Structure
        Between the user's tree of parameters and the vector of shape (n,).
    products : frozenset of Product
        What its points can be asked for.
    flow : Flow
        Control flow for algorithms that run on this oracle's arrays.
    """

    flow: Flow = EAGER
    products: frozenset[Product] = HESSIAN_PRODUCTS

    def __init__(self, structure: Structure) -> None:
        self.structure = structure

    @abstractmethod
    def at(self, x: Array, *data: Any) -> Point:
        """Linearise once at ``x``, of shape (n,); the point's products reuse that.

        Costs no more than one gradient. The point stays valid after ``x`` is overwritten.
        """

    @abstractmethod
    def value(self, x: Array, *data: Any) -> Array:
        """Return the function at ``x`` as a 0-d array, by a forward pass that keeps nothing."""

    def held(self, seed: int, *, track: bool = True) -> AbstractContextManager[None]:
        """Return the context of one step, within which the function is one and the same.

        A model with a state of its own, such as a torch module in training mode, draws in each
        evaluation the numbers that ``seed`` gives, and moves its running statistics once, as the
        first evaluation does; not at all unless ``track``. Pure functions have nothing to hold:
        they draw from their data.
        """
        return nullcontext()

    def remedy(self, product: Product) -> str:
        """Return what to do where ``product``, which is missing, is wanted."""
        if product in GAUSS_NEWTON_PRODUCTS:
            return AS_COMPOSITION
        return "the NumPy, PyTorch and JAX backends supply it: see osculant.backends"

    def advice(self, product: Product) -> str:
        """Return the remedy for ``product``, and what there is, as sentences."""
        offered = ", ".join(sorted(self.products)) or "nothing"
        return f"{self.remedy(product)}. It has: {offered}."

    def prepare(self) -> None:  # noqa: B027
        """Make ready for an evaluation of the function as it is held; called before each."""

    def agreed(self, number: float) -> float:
        """Return what all processes that share the work go by, where each has a ``number``."""
        return number

    def composition(self) -> Objective:
        """Return the user's model and loss, to be run on this oracle's arrays.

        Raises
        ------
        ProductUnavailable
            If there is none.
        """
        objective = getattr(self, "objective", None)
        if objective is None or not objective.composite:
            raise ProductUnavailable(
                f"{type(self).__name__} has no layers to look into; build the oracle with "
                "osculant.oracle(model=..., loss=..., params=...), with products of its own"
            )
        return objective

    def sibling(self, objective: Objective, example: Any) -> Oracle:
        """Return the oracle of another function in the same framework, held as this one is."""
        raise NotImplementedError(f"{type(self).__name__} makes no other oracles")

    @property
    def buffers(self) -> Mapping[str, Array]:
        """What the model keeps beside its parameters, such as running statistics; not copies."""
        return {}

    @property
    def size(self) -> int:
        """The number n of parameters."""
        return self.structure.size

    @property
    def groups(self) -> Mapping[str, slice]:
        """Where each of the user's tensors lies in the vector, by name."""
        return self.structure.groups

    def ravel(self, tree: Any) -> Array:
        """Return a tree of parameters as a new vector of shape (n,).

        Dicts are in the order of their sorted keys, so that the vector of a torch module is not
        that of ``torch.nn.utils.parameters_to_vector``; :attr:`groups` says where each tensor is.
        """
        return self.structure.ravel(tree)

    def unravel(self, vector: Array) -> Any:
        """Return a vector of shape (n,) as a new tree of parameters."""
        return self.structure.unravel(vector)


class Point(ABC):
    """A function linearised at one place.

    A backend supplies :attr:`value`, :attr:`grad` and whichever of ``_hvp``, ``_jvp``, ``_vjp``,
    ``_loss_hvp`` and ``_third`` it has, each for one vector, and declares them in
    ``oracle.products``. The k-at-once forms, the quadratic and cubic forms, Taylor coefficients
    and Gauss-Newton are derived from these; with ``_taylor`` it may have the cubic ones for less.

    Parameters
    ----------
    oracle : Oracle
        Whose point it is.
    """

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle

    # What a backend supplies -------------------------------------------------------------

    @property
    @abstractmethod
    def value(self) -> Array:
        """The function, a 0-d array."""

    @property
    @abstractmethod
    def grad(self) -> Array:
        """The gradient, of shape (n,)."""

    @property
    def outputs(self) -> Array:
        """The model's outputs, flattened to shape (m,)."""
        raise self._unavailable(Product.JVP)

    @property
    def loss_grad(self) -> Array:
        """The gradient u of the loss by the model's outputs, of shape (m,), so that g = J' u."""
        raise self._unavailable(Product.LOSS_HVP)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape in which the loss takes the model's outputs."""
        return tuple(self.outputs.shape)

    def _hvp(self, v: Array) -> Array:
        raise self._unavailable(Product.HVP)

    def _jvp(self, v: Array) -> Array:
        raise self._unavailable(Product.JVP)

    def _vjp(self, u: Array) -> Array:
        raise self._unavailable(Product.VJP)

    def _loss_hvp(self, u: Array) -> Array:
        raise self._unavailable(Product.LOSS_HVP)

    def _third(self, v: Array) -> Callable[[Array], Array]:
        """Return w -> D^3 f[v, w, .], of shape (n,): what depends on v alone is done once."""
        raise self._unavailable(Product.THIRD)

    def _taylor(self, v: Array, order: int) -> Sequence[Array]:
        """Return f, D f[v], ..., D^order f[v, ..., v], each 0-d, for an order of 3 or more."""
        if order > 3:
            raise self._unavailable(Product.THIRD, f"to order {order}")
        return [*self.taylor(v, 2), dot(v, self._third(v)(v))]

    def _ggn(self, v: Array) -> Array:
        return self._vjp(self._loss_hvp(self._jvp(v)))

    def _columns(self, product: Callable[[Array], Array], V: Array) -> Array:
        """Apply ``product`` to each column of ``V``; a backend that vectorises overrides this."""
        xp = namespace(V)
        return xp.stack([product(V[:, j]) for j in range(V.shape[1])], axis=1)

    # What is derived ---------------------------------------------------------------------

    def hvp(self, V: Array) -> Array:
        """Return H V, for V of shape (n,) or (n, k)."""
        return self._apply(Product.HVP, self._hvp, V)

    def ggn(self, V: Array) -> Array:
        """Return G V = J' H_L J V, for V of shape (n,) or (n, k).

        J is the Jacobian of the model and H_L the Hessian of the loss at the model's outputs.
        """
        return self._apply(Product.GGN, self._ggn, V)

    def jvp(self, V: Array) -> Array:
        """Return J V, of shape (m,) or (m, k), for V of shape (n,) or (n, k)."""
        return self._apply(Product.JVP, self._jvp, V)

    def vjp(self, U: Array) -> Array:
        """Return J' U, of shape (n,) or (n, k), for U of shape (m,) or (m, k)."""
        return self._apply(Product.VJP, self._vjp, U, of_outputs=True)

    def loss_hvp(self, U: Array) -> Array:
        """Return H_L U, for U of shape (m,) or (m, k)."""
        return self._apply(Product.LOSS_HVP, self._loss_hvp, U, of_outputs=True)

    def vhv(self, V: Array) -> Array:
        """Return v' H v for each column v of V: 0-d for V of shape (n,), (k,) for (n, k)."""
        self._require(Product.VHV)
        return columnwise_dot(V, self.hvp(V))

    def vgv(self, V: Array) -> Array:
        """Return v' G v for each column v of V, as :meth:`vhv` does; one JVP each, no VJP."""
        self._require(Product.VGV)
        JV = self.jvp(V)
        return columnwise_dot(JV, self.loss_hvp(JV))

    def third(self, V: Array) -> Array:
        """Return D^3 f[v, v, v] for each column v of V: 0-d for V of shape (n,), (k,) for (n, k).

        It may evaluate the function again, once for each column.
        """
        self._check(Product.THIRD, V)
        if V.ndim == 1:
            return self._taylor(V, 3)[3]
        return namespace(V).stack([self.third(V[:, j]) for j in range(V.shape[1])])

    def dhvp(self, v: Array, W: Array) -> Array:
        """Return D^3 f[v, w, .] for W of shape (n,) or (n, k): the derivative of H W along v.

        ``dhvp(v, v)`` is the gradient of v'Hv. As :meth:`third`, it is declared by
        ``Product.THIRD``, and may evaluate the function again, once for v.
        """
        self._check(Product.THIRD, v, columns=False)
        return self._apply(Product.THIRD, self._third(v), W)

    def taylor(self, v: Array, order: int = 3) -> tuple[Array, ...]:
        """Return (f, D f[v], D^2 f[v, v], ..., D^order f[v, ..., v]), each 0-d.

        The derivatives at t = 0 of f(x + t v), for v of shape (n,); Taylor's polynomial divides
        the k-th by k!. Above order 3 not every oracle goes on.
        """
        if order < 0:
            raise ValueError(f"order is {order}; it must not be negative")
        if order > 2:
            self._check(Product.THIRD, v, columns=False)
            return tuple(self._taylor(v, order))
        self._check(Product.GRAD, v, columns=False)
        terms = [lambda: self.value, lambda: dot(self.grad, v), lambda: self.vhv(v)]
        return tuple(term() for term in terms[: order + 1])

    @property
    def H(self) -> Operator:
        """The Hessian as an operator: ``pt.H @ V``, ``(pt.H + 0.1).to_scipy()``."""
        self._require(Product.HVP)
        return Operator(self.hvp, self.oracle.structure, flow=self.oracle.flow)

    @property
    def G(self) -> Operator:
        """The generalised Gauss-Newton matrix as an operator."""
        self._require(Product.GGN)
        return Operator(self.ggn, self.oracle.structure, flow=self.oracle.flow)

    # ---------------------------------------------------------------------------------------

    def _apply(
        self,
        product: Product,
        primitive: Callable[[Array], Array],
        V: Array,
        *,
        of_outputs: bool = False,
    ) -> Array:
        self._check(product, V, of_outputs=of_outputs)
        return primitive(V) if V.ndim == 1 else self._columns(primitive, V)

    def _check(
        self, product: Product, V: Array, *, columns: bool = True, of_outputs: bool = False
    ) -> None:
        self._require(product)
        structure = self.oracle.structure
        size = self.outputs.shape[0] if of_outputs else structure.size
        name = f"the argument of {product}"
        check_vector(V, size, structure.dtype, structure.xp, columns=columns, name=name)

    def _require(self, product: Product) -> None:
        if product not in self.oracle.products:
            raise self._unavailable(product)

    def _unavailable(self, product: Product, what: str = "") -> ProductUnavailable:
        return ProductUnavailable(
            f"{type(self.oracle).__name__} has no {' '.join([product, what]).strip()}; "
            f"{self.oracle.advice(product)}"
        )


def check_scalar(value: Any, structure: Structure, name: str = "fun") -> None:
    """Raise unless ``value``, returned by the user's function, is a scalar of the right dtype."""
    shape = getattr(value, "shape", None)
    if shape is None:
        raise TypeError(
            f"{name} returned a {type(value).__name__}, which carries no derivative; compute it "
            "with the array functions of its argument, without float() or .item()"
        )
    if tuple(shape) != ():
        raise ValueError(
            f"{name} returned shape {tuple(shape)}; a scalar of shape () is needed: "
            "sum or average it, or build the oracle with model= and loss="
        )
    _check_dtype(value, structure, name)


def check_outputs(outputs: Any, structure: Structure, name: str = "model") -> None:
    """Raise unless ``outputs``, returned by the user's model, is one array of the right dtype."""
    if not hasattr(outputs, "shape"):
        raise TypeError(
            f"{name} returned a {type(outputs).__name__}; one array is needed: "
            "join several with concat or stack, or build the oracle from a single fun, without "
            "Gauss-Newton products"
        )
    _check_dtype(outputs, structure, name)


def _check_dtype(result: Any, structure: Structure, name: str) -> None:
    if result.dtype != structure.dtype:
        raise TypeError(
            f"{name} returned {result.dtype} for parameters of {structure.dtype}; cast the data to "
            f"{structure.dtype}, or the parameters to {result.dtype}: nothing is cast silently"
        )
