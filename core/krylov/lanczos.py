"""Regularised quadratic models solved in a subspace whose basis is kept.

A basis that is kept serves every radius and every cubic weight: after a rejection the model is
solved again without a new product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..arrays import (
    Array,
    boolean_like,
    dot,
    entries_like,
    eps,
    guarded_divide,
    identity_like,
    indices_like,
    integer_like,
    like,
    namespace,
    norm,
    root,
    rows_like,
)
from ..flow import Flow
from ..pairs import CAUTIOUS, Pairs
from .secular import Reach, secular

#: Where one pass of orthogonalisation leaves less than this part of a vector, another is needed.
ENOUGH_LEFT = 0.5**0.5


class Subspace(NamedTuple):
    """The model g's + s'Bs/2 on s = V'y: h'y + y'Ty/2, with |s|_A = |y|."""

    V: Array
    """Rows, orthonormal in the inner product of A, of shape (m, n); zeros where unused.

    m is the number in use where shapes may depend on it, and else the most that there can be.
    """
    BV: Array
    """Rows B v, of shape (m, n)."""
    T: Array
    """V B V', of shape (m, m)."""
    h: Array
    """V g, of shape (m,)."""
    size: Array
    """Rows in use: products that it took."""


class Minimiser(NamedTuple):
    """The global minimiser of the regularised model in a subspace."""

    y: Array
    """Coordinates, of shape (m,)."""
    shift: Array
    """lambda >= 0 with (T + lambda I) y = -h; positive where the regularisation binds."""
    slope: Array
    """h'y."""
    curvature: Array
    """y'Ty."""


class _Search(NamedTuple):
    space: Subspace
    v: Array  # next direction, of length 1
    bound: Array  # (r'M^-1 r)^(1/2) at which to stop
    probed: Array
    done: Array


def lanczos(
    matvec: Callable[[Array], Array],
    g: Array,
    reach: Reach,
    *,
    metric: Callable[[Array], Array],
    precondition: Callable[[Array], Array],
    rtol: Array,
    memory: int,
    active: Array,
    flow: Flow,
    probing: Array | bool = False,
) -> Subspace:
    """Extend a subspace by preconditioned residuals until it holds a good enough step.

    Parameters
    ----------
    matvec : callable
        Maps v of shape (n,) to B v.
    g : array of shape (n,)
        Gradient.
    reach : Reach
        Of the regularisation.
    metric : callable
        v -> A v.
    precondition : callable
        v -> M^-1 v, with M an approximation of B, or A itself; positive definite.
    rtol : 0-d array
        Stop once r'M^-1 r <= rtol^2 g'M^-1 g, where r = g + B s + lambda A s.
    memory : int
        Most directions, and so products; 2 * memory vectors are kept.
    active : 0-d boolean array
        If False no product is taken and the subspace is empty.
    flow : Flow
    probing : 0-d boolean array
        Whether the subspace is to show negative curvature that g does not: it is then built for g
        and as much of the fixed vector, and h is still V g.

    Returns
    -------
    Subspace

    Notes
    -----
    Gould, Lucidi, Roma and Toint, SIAM J. Optim. 9 (1999) 504-525 (GLTR). With M = A the residual
    is parallel to the next Lanczos vector, and this is their method. Deviations: the basis is kept,
    orthogonalised in full, twice where once is not enough (Daniel, Gragg, Kaufman and Stewart,
    Math. Comp. 30 (1976) 772-795), which allows any other M, as in the sequential subspace method
    of Hager, SIAM J. Optim. 12 (2001) 188-208; the residual is measured in the norm of M^-1, which
    does not depend on the scale of the variables. Where the subspace turns out invariant, with the
    hard case possibly beyond it, a fixed vector that belongs to no structure of the problem is
    added once, in place of their restart. A product that is not finite is taken for zero
    curvature, so that the ratio test judges the step.
    """
    xp = namespace(g)
    memory = min(memory, g.shape[0])
    index = indices_like(g, memory)
    none = entries_like(g, memory)
    g_norm = norm(g)
    unit = g / xp.where(g_norm > 0, g_norm, like(g, 1.0))

    def probe(v: Array) -> Array:
        """Return the fixed vector, of length 1."""
        waves = xp.sin(xp.cumulative_sum(xp.ones_like(v)))
        return waves / norm(waves)

    def orthonormal(V: Array, z: Array) -> tuple[Array, Array]:
        """Return z without its part in V, of length 1, and whether anything was left of it."""

        def without(z: Array) -> Array:
            return z - (V @ metric(z)) @ V

        before, z = _length(z, metric), without(z)
        once = _length(z, metric)
        z = flow.cond(once < ENOUGH_LEFT * before, without, lambda z: z, z)
        after = _length(z, metric)
        left = after > 1e2 * eps(g) * before
        return xp.where(left, guarded_divide(like(g, 1.0), after), like(g, 0.0)) * z, left

    def append(c: Subspace, v: Array, Bv: Array) -> Subspace:
        vBv = dot(v, Bv)
        Bv = xp.where(xp.isfinite(vBv), Bv, xp.zeros_like(Bv))
        V, BV = flow.put(c.V, c.size, v), flow.put(c.BV, c.size, Bv)
        column = flow.leading(V, c.size + 1) @ Bv
        column = xp.concat([column, none[column.shape[0] :]])
        new = index == c.size
        T = xp.where(new[:, None], column[None, :], xp.where(new[None, :], column[:, None], c.T))
        return Subspace(V, BV, T, xp.where(new, dot(v, seed), c.h), c.size + 1)

    def extend(c: _Search) -> _Search:
        space = append(c.space, c.v, matvec(c.v))
        used = _in_use(space, flow)
        s = minimise(used, _scaled(reach, g_norm), flow)
        bent = flow.cond(
            s.shift > 0,
            lambda Bs: Bs + s.shift * metric(s.y @ used.V),
            lambda Bs: Bs,
            s.y @ used.BV,
        )
        r = seed + bent
        z = precondition(r)
        size = root(dot(r, z))
        # s is of the size that makes B s as long as g: these squares do not leave the range.
        invariant = root(dot(r, r)) <= 10 * eps(g) * (1 + root(dot(bent, bent)))
        v, left = orthonormal(used.V, flow.cond(invariant, probe, lambda z: z, z))
        enough = xp.where(invariant, c.probed, size <= c.bound)
        full = space.size >= memory
        return _Search(space, v, c.bound, c.probed | invariant, enough | ~left | full)

    seed = flow.cond(probing, lambda u: u + probe(u), lambda u: u, unit)
    z = flow.cond(active, precondition, xp.zeros_like, seed)
    empty = Subspace(
        V=rows_like(g, memory),
        BV=rows_like(g, memory),
        T=rows_like(none, memory),
        h=none,
        size=integer_like(g, 0),
    )
    v, left = orthonormal(empty.V[:1, :], z)
    start = _Search(
        space=empty,
        v=v,
        bound=rtol * root(dot(seed, z)),
        probed=boolean_like(g, False),
        done=~(active & left),
    )
    end = _in_use(flow.while_loop(lambda c: ~c.done, extend, start).space, flow)
    h = flow.cond(probing, lambda _: end.V @ unit, lambda h: h, end.h)
    return end._replace(h=g_norm * h)


def whole_space(
    matvec: Callable[[Array], Array],
    g: Array,
    *,
    metric: Callable[[Array], Array],
    active: Array,
    flow: Flow,
) -> Subspace:
    """Return the model on all of R^n, by n products at once.

    Parameters
    ----------
    matvec : callable
        Maps V of shape (n, n) to B V.
    g, metric, active, flow
        As for :func:`lanczos`. With A = LL', the basis is V = L^-1.
    """
    xp, n = namespace(g), g.shape[0]
    identity = identity_like(g, n)
    A = xp.stack([metric(identity[i, :]) for i in range(n)])
    V = xp.linalg.inv(xp.linalg.cholesky((A + xp.matrix_transpose(A)) / 2))
    BV = flow.cond(
        active, lambda W: xp.matrix_transpose(matvec(xp.matrix_transpose(W))), xp.zeros_like, V
    )
    BV = xp.where(xp.all(xp.isfinite(BV)), BV, xp.zeros_like(BV))
    T = xp.matmul(BV, xp.matrix_transpose(V))
    T = (T + xp.matrix_transpose(T)) / 2
    size = xp.where(active, integer_like(g, n), integer_like(g, 0))
    return Subspace(V, BV, T, xp.matmul(V, g), size)


def minimise(space: Subspace, reach: Reach, flow: Flow) -> Minimiser:
    """Return the global minimiser of the regularised model in ``space``, the hard case included.

    Notes
    -----
    (T + lambda I) y = -h with T + lambda I positive semidefinite and |y| = target(lambda) =
    radius + lambda * slope characterises it (More and Sorensen 1983; Cartis, Gould and Toint 2011,
    Theorem 3.1). On the eigenvalues of T, 1/|y| - 1/target = 0 is solved by Newton's method, kept
    in a bracket. In the hard case the eigenvector of the least eigenvalue makes up the length.
    """
    xp = namespace(space.h)
    values, Q, scale = _spectrum(space)
    h_norm = norm(space.h)
    some = h_norm > 0
    safe = xp.where(some, h_norm, like(h_norm, 1.0))
    c = (space.h / safe) @ Q
    # In units in which |h| = 1 and the largest |eigenvalue| is 1, nothing under- or overflows.
    unit = safe / scale
    target = Reach(reach.radius / unit, reach.slope * scale / unit)
    shift, u = secular(values, c, target, flow)
    y = unit * (Q @ u)
    return Minimiser(
        y=y,
        shift=scale * shift,
        slope=dot(space.h, y),
        curvature=dot(y, space.T @ y),
    )


def ritz_pairs(space: Subspace, count: int) -> Pairs:
    """Return ``count`` pairs (s, B s) that are conjugate in B.

    Each s is a Ritz vector of positive Ritz value, clear of rounding, in the Euclidean norm. The
    least come last, as the newest; rows of zeros come first where there are fewer.
    """
    xp = namespace(space.h)
    values, Q, scale = _spectrum(space)
    rows = xp.flip(Q.T, axis=0)
    lengths = root(xp.sum((rows @ (space.BV @ space.BV.T)) * rows, axis=1))
    unused = xp.flip(indices_like(values, values.shape[0]) >= space.size)
    teaches = ~unused & (scale * xp.flip(values) > CAUTIOUS * lengths)
    last = xp.argsort(xp.astype(teaches, xp.int32), stable=True)[max(rows.shape[0] - count, 0) :]
    rows = xp.take(rows * xp.astype(teaches, Q.dtype)[:, None], last, axis=0)
    rows = xp.concat([rows_like(rows, count - rows.shape[0]), rows])
    return Pairs(rows @ space.V, rows @ space.BV)


def _in_use(space: Subspace, flow: Flow) -> Subspace:
    """Return the part of the basis that is in use, where shapes may depend on it."""

    def cut(rows: Array) -> Array:
        return flow.leading(rows, space.size)

    return Subspace(cut(space.V), cut(space.BV), cut(cut(space.T).T), cut(space.h), space.size)


def _spectrum(space: Subspace) -> tuple[Array, Array, Array]:
    """Return eigenvalues of T / scale, ascending and with those of unused rows last, and scale.

    Unused rows are given the eigenvalue 2, beyond all others, which are at most 1 in size.
    """
    xp = namespace(space.T)
    scale = norm(xp.reshape(space.T, (-1,)))
    scale = xp.where(scale > 0, scale, like(scale, 1.0))
    m = space.h.shape[0]
    unused = indices_like(space.h, m) >= space.size
    padding = 2 * identity_like(space.h, m) * xp.astype(unused, space.h.dtype)
    values, Q = xp.linalg.eigh(space.T / scale + padding)
    return values, Q, scale


def _scaled(reach: Reach, unit: Array) -> Reach:
    """Return the reach for a model whose gradient is divided by ``unit``."""
    safe = namespace(unit).where(unit > 0, unit, like(unit, 1.0))
    return Reach(reach.radius / safe, reach.slope / safe)


def _length(v: Array, metric: Callable[[Array], Array]) -> Array:
    return root(dot(v, metric(v)))
