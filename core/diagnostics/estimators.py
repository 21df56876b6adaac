"""Trace, diagonal and Frobenius norm."""

from __future__ import annotations

from ..arrays import guarded_divide, namespace
from .probes import Estimate, Matrix, as_arrays, check_count, mean, sign_blocks


def trace(A: Matrix, *, samples: int = 32, seed: int = 0, at_once: int = 16) -> Estimate:
    """Return the mean of v'Av over vectors v of random signs, for tr A.

    The variance of one sample is 2 sum_{i != j} A_ij^2: a diagonal matrix has none.

    Parameters
    ----------
    A : Operator or array of shape (n, n)
    samples : int
        Vectors, each of which costs one product; at least 2.
    seed : int
    at_once : int
        Vectors in a product.

    Returns
    -------
    Estimate
        0-d.

    References
    ----------
    M. F. Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian
    smoothing splines", Communications in Statistics 18 (1989).

    Examples
    --------
    >>> import numpy as np, osculant
    >>> pt = osculant.oracle(lambda x: (x**4).sum(), np.ones(3)).at(np.array([1.0, 2.0, 3.0]))
    >>> osculant.diagnostics.trace(pt.H)
    Estimate(value=array(168.), standard_error=array(0.))
    """
    check_count("samples", samples, 2)
    forms = []
    for V in sign_blocks(A, samples, seed, at_once):
        xp = namespace(V)
        forms.append(xp.sum(V * (A @ V), axis=0))
    return as_arrays(mean(xp.concat(forms)))


def diagonal(A: Matrix, *, samples: int = 32, seed: int = 0, at_once: int = 16) -> Estimate:
    """Return the mean of v * Av over vectors v of random signs, for the diagonal of A.

    The variance of one sample is sum_{j != i} A_ij^2 at entry i. Parameters as in :func:`trace`;
    the estimate has shape (n,).

    References
    ----------
    C. Bekas, E. Kokiopoulou, Y. Saad, "An estimator for the diagonal of a matrix", Applied
    Numerical Mathematics 57 (2007).
    """
    check_count("samples", samples, 2)
    count = 0
    for V in sign_blocks(A, samples, seed, at_once):
        xp = namespace(V)
        block = V * (A @ V)
        k = block.shape[1]
        average = xp.mean(block, axis=1)
        spread = xp.sum((block - average[:, None]) ** 2, axis=1)
        if count == 0:
            value, squares = average, spread
        else:  # Chan, Golub and LeVeque's update, which does not cancel
            shift = average - value
            value = value + shift * (k / (count + k))
            squares = squares + spread + shift**2 * (count * k / (count + k))
        count += k
    return Estimate(value, xp.sqrt(squares / (count * (count - 1))))


def frobenius_norm(A: Matrix, *, samples: int = 32, seed: int = 0, at_once: int = 16) -> Estimate:
    """Return the root of the mean of |Av|^2 over vectors v of random signs, for |A|_F.

    Parameters as in :func:`trace`. The standard error is that of the square, carried through the
    root to first order.
    """
    check_count("samples", samples, 2)
    squares = []
    for V in sign_blocks(A, samples, seed, at_once):
        xp = namespace(V)
        squares.append(xp.sum((A @ V) ** 2, axis=0))
    value, error = mean(xp.concat(squares))
    norm = xp.sqrt(value)
    return as_arrays(Estimate(norm, guarded_divide(error, 2.0 * norm)))


def hutchpp(A: Matrix, *, samples: int = 16, seed: int = 0) -> Estimate:
    """Return the trace of A with its part on the leading directions taken exactly: Hutch++.

    Q = orth(A S) for m vectors S of random signs is where A is large; m others estimate the rest,

        tr A = tr(Q'A Q) + tr((I - Q Q') A (I - Q Q')).

    Where the eigenvalues fall off the error does with them, and it is 0 for a matrix of rank up to
    m. Where they do not :func:`trace` is as good. The products are 3 m, m at once.

    Parameters
    ----------
    A : Operator or array of shape (n, n)
    samples : int
        m; from 2 to n.
    seed : int

    Returns
    -------
    Estimate
        0-d.

    References
    ----------
    R. A. Meyer, C. Musco, C. Musco, D. P. Woodruff, "Hutch++: optimal stochastic trace estimation",
    SOSA 2021, algorithm 1.
    """
    check_count("samples", samples, 2, A.shape[0])
    S, V = sign_blocks(A, 2 * samples, seed, samples)
    xp = namespace(V)
    Q, _ = xp.linalg.qr(A @ S)
    leading = xp.sum(Q * (A @ Q))
    V = V - Q @ (Q.T @ V)
    rest = mean(xp.sum(V * (A @ V), axis=0))
    return as_arrays(Estimate(leading + rest.value, rest.standard_error))
