"""What the laws look at: an oracle, and a scenario in the oracle's own arrays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import array_api_compat
import numpy as np
import optree

from ..core.arrays import Array, is_array
from ..core.oracle import Oracle, Point, Product
from .derivatives import Derivatives
from .scenario import Place, Scenario

#: ``factory(scenario, params)`` returns an oracle for the scenario's ``fun``, or its ``model``
#: and ``loss``, of parameters like ``params``, a tree of the oracle's own arrays.
Factory = Callable[[Scenario, Any], Oracle]

#: Products whose argument has the size of the model's outputs.
_OF_OUTPUTS = (Product.VJP, Product.LOSS_HVP)
#: Relative error, and absolute error below one, that two ways to compute a thing may differ by.
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
#: The same for two ways that are both exact but for rounding.
ROUNDING = {"float32": 5e-6, "float64": 1e-13}


class Arguments(NamedTuple):
    """Where to linearise, in the oracle's arrays."""

    x: Array
    data: tuple[Any, ...]


class Calls:
    """How often the scenario's function has been called."""

    count = 0


class Subject:
    """An oracle under examination.

    Parameters
    ----------
    factory : callable
        ``factory(scenario, params)`` returns the oracle; the scenario's functions are counted.
    scenario : Scenario
    dtype : str
        ``"float32"`` or ``"float64"``.
    convert : callable
        Maps a NumPy array to the oracle's own, on its device, with the same dtype.
    uncompiled : callable
        Returns a context in which the framework runs the scenario's functions at every
        evaluation, so that they can be counted, for example ``jax.disable_jit``.
    tolerance : float, optional
        What results may be off by; by default that of the dtype in :data:`TOLERANCE`.
    peer : callable, optional
        Another factory, of the oracle to compare with to nearly the last digit.

    Attributes
    ----------
    here, elsewhere : Arguments
        Two places, for :meth:`at`.
    V, U : array
        Three directions: of the parameters, (n, 3), and of the outputs, (m, 3).
    calls : Calls
        Of ``fun`` or ``model``.
    """

    def __init__(
        self,
        factory: Factory,
        scenario: Scenario,
        dtype: str = "float64",
        convert: Callable[[np.ndarray], Array] = np.array,
        uncompiled: Callable[[], AbstractContextManager[Any]] = nullcontext,
        tolerance: float | None = None,
        peer: Factory | None = None,
    ) -> None:
        self.scenario = scenario
        self.dtype = dtype
        self.tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
        self.uncompiled = uncompiled
        self.calls = Calls()
        self._convert = convert
        self.params = self.convert(scenario.params)
        self.oracle = factory(self._counted(scenario), self.params)
        self.peer = None if peer is None else peer(scenario, self.params)
        n, m = scenario.here.x.size, _outputs(scenario)
        random = np.random.default_rng(7)
        self.V = self.convert(random.standard_normal((n, 3)))
        self.U = self.convert(random.standard_normal((m, 3)))

    @property
    def here(self) -> Arguments:
        """The scenario's place, as new arrays."""
        return self._arguments(self.scenario.here)

    @property
    def elsewhere(self) -> Arguments:
        """The scenario's second place, with other data, as new arrays."""
        return self._arguments(self.scenario.elsewhere)

    def _arguments(self, place: Place) -> Arguments:
        return Arguments(self.convert(place.x), self.convert(place.data))

    def convert(self, tree: Any) -> Any:
        """Return a tree of NumPy arrays in the oracle's arrays and dtype; integers stay so."""

        def leaf(a: np.ndarray) -> Array:
            floating = np.issubdtype(a.dtype, np.floating)
            return self._convert(a.astype(self.dtype) if floating else a.copy())

        return optree.tree_map(leaf, tree)

    def _counted(self, scenario: Scenario) -> Scenario:
        def counted(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
            if function is None:
                return None

            def count(*args: Any) -> Any:
                self.calls.count += 1
                return function(*args)

            return count

        return replace(
            scenario,
            fun=counted(scenario.fun),
            model=counted(scenario.model),
            # differences, where there is no closed form, are not to be counted
            closed_form=lambda params, *data: scenario.derivatives(params, data),
        )

    def with_oracle(self, oracle: Oracle) -> Subject:
        """Return this subject with another oracle of the same parameters."""
        other = copy(self)
        other.oracle = oracle
        return other

    # Asking ------------------------------------------------------------------------------

    def at(self, arguments: Arguments | None = None) -> Point:
        """Return the oracle's point, by default :attr:`here`."""
        x, data = arguments or self.here
        return self.oracle.at(x, *data)

    def direction(self, product: Product) -> Array:
        """Return arguments of ``product``, as three columns."""
        return self.U if product in _OF_OUTPUTS else self.V

    def ask(self, point: Point, product: Product, V: Array) -> Array:
        """Return ``product`` of V at ``point``."""
        return point.grad if product is Product.GRAD else getattr(point, product.value)(V)

    def answers(self, point: Point) -> dict[str, Array]:
        """Return all that ``point`` has to say: value, gradient, each product of v and of V."""
        answers = {"value": point.value}
        for product in sorted(self.oracle.products):
            V = self.direction(product)
            if product is Product.GRAD:
                answers["grad"] = point.grad
            else:
                answers[f"{product}(v)"] = self.ask(point, product, V[:, 0])
                answers[f"{product}(V)"] = self.ask(point, product, V)
        if Product.JVP in self.oracle.products:
            answers["outputs"] = point.outputs
        return answers

    def expected(self, place: Place) -> dict[str, np.ndarray]:
        """Return what :meth:`answers` must be."""
        dense: Derivatives = place.derivatives
        expected = {"value": np.asarray(dense.value), "grad": dense.grad}
        if dense.jac is not None:
            outputs = self.scenario.objective.outputs(place.params, place.data)
            expected["outputs"] = np.reshape(outputs, -1)
        for product in Product:
            if product is not Product.GRAD and dense.knows(product):
                V = to_numpy(self.direction(product)).astype(np.float64)
                expected[f"{product}(v)"] = dense.apply(product, V[:, 0])
                expected[f"{product}(V)"] = dense.apply(product, V)
        return expected

    # Comparing ---------------------------------------------------------------------------

    def check_close(
        self, actual: Array, expected: Array, what: str, tolerance: float | None = None
    ) -> None:
        """Raise AssertionError unless the arrays agree in shape and, to the tolerance, in value."""
        tolerance = self.tolerance if tolerance is None else tolerance
        got, wanted = to_numpy(actual), to_numpy(expected)
        assert got.shape == wanted.shape, f"{what}: shape {got.shape} instead of {wanted.shape}"
        scale = max(1.0, float(np.max(np.abs(wanted), initial=0.0)))
        error = np.abs(got.astype(np.float64) - wanted)
        assert np.all(error <= tolerance * scale), (
            f"{what}: off by {np.max(error):.1e} where {tolerance * scale:.1e} is allowed:\n"
            f"{got}\ninstead of\n{wanted}"
        )

    def check_all_close(self, actual: dict[str, Array], expected: dict[str, Any]) -> None:
        """Raise AssertionError unless each answer agrees with the expected one of its name."""
        for name, answer in actual.items():
            if name in expected:
                self.check_close(answer, expected[name], name)

    @property
    def mutable(self) -> bool:
        """Whether the oracle's arrays can be overwritten in place."""
        return overwrite(self.here.x)


def _outputs(scenario: Scenario) -> int:
    jac = scenario.here.derivatives.jac
    return scenario.here.x.size if jac is None else jac.shape[0]


def to_numpy(array: Array) -> np.ndarray:
    """Return a copy of any array as a NumPy array on the host."""
    if not is_array(array):
        raise AssertionError(f"got a {type(array).__name__}, which is not an array")
    if array_api_compat.is_cupy_array(array) or array_api_compat.is_torch_array(array):
        array = array_api_compat.to_device(array, "cpu")
    return np.asarray(array).copy()


def overwrite(array: Array) -> bool:
    """Fill ``array`` with sevens in place; return False if it cannot be written."""
    try:
        array[...] = 7.0
    except (TypeError, ValueError):  # immutable, or read-only
        return False
    return True
