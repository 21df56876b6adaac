"""Weight decay as a part of the function: in its value, its gradient and every product."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from typing import Any

from .arrays import Array, dot, namespace
from .oracle import Objective, Oracle, Point
from .structure import Structure


class Regularized(Oracle):
    """The function f(x) + sum_i w_i x_i^2 / 2 over another oracle's f.

    Weight decay that is added to the gradient alone, or to the step, leaves a second-order
    method with the curvature of another function, and with values that do not go with its steps.
    Here f, g and H are those of one function: g + w x, H v + w v.

    Parameters
    ----------
    oracle : Oracle
        Answers for f. What it can be asked for, this one can.
    weight_decay : float or mapping
        w, at least zero: one number for all parameters; or numbers by the names of parameters
        (``oracle.groups``) or patterns of them (``fnmatch``), of which the first that fits
        counts. What none fits is not decayed, so that ``{"*weight": 1e-4}`` spares the biases.

    Raises
    ------
    ValueError
        If a weight is negative or not finite, or a pattern fits no parameter.

    Notes
    -----
    Of a composition f = L(z(x)) this is one again, with the outputs (z, sqrt(w) x): their Jacobian
    is (J, sqrt(w) I), the loss L(z) + |.|^2 / 2 has the Hessian diag(H_L, I), and Gauss-Newton is
    J' H_L J + w. So ``outputs``, ``jvp``, ``vjp`` and ``loss_hvp`` are n longer than those of f.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> params = {"bias": np.array([3.0]), "weight": np.array([1.0, 2.0])}
    >>> oracle = osculant.oracle(lambda p: p["bias"].sum() ** 2, params)
    >>> decayed = Regularized(oracle, {"weight": 0.5})
    >>> point = decayed.at(decayed.ravel(params))
    >>> float(point.value), point.grad, point.hvp(np.ones(3))
    (10.25, array([6. , 0.5, 1. ]), array([2. , 0.5, 0.5]))
    """

    def __init__(self, oracle: Oracle, weight_decay: float | Mapping[str, float]) -> None:
        super().__init__(oracle.structure)
        self.base = oracle
        self.flow, self.products = oracle.flow, oracle.products
        self._weights = _weights(oracle.structure, weight_decay)
        self._roots = tuple(math.sqrt(weight) for weight in self._weights)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Regularized) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, ...]:
        return (self.base, self._weights)

    def at(self, x: Array, *data: Any) -> RegularizedPoint:
        """Linearise once at ``x``, of shape (n,)."""
        return RegularizedPoint(self, x, data)

    def value(self, x: Array, *data: Any) -> Array:
        """Return the function at ``x`` as a 0-d array."""
        return self.base.value(x, *data) + self.quadratic(x) / 2

    def held(self, seed: int, *, track: bool = True) -> AbstractContextManager[None]:
        """Hold the oracle underneath."""
        return self.base.held(seed, track=track)

    def prepare(self) -> None:
        """Make the oracle underneath ready."""
        self.base.prepare()

    def agreed(self, number: float) -> float:
        """Let the oracle underneath agree."""
        return self.base.agreed(number)

    def composition(self) -> Objective:
        """Return the model and the loss underneath, to which the decay does not belong."""
        return self.base.composition()

    def sibling(self, objective: Objective, example: Any) -> Oracle:
        """Return the oracle of another function, without a decay."""
        return self.base.sibling(objective, example)

    @property
    def buffers(self) -> Mapping[str, Array]:
        """Those of the oracle underneath."""
        return self.base.buffers

    def ravel(self, tree: Any) -> Array:
        """Return a tree of parameters as a new vector of shape (n,)."""
        return self.base.ravel(tree)

    def decay(self, V: Array) -> Array:
        """Return w V, for V of shape (n,) or (n, k)."""
        return self._scale(self._weights, V)

    def root_decay(self, V: Array) -> Array:
        """Return sqrt(w) V."""
        return self._scale(self._roots, V)

    def quadratic(self, V: Array) -> Array:
        """Return sum_i w_i v_i^2 for each column v of V."""
        WV = self.decay(V)
        return dot(V, WV) if V.ndim == 1 else namespace(V).sum(V * WV, axis=0)

    def _scale(self, weights: Sequence[float], V: Array) -> Array:
        """Multiply group by group, with Python's numbers, which keep the dtype."""
        if len(set(weights)) == 1:
            return weights[0] * V
        pairs = zip(weights, self.groups.values(), strict=True)
        return namespace(V).concat([w * V[where, ...] for w, where in pairs], axis=0)


class RegularizedPoint(Point):
    """The point underneath, and where it is."""

    oracle: Regularized

    def __init__(self, oracle: Regularized, x: Array, data: tuple[Any, ...]) -> None:
        super().__init__(oracle)
        self._base = oracle.base.at(x, *data)
        self._x = namespace(x).asarray(x, copy=True)

    @property
    def value(self) -> Array:
        """The function, a 0-d array."""
        return self._base.value + self.oracle.quadratic(self._x) / 2

    @property
    def grad(self) -> Array:
        """The gradient, of shape (n,)."""
        return self._base.grad + self.oracle.decay(self._x)

    @property
    def outputs(self) -> Array:
        """The outputs of the model underneath and, behind them, sqrt(w) x."""
        return self._join(self._base.outputs, self.oracle.root_decay(self._x))

    @property
    def loss_grad(self) -> Array:
        """The gradient by these outputs: that of the loss underneath and, behind it, sqrt(w) x."""
        return self._join(self._base.loss_grad, self.oracle.root_decay(self._x))

    def vhv(self, V: Array) -> Array:
        """Return v' H v for each column v of V."""
        return self._base.vhv(V) + self.oracle.quadratic(V)

    def vgv(self, V: Array) -> Array:
        """Return v' G v for each column v of V."""
        return self._base.vgv(V) + self.oracle.quadratic(V)

    # Each takes columns, too.

    def _hvp(self, V: Array) -> Array:
        return self._base.hvp(V) + self.oracle.decay(V)

    def _ggn(self, V: Array) -> Array:
        return self._base.ggn(V) + self.oracle.decay(V)

    def _jvp(self, V: Array) -> Array:
        return self._join(self._base.jvp(V), self.oracle.root_decay(V))

    def _vjp(self, U: Array) -> Array:
        m = U.shape[0] - self.oracle.size
        return self._base.vjp(U[:m, ...]) + self.oracle.root_decay(U[m:, ...])

    def _loss_hvp(self, U: Array) -> Array:
        m = U.shape[0] - self.oracle.size
        return self._join(self._base.loss_hvp(U[:m, ...]), U[m:, ...])

    def _third(self, v: Array) -> Callable[[Array], Array]:
        return lambda w: self._base.dhvp(v, w)

    def _taylor(self, v: Array, order: int) -> Sequence[Array]:
        f, slope, curvature, *higher = self._base.taylor(v, order)
        f = f + self.oracle.quadratic(self._x) / 2
        slope = slope + dot(self.oracle.decay(self._x), v)
        return [f, slope, curvature + self.oracle.quadratic(v), *higher]

    def _columns(self, product: Callable[[Array], Array], V: Array) -> Array:
        return product(V)

    def _join(self, a: Array, b: Array) -> Array:
        return namespace(a).concat([a, b], axis=0)


def _weights(structure: Structure, weight_decay: float | Mapping[str, float]) -> tuple[float, ...]:
    """Return the weight of each group."""
    by_pattern = weight_decay if isinstance(weight_decay, Mapping) else {"*": weight_decay}
    for pattern, weight in by_pattern.items():
        if not (weight >= 0 and math.isfinite(weight)):
            raise ValueError(f"weight decay {weight} of {pattern!r} must be zero or positive")
        if not any(fnmatchcase(name, pattern) for name in structure.names):
            raise ValueError(
                f"no parameter is called {pattern!r}; there are: {', '.join(structure.names)}"
            )
    return tuple(
        next((float(w) for p, w in by_pattern.items() if fnmatchcase(name, p)), 0.0)
        for name in structure.names
    )
