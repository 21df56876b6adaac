"""Conjugate gradients for linear least squares, which keep the basis that they walk through."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..arrays import (
    Array,
    boolean_like,
    entries_like,
    guarded_divide,
    indices_like,
    integer_like,
    like,
    namespace,
    norm,
    rows_like,
)
from ..flow import Flow


class Bidiagonal(NamedTuple):
    """A V' = U B, with r = beta U e_1: A and r on a Krylov space of k <= K dimensions."""

    V: Array
    """Orthonormal rows v_1 ... v_k, of shape (K, n); zeros beyond."""
    B: Array
    """Lower bidiagonal, of shape (K + 1, K); zeros beyond k."""
    beta: Array
    """|r|."""
    iterations: Array
    """Products A v and A'u that it took, one of each an iteration."""


class _LSQR(NamedTuple):
    u: Array
    v: Array
    V: Array
    diagonal: Array
    below: Array
    alpha: Array  # of v, the next entry of the diagonal
    x: Array  # least-squares solution on the space so far
    w: Array
    phi_bar: Array
    rho_bar: Array
    k: Array
    done: Array


def lscg(
    matvec: Callable[[Array], Array],
    rmatvec: Callable[[Array], Array],
    r: Array,
    g: Array,
    *,
    radius: Array,
    rtol: Array,
    maxiter: int,
    active: Array,
    flow: Flow,
) -> Bidiagonal:
    """Bidiagonalise A from r, until the Krylov space holds a solution of min |A x - r|.

    Parameters
    ----------
    matvec, rmatvec : callable
        Map v of shape (n,) to A v of shape (m,), and u to A'u.
    r : array of shape (m,)
    g : array of shape (n,)
        A'r, which whoever linearised has at hand.
    radius : 0-d array
        Stop once |x| reaches it: the minimiser inside it, over the space so far, is then as
        good as the truncated one of Steihaug and Toint.
    rtol : 0-d array
        Stop once |A'(A x - r)| <= rtol |g|.
    maxiter : int
        Most iterations, K; the basis takes K n numbers.
    active : 0-d boolean array
        If False nothing is multiplied.
    flow : Flow

    Returns
    -------
    Bidiagonal

    Notes
    -----
    LSQR (Paige and Saunders, ACM Trans. Math. Softw. 8, 1982, 43-71, section 4): in exact
    arithmetic CG on A'A x = A'r, without the square of the condition. The space does not change
    with a damping, so that min |A x - r|^2 + lambda |x|^2 for all lambda are solved on it with no
    new product. Deviations: v is orthogonalised against the whole basis, which is kept anyway
    (one side is enough: Simon and Zha 2000); a product that is not finite ends the iteration.
    """
    xp = namespace(r)
    row = indices_like(r, maxiter)

    def put(values: Array, k: Array, entry: Array) -> Array:
        here = row == k
        return xp.where(here[:, None] if values.ndim == 2 else here, entry, values)

    beta = norm(r)
    g_norm = norm(g)
    alpha = guarded_divide(g_norm, beta)
    threshold = rtol * g_norm

    def keep_going(c: _LSQR) -> Array:
        return active & ~c.done & (c.k < maxiter)

    def iterate(c: _LSQR) -> _LSQR:
        u, below = _unit(matvec(c.v) - c.alpha * c.u)
        V = put(c.V, c.k, c.v)
        next_v = rmatvec(u) - below * c.v
        v, alpha = _unit(next_v - xp.matmul(xp.matmul(V, next_v), V))
        finite = xp.isfinite(below) & xp.isfinite(alpha)

        rho = norm(xp.stack([c.rho_bar, below]))
        cosine, sine = guarded_divide(c.rho_bar, rho), guarded_divide(below, rho)
        x = c.x + guarded_divide(cosine * c.phi_bar, rho) * c.w
        phi_bar = sine * c.phi_bar
        gradient = phi_bar * alpha * xp.abs(cosine)  # |A'(A x - r)|
        after = _LSQR(
            u=u,
            v=v,
            V=V,
            diagonal=put(c.diagonal, c.k, c.alpha),
            below=put(c.below, c.k, below),
            alpha=alpha,
            x=x,
            w=v - guarded_divide(sine * alpha, rho) * c.w,
            phi_bar=phi_bar,
            rho_bar=-cosine * alpha,
            k=c.k,
            done=(gradient <= threshold) | (norm(x) >= radius),
        )
        kept = _LSQR(*(xp.where(finite, new, old) for new, old in zip(after, c, strict=True)))
        return kept._replace(k=c.k + 1, done=kept.done | ~finite)

    v, _ = _unit(g)
    zeros = xp.zeros_like(g)
    end = flow.while_loop(
        keep_going,
        iterate,
        _LSQR(
            u=_unit(r)[0],
            v=v,
            V=rows_like(g, maxiter),
            diagonal=entries_like(r, maxiter),
            below=entries_like(r, maxiter),
            alpha=alpha,
            x=zeros,
            w=v,
            phi_bar=beta,
            rho_bar=alpha,
            k=integer_like(r, 0),
            done=boolean_like(r, False),
        ),
    )
    return Bidiagonal(end.V, _lower(end.diagonal, end.below), beta, end.k)


def _unit(a: Array) -> tuple[Array, Array]:
    """Return a / |a| and |a|; zeros stay zeros."""
    length = norm(a)
    return a * guarded_divide(like(a, 1.0), length), length


def _lower(diagonal: Array, below: Array) -> Array:
    """Return the lower bidiagonal matrix of shape (K + 1, K) with these entries."""
    xp = namespace(diagonal)
    column = indices_like(diagonal, diagonal.shape[0])
    row = indices_like(diagonal, diagonal.shape[0] + 1)[:, None]
    zero = like(diagonal, 0.0)
    return xp.where(row == column, diagonal, zero) + xp.where(row == column + 1, below, zero)
