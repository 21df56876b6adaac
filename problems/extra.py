"""Larger smooth test functions, for judging solvers on what they were not tuned to.

Most are from the CUTE collection (Bongartz, Conn, Gould and Toint, "CUTE: constrained and
unconstrained testing environment", ACM Transactions on Mathematical Software 21 (1995)), some
in the form of N. Andrei ("An unconstrained optimization test functions collection", Advanced
Modeling and Optimization 10 (2008)). Each is written once with the array API of x, in a size of
100 to 1000 variables.

The lowest known values follow from the formula or, with ``source="measured"``, are those on
which several solvers agreed from both starts; the tests repeat that agreement.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from ..core.arrays import Array, like, namespace
from .smooth import Collection, SmoothProblem, counting, total

_PROBLEMS = Collection()
_problem = _PROBLEMS.add


def problems() -> list[SmoothProblem]:
    """Return all of them."""
    return list(_PROBLEMS)


@_problem("ARWHEAD", 1000, 1.0, lowest=0.0)
def arwhead(x: Array) -> Array:
    """Arrow-head Hessian."""
    head = x[:-1]
    return total((head**2 + x[-1] ** 2) ** 2 - 4 * head + 3)


@_problem("BDQRTIC", 1000, 1.0, lowest=3983.817950576534, source="measured")
def bdqrtic(x: Array) -> Array:
    """Banded quartic with one dense column."""
    n = x.shape[0]
    squares = [x[k : n - 4 + k] ** 2 for k in range(4)]
    quartic = squares[0] + 2 * squares[1] + 3 * squares[2] + 4 * squares[3] + 5 * x[-1] ** 2
    return total((3 - 4 * x[:-4]) ** 2 + quartic**2)


@_problem("BROYDN3D, squared", 1000, -1.0, lowest=0.0)
def broyden_tridiagonal_squares(x: Array) -> Array:
    """Broyden's tridiagonal system, its squares summed."""
    xp = namespace(x)
    zero = like(x, [0.0])
    r = (3 - 2 * x) * x + 1 - xp.concat([zero, x[:-1]]) - 2 * xp.concat([x[1:], zero])
    return total(r**2)


@_problem("CHAINWOO", 100, (-3.0, -1.0, -3.0, -1.0), lowest=1.0)
def chained_wood(x: Array) -> Array:
    """Wood's function, chained by overlapping pairs; it has many minima."""
    a, b, c, d = x[0:-2:2], x[1:-2:2], x[2::2], x[3::2]
    return 1 + total(
        100 * (b - a**2) ** 2
        + (1 - a) ** 2
        + 90 * (d - c**2) ** 2
        + (1 - c) ** 2
        + 10 * (b + d - 2) ** 2
        + 0.1 * (b - d) ** 2
    )


@_problem("COSINE", 1000, 1.0, lowest=-999.0)
def cosine(x: Array) -> Array:
    """Chain of cosines, each of which can be -1."""
    return total(namespace(x).cos(x[:-1] ** 2 - 0.5 * x[1:]))


@_problem("CRAGGLVY", 500, (1.0, *(2.0,) * 499), lowest=167.44912764273258, source="measured")
def cragg_levy(x: Array) -> Array:
    """Cragg and Levy's function, extended."""
    xp = namespace(x)
    a, b, c, d = x[0:-2:2], x[1:-2:2], x[2::2], x[3::2]
    return total(
        (xp.exp(a) - b) ** 4
        + 100 * (b - c) ** 6
        + (xp.tan(c - d) + c - d) ** 4
        + a**8
        + (d - 1) ** 2
    )


def _dixmaan(
    x: Array, *, weights: tuple[float, float, float, float], powers: tuple[int, int, int, int]
) -> Array:
    n = x.shape[0]
    m = n // 3
    i = np.arange(1.0, n + 1) / n
    a, b, c, d = (
        like(x, w * i[: n - k] ** p)
        for w, p, k in zip(weights, powers, (0, 1, m, 2 * m), strict=True)
    )
    square = x**2
    return (
        1
        + total(a * square)
        + total(b * square[:-1] * (x[1:] + square[1:]) ** 2)
        + total(c * square[:-m] * square[m:] ** 2)
        + total(d * x[: -2 * m] * x[2 * m :])
    )


#: The weights of Dixon and Maany's four sums, and the powers of i/n in them.
_DIXMAAN: dict[str, tuple[tuple[float, float, float, float], tuple[int, int, int, int]]] = {
    "A": ((1.0, 0.0, 0.125, 0.125), (0, 0, 0, 0)),
    "B": ((1.0, 0.0625, 0.0625, 0.0625), (0, 0, 0, 1)),
    "C": ((1.0, 0.125, 0.125, 0.125), (0, 0, 0, 0)),
    "D": ((1.0, 0.26, 0.26, 0.26), (0, 0, 0, 0)),
    "E": ((1.0, 0.0, 0.125, 0.125), (1, 0, 0, 1)),
    "F": ((1.0, 0.0625, 0.0625, 0.0625), (1, 0, 0, 1)),
    "G": ((1.0, 0.125, 0.125, 0.125), (1, 0, 0, 1)),
    "H": ((1.0, 0.26, 0.26, 0.26), (1, 0, 0, 1)),
    "I": ((1.0, 0.0, 0.125, 0.125), (2, 0, 0, 2)),
    "J": ((1.0, 0.0625, 0.0625, 0.0625), (2, 0, 0, 2)),
    "K": ((1.0, 0.125, 0.125, 0.125), (2, 0, 0, 2)),
    "L": ((1.0, 0.26, 0.26, 0.26), (2, 0, 0, 2)),
}

for _letter, (_weights, _powers) in _DIXMAAN.items():
    _problem(f"DIXMAAN{_letter}", 300, 2.0, lowest=1.0)(
        partial(_dixmaan, weights=_weights, powers=_powers)
    )


@_problem("Dixon-Price", 100, 1.0, lowest=0.0)
def dixon_price(x: Array) -> Array:
    """Dixon and Price 1989; another minimum lies at about 2/3."""
    i = counting(x[1:], 2)
    return (x[0] - 1) ** 2 + total(i * (2 * x[1:] ** 2 - x[:-1]) ** 2)


@_problem("DQRTIC", 500, 2.0, lowest=0.0)
def dqrtic(x: Array) -> Array:
    """Separable quartic: the Hessian vanishes at the minimum."""
    return total((x - counting(x)) ** 4)


@_problem("EDENSCH", 1000, 8.0, lowest=6003.284592020764, source="measured")
def edensch(x: Array) -> Array:
    """Dennis and Schnabel's function, extended."""
    a, b = x[:-1], x[1:]
    return 16 + total((a - 2) ** 4 + (a * b - 2 * b) ** 2 + (b + 1) ** 2)


@_problem("ENGVAL1", 1000, 2.0, lowest=1108.1947187850133, source="measured")
def engval1(x: Array) -> Array:
    """Quartics of neighbours."""
    a, b = x[:-1], x[1:]
    return total((a**2 + b**2) ** 2 - 4 * a + 3)


@_problem("FLETCHCR", 100, 0.0, lowest=0.0)
def fletchcr(x: Array) -> Array:
    """Fletcher's chained Rosenbrock: a long curved valley."""
    a, b = x[:-1], x[1:]
    return total(100 * (b - a + 1 - a**2) ** 2)


@_problem(
    "FREUROTH", 1000, (0.5, -2.0, *(0.0,) * 998), lowest=121469.71010945155, source="measured"
)
def freuroth(x: Array) -> Array:
    """Freudenstein and Roth's function, chained."""
    a, b = x[:-1], x[1:]
    return total((-13 + a + ((5 - b) * b - 2) * b) ** 2 + (-29 + a + ((b + 1) * b - 14) * b) ** 2)


@_problem("LIARWHD", 1000, 4.0, lowest=0.0)
def liarwhd(x: Array) -> Array:
    """NONDIA simplified: an arrow-head Hessian."""
    return total(4 * (x**2 - x[0]) ** 2 + (x - 1) ** 2)


@_problem("NONDIA", 1000, -1.0, lowest=0.0)
def nondia(x: Array) -> Array:
    """Shanno's non-diagonal function: Rosenbrock's, all coupled to the first variable."""
    return (x[0] - 1) ** 2 + total(100 * (x[0] - x[:-1] ** 2) ** 2)


@_problem("NONDQUAR", 100, (1.0, -1.0), lowest=0.0)
def nondquar(x: Array) -> Array:
    """Non-diagonal quartic: the Hessian is singular at the minimum."""
    quartic = total((x[:-2] + x[1:-1] + x[-1]) ** 4)
    return (x[0] - x[1]) ** 2 + (x[-2] + x[-1]) ** 2 + quartic


@_problem("POWER", 500, 1.0, lowest=0.0)
def power(x: Array) -> Array:
    """Diagonal quadratic of condition number n^2."""
    return total((counting(x) * x) ** 2)


@_problem("SCHMVETT", 1000, 0.5, lowest=-2994.0)
def schmvett(x: Array) -> Array:
    """Schmidt and Vetters' function, extended; least, -3 a term, where all x are pi / (pi + 1)."""
    xp = namespace(x)
    a, b, c = x[:-2], x[1:-1], x[2:]
    return -total(
        1 / (1 + (a - b) ** 2) + xp.sin((math.pi * b + c) / 2) + xp.exp(-(((a + c) / b - 2) ** 2))
    )


@_problem("SINQUAD", 100, 0.1, lowest=0.0)
def sinquad(x: Array) -> Array:
    """Gould's sine quadratic: a nonlinear, singular valley."""
    middle, last = x[1:-1], x[-1]
    r = namespace(x).sin(middle - last) - x[0] ** 2 + middle**2
    return (x[0] - 1) ** 4 + total(r**2) + (last**2 - x[0] ** 2) ** 2


@_problem("SROSENBR", 1000, (-1.2, 1.0), lowest=0.0)
def srosenbr(x: Array) -> Array:
    """Rosenbrock's function, in separate pairs."""
    a, b = x[0::2], x[1::2]
    return total(100 * (b - a**2) ** 2 + (1 - a) ** 2)


@_problem("TOINTGSS", 1000, 3.0, lowest=9.99, source="measured")
def tointgss(x: Array) -> Array:
    """Toint's Gaussian function."""
    a, b, c = x[:-2], x[1:-1], x[2:]
    bell = namespace(x).exp(-((a - b) ** 2) / (0.1 + c**2))
    return total((10 / x.shape[0] + c**2) * (2 - bell))


@_problem("TRIDIA", 500, 1.0, lowest=0.0)
def tridia(x: Array) -> Array:
    """Shanno's tridiagonal quadratic."""
    return (x[0] - 1) ** 2 + total(counting(x[1:], 2) * (2 * x[1:] - x[:-1]) ** 2)


@_problem("WOODS", 1000, (-3.0, -1.0, -3.0, -1.0), lowest=0.0)
def woods(x: Array) -> Array:
    """Wood's function, in separate quadruples."""
    a, b, c, d = (x[k::4] for k in range(4))
    return total(
        100 * (b - a**2) ** 2
        + (1 - a) ** 2
        + 90 * (d - c**2) ** 2
        + (1 - c) ** 2
        + 10 * (b + d - 2) ** 2
        + 0.1 * (b - d) ** 2
    )


def _logistic_data(samples: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Return badly scaled inputs and noisy signs from a fixed seed."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((samples, features)) * np.logspace(-1, 1, features)
    scores = X @ rng.standard_normal(features) / np.logspace(-1, 1, features).mean()
    return X, np.where(scores + rng.standard_normal(samples) > 0, 1.0, -1.0)


_LOGISTIC: Any = _logistic_data(400, 200)


@_problem("logistic regression", 200, 0.0, lowest=0.009430070086944443, source="measured")
def logistic_regression(x: Array) -> Array:
    """Mean log loss of 400 samples with a ridge of 1e-3 / 2."""
    xp = namespace(x)
    X, signs = _LOGISTIC
    margins = xp.matmul(like(x, signs[:, None] * X), x)
    return xp.mean(xp.logaddexp(0 * margins, -margins)) + 5e-4 * total(x**2)


@_problem("minimal surface", 900, 0.0, lowest=3.464338165468184, source="measured")
def minimal_surface(x: Array) -> Array:
    """Area of the surface over a square of 30 by 30 points that spans a bent wire."""
    xp = namespace(x)
    side = math.isqrt(x.shape[0])
    t = np.linspace(0.0, 1.0, side + 2)
    wire = 2 * np.outer(np.sin(math.pi * t), np.ones(side + 2)) + np.outer(np.ones(side + 2), t**2)
    inner = xp.reshape(x, (side, side))
    rows = xp.concat([like(x, wire[1:-1, :1]), inner, like(x, wire[1:-1, -1:])], axis=1)
    u = xp.concat([like(x, wire[:1, :]), rows, like(x, wire[-1:, :])], axis=0)
    scale = float(side + 1)
    down, across = u[1:, 1:] - u[:-1, :-1], u[1:, :-1] - u[:-1, 1:]
    return total(xp.sqrt(1 + scale**2 * (down**2 + across**2) / 2)) / scale**2
