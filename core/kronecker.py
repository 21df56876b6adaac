"""The Kronecker-factored approximation of the Gauss-Newton matrix, layer by layer.

For a dense layer with inputs a (and a coordinate 1 for the bias) and output gradients d, its block
of the Gauss-Newton matrix is E[a a' (x) d d'], which is taken for A (x) G, A = E[a a'] and
G = E[d d']; the inverse maps a gradient M of shape (p, q) to A^-1 M G^-1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .arrays import Array, eps, identity_like, integer_like, like, namespace
from .layers import Layer, Layers, Seen, curvature_noise, layers_of
from .oracle import Oracle

#: Of each leaf a pair of matrices, one for each side; none for what has no two sides.
Sides = tuple[tuple[Array, ...], ...]


class KroneckerState(NamedTuple):
    """What :class:`Kronecker` has seen. A side has a place more, for the coordinate 1."""

    factors: Sides
    inverses: Sides
    t: Array
    """Steps so far."""
    k: Array
    """Estimates so far."""


@dataclass(frozen=True, kw_only=True)
class Kronecker:
    """K = blockdiag(A (x) G) + damping, of the dense and convolution layers; else the identity.

    Parameters
    ----------
    factors_every, inverses_every : int
        Steps between two estimates of the factors, and between two inversions. Both are made
        also in the first, second, fourth, ... step.
    decay : float
        Most weight of the past in a new factor: min(1 - 1/k, decay) at the k-th estimate.
    examples : int, optional
        How many of a batch's samples the factors are estimated from; the loss must then be a mean
        over them. By default all.
    largest : int
        A weight with a longer side than this has no factors.
    seed : int
        Of the signs by which output gradients are drawn.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    J. Martens and R. Grosse, "Optimizing neural networks with Kronecker-factored approximate
    curvature" (ICML 2015): the block diagonal of section 4.2, the decay of section 5, the factored
    damping of section 6.3, A + pi sqrt(damping) and G + sqrt(damping) / pi with the trace norm.
    R. Grosse and J. Martens, "A Kronecker-factored approximate Fisher matrix for convolution
    layers" (ICML 2016): with T places, A sums over them and G is the mean (equations 32, 35).

    Deviations: (1) output gradients are drawn as :func:`~.layers.curvature_noise`: their second
    moments are those of the papers' model distribution, or of any other convex loss of independent
    outputs. (2) The damping of the factors is that of the quadratic, and not adapted apart.
    """

    factors_every: int = 5
    inverses_every: int = 20
    decay: float = 0.95
    examples: int | None = None
    largest: int = 8192
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("factors_every", "inverses_every", "largest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.examples is not None and self.examples < 1:
            raise ValueError(f"examples is {self.examples}; it must be at least 1, or None for all")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}; it must lie in [0, 1)")

    def init(self, oracle: Oracle, x: Array) -> KroneckerState:
        """Return no factors, and identities for their inverses."""
        sides = [self._sides(shape) for shape in oracle.structure.shapes]
        inverses = tuple(tuple(identity_like(x, n + 1) for n in pair) for pair in sides)
        factors = tuple(tuple(0 * eye for eye in pair) for pair in inverses)
        none = integer_like(x, 0)
        return KroneckerState(factors, inverses, none, none)

    def due(self, state: KroneckerState) -> Array:
        """Return whether the next :meth:`update` estimates the factors anew."""
        return _due(state.t, self.factors_every)

    def update(
        self,
        oracle: Oracle,
        state: KroneckerState,
        x: Array,
        damping: Array,
        data: tuple[Any, ...],
    ) -> KroneckerState:
        """Return the state after a batch, of which factors and inverses are made when due.

        Factors that are not finite are not kept.

        Raises
        ------
        ValueError
            If the model has no layer to make factors of.
        """
        tags = self._tags(oracle, x, data)

        def estimated(state: KroneckerState) -> Sides:
            return self._mixed(tags, state, self._estimate(oracle, x, data, state.t))

        def inverted(factors: Sides) -> Sides:
            return _inverses(tags, factors, state.inverses, damping)

        cond, old = oracle.flow.cond, state.inverses
        factors = cond(self.due(state), estimated, lambda state: state.factors, state)
        refresh = _due(state.t, self.inverses_every)
        inverses = cond(refresh, inverted, lambda _: old, factors)
        k = state.k + namespace(x).astype(self.due(state), state.k.dtype)
        return KroneckerState(factors, inverses, state.t + 1, k)

    def solve(
        self, oracle: Oracle, state: KroneckerState, x: Array, v: Array, data: tuple[Any, ...]
    ) -> Array:
        """Return K^-1 v, for v of shape (n,)."""
        structure = oracle.structure
        leaves = structure.split(v)
        for tag in self._tags(oracle, x, data):
            first, second = state.inverses[tag.weight]
            A, G = (second, first) if tag.outputs_first else (first, second)
            leaves = _solved(tag, leaves, A, G)
        return structure.join(leaves, copy=True)

    def _sides(self, shape: Sequence[int]) -> tuple[int, ...]:
        if len(shape) < 2:
            return ()
        sides = (shape[0], math.prod(shape[1:]))
        return sides if max(sides) <= self.largest else ()

    def _tags(self, oracle: Oracle, x: Array, data: tuple[Any, ...]) -> list[Layer]:
        shapes = oracle.structure.shapes
        tags = [t for t in layers_of(oracle, x, *data) if self._sides(shapes[t.weight])]
        if not tags:
            raise ValueError(
                "the model has no layer to make factors of; write its layers with "
                "osculant.ops.linear and ops.conv2d, called with parameters as they stand, or as "
                "Linear and Conv2d of a torch.nn.Module"
            )
        return tags

    def _estimate(
        self, oracle: Oracle, x: Array, data: tuple[Any, ...], t: Array
    ) -> dict[int, tuple[Array, Array]]:
        """Return the factors of a batch, by the index of the weight in the order of its sides."""
        if self.examples is not None:
            data = tuple(a[: self.examples, ...] for a in data)
        layers = Layers(oracle, x, *data)
        assert layers.point is not None
        u = curvature_noise(layers.point, t + self.seed)
        sides = {}
        for seen in layers.seen(u):
            A, G = factors_of(seen)
            sides[seen.layer.weight] = (G, A) if seen.layer.outputs_first else (A, G)
        return sides

    def _mixed(
        self, tags: Sequence[Layer], state: KroneckerState, new: dict[int, tuple[Array, Array]]
    ) -> Sides:
        """Return the decayed means after one more estimate."""
        mixed, xp = list(state.factors), namespace(state.t)
        for tag in tags:
            old, fresh = state.factors[tag.weight], new[tag.weight]
            k = xp.astype(state.k, fresh[0].dtype)
            past = xp.minimum(k / (k + 1), like(fresh[0], self.decay))
            finite = xp.all(xp.isfinite(fresh[0])) & xp.all(xp.isfinite(fresh[1]))
            mixed[tag.weight] = tuple(
                xp.where(finite, past * a + (1 - past) * b, a)
                for a, b in zip(old, fresh, strict=True)
            )
        return tuple(mixed)


def prepared(
    K: Kronecker | None,
    oracle: Oracle,
    state: Any,
    x: Array,
    damping: Array,
    data: tuple[Any, ...],
) -> tuple[Any, Callable[[Array], Array], Any]:
    """Return what K has seen, v -> K^-1 v, and whether it took a gradient to see more.

    Without K that is nothing, the identity and 0.
    """
    if K is None:
        return (), lambda v: v, 0
    blocks = K.update(oracle, state, x, damping, data)
    estimates = namespace(x).astype(K.due(state), state.t.dtype)
    return blocks, lambda v: K.solve(oracle, blocks, x, v, data), estimates


def _due(t: Array, period: int) -> Array:
    """Return whether ``t`` is a multiple of the period, or a power of two: early on all changes."""
    return (t % period == 0) | ((t & (t - 1)) == 0)


def factors_of(seen: Seen) -> tuple[Array, Array]:
    """Return A of shape (p + 1, p + 1) and G of shape (q + 1, q + 1) of one layer.

    The last place of A belongs to the coordinate 1, and is zero without a bias; that of G is zero.
    """
    N, T, _ = seen.inputs.shape
    a = _with_coordinate(seen.inputs, 0.0 if seen.layer.bias is None else 1.0)
    d = _with_coordinate(seen.gradients, 0.0)
    xp = namespace(a)
    return xp.matmul(a.T, a) / N, xp.matmul(d.T, d) / T


def _with_coordinate(b: Array, value: float) -> Array:
    """Return rows b, of shape (N, T, p), as (N T, p + 1) with a last column of ``value``."""
    xp = namespace(b)
    last = xp.full_like(b[:, :, :1], value)
    return xp.reshape(xp.concat([b, last], axis=2), (-1, b.shape[2] + 1))


def _inverses(tags: Sequence[Layer], factors: Sides, inverses: Sides, damping: Array) -> Sides:
    """Return (A + pi gamma)^-1 and (G + gamma / pi)^-1, gamma = sqrt(damping), for each layer."""
    xp, result = namespace(damping), list(inverses)
    for tag in tags:
        pair = factors[tag.weight]
        sizes = [F.shape[0] - 1 for F in pair]
        sizes[int(tag.outputs_first)] += tag.bias is not None
        means = [xp.linalg.trace(F) / n for F, n in zip(pair, sizes, strict=True)]
        present = (means[0] > 0) & (means[1] > 0)
        one = like(damping, 1.0)
        safe = [xp.where(present, mean, one) for mean in means]
        pi = xp.sqrt(safe[0] / safe[1])
        gamma = xp.sqrt(damping)
        result[tag.weight] = tuple(
            _inverse(F, shift + 10 * eps(F) * mean * n)
            for F, shift, mean, n in zip(pair, (pi * gamma, gamma / pi), safe, sizes, strict=True)
        )
    return tuple(result)


def _inverse(F: Array, shift: Array) -> Array:
    xp = namespace(F)
    return xp.linalg.inv(F + shift * identity_like(F, F.shape[0]))


def _solved(tag: Layer, leaves: list[Array], A: Array, G: Array) -> list[Array]:
    """Return the leaves with those of one layer multiplied by the inverses."""
    W, xp = leaves[tag.weight], namespace(A)
    M = xp.reshape(W, (W.shape[0], -1))
    M = M.T if tag.outputs_first else M
    p, q = M.shape
    if tag.bias is not None:
        M = xp.concat([M, leaves[tag.bias][None, :]], axis=0)
    P = xp.matmul(xp.matmul(A[: M.shape[0], : M.shape[0]], M), G[:q, :q])
    leaves = list(leaves)
    weight = P[:p, :]
    leaves[tag.weight] = xp.reshape(weight.T if tag.outputs_first else weight, W.shape)
    if tag.bias is not None:
        leaves[tag.bias] = P[p, :]
    return leaves
