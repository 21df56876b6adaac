"""Derivatives of any order by a forward pass alone, on multicomplex arrays.

The complex step, f'(x) = Im f(x + i h) / h, subtracts nothing, so that h may be as small as one
likes. With k commuting imaginary units it reaches order k:

    D^k f(x) [v_1, ..., v_k] = Im_(1..k) f(x + h (i_1 v_1 + ... + i_k v_k)) / h^k

to a relative error of order h^2. A function that is written with the array API, or with NumPy's
functions, is evaluated as it stands; neither a tape nor a complex dtype is involved.

Shen et al., "Second-order neural network training using complex-step directional derivative"
(2020), equations 5 to 7; the algebra is in ``array.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ...core.arrays import Array, is_array, max_abs, namespace
from ...core.structure import Structure
from .array import Multicomplex as Multicomplex
from .array import parts_of

__all__ = ["Multicomplex", "Perturbation", "derivative", "step", "taylor"]


def derivative(
    fun: Callable[..., Any],
    x: Any,
    *directions: Any,
    data: Sequence[Any] = (),
    h: float | None = None,
) -> Array:
    """Return D^k f(x) [v_1, ..., v_k] by one forward pass of multicomplex arrays of order k.

    ``derivative(fun, x, v, v)`` is v'Hv, by one bicomplex pass. Directions that are one and the
    same object save work: a product of dense matrices then costs (k + 1)^2 real ones, and 4^k
    if all differ.

    Parameters
    ----------
    fun : callable
        ``fun(x, *data)`` returns an array of any shape.
    x : tree of arrays
        Real floating point, of any array-API namespace.
    *directions : trees of arrays
        One or more, each with the structure of ``x``.
    data : sequence
        Further arguments of ``fun``.
    h : float, optional
        The step, for directions whose largest entry is between 1 and 2: others are scaled by a
        power of two, which is undone. By default :func:`step`.

    Returns
    -------
    array
        Of the shape of ``fun(x, *data)``, and of its dtype.

    Raises
    ------
    NotDifferentiable
        If ``fun`` meets a function that has no rule.
    TypeError, ValueError
        If ``x`` and the directions do not fit each other, or the order is too high for the dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from osculant import multicomplex
    >>> x, v = np.array([1.0, 2.0]), np.array([1.0, 1.0])
    >>> multicomplex.derivative(lambda x: (x**4).sum(), x, v, v)
    array(60.)
    """
    if not directions:
        raise ValueError("a derivative needs at least one direction; the value is fun(x, *data)")
    result, perturbation = _evaluate(fun, x, directions, data, h)
    return perturbation.derivative(result, len(directions))


def taylor(
    fun: Callable[..., Any],
    x: Any,
    v: Any,
    order: int,
    *,
    data: Sequence[Any] = (),
    h: float | None = None,
) -> tuple[Array, ...]:
    """Return (f, D f[v], D^2 f[v, v], ..., D^order f[v, ..., v]) by one multicomplex pass.

    The parameters and errors are those of :func:`derivative`. Taylor's polynomial divides the
    k-th by k!.

    Examples
    --------
    >>> import numpy as np
    >>> from osculant import multicomplex
    >>> [float(d) for d in multicomplex.taylor(np.exp, np.array(0.0), np.array(2.0), 3)]
    [1.0, 2.0, 4.0, 8.0]
    """
    if order < 1:
        raise ValueError(f"order is {order}; it must be at least 1")
    result, perturbation = _evaluate(fun, x, [v] * order, data, h)
    return tuple(perturbation.derivative(result, j) for j in range(order + 1))


def step(x: Array, order: int) -> float:
    """Return the default step for derivatives of this order in the dtype of ``x``.

    A power of two, so that dividing by it is exact. Its square is below the machine epsilon. As
    h^k has to be represented beside a derivative of any size, h^k stays above the square root of
    the smallest normal number: 2^-100, about 1e-30, for float64 to order 5, and more beyond;
    2^-63, 2^-31, 2^-21, 2^-15 for float32.

    Raises
    ------
    ValueError
        If no step satisfies both: beyond order 4 in float32, and 18 in float64.
    """
    info = namespace(x).finfo(x.dtype)
    exponent = min(100, int(-math.log2(float(info.smallest_normal))) // (2 * order))
    if 2.0 ** (-2 * exponent) > float(info.eps) / 4:
        raise ValueError(
            f"no step is small enough for a derivative of order {order} in {x.dtype}, whose powers "
            "do not underflow: use float64, or a lower order"
        )
    return 2.0**-exponent


class Perturbation:
    """Arrays x + h sum_j i_j v_j / s_j, where s_j scales v_j, and the way back to derivatives.

    Parameters
    ----------
    leaves : sequence of array
        x, in pieces.
    directions : sequence of sequence of array
        Each v_j in the same pieces, None for one of zeros, which costs nothing. One and the same
        object twice shares parts (``array.py``).
    h : float, optional
        By default :func:`step`.
    """

    def __init__(
        self,
        leaves: Sequence[Array],
        directions: Sequence[Sequence[Array | None]],
        h: float | None = None,
    ) -> None:
        self.h = step(leaves[0], len(directions)) if h is None else h
        if not 0.0 < self.h < math.inf:
            raise ValueError(f"the step is {h}; it must be positive and finite")
        moves = {id(v): self._move(v) for v in directions}
        self.scales = [moves[id(v)][0] for v in directions]
        self.arguments = []
        for i, leaf in enumerate(leaves):
            parts = [leaf] + [None] * (2 ** len(directions) - 1)
            for j, v in enumerate(directions):
                parts[1 << j] = moves[id(v)][1][i]
            self.arguments.append(Multicomplex(parts))

    def _move(self, v: Sequence[Array | None]) -> tuple[Any, Sequence[Array | None]]:
        moving = [leaf for leaf in v if leaf is not None]
        if not moving:
            return 1.0, v
        scale = unit_scale(moving)
        return scale, [None if leaf is None else leaf / scale * self.h for leaf in v]

    def derivative(self, result: Any, order: int) -> Array:
        """Return the derivative in the first ``order`` directions of a function's result."""
        parts = parts_of(result, 2 ** len(self.scales))
        part = parts[2**order - 1]
        if part is None:
            return namespace(parts[0]).zeros_like(parts[0])
        for scale in self.scales[:order]:
            part = part / self.h * scale
        return namespace(part).asarray(part, copy=True)


def _evaluate(
    fun: Callable[..., Any], x: Any, directions: Sequence[Any], data: Sequence[Any], h: float | None
) -> tuple[Any, Perturbation]:
    """Return the function where its argument is perturbed, and the perturbation."""
    structure = Structure(x)
    leaves_of = {id(v): structure.leaves(v) for v in directions}
    perturbation = Perturbation(structure.leaves(x), [leaves_of[id(v)] for v in directions], h)
    result = fun(structure.build(perturbation.arguments), *data)
    if not is_array(result):
        raise TypeError(
            f"fun returned a {type(result).__name__}, which carries no derivative; compute one "
            "array with the array functions of its argument, without float() or .item()"
        )
    return result, perturbation


def unit_scale(v: Sequence[Array]) -> Array:
    """Return the power of two that brings the largest entry of ``v`` to between 1 and 2."""
    xp = namespace(v[0])
    largest = xp.max(xp.stack([max_abs(xp.reshape(leaf, (-1,))) for leaf in v]))
    one = xp.ones_like(largest)
    usable = (largest > 0) & xp.isfinite(largest)
    return xp.where(usable, 2.0 ** xp.floor(xp.log2(xp.where(usable, largest, one))), one)
