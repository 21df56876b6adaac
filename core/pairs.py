"""Pairs (s, y) with y = B s, from which quasi-Newton methods learn the inverse of a matrix B."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .arrays import Array, dot, guarded_divide, like, namespace, norm

#: A pair teaches positive curvature only if s'y exceeds this part of |s| |y|: a relative test, so
#: that the scale of the problem does not matter.
CAUTIOUS = 1e-10
#: Powell's damping keeps s'y at least this part of s'Bs (Nocedal and Wright 2006, Procedure 18.2).
DAMPING = 0.2


class Pairs(NamedTuple):
    """The last few pairs, oldest first; rows of zeros where there is none yet."""

    S: Array
    """Shape (memory, n)."""
    Y: Array
    """Shape (memory, n)."""

    @classmethod
    def none(cls, x: Array, memory: int) -> Pairs:
        """Return room for ``memory`` pairs of vectors like ``x``, of shape (n,)."""
        xp = namespace(x)
        rows = xp.stack([xp.zeros_like(x)] * (memory + 1))[1:, :]
        return cls(rows, rows)

    def push(self, s: Array, y: Array, where: Array) -> Pairs:
        """Return the pairs with (s, y) added, and the oldest dropped, if ``where`` holds."""
        xp = namespace(s)
        return Pairs(
            xp.where(where, xp.concat([self.S, s[None, :]])[1:, :], self.S),
            xp.where(where, xp.concat([self.Y, y[None, :]])[1:, :], self.Y),
        )

    def latest(self, memory: int) -> Pairs:
        """Return the newest ``memory`` pairs, preceded by none where there are fewer."""
        xp, none = namespace(self.S), Pairs.none(self.S[0, :], memory)
        have = self.S.shape[0]
        return Pairs(xp.concat([none.S, self.S])[have:, :], xp.concat([none.Y, self.Y])[have:, :])

    def inverse(self, scale: Array) -> Callable[[Array], Array]:
        """Return v -> H v, with H the L-BFGS inverse of B; without any pair, ``scale`` times I.

        Nocedal and Wright 2006, Algorithm 7.4, from gamma I with gamma = s'y / y'y of the latest.
        """
        xp, memory = namespace(self.S), self.S.shape[0]
        if memory == 0:
            return lambda v: scale * v
        curvatures = xp.sum(self.S * self.Y, axis=1)
        newest = self.Y[memory - 1, :]
        gamma = guarded_divide(curvatures[memory - 1], dot(newest, newest))
        gamma = xp.where(gamma > 0, gamma, scale)
        # s / s'y, 0 where there is no pair: once, as one set of pairs serves many products.
        T = guarded_divide(self.S, curvatures[:, None])
        rows = [(self.S[i, :], self.Y[i, :], T[i, :]) for i in range(memory)]

        def product(v: Array) -> Array:
            alphas = []
            for _, y, t in reversed(rows):
                alphas.append(dot(t, v))
                v = v - alphas[-1] * y
            v = gamma * v
            for (s, y, t), alpha in zip(rows, reversed(alphas), strict=True):
                v = v + alpha * s - dot(y, v) * t
            return v

        return product


def teaches(s: Array, y: Array, cautious: float = CAUTIOUS) -> Array:
    """Return whether a pair is of positive curvature, clear of rounding, as a 0-d boolean."""
    xp = namespace(s)
    finite = xp.isfinite(norm(y))
    return finite & (dot(s, y) > cautious * norm(s) * norm(y)) & (norm(y) > 0)


def damped(s: Array, y: Array, Bs: Array) -> Array:
    """Return y moved towards ``Bs`` until s'y >= 0.2 s'Bs (Powell's damping).

    An update by (s, y) then keeps B positive definite whatever the curvature along s was.
    """
    xp = namespace(s)
    sBs, sy = dot(s, Bs), dot(s, y)
    theta = guarded_divide((1 - DAMPING) * sBs, sBs - sy, otherwise=1.0)
    theta = xp.where(sy < DAMPING * sBs, theta, like(s, 1.0))
    return theta * y + (1 - theta) * Bs
