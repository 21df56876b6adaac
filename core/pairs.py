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
#: The curvature at the end of a step is taken to differ from the mean one by this factor at most.
SPREAD = 2.0


class Pairs(NamedTuple):
    """Pairs, oldest first; rows of zeros where there is none."""

    S: Array
    """Shape (memory, n)."""
    Y: Array
    """Shape (memory, n)."""


class Memory(NamedTuple):
    """The last few pairs, each in the place of the oldest before it, and what their inverse needs.

    R is the upper triangle of S Y' with its rows from the oldest to the newest. With it both loops
    of the two-loop recursion are triangular systems (Byrd, Nocedal and Schnabel, Math. Program. 63
    (1994) 129-156, whose S and Y have columns), and a pair more is a column more of its inverse.
    """

    pairs: Pairs
    """In rows that go from ``oldest`` on, cyclically. After ``forget`` they are of no meaning."""
    oldest: Array
    """The row that the next pair goes to."""
    R_inv: Array
    """Shape (memory, memory), in the order of the rows; zeros where there is no pair."""
    gamma: Array
    """s'y / y'y of the newest pair; 0 if there is none."""

    @classmethod
    def none(cls, x: Array, memory: int) -> Memory:
        """Return room for ``memory`` pairs of vectors like ``x``, of shape (n,)."""
        return cls(
            Pairs(rows_like(x, memory), rows_like(x, memory)),
            integer_like(x, 0),
            identity_like(x, memory) * 0,
            like(x, 0.0),
        )

    @classmethod
    def of(cls, pairs: Pairs) -> Memory:
        """Return ``pairs``, at least one of them, in which rows of zeros are none."""
        S, Y = pairs
        xp, last, identity = namespace(S), S.shape[0] - 1, identity_like(S, S.shape[0])
        R = xp.triu(S @ Y.T)
        missing = xp.astype(xp.linalg.diagonal(R) == 0, S.dtype) * identity  # to have an inverse
        gamma = guarded_divide(R[last, last], dot(Y[last, :], Y[last, :]))
        return cls(pairs, integer_like(S, 0), xp.linalg.inv(R + missing) - missing, gamma)

    def any(self) -> Array:
        """Return whether there is any pair, as a 0-d boolean."""
        return namespace(self.R_inv).any(self.R_inv != 0)

    def own(self, flow: Flow) -> Memory:
        """Return these pairs for :meth:`push`, by whose caller they are not read any more."""
        return self._replace(pairs=Pairs(*map(flow.own_rows, self.pairs)))

    def copied(self, flow: Flow) -> Memory:
        """Return these pairs for :meth:`push`, which leaves those given as they are."""
        return self._replace(pairs=Pairs(*map(flow.copied_rows, self.pairs)))

    def push(self, s: Array, y: Array, where: Array, flow: Flow) -> Memory:
        """Return the pairs with (s, y) in place of the oldest, if ``where`` holds.

        Their rows are written to (:meth:`Flow.put`).
        """
        (S, Y), i, R_inv, gamma = self
        rows = S.shape[0]
        if rows == 0:
            return self
        pairs = Pairs(flow.put(S, i, s, where), flow.put(Y, i, y, where))
        learned = flow.cond(where, _learned, lambda *_: (R_inv, gamma), pairs, s, y, i, R_inv)
        moved = i + namespace(s).astype(where, i.dtype)
        return Memory(pairs, moved % rows, *learned)

    def forget(self, where: Array) -> Memory:
        """Return no pairs if ``where`` holds."""
        xp, zero = namespace(self.gamma), like(self.gamma, 0.0)
        R_inv, gamma = (xp.where(where, zero, a) for a in (self.R_inv, self.gamma))
        return self._replace(R_inv=R_inv, gamma=gamma)

    def inverse(self, scale: Array) -> Callable[[Array], Array]:
        """Return v -> H v, with H the L-BFGS inverse of B; without any pair, ``scale`` times I.

        Nocedal and Wright 2006, Algorithm 7.4, from gamma I with gamma = s'y / y'y of the latest.
        Its first loop ends with q = v - Y' alpha, where R alpha = S v, and its second with
        gamma q + S' delta, where R' delta = D alpha - gamma Y q and D is the diagonal of R.
        """
        (S, Y), _, R_inv, gamma = self
        xp = namespace(S)
        if S.shape[0] == 0:
            return lambda v: scale * v
        D = guarded_divide(like(S, 1.0), xp.linalg.diagonal(R_inv))
        gamma = xp.where(gamma > 0, gamma, scale)

        def product(v: Array) -> Array:
            alpha = R_inv @ (S @ v)
            q = v - alpha @ Y
            delta = (D * alpha - gamma * (Y @ q)) @ R_inv
            return gamma * q + delta @ S

        return product


def _learned(pairs: Pairs, s: Array, y: Array, i: Array, R_inv: Array) -> tuple[Array, Array]:
    """Return R^-1 and gamma with the pair (s, y), now in row ``i``."""
    xp, sy = namespace(s), dot(s, y)
    new = indices_like(s, R_inv.shape[0]) == i
    older = xp.where(new[:, None] | new[None, :], like(s, 0.0), R_inv)
    rho = guarded_divide(like(s, 1.0), sy)
    column = xp.where(new, rho, -rho * (older @ (pairs.S @ y)))
    return xp.where(new[None, :], column[:, None], older), guarded_divide(sy, dot(y, y))


def teaches(s: Array, y: Array, cautious: float = CAUTIOUS) -> Array:
    """Return whether a pair is of positive curvature, clear of rounding, as a 0-d boolean."""
    size = norm(y)
    return (dot(s, y) > cautious * norm(s) * size) & (size > 0) & (size < math.inf)


def at_end(s: Array, y: Array, g: Array, decrease: Array, noise: Array) -> Array:
    """Return y scaled so that s'y is the curvature at the end of the step; it is the mean one.

    It is that of the cubic with the decrease and the slopes of f at both ends, s'y + 6 decrease +
    3 s'(g + g_old) (Zhang, Deng and Chen, J. Optim. Theory Appl. 102 (1999) 147-167); y as a whole
    is scaled as in Biggs (J. Inst. Maths Applics 8 (1971) 315-327). Far from a minimum the
    curvature falls along the way to it, and the mean of the last step makes the next too short.

    Parameters
    ----------
    s, y : arrays of shape (n,)
        The step, and the change of the gradient over it.
    g : array of shape (n,)
        The gradient at its end.
    decrease : 0-d array
        f at its start, less f at its end.
    noise : 0-d array
        How large the decrease may be by rounding. Where s'y is no larger, y is returned as it is.
    """
    xp, sy = namespace(s), dot(s, y)
    change = 6 * decrease + 3 * (2 * dot(s, g) - sy)
    ratio = xp.where(sy > noise, 1 + guarded_divide(change, sy), like(sy, 1.0))
    return xp.minimum(xp.maximum(ratio, like(sy, 1 / SPREAD)), like(sy, SPREAD)) * y


def damped(s: Array, y: Array, Bs: Array) -> Array:
    """Return y moved towards ``Bs`` until s'y >= 0.2 s'Bs (Powell's damping).

    An update by (s, y) then keeps B positive definite whatever the curvature along s was.
    """
    xp = namespace(s)
    sBs, sy = dot(s, Bs), dot(s, y)
    theta = guarded_divide((1 - DAMPING) * sBs, sBs - sy, otherwise=1.0)
    theta = xp.where(sy < DAMPING * sBs, theta, like(s, 1.0))
    return theta * y + (1 - theta) * Bs
