"""A quadratic on the plane of two directions, and its minimiser there."""

from __future__ import annotations

from typing import NamedTuple

from ..arrays import Array, dot, eps, guarded_divide, like, namespace


class Plane(NamedTuple):
    """The quadratic b'p + p'Mp/2 of the coordinates p, of shape (2,)."""

    M: Array
    b: Array

    @classmethod
    def spanned(cls, d: Array, z: Array, Bz: Array, dBd: Array, g: Array) -> Plane:
        """Return g's + s'Bs/2 on s = p_0 d + p_1 z; all but d'B d, which is 0-d, of shape (n,)."""
        xp = namespace(g)
        across = dot(d, Bz)
        M = xp.stack([xp.stack([dBd, across]), xp.stack([across, dot(z, Bz)])])
        return cls(M, xp.stack([dot(g, d), dot(g, z)]))

    def at(self, p: Array, scale: float = 1.0) -> Array:
        """Return the quadratic's value at ``scale`` times p."""
        xp = namespace(p)
        return scale * dot(self.b, p) + scale * scale * dot(p, xp.matmul(self.M, p)) / 2


def minimiser(plane: Plane, *lengths: Array) -> Array:
    """Return p = -|M|^+ b, of shape (2,), computed in a basis of unit vectors; 0 if not finite."""
    xp = namespace(plane.b)
    one = like(plane.b, 1.0)
    scale = xp.stack([guarded_divide(one, each) for each in lengths])
    M, b = plane.M * scale[:, None] * scale[None, :], plane.b * scale
    finite = xp.all(xp.isfinite(M)) & xp.all(xp.isfinite(b))
    sizes, Q = xp.linalg.eigh(xp.where(finite, M, xp.zeros_like(M)))
    sizes = xp.abs(sizes)
    kept = sizes > 10 * eps(b) * xp.max(sizes)
    inverse = xp.where(kept, 1 / xp.where(kept, sizes, one), xp.zeros_like(sizes))
    p = -scale * xp.matmul(Q, inverse * xp.matmul(xp.matrix_transpose(Q), b))
    return xp.where(finite, p, xp.zeros_like(p))
