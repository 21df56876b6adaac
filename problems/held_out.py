"""Smooth test functions that no solver was tried on before its options were fixed.

From the CUTE and CUTEst collections (Bongartz, Conn, Gould and Toint 1995; Gould, Orban and Toint,
Computational Optimization and Applications 60 (2015)), or as cited; each is written once with the
array API of x, in a size of 2 to 1000 variables.

The lowest known values follow from the formula, except for ``source="measured"``.
"""

from __future__ import annotations

import math

import numpy as np

from ..core.arrays import Array, device_of, identity_like, like, namespace
from .smooth import Collection, SmoothProblem, counting, total

_PROBLEMS = Collection()
_problem = _PROBLEMS.add


def problems() -> list[SmoothProblem]:
    """Return all of them."""
    return list(_PROBLEMS)


# Two variables ---------------------------------------------------------------------------------


@_problem("CLIFF", 2, (0.0, -1.0), lowest=(1 + math.log(20)) / 20)
def cliff(x: Array) -> Array:
    """Valley beside an exponential; least where x_1 - x_2 = -log(20) / 20."""
    return (x[0] / 100 - 0.03) ** 2 - x[0] + x[1] + namespace(x).exp(20 * (x[0] - x[1]))


def _hairy(x: Array) -> Array:
    xp = namespace(x)
    hair = xp.sin(7 * x[0]) ** 2 * xp.cos(7 * x[1]) ** 2
    return 30 * hair + 100 * xp.sqrt(0.01 + (x[0] - x[1]) ** 2) + 100 * xp.sqrt(0.01 + x[0] ** 2)


@_problem("HAIRY", 2, (-5.0, -7.0), lowest=20.0)
def hairy(x: Array) -> Array:
    """Valley through steep hills, with many saddles."""
    return _hairy(x)


@_problem("HUMPS", 2, (-506.0, -506.2), lowest=0.0)
def humps(x: Array) -> Array:
    """Flat paraboloid under steep humps, with many minima."""
    xp = namespace(x)
    return 0.05 * total(x**2) + (xp.sin(20 * x[0]) * xp.sin(20 * x[1])) ** 2


@_problem("LOGHAIRY", 2, (-500.0, -700.0), lowest=math.log(1.2))
def loghairy(x: Array) -> Array:
    """HAIRY from further away, on a logarithmic scale."""
    return namespace(x).log((100 + _hairy(x)) / 100)


@_problem("SINEVAL", 2, (4.712389, -1.0), lowest=0.0)
def sineval(x: Array) -> Array:
    """Narrow valley along a sine curve."""
    return 1e4 * (x[1] - namespace(x).sin(x[0])) ** 2 + x[0] ** 2 / 4


# Quadratics ------------------------------------------------------------------------------------


@_problem("DIXON3DQ", 500, -1.0, lowest=0.0)
def dixon3dq(x: Array) -> Array:
    """Dixon's tridiagonal quadratic, of condition number about n^2."""
    return (x[0] - 1) ** 2 + total((x[:-1] - x[1:]) ** 2) + (x[-1] - 1) ** 2


@_problem("DQDRTIC", 1000, 3.0, lowest=0.0)
def dqdrtic(x: Array) -> Array:
    """Diagonal quadratic of four eigenvalues."""
    return total(x[:-2] ** 2 + 100 * x[1:-1] ** 2 + 100 * x[2:] ** 2)


@_problem("TESTQUAD", 1000, 1.0, lowest=0.0)
def testquad(x: Array) -> Array:
    """Diagonal quadratic of condition number n."""
    return total(counting(x) * x**2)


# Curved valleys --------------------------------------------------------------------------------


@_problem("CHNRSNBM", 100, -1.0, lowest=0.0)
def chnrsnbm(x: Array) -> Array:
    """Toint's chained Rosenbrock function, with the weights 1.5 + sin(i)."""
    weight = like(x, (1.5 + np.sin(np.arange(2.0, x.shape[0] + 1))) ** 2)
    return total(16 * weight * (x[:-1] - x[1:] ** 2) ** 2 + (x[1:] - 1) ** 2)


@_problem("GENROSE", 100, np.arange(1.0, 101.0) / 101, lowest=1.0)
def genrose(x: Array) -> Array:
    """Nash's generalised Rosenbrock function."""
    return 1 + total(100 * (x[1:] - x[:-1] ** 2) ** 2 + (x[1:] - 1) ** 2)


@_problem("LUKSAN11LS", 100, -0.8, lowest=0.0)
def chained_serpentine(x: Array) -> Array:
    """Luksan's chained serpentine function, its squares summed."""
    a, b = x[:-1], x[1:]
    return total(100 * (2 * a / (1 + a**2) - b) ** 2 + (a - 1) ** 2)


@_problem("White-Holst", 100, (-1.2, 1.0), lowest=0.0)
def white_holst(x: Array) -> Array:
    """White and Holst's function, generalised (Andrei 2008): a cubic valley."""
    return total(100 * (x[1:] - x[:-1] ** 3) ** 2 + (1 - x[:-1]) ** 2)


# Systems of equations --------------------------------------------------------------------------


@_problem("BRYBND", 1000, -1.0, lowest=0.0)
def brybnd(x: Array) -> Array:
    """Broyden's banded system, its squares summed."""
    xp, n = namespace(x), x.shape[0]
    bent = x * (1 + x)
    padded = xp.concat([xp.zeros_like(x[:5]), bent, xp.zeros_like(x[:1])])
    beside = sum((padded[k : k + n] for k in range(7) if k != 5), xp.zeros_like(x))
    return total((x * (2 + 5 * x**2) + 1 - beside) ** 2)


@_problem("EIGENBLS", 110, (*np.eye(10).ravel(), *np.ones(10)), lowest=0.0)
def eigenbls(x: Array) -> Array:
    """Q and D with Q'D Q the tridiagonal (-1, 2, -1) and Q'Q = I; x is Q by rows, then D."""
    xp, p = namespace(x), math.isqrt(x.shape[0])
    Q, d = xp.reshape(x[: p * p], (p, p)), x[p * p :]
    A = like(x, 2 * np.eye(p) - np.eye(p, k=1) - np.eye(p, k=-1))
    upper = like(x, np.triu(np.ones((p, p))))
    Qt = xp.matrix_transpose(Q)
    r = xp.matmul(Qt, d[:, None] * Q) - A
    q = xp.matmul(Qt, Q) - identity_like(x, p)
    return total(upper * (r**2 + q**2))


_SQUARE_ROOT = np.sin(np.arange(1.0, 101.0) ** 2).reshape(10, 10)
_SQUARE_ROOT[2, 0] = 0.0


@_problem("MSQRTALS", 100, 0.2 * np.sin(np.arange(1.0, 101.0) ** 2), lowest=0.0)
def msqrtals(x: Array) -> Array:
    """X with X X = B B, for a given B; x is X by rows."""
    xp = namespace(x)
    X = xp.reshape(x, (10, 10))
    return total((xp.matmul(X, X) - like(x, _SQUARE_ROOT @ _SQUARE_ROOT)) ** 2)


# Others ----------------------------------------------------------------------------------------


def _least(coefficients: tuple[float, ...]) -> float:
    """Return the least value of a polynomial, with its coefficients in descending order."""
    polynomial = np.poly1d(coefficients)
    return float(min(polynomial(r.real) for r in polynomial.deriv().roots if r.imag == 0))


@_problem(
    "CURLY10",
    100,
    1e-4 * np.arange(1.0, 101.0) / 101,
    lowest=100 * _least((1.0, 0.0, -20.0, -0.1, 0.0)),
)
def curly10(x: Array) -> Array:
    """Quartics q (q (q^2 - 20) - 0.1) of the sums q of eleven neighbours; ill-conditioned."""
    xp = namespace(x)
    padded = xp.concat([x, xp.zeros_like(x[:10])])
    q = sum((padded[k : k + x.shape[0]] for k in range(11)), xp.zeros_like(x))
    return total(q * (q * (q**2 - 20) - 0.1))


@_problem("EG2", 1000, 1.0, lowest=-999.5)
def eg2(x: Array) -> Array:
    """Sines, all but one of which share x_1; with many minima."""
    xp = namespace(x)
    return total(xp.sin(x[0] + x[:-1] ** 2 - 1)) + xp.sin(x[-1] ** 2) / 2


@_problem(
    "FLETCBV2", 500, np.arange(1.0, 501.0) / 501, lowest=-0.5028516864700969, source="measured"
)
def fletcbv2(x: Array) -> Array:
    """Fletcher's boundary value problem, a discrete -x'' = 2 - sin x; convex."""
    h2 = 1 / (x.shape[0] + 1) ** 2
    energy = x[0] ** 2 + total((x[:-1] - x[1:]) ** 2) + x[-1] ** 2
    return energy / 2 - h2 * total(2 * x + namespace(x).cos(x)) - x[-1]


def _permuted(x: Array, factor: int, offset: int) -> Array:
    """Return the x_j with j = 1 + (factor i - offset) mod n, for i = 1, ..., n."""
    xp, n = namespace(x), x.shape[0]
    index = (factor * np.arange(1, n + 1) - offset) % n
    return xp.take(x, xp.asarray(index, device=device_of(x)))


#: t^2 + 4 cos t is least at the positive root of t = 2 sin t.
_NONCVXU2_ROOT = 1.8954942670339809


@_problem(
    "NONCVXU2",
    500,
    np.arange(1.0, 501.0),
    lowest=500 * (_NONCVXU2_ROOT**2 + 4 * math.cos(_NONCVXU2_ROOT)),
)
def noncvxu2(x: Array) -> Array:
    """t^2 + 4 cos t of sums t of three variables; non-convex, with many minima."""
    t = x + _permuted(x, 3, 2) + _permuted(x, 7, 3)
    return total(t**2 + 4 * namespace(x).cos(t))


def _six(x: Array) -> Array:
    """Return the sums of six permuted entries in SPARSINE and SPARSQUR."""
    return x + sum((_permuted(x, k, 1) for k in (2, 3, 5, 7, 11)), namespace(x).zeros_like(x))


@_problem("SPARSINE", 200, 0.5, lowest=0.0)
def sparsine(x: Array) -> Array:
    """Squared sums of six sines each, weighted by 1 to n; with many minima."""
    return total(counting(x) * _six(namespace(x).sin(x)) ** 2) / 2


@_problem("SPARSQUR", 1000, 0.5, lowest=0.0)
def sparsqur(x: Array) -> Array:
    """Squared sums of six squares each: the Hessian vanishes at the minimum."""
    return total(counting(x) * _six(x**2) ** 2) / 8


@_problem("TQUARTIC", 1000, 0.1, lowest=0.0)
def tquartic(x: Array) -> Array:
    """Toint's quartic, all coupled to the first variable."""
    return (x[0] - 1) ** 2 + total((x[0] ** 2 - x[1:] ** 2) ** 2)
