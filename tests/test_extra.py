"""The larger smooth test functions: formulas, minima, and what was measured."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

import osculant
from osculant.problems import extra

# As reported for these functions at n = 1000, to the figures given.
CUTE_MINIMA = {"BDQRTIC": 3983.818, "ENGVAL1": 1108.2, "FREUROTH": 1.2147e5}
EXTRA = {p.name: p for p in extra.problems()}


def test_there_are_enough_of_them():
    assert len(EXTRA) == len(extra.problems()) >= 15
    assert all(100 <= p.n <= 1000 for p in EXTRA.values())


@pytest.mark.parametrize("name", CUTE_MINIMA)
def test_larger_minima_are_the_published_ones(name):
    assert EXTRA[name].lowest == pytest.approx(CUTE_MINIMA[name], rel=1e-5)


# The functions term by term, as the collections print them, with indices from 1.
def sum_over(term, first, last, step=1):
    return sum(term(i) for i in range(first, last + 1, step))


def wood(a, b, c, d):
    valleys = 100 * (b - a**2) ** 2 + (1 - a) ** 2 + 90 * (d - c**2) ** 2 + (1 - c) ** 2
    return valleys + 10 * (b + d - 2) ** 2 + 0.1 * (b - d) ** 2


def schmidt_vetters(a, b, c):
    bell = math.exp(-(((a + c) / b - 2) ** 2))
    return -1 / (1 + (a - b) ** 2) - math.sin((math.pi * b + c) / 2) - bell


def dixmaan(alpha, beta, gamma, delta, k1, k2, k3, k4):
    def fun(x, n):
        m = n // 3
        return (
            1
            + sum_over(lambda i: alpha * x[i] ** 2 * (i / n) ** k1, 1, n)
            + sum_over(
                lambda i: beta * x[i] ** 2 * (x[i + 1] + x[i + 1] ** 2) ** 2 * (i / n) ** k2,
                1,
                n - 1,
            )
            + sum_over(lambda i: gamma * x[i] ** 2 * x[i + m] ** 4 * (i / n) ** k3, 1, 2 * m)
            + sum_over(lambda i: delta * x[i] * x[i + 2 * m] * (i / n) ** k4, 1, m)
        )

    return fun


TERMS = {
    "ARWHEAD": lambda x, n: sum_over(
        lambda i: (x[i] ** 2 + x[n] ** 2) ** 2 - 4 * x[i] + 3, 1, n - 1
    ),
    "BDQRTIC": lambda x, n: sum_over(
        lambda i: (
            (3 - 4 * x[i]) ** 2
            + (sum((k + 1) * x[i + k] ** 2 for k in range(4)) + 5 * x[n] ** 2) ** 2
        ),
        1,
        n - 4,
    ),
    "BROYDN3D, squared": lambda x, n: sum_over(
        lambda i: (
            (
                (3 - 2 * x[i]) * x[i]
                - (x[i - 1] if i > 1 else 0)
                - (2 * x[i + 1] if i < n else 0)
                + 1
            )
            ** 2
        ),
        1,
        n,
    ),
    "CHAINWOO": lambda x, n: 1 + sum_over(lambda i: wood(*x[i : i + 4]), 1, n - 3, 2),
    "COSINE": lambda x, n: sum_over(lambda i: math.cos(-0.5 * x[i + 1] + x[i] ** 2), 1, n - 1),
    "CRAGGLVY": lambda x, n: sum_over(
        lambda i: (
            (math.exp(x[i]) - x[i + 1]) ** 4
            + 100 * (x[i + 1] - x[i + 2]) ** 6
            + (math.tan(x[i + 2] - x[i + 3]) + x[i + 2] - x[i + 3]) ** 4
            + x[i] ** 8
            + (x[i + 3] - 1) ** 2
        ),
        1,
        n - 3,
        2,
    ),
    "DIXMAANA": dixmaan(1, 0, 0.125, 0.125, 0, 0, 0, 0),
    "DIXMAANB": dixmaan(1, 0.0625, 0.0625, 0.0625, 0, 0, 0, 1),
    "DIXMAANC": dixmaan(1, 0.125, 0.125, 0.125, 0, 0, 0, 0),
    "DIXMAAND": dixmaan(1, 0.26, 0.26, 0.26, 0, 0, 0, 0),
    "DIXMAANE": dixmaan(1, 0, 0.125, 0.125, 1, 0, 0, 1),
    "DIXMAANF": dixmaan(1, 0.0625, 0.0625, 0.0625, 1, 0, 0, 1),
    "DIXMAANG": dixmaan(1, 0.125, 0.125, 0.125, 1, 0, 0, 1),
    "DIXMAANH": dixmaan(1, 0.26, 0.26, 0.26, 1, 0, 0, 1),
    "DIXMAANI": dixmaan(1, 0, 0.125, 0.125, 2, 0, 0, 2),
    "DIXMAANJ": dixmaan(1, 0.0625, 0.0625, 0.0625, 2, 0, 0, 2),
    "DIXMAANK": dixmaan(1, 0.125, 0.125, 0.125, 2, 0, 0, 2),
    "DIXMAANL": dixmaan(1, 0.26, 0.26, 0.26, 2, 0, 0, 2),
    "Dixon-Price": lambda x, n: (
        (x[1] - 1) ** 2 + sum_over(lambda i: i * (2 * x[i] ** 2 - x[i - 1]) ** 2, 2, n)
    ),
    "DQRTIC": lambda x, n: sum_over(lambda i: (x[i] - i) ** 4, 1, n),
    "EDENSCH": lambda x, n: (
        16
        + sum_over(
            lambda i: (x[i] - 2) ** 4 + (x[i] * x[i + 1] - 2 * x[i + 1]) ** 2 + (x[i + 1] + 1) ** 2,
            1,
            n - 1,
        )
    ),
    "ENGVAL1": lambda x, n: sum_over(
        lambda i: (x[i] ** 2 + x[i + 1] ** 2) ** 2 - 4 * x[i] + 3, 1, n - 1
    ),
    "FLETCHCR": lambda x, n: sum_over(
        lambda i: 100 * (x[i + 1] - x[i] + 1 - x[i] ** 2) ** 2, 1, n - 1
    ),
    "FREUROTH": lambda x, n: sum_over(
        lambda i: (
            (-13 + x[i] + ((5 - x[i + 1]) * x[i + 1] - 2) * x[i + 1]) ** 2
            + (-29 + x[i] + ((x[i + 1] + 1) * x[i + 1] - 14) * x[i + 1]) ** 2
        ),
        1,
        n - 1,
    ),
    "LIARWHD": lambda x, n: sum_over(lambda i: 4 * (x[i] ** 2 - x[1]) ** 2 + (x[i] - 1) ** 2, 1, n),
    "NONDIA": lambda x, n: (
        (x[1] - 1) ** 2 + sum_over(lambda i: 100 * (x[1] - x[i - 1] ** 2) ** 2, 2, n)
    ),
    "NONDQUAR": lambda x, n: (
        (x[1] - x[2]) ** 2
        + (x[n - 1] + x[n]) ** 2
        + sum_over(lambda i: (x[i] + x[i + 1] + x[n]) ** 4, 1, n - 2)
    ),
    "POWER": lambda x, n: sum_over(lambda i: (i * x[i]) ** 2, 1, n),
    "SCHMVETT": lambda x, n: sum_over(lambda i: schmidt_vetters(*x[i : i + 3]), 1, n - 2),
    "SINQUAD": lambda x, n: (
        (x[1] - 1) ** 4
        + sum_over(
            lambda i: (math.sin(x[i] - x[n]) - x[1] ** 2 + x[i] ** 2) ** 2,
            2,
            n - 1,
        )
        + (x[n] ** 2 - x[1] ** 2) ** 2
    ),
    "SROSENBR": lambda x, n: sum_over(
        lambda i: 100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2, 1, n - 1, 2
    ),
    "TOINTGSS": lambda x, n: sum_over(
        lambda i: (
            (10 / n + x[i + 2] ** 2)
            * (2 - math.exp(-((x[i] - x[i + 1]) ** 2) / (0.1 + x[i + 2] ** 2)))
        ),
        1,
        n - 2,
    ),
    "TRIDIA": lambda x, n: (
        (x[1] - 1) ** 2 + sum_over(lambda i: i * (2 * x[i] - x[i - 1]) ** 2, 2, n)
    ),
    "WOODS": lambda x, n: sum_over(lambda i: wood(*x[i : i + 4]), 1, n - 3, 4),
}
#: Ours, with data of their own.
OWN = {"logistic regression", "minimal surface"}


def test_every_collected_function_is_held_to_its_terms():
    assert set(EXTRA) - OWN == set(TERMS)


@pytest.mark.parametrize("name", TERMS)
def test_larger_functions_are_their_sums(name):
    problem = EXTRA[name]
    for x in (*problem.starts().values(), 1.3 + np.sin(np.arange(problem.n))):
        expected = TERMS[name]([math.nan, *x], problem.n)
        assert problem.fun(x) == pytest.approx(expected, rel=1e-11)


def test_the_first_value_of_our_own():
    logistic = EXTRA["logistic regression"]
    assert logistic.fun(np.zeros(logistic.n)) == pytest.approx(math.log(2))
    # A graph over the unit square has at least its area.
    surface = EXTRA["minimal surface"]
    assert surface.lowest > 1.0


# Minimisers in closed form of those whose lowest value follows from the formula.
EXTRA_ARGMINS = {
    "ARWHEAD": lambda n: np.r_[np.ones(n - 1), 0.0],
    "CHAINWOO": np.ones,
    "DIXMAANA": np.zeros,
    "DIXMAANL": np.zeros,
    "Dixon-Price": lambda n: 2.0 ** (2.0 ** -np.arange(n) - 1),
    "DQRTIC": lambda n: np.arange(1.0, n + 1),
    "FLETCHCR": np.ones,
    "LIARWHD": np.ones,
    "NONDIA": np.ones,
    "NONDQUAR": np.zeros,
    "POWER": np.zeros,
    "SCHMVETT": lambda n: np.full(n, math.pi / (math.pi + 1)),
    "SINQUAD": np.ones,
    "SROSENBR": np.ones,
    "TRIDIA": lambda n: 2.0 ** -np.arange(n),
    "WOODS": np.ones,
}


@pytest.mark.parametrize("name", EXTRA_ARGMINS)
def test_larger_minima_in_closed_form(name):
    problem = EXTRA[name]
    x = EXTRA_ARGMINS[name](problem.n)
    pt = osculant.oracle(problem.fun, x).at(x)
    assert problem.source == "formula"
    assert pt.value == pytest.approx(problem.lowest, rel=1e-13, abs=1e-20)
    assert np.max(np.abs(pt.grad)) <= 1e-8


def test_the_cosines_can_all_be_minus_one():
    problem = EXTRA["COSINE"]
    x = np.zeros(problem.n)
    for i in reversed(range(problem.n - 1)):
        x[i] = math.sqrt(math.pi + x[i + 1] / 2)
    assert problem.fun(x) == pytest.approx(problem.lowest, rel=1e-14)


@pytest.mark.parametrize("name", [p.name for p in EXTRA.values() if p.source == "measured"])
@pytest.mark.parametrize("start", ["standard", "perturbed"])
def test_two_solvers_agree_on_what_was_measured(name, start):
    problem = EXTRA[name]
    x0 = problem.starts()[start]
    oracle = osculant.oracle(problem.fun, x0)

    def fun(x):
        pt = oracle.at(x)
        return float(pt.value), pt.grad

    first = minimize(
        fun,
        x0,
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 0, "gtol": 1e-8, "maxcor": 30, "maxls": 50},
    )
    second = minimize(
        fun,
        x0,
        jac=True,
        hessp=lambda x, v: oracle.at(x).hvp(v),
        method="trust-ncg",
        options={"gtol": 1e-8, "maxiter": 200},
    )
    for result in (first, second):
        assert result.fun == pytest.approx(problem.lowest, rel=1e-10, abs=1e-10)
