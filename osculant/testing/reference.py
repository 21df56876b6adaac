"""The oracle that is made of a scenario's dense derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.oracle import GAUSS_NEWTON_PRODUCTS, HESSIAN_PRODUCTS, Oracle, Point, Product
from ..core.structure import Structure
from .derivatives import Derivatives
from .scenario import Scenario


class ReferenceOracle(Oracle):
    """Answers the products of a scenario, on NumPy, by multiplying its dense matrices.

    The smallest complete oracle: ``check_oracle(ReferenceOracle)`` passes.

    Parameters
    ----------
    scenario : Scenario
        Function and closed form.
    params : tree of numpy.ndarray
        Fixes structure and dtype.
    """

    def __init__(self, scenario: Scenario, params: Any) -> None:
        super().__init__(Structure(params))
        self.scenario = scenario
        self.products = HESSIAN_PRODUCTS
        if scenario.objective.composite:
            self.products |= GAUSS_NEWTON_PRODUCTS
        if scenario.here.derivatives.knows(Product.THIRD):
            self.products |= {Product.THIRD}

    def at(self, x: np.ndarray, *data: Any) -> ReferencePoint:
        """Compute every matrix at ``x``, of shape (n,)."""
        params = self.unravel(x)
        objective = self.scenario.objective
        outputs = objective.outputs(params, data) if objective.composite else None
        value = objective(params, *data) if outputs is None else objective.loss_of(outputs, data)
        return ReferencePoint(self, value, outputs, self.scenario.derivatives(params, data))

    def value(self, x: np.ndarray, *data: Any) -> np.ndarray:
        """Return the function at ``x``."""
        return np.asarray(self.scenario.objective(self.unravel(x), *data))


class ReferencePoint(Point):
    """A point that keeps whole matrices."""

    def __init__(
        self, oracle: ReferenceOracle, value: Any, outputs: Any, dense: Derivatives
    ) -> None:
        super().__init__(oracle)
        self._value = value
        self._outputs = outputs
        self._dense = dense

    @property
    def value(self) -> np.ndarray:
        """The function, a 0-d array."""
        return np.array(self._value)

    @property
    def grad(self) -> np.ndarray:
        """The gradient, of shape (n,)."""
        return self._cast(self._dense.grad)

    @property
    def outputs(self) -> np.ndarray:
        """The model's outputs, flattened to shape (m,)."""
        return super().outputs if self._outputs is None else np.array(self._outputs).reshape(-1)

    def _hvp(self, v: np.ndarray) -> np.ndarray:
        return self._cast(self._dense.apply(Product.HVP, v))

    def _jvp(self, v: np.ndarray) -> np.ndarray:
        return self._cast(self._dense.apply(Product.JVP, v))

    def _vjp(self, u: np.ndarray) -> np.ndarray:
        return self._cast(self._dense.apply(Product.VJP, u))

    def _loss_hvp(self, u: np.ndarray) -> np.ndarray:
        return self._cast(self._dense.apply(Product.LOSS_HVP, u))

    def _third(self, v: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        third = self._dense.third
        assert third is not None
        return lambda w: self._cast(np.einsum("ijk,i,j->k", third, v, w))

    def _cast(self, a: np.ndarray) -> np.ndarray:
        return a.astype(self.oracle.structure.dtype)
