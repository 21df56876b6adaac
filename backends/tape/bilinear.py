"""The bilinear primitives: B(a, b) and its transposes in either argument.

To add one, add a row. Transposes do not conjugate.
"""

from __future__ import annotations

from .rules import Bilinear

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
        map=lambda xp, a, b: xp.matmul(a, b),
        left=lambda xp, g, b: xp.matmul(g, xp.matrix_transpose(b)),
        right=lambda xp, g, a: xp.matmul(xp.matrix_transpose(a), g),
    ),
]

#: By name.
BILINEAR = {row.name: row for row in _ROWS}
