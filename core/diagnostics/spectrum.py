"""Leading eigenpairs, and the density of all eigenvalues."""

from __future__ import annotations

import math
from random import Random
from typing import Literal, NamedTuple

from ..arrays import (
    Array,
    device_of,
    eps,
    guarded_divide,
    identity_like,
    like,
    max_abs,
    namespace,
)
from .probes import Matrix, check_count, mean, sign_blocks, signs, vector_like

Which = Literal["magnitude", "largest", "smallest"]


class Eigenpairs(NamedTuple):
    """Some eigenvalues with their eigenvectors."""

    values: Array
    """Of shape (k,), in the order that was asked for."""
    vectors: Array
    """Orthonormal columns, of shape (n, k)."""
    residuals: Array
    """|A q - l q| for each: A has an eigenvalue within this distance of l."""
    products: int
    """With vectors."""


def eigenpairs(
    A: Matrix,
    k: int = 1,
    *,
    which: Which = "magnitude",
    tol: float | None = None,
    products: int = 200,
    seed: int = 0,
) -> Eigenpairs:
    """Return the leading eigenpairs by block Lanczos: Rayleigh-Ritz on span(V, AV, A^2 V, ...).

    The starting block V has k columns, so that eigenvalues of multiplicity up to k are found, and
    products are k at once. Every block is made orthogonal to all before it, twice. Memory is for
    twice as many vectors as products.

    Parameters
    ----------
    A : Operator or array of shape (n, n)
    k : int
        How many.
    which : {"magnitude", "largest", "smallest"}
        Those of the largest absolute value, the largest or the smallest, foremost first.
    tol : float, optional
        Stop once no residual exceeds ``tol`` times the largest absolute Ritz value. By default
        the square root of machine epsilon, which leaves the values exact to rounding.
    products : int
        Stop, with the residuals that there are, before more than these.
    seed : int
        Of V, whose entries are random signs.

    References
    ----------
    G. H. Golub, C. F. Van Loan, "Matrix Computations", 4th edition, section 10.3.6; C. Musco,
    C. Musco, "Randomized block Krylov methods for stronger and faster approximate singular value
    decomposition", NeurIPS 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from osculant import diagnostics
    >>> diagnostics.eigenpairs(np.diag([1.0, 5.0, -7.0]), 2).values.round(12)
    array([-7.,  5.])
    """
    n, vector = A.shape[0], vector_like(A)
    check_count("k", k, 1, n)
    check_count("products", products, k)
    if which not in ("magnitude", "largest", "smallest"):
        raise ValueError(f"which is {which!r}; it is 'magnitude', 'largest' or 'smallest'")
    tol = eps(vector) ** 0.5 if tol is None else tol
    xp = namespace(vector)
    Q, _ = xp.linalg.qr(signs(vector, n, k, Random(seed)))
    AQ = A @ Q
    while True:
        theta, Y = xp.linalg.eigh(_symmetric(Q.T @ AQ))
        order = _order(theta, which)[:k]
        values, Y = xp.take(theta, order, axis=0), xp.take(Y, order, axis=1)
        residuals = xp.linalg.vector_norm(AQ @ Y - (Q @ Y) * values, axis=0)
        width = min(k, n - Q.shape[1], products - Q.shape[1])
        if width < 1 or bool(xp.all(residuals <= tol * max_abs(theta))):
            return Eigenpairs(values, Q @ Y, residuals, Q.shape[1])
        block = _orthogonal(Q, AQ[:, -k:][:, :width])
        Q, AQ = xp.concat([Q, block], axis=1), xp.concat([AQ, A @ block], axis=1)


def _orthogonal(Q: Array, W: Array) -> Array:
    """Return an orthonormal basis of ``W`` less its part in the range of ``Q``."""
    for _ in range(2):
        W, _R = namespace(W).linalg.qr(W - Q @ (Q.T @ W))
    return W


def _symmetric(T: Array) -> Array:
    return (T + T.T) / 2.0


def _order(theta: Array, which: Which) -> Array:
    xp = namespace(theta)
    key = {
        "magnitude": lambda: -xp.abs(theta),
        "largest": lambda: -theta,
        "smallest": lambda: theta,
    }
    return xp.argsort(key[which]())


class Density(NamedTuple):
    """A spectral density, smoothed by a Gaussian kernel."""

    points: Array
    """Where it is evaluated, of shape (p,)."""
    value: Array
    """Of shape (p,); its integral is 1."""
    standard_error: Array
    """Of shape (p,), over the starting vectors; not the kernel's bias, nor that of few steps."""
    nodes: Array
    """Of the k Gaussian quadratures, of shape (k, m)."""
    weights: Array
    """Of shape (k, m): sum_j weights_ij f(nodes_ij) is unbiased for tr f(A) / n, for f a polynomial
    of degree below 2 m."""


def spectral_density(
    A: Matrix,
    *,
    steps: int = 32,
    samples: int = 8,
    seed: int = 0,
    points: int | Array = 200,
    width: float | None = None,
) -> Density:
    """Return the density of the eigenvalues of A by stochastic Lanczos quadrature.

    From each of k starting vectors of random signs, m steps of Lanczos, made orthogonal to all
    before, give the Gaussian quadrature of the measure that has the mass (q_i'v)^2 / |v|^2 at the
    i-th eigenvalue: the eigenvalues of the tridiagonal matrix, and the squares of their
    eigenvectors' first entries. Its mean is the spectral measure.

    Parameters
    ----------
    A : Operator or array of shape (n, n)
    steps : int
        m; no more than n are taken. Memory is for m k vectors.
    samples : int
        k, at least 2; products are k at once.
    seed : int
    points : int or array of shape (p,)
        Where to evaluate it; a number of equidistant places that cover the nodes.
    width : float, optional
        Standard deviation of the kernel. By default a fiftieth of the range of the nodes.

    Returns
    -------
    Density

    References
    ----------
    L. Lin, Y. Saad, C. Yang, "Approximating spectral densities of large matrices", SIAM Review 58
    (2016), section 3.2; B. Ghorbani, S. Krishnan, Y. Xiao, "An investigation into neural net
    optimization via Hessian eigenvalue density", ICML 2019, section 2.
    """
    check_count("steps", steps, 1)
    check_count("samples", samples, 2)
    (V,) = sign_blocks(A, samples, seed, samples)
    xp, n = namespace(V), A.shape[0]
    theta, Y = xp.linalg.eigh(_lanczos(A, V / math.sqrt(n), min(steps, n)))
    weights = Y[:, 0, :] ** 2
    low, high = xp.min(theta), xp.max(theta)
    sigma = (high - low) / 50.0 if width is None else like(V, width)
    sigma = xp.where(sigma > 0, sigma, xp.ones_like(sigma))
    if isinstance(points, int):
        check_count("points", points, 2)
        unit = xp.linspace(0.0, 1.0, points, dtype=V.dtype, device=device_of(V))
        places = (low - 4.0 * sigma) + unit * (high - low + 8.0 * sigma)
    else:
        places = points
    distance = (places[:, None, None] - theta[None, :, :]) / sigma
    kernel = xp.exp(-0.5 * distance**2) / (sigma * math.sqrt(2.0 * math.pi))
    estimate = mean(xp.sum(weights * kernel, axis=2))
    return Density(places, estimate.value, estimate.standard_error, theta, weights)


def _lanczos(A: Matrix, V: Array, steps: int) -> Array:
    """Return the tridiagonal matrices, of shape (k, m, m), from the unit columns of ``V``.

    Where the Krylov space is exhausted, beta is rounding, and what follows has a weight of beta^2.
    """
    xp = namespace(V)
    basis, alphas, betas = V[None, :, :], [], []
    for _ in range(steps):
        q = basis[-1, :, :]
        W = A @ q
        alphas.append(xp.sum(q * W, axis=0))
        for _ in range(2):
            W = W - xp.sum(basis * xp.sum(basis * W, axis=1)[:, None, :], axis=0)
        beta = xp.linalg.vector_norm(W, axis=0)
        betas.append(beta)
        basis = xp.concat([basis, guarded_divide(W, beta)[None, :, :]])
    alpha, beta = (xp.stack(each, axis=1)[:, :, None] for each in (alphas, betas))
    identity = identity_like(V, steps)
    above = xp.triu(xp.roll(identity, 1, axis=1), k=1) * beta
    return identity * alpha + above + xp.matrix_transpose(above)
