"""Elementwise functions of multicomplex arrays, by the two halves a + i b of their arguments.

A formula gives both halves of the result by functions of the halves, which are of one order less
and real at last. Each is exact, for a step of any length, and is written so that what carries
the derivative never stands beside something larger that is then subtracted.

To add one, add a row to ``_HALVES`` or, if the function is composed of others, to ``_COMPOSED``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from ...core.arrays import Array
from ..tape import functions
from ..tape.elementwise import ELEMENTWISE
from ..tape.namespace import not_differentiable
from ..tape.record import FUNCTIONS, Variable, namespace_of, plain, with_value

# The elementwise functions, each of real and of multicomplex arrays alike.
_f = SimpleNamespace(**{name: FUNCTIONS[name] for name in ELEMENTWISE})


def elementwise(name: str, args: Sequence[Any]) -> Any:
    """Return the elementwise function ``name`` of arrays, some of which are multicomplex.

    Raises
    ------
    NotDifferentiable
        If it has no formula here.
    """
    if name in _COMPOSED:
        return _COMPOSED[name](*args)
    if name not in _HALVES:
        raise not_differentiable(name)
    (z,) = args  # a multicomplex array
    a, b = z.halves()
    u, w = (getattr(_f, name)(a), None) if b is None else _HALVES[name](a, b)
    return z.joined(u, w)


# By halves -----------------------------------------------------------------------------------


def _atan(a: Any, b: Any) -> tuple[Any, Any]:
    u = 0.5 * (_f.atan(a / (1.0 - b)) + _f.atan(a / (1.0 + b)))
    return u, 0.5 * _f.atanh(2.0 * b / (1.0 + a * a + b * b))


def _erf(name: str, sign: float) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return f(a) + i b f'(a): that is exact only to O(b^2), but no elementary formula is."""
    c = sign * 2.0 / math.sqrt(math.pi)
    return lambda a, b: (getattr(_f, name)(a), c * _f.exp(-a * a) * b)


def _expm1(a: Any, b: Any) -> tuple[Any, Any]:
    s = _f.sin(0.5 * b)
    return _f.expm1(a) * _f.cos(b) - 2.0 * s * s, _f.exp(a) * _f.sin(b)


def _log(name: str, base: float) -> Callable[[Any, Any], tuple[Any, Any]]:
    c = 1.0 / math.log(base)

    def halves(a: Any, b: Any) -> tuple[Any, Any]:
        r = b / a
        return getattr(_f, name)(a) + (0.5 * c) * _f.log1p(r * r), c * _f.atan(r)

    return halves


def _log1p(a: Any, b: Any) -> tuple[Any, Any]:
    r = b / (1.0 + a)
    return _f.log1p(a) + 0.5 * _f.log1p(r * r), _f.atan(r)


def _reciprocal(a: Any, b: Any) -> tuple[Any, Any]:
    p = _f.reciprocal(a)
    r = b * p
    u = p * _f.reciprocal(1.0 + r * r)
    return u, -r * u


def _sqrt(a: Any, b: Any) -> tuple[Any, Any]:
    """Return the halves of sqrt(a) sqrt(1 + i r), with r = b / a."""
    r, s = b / a, _f.sqrt(a)
    c = _f.sqrt(0.5 + 0.5 * _f.sqrt(1.0 + r * r))
    return s * c, 0.5 * s * r / c


def _tan(a: Any, b: Any) -> tuple[Any, Any]:
    t, T = _f.tan(a), _f.tanh(b)
    d = 1.0 + (t * T) * (t * T)
    return t * _sech2(b) / d, T * (1.0 + t * t) / d


def _tanh(a: Any, b: Any) -> tuple[Any, Any]:
    T, t = _f.tanh(a), _f.tan(b)
    d = 1.0 + (t * T) * (t * T)
    return T * (1.0 + t * t) / d, t * _sech2(a) / d


def _sech2(x: Any) -> Any:
    """Return 1 - tanh(x)^2, to full relative accuracy."""
    e = _f.exp(-2.0 * _turned(x))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


_HALVES: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "atan": _atan,
    "cos": lambda a, b: (_f.cos(a) * _f.cosh(b), -_f.sin(a) * _f.sinh(b)),
    "cosh": lambda a, b: (_f.cosh(a) * _f.cos(b), _f.sinh(a) * _f.sin(b)),
    "erf": _erf("erf", 1.0),
    "erfc": _erf("erfc", -1.0),
    "exp": lambda a, b: (_f.exp(a) * _f.cos(b), _f.exp(a) * _f.sin(b)),
    "expm1": _expm1,
    "log": _log("log", math.e),
    "log10": _log("log10", 10.0),
    "log1p": _log1p,
    "log2": _log("log2", 2.0),
    "reciprocal": _reciprocal,
    "sin": lambda a, b: (_f.sin(a) * _f.cosh(b), _f.cos(a) * _f.sinh(b)),
    "sinh": lambda a, b: (_f.sinh(a) * _f.cos(b), _f.cosh(a) * _f.sin(b)),
    "sqrt": _sqrt,
    "tan": _tan,
    "tanh": _tanh,
}

# Composed of others: what may be a real array stands on an operator's right, as strictly it must.


def _asinh(x: Any) -> Any:
    y = _turned(x)
    return _f.log1p(y + y * y / (1.0 + _f.sqrt(1.0 + y * y))) * _side(x)


def _atanh(x: Any) -> Any:
    y = _turned(x)
    return 0.5 * _f.log1p(2.0 * y / (1.0 - y)) * _side(x)


def _atan2(y: Any, x: Any) -> Any:
    """Return the angle of the real parts, and by how much the rest turns it."""
    xp, y0, x0 = namespace_of(y, x), plain(y), plain(x)
    r = xp.hypot(y0, x0)
    r = xp.where(r == 0, r + 1.0, r)
    c, s = x0 / r, y0 / r
    across, along = functions.subtract(y * c, x * s), functions.add(x * c, y * s)
    return _f.atan(across / along) + xp.atan2(y0, x0)


def _divide(x: Any, y: Any) -> Any:
    if isinstance(y, Variable):
        return _f.reciprocal(y) * x
    quotient = x.each(lambda part: part / y)
    return quotient.with_value(quotient.value)  # y may have broadcast


def _hypot(x: Any, y: Any) -> Any:
    xp = namespace_of(x, y)
    r = xp.hypot(plain(x), plain(y))
    r = xp.where(r == 0, r + 1.0, r)
    u, w = x / r, y / r
    return functions.root(functions.add(u * u, w * w)) * r


def _logaddexp(x: Any, y: Any) -> Any:
    xp, x0, y0 = namespace_of(x, y), plain(x), plain(y)
    high, low = functions.where(x0 >= y0, x, y), functions.where(x0 >= y0, y, x)
    tie = x0 == y0  # may be one of infinities, whose difference is NaN
    gap = _zeroed(xp, low, tie) - _zeroed(xp, high, tie)
    return high + _f.log1p(_f.exp(gap))


def _zeroed(xp: Any, x: Any, where: Array) -> Any:
    x0 = plain(x)
    value = xp.where(where, xp.zeros_like(x0), x0)
    return with_value(x, value) if isinstance(x, Variable) else value


def _extreme(name: str, first: Callable[[Array, Array], Array]) -> Callable[[Any, Any], Any]:
    def extreme(x: Any, y: Any) -> Any:
        x0, y0 = plain(x), plain(y)
        chosen = functions.where(first(x0, y0), x, y)
        shared = functions.where(x0 == y0, 0.5 * functions.add(x, y), chosen)
        return with_value(shared, getattr(namespace_of(x, y), name)(x0, y0))

    return extreme


def _pow(x: Any, y: Any) -> Any:
    """Return x^y, by products for a small integer y, and else by the real parts x0 and y0.

    x0^y0 exp((y - y0) log x0 + y log(x / x0)), which has no derivatives where x0 is 0, and divides
    by it.
    """
    if isinstance(y, int | float) and y == int(y) and 0 < abs(y) <= 64:
        power = _integer_power(x, int(abs(y)))
        return power if y > 0 else _f.reciprocal(power)
    xp, x0, y0 = namespace_of(x, y), plain(x), plain(y)
    exponent: Any = 0.0
    if isinstance(y, Variable):
        exponent = with_value(y, xp.zeros_like(y0)) * xp.log(x0)
    if isinstance(x, Variable):
        exponent = exponent + _f.log(x / x0) * y
    return _f.exp(exponent) * xp.pow(x0, y0)


def _integer_power(x: Any, n: int) -> Any:
    if n == 1:
        return x
    half = _integer_power(x, n // 2)
    return half * half * x if n % 2 else half * half


def _remainder(x: Any, y: Any) -> Any:
    xp, x0, y0 = namespace_of(x, y), plain(x), plain(y)
    rest = functions.subtract(x, y * xp.floor(x0 / y0))
    return with_value(rest, xp.remainder(x0, y0))


_COMPOSED: dict[str, Callable[..., Any]] = {
    "abs": lambda x: x * namespace_of(x).sign(plain(x)),
    "acos": lambda x: 2.0 * _f.atan(_f.sqrt((1.0 - x) / (1.0 + x))),
    "acosh": lambda x: _f.log1p((x - 1.0) + _f.sqrt((x - 1.0) * (x + 1.0))),
    "asin": lambda x: _f.atan(x / _f.sqrt((1.0 - x) * (1.0 + x))),
    "asinh": _asinh,
    "atan2": _atan2,
    "atanh": _atanh,
    "divide": _divide,
    "hypot": _hypot,
    "logaddexp": _logaddexp,
    "maximum": _extreme("maximum", lambda x0, y0: x0 > y0),
    "minimum": _extreme("minimum", lambda x0, y0: x0 < y0),
    "pow": _pow,
    "remainder": _remainder,
    "sigmoid": lambda x: 0.5 + 0.5 * _f.tanh(0.5 * x),
    "square": lambda x: x * x,
}


def _side(x: Any) -> Array:
    """Return 1 where the real part of ``x`` is not negative, and -1 elsewhere."""
    xp, x0 = namespace_of(x), plain(x)
    one = xp.ones_like(x0)
    return xp.where(x0 < 0, -one, one)


def _turned(x: Any) -> Any:
    """Return x or -x, whose real part is not negative; derivatives at 0 are those from above."""
    return x * _side(x)
