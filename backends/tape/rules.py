"""The three categories of primitives, and what each does in every sweep.

A table's row is an instance of one of these classes. In each category the forward sweep is
``forward`` and ``save``; the other three sweeps are ``tangent``, ``transpose`` and, for what
the tangent-of-reverse sweep adds to the transpose, ``curvature`` (see ``graph.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...core.arrays import Array, Namespace, is_complex, join_parts, like, namespace
from .graph import Node, Spec

Formula = Callable[..., Any]


@dataclass(frozen=True)
class Elementwise:
    """y = f(x_1, ..., x_k), entry by entry; J_i is multiplication by d_i = df/dx_i.

    Complex arguments are those of a complex step, x = a + ib with b tiny, and f(a) + i b f'(a)
    differs from f(x) by O(b^2): below rounding. It is the analytic extension of every row
    by the real part, those of the kinked functions and of the ones without a complex version
    included; it needs no complex arithmetic, whose tanh is 100 times slower than the real one, and
    comes near no branch cut.

    Attributes
    ----------
    name : str
        The function's in the array API.
    d1 : tuple of callable
        The k partial derivatives, each ``(xp, y, *x) -> array``, where y is the value.
    d2 : tuple of tuple
        The k x k second ones, called likewise; None for zero.
    function : callable or None
        ``(xp, *x) -> y``; None for the namespace's own.
    """

    name: str
    d1: tuple[Formula, ...]
    d2: tuple[tuple[Formula | None, ...], ...]
    function: Formula | None = None

    fresh = True
    broadcasts = True

    def forward(self, xp: Namespace, *args: Any) -> Array:
        """Return f of plain arrays."""
        if not any(map(is_complex, args)):
            return self._value(xp, *args)
        a = _real_parts(xp, args)
        y = self._value(xp, *a)
        a = _as_arrays(y, a)
        return _extended(xp, y, [partial(d, xp, y, *a) for d in self.d1], args)

    def _value(self, xp: Namespace, *args: Any) -> Array:
        return self.function(xp, *args) if self.function else getattr(xp, self.name)(*args)

    def save(self, args: Sequence[Any], traced: Sequence[bool], y: Array) -> Any:
        """Keep y and the arguments, which the formulas take."""
        return (y, *_as_arrays(y, args))

    def tangent(self, xp: Namespace, node: Node, tangents: Sequence[Array]) -> Array:
        """Return sum_i d_i t_i."""
        total = None
        for i, t in enumerate(tangents):
            if t is not None:
                term = self._d1(xp, node, i) * t
                total = term if total is None else _added(total, term)
        return total

    def transpose(self, xp: Namespace, node: Node, g: Array, i: int) -> Array:
        """Return d_i g."""
        return self._d1(xp, node, i) * g

    def curvature(
        self, xp: Namespace, node: Node, i: int, tangents: Sequence[Array]
    ) -> Array | None:
        """Return sum_j (g d_ij) t_j."""
        total = None
        for j, t in enumerate(tangents):
            if t is not None and self.d2[i][j] is not None:
                term = self._bend(xp, node, i, j) * t
                total = term if total is None else _added(total, term)
        return total

    def _d1(self, xp: Namespace, node: Node, i: int) -> Array:
        if i not in node.cache:
            node.cache[i] = self._slope(xp, node, i)
        return node.cache[i]

    def _slope(self, xp: Namespace, node: Node, i: int) -> Array:
        if not is_complex(node.saved[0]):
            return self.d1[i](xp, *node.saved)
        real = _real_parts(xp, node.saved)
        slopes = [None if d is None else partial(d, xp, *real) for d in self.d2[i]]
        return _extended(xp, self.d1[i](xp, *real), slopes, node.saved[1:])

    def _bend(self, xp: Namespace, node: Node, i: int, j: int) -> Array:
        key = (min(i, j), max(i, j))
        if key not in node.cache:
            formula = self.d2[i][j]
            assert formula is not None
            node.cache[key] = node.cotangent * formula(xp, *node.saved)
        return node.cache[key]


@dataclass(frozen=True)
class Linear:
    """y = L(x_1, ..., x_k; params), linear in all arguments together, so that J = L.

    Attributes
    ----------
    name : str
    map : callable
        ``(xp, *x, **params) -> y``.
    transposed : callable
        ``(xp, g, i, specs, **params) -> array``: what the transpose of L gives to the i-th
        argument; ``specs`` are the arguments'.
    broadcasts : bool
        Whether the arguments broadcast against each other.
    """

    name: str
    map: Formula
    transposed: Formula
    broadcasts: bool = False

    fresh = False

    def forward(self, xp: Namespace, *args: Any, **params: Any) -> Array:
        """Return L of plain arrays."""
        return self.map(xp, *args, **params)

    def save(self, args: Sequence[Any], traced: Sequence[bool], y: Array) -> Any:
        """Keep no values, only what the tangents of the arguments look like."""
        device = Spec.of(y).device
        return tuple(Spec(tuple(getattr(x, "shape", ())), y.dtype, device) for x in args)

    def tangent(self, xp: Namespace, node: Node, tangents: Sequence[Array]) -> Array:
        """Return L(t_1, ..., t_k), where constants have a tangent of zero."""
        filled = [
            spec.zeros(xp) if t is None else t for t, spec in zip(tangents, node.saved, strict=True)
        ]
        return self.map(xp, *filled, **node.params)

    def transpose(self, xp: Namespace, node: Node, g: Array, i: int) -> Array:
        """Return L_i' g."""
        return self.transposed(xp, g, i, node.saved, **node.params)

    def curvature(
        self, xp: Namespace, node: Node, i: int, tangents: Sequence[Array]
    ) -> Array | None:
        """Return nothing: L is its own derivative everywhere."""
        return None


@dataclass(frozen=True)
class Bilinear:
    """y = B(a, b), linear in each; J (da, db) = B(da, b) + B(a, db).

    Attributes
    ----------
    name : str
    map : callable
        ``(xp, a, b) -> y``, into new memory, as are both transposes.
    left : callable
        ``(xp, g, b) -> array``: the transpose of B(., b).
    right : callable
        ``(xp, g, a) -> array``: the transpose of B(a, .).
    broadcasts : bool
        Whether the arguments broadcast against each other.
    """

    name: str
    map: Formula
    left: Formula
    right: Formula
    broadcasts: bool = False

    fresh = True

    def forward(self, xp: Namespace, a: Any, b: Any) -> Array:
        """Return B of plain arrays."""
        return self.map(xp, a, b)

    def save(self, args: Sequence[Any], traced: Sequence[bool], y: Array) -> Any:
        """Keep each argument whose partner is traced."""
        (a, b), (of_a, of_b) = args, traced
        return (a if of_b else None, b if of_a else None)

    def tangent(self, xp: Namespace, node: Node, tangents: Sequence[Array]) -> Array:
        """Return B(da, b) + B(a, db)."""
        (a, b), (da, db) = node.saved, tangents
        if da is None:
            return self.map(xp, a, db)
        if db is None:
            return self.map(xp, da, b)
        return _added(self.map(xp, da, b), self.map(xp, a, db))

    def transpose(self, xp: Namespace, node: Node, g: Array, i: int) -> Array:
        """Return B(., b)' g or B(a, .)' g."""
        a, b = node.saved
        return self.left(xp, g, b) if i == 0 else self.right(xp, g, a)

    def curvature(
        self, xp: Namespace, node: Node, i: int, tangents: Sequence[Array]
    ) -> Array | None:
        """Return B(., db)' g or B(da, .)' g."""
        partner = tangents[1 - i]
        if partner is None:
            return None
        return (self.left if i == 0 else self.right)(xp, node.cotangent, partner)


def _extended(
    xp: Namespace, f: Any, slopes: Sequence[Callable[[], Any] | None], args: Sequence[Any]
) -> Any:
    """Return f + i sum_j b_j f_j, for the slopes f_j and the imaginary parts b_j of ``args``."""
    terms = [
        xp.imag(x) * slope()
        for x, slope in zip(args, slopes, strict=True)
        if slope is not None and is_complex(x)
    ]
    return join_parts(f, sum(terms[1:], terms[0])) if terms else f


def _real_parts(xp: Namespace, args: Sequence[Any]) -> list[Any]:
    return [xp.real(x) if is_complex(x) else x for x in args]


def _as_arrays(y: Array, args: Sequence[Any]) -> list[Array]:
    """Return the arguments with numbers as arrays like y: real ones, too, in a complex step."""
    real = namespace(y).real(y) if is_complex(y) else y
    return [x if hasattr(x, "dtype") else like(real, x) for x in args]


def _added(total: Array, term: Array) -> Array:
    total += term  # in place: both are new memory; a NumPy scalar is replaced
    return total
