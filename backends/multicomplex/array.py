"""Multicomplex arrays, and what each category of primitives does to them.

A multicomplex number of order k is a pair of those of order k - 1, a + i_k b with i_k^2 = -1. The
units commute, so that it is also 2^k real parts, one for each set of units: the part of the set m
multiplies the product of the units in m, and the bits of the integer m say which they are.

A linear primitive acts on every part by itself and a bilinear one by the product

    (sum_s x_s i_s) (sum_t y_t i_t) = sum_st (-1)^|s and t| B(x_s, y_t) i_(s xor t),

both from the tape's own tables; ``formulas.py`` has the elementwise ones. A part that is zero is
not stored, nor is anything multiplied by it. Where a number is unchanged by exchanging units, as
x + (i_1 + ... + i_k) h v is, all sets of one size share one part, which is computed once. What is
never used is the idempotent representation, whose components are sums of parts: recovering a part
from those subtracts, and loses it to rounding.

G. Lantoine, R. P. Russell, T. Dargent, "Using multicomplex variables for automatic computation of
high-order derivatives", ACM Transactions on Mathematical Software 38 (2012).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...core.arrays import Array, Namespace, namespace
from ...core.errors import NotDifferentiable
from ..tape.active import Active
from ..tape.graph import Spec
from ..tape.record import Variable, namespace_of
from ..tape.rules import Bilinear, Elementwise, Linear
from .formulas import elementwise

#: One for each set of units, None for zero. That of the empty set, the real part, is an array.
Parts = tuple[Any, ...]


class Multicomplex(Active):
    """An array of multicomplex numbers.

    It has the array API's operators and namespace and NumPy's protocols and methods, so that a
    function written with those runs on it unchanged. Comparisons, and functions that branch
    (abs, maximum, where, sorting), go by the real part.

    Parameters
    ----------
    parts : sequence of array or None
        The 2^k real parts, of one shape and dtype; None for zero.
    """

    __slots__ = ("order", "parts")

    kind = "multicomplex array"

    def __init__(self, parts: Sequence[Array | None]) -> None:
        self.parts: Parts = tuple(parts)
        self.value = self.parts[0]
        self.order = len(self.parts).bit_length() - 1

    def check_kin(self, other: Variable) -> None:
        """Raise unless ``other`` is multicomplex of the same order."""
        if not isinstance(other, Multicomplex) or other.order != self.order:
            raise NotDifferentiable(
                f"a multicomplex array of order {self.order} met a {other.kind} of another "
                "derivative: derivatives cannot be nested; take one of higher order instead"
            )

    def apply(
        self,
        rule: Elementwise | Linear | Bilinear,
        args: Sequence[Any],
        params: dict[str, Any],
    ) -> Any:
        """Return what ``rule`` makes of ``args``, of which it is one."""
        if isinstance(rule, Elementwise):
            return elementwise(rule.name, args)
        xp = namespace_of(*args)
        operands = [parts_of(a, len(self.parts)) for a in args]
        if isinstance(rule, Bilinear):
            parts = _bilinear(rule, xp, *operands)
        else:
            parts = _linear(rule, xp, operands, params)
        return Multicomplex(parts).with_value(parts[0])

    def with_value(self, value: Array) -> Multicomplex:
        """Return ``value`` as the real part, and the other parts fitted to its shape and dtype."""
        xp, spec = namespace(value), Spec.of(value)
        fitted = self.each(lambda part: _fitted(xp, part, spec))
        return Multicomplex((value, *fitted.parts[1:]))

    def each(self, function: Callable[[Array], Array]) -> Multicomplex:
        """Return what a linear function of real arrays makes of each part."""
        parts = self.parts
        return Multicomplex(
            _for_each_set(
                lambda m: None if parts[m] is None else function(parts[m]), len(parts), [parts]
            )
        )

    def halves(self) -> tuple[Any, Any]:
        """Return a and b of a + i_k b: of order k - 1, or real for k = 1; None for b = 0."""
        half = len(self.parts) // 2
        return self._number(self.parts[:half]), self._number(self.parts[half:])

    def joined(self, a: Any, b: Any) -> Multicomplex:
        """Return a + i_k b, whose parts are shared as these are."""
        half = len(self.parts) // 2
        parts = (*parts_of(a, half), *parts_of(b, half))
        return Multicomplex(_symmetrised(parts) if _symmetric(self.parts) else parts)

    def _number(self, parts: Parts) -> Any:
        if all(part is None for part in parts):
            return None
        if len(parts) == 1:
            return parts[0]
        real = Spec.of(self.value).zeros(namespace(self.value)) if parts[0] is None else parts[0]
        return Multicomplex((real, *parts[1:]))


def parts_of(x: Any, size: int) -> Parts:
    """Return the parts of a multicomplex array, or of a real one or a number; all zero for None."""
    return x.parts if isinstance(x, Multicomplex) else (x, *[None] * (size - 1))


def _symmetric(parts: Parts) -> bool:
    """Whether all sets of units of one size share a part."""
    return all(part is parts[_first(m)] for m, part in enumerate(parts))


def _symmetrised(parts: Parts) -> Parts:
    """Return parts that are equal up to rounding as parts that are shared."""
    return tuple(parts[_first(m)] for m in range(len(parts)))


def _first(m: int) -> int:
    """Return the first set that has as many units as ``m``."""
    return (1 << m.bit_count()) - 1


def _for_each_set(compute: Callable[[int], Any], size: int, operands: Sequence[Parts]) -> Parts:
    """Return ``compute(m)`` for each set m of units, once for those that the operands share."""
    if not all(map(_symmetric, operands)):
        return tuple(compute(m) for m in range(size))
    found = {m: compute(m) for m in {_first(m) for m in range(size)}}
    return tuple(found[_first(m)] for m in range(size))


def _linear(
    rule: Linear, xp: Namespace, operands: Sequence[Parts], params: dict[str, Any]
) -> Parts:
    real = rule.map(xp, *(parts[0] for parts in operands), **params)
    specs = [
        Spec(tuple(getattr(parts[0], "shape", ())), real.dtype, Spec.of(real).device)
        for parts in operands
    ]

    def part(m: int) -> Any:
        given = [parts[m] for parts in operands]
        if m == 0 or all(x is None for x in given):
            return real if m == 0 else None
        filled = [spec.zeros(xp) if x is None else x for x, spec in zip(given, specs, strict=True)]
        return rule.map(xp, *filled, **params)

    return _for_each_set(part, len(operands[0]), operands)


def _bilinear(rule: Bilinear, xp: Namespace, x: Parts, y: Parts) -> Parts:
    products: dict[tuple[int, int], Array] = {}

    def product(a: Array, b: Array) -> Array:
        key = (id(a), id(b))  # shared parts are multiplied once
        if key not in products:
            products[key] = rule.map(xp, a, b)
        return products[key]

    def part(m: int) -> Any:
        total = None
        for s in range(len(x)):
            t = s ^ m
            if x[s] is None or y[t] is None:
                continue
            term = product(x[s], y[t])
            if (s & t).bit_count() % 2:
                total = -term if total is None else total - term
            else:
                total = term if total is None else total + term
        return total

    return _for_each_set(part, len(x), [x, y])


def _fitted(xp: Namespace, part: Array, spec: Spec) -> Array:
    if part.dtype != spec.dtype:
        part = xp.astype(part, spec.dtype)
    return part if tuple(part.shape) == spec.shape else xp.broadcast_to(part, spec.shape)
