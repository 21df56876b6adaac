"""The elementwise primitives: a function, its first and its second derivatives.

To add one, add a row; it is then a function of the traced namespace under its name, and the
tests draw their cases from this table.

A formula is called with the namespace, the value y and the arguments, and may use y where that
saves work. It is a holomorphic function of them. None stands for a second derivative that is
zero. Where a derivative has no limit but the function has a subgradient, the row takes one:
abs and hypot have 0 at the origin, and maximum and minimum share a tie evenly, as they do in
PyTorch and JAX.
"""

from __future__ import annotations

import math

from ...core.arrays import Array, Namespace, is_complex, like
from . import special
from .rules import Elementwise, Formula


def _of_one(
    name: str, d1: Formula, d2: Formula | None, function: Formula | None = None
) -> Elementwise:
    return Elementwise(name, (d1,), ((d2,),), function)


def _of_two(
    name: str,
    dx: Formula,
    dy: Formula,
    dxx: Formula | None,
    dxy: Formula | None,
    dyy: Formula | None,
    function: Formula | None = None,
) -> Elementwise:
    return Elementwise(name, (dx, dy), ((dxx, dxy), (dxy, dyy)), function)


# Pieces of formulas -------------------------------------------------------------------------


def _nonzero(xp: Namespace, x: Array) -> Array:
    """Return ``x`` with 1 for 0: a denominator for a numerator that is 0 there too."""
    return xp.where(x == 0, like(x, 1.0), x)


def _power(xp: Namespace, factor: Array, x: Array, exponent: Array) -> Array:
    """Return factor * x**exponent, and 0 where the factor is 0 although x may be, too."""
    return factor * xp.pow(x, xp.where(factor == 0, like(exponent, 1.0), exponent))


def _log(xp: Namespace, x: Array) -> Array:
    """Return log x, and 0 at 0, for products with a power of x."""
    return xp.log(_nonzero(xp, x))


def _share(xp: Namespace, x: Array, y: Array) -> Array:
    """Return exp(x) / (exp(x) + exp(y)), accurate and without overflow; 1/2 at a tie."""
    tie = x == y  # may be one of infinities, whose difference is NaN
    d = xp.where(tie, like(x, 0.0), x) - xp.where(tie, like(y, 0.0), y)
    below = (xp.real(d) if is_complex(d) else d) < 0
    return xp.exp(xp.where(below, d, like(d, 0.0))) / (1.0 + xp.exp(xp.where(below, d, -d)))


def _larger(xp: Namespace, x: Array, y: Array) -> Array:
    """Return 1 where x > y, 1/2 where they tie, and 0 elsewhere."""
    dtype = xp.result_type(x, y)
    return xp.astype(x > y, dtype) + 0.5 * xp.astype(x == y, dtype)


def _bell(xp: Namespace, x: Array) -> Array:
    """Return the derivative of erf."""
    return 2.0 / math.sqrt(math.pi) * xp.exp(-x * x)


def _scaled_log(name: str, base: float) -> Elementwise:
    c = 1.0 / math.log(base)
    return _of_one(name, lambda xp, y, x: c / x, lambda xp, y, x: -c / (x * x))


# The table -----------------------------------------------------------------------------------

_ROWS = [
    # Of one argument
    _of_one("abs", lambda xp, y, x: xp.sign(x), None),
    _of_one(
        "acos",
        lambda xp, y, x: -1.0 / xp.sqrt((1.0 - x) * (1.0 + x)),
        lambda xp, y, x: -x / xp.sqrt((1.0 - x) * (1.0 + x)) ** 3,
    ),
    _of_one(
        "acosh",
        lambda xp, y, x: 1.0 / (xp.sqrt(x - 1.0) * xp.sqrt(x + 1.0)),
        lambda xp, y, x: -x / (xp.sqrt(x - 1.0) * xp.sqrt(x + 1.0)) ** 3,
    ),
    _of_one(
        "asin",
        lambda xp, y, x: 1.0 / xp.sqrt((1.0 - x) * (1.0 + x)),
        lambda xp, y, x: x / xp.sqrt((1.0 - x) * (1.0 + x)) ** 3,
    ),
    _of_one(
        "asinh",
        lambda xp, y, x: 1.0 / xp.sqrt(x * x + 1.0),
        lambda xp, y, x: -x / xp.sqrt(x * x + 1.0) ** 3,
    ),
    _of_one(
        "atan",
        lambda xp, y, x: 1.0 / (1.0 + x * x),
        lambda xp, y, x: -2.0 * x / (1.0 + x * x) ** 2,
    ),
    _of_one(
        "atanh",
        lambda xp, y, x: 1.0 / ((1.0 - x) * (1.0 + x)),
        lambda xp, y, x: 2.0 * x / ((1.0 - x) * (1.0 + x)) ** 2,
    ),
    _of_one("cos", lambda xp, y, x: -xp.sin(x), lambda xp, y, x: -y),
    _of_one("cosh", lambda xp, y, x: xp.sinh(x), lambda xp, y, x: y),
    _of_one(
        "erf",
        lambda xp, y, x: _bell(xp, x),
        lambda xp, y, x: -2.0 * x * _bell(xp, x),
        special.erf,
    ),
    _of_one(
        "erfc",
        lambda xp, y, x: -_bell(xp, x),
        lambda xp, y, x: 2.0 * x * _bell(xp, x),
        special.erfc,
    ),
    _of_one("exp", lambda xp, y, x: y, lambda xp, y, x: y),
    _of_one("expm1", lambda xp, y, x: y + 1.0, lambda xp, y, x: y + 1.0),
    _of_one("log", lambda xp, y, x: 1.0 / x, lambda xp, y, x: -1.0 / (x * x)),
    _of_one(
        "log1p", lambda xp, y, x: 1.0 / (1.0 + x), lambda xp, y, x: -1.0 / ((1.0 + x) * (1.0 + x))
    ),
    _scaled_log("log2", 2.0),
    _scaled_log("log10", 10.0),
    _of_one("reciprocal", lambda xp, y, x: -y * y, lambda xp, y, x: 2.0 * y * y * y),
    _of_one(
        "sigmoid",
        lambda xp, y, x: y * (1.0 - y),
        lambda xp, y, x: y * (1.0 - y) * (1.0 - 2.0 * y),
        special.sigmoid,
    ),
    _of_one("sin", lambda xp, y, x: xp.cos(x), lambda xp, y, x: -y),
    _of_one("sinh", lambda xp, y, x: xp.cosh(x), lambda xp, y, x: y),
    # Infinite at 0, as it must be. A norm that is to have the subgradient 0 there is
    # linalg.vector_norm.
    _of_one("sqrt", lambda xp, y, x: 0.5 / y, lambda xp, y, x: -0.25 / (x * y)),
    _of_one("square", lambda xp, y, x: 2.0 * x, lambda xp, y, x: 2.0),
    _of_one("tan", lambda xp, y, x: 1.0 + y * y, lambda xp, y, x: 2.0 * y * (1.0 + y * y)),
    _of_one("tanh", lambda xp, y, x: 1.0 - y * y, lambda xp, y, x: -2.0 * y * (1.0 - y * y)),
    # Of two
    _of_two(
        "atan2",  # of (x, y), the angle whose tangent is x / y
        lambda xp, z, x, y: y / _nonzero(xp, x * x + y * y),
        lambda xp, z, x, y: -x / _nonzero(xp, x * x + y * y),
        lambda xp, z, x, y: -2.0 * x * y / _nonzero(xp, x * x + y * y) ** 2,
        lambda xp, z, x, y: (x - y) * (x + y) / _nonzero(xp, x * x + y * y) ** 2,
        lambda xp, z, x, y: 2.0 * x * y / _nonzero(xp, x * x + y * y) ** 2,
    ),
    _of_two(
        "divide",
        lambda xp, z, x, y: 1.0 / y,
        lambda xp, z, x, y: -z / y,
        None,
        lambda xp, z, x, y: -1.0 / (y * y),
        lambda xp, z, x, y: 2.0 * z / (y * y),
    ),
    _of_two(
        "hypot",
        lambda xp, z, x, y: x / _nonzero(xp, z),
        lambda xp, z, x, y: y / _nonzero(xp, z),
        lambda xp, z, x, y: (y / _nonzero(xp, z)) ** 2 / _nonzero(xp, z),
        lambda xp, z, x, y: -(x / _nonzero(xp, z)) * (y / _nonzero(xp, z)) / _nonzero(xp, z),
        lambda xp, z, x, y: (x / _nonzero(xp, z)) ** 2 / _nonzero(xp, z),
    ),
    _of_two(
        "logaddexp",
        lambda xp, z, x, y: _share(xp, x, y),
        lambda xp, z, x, y: _share(xp, y, x),
        lambda xp, z, x, y: _share(xp, x, y) * _share(xp, y, x),
        lambda xp, z, x, y: -_share(xp, x, y) * _share(xp, y, x),
        lambda xp, z, x, y: _share(xp, x, y) * _share(xp, y, x),
    ),
    _of_two(
        "maximum",
        lambda xp, z, x, y: _larger(xp, x, y),
        lambda xp, z, x, y: _larger(xp, y, x),
        None,
        None,
        None,
    ),
    _of_two(
        "minimum",
        lambda xp, z, x, y: _larger(xp, y, x),
        lambda xp, z, x, y: _larger(xp, x, y),
        None,
        None,
        None,
    ),
    _of_two(
        "pow",
        lambda xp, z, x, y: _power(xp, y, x, y - 1.0),
        lambda xp, z, x, y: z * _log(xp, x),
        lambda xp, z, x, y: _power(xp, y * (y - 1.0), x, y - 2.0),
        lambda xp, z, x, y: xp.pow(x, y - 1.0) * (1.0 + y * _log(xp, x)),
        lambda xp, z, x, y: z * _log(xp, x) ** 2,
    ),
    _of_two(
        "remainder",
        lambda xp, z, x, y: 1.0,
        lambda xp, z, x, y: -xp.floor(x / y),
        None,
        None,
        None,
    ),
]

#: By name.
ELEMENTWISE = {row.name: row for row in _ROWS}
