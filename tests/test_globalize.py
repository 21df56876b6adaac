"""The first radius, Taylor ratio, line search and recheck, on functions of one variable."""

import numpy as np
import pytest

from osculant.core.flow import EAGER
from osculant.core.globalize.line_search import wolfe
from osculant.core.globalize.reduction import recheck
from osculant.core.globalize.taylor_ratio import taylor_step
from osculant.core.globalize.trial import Proposal, search
from osculant.core.globalize.trust_radius import initial_radius, resized

YES = np.asarray(True)


def test_recheck_leaves_a_step_alone_that_passes_or_that_fails_by_far():
    def slopes(_):
        raise AssertionError("no gradient is needed")

    f, zero = np.asarray(1.0), np.asarray(0.0)
    recheck(np.asarray(1e-15), np.asarray(1e-15), f, slopes, zero, np.asarray(False), EAGER)
    recheck(np.asarray(-1.0), np.asarray(1e-15), f, slopes, zero, YES, EAGER)
    recheck(np.asarray(-1e-15), np.asarray(1.0), f, slopes, zero, YES, EAGER)


@pytest.mark.parametrize(("norm", "radius"), [(1e-3, 1.0), (50.0, 5.0), (1e6, 100.0)])
def test_automatic_radius(norm, radius):
    assert float(initial_radius(np.asarray(0.0), np.asarray(norm))) == radius
    assert float(initial_radius(np.asarray(7.0), np.asarray(norm))) == 7.0


@pytest.mark.parametrize(
    ("curvature", "decrease", "radius"),
    [
        (-30.0, 1.0, 2.0),  # as much as the gradient says, though the model says 16: longer
        (-30.0, 0.2, 0.5),  # a fifth of that: shorter
        (1.0, 0.2, 1.0),  # positive curvature: 0.4 of what the model says
    ],
)
def test_negative_curvature_is_not_owed(curvature, decrease, radius):
    """A step of length 1 down a slope of 1, which the function confirms or does not."""

    def propose(size):
        predicted = size - curvature * size**2 / 2
        return Proposal.free(size * np.ones(1), length=size, slope=-size, predicted=predicted)

    trial = search(
        propose,
        lambda s: np.asarray(-decrease),
        lambda s: pytest.fail("no gradient is needed"),
        np.zeros(1),
        np.asarray(0.0),
        size=np.asarray(1.0),
        attempts=1,
        active=YES,
        flow=EAGER,
    )
    assert bool(trial.accepted)
    assert float(resized(trial, max_radius=10.0)) == radius


def taylor(phi, dphi, slope, curvature, **options):
    """Search along phi(s) = f(w + s d)."""
    tried = []

    def value_at(s):
        tried.append(float(s))
        return np.asarray(phi(float(s)))

    options = {"interval": (0.05, 0.5), "attempts": 8, "active": YES, **options}
    length = taylor_step(
        value_at,
        lambda s: np.asarray(float(s) * (dphi(0.0) + dphi(float(s)))),
        np.asarray(phi(0.0)),
        np.asarray(slope),
        np.asarray(curvature),
        flow=EAGER,
        **options,
    )
    assert int(length.tries) == len(tried)
    return length, tried


def test_exact_quadratic_takes_the_full_step_at_once():
    length, tried = taylor(lambda s: (s - 1) ** 2, lambda s: 2 * (s - 1), -2.0, 2.0)
    assert tried == [1.0] and float(length.best) == 1.0
    np.testing.assert_allclose(length.decrease, 1.0)


def test_trusted_linear_function_is_stretched_as_far_as_attempts_reach():
    length, tried = taylor(lambda s: -s, lambda s: -1.0, -1.0, 0.0, attempts=4)
    assert tried == [1.0, 2.0, 4.0, 8.0] and float(length.best) == 8.0


def test_ratio_above_the_interval_shrinks_into_it():
    def phi(s):
        return -s + 0.9 * s**3

    length, tried = taylor(phi, lambda s: -1 + 2.7 * s**2, -1.0, 0.0)
    assert len(tried) > 1 and tried == sorted(tried, reverse=True)
    s = float(length.best)
    ratio = 0.9 * s**3 / abs(phi(s))
    assert ratio <= 0.5


def test_step_that_climbs_or_is_not_finite_is_never_taken():
    length, _ = taylor(lambda s: s, lambda s: 1.0, -1.0, 0.0)
    assert float(length.best) == 0.0
    length, tried = taylor(lambda s: -s if s < 0.1 else float("nan"), lambda s: -1.0, -1.0, 0.0)
    assert 0 < float(length.best) < 0.1 and tried[0] == 1.0


def test_stretch_that_overshoots_falls_back_on_the_best():
    def phi(s):
        return -s if s < 1.5 else 10.0

    length, tried = taylor(phi, lambda s: -1.0, -1.0, 0.0)
    assert tried == [1.0, 2.0] and float(length.best) == 1.0


def test_taylor_step_hidden_by_rounding_is_judged_by_gradients():
    length, _ = taylor(
        lambda s: 1e6 + 1e-12 * (s - 1) ** 2, lambda s: 2e-12 * (s - 1), -2e-12, 2e-12
    )
    assert float(length.best) == 1.0 and int(length.gradients) == 1


def line(phi, dphi, **options):
    tried = []

    def at(a):
        a = float(a)
        tried.append(a)
        return np.asarray(phi(a)), np.asarray(dphi(a)), np.asarray([dphi(a)])

    options = {"curvature": 0.9, "attempts": 30, "active": YES, **options}
    f, slope = np.asarray(phi(0.0)), np.asarray(dphi(0.0))
    search = wolfe(at, f, slope, np.asarray([dphi(0.0)]), flow=EAGER, **options)
    assert int(search.tries) == len(tried)
    return search, tried


def test_unit_step_that_satisfies_wolfe_is_taken_at_once():
    search, tried = line(lambda a: (a - 1) ** 2, lambda a: 2 * (a - 1))
    assert tried == [1.0] and float(search.step) == 1.0 and search.done


def test_step_far_too_long_on_a_quadratic_is_cut_at_once():
    _, tried = line(lambda a: (500 * a - 1) ** 2, lambda a: 1000 * (500 * a - 1))
    np.testing.assert_allclose(tried, [1.0, 1 / 500])


@pytest.mark.parametrize("power", [4, 6, 10])
def test_step_far_too_long_where_f_is_steeper_is_not_cut_too_far(power):
    def dphi(a):
        return power * 1e4 * (1e4 * a - 1) ** (power - 1)

    search, tried = line(lambda a: (1e4 * a - 1) ** power, dphi)
    assert search.done and (np.diff(tried) < 0).all()


@pytest.mark.parametrize("scale", [1e-6, 0.1, 10.0, 1e6])
def test_weak_wolfe_holds_whatever_the_scale_of_the_step(scale):
    def phi(a):
        return (a / scale - 1) ** 2 + 0.3 * np.sin(3 * a / scale)

    def dphi(a):
        return (2 * (a / scale - 1) + 0.9 * np.cos(3 * a / scale)) / scale

    search, _ = line(phi, dphi, curvature=0.1)
    a = float(search.step)
    assert search.done and a > 0
    assert phi(a) <= phi(0.0) + 1e-4 * a * dphi(0.0) and dphi(a) >= 0.1 * dphi(0.0)
    np.testing.assert_allclose(search.grad, [dphi(a)])


def test_value_that_is_not_finite_shortens_the_step():
    def phi(a):
        return (a - 0.01) ** 2 if a < 0.5 else float("nan")

    search, tried = line(phi, lambda a: 2 * (a - 0.01))
    assert search.done and tried[1] == pytest.approx(0.1)


def test_function_unbounded_below_ends_with_the_longest_step():
    search, tried = line(lambda a: -a, lambda a: -1.0, attempts=5)
    assert not search.done and tried == [1.0, 10.0, 100.0, 1e3, 1e4]
    assert float(search.step) == 1e4 and float(search.value) == -1e4


def test_nothing_that_climbs_is_taken():
    search, _ = line(lambda a: a, lambda a: -1.0, attempts=8)  # a gradient of the wrong sign
    assert float(search.step) == 0.0 and not search.done


def test_decrease_hidden_by_rounding_is_read_off_the_slopes():
    search, tried = line(lambda a: 1.0, lambda a: 1e-20 * (a - 1))
    assert search.done and tried == [1.0]
