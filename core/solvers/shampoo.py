"""Shampoo: a preconditioner for each side of each tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..arrays import Array, eps, guarded_divide, identity_like, integer_like, namespace, norm
from ..flow import EAGER, Flow
from .first_order import FirstOrder, Shapes

#: For each tensor one matrix for each of its sides, (n, n), or its diagonal, (n,).
Sides = tuple[tuple[Array, ...], ...]


class ShampooSlots(NamedTuple):
    """What :class:`Shampoo` keeps."""

    statistics: Sides
    """L_i, for each side i of each tensor."""
    roots: Sides
    """L_i^(-1/2k), of a tensor with k sides, as of the last time they were taken."""
    squares: Array
    """Sum of squared gradients, for the grafting, of shape (n,)."""
    velocity: Array
    """Shape (n,)."""
    t: Array
    """Gradients so far."""


@dataclass(frozen=True, kw_only=True)
class Shampoo(FirstOrder):
    """Shampoo (Gupta, Koren and Singer 2018, Algorithm 2), with grafting (Anil et al. 2020).

    A gradient G of a tensor with k sides is multiplied on each side i by L_i^(-1/2k), where
    L_i = epsilon I + sum of G_(i) G_(i)' and G_(i) is the gradient unfolded along that side. Of a
    matrix: L^(-1/4) G R^(-1/4).

    Parameters
    ----------
    learning_rate : float
    momentum : float
        In [0, 1): v <- momentum v + u, and the step is along v.
    decay : float
        In (0, 1]: L_i <- decay L_i + (1 - decay) G_(i) G_(i)'; 1 is the paper's sum.
    epsilon : float
        Of L_i at the start.
    period : int
        Steps between two computations of the roots, by eigendecomposition.
    graft : {"adagrad", "sgd", "none"}
        Each tensor's step is given the length of diagonal Adagrad's, or of the gradient itself;
        "none" leaves it as it is.
    largest : int
        A longer side has the diagonal of L_i only.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    V. Gupta, T. Koren, Y. Singer, "Shampoo: preconditioned stochastic tensor optimization" (ICML
    2018); R. Anil, V. Gupta, T. Koren, K. Regan, Y. Singer, "Scalable second order optimization for
    deep learning" (arXiv:2002.09018), sections 3 and 4.4. A vector has one side, so that this is
    full-matrix Adagrad for it. The statistics cost a product of the gradient with itself for each
    side, the roots O(n^3) for a side of length n.

    Deviations: (1) a side that is too long is diagonal, where Anil et al. leave it out; (2) an
    eigenvalue counts as at least eps times the largest.
    """

    learning_rate: float = 1e-2
    momentum: float = 0.9
    decay: float = 1.0
    epsilon: float = 1e-4
    period: int = 20
    graft: Literal["adagrad", "sgd", "none"] = "adagrad"
    largest: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, holds, range_ in (
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("decay", 0 < self.decay <= 1, "in (0, 1]"),
            ("epsilon", self.epsilon > 0, "positive"),
            ("period", self.period >= 1, "at least 1"),
            ("graft", self.graft in ("adagrad", "sgd", "none"), "'adagrad', 'sgd' or 'none'"),
            ("largest", self.largest >= 0, "zero or positive"),
        ):
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be {range_}")

    def slots(self, x: Array, shapes: Shapes) -> ShampooSlots:
        """Return L_i = epsilon I, and nothing else."""
        xp = namespace(x)
        statistics = tuple(
            tuple(self.epsilon * self._identity(x, n) for n in shape or (1,)) for shape in shapes
        )
        roots = tuple(tuple(xp.zeros_like(L) for L in sides) for sides in statistics)
        zeros = xp.zeros_like(x)
        return ShampooSlots(statistics, roots, zeros, zeros, integer_like(x, 0))

    def propose(
        self, slots: ShampooSlots, g: Array, flow: Flow = EAGER
    ) -> tuple[Array, ShampooSlots]:
        """Return the velocity and the slots."""
        xp = namespace(g)
        tensors = _split(g, slots.statistics)
        weight = 1.0 if self.decay == 1 else 1 - self.decay
        statistics = tuple(
            tuple(self.decay * L + weight * _unfolded_square(G, i, L) for i, L in enumerate(sides))
            for G, sides in zip(tensors, slots.statistics, strict=True)
        )
        roots = flow.cond(slots.t % self.period == 0, _all_roots, lambda _: slots.roots, statistics)
        squares = slots.squares + g * g
        plain = guarded_divide(g, xp.sqrt(squares)) if self.graft == "adagrad" else g
        u = [
            self._grafted(_preconditioned(G, sides), length)
            for G, sides, length in zip(tensors, roots, _split(plain, statistics), strict=True)
        ]
        velocity = self.momentum * slots.velocity + xp.concat([xp.reshape(v, (-1,)) for v in u])
        return velocity, ShampooSlots(statistics, roots, squares, velocity, slots.t + 1)

    def _grafted(self, u: Array, other: Array) -> Array:
        """Return ``u`` with the length of the other step."""
        if self.graft == "none":
            return u
        xp = namespace(u)
        lengths = [norm(xp.reshape(a, (-1,))) for a in (other, u)]
        return u * guarded_divide(*lengths)

    def _identity(self, x: Array, n: int) -> Array:
        return identity_like(x, n) if n <= self.largest else namespace(x).ones_like(x[:n])


def _split(g: Array, statistics: Sides) -> list[Array]:
    """Return the tensors that lie in ``g``, whose sides are as long as their statistics."""
    tensors, start = [], 0
    for sides in statistics:
        shape = tuple(L.shape[0] for L in sides)
        stop = start + math.prod(shape)
        tensors.append(namespace(g).reshape(g[start:stop], shape))
        start = stop
    return tensors


def _unfolded_square(G: Array, side: int, L: Array) -> Array:
    """Return G_(i) G_(i)', or its diagonal where ``L`` is one."""
    xp = namespace(G)
    rest = tuple(i for i in range(G.ndim) if i != side)
    if L.ndim == 1:
        return xp.sum(G * G, axis=rest)
    unfolded = xp.reshape(xp.permute_dims(G, (side, *rest)), (G.shape[side], -1))
    return xp.matmul(unfolded, unfolded.T)


def _all_roots(statistics: Sides) -> Sides:
    return tuple(tuple(_root(L, 2 * len(sides)) for L in sides) for sides in statistics)


def _root(L: Array, order: int) -> Array:
    """Return L^(-1 / order), of a matrix or of a diagonal."""
    xp = namespace(L)
    if L.ndim == 1:
        return L ** (-1 / order)
    weights, Q = xp.linalg.eigh(L)
    weights = xp.maximum(weights, eps(L) * xp.max(weights))
    return xp.matmul(Q * weights ** (-1 / order), Q.T)


def _preconditioned(G: Array, roots: tuple[Array, ...]) -> Array:
    """Return ``G`` multiplied by a root on each side."""
    xp = namespace(G)
    for side, P in enumerate(roots):
        if P.ndim == 1:
            G = G * xp.reshape(P, (-1, *[1] * (G.ndim - side - 1)))
        else:
            order = (*range(1, side + 1), 0, *range(side + 1, G.ndim))
            G = xp.permute_dims(xp.tensordot(P, G, axes=([1], [side])), order)
    return G
