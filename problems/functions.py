"""Small test functions with known minima, each written once with the array API."""

from __future__ import annotations

import numpy as np

from ..core.arrays import Array, namespace


def rosenbrock(x: Array) -> Array:
    """Return the chained Rosenbrock function of x, of shape (n,) with n >= 2.

    f(x) = sum_i 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2, least at (1, ..., 1), where it is 0.
    The same as :func:`scipy.optimize.rosen`.

    Raises
    ------
    ValueError
        If x is not a vector of two entries or more.

    References
    ----------
    H. H. Rosenbrock, "An automatic method for finding the greatest or least value of a
    function", The Computer Journal 3 (1960); the chain: Ph. L. Toint, "Some numerical results
    using a sparse matrix updating formula in unconstrained optimization", Mathematics of
    Computation 32 (1978).
    """
    return sum_of_squares(rosenbrock_residuals(x))


def rosenbrock_residuals(x: Array) -> Array:
    """Return the residuals r of shape (2n - 2,) whose :func:`sum_of_squares` is Rosenbrock's.

    As a ``model`` with the ``loss`` :func:`sum_of_squares` it gives the function Gauss-Newton
    products. The residuals vanish at the minimum, so that Gauss-Newton is exact there.

    Raises
    ------
    ValueError
        If x is not a vector of two entries or more.
    """
    if x.ndim != 1 or x.shape[0] < 2:
        raise ValueError(f"Rosenbrock's function takes a vector of 2 or more, not shape {x.shape}")
    xp = namespace(x)
    return xp.concat([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]])


def rosenbrock_start(n: int) -> np.ndarray:
    """Return the standard start (-1.2, 1, -1.2, 1, ...) of shape (n,), in float64."""
    return np.where(np.arange(n) % 2 == 0, -1.2, 1.0)


def sum_of_squares(r: Array) -> Array:
    """Return the sum of squares of the residuals r, as a 0-d array."""
    return namespace(r).sum(r**2)


def x_minus_log(x: Array) -> Array:
    """Return the sum of x - log x over x, least at (1, ..., 1); not a number for x < 0.

    Convex, with curvature 1 / x^2: far to the right of the minimum a Newton step jumps out of
    the domain. A method that takes a non-finite value for an improvement, or stops shrinking
    its region at one, fails here.
    """
    xp = namespace(x)
    return xp.sum(x - xp.log(x))
