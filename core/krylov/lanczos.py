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
    eps,
    guarded_divide,
    identity_like,
    integer_like,
    like,
    namespace,
    norm,
)
from ..flow import Flow

#: Iterations after which the secular equation's root is bracketed to rounding in any case.
SECULAR_ITERATIONS = 100


class Reach(NamedTuple):
    """How long a step of shift lambda is to be: |s|_A = radius + lambda * slope.

    (Delta, 0) is a trust region; (0, 1/sigma) is the cubic term sigma |s|_A^3 / 3.
    """

    radius: Array
    slope: Array


class Subspace(NamedTuple):
    """The model g's + s'Bs/2 on s = V'y: h'y + y'Ty/2, with |s|_A = |y|."""

    V: Array
    """Rows, orthonormal in the inner product of A, of shape (m, n); zeros where unused."""
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
    orthogonalised in full (twice is enough), which allows any other M, as in the sequential
    subspace method of Hager, SIAM J. Optim. 12 (2001) 188-208; the residual is measured in the norm
    of M^-1, which does not depend on the scale of the variables. Where the subspace turns out
    invariant, with the hard case possibly beyond it, a fixed vector that belongs to no structure
    of the problem is added once, in place of their restart. A product that is not finite is taken
    for zero curvature, so that the ratio test judges the step.
    """
    xp, n = namespace(g), g.shape[0]
    memory = min(memory, n)
    rows = xp.stack([xp.zeros_like(g)] * memory)
    index = xp.cumulative_sum(xp.ones_like(rows[:, 0])) - 1
    g_norm = norm(g)
    unit = g / xp.where(g_norm > 0, g_norm, like(g, 1.0))
    probe = xp.sin(xp.cumulative_sum(xp.ones_like(g)))
    seed = xp.where(probing, unit + guarded_divide(like(g, 1.0), norm(probe)) * probe, unit)

    def orthonormal(V: Array, z: Array) -> tuple[Array, Array]:
        """Return z without its part in V, of length 1, and whether anything was left of it."""
        before = _length(z, metric)
        for _ in range(2):
            z = z - xp.matmul(xp.matmul(V, metric(z)), V)
        after = _length(z, metric)
        left = after > 1e2 * eps(g) * before
        return xp.where(left, guarded_divide(like(g, 1.0), after) * z, xp.zeros_like(z)), left

    def extend(c: _Search) -> _Search:
        Bv = matvec(c.v)
        Bv = xp.where(xp.isfinite(norm(Bv)), Bv, xp.zeros_like(Bv))
        space = _append(c.space, c.v, Bv, seed, index)
        s = minimise(space, _scaled(reach, g_norm), flow)
        bent = xp.matmul(s.y, space.BV) + s.shift * metric(xp.matmul(s.y, space.V))
        r = seed + bent
        z = precondition(r)
        size = _root(dot(r, z))
        invariant = norm(r) <= 10 * eps(g) * (1 + norm(bent))
        v, left = orthonormal(space.V, xp.where(invariant, probe, z))
        enough = xp.where(invariant, c.probed, size <= c.bound)
        full = space.size >= memory
        return _Search(space, v, c.bound, c.probed | invariant, enough | ~left | full)

    z = precondition(seed)
    v, left = orthonormal(rows, z)
    empty = Subspace(rows, rows, rows[:, :1] * xp.zeros_like(index), rows[:, 0], integer_like(g, 0))
    start = _Search(
        space=empty,
        v=v,
        bound=rtol * _root(dot(seed, z)),
        probed=boolean_like(g, False),
        done=~(active & left),
    )
    end = flow.while_loop(lambda c: ~c.done, extend, start).space
    return end._replace(h=g_norm * xp.where(probing, xp.matmul(end.V, unit), end.h))


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
    c = xp.matmul(xp.matrix_transpose(Q), space.h / safe)
    # In units in which |h| = 1 and the largest |eigenvalue| is 1, nothing under- or overflows.
    unit = safe / scale
    target = Reach(reach.radius / unit, reach.slope * scale / unit)
    shift, u = _secular(values, c, target, flow)
    y = unit * xp.matmul(Q, u)
    return Minimiser(
        y=y,
        shift=scale * shift,
        slope=dot(space.h, y),
        curvature=dot(y, xp.matmul(space.T, y)),
    )


def ritz_pairs(space: Subspace, count: int) -> tuple[Array, Array]:
    """Return pairs (s, B s) that are conjugate in B, as two arrays of shape (count, n).

    Each s is a Ritz vector of positive Ritz value. The least come last, as the newest to a
    quasi-Newton memory; rows of zeros come first where there are fewer than ``count``.
    """
    xp = namespace(space.h)
    values, Q, _ = _spectrum(space)
    used = xp.cumulative_sum(xp.ones_like(values)) <= xp.astype(space.size, values.dtype)
    keeps = xp.astype(used & (values > 0), xp.int32)
    rows = xp.flip(xp.matrix_transpose(Q) * xp.astype(keeps, Q.dtype)[:, None], axis=0)
    last = xp.argsort(xp.flip(keeps), stable=True)[max(rows.shape[0] - count, 0) :]
    rows = xp.take(rows, last, axis=0)
    missing = xp.zeros_like(space.V[:1, :])
    short = [missing] * (count - rows.shape[0])
    return (
        xp.concat([*short, xp.matmul(rows, space.V)]),
        xp.concat([*short, xp.matmul(rows, space.BV)]),
    )


def _append(c: Subspace, v: Array, Bv: Array, g: Array, index: Array) -> Subspace:
    xp = namespace(v)
    new = index == xp.astype(c.size, index.dtype)
    V = xp.where(new[:, None], v[None, :], c.V)
    BV = xp.where(new[:, None], Bv[None, :], c.BV)
    column = xp.matmul(V, Bv)
    T = xp.where(new[:, None], column[None, :], xp.where(new[None, :], column[:, None], c.T))
    return Subspace(V, BV, T, xp.where(new, dot(v, g), c.h), c.size + 1)


def _spectrum(space: Subspace) -> tuple[Array, Array, Array]:
    """Return eigenvalues of T / scale, ascending and with those of unused rows last, and scale.

    Unused rows are given the eigenvalue 2, beyond all others, which are at most 1 in size.
    """
    xp = namespace(space.T)
    scale = norm(xp.reshape(space.T, (-1,)))
    scale = xp.where(scale > 0, scale, like(scale, 1.0))
    m = space.h.shape[0]
    used = xp.cumulative_sum(xp.ones_like(space.h)) <= xp.astype(space.size, space.h.dtype)
    padding = 2 * identity_like(space.h, m) * xp.astype(~used, space.h.dtype)
    values, Q = xp.linalg.eigh(space.T / scale + padding)
    return values, Q, scale


class _Root(NamedTuple):
    shift: Array
    low: Array
    high: Array
    k: Array
    done: Array


def _secular(e: Array, c: Array, reach: Reach, flow: Flow) -> tuple[Array, Array]:
    """Return lambda and u, with (e + lambda) u = -c, for |c| = 1 and |e| <= 1 ascending."""
    xp, tiny = namespace(e), 4 * eps(e)
    zero = like(e, 0.0)
    definite = e[0] > tiny
    least = xp.maximum(-e[0], zero)
    floor = xp.where(definite, zero, least + tiny)

    def at(shift: Array) -> tuple[Array, Array]:
        gaps = xp.maximum(e + shift, like(e, tiny / 2))
        return -c / gaps, gaps

    def excess(length: Array, shift: Array) -> Array:
        return length - (reach.radius + reach.slope * shift)

    at_floor, _ = at(floor)
    inside = excess(norm(at_floor), floor) <= 0
    widest = xp.where(
        reach.radius > 0,
        guarded_divide(like(e, 1.0), reach.radius),
        _root(guarded_divide(like(e, 1.0), reach.slope)),
    )

    def newton(root: _Root) -> _Root:
        u, gaps = at(root.shift)
        length, target = norm(u), reach.radius + reach.slope * root.shift
        long = length > target
        low, high = xp.where(long, root.shift, root.low), xp.where(long, root.high, root.shift)
        # Newton on 1/|u| - 1/target, both sides multiplied by target.
        bend = dot(u, u / gaps) / (length * length) * guarded_divide(target, length)
        step = (guarded_divide(target, length) - 1) / (bend + guarded_divide(reach.slope, target))
        trial = root.shift - step
        middle = floor + _root((low - floor) * (high - floor))
        middle = xp.where(low > floor, middle, (low + high) / 2)
        trial = xp.where((trial > low) & (trial < high), trial, middle)
        close = xp.abs(length - target) <= 10 * eps(e) * target
        return _Root(
            shift=xp.where(close, root.shift, trial),
            low=low,
            high=high,
            k=root.k + 1,
            done=close | (high - low <= 2 * eps(e) * high) | (root.k >= SECULAR_ITERATIONS),
        )

    start = _Root(floor + widest / 2, floor, floor + widest, integer_like(e, 0), inside)
    start = start._replace(shift=xp.where(inside, floor, start.shift))
    shift = flow.while_loop(lambda root: ~root.done, newton, start).shift
    u, _ = at(shift)
    # Hard case: no shift makes u long enough, the bottom eigenvector does.
    hard = inside & (e[0] < -tiny)
    rest = xp.concat([xp.zeros_like(u[:1]), u[1:]])
    length = reach.radius + reach.slope * shift
    missing = _root(length * length - dot(rest, rest))
    first = xp.where(c[:1] > 0, -missing, missing)
    return shift, xp.where(hard, xp.concat([first, u[1:]]), u)


def _scaled(reach: Reach, unit: Array) -> Reach:
    """Return the reach for a model whose gradient is divided by ``unit``."""
    safe = namespace(unit).where(unit > 0, unit, like(unit, 1.0))
    return Reach(reach.radius / safe, reach.slope / safe)


def _length(v: Array, metric: Callable[[Array], Array]) -> Array:
    return _root(dot(v, metric(v)))


def _root(a: Array) -> Array:
    xp = namespace(a)
    return xp.sqrt(xp.maximum(a, like(a, 0.0)))
