"""The bilinear primitives: B(a, b) and its transposes in either argument.

To add one, add a row. Transposes do not conjugate.
"""

from __future__ import annotations

from typing import Any

from ...core.arrays import Array, Namespace, is_complex, join_parts, namespace
from .rules import Bilinear


def _matmul(xp: Namespace, a: Any, b: Any) -> Array:
    """Return a b; a real factor of a complex one stays real, which halves the operations."""
    if is_complex(a) == is_complex(b):
        return xp.matmul(a, b)
    if is_complex(b):
        return join_parts(xp.matmul(a, _part(xp.real(b))), xp.matmul(a, _part(xp.imag(b))))
    return join_parts(xp.matmul(_part(xp.real(a)), b), xp.matmul(_part(xp.imag(a)), b))


def _part(x: Array) -> Array:
    return namespace(x).asarray(x, copy=True)  # next to each other in memory, as BLAS needs them


_ROWS = [
    Bilinear(
        "multiply",
        map=lambda xp, a, b: xp.multiply(a, b),
        left=lambda xp, g, b: xp.multiply(g, b),
        right=lambda xp, g, a: xp.multiply(g, a),
        broadcasts=True,
    ),
    # Of matrices, or of stacks of the same shape: ``contraction.py`` brings its arguments there.
    Bilinear(
        "matmul",
        map=_matmul,
        left=lambda xp, g, b: _matmul(xp, g, xp.matrix_transpose(b)),
        right=lambda xp, g, a: _matmul(xp, xp.matrix_transpose(a), g),
    ),
]

#: By name.
BILINEAR = {row.name: row for row in _ROWS}
