"""Norms that measure a step: the ellipsoids of adaptive gradient methods, and the user's own.

A norm is |s|_A = sqrt(s'As) with A symmetric and positive definite. A trust region bounds it, cubic
regularisation penalises it, and the step -eta A^-1 g of an adaptive gradient method minimises the
linear model g's within |s|_A <= eta |g|_{A^-1} (Kohler et al. 2020, equations 5 and 6).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from .arrays import Array, dot, integer_like, largest, like, max_abs, namespace


class Moments(NamedTuple):
    """Second moments V of the gradients seen so far, and A = V^power + epsilon I made from them."""

    V: Array
    """Shape (n,), or (n, n) of a full matrix."""
    weights: Array
    """Eigenvalues of A, of shape (n,)."""
    basis: Array
    """Its eigenvectors, of shape (n, n); for a diagonal A, which needs none, of shape (0, 0)."""
    t: Array
    """Gradients seen."""


@dataclass(frozen=True, kw_only=True)
class Norm(ABC):
    """Base of the norms: hyper-parameters of A, with the statistics that make A in a state.

    All methods are pure and can be jitted; a state is a tuple of arrays.
    """

    def init(self, x: Array) -> Any:
        """Return the state for parameters like ``x``, of shape (n,), before any gradient."""
        return ()

    def update(self, state: Any, g: Array) -> Any:
        """Return the state after another gradient ``g``, of shape (n,).

        A gradient whose square is not finite leaves the state as it is.
        """
        return state

    @abstractmethod
    def apply(self, state: Any, v: Array) -> Array:
        """Return A v, for v of shape (n,)."""

    @abstractmethod
    def solve(self, state: Any, v: Array) -> Array:
        """Return A^-1 v, for v of shape (n,)."""


@dataclass(frozen=True, kw_only=True)
class Spherical(Norm):
    """The Euclidean norm, A = I."""

    def apply(self, state: Any, v: Array) -> Array:
        """Return v."""
        return v

    def solve(self, state: Any, v: Array) -> Array:
        """Return v."""
        return v


@dataclass(frozen=True, kw_only=True)
class _Adaptive(Norm):
    """A = V^power + epsilon I, with V a sum or mean of g g', or of its diagonal."""

    full: bool = False
    power: float = 0.5
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"epsilon is {self.epsilon}; A is positive definite only if it is > 0")
        if not 0 < self.power <= 1:
            raise ValueError(
                f"power is {self.power}; it must lie in (0, 1]: 0.5 as in the first-order methods, "
                "1 as in equations 2 and 3 of Kohler et al."
            )

    def init(self, x: Array) -> Moments:
        """Return no moments: A = epsilon I."""
        xp = namespace(x)
        n = x.shape[0] if self.full else 0
        zeros, basis = xp.zeros_like(x), x[:n, None] * x[None, :n]
        return Moments(
            V=xp.zeros_like(basis) if self.full else zeros,
            weights=zeros + self.epsilon,
            basis=xp.zeros_like(basis),
            t=integer_like(x, 0),
        )

    def update(self, state: Moments, g: Array) -> Moments:
        """Return the state after another gradient ``g``, of shape (n,)."""
        xp = namespace(g)
        finite = max_abs(g) < largest(g) ** 0.5  # False if it is not a number
        safe = xp.where(finite, g, xp.zeros_like(g))
        square = safe[:, None] * safe[None, :] if self.full else safe * safe
        t = state.t + xp.astype(finite, state.t.dtype)
        V = xp.where(finite, self._accumulate(state.V, square), state.V)
        moments, basis = self._unbiased(V, t), state.basis
        if self.full:
            moments, basis = xp.linalg.eigh(moments)
            moments = xp.maximum(moments, like(g, 0.0))  # rounding makes some negative
        return Moments(V, moments**self.power + self.epsilon, basis, t)

    def apply(self, state: Moments, v: Array) -> Array:
        """Return A v, for v of shape (n,)."""
        return self._scale(state.basis, state.weights, v)

    def solve(self, state: Moments, v: Array) -> Array:
        """Return A^-1 v, for v of shape (n,)."""
        return self._scale(state.basis, 1 / state.weights, v)

    def _scale(self, basis: Array, weights: Array, v: Array) -> Array:
        if not self.full:
            return weights * v
        xp = namespace(v)
        return xp.matmul(basis, weights * xp.matmul(xp.matrix_transpose(basis), v))

    @abstractmethod
    def _accumulate(self, V: Array, square: Array) -> Array:
        """Return V after the outer product ``square`` of a gradient, or its diagonal."""

    def _unbiased(self, V: Array, t: Array) -> Array:
        return V


@dataclass(frozen=True, kw_only=True)
class Adagrad(_Adaptive):
    """V = sum of g g' (Duchi et al. 2011; Kohler et al. 2020, equation 2).

    Parameters
    ----------
    full : bool
        Whether V is the whole matrix, at O(n^3) operations an update, or its diagonal.
    power : float
        A = V^power + epsilon I. With 1/2 a step -eta A^-1 g is the gradient method's own; with 1,
        A is equation 2 or 3 of Kohler et al., which their Algorithm 1 takes as it stands.
    epsilon : float
        Keeps A positive definite. It stands outside the root, as in the first-order methods;
        the corollary of Kohler et al. has it inside.
    """

    def _accumulate(self, V: Array, square: Array) -> Array:
        return V + square


@dataclass(frozen=True, kw_only=True)
class RMSProp(_Adaptive):
    """V = (1 - decay) sum of decay^(t - i) g_i g_i' (Tieleman and Hinton 2012; Kohler, equation 3).

    Parameters
    ----------
    full, power, epsilon
        As in :class:`Adagrad`.
    decay : float
        In [0, 1): the rate beta at which old gradients are forgotten.
    """

    decay: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}; it must lie in [0, 1)")

    def _accumulate(self, V: Array, square: Array) -> Array:
        return self.decay * V + (1 - self.decay) * square


@dataclass(frozen=True, kw_only=True)
class Adam(RMSProp):
    """The moments of :class:`RMSProp` over 1 - decay^t, which takes away the bias towards 0.

    Kingma and Ba 2015, Algorithm 1. Adam's mean of the gradients is no part of the norm.
    """

    decay: float = 0.999

    def _unbiased(self, V: Array, t: Array) -> Array:
        xp = namespace(V)
        seen = xp.astype(xp.maximum(t, integer_like(t, 1)), V.dtype)
        return V / (1 - like(V, self.decay) ** seen)


@dataclass(frozen=True, kw_only=True, eq=False)
class Preconditioner(Norm):
    """The user's own A: either its diagonal, or the pair of v -> A v and v -> A^-1 v.

    Parameters
    ----------
    diagonal : array of shape (n,), optional
        Positive entries, in the order of ``oracle.ravel``.
    product, inverse : callable, optional
        Map v of shape (n,) to A v and to A^-1 v.

    Raises
    ------
    ValueError
        Unless exactly one of the two is given, and the diagonal is positive.
    """

    diagonal: Array | None = None
    product: Callable[[Array], Array] | None = None
    inverse: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        pair = (self.product is not None, self.inverse is not None)
        if pair != ((self.diagonal is None),) * 2:
            raise ValueError("give either diagonal= or both product= and inverse=")
        if self.diagonal is not None and not bool(namespace(self.diagonal).all(self.diagonal > 0)):
            raise ValueError("the diagonal of a preconditioner must be positive")

    def init(self, x: Array) -> Any:
        """Return the diagonal; raise if its shape or dtype is not that of ``x``."""
        d = self.diagonal
        if d is None:
            return ()
        if d.shape != x.shape or d.dtype != x.dtype:
            raise ValueError(
                f"the diagonal is {tuple(d.shape)} of {d.dtype}; the parameters are "
                f"{tuple(x.shape)} of {x.dtype}"
            )
        return (d,)

    def apply(self, state: Any, v: Array) -> Array:
        """Return A v."""
        return state[0] * v if self.product is None else self.product(v)

    def solve(self, state: Any, v: Array) -> Array:
        """Return A^-1 v."""
        return v / state[0] if self.inverse is None else self.inverse(v)


def length(norm: Norm, state: Any, v: Array) -> Array:
    """Return |v|_A as a 0-d array."""
    return namespace(v).sqrt(dot(v, norm.apply(state, v)))
