"""The More-Garbow-Hillstrom functions against published values."""

import math

import numpy as np
import pytest
from scipy.optimize import least_squares, minimize

import osculant
from osculant.problems import mgh, sum_of_squares

ALL = mgh.problems()
SIZED = [*ALL, *mgh.benchmark()]


def identity(problem):
    return f"{problem.name}-{problem.n}"


def jacobian(problem, x):
    """Return the Jacobian by the tape, as m transposed products."""
    oracle = osculant.oracle(model=problem.residual, loss=sum_of_squares, params=x)
    return oracle.at(x).jvp(np.eye(problem.n))


def generic_point(problem):
    """Return a point near the start where no entry and no residual is special."""
    x0 = np.asarray(problem.start)
    return x0 + 0.01 * (1 + np.abs(x0)) * np.random.default_rng(7).uniform(0.5, 1.0, problem.n)


# Against published values ---------------------------------------------------------------------

# Norms of the residuals at the starts x1, x10 and x100, from the reference output of MINPACK-1's
# test programs for systems and least squares (Argonne, 1980).
INITIAL_NORMS = {
    (1, 2): (4.9193496e00, 1.3400631e03, 1.4300005e05),
    (2, 2): (2.0012496e01, 1.2432834e04, 1.1426455e07),
    (3, 2): (1.0654866e00, 1.0000000e00),
    (6, 2): (6.4585650e01,),
    (7, 3): (5.0000000e01, 1.0295630e02, 9.9126182e02),
    (8, 3): (6.4561363e00, 3.6141853e01, 3.8411468e02),
    (10, 3): (4.1153467e04, 4.1682169e06),
    (12, 3): (3.2111584e01,),
    (13, 4): (1.4662878e01, 1.2709839e03, 1.2688790e05),
    (15, 4): (7.2891510e-02, 2.9793701e00, 2.9959062e01),
    (16, 4): (2.8154384e03, 5.5507335e05, 6.1211252e07),
    (17, 5): (9.3756402e-01,),
    (19, 11): (1.4468654e00,),
    (20, 6): (5.4772256e00, 6.4331258e03, 6.7425604e05),
    (20, 9): (5.4772256e00, 1.2088127e04, 1.2691093e06),
    (20, 12): (5.4772256e00, 1.9220759e04, 2.0189180e06),
    (26, 10): (8.4117534e-02, 2.0305195e01, 9.3369375e01),
    (27, 10): (1.6530216e01, 9.7656240e06, 9.7656250e16),
    (27, 30): (8.3476044e01,),
    (27, 40): (1.2802636e02,),
    (28, 10): (2.8080582e-02, 5.2555258e-01, 1.0657390e02),
    (29, 1): (1.2792969e-01, 2.5625000e00, 8.3611719e02),
    (29, 10): (2.5182701e-01, 6.1168330e00, 1.2693089e03),
    (30, 10): (4.5825757e00, 6.3910093e02, 6.3337583e04),
    (31, 10): (1.8973666e01, 1.7130922e04, 1.5949860e07),
    (32, 5): (5.0000000e00,),
    (33, 5): (2.9152187e02,),
    (34, 5): (1.2603968e02,),
    (35, 5): (2.2570657e-01, 4.1172432e06, 5.6361303e11),
    (35, 6): (2.1547198e-01, 1.3079247e08, 1.8755789e14),
    (35, 7): (1.8376789e-01, 4.2693282e09, 6.4143166e16),
    (35, 8): (1.9651386e-01,),
    (35, 9): (1.6994993e-01,),
    (35, 10): (1.8374783e-01,),
}


@pytest.mark.parametrize(("number", "n"), INITIAL_NORMS)
def test_norm_at_the_starts_is_minpacks(number, n):
    starts = mgh.problem(number, n).starts()
    for norm, x0 in zip(INITIAL_NORMS[number, n], starts.values(), strict=False):
        r = mgh.problem(number, n).residual(x0)
        assert np.linalg.norm(r) == pytest.approx(norm, rel=6e-8)


# Those that MINPACK's programs leave out, by hand from the paper's formulas.
VALUES_AT_START = {
    (4, 2): (1 - 1e6) ** 2 + (1 - 2e-6) ** 2 + 1,
    (5, 2): 1.5**2 + 2.25**2 + 2.625**2,
    (9, 3): sum(
        (0.4 * math.exp(-((8 - i) ** 2) / 8) - y) ** 2
        for i, y in zip(
            range(1, 16),
            (9, 44, 175, 540, 1295, 2420, 3521, 3989, 3521, 2420, 1295, 540, 175, 44, 9),
            strict=True,
        )
        for y in (y / 1e4,)
    ),
    (11, 3): sum(
        (math.exp(-(abs(25 + (-50 * math.log(t)) ** (2 / 3) - 2.5) ** 0.15) / 5) - t) ** 2
        for t in (i / 100 for i in range(1, 100))
    ),
    (14, 4): 100 * 10**2 + 4**2 + 90 * 10**2 + 4**2 + 10 * 4**2,
    (18, 6): sum(
        (
            math.exp(-t)
            - math.exp(-2 * t)
            + math.exp(-t)
            - (math.exp(-t) - 5 * math.exp(-10 * t) + 3 * math.exp(-4 * t))
        )
        ** 2
        for t in (i / 10 for i in range(1, 14))
    ),
    (21, 10): 5 * 24.2,
    (22, 12): 3 * 215,
    (23, 4): 1e-5 * (1 + 4 + 9) + (30 - 0.25) ** 2,
    (23, 10): 1e-5 * 285 + (385 - 0.25) ** 2,
    (24, 2): 0.3**2
    + 1e-5 * (2 * math.exp(0.05) - math.exp(0.2) - math.exp(0.1)) ** 2
    + 1e-5 * (math.exp(0.05) - math.exp(-0.1)) ** 2
    + (2 / 4 + 1 / 4 - 1) ** 2,
    (25, 10): 3.85 + 38.5**2 + 38.5**4,
}


@pytest.mark.parametrize(("number", "n"), VALUES_AT_START)
def test_value_at_the_standard_start(number, n):
    problem = mgh.problem(number, n)
    x0 = problem.starts()[1]
    assert problem.fun(x0) == pytest.approx(VALUES_AT_START[number, n], rel=1e-12)


def test_every_function_is_held_to_a_value_at_its_start():
    numbers = {number for number, _ in [*INITIAL_NORMS, *VALUES_AT_START]}
    assert numbers == set(range(1, 36))


def test_wood_tells_its_variables_apart():
    # Its start and its minimum do not.
    expected = 100 * (2 - 1) ** 2 + 90 * (4 - 9) ** 2 + 2**2 + 10 * 4**2 + 2**2 / 10
    assert mgh.problem(14).fun(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(expected)


# Solutions of the systems to the figures that MINPACK-1's reference output gives.
_BOUNDARY_VALUES = (
    *(-4.3164983e-02, -8.1577157e-02, -1.1448571e-01, -1.4097358e-01, -1.5990870e-01),
    *(-1.6987720e-01, -1.6908998e-01, -1.5524954e-01, -1.2535589e-01, -7.5416534e-02),
)
SOLUTIONS = {
    26: (
        *(3.4396289e-02, 3.5032316e-02, 3.5719196e-02, 3.6465224e-02, 3.7280912e-02),
        *(3.8179863e-02, 3.9180141e-02, 4.0306503e-02, 1.7972019e-01, 1.5624088e-01),
    ),
    27: (*(9.7943030e-01,) * 9, 1.2056970e00),
    28: _BOUNDARY_VALUES,
    29: _BOUNDARY_VALUES,
    30: (
        *(-5.7072213e-01, -6.8180695e-01, -7.0221008e-01, -7.0551063e-01, -7.0490616e-01),
        *(-7.0149661e-01, -6.9188932e-01, -6.6579651e-01, -5.9603511e-01, -4.1641226e-01),
    ),
    31: (
        *(-4.2830286e-01, -4.7659642e-01, -5.1965246e-01, -5.5809932e-01, -5.9250616e-01),
        *(-6.2450368e-01, -6.2323947e-01, -6.2139384e-01, -6.2045360e-01, -5.8646927e-01),
    ),
    35: (
        *(4.4205346e-02, 1.9949067e-01, 2.3561911e-01, 4.1604691e-01, 5.0000000e-01),
        *(5.8395309e-01, 7.6438089e-01, 8.0050933e-01, 9.5579465e-01),
    ),
}


@pytest.mark.parametrize("number", SOLUTIONS)
def test_minpacks_solutions_are_zeros(number):
    x = np.array(SOLUTIONS[number])
    problem = mgh.problem(number, x.size)
    nearest = x - np.linalg.lstsq(jacobian(problem, x), problem.residual(x))[0]
    assert nearest == pytest.approx(x, rel=1e-7)


# The minima to the figures that the paper gives; for Chebyquad with n = 10 a lower one beside it.
PUBLISHED_MINIMA = {
    (2, 2): ("0", "48.9842"),
    (6, 2): ("124.362",),
    (8, 3): ("8.21487e-3", "17.4286"),
    (9, 3): ("1.12793e-8",),
    (10, 3): ("87.9458",),
    (15, 4): ("3.07505e-4", "1.02734e-3"),
    (16, 4): ("85822.2",),
    (17, 5): ("5.46489e-5",),
    (18, 6): ("0", "5.65565e-3"),
    (19, 11): ("4.01377e-2",),
    (20, 6): ("2.28767e-3",),
    (20, 9): ("1.39976e-6",),
    (20, 12): ("4.72238e-10",),
    (23, 4): ("2.24997e-5",),
    (23, 10): ("7.08765e-5",),
    (24, 4): ("9.37629e-6",),
    (24, 10): ("2.93660e-4",),
    (35, 8): ("3.51687e-3",),
    (35, 10): ("4.77271e-3", "6.50395e-3"),
}


@pytest.mark.parametrize(("number", "n"), PUBLISHED_MINIMA)
def test_minima_are_the_published_ones(number, n):
    known = [minimum.value for minimum in mgh.problem(number, n).minima]
    published = PUBLISHED_MINIMA[number, n]
    assert len(known) == len(published)
    for value, figure in zip(known, published, strict=True):
        # The paper cuts its figures off rather than rounding them: one unit of the last place.
        assert value == pytest.approx(float(figure), rel=1.2e-5)


# The formulas at the minima ---------------------------------------------------------------------


@pytest.mark.parametrize("problem", SIZED, ids=identity)
def test_known_argmins_have_their_value_and_no_gradient(problem):
    for minimum in problem.minima:
        if minimum.x is None:
            continue
        x = np.asarray(minimum.x, dtype=float)
        assert problem.fun(x) == pytest.approx(minimum.value, rel=1e-13, abs=1e-20)
        J, r = jacobian(problem, x), problem.residual(x)
        rounding = 1e-14 * max(1.0, np.abs(J).max()) * max(1.0, np.abs(r).max())
        assert np.max(np.abs(J.T @ r)) <= rounding


# Starts from which least squares falls into each minimum that has no argmin in closed form.
BASINS = [
    (6, 2, None, 0),
    (8, 3, None, 0),
    (9, 3, None, 0),
    (10, 3, None, 0),
    (15, 4, None, 0),
    (16, 4, None, 0),
    (17, 5, None, 0),
    (19, 11, None, 0),
    (20, 6, None, 0),
    (20, 9, None, 0),
    (20, 12, None, 0),
    (23, 4, None, 0),
    (23, 10, None, 0),
    (24, 4, None, 0),
    (24, 10, None, 0),
    (26, 10, (0.05, *(0.06,) * 6, 0.2, 0.16, 0.09), 0),
    (26, 10, None, 1),
    (28, 10, None, 0),
    (29, 10, None, 0),
    (30, 10, None, 0),
    (31, 10, None, 0),
    (35, 7, None, 0),
    (35, 8, None, 0),
    (35, 9, None, 0),
    (35, 10, (0.03, 0.15, 0.2, 0.38, 0.38, 0.53, 0.64, 0.71, 0.83, 0.93), 0),
    (35, 10, None, 1),
]


@pytest.mark.parametrize(("number", "n", "start", "which"), BASINS)
def test_least_squares_finds_the_minimum(number, n, start, which):
    problem = mgh.problem(number, n)
    result = least_squares(
        problem.residual,
        problem.start if start is None else start,
        jac=lambda x: jacobian(problem, x),
        method="lm",
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
        max_nfev=3000,
    )
    value = problem.minima[which].value
    assert 2 * result.cost == pytest.approx(value, rel=1e-9, abs=1e-20)


def test_biggs_local_minimum_is_where_quasi_newton_ends():
    # Least squares leaves it: there x3 and x6 only matter by their sum.
    biggs = mgh.problem(18)
    result = minimize(
        biggs.fun,
        biggs.start,
        jac=lambda x: 2 * jacobian(biggs, x).T @ biggs.residual(x),
        method="BFGS",
        options={"gtol": 1e-9},
    )
    assert result.fun == pytest.approx(biggs.minima[1].value, rel=1e-9)


def test_bards_and_kowaliks_infima_are_approached_at_infinity():
    bard = mgh.problem(8)
    x = np.array([0.8406666666666667, -1e9, -1e9])
    assert bard.fun(x) == pytest.approx(bard.minima[1].value, rel=1e-8)
    # There r is y - a u (u + b) / (u + c), with a = x1/x3 and c = x4/x3.
    kowalik = mgh.problem(15)
    a, b, c = -0.022095942, -14.0758834, 0.62380134
    x = np.array([-1e9 * a, b, -1e9, -1e9 * c])
    assert kowalik.fun(x) == pytest.approx(kowalik.minima[1].value, rel=1e-6)


# The residuals as programs ----------------------------------------------------------------------


@pytest.mark.parametrize("problem", SIZED, ids=identity)
def test_sizes_and_the_sum_of_squares(problem):
    x = generic_point(problem)
    r = problem.residual(x)
    assert len(problem.start) == problem.n
    assert r.shape == (problem.m,) and r.dtype == np.float64
    assert problem.fun(x) == pytest.approx(r @ r, rel=1e-14)  # and not half of it


@pytest.mark.parametrize("problem", [p for p in ALL if p.number != 7], ids=identity)
def test_jacobian_is_the_complex_steps(problem):
    x = generic_point(problem)
    h = 1e-30
    columns = [problem.residual(x + 1j * h * e).imag / h for e in np.eye(problem.n)]
    J = jacobian(problem, x)
    error = np.abs(J - np.stack(columns, axis=1))
    assert np.all(error <= 1e-12 * np.abs(J) + 1e-13 * np.abs(J).max())


@pytest.mark.parametrize("x", [(-1.1, 0.2, 0.3), (0.7, -0.4, 1.0), (-0.2, -0.9, 0.5)])
def test_jacobian_of_the_helical_valley(x):
    # Its angle is not analytic as NumPy computes it, so that it has no complex step.
    x1, x2, _ = x
    square = x1**2 + x2**2
    turn = 100 / (2 * math.pi * square)
    radius = math.sqrt(square)
    expected = [
        [turn * x2, -turn * x1, 10],
        [10 * x1 / radius, 10 * x2 / radius, 0],
        [0, 0, 1],
    ]
    assert jacobian(mgh.problem(7), np.array(x)) == pytest.approx(np.array(expected), rel=1e-13)


def test_the_helix_turns_as_in_the_paper():
    def theta(x1, x2):
        return -mgh.problem(7).residual(np.array([x1, x2, 0.0]))[0] / 100

    assert theta(1.0, 0.0) == 0
    assert theta(1.0, 1.0) == pytest.approx(1 / 8)
    assert theta(-1.0, 0.0) == pytest.approx(1 / 2)
    assert theta(-1.0, -1.0) == pytest.approx(5 / 8)
    assert theta(1.0, -1.0) == pytest.approx(-1 / 8)


def other_namespaces():
    def strict():
        xp = pytest.importorskip("array_api_strict")
        return lambda x: xp.asarray(x)

    def torch():
        return pytest.importorskip("torch").from_numpy

    def jax():
        jax = pytest.importorskip("jax")
        return lambda x: jax.numpy.asarray(x, dtype=jax.numpy.float32)

    return {"array_api_strict": strict, "torch": torch, "jax": jax}


@pytest.mark.parametrize("framework", other_namespaces())
@pytest.mark.parametrize("problem", ALL, ids=identity)
def test_residuals_are_the_same_in_every_namespace(problem, framework):
    convert = other_namespaces()[framework]()
    x = generic_point(problem).astype(np.float32 if framework == "jax" else np.float64)
    given = convert(x.copy())
    r = problem.residual(given)
    assert type(r) is type(given) and r.dtype == given.dtype
    expected = problem.residual(x.astype(float))
    tolerance = 1e-4 if framework == "jax" else 1e-12
    error = np.abs(np.asarray(r, dtype=float) - expected)
    assert np.all(error <= tolerance * np.abs(expected).max())


# The register -----------------------------------------------------------------------------------


def test_the_lists_are_the_papers():
    assert [p.number for p in ALL] == list(range(1, 36))
    assert [len(part) for part in (mgh.EQUATIONS, mgh.LEAST_SQUARES, mgh.UNCONSTRAINED)] == [
        14,
        18,
        18,
    ]
    assert {*mgh.EQUATIONS, *mgh.LEAST_SQUARES, *mgh.UNCONSTRAINED} == set(range(1, 36))


def test_the_benchmark_has_75_instances_with_known_minima():
    functions = mgh.benchmark()
    assert {p.number for p in functions} == set(mgh.UNCONSTRAINED)
    assert sum(len(p.starts()) for p in functions) == 75
    assert all(p.lowest is not None for p in functions)


def test_starts():
    x = mgh.problem(1).starts()
    assert x[1] == pytest.approx([-1.2, 1]) and x[10] == pytest.approx([-12, 10])
    assert np.all(mgh.problem(20).starts()[1] == 0)
    assert np.all(mgh.problem(20).starts()[100] == 100)


@pytest.mark.parametrize(("number", "n"), [(1, 3), (21, 3), (22, 6), (20, 32), (34, 2)])
def test_a_size_that_there_is_not(number, n):
    with pytest.raises(ValueError, match="has no size n ="):
        mgh.problem(number, n)


def test_a_number_that_there_is_not():
    with pytest.raises(ValueError, match="numbered 1 to 35"):
        mgh.problem(36)
