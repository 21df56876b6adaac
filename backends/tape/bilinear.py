"""The bilinear primitives: B(a, b) and its transposes in either argument.

To add one, add a row. Transposes do not conjugate.
"""

from __future__ import annotations

from typing import Any

from ...core.arrays import Array, Namespace, is_complex, join_parts
from .rules import Bilinear


def _matmul(xp: Namespace, x: Any, y: Any) -> Array:
    """Return the product x y: of (a + ib) (c + id) the terms a c + i (a d + b c).

    That is three real products, and two if a factor is real. The missing one is O(h^2) in a
    complex step, below rounding.
    """
    if not is_complex(x) and not is_complex(y):
        return xp.matmul(x, y)
    (a, b), (c, d) = _parts(xp, x), _parts(xp, y)
    if b is None:
        return join_parts(xp.matmul(a, c), xp.matmul(a, d))
    im = xp.matmul(b, c)
    if d is not None:
        im += xp.matmul(a, d)
    return join_parts(xp.matmul(a, c), im)


def _parts(xp: Namespace, x: Array) -> tuple[Array, Array | None]:
    """Return both parts next to each other in memory, as BLAS needs them."""
    if not is_complex(x):
        return x, None
    return xp.asarray(xp.real(x), copy=True), xp.asarray(xp.imag(x), copy=True)


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
