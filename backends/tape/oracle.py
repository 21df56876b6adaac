"""The oracle of the tape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from ...core.arrays import Array, Namespace, complex_dtype, is_array, join_parts
from ...core.errors import NotDifferentiable
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
from ...core.structure import Leaves, Structure
from .. import multicomplex
from .graph import Tape
from .record import check_tape, is_traced, plain
from .traced import Traced


def make_oracle(objective: Objective, params: Any) -> TapeOracle:
    """Return the oracle of ``objective`` for parameters structured like ``params``."""
    return TapeOracle(objective, Structure(params))


def make_holomorphic(objective: Objective, structure: Structure) -> TapeOracle:
    """Return the oracle of the analytic extension of ``objective``, of a complex structure."""
    return TapeOracle(objective, structure)


class TapeOracle(Oracle):
    """Differentiates a function of arrays of any array-API namespace.

    Parameters
    ----------
    objective : Objective
        The user's functions.
    structure : Structure
        Of the parameters.

    Notes
    -----
    Arrays that the function reads besides its parameters are kept by reference while the point
    lives: a buffer that the function itself overwrites between two uses gives wrong
    derivatives, so it should make new arrays instead.
    """

    products = HESSIAN_PRODUCTS | {Product.THIRD}

    def __init__(self, objective: Objective, structure: Structure) -> None:
        super().__init__(structure)
        self.objective = objective
        if objective.composite:
            self.products |= GAUSS_NEWTON_PRODUCTS

    def at(self, x: Array, *data: Any) -> TapePoint:
        """Run the function once on traced parameters; the gradient waits until it is asked for."""
        self.structure.check(x)
        xp = self.structure.xp
        leaves = self.structure.split(xp.asarray(x, copy=True))
        return TapePoint(self, leaves, data)

    def value(self, x: Array, *data: Any) -> Array:
        """Run the function on plain arrays."""
        value = self.objective(self.unravel(x), *data)
        self.check_value(value)
        return self.structure.xp.asarray(value, copy=True)

    def sibling(self, objective: Objective, example: Any) -> TapeOracle:
        """Return the oracle of another function."""
        return TapeOracle(objective, Structure(example))

    def check_value(self, value: Any) -> None:
        """Raise unless the function, or the loss, returned a scalar of the right dtype."""
        if self._constant_in_complex_step(value):
            return
        check_scalar(value, self.structure, "loss" if self.objective.composite else "fun")

    def check_outputs(self, outputs: Any) -> None:
        """Raise unless the model returned one array of the right dtype."""
        if not (is_array(outputs) and self._constant_in_complex_step(outputs)):
            check_outputs(outputs, self.structure)

    def _constant_in_complex_step(self, result: Any) -> bool:
        complex_step = self.structure.xp.isdtype(self.structure.dtype, "complex floating")
        return complex_step and not is_traced(result)


class TapePoint(Point):
    """A function recorded at one place: on one tape, or on the model's and then the loss's.

    The reverse sweep of the gradient is run once, when first needed, and leaves its cotangents
    on the tapes; a Hessian product is then a tangent and a tangent-of-reverse sweep.
    """

    oracle: TapeOracle

    def __init__(self, oracle: TapeOracle, leaves: Sequence[Array], data: tuple[Any, ...]) -> None:
        super().__init__(oracle)
        self._structure = structure = oracle.structure
        self._xp = structure.xp
        self._leaves, self._data = leaves, data
        objective = oracle.objective

        def model(*leaves: Any) -> Any:
            return objective.outputs(structure.build(leaves), data)

        def loss(outputs: Any) -> Any:
            return objective.loss_of(outputs, data)

        def fun(*leaves: Any) -> Any:
            return objective(structure.build(leaves), *data)

        if objective.composite:
            self._model, self._outputs = _record(self._xp, model, leaves, oracle.check_outputs)
            self._loss, self._value = _record(self._xp, loss, [self._outputs], oracle.check_value)
            self._tapes = [self._model, self._loss]
        else:
            self._loss, self._value = _record(self._xp, fun, leaves, oracle.check_value)
            self._tapes = [self._loss]

    @property
    def value(self) -> Array:
        """The function, a 0-d array."""
        return self._xp.asarray(self._value, copy=True)

    @property
    def grad(self) -> Array:
        """The gradient, of shape (n,)."""
        return self._structure.join(self._cotangents, copy=True)

    @property
    def outputs(self) -> Array:
        """The model's outputs, flattened to shape (m,)."""
        if not self.oracle.products >= GAUSS_NEWTON_PRODUCTS:
            return super().outputs  # raises, and says why there are none
        return self._flat(self._outputs)

    @property
    def loss_grad(self) -> Array:
        """The gradient u of the loss by the model's outputs, of shape (m,)."""
        if not self.oracle.objective.composite:
            return super().loss_grad  # raises
        return self._flat(self._loss_cotangents[0])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape in which the loss takes the model's outputs."""
        return tuple(self._outputs.shape)

    @cached_property
    def _loss_cotangents(self) -> list[Array]:
        return self._loss.reverse(self._xp.ones_like(self._value), keep=True)

    @cached_property
    def _cotangents(self) -> list[Array]:
        if self._loss is self._tapes[0]:
            return self._loss_cotangents
        return self._model.reverse(self._loss_cotangents[0], keep=True)

    def _hvp(self, v: Array | Leaves) -> Array:
        _ = self._cotangents  # the sweeps below need them on the tapes
        seeds = self._split(v)
        tangents = []
        for tape in self._tapes:
            tangents.append(tape.tangent(seeds))
            seeds = [tangents[-1][tape.output.slot]]
        seed = None
        for tape, along in zip(reversed(self._tapes), reversed(tangents), strict=True):
            cotangents = tape.tangent_of_reverse(along, seed)
            seed = cotangents[0]
        return self._structure.join(cotangents, copy=True)

    def _jvp(self, v: Array | Leaves) -> Array:
        output = self._model.output
        tangent = self._model.tangent(self._split(v))[output.slot]
        return self._flat(output.spec.zeros(self._xp) if tangent is None else tangent)

    def _vjp(self, u: Array) -> Array:
        return self._structure.join(self._model.reverse(self._like_outputs(u)), copy=True)

    def _loss_hvp(self, u: Array) -> Array:
        _ = self._loss_cotangents
        tangents = self._loss.tangent([self._like_outputs(u)])
        return self._flat(self._loss.tangent_of_reverse(tangents, None)[0])

    def _third(self, v: Array) -> Callable[[Array], Array]:
        """Return w -> D^3 f[v, w, .] by a complex step over the exact Hessian product."""
        xp, structure = self._xp, self._structure
        dtype = complex_dtype(xp, structure.dtype)
        h, scale = multicomplex.step(v, 1), multicomplex.unit_scale([v])
        moved = [
            join_parts(leaf, move)
            for leaf, move in zip(self._leaves, structure.split(v / scale * h), strict=True)
        ]
        oracle = TapeOracle(self.oracle.objective, structure.with_dtype(dtype))
        point = TapePoint(oracle, moved, self._data)
        return lambda w: xp.imag(point._hvp(xp.astype(w, dtype))) / h * scale

    def _taylor(self, v: Array, order: int) -> Sequence[Array]:
        """Return the derivatives along ``v`` by one multicomplex forward pass."""
        moved = multicomplex.Perturbation(self._leaves, [self._structure.moving(v)] * order)
        value = self.oracle.objective(self._structure.build(moved.arguments), *self._data)
        return [moved.derivative(value, k) for k in range(order + 1)]

    def _columns(self, product: Callable[[Any], Array], V: Array) -> Array:
        if product not in (self._hvp, self._jvp):
            return super()._columns(product, V)
        columns = [product(self._structure.moving(V[:, j])) for j in range(V.shape[1])]
        return self._xp.stack(columns, axis=1)

    def _split(self, v: Array | Leaves) -> Leaves:
        return v if isinstance(v, list) else list(self._structure.split(v))

    def _flat(self, outputs: Array) -> Array:
        return self._xp.asarray(self._xp.reshape(outputs, (-1,)), copy=True)

    def _like_outputs(self, u: Array) -> Array:
        return self._xp.reshape(u, tuple(self._outputs.shape))


def _record(
    xp: Namespace,
    function: Callable[..., Any],
    inputs: Sequence[Array],
    check: Callable[[Any], None],
) -> tuple[Tape, Array]:
    """Run ``function`` on traced ``inputs``; return the record and what the function returned."""
    tape = Tape(xp, inputs)
    arguments = [Traced(tape, x, node) for x, node in zip(inputs, tape.inputs, strict=True)]
    try:
        result = function(*arguments)
    except ValueError as error:  # "setting an array element with a sequence", because of ours
        if not isinstance(error.__cause__, NotDifferentiable):
            raise
        raise NotDifferentiable(
            "a traced array was assigned to entries of a NumPy array, which cannot hold its "
            "derivative: build the array with numpy.stack, concatenate or where"
        ) from error
    check(result)
    node = None
    if isinstance(result, Traced):
        check_tape(tape, result)
        node = result.node
    value = plain(result)
    tape.finish(node, value)
    return tape, value
