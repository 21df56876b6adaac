"""Elementwise functions of multicomplex arrays, by the two halves a + i b of their arguments.

A formula gives both halves of the result by functions of the halves, which are of one order less
and real at last. Each is exact, for a step of any length, and is written so that the part that
carries the derivative never stands beside something larger that is then subtracted.

To add one, add a row to ``_HALVES`` or, if the function is composed of others, to ``_COMPOSED``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from ...core.arrays import Array, like
from ..tape import functions
from ..tape.elementwise import ELEMENTWISE
from ..tape.namespace import not_differentiable
from ..tape.record import FUNCTIONS, Variable, namespace_of, plain, with_value
from .array import Multicomplex, parts_of, symmetric, symmetrised

# The elementwise functions, of real and of multicomplex arrays.
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
    (z,) = args
    a, b = z.halves()
    halves = (getattr(_f, name)(a), None) if b is None else _HALVES[name](a, b)
    size = len(z.parts) // 2
    parts = (*parts_of(halves[0], size), *parts_of(halves[1], size))
    return Multicomplex(symmetrised(parts) if symmetric(z.parts) else parts)


# By halves -----------------------------------------------------------------------------------


def _atan(a: Any, b: Any) -> tuple[Any, Any]:
    real = 0.5 * (_f.atan(a / (1.0 - b)) + _f.atan(a / (1.0 + b)))
    return real, 0.5 * _f.atanh(2.0 * b / (1.0 + a * a + b * b))


def _expm1(a: Any, b: Any) -> tuple[Any, Any]:
    half = _f.sin(0.5 * b)
    return _f.expm1(a) * _f.cos(b) - 2.0 * half * half, _f.exp(a) * _f.sin(b)


def _logarithm(name: str) -> Callable[[Any, Any], tuple[Any, Any]]:
    def halves(a: Any, b: Any) -> tuple[Any, Any]:
        scale = getattr(_f, name)(like(_plain_of(a, b), 1.0) * _E) if name != "log" else 1.0
        r = b / a
        return getattr(_f, name)(a) + 0.5 * scale * _f.log1p(r * r), scale * _f.atan(r)

    return halves
