"""The host loops: options, callbacks, structure in and out, what ends them, bad input."""

import copy

import numpy as np
import pytest

import osculant
from osculant.core.drive import NOT_FINITE_PATIENCE
from osculant.problems import rosenbrock


def square(x, a=0.0):
    return ((x - a) ** 2).sum()


# minimize ----------------------------------------------------------------------------------


def test_structure_in_is_structure_out(backend):
    def fun(p):
        return ((p["a"] - 1) ** 2).sum() + (p["b"][0] - 2) ** 2

    x0 = {"a": backend.from_numpy(np.zeros((2, 3))), "b": [backend.from_numpy(np.zeros(()))]}
    solution = osculant.minimize(fun, x0)
    assert solution.success
    np.testing.assert_allclose(backend.to_numpy(solution.x["a"]), np.ones((2, 3)))
    np.testing.assert_allclose(backend.to_numpy(solution.x["b"][0]), 2.0)
    assert tuple(solution.jac["a"].shape) == (2, 3)
    assert type(solution.x["a"]) is type(x0["a"])


def test_start_and_options_are_left_alone():
    x0, a = np.array([3.0, 4.0]), np.array([1.0, 1.0])
    solver = osculant.TrustRegion()
    solution = osculant.minimize(square, x0, args=(a,), method=solver, tol=1e-9)
    np.testing.assert_array_equal(x0, [3.0, 4.0])
    assert solver == osculant.TrustRegion()
    solution.x[:] = 7.0  # the user's copy
    np.testing.assert_allclose(solution.state.x, a)


@pytest.mark.parametrize("x0", [[3, 4], [3.0, 4.0], (3.0, 4.0)])
def test_plain_numbers_become_a_float64_array(x0):
    solution = osculant.minimize(square, x0)
    assert isinstance(solution.x, np.ndarray) and solution.x.dtype == np.float64


def test_a_single_argument_needs_no_tuple():
    a = np.array([1.0, 2.0])
    for single in (a, 3.0):
        solution = osculant.minimize(square, np.zeros(2), args=single)
        np.testing.assert_allclose(solution.x, np.broadcast_to(single, 2))
        fit = osculant.least_squares(lambda x, a: x - a, np.zeros(2), args=single)
        np.testing.assert_allclose(fit.x, np.broadcast_to(single, 2))


def test_names_of_methods_may_be_written_as_in_scipy():
    assert osculant.minimize(square, np.zeros(2), method="Newton-CG").success


def test_function_that_overwrites_its_argument_does_no_harm():
    def fun(x):
        x *= 2.0
        return square(x, 2.0)

    solution = osculant.minimize(fun, np.zeros(2))
    np.testing.assert_allclose(solution.x, [1.0, 1.0])


def test_callback_sees_each_iteration_and_can_end_the_run(backend):
    seen = []

    def callback(intermediate_result):
        seen.append(intermediate_result)
        if intermediate_result.nit == 3:
            raise StopIteration

    x0 = backend.from_numpy(np.array([-1.2, 1.0]))
    solution = osculant.minimize(rosenbrock, x0, callback=callback)
    assert solution.status is osculant.Status.CALLBACK and not solution.success
    assert solution.nit == 3 == len(seen)
    assert [r.fun for r in seen] == solution.history["fun"]
    assert all(type(r.x) is type(x0) for r in seen)
    np.testing.assert_array_equal(seen[-1].x, solution.x)


def test_solve_ends_where_minimize_does(backend):
    x0 = {"x": backend.from_numpy(np.array([-1.2, 1.0]))}

    def fun(p, a):
        return rosenbrock(p["x"] - a)

    options = {"args": backend.from_numpy(np.array([1.0, 2.0])), "method": "lbfgs"}
    solved, solution = osculant.solve(fun, x0, **options), osculant.minimize(fun, x0, **options)
    assert osculant.Status(int(solved.status)) is solution.status and solution.success
    np.testing.assert_array_equal(solved.x["x"], solution.x["x"])
    assert (int(solved.nit), int(solved.counts.gradients)) == (solution.nit, solution.njev)
    assert float(solved.fun) == solution.fun
    short = osculant.solve(fun, x0, maxiter=3, **options)
    assert (int(short.status), int(short.nit)) == (osculant.Status.MAXITER, 3)


def test_history_has_a_row_per_iteration():
    method = osculant.TrustRegion(quasi_newton=False)
    solution = osculant.minimize(rosenbrock, np.array([-1.2, 1.0]), method=method)
    assert {"fun", "grad_norm", "cost", "radius", "step_norm"} <= set(solution.history)
    assert {len(column) for column in solution.history.values()} == {solution.nit}
    assert solution.history["fun"][0] == pytest.approx(24.2)
    assert solution.history["cost"] == sorted(solution.history["cost"])


def test_iteration_limit_is_no_success_and_says_what_to_do():
    solution = osculant.minimize(rosenbrock, np.array([-1.2, 1.0]), maxiter=2)
    assert solution.status is osculant.Status.MAXITER and not solution.success
    assert solution.nit == 2 and "raise maxiter" in solution.message
    np.testing.assert_allclose(solution.fun, rosenbrock(solution.x))


def test_last_allowed_iteration_may_be_the_one_that_converges():
    nit = osculant.minimize(rosenbrock, np.array([-1.2, 1.0])).nit
    solution = osculant.minimize(rosenbrock, np.array([-1.2, 1.0]), maxiter=nit)
    assert solution.success and solution.nit == nit


def test_result_has_scipys_names_and_behaves_like_a_mapping():
    solution = osculant.minimize(square, np.zeros(1), args=(1.0,))
    fields = dict(solution)
    names = {"x", "fun", "jac", "success", "status", "message", "nit", "nfev", "njev", "nhev"}
    assert names <= set(fields)
    assert fields["fun"] is solution["fun"] is solution.fun
    with pytest.raises(KeyError):
        solution["hess"]
    assert "x" in solution and "hess" not in solution and solution.get("hess") is None
    assert list(solution) == list(solution.keys()) and len(solution) == len(fields)
    other = osculant.minimize(square, np.zeros(1), args=(1.0,))
    assert solution == solution and solution != other  # and not an array of truth values


def test_a_result_prints_as_a_table_that_fits_a_screen(backend):
    x0 = {
        "short": backend.from_numpy(np.zeros(2)),
        "long": [backend.from_numpy(np.full((30, 40), 0.0))],
    }
    text = repr(
        osculant.minimize(lambda p: square(p["short"], 1.0) + square(p["long"][0], 2.0), x0)
    )
    (line,) = (line for line in text.splitlines() if line.startswith("      x: "))
    assert "[2 2 ... 2 2] float64 of shape (30, 40)" in line and "1." in line
    assert "message: Converged: the largest" in text
    assert len(text) < 1000 and "history" not in text


def test_progress_shows_the_loss(capsys):
    pytest.importorskip("rich", reason="the progress line is drawn by rich")
    solution = osculant.minimize(square, np.zeros(2), method="lbfgs", args=(1.0,), progress=True)
    assert f"step {solution.nit} " in (line := capsys.readouterr().out)
    assert f"cost {solution.njev} " in line  # gradients alone


@pytest.mark.parametrize("method", [osculant.TrustRegion(), osculant.NewtonKrylov()])
def test_nothing_finite_at_the_start_is_reported(method):
    solution = osculant.minimize(lambda x: np.log(x).sum(), np.array([-1.0]), method=method)
    assert solution.status is osculant.Status.NOT_FINITE and solution.nit <= 1
    np.testing.assert_array_equal(solution.x, [-1.0])


def test_wrong_gradient_ends_as_stalled_and_is_suspected():
    def fun(x):
        # Differentiates to -1 while it grows: the comparison hides the sign from the tape.
        return -x.sum() if isinstance(x, np.ndarray) is False else x.sum()

    solution = osculant.minimize(fun, np.array([1.0]), method="trust-region")
    assert solution.status is osculant.Status.STALLED and "gradient" in solution.message


def test_gradient_tolerance_is_absolute_plus_relative_to_the_start(backend):
    def largest(**tolerances):
        x0 = backend.from_numpy(np.array([-1.2, 1.0]))  # largest gradient entry 215.6
        solution = osculant.minimize(rosenbrock, x0, method="trust-region", **tolerances)
        assert solution.status is osculant.Status.CONVERGED
        return float(abs(backend.to_numpy(solution.jac)).max())

    assert largest(rtol=1e-2) <= 2.156
    assert largest(rtol=1e-2) > 1e-3
    assert largest(atol=1e-9) <= 1e-9 < largest(atol=1e-3)
    assert largest(tol=1e-9) == largest(atol=1e-9)
    assert largest(atol=1e-9, rtol=1e-10) <= 1e-9 + 2.156e-8


def test_a_relative_tolerance_costs_one_gradient():
    x0, options = np.array([-1.2, 1.0]), {"method": "lbfgs"}
    absolute = osculant.minimize(rosenbrock, x0, atol=215.6e-6, **options)
    relative = osculant.minimize(rosenbrock, x0, rtol=1e-6, **options)
    assert relative.njev == absolute.njev + 1
    np.testing.assert_array_equal(relative.x, absolute.x)


@pytest.mark.parametrize("method", ["lbfgs", "trust-region"])
def test_small_decreases_and_small_steps_end_a_run_if_asked_to(backend, method):
    """(sum x)^4 is flat at its minimum: steps and decreases shrink by constant factors."""
    x0 = backend.from_numpy(np.array([3.0]))

    def run(**tolerances):
        return osculant.minimize(lambda x: (x**4).sum(), x0, method=method, atol=0.0, **tolerances)

    by_decrease, by_step = run(ftol=1e-3), run(xtol=0.34)
    assert by_decrease.status is osculant.Status.FTOL and by_decrease.success
    f = by_decrease.history["fun"]
    assert 0 < abs(f[-2] - f[-1]) <= 1e-3 < abs(f[-4] - f[-3])
    assert by_step.status is osculant.Status.XTOL and by_step.success
    assert by_step.nit < by_decrease.nit or method == "lbfgs"
    for solution in (by_decrease, by_step):
        assert "another question" in solution.message
        x = float(backend.to_numpy(solution.x)[0])
        assert solution.fun == pytest.approx(x**4)
        assert float(backend.to_numpy(solution.jac)[0]) == pytest.approx(4 * x**3)


def test_no_tolerance_is_none():
    options = {"rtol": None, "ftol": None, "xtol": None, "tol": None}
    x0 = np.array([-1.2, 1.0])
    assert osculant.minimize(rosenbrock, x0, **options).nit == osculant.minimize(rosenbrock, x0).nit


def test_an_oracle_can_be_copied(backend):
    x0 = backend.from_numpy(np.array([-1.2, 1.0]))
    oracle = osculant.oracle(rosenbrock, x0)
    copied = copy.deepcopy({"oracle": oracle, "solution": osculant.minimize(oracle, x0)})
    np.testing.assert_array_equal(copied["oracle"].at(x0).grad, oracle.at(x0).grad)
    assert copied["solution"].success


def test_rejected_steps_are_not_small_steps():
    """The first radii are far too long: nothing moves until they have shrunk."""
    solution = osculant.minimize(
        lambda x: (x - np.log(x)).sum(),
        np.array([5.0]),
        method=osculant.TrustRegion(radius=50.0, attempts=1),
        atol=1e-8,
        ftol=1e-12,
        xtol=1e-12,
    )
    assert solution.status is osculant.Status.CONVERGED
    np.testing.assert_allclose(solution.x, [1.0])


def test_time_ends_a_run_after_an_iteration():
    x0 = np.array([-1.2, 1.0])
    solution = osculant.minimize(rosenbrock, x0, max_seconds=1e-9)
    assert solution.status is osculant.Status.TIME and not solution.success and solution.nit == 1
    np.testing.assert_allclose(solution.fun, rosenbrock(solution.x))
    assert osculant.minimize(rosenbrock, x0, max_seconds=1e9).success


def test_all_iterates_on_request(backend):
    x0 = {"a": backend.from_numpy(np.array([-1.2, 1.0]))}
    seen = []
    solution = osculant.minimize(
        lambda p: rosenbrock(p["a"]),
        x0,
        return_all=True,
        callback=lambda intermediate_result: seen.append(intermediate_result.x["a"]),
    )
    assert len(solution.allvecs) == solution.nit + 1
    for one, other in zip(solution.allvecs, [x0["a"], *seen], strict=True):
        np.testing.assert_array_equal(backend.to_numpy(one["a"]), backend.to_numpy(other))
    assert osculant.minimize(rosenbrock, x0["a"]).allvecs is None


def test_the_callback_sees_the_row_of_the_history():
    rows = []
    solution = osculant.minimize(
        rosenbrock,
        np.array([-1.2, 1.0]),
        method="trust-region",
        callback=lambda intermediate_result: rows.append(intermediate_result.record),
    )
    assert [row["radius"] for row in rows] == solution.history["radius"]
    assert {"fun", "cost", "seconds"} <= set(rows[0])


def test_other_tolerances_compile_nothing():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    traces = []

    def fun(x):
        traces.append(1)
        return ((x - 1) ** 4).sum() + (x**2).sum()

    def run(**tolerances):
        before = len(traces)
        assert osculant.minimize(fun, jax.numpy.zeros(3), method="lbfgs", **tolerances).success
        return len(traces) - before

    assert run() > 0
    assert run(atol=1e-8) == run(rtol=1e-3) == run(atol=1e-2, max_seconds=100.0) == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: osculant.minimize(square, np.array([1, 2])), TypeError, "astype"),
        (lambda: osculant.minimize(square, np.array([np.nan])), ValueError, "not finite"),
        (lambda: osculant.minimize(lambda x: x, np.zeros(3)), ValueError, r"shape \(3,\)"),
        (lambda: osculant.minimize(lambda x: 1.0, np.zeros(3)), TypeError, "float"),
        (lambda: osculant.minimize(square, np.zeros(2), method="lbgfs"), ValueError, "there are:"),
        (
            lambda: osculant.minimize(square, np.zeros(2), method=osculant.Adam),
            TypeError,
            r"instance, Adam\(\)",
        ),
        (lambda: osculant.minimize(square, np.zeros(2), tol=-1.0), ValueError, "tol is -1.0"),
        (
            lambda: osculant.minimize(square, np.zeros(2), tol=float("nan")),
            ValueError,
            "tol is nan",
        ),
        (lambda: osculant.minimize(square, np.zeros(2), maxiter=-1), ValueError, "maxiter is -1"),
        (
            lambda: osculant.minimize(square, np.zeros(2), maxiter=None),
            TypeError,
            "maxiter is None",
        ),
        (lambda: osculant.minimize(square, np.zeros(2), method=3), TypeError, "the solver is 3"),
        (
            lambda: osculant.minimize(square, np.zeros(2), jac=True),
            TypeError,
            r"oracle\(fun, x0, g",
        ),
        (lambda: osculant.minimize(square, np.zeros(2), bounds=[]), TypeError, "constraints"),
        (lambda: osculant.minimize(square, np.zeros(2), options={}), TypeError, "maxiter=100"),
        (lambda: osculant.least_squares(square, np.zeros(2), max_nfev=3), TypeError, "maxiter"),
        (lambda: osculant.minimize(square, np.zeros(2), foo=1), TypeError, "argument 'foo'$"),
        (lambda: osculant.minimize(square, np.zeros(2, np.float16)), TypeError, "are float16; the"),
        (
            lambda: osculant.minimize(square, np.zeros(2, np.longdouble)),
            TypeError,
            "compute in float32 or float64",
        ),
        (lambda: osculant.minimize(square, np.zeros(2), rtol=-1.0), ValueError, "rtol is -1.0"),
        (lambda: osculant.minimize(square, np.zeros(2), ftol=-1.0), ValueError, "ftol is -1.0"),
        (lambda: osculant.minimize(square, np.zeros(2), xtol=-1.0), ValueError, "xtol is -1.0"),
        (
            lambda: osculant.minimize(square, np.zeros(2), tol=1.0, atol=1.0),
            ValueError,
            "give one of them",
        ),
        (
            lambda: osculant.minimize(square, np.zeros(2), max_seconds=0),
            ValueError,
            "max_seconds is 0",
        ),
        (lambda: osculant.minimize(square, {}), TypeError, "hold no array"),
        (
            lambda: osculant.minimize(square, np.zeros(2, np.float32), args=(np.ones(2),)),
            TypeError,
            "returned float64 for parameters of float32",
        ),
        (
            lambda: osculant.minimize(square, {"a": np.zeros(2), "b": np.zeros(2, np.float32)}),
            TypeError,
            "one dtype",
        ),
    ],
)
def test_bad_input_is_told_apart(call, error, message):
    with pytest.raises(error, match=message):
        call()


# fit ---------------------------------------------------------------------------------------


def linear_fit(backend):
    rng = np.random.default_rng(0)
    X, w = rng.normal(size=(64, 3)), np.array([1.0, -2.0, 0.5])
    batches = [
        (backend.from_numpy(X[i : i + 16]), backend.from_numpy(X[i : i + 16] @ w))
        for i in range(0, 64, 16)
    ]
    start = backend.from_numpy(np.zeros(3))
    oracle = osculant.oracle(
        model=lambda w, X: X @ w, loss=lambda z, y: ((z - y) ** 2).mean(), params=start
    )
    return oracle, start, batches, w


@pytest.mark.parametrize(
    "solver",
    [
        "newton-krylov",
        osculant.NewtonKrylov(global_gradient="full"),
        osculant.TrustRegion(),
        osculant.TrustRegion(curvature="gauss-newton"),
        osculant.SGD(learning_rate=0.2),
        osculant.Adam(learning_rate=0.1),
    ],
    ids=str,
)
def test_fit_learns_a_linear_model(backend, solver):
    oracle, start, batches, w = linear_fit(backend)
    solution = osculant.fit(oracle, start, batches, solver=solver, epochs=40)
    assert solution.status is osculant.Status.FINISHED and solution.success
    assert solution.nit == 40 * len(batches)
    np.testing.assert_allclose(backend.to_numpy(solution.x), w, atol=1e-2)


def test_budget_ends_a_run_within_one_step_of_it(backend):
    oracle, start, batches, _ = linear_fit(backend)
    solution = osculant.fit(oracle, start, batches, solver=osculant.Adam(), budget=10)
    assert solution.status is osculant.Status.BUDGET and solution.nit == 10
    full = osculant.NewtonKrylov(global_gradient="full")
    solution = osculant.fit(oracle, start, batches, solver=full, budget=30)
    assert solution.history["cost"][-2] < 30 <= solution.history["cost"][-1]


def test_callback_ends_a_fit(backend):
    oracle, start, batches, _ = linear_fit(backend)

    def stop(intermediate_result):
        raise StopIteration

    solution = osculant.fit(oracle, start, batches, solver="adam", epochs=5, callback=stop)
    assert solution.status is osculant.Status.CALLBACK and solution.nit == 1


def test_batch_that_is_not_finite_is_passed_over_and_many_end_the_run(backend):
    oracle, start, batches, w = linear_fit(backend)
    X, y = batches[0]
    poison = (X, y * float("nan"))
    solution = osculant.fit(oracle, start, [*batches, poison], solver="newton-krylov", epochs=20)
    np.testing.assert_allclose(backend.to_numpy(solution.x), w, atol=1e-2)

    solution = osculant.fit(oracle, start, [poison] * 100, solver="newton-krylov")
    assert solution.status is osculant.Status.NOT_FINITE and not solution.success
    assert solution.nit == NOT_FINITE_PATIENCE
    np.testing.assert_array_equal(backend.to_numpy(solution.x), np.zeros(3))


def test_batches_that_make_no_sense():
    w = np.zeros(2)
    oracle = osculant.oracle(square, w)
    with pytest.raises(ValueError, match="gave nothing"):
        osculant.fit(oracle, w, [], solver="adam")
    with pytest.raises(ValueError, match="used up"):
        osculant.fit(oracle, w, iter([(1.0,)]), solver="adam", epochs=2)
    with pytest.raises(TypeError, match="must be a tuple"):
        osculant.fit(oracle, w, [np.ones(2)], solver="adam")
    with pytest.raises(ValueError, match="epochs is 0"):
        osculant.fit(oracle, w, [(1.0,)], solver="adam", epochs=0)


def test_start_that_requires_grad_is_taken_as_it_stands():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x0 = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    solution = osculant.minimize(square, x0, args=(1.0,))
    assert solution.success and not solution.x.requires_grad and x0.grad is None


def test_a_function_for_arrays_of_another_framework_is_told_of_them():
    def sum_of_squares(x):
        return x.square_of_a_framework()

    def with_dim(z):
        return np.sum(z, dim=0)

    for oracle in (
        osculant.oracle(sum_of_squares, np.ones(2)),
        osculant.oracle(model=sum_of_squares, loss=with_dim, params=np.ones(2)),
        osculant.oracle(model=lambda x: x, loss=with_dim, params=np.ones(2)),
        osculant.oracle(sum_of_squares, np.ones(2), products="complex-step"),
    ):
        with pytest.raises((TypeError, AttributeError)) as caught:
            osculant.minimize(oracle, np.ones(2))
        (note,) = caught.value.__notes__
        assert "framework" in note and "x0" in note


def test_a_start_without_entries_is_refused():
    with pytest.raises(ValueError, match="no entries"):
        osculant.minimize(lambda x: (x**2).sum(), np.ones(0))


def test_a_method_for_compositions_says_how_to_make_one():
    with pytest.raises(osculant.ProductUnavailable, match=r"model=.*loss="):
        osculant.minimize(lambda x: (x**2).sum(), np.ones(2), method="lm")
