"""What holds for every function of the collections, whichever list it is on."""

import array_api_strict
import numpy as np
import pytest

import osculant
from osculant.problems import extra, held_out

each = pytest.mark.parametrize(
    "problem", [*extra.problems(), *held_out.problems()], ids=lambda p: p.name
)


@each
def test_gradients_are_the_differences(problem):
    x = problem.starts()["perturbed"]
    oracle = osculant.oracle(problem.fun, x)
    v = np.random.default_rng(3).standard_normal(problem.n)
    h = 1e-6
    difference = (oracle.value(x + h * v) - oracle.value(x - h * v)) / (2 * h)
    assert oracle.at(x).grad @ v == pytest.approx(difference, rel=1e-4, abs=1e-6)


@each
def test_functions_run_on_the_strict_namespace(problem):
    x = problem.starts()["perturbed"]
    value = problem.fun(array_api_strict.asarray(x))
    assert value.shape == ()
    assert float(value) == pytest.approx(float(problem.fun(x)), rel=1e-12)
