"""Pairs (s, y) with y = B s, from which quasi-Newton methods learn the inverse of a matrix B."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .arrays import (
    Array,
    dot,
    guarded_divide,
    identity_like,
    indices_like,
    integer_like,
    like,
    namespace,
    norm,
    rows_like,
)
from .flow import Flow

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
        return cls(rows_like(x, memory), rows_like(x, memory))

    def push(self, s: Array, y: Array, where: Array) -> Pairs:
        """Return the pairs with (s, y) added, and the oldest dropped, if ``where`` holds."""
        xp, memory = namespace(s), self.S.shape[0]
        last = indices_like(s, memory) + xp.astype(where, xp.int32)

        def pushed(rows: Array, new: Array) -> Array:
            return xp.take(xp.concat([rows, new[None, :]]), last, axis=0)

        return Pairs(pushed(self.S, s), pushed(self.Y, y))

    def inverse(self, scale: Array) -> Callable[[Array], Array]:
        """Return v -> H v, with H the L-BFGS inverse of B; without any pair, ``scale`` times I."""
        if self.S.shape[0] == 0:
            return lambda v: scale * v
        return Memory.of(self).inverse(scale)


class Memory(NamedTuple):
    """Pairs of which each one changes the inverse, with what would be made anew for it.

    R is the upper triangle of S Y'. With it both loops of the two-loop recursion are triangular
    systems (Byrd, Nocedal and Schnabel, Math. Program. 63 (1994) 129-156, whose S and Y have
    columns), and a pair more is a column more of its inverse.
    """

    pairs: Pairs
    """What it holds after ``forget`` is of no meaning."""
    R_inv: Array
    """Shape (memory, memory); rows and columns of zeros where there is no pair."""

    @classmethod
    def none(cls, x: Array, memory: int) -> Memory:
        """Return room for ``memory`` pairs, at least one, of vectors like ``x``, of shape (n,)."""
        return cls(Pairs.none(x, memory), identity_like(x, memory) * 0)

    @classmethod
    def of(cls, pairs: Pairs) -> Memory:
        """Return ``pairs``, at least one of them, in which rows of zeros are none."""
        S, Y = pairs
        xp, identity = namespace(S), identity_like(S, S.shape[0])
        R = xp.triu(S @ Y.T)
        missing = xp.astype(xp.linalg.diagonal(R) == 0, S.dtype) * identity  # to have an inverse
        return cls(pairs, xp.linalg.inv(R + missing) - missing)

    def any(self) -> Array:
        """Return whether there is any pair, as a 0-d boolean."""
        return namespace(self.R_inv).any(self.R_inv != 0)

    def push(self, s: Array, y: Array, where: Array, flow: Flow) -> Memory:
        """Return the pairs with (s, y) added, and the oldest dropped, if ``where`` holds."""
        return flow.cond(where, _pushed, lambda memory, *_: memory, self, s, y)

    def forget(self, where: Array) -> Memory:
        """Return no pairs if ``where`` holds."""
        R_inv = self.R_inv
        return self._replace(R_inv=namespace(R_inv).where(where, R_inv * 0, R_inv))

    def inverse(self, scale: Array) -> Callable[[Array], Array]:
        """Return v -> H v, with H the L-BFGS inverse of B; without any pair, ``scale`` times I.

        Nocedal and Wright 2006, Algorithm 7.4, from gamma I with gamma = s'y / y'y of the latest.
        Its first loop ends with q = v - Y' alpha, where R alpha = S v, and its second with
        gamma q + S' delta, where R' delta = D alpha - gamma Y q and D is the diagonal of R.
        """
        (S, Y), R_inv = self
        xp = namespace(S)
        D = guarded_divide(like(S, 1.0), xp.linalg.diagonal(R_inv))
        newest = Y[S.shape[0] - 1, :]
        gamma = guarded_divide(D[S.shape[0] - 1], dot(newest, newest))
        gamma = xp.where(gamma > 0, gamma, scale)

        def product(v: Array) -> Array:
            alpha = R_inv @ (S @ v)
            q = v - alpha @ Y
            delta = (D * alpha - gamma * (Y @ q)) @ R_inv
            return gamma * q + delta @ S

        return product


def _pushed(memory: Memory, s: Array, y: Array) -> Memory:
    (S, Y), R_inv = memory
    xp, S, Y = namespace(s), S[1:, :], Y[1:, :]
    rho = guarded_divide(like(s, 1.0), dot(s, y))
    above = -rho * (R_inv[1:, 1:] @ (S @ y))
    last = xp.concat([0 * above, xp.reshape(rho, (1,))])
    return Memory(
        Pairs(xp.concat([S, s[None, :]]), xp.concat([Y, y[None, :]])),
        xp.concat([xp.concat([R_inv[1:, 1:], above[:, None]], axis=1), last[None, :]]),
    )


class Recent(NamedTuple):
    """The last few pairs of a loop, each written in place of the oldest."""

    S: Array
    """Shape (memory + 1, n)."""
    Y: Array
    """Shape (memory + 1, n)."""
    free: Array
    """The row that counts for nothing; the oldest pair is in the next one, cyclically."""

    @classmethod
    def of(cls, pairs: Pairs) -> Recent:
        """Return ``pairs``, in memory of their own."""
        xp, memory = namespace(pairs.S), pairs.S.shape[0]
        free = rows_like(pairs.S, 1)
        return cls(
            xp.concat([pairs.S, free]), xp.concat([pairs.Y, free]), integer_like(free, memory)
        )

    def push(self, s: Array, y: Array, where: Array, flow: Flow) -> Recent:
        """Return the pairs with (s, y) in place of the oldest if ``where`` holds."""
        moved = self.free + namespace(s).astype(where, self.free.dtype)
        return Recent(
            flow.put(self.S, self.free, s),
            flow.put(self.Y, self.free, y),
            moved % self.S.shape[0],
        )

    def pairs(self) -> Pairs:
        """Return them, oldest first."""
        xp, rows = namespace(self.S), self.S.shape[0]
        order = (indices_like(self.S, rows - 1) + self.free + 1) % rows
        return Pairs(xp.take(self.S, order, axis=0), xp.take(self.Y, order, axis=0))


def teaches(s: Array, y: Array, cautious: float = CAUTIOUS) -> Array:
    """Return whether a pair is of positive curvature, clear of rounding, as a 0-d boolean."""
    size = norm(y)
    return (dot(s, y) > cautious * norm(s) * size) & (size > 0) & (size < math.inf)


def damped(s: Array, y: Array, Bs: Array) -> Array:
    """Return y moved towards ``Bs`` until s'y >= 0.2 s'Bs (Powell's damping).

    An update by (s, y) then keeps B positive definite whatever the curvature along s was.
    """
    xp = namespace(s)
    sBs, sy = dot(s, Bs), dot(s, y)
    theta = guarded_divide((1 - DAMPING) * sBs, sBs - sy, otherwise=1.0)
    theta = xp.where(sy < DAMPING * sBs, theta, like(s, 1.0))
    return theta * y + (1 - theta) * Bs
