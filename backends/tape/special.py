"""Functions of one argument that the array API has not, in double precision.

The error functions are by W. J. Cody, "Rational Chebyshev approximations for the error function",
Mathematics of Computation 23 (1969), with the coefficients of his program CALERF (SPECFUN): three
intervals of |x|, in the last two of which exp(-x^2) is split so that rounding x^2 does no harm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...core.arrays import Array, Namespace

# Numerators and denominators, the highest power first.
_NEAR = (
    (
        1.85777706184603153e-1,
        3.16112374387056560e0,
        1.13864154151050156e2,
        3.77485237685302021e2,
        3.20937758913846947e3,
    ),
    (
        1.0,
        2.36012909523441209e1,
        2.44024637934444173e2,
        1.28261652607737228e3,
        2.84423683343917062e3,
    ),
)
_MIDDLE = (
    (
        2.15311535474403846e-8,
        5.64188496988670089e-1,
        8.88314979438837594e0,
        6.61191906371416295e1,
        2.98635138197400131e2,
        8.81952221241769090e2,
        1.71204761263407058e3,
        2.05107837782607147e3,
        1.23033935479799725e3,
    ),
    (
        1.0,
        1.57449261107098347e1,
        1.17693950891312499e2,
        5.37181101862009858e2,
        1.62138957456669019e3,
        3.29079923573345963e3,
        4.36261909014324716e3,
        3.43936767414372164e3,
        1.23033935480374942e3,
    ),
)
_FAR = (
    (
        1.63153871373020978e-2,
        3.05326634961232344e-1,
        3.60344899949804439e-1,
        1.25781726111229246e-1,
        1.60837851487422766e-2,
        6.58749161529837803e-4,
    ),
    (
        1.0,
        2.56852019228982242e0,
        1.87295284992346725e0,
        5.27905102951428412e-1,
        6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)
#: Where the intervals end, and where erfc is zero in double precision.
_FIRST, _SECOND, _LAST = 0.46875, 4.0, 30.0


def erf(xp: Namespace, x: Array) -> Array:
    """Return 2/sqrt(pi) int_0^x exp(-t^2) dt."""
    near = xp.abs(x) <= _FIRST
    far = (1.0 - _tail(xp, xp.abs(x))) * xp.sign(x)
    return xp.where(near, _centre(xp, x, near), far)


def erfc(xp: Namespace, x: Array) -> Array:
    """Return 1 - erf(x), without cancellation."""
    near, tail = xp.abs(x) <= _FIRST, _tail(xp, xp.abs(x))
    return xp.where(near, 1.0 - _centre(xp, x, near), xp.where(x < 0, 2.0 - tail, tail))


def sigmoid(xp: Namespace, x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow."""
    e = xp.exp(-xp.abs(x))
    return xp.where(x < 0, e, xp.ones_like(e)) / (1.0 + e)


def _centre(xp: Namespace, x: Array, near: Array) -> Array:
    x = xp.where(near, x, xp.zeros_like(x))
    return x * _ratio(_NEAR, x * x)


def _tail(xp: Namespace, y: Array) -> Array:
    """Return erfc(y) for y above the first interval; anything below."""
    one, middle = xp.ones_like(y), y <= _SECOND
    m = xp.where(middle, y, one)
    f = xp.where(middle, _SECOND * one, xp.where(y > _LAST, _LAST * one, y))
    z = 1.0 / (f * f)
    scaled = xp.where(
        middle, _ratio(_MIDDLE, m), (1.0 / math.sqrt(math.pi) - z * _ratio(_FAR, z)) / f
    )
    return _gaussian(xp, xp.where(middle, m, f)) * scaled


def _gaussian(xp: Namespace, y: Array) -> Array:
    """Return exp(-y^2) as exp(-c^2) exp(-(y - c)(y + c)), with c^2 exact."""
    c = xp.trunc(y * 16.0) / 16.0
    return xp.exp(-c * c) * xp.exp(-(y - c) * (y + c))


def _ratio(coefficients: tuple[Sequence[float], Sequence[float]], x: Array) -> Array:
    numerator, denominator = (_polynomial(each, x) for each in coefficients)
    return numerator / denominator


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    leading, *others = coefficients
    value = leading * x + others[0]
    for c in others[1:]:
        value = value * x + c
    return value
