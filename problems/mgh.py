"""The 35 test functions of More, Garbow and Hillstrom, as residuals.

Each function is written once as r(x), of shape (m,), with the array API of x. What is minimised
is the paper's **sum of squares, f(x) = r_1(x)^2 + ... + r_m(x)^2, with no factor 1/2**; its
gradient is 2 J'r.

    >>> from osculant.problems import mgh
    >>> watson = mgh.problem(20, n=6)
    >>> watson.name, watson.m, watson.lowest
    ('Watson', 31, 0.002287670053552429)

The numbers, the starts and the minima are the paper's. A minimum that the paper gives to six
figures stands here to all the figures of a double, found by least squares from the published
one; what the paper does not give has ``source="computed"``.

References
----------
J. J. More, B. S. Garbow and K. E. Hillstrom, "Testing unconstrained optimization software", ACM
Transactions on Mathematical Software 7 (1981) 17-41. Function 11 follows the corrected form,
|y_i - x_2| for the misprinted |y_i m i x_2|.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core.arrays import Array, like, namespace
from .functions import sum_of_squares

#: Factors of the paper's three starts.
FACTORS = (1, 10, 100)

#: The paper's three lists, by number: systems of equations, least squares, minimisation.
EQUATIONS = (1, 13, 3, 14, 7, 20, 35, 27, 28, 29, 26, 25, 30, 31)
LEAST_SQUARES = (32, 33, 34, 1, 7, 13, 2, 8, 15, 10, 20, 12, 6, 16, 35, 27, 17, 19)
UNCONSTRAINED = (7, 18, 9, 3, 12, 25, 20, 23, 24, 4, 16, 11, 26, 21, 22, 5, 14, 35)


@dataclass(frozen=True)
class Minimum:
    """A known minimum of a test function; it may be a local one, or an infimum.

    Attributes
    ----------
    value : float
        The function there.
    x : tuple of float, optional
        Where, if it is known in closed form or to all figures; one of them if it is not unique.
    source : str
        "paper", or "computed" where the paper does not give it.
    """

    value: float
    x: tuple[float, ...] | None = None
    source: str = "paper"


@dataclass(frozen=True)
class TestFunction:
    """One test function of one size.

    Attributes
    ----------
    number : int
        The paper's, 1 to 35.
    name : str
        The paper's.
    n, m : int
        Numbers of variables and of residuals.
    residual : callable
        Maps x of shape (n,) to r of shape (m,), in the namespace, dtype and device of x.
    start : tuple of float
        The standard start.
    minima : tuple of Minimum
        What is known, lowest first; empty where nothing is known of this n.
    """

    __test__: ClassVar[bool] = False  # not a test case, though its name says so to pytest

    number: int
    name: str
    n: int
    m: int
    residual: Callable[[Array], Array]
    start: tuple[float, ...]
    minima: tuple[Minimum, ...]

    def fun(self, x: Array) -> Array:
        """Return the sum of squares of the residuals at x, as a 0-d array."""
        return sum_of_squares(self.residual(x))

    @property
    def lowest(self) -> float | None:
        """The lowest known value of ``fun``, or None."""
        return self.minima[0].value if self.minima else None

    def starts(self) -> dict[int, np.ndarray]:
        """Return the starts by factor: the standard one, 10 and 100 times it, in float64.

        A standard start of zeros (Watson's) is filled with the factor instead, as in the paper's
        own programs (ACM Algorithm 566).
        """
        x0 = np.asarray(self.start)
        direction = x0 if x0.any() else np.ones_like(x0)
        return {factor: x0 if factor == 1 else factor * direction for factor in FACTORS}


# The register ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sizes:
    """The numbers of variables that a function can have."""

    default: int
    least: int = 1
    most: int | None = None
    step: int = 1

    def check(self, name: str, n: int) -> None:
        if n < self.least or (self.most is not None and n > self.most) or n % self.step:
            most = "" if self.most is None else f", at most {self.most}"
            step = "" if self.step == 1 else f", a multiple of {self.step}"
            raise ValueError(f"{name} has no size n = {n}; n is at least {self.least}{most}{step}")


_REGISTER: dict[int, Callable[[int | None], TestFunction]] = {}

_Residual = Callable[[Array], Array]


def _function(
    number: int,
    name: str,
    *,
    n: int | _Sizes,
    m: int | Callable[[int], int],
    start: Sequence[float] | Callable[[int], Any],
    minima: Sequence[Minimum] | Callable[[int], Sequence[Minimum]],
) -> Callable[[_Residual], _Residual]:
    """Register a residual function; what depends on n is given as a function of it."""
    sizes = n if isinstance(n, _Sizes) else _Sizes(n, least=n, most=n)

    def register(residual: _Residual) -> _Residual:
        def of_size(n: int | None) -> TestFunction:
            n = sizes.default if n is None else n
            sizes.check(name, n)
            known = minima(n) if callable(minima) else minima
            return TestFunction(
                number=number,
                name=name,
                n=n,
                m=m(n) if callable(m) else m,
                residual=residual,
                start=tuple(float(x) for x in (start(n) if callable(start) else start)),
                minima=tuple(sorted(known, key=lambda minimum: minimum.value)),
            )

        _REGISTER[number] = of_size
        return residual

    return register


def problem(number: int, n: int | None = None) -> TestFunction:
    """Return function ``number`` of the paper with n variables (by default a customary n).

    Raises
    ------
    ValueError
        If there is no such function, or it has no such size.
    """
    if number not in _REGISTER:
        raise ValueError(f"there is no function {number}; the paper's are numbered 1 to 35")
    return _REGISTER[number](n)


def problems() -> list[TestFunction]:
    """Return all 35 functions, each of its customary size."""
    return [problem(number) for number in sorted(_REGISTER)]


#: Sizes at which the 18 functions of the list UNCONSTRAINED are run where they have a choice:
#: those for which the paper gives minima, and small and moderate ones where the minimum is 0.
#: Chebyquad with n = 10 is left out: its lowest known value is below the paper's.
BENCHMARK_SIZES = {
    20: (6, 9, 12),
    21: (10, 100),
    22: (12, 100),
    23: (4, 10),
    24: (4, 10),
    25: (10,),
    26: (10,),
    35: (8, 9),
}


def benchmark() -> list[TestFunction]:
    """Return the 25 functions that, each from three starts, are the benchmark's 75 instances."""
    return [
        problem(number, n) for number in UNCONSTRAINED for n in BENCHMARK_SIZES.get(number, (None,))
    ]


# Helpers -----------------------------------------------------------------------------------


def _entries(x: Array) -> list[Array]:
    return [x[i] for i in range(x.shape[0])]


def _stack(*entries: Array) -> Array:
    return namespace(*entries).stack(entries)


def _append(r: Array, *entries: Array) -> Array:
    return namespace(r).concat([r, _stack(*entries)])


def _pad(x: Array, before: int, after: int) -> Array:
    """Return x between zeros."""
    return namespace(x).concat([like(x, [0.0] * before), x, like(x, [0.0] * after)])


def _indices(x: Array) -> Array:
    """Return (1, ..., n)."""
    return like(x, np.arange(1.0, x.shape[0] + 1))


def _zero_at(*x: float) -> list[Minimum]:
    return [Minimum(0.0, x)]


# The functions -----------------------------------------------------------------------------


@_function(1, "Rosenbrock", n=2, m=2, start=(-1.2, 1), minima=_zero_at(1, 1))
def rosenbrock(x: Array) -> Array:
    """Rosenbrock 1960."""
    x1, x2 = _entries(x)
    return _stack(10 * (x2 - x1**2), 1 - x1)


@_function(
    2,
    "Freudenstein and Roth",
    n=2,
    m=2,
    start=(0.5, -2),
    minima=[
        Minimum(0.0, (5, 4)),
        Minimum(48.98425367924002, ((53 - 4 * math.sqrt(22)) / 3, (2 - math.sqrt(22)) / 3)),
    ],
)
def freudenstein_roth(x: Array) -> Array:
    """Freudenstein and Roth 1963."""
    x1, x2 = _entries(x)
    return _stack(
        -13 + x1 + ((5 - x2) * x2 - 2) * x2,
        -29 + x1 + ((x2 + 1) * x2 - 14) * x2,
    )


@_function(
    3,
    "Powell badly scaled",
    n=2,
    m=2,
    start=(0, 1),
    minima=_zero_at(1.098159329699817e-5, 9.106146739866524),
)
def powell_badly_scaled(x: Array) -> Array:
    """Powell 1970."""
    xp = namespace(x)
    x1, x2 = _entries(x)
    return _stack(1e4 * x1 * x2 - 1, xp.exp(-x1) + xp.exp(-x2) - 1.0001)


@_function(4, "Brown badly scaled", n=2, m=3, start=(1, 1), minima=_zero_at(1e6, 2e-6))
def brown_badly_scaled(x: Array) -> Array:
    """Brown, unpublished."""
    x1, x2 = _entries(x)
    return _stack(x1 - 1e6, x2 - 2e-6, x1 * x2 - 2)


@_function(5, "Beale", n=2, m=3, start=(1, 1), minima=_zero_at(3, 0.5))
def beale(x: Array) -> Array:
    """Beale 1958."""
    x1, x2 = _entries(x)
    return _stack(
        1.5 - x1 * (1 - x2),
        2.25 - x1 * (1 - x2**2),
        2.625 - x1 * (1 - x2**3),
    )


@_function(
    6, "Jennrich and Sampson", n=2, m=10, start=(0.3, 0.4), minima=[Minimum(124.36218235561485)]
)
def jennrich_sampson(x: Array) -> Array:
    """Jennrich and Sampson 1968; least at about (0.2578, 0.2578)."""
    xp = namespace(x)
    i = like(x, np.arange(1.0, 11))
    return 2 + 2 * i - (xp.exp(i * x[0]) + xp.exp(i * x[1]))


@_function(7, "Helical valley", n=3, m=3, start=(-1, 0, 0), minima=_zero_at(1, 0, 0))
def helical_valley(x: Array) -> Array:
    """Fletcher and Powell 1963.

    The angle theta, in turns from the x1 axis, runs from -1/4 to 3/4 and is cut along
    x1 = 0, x2 < 0: it is measured from the x2 axis.
    """
    xp = namespace(x)
    x1, x2, x3 = _entries(x)
    radius = xp.hypot(x1, x2)
    theta = 0.25 + xp.atan2(-x1, x2) / (2 * math.pi)
    return _stack(10 * (x3 - 10 * theta), 10 * (radius - 1), x3)


_BARD = (0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39)


@_function(
    8,
    "Bard",
    n=3,
    m=15,
    start=(1, 1, 1),
    minima=[Minimum(8.21487730657898e-3), Minimum(17.42869333333333)],
)
def bard(x: Array) -> Array:
    """Bard 1970. The higher minimum is an infimum, at (0.8406..., -inf, -inf)."""
    x1, x2, x3 = _entries(x)
    u = np.arange(1.0, 16)
    v = 16 - u
    return like(x, _BARD) - (x1 + like(x, u) / (like(x, v) * x2 + like(x, np.minimum(u, v)) * x3))


_GAUSSIAN = (0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989)


@_function(9, "Gaussian", n=3, m=15, start=(0.4, 1, 0), minima=[Minimum(1.127932769619011e-8)])
def gaussian(x: Array) -> Array:
    """Unpublished."""
    xp = namespace(x)
    x1, x2, x3 = _entries(x)
    t = like(x, (8 - np.arange(1.0, 16)) / 2)
    return x1 * xp.exp(-x2 * (t - x3) ** 2 / 2) - like(x, _GAUSSIAN + _GAUSSIAN[-2::-1])


_MEYER = (
    *(34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744),
    *(8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872),
)


@_function(10, "Meyer", n=3, m=16, start=(0.02, 4000, 250), minima=[Minimum(87.94585517085123)])
def meyer(x: Array) -> Array:
    """Meyer 1970."""
    xp = namespace(x)
    x1, x2, x3 = _entries(x)
    t = like(x, 45 + 5 * np.arange(1.0, 17))
    return x1 * xp.exp(x2 / (t + x3)) - like(x, _MEYER)


@_function(
    11,
    "Gulf research and development",
    n=3,
    m=99,
    start=(5, 2.5, 0.15),
    minima=_zero_at(50, 25, 1.5),
)
def gulf(x: Array) -> Array:
    """Cox 1969.

    With m = 99, of the paper's 3 <= m <= 100: at m = 100 the last residual has no second
    derivative at the minimum. The power is written so that it is analytic on either side of y.
    """
    xp = namespace(x)
    x1, x2, x3 = _entries(x)
    i = np.arange(1.0, 100)
    y = like(x, 25 + (-50 * np.log(i / 100)) ** (2 / 3))
    power = xp.exp(x3 * xp.log((y - x2) ** 2) / 2)
    return xp.exp(-power / x1) - like(x, i / 100)


@_function(
    12,
    "Box three-dimensional",
    n=3,
    m=10,
    start=(0, 10, 20),
    minima=[Minimum(0.0, (1, 10, 1)), Minimum(0.0, (10, 1, -1)), Minimum(0.0, (1, 1, 0))],
)
def box(x: Array) -> Array:
    """Box 1966. Also zero wherever x1 = x2 and x3 = 0."""
    xp = namespace(x)
    x1, x2, x3 = _entries(x)
    t = np.arange(1.0, 11) / 10
    weights = like(x, np.exp(-t) - np.exp(-10 * t))
    return xp.exp(-like(x, t) * x1) - xp.exp(-like(x, t) * x2) - x3 * weights


@_function(13, "Powell singular", n=4, m=4, start=(3, -1, 0, 1), minima=_zero_at(0, 0, 0, 0))
def powell_singular(x: Array) -> Array:
    """Powell 1962; the Hessian is singular at the minimum."""
    x1, x2, x3, x4 = _entries(x)
    return _stack(
        x1 + 10 * x2,
        math.sqrt(5) * (x3 - x4),
        (x2 - 2 * x3) ** 2,
        math.sqrt(10) * (x1 - x4) ** 2,
    )


@_function(14, "Wood", n=4, m=6, start=(-3, -1, -3, -1), minima=_zero_at(1, 1, 1, 1))
def wood(x: Array) -> Array:
    """Colville 1968."""
    x1, x2, x3, x4 = _entries(x)
    return _stack(
        10 * (x2 - x1**2),
        1 - x1,
        math.sqrt(90) * (x4 - x3**2),
        1 - x3,
        math.sqrt(10) * (x2 + x4 - 2),
        (x2 - x4) / math.sqrt(10),
    )


_KOWALIK_Y = (
    *(0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627),
    *(0.0456, 0.0342, 0.0323, 0.0235, 0.0246),
)
_KOWALIK_U = (4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625)


@_function(
    15,
    "Kowalik and Osborne",
    n=4,
    m=11,
    start=(0.25, 0.39, 0.415, 0.39),
    minima=[Minimum(3.075056038492378e-4), Minimum(1.02734304869546e-3)],
)
def kowalik_osborne(x: Array) -> Array:
    """Kowalik and Osborne 1968. The higher minimum is an infimum, (inf, -14.07..., -inf, -inf)."""
    x1, x2, x3, x4 = _entries(x)
    u = like(x, _KOWALIK_U)
    return like(x, _KOWALIK_Y) - x1 * (u**2 + u * x2) / (u**2 + u * x3 + x4)


@_function(
    16, "Brown and Dennis", n=4, m=20, start=(25, 5, -5, -1), minima=[Minimum(85822.20162635631)]
)
def brown_dennis(x: Array) -> Array:
    """Brown and Dennis 1971."""
    x1, x2, x3, x4 = _entries(x)
    t = np.arange(1.0, 21) / 5
    return (x1 + like(x, t) * x2 - like(x, np.exp(t))) ** 2 + (
        x3 + like(x, np.sin(t)) * x4 - like(x, np.cos(t))
    ) ** 2


_OSBORNE_1 = (
    *(0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751),
    *(0.718, 0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490),
    *(0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406),
)


@_function(
    17,
    "Osborne 1",
    n=5,
    m=33,
    start=(0.5, 1.5, -1, 0.01, 0.02),
    minima=[Minimum(5.464894697482912e-5)],
)
def osborne_1(x: Array) -> Array:
    """Osborne 1972."""
    xp = namespace(x)
    x1, x2, x3, x4, x5 = _entries(x)
    t = like(x, 10 * np.arange(33.0))
    return like(x, _OSBORNE_1) - (x1 + x2 * xp.exp(-t * x4) + x3 * xp.exp(-t * x5))


@_function(
    18,
    "Biggs EXP6",
    n=6,
    m=13,
    start=(1, 2, 1, 1, 1, 1),
    minima=[Minimum(0.0, (1, 10, 1, 5, 4, 3)), Minimum(5.655649925499949e-3)],
)
def biggs_exp6(x: Array) -> Array:
    """Biggs 1971."""
    xp = namespace(x)
    x1, x2, x3, x4, x5, x6 = _entries(x)
    t = np.arange(1.0, 14) / 10
    y = like(x, np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t))
    t = like(x, t)
    return x3 * xp.exp(-t * x1) - x4 * xp.exp(-t * x2) + x6 * xp.exp(-t * x5) - y


_OSBORNE_2 = (
    *(1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608),
    *(0.655, 0.616, 0.606, 0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661),
    *(0.612, 0.558, 0.533, 0.495, 0.500, 0.423, 0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428),
    *(0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668, 0.645, 0.632, 0.591, 0.559),
    *(0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098, 0.054),
)


@_function(
    19,
    "Osborne 2",
    n=11,
    m=65,
    start=(1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5),
    minima=[Minimum(4.013773629354776e-2)],
)
def osborne_2(x: Array) -> Array:
    """Osborne 1972: an exponential and three bells."""
    xp = namespace(x)
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11 = _entries(x)
    t = like(x, np.arange(65.0) / 10)
    return like(x, _OSBORNE_2) - (
        x1 * xp.exp(-t * x5)
        + x2 * xp.exp(-((t - x9) ** 2) * x6)
        + x3 * xp.exp(-((t - x10) ** 2) * x7)
        + x4 * xp.exp(-((t - x11) ** 2) * x8)
    )


_WATSON = {6: 2.287670053552429e-3, 9: 1.399760138098724e-6, 12: 4.72238110729374e-10}


@_function(
    20,
    "Watson",
    n=_Sizes(6, least=2, most=31),
    m=31,
    start=np.zeros,
    minima=lambda n: [Minimum(_WATSON[n])] if n in _WATSON else [],
)
def watson(x: Array) -> Array:
    """Kowalik and Osborne 1968: y' = y^2 + 1, by a polynomial with the coefficients x."""
    xp = namespace(x)
    degree = np.arange(x.shape[0])
    t = np.arange(1.0, 30)[:, None] / 29
    slopes = degree * t ** np.maximum(degree - 1, 0)
    r = xp.matmul(like(x, slopes), x) - xp.matmul(like(x, t**degree), x) ** 2 - 1
    return _append(r, x[0], x[1] - x[0] ** 2 - 1)


@_function(
    21,
    "Extended Rosenbrock",
    n=_Sizes(10, least=2, step=2),
    m=lambda n: n,
    start=lambda n: (-1.2, 1) * (n // 2),
    minima=lambda n: _zero_at(*(1,) * n),
)
def extended_rosenbrock(x: Array) -> Array:
    """Spedicato 1975: n/2 copies of Rosenbrock's."""
    odd, even = x[0::2], x[1::2]
    return namespace(x).concat([10 * (even - odd**2), 1 - odd])


@_function(
    22,
    "Extended Powell singular",
    n=_Sizes(12, least=4, step=4),
    m=lambda n: n,
    start=lambda n: (3, -1, 0, 1) * (n // 4),
    minima=lambda n: _zero_at(*(0,) * n),
)
def extended_powell_singular(x: Array) -> Array:
    """Spedicato 1975: n/4 copies of Powell's singular function."""
    x1, x2, x3, x4 = (x[i::4] for i in range(4))
    return namespace(x).concat(
        [
            x1 + 10 * x2,
            math.sqrt(5) * (x3 - x4),
            (x2 - 2 * x3) ** 2,
            math.sqrt(10) * (x1 - x4) ** 2,
        ]
    )


_PENALTY_1 = {4: 2.249977500899937e-5, 10: 7.08765146709037e-5}


@_function(
    23,
    "Penalty I",
    n=_Sizes(10),
    m=lambda n: n + 1,
    start=lambda n: range(1, n + 1),
    minima=lambda n: [Minimum(_PENALTY_1[n])] if n in _PENALTY_1 else [],
)
def penalty_1(x: Array) -> Array:
    """Gill, Murray and Pitfield 1972."""
    return _append(math.sqrt(1e-5) * (x - 1), sum_of_squares(x) - 0.25)


_PENALTY_2 = {4: 9.37629300735545e-6, 10: 2.936605374567459e-4}


@_function(
    24,
    "Penalty II",
    n=_Sizes(10),
    m=lambda n: 2 * n,
    start=lambda n: (0.5,) * n,
    minima=lambda n: [Minimum(_PENALTY_2[n])] if n in _PENALTY_2 else [],
)
def penalty_2(x: Array) -> Array:
    """Gill, Murray and Pitfield 1972."""
    xp = namespace(x)
    n = x.shape[0]
    e = np.exp(np.arange(1.0, n + 1) / 10)
    E = xp.exp(x / 10)
    r = xp.concat([E[1:] + E[:-1] - like(x, e[1:] + e[:-1]), E[1:] - math.exp(-0.1)])
    weights = like(x, np.arange(n, 0.0, -1))
    return _append(math.sqrt(1e-5) * r, x[0] - 0.2, xp.sum(weights * x**2) - 1)


@_function(
    25,
    "Variably dimensioned",
    n=_Sizes(10),
    m=lambda n: n + 2,
    start=lambda n: 1 - np.arange(1, n + 1) / n,
    minima=lambda n: _zero_at(*(1,) * n),
)
def variably_dimensioned(x: Array) -> Array:
    """Unpublished."""
    s = namespace(x).sum(_indices(x) * (x - 1))
    return _append(x - 1, s, s**2)


@_function(
    26,
    "Trigonometric",
    n=_Sizes(10),
    m=lambda n: n,
    start=lambda n: (1 / n,) * n,
    minima=lambda n: (
        [Minimum(0.0)] + ([Minimum(2.795056121879456e-5, source="computed")] if n == 10 else [])
    ),
)
def trigonometric(x: Array) -> Array:
    """Spedicato 1975."""
    xp = namespace(x)
    cosines = xp.cos(x)
    return x.shape[0] - xp.sum(cosines) + _indices(x) * (1 - cosines) - xp.sin(x)


@_function(
    27,
    "Brown almost-linear",
    n=_Sizes(10),
    m=lambda n: n,
    start=lambda n: (0.5,) * n,
    minima=lambda n: [Minimum(0.0, (1.0,) * n), Minimum(1.0, (0.0,) * (n - 1) + (n + 1.0,))],
)
def brown_almost_linear(x: Array) -> Array:
    """Brown 1969.

    Also zero at (a, ..., a, a^(1-n)) for the other roots a of n a^n - (n+1) a^(n-1) + 1.
    """
    xp = namespace(x)
    return _append(x[:-1] + xp.sum(x) - (x.shape[0] + 1), xp.prod(x) - 1)


def _mesh(n: int) -> np.ndarray:
    """Return the n inner points of a uniform mesh of the unit interval."""
    return np.arange(1.0, n + 1) / (n + 1)


@_function(
    28,
    "Discrete boundary value",
    n=_Sizes(10),
    m=lambda n: n,
    start=lambda n: _mesh(n) * (_mesh(n) - 1),
    minima=[Minimum(0.0)],
)
def discrete_boundary_value(x: Array) -> Array:
    """More and Cosnard 1979: u'' = (u + t + 1)^3 / 2, by differences."""
    n = x.shape[0]
    padded = _pad(x, 1, 1)
    cubes = (x + like(x, _mesh(n) + 1)) ** 3
    return 2 * x - padded[:-2] - padded[2:] + cubes / (2 * (n + 1) ** 2)


@_function(
    29,
    "Discrete integral equation",
    n=_Sizes(10),
    m=lambda n: n,
    start=lambda n: _mesh(n) * (_mesh(n) - 1),
    minima=[Minimum(0.0)],
)
def discrete_integral_equation(x: Array) -> Array:
    """More and Cosnard 1979: the boundary value problem by its Green's function."""
    n = x.shape[0]
    t = _mesh(n)
    green = np.minimum.outer(t, t) * (1 - np.maximum.outer(t, t))
    cubes = (x + like(x, t + 1)) ** 3
    return x + namespace(x).matmul(like(x, green / (2 * (n + 1))), cubes)


@_function(
    30,
    "Broyden tridiagonal",
    n=_Sizes(10),
    m=lambda n: n,
    start=lambda n: (-1,) * n,
    minima=[Minimum(0.0)],
)
def broyden_tridiagonal(x: Array) -> Array:
    """Broyden 1965."""
    padded = _pad(x, 1, 1)
    return (3 - 2 * x) * x - padded[:-2] - 2 * padded[2:] + 1


@_function(
    31,
    "Broyden banded",
    n=_Sizes(10),
    m=lambda n: n,
    start=lambda n: (-1,) * n,
    minima=[Minimum(0.0)],
)
def broyden_banded(x: Array) -> Array:
    """Broyden 1971; five neighbours below and one above."""
    n, below, above = x.shape[0], 5, 1
    padded = _pad(x * (1 + x), below, above)
    neighbours = [padded[k : k + n] for k in range(below + above + 1) if k != below]
    return x * (2 + 5 * x**2) + 1 - sum(neighbours[1:], start=neighbours[0])


@_function(
    32,
    "Linear, full rank",
    n=_Sizes(5),
    m=lambda n: 2 * n,
    start=lambda n: (1,) * n,
    minima=lambda n: [Minimum(float(n), (-1.0,) * n)],
)
def linear_full_rank(x: Array) -> Array:
    """With m = 2n, of the paper's m >= n."""
    xp = namespace(x)
    n = x.shape[0]
    total = xp.sum(x) / n + 1
    return xp.concat([x - total, like(x, [-1.0] * n) * total])


@_function(
    33,
    "Linear, rank 1",
    n=_Sizes(5),
    m=lambda n: 2 * n,
    start=lambda n: (1,) * n,
    minima=lambda n: [
        Minimum(n * (2 * n - 1) / (4 * n + 1), (3 / (4 * n + 1),) + (0.0,) * (n - 1))
    ],
)
def linear_rank_1(x: Array) -> Array:
    """With m = 2n; least, m(m-1) / (2(2m+1)), wherever sum_j j x_j = 3/(2m+1)."""
    rows = like(x, np.arange(1.0, 2 * x.shape[0] + 1))
    return rows * namespace(x).sum(_indices(x) * x) - 1


@_function(
    34,
    "Linear, rank 1 with zero columns and rows",
    n=_Sizes(5, least=3),
    m=lambda n: 2 * n,
    start=lambda n: (1,) * n,
    minima=lambda n: [
        Minimum(
            (4 * n**2 + 6 * n - 6) / (8 * n - 6),
            (0.0, 3 / (8 * n - 6)) + (0.0,) * (n - 2),
        )
    ],
)
def linear_rank_1_with_zeros(x: Array) -> Array:
    """With m = 2n; least, (m^2+3m-6) / (2(2m-3)), wherever sum_{1<j<n} j x_j = 3/(2m-3)."""
    n = x.shape[0]
    rows = np.arange(2.0 * n)
    rows[-1] = 0
    return like(x, rows) * namespace(x).sum(_indices(x)[1:-1] * x[1:-1]) - 1


def _chebyquad_minima(n: int) -> list[Minimum]:
    if n in (1, 2, 3, 4, 5, 6, 7, 9):
        return [Minimum(0.0)]
    if n == 8:
        return [Minimum(3.51687372567793e-3)]
    if n == 10:
        return [Minimum(6.503954800882308e-3), Minimum(4.77271369637535e-3, source="computed")]
    return []


@_function(
    35,
    "Chebyquad",
    n=_Sizes(8),
    m=lambda n: n,
    start=_mesh,
    minima=_chebyquad_minima,
)
def chebyquad(x: Array) -> Array:
    """Fletcher 1965: equal-weight quadrature on [0, 1], exact for the Chebyshev polynomials.

    With m = n, of the paper's m >= n.
    """
    n = x.shape[0]
    mean = namespace(x).mean
    previous, current = x * 0 + 1, 2 * x - 1
    errors = []
    for i in range(1, n + 1):
        integral = -1 / (i**2 - 1) if i % 2 == 0 else 0
        errors.append(mean(current) - integral)
        previous, current = current, 2 * (2 * x - 1) * current - previous
    return _stack(*errors)
