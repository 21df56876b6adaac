"""Dense derivatives to compare with.

Everything here is NumPy in float64 and forms whole matrices: easy to believe, and slow.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from ..core.oracle import HESSIAN_PRODUCTS, Objective, Product
from ..core.structure import Structure


class Derivatives(NamedTuple):
    """The derivatives of a function of n parameters at one place, in float64."""

    value: float
    grad: np.ndarray
    """Of shape (n,)."""
    hess: np.ndarray
    """H, of shape (n, n)."""
    jac: np.ndarray | None = None
    """J, of shape (m, n): the Jacobian of the model, if the function is a composition."""
    loss_hess: np.ndarray | None = None
    """H_L, of shape (m, m): the Hessian of the loss, if the function is a composition."""
    third: np.ndarray | None = None
    """D^3 f, of shape (n, n, n), if it is known."""

    def knows(self, product: Product) -> bool:
        """Return whether :meth:`apply` has what it takes."""
        if product is Product.THIRD:
            return self.third is not None
        return product in HESSIAN_PRODUCTS or self.jac is not None

    def matrix(self, product: Product) -> np.ndarray:
        """Return the matrix of a linear product, or of a quadratic form."""
        if product in (Product.HVP, Product.VHV):
            return self.hess
        if self.jac is None or self.loss_hess is None:
            raise ValueError(f"{product} needs a composition: there is no model and loss here")
        if product is Product.JVP:
            return self.jac
        if product is Product.VJP:
            return self.jac.T
        if product is Product.LOSS_HVP:
            return self.loss_hess
        return self.jac.T @ self.loss_hess @ self.jac

    def apply(self, product: Product, V: np.ndarray) -> np.ndarray:
        """Return ``product`` of V, which has one column or k of them, as a point does."""
        if product is Product.THIRD:
            assert self.third is not None
            return np.einsum("ijk,i...,j...,k...->...", self.third, V, V, V)
        MV = self.matrix(product) @ V
        return np.sum(V * MV, axis=0) if product in (Product.VHV, Product.VGV) else MV


def compose(
    value: float,
    jac: np.ndarray,
    loss_grad: np.ndarray,
    loss_hess: np.ndarray,
    second: np.ndarray | float = 0.0,
) -> Derivatives:
    """Return the derivatives of a composition by the chain rule.

    Parameters
    ----------
    value : float
    jac : (m, n) array
        Jacobian of the model.
    loss_grad, loss_hess : (m,) and (m, m) arrays
        Derivatives of the loss at the model's outputs.
    second : (n, n) array
        sum_i loss_grad[i] (Hessian of output i); 0 for a linear model.
    """
    hess = jac.T @ loss_hess @ jac + second
    return Derivatives(value, jac.T @ loss_grad, hess, jac, loss_hess)


# Derivatives of a function that has no closed form ------------------------------------------

_STEP = 0.02
#: Weights at x + k h and x - k h, k = 1, 2, 3, 4, of central differences of eighth order:
#: B. Fornberg, Mathematics of Computation 51 (1988), table 1.
_FIRST = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
_SECOND = (8 / 5, -1 / 5, 8 / 315, -1 / 560)


def differences(objective: Objective, params: Any, data: tuple[Any, ...] = ()) -> Derivatives:
    """Return derivatives by central differences of eighth order, with a step of 0.02.

    Independent of any rule of differentiation. For functions that vary over lengths of about
    one, the errors are near 1e-13 for first and 1e-11 for second derivatives. It costs about
    4 n^2 evaluations.

    Parameters
    ----------
    objective : Objective
    params : tree of float64 numpy.ndarray
    data : tuple
    """
    structure = Structure(params)
    x = structure.ravel(params)

    def value(x: np.ndarray) -> np.ndarray:
        return np.asarray(objective(structure.unravel(x), *data))

    grad, hess = _jacobian(value, x), _hessian(value, x)
    if not objective.composite:
        return Derivatives(float(value(x)), grad, hess)

    def outputs(x: np.ndarray) -> np.ndarray:
        return np.reshape(objective.outputs(structure.unravel(x), data), -1)

    shape = np.shape(objective.outputs(params, data))

    def loss(z: np.ndarray) -> np.ndarray:
        return np.asarray(objective.loss_of(np.reshape(z, shape), data))

    z = outputs(x)
    return Derivatives(float(value(x)), grad, hess, _jacobian(outputs, x), _hessian(loss, z))


def _jacobian(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    def slope(v: np.ndarray) -> np.ndarray:
        h = _STEP
        terms = [w * (f(x + k * h * v) - f(x - k * h * v)) for k, w in enumerate(_FIRST, 1)]
        return np.sum(terms, axis=0) / h

    return np.stack([slope(v) for v in np.eye(x.size)], axis=-1)


def _hessian(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    center = f(x)

    def curvature(v: np.ndarray) -> float:
        h = _STEP
        terms = [w * (f(x + k * h * v) - center) for k, w in enumerate(_SECOND, 1)]
        terms += [w * (f(x - k * h * v) - center) for k, w in enumerate(_SECOND, 1)]
        return float(np.sum(terms)) / h**2

    axes = np.eye(x.size)
    hess = np.diag([curvature(v) for v in axes])
    for i, j in combinations(range(x.size), 2):
        both = curvature(axes[i] + axes[j])
        hess[i, j] = hess[j, i] = (both - hess[i, i] - hess[j, j]) / 2
    return hess
