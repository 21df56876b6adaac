"""The held-out test functions: formulas and minima."""

import math
from itertools import pairwise

import numpy as np
import pytest

import osculant
from osculant.problems import extra, held_out, mgh

PROBLEMS = {p.name: p for p in held_out.problems()}
each = pytest.mark.parametrize("name", PROBLEMS)


def test_they_are_in_no_other_list():
    assert len(PROBLEMS) == len(held_out.problems()) >= 15
    assert not set(PROBLEMS) & {p.name for p in (*extra.problems(), *mgh.benchmark())}
    assert all(2 <= p.n <= 1000 for p in PROBLEMS.values())


# The functions term by term, as the collections print them, with indices from 1.
def sum_over(term, first, last):
    return sum(term(i) for i in range(first, last + 1))


def hairy(x):
    hair = 30 * math.sin(7 * x[1]) ** 2 * math.cos(7 * x[2]) ** 2
    return hair + 100 * math.sqrt(0.01 + (x[1] - x[2]) ** 2) + 100 * math.sqrt(0.01 + x[1] ** 2)


def broyden_banded(x, n):
    def beside(i):
        return sum(x[j] * (1 + x[j]) for j in range(max(1, i - 5), min(n, i + 1) + 1) if j != i)

    return sum_over(lambda i: (x[i] * (2 + 5 * x[i] ** 2) + 1 - beside(i)) ** 2, 1, n)


def curly(x, n):
    sums = [sum(x[i : min(i + 10, n) + 1]) for i in range(1, n + 1)]
    return sum(q * (q * (q**2 - 20) - 0.1) for q in sums)


def eigenvalue_problem(x, n):
    Q, d = np.reshape(x[1:101], (10, 10)), x[101:]
    total = 0.0
    for i in range(10):
        for j in range(i, 10):
            A = 2.0 if i == j else -1.0 if j == i + 1 else 0.0
            total += (sum(d[k] * Q[k, i] * Q[k, j] for k in range(10)) - A) ** 2
            total += (sum(Q[k, i] * Q[k, j] for k in range(10)) - (i == j)) ** 2
    return total


def square_root(x, n):
    B = [[math.sin((10 * i + j + 1) ** 2) for j in range(10)] for i in range(10)]
    B[2][0] = 0.0
    X = np.reshape(x[1:], (10, 10))
    return sum(
        (sum(X[i, k] * X[k, j] - B[i][k] * B[k][j] for k in range(10))) ** 2
        for i in range(10)
        for j in range(10)
    )


def boundary_value(x, n):
    differences = x[1] ** 2 + sum((a - b) ** 2 for a, b in pairwise(x[1:])) + x[n] ** 2
    loads = sum(2 * t + math.cos(t) for t in x[1:])
    return differences / 2 - loads / (n + 1) ** 2 - x[n]


def of_three(x, n):
    for i in range(1, n + 1):
        yield x[i] + x[(3 * i - 2) % n + 1] + x[(7 * i - 3) % n + 1]


def of_six(f, x, n):
    for i in range(1, n + 1):
        yield i, sum(f(x[(k * i - 1) % n + 1]) for k in (1, 2, 3, 5, 7, 11))


TERMS = {
    "CLIFF": lambda x, n: (0.01 * x[1] - 0.03) ** 2 - x[1] + x[2] + math.exp(20 * (x[1] - x[2])),
    "HAIRY": lambda x, n: hairy(x),
    "HUMPS": lambda x, n: (
        0.05 * (x[1] ** 2 + x[2] ** 2) + math.sin(20 * x[1]) ** 2 * math.sin(20 * x[2]) ** 2
    ),
    "LOGHAIRY": lambda x, n: math.log(1 + hairy(x) / 100),
    "SINEVAL": lambda x, n: (x[2] - math.sin(x[1])) ** 2 / 1e-4 + x[1] ** 2 / 4,
    "DIXON3DQ": lambda x, n: (
        (x[1] - 1) ** 2 + sum_over(lambda i: (x[i] - x[i + 1]) ** 2, 1, n - 1) + (x[n] - 1) ** 2
    ),
    "DQDRTIC": lambda x, n: sum_over(
        lambda i: x[i] ** 2 + 100 * (x[i + 1] ** 2 + x[i + 2] ** 2), 1, n - 2
    ),
    "TESTQUAD": lambda x, n: sum_over(lambda i: i * x[i] ** 2, 1, n),
    "CHNRSNBM": lambda x, n: sum_over(
        lambda i: 16 * (1.5 + math.sin(i)) ** 2 * (x[i - 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2,
        2,
        n,
    ),
    "GENROSE": lambda x, n: (
        1 + sum_over(lambda i: 100 * (x[i] - x[i - 1] ** 2) ** 2 + (x[i] - 1) ** 2, 2, n)
    ),
    "LUKSAN11LS": lambda x, n: sum_over(
        lambda i: (10 * (2 * x[i] / (1 + x[i] ** 2) - x[i + 1])) ** 2 + (x[i] - 1) ** 2, 1, n - 1
    ),
    "White-Holst": lambda x, n: sum_over(
        lambda i: 100 * (x[i + 1] - x[i] ** 3) ** 2 + (1 - x[i]) ** 2, 1, n - 1
    ),
    "BRYBND": broyden_banded,
    "EIGENBLS": eigenvalue_problem,
    "MSQRTALS": square_root,
    "CURLY10": curly,
    "EG2": lambda x, n: (
        sum_over(lambda i: math.sin(x[1] + x[i] ** 2 - 1), 1, n - 1) + math.sin(x[n] ** 2) / 2
    ),
    "FLETCBV2": boundary_value,
    "NONCVXU2": lambda x, n: sum(t**2 + 4 * math.cos(t) for t in of_three(x, n)),
    "SPARSINE": lambda x, n: sum(i * t**2 for i, t in of_six(math.sin, x, n)) / 2,
    "SPARSQUR": lambda x, n: sum(i * t**2 for i, t in of_six(lambda a: a**2, x, n)) / 8,
    "TQUARTIC": lambda x, n: (
        (x[1] - 1) ** 2 + sum_over(lambda i: (x[1] ** 2 - x[i + 1] ** 2) ** 2, 1, n - 1)
    ),
}


@each
def test_functions_are_their_sums(name):
    problem = PROBLEMS[name]
    for x in (*problem.starts().values(), 1.3 + np.sin(np.arange(problem.n))):
        expected = TERMS[name]([math.nan, *x], problem.n)
        assert problem.fun(x) == pytest.approx(expected, rel=1e-10)


def band_solution(n):
    """Return the x whose sums of eleven neighbours are all the least q of CURLY10's quartic."""
    q = max(np.roots([4, 0, -40, -0.1]).real)
    bands = np.triu(np.ones((n, n))) - np.triu(np.ones((n, n)), k=11)
    return np.linalg.solve(bands, np.full(n, q))


def eigenvectors(n):
    d, V = np.linalg.eigh(2 * np.eye(10) - np.eye(10, k=1) - np.eye(10, k=-1))
    return np.r_[V.T.ravel(), d]


def matrix_root(n):
    B = np.sin(np.arange(1.0, n + 1) ** 2)
    B[20] = 0.0
    return B


def sines(n):
    x1 = (-1 + math.sqrt(5 + 6 * math.pi)) / 2  # x1^2 + x1 - 1 = 3 pi / 2
    others = math.sqrt(3 * math.pi / 2 + 1 - x1)
    return np.r_[x1, np.full(n - 2, others), math.sqrt(3 * math.pi / 2)]


def broyden_root(n):
    """Solve the banded system by Newton's method; the differences of the minimum are rounding."""
    x, e = np.full(n, -0.4), np.eye(n)
    band = sum(np.eye(n, k=k) for k in (-5, -4, -3, -2, -1, 1))
    for _ in range(20):
        r = x * (2 + 5 * x**2) + 1 - band @ (x * (1 + x))
        x = x - np.linalg.solve(e * (2 + 15 * x**2) - band * (1 + 2 * x), r)
    return x


def boundary_value_root(n):
    """Solve the convex problem's equation by Newton's method."""
    A, h2 = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1), 1 / (n + 1) ** 2
    x, last = np.arange(1.0, n + 1) / (n + 1), np.eye(n)[-1]
    for _ in range(10):
        g = A @ x - h2 * (2 - np.sin(x)) - last
        x = x - np.linalg.solve(A + h2 * np.diag(np.cos(x)), g)
    return x


ARGMINS = {
    "CLIFF": lambda n: np.array([3.0, 3 + math.log(20) / 20]),
    "HAIRY": np.zeros,
    "HUMPS": np.zeros,
    "LOGHAIRY": np.zeros,
    "SINEVAL": np.zeros,
    "DIXON3DQ": np.ones,
    "DQDRTIC": np.zeros,
    "TESTQUAD": np.zeros,
    "CHNRSNBM": np.ones,
    "GENROSE": np.ones,
    "LUKSAN11LS": np.ones,
    "White-Holst": np.ones,
    "BRYBND": broyden_root,
    "EIGENBLS": eigenvectors,
    "MSQRTALS": matrix_root,
    "CURLY10": band_solution,
    "EG2": sines,
    "FLETCBV2": boundary_value_root,
    "NONCVXU2": lambda n: np.full(n, 1.8954942670339809 / 3),
    "SPARSINE": np.zeros,
    "SPARSQUR": np.zeros,
    "TQUARTIC": np.ones,
}


@each
def test_minima_are_taken(name):
    problem = PROBLEMS[name]
    x = ARGMINS[name](problem.n)
    pt = osculant.oracle(problem.fun, x).at(x)
    assert pt.value == pytest.approx(problem.lowest, rel=1e-12, abs=1e-20)
    assert np.max(np.abs(pt.grad)) <= 1e-8
