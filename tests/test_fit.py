"""Training: where batches come from, what ends a run, what is measured, what goes wrong."""

import csv
import io
import math

import numpy as np
import pytest

import osculant
from osculant.core.drive import NOT_FINITE_PATIENCE
from osculant.core.samples import Samples, split
from osculant.core.solvers import SGD

W = np.array([1.0, -2.0, 0.5])
X = np.random.default_rng(0).normal(size=(64, 3))
Y = X @ W


def loss(w, X, y):
    return ((X @ w - y) ** 2).mean()


def problem(backend=None):
    """The oracle of a linear regression, its start and its data."""
    convert = np.array if backend is None else backend.from_numpy
    start = convert(np.zeros(3))
    return osculant.oracle(loss, start), start, (convert(X), convert(Y))


SEEN = []


class Sampled(SGD):
    """Gradient descent that keeps what it was given apart."""

    samples = frozenset({"curvature", "ratio"})

    def step(self, oracle, state, *data):
        samples = split(data)
        SEEN.append(samples)
        return super().step(oracle, state, *samples.gradient)


# Where batches come from -------------------------------------------------------------------


def rows(batches):
    return [batch[0].tolist() for batch in batches]


def test_epochs_are_asked_for_by_number_and_can_be_entered_anywhere():
    batches = osculant.Batches((np.arange(10),), 3, seed=1)
    assert rows(batches.epoch(1)) == rows(batches.epoch(1)) != rows(batches.epoch(0))
    assert rows(batches.epoch(1, skip=2)) == rows(batches.epoch(1))[2:]
    assert rows(batches) == rows(batches.epoch(0)) and rows(batches) == rows(batches.epoch(1))


def test_the_last_rows_are_left_out_or_a_smaller_batch():
    batches = osculant.Batches((np.arange(10),), 4, drop_last=False)
    assert len(batches) == 3 and [len(batch) for batch in rows(batches)] == [4, 4, 2]
    assert sorted(row for batch in rows(batches) for row in batch) == list(range(10))
    assert len(osculant.Batches((np.arange(10),), 4)) == 2


def test_seeds_in_the_data_differ_from_batch_to_batch_and_repeat():
    def seeds(seed, epoch):
        batches = osculant.Batches((np.arange(4),), 2, seed=seed, with_seed=True)
        return [batch[0] for batch in batches.epoch(epoch)]

    drawn = [s for seed in (0, 1) for epoch in (0, 1) for s in seeds(seed, epoch)]
    assert len(set(drawn)) == 8 and all(type(s) is int and 0 <= s < 2**31 for s in drawn)
    assert seeds(0, 1) == drawn[2:4]


def test_every_source_gives_the_same_run():
    oracle, start, data = problem()
    epochs = [list(osculant.Batches(data, 16, seed=3).epoch(k)) for k in range(3)]

    def run(batches, **limit):
        return osculant.fit(oracle, start, batches, solver="trust-region", **limit).history["fun"]

    expected = run(osculant.Batches(data, 16, seed=3), epochs=3)
    assert len(expected) == 12
    assert run(lambda epoch: epochs[epoch], epochs=3) == expected
    assert run(lambda: (batch for epoch in epochs for batch in epoch)) == expected
    assert run((batch for epoch in epochs for batch in epoch), steps=12) == expected
    assert run([list(batch) for epoch in epochs for batch in epoch]) == expected


def test_a_torch_loader():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    oracle, start, data = problem(osculant.backends.get("torch"))
    dataset = torch.utils.data.TensorDataset(*data)
    loader = torch.utils.data.DataLoader(dataset, batch_size=20, shuffle=True)
    solution = osculant.fit(oracle, start, loader, solver="trust-region", epochs=3)
    assert solution.nit == 12  # the last batch of an epoch has 4 rows
    np.testing.assert_allclose(solution.x, W, atol=1e-6)


def test_what_is_no_source_of_batches():
    oracle, start, data = problem()
    with pytest.raises(TypeError, match="batches is a int"):
        osculant.fit(oracle, start, 3)
    with pytest.raises(TypeError, match=r"a batch is a ndarray.* osculant\.Batches"):
        osculant.fit(oracle, start, data)
    with pytest.raises(ValueError, match="epoch 0, counted from 0: they are empty"):
        osculant.fit(oracle, start, [])
    with pytest.raises(ValueError, match=r"epoch 1.* used up"):
        osculant.fit(oracle, start, iter([data]), steps=2)
    with pytest.raises(ValueError, match="curvature gave nothing"):
        osculant.fit(oracle, start, [(X, Y)] * 2, solver=Sampled(), curvature=iter([(X, Y)]))


# Separate samples --------------------------------------------------------------------------


def test_each_part_of_a_step_gets_its_own_samples(backend):
    oracle, start, (X, Y) = problem(backend)
    solver, few, all_of_it = Sampled(), [(X[:4], Y[:4]), (X[4:8], Y[4:8])], [(X, Y)]
    SEEN.clear()
    osculant.fit(
        oracle,
        start,
        [(X[:16], Y[:16])] * 3,
        solver=solver,
        curvature=few,
        ratio=all_of_it,
        jit=False,
    )
    sizes = [tuple(len(part[0]) for part in samples) for samples in SEEN]
    assert sizes == [(16, 4, 64)] * 3
    second = SEEN[1].curvature[0]
    np.testing.assert_array_equal(backend.to_numpy(second), backend.to_numpy(X[4:8]))


def test_a_part_without_samples_of_its_own_shares_the_gradients():
    """Also in a compiled step, where objects lose their identity."""
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    shared = []

    @jax.jit
    def step(*data):
        samples = split(data)
        shared.append((samples.curvature is samples.gradient, samples.ratio is samples.gradient))
        return samples.gradient[0]

    step(Samples((1.0,), ratio=(2.0,)))
    step(1.0, 2.0)
    assert shared == [(True, False), (True, True)]


def test_samples_that_a_solver_does_not_take():
    oracle, start, data = problem()
    with pytest.raises(ValueError, match=r"Adam has no use for curvature samples.* one batch"):
        osculant.fit(oracle, start, [data], solver="adam", curvature=[data])


# What ends a run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "status", "nit"),
    [
        ({}, "FINISHED", 4),
        ({"epochs": 2}, "FINISHED", 8),
        ({"steps": 6}, "BUDGET", 6),
        ({"epochs": 1, "steps": 6}, "FINISHED", 4),
        ({"budget": 5}, "BUDGET", 5),
        ({"seconds": 1e-9}, "BUDGET", 0),
        ({"epochs": 2, "seconds": 1e9}, "FINISHED", 8),
    ],
)
def test_the_first_limit_ends_the_run(limits, status, nit):
    oracle, start, data = problem()
    batches = osculant.Batches(data, 16)
    solution = osculant.fit(oracle, start, batches, solver="sgd", **limits)
    assert (solution.status.name, solution.nit, solution.success) == (status, nit, True)


@pytest.mark.parametrize("limit", ["epochs", "steps", "seconds", "budget"])
def test_limits_are_positive(limit):
    oracle, start, data = problem()
    for value in (0, -1, math.nan):
        with pytest.raises(ValueError, match=f"{limit} is {value}"):
            osculant.fit(oracle, start, [data], **{limit: value})
    with pytest.raises(TypeError, match=f"{limit} is '3'"):
        osculant.fit(oracle, start, [data], **{limit: "3"})
    if limit in ("epochs", "steps"):
        with pytest.raises(ValueError, match=f"{limit} is 1.5; it must be positive and whole"):
            osculant.fit(oracle, start, [data], **{limit: 1.5})


def test_the_full_gradient_is_refreshed_with_the_batches_of_the_epoch():
    asked = []

    class Refreshed(SGD):
        def refresh(self, oracle, state, batches):
            asked.append(rows(batches))
            return state

    oracle, start, data = problem()
    batches = osculant.Batches(data, 16, seed=5)
    osculant.fit(oracle, start, batches, solver=Refreshed(), epochs=2)
    assert asked == [rows(batches.epoch(0)), rows(batches.epoch(1))]


# What is measured --------------------------------------------------------------------------


def test_evaluation_after_each_epoch_or_every_few_steps(backend):
    oracle, start, data = problem(backend)

    def run(evaluation):
        solution = osculant.fit(
            oracle, start, osculant.Batches(data, 16), solver="sgd", epochs=2, evaluation=evaluation
        )
        return solution.history

    seen = []

    def evaluate(w):
        seen.append(backend.to_numpy(w))
        return {"error": abs(seen[-1] - W).max(), "norm": 1.0}

    history = run(evaluate)
    assert [math.isnan(v) for v in history["error"]] == [True, True, True, False] * 2
    assert history["error"][7] == abs(seen[1] - W).max() < history["error"][3]
    history = run(osculant.Evaluation(lambda w: 2.0, every=3))
    assert [i for i, v in enumerate(history["evaluation"], 1) if not math.isnan(v)] == [3, 6]


def test_the_callback_sees_the_evaluation_of_its_step():
    oracle, start, data = problem()
    records = []
    osculant.fit(
        oracle,
        start,
        [data] * 2,
        solver="sgd",
        evaluation=osculant.Evaluation(lambda w: {"norm": float((w**2).sum())}, every=1),
        callback=lambda intermediate_result: records.append(intermediate_result.record),
    )
    assert all(record["norm"] > 0 for record in records) and len(records) == 2


@pytest.mark.parametrize("maximize", [False, True])
def test_early_stop_returns_the_best_parameters(backend, maximize):
    oracle, start, data = problem(backend)
    values, places = iter([5.0, 3.0, 4.0, math.nan, 3.0, 1.0]), []

    def evaluate(w):
        places.append(backend.to_numpy(w))
        value = next(values)
        return {"other": 0.0, "watched": -value if maximize else value}

    solution = osculant.fit(
        oracle,
        start,
        [data],
        solver="sgd",
        epochs=10,
        evaluation=osculant.Evaluation(evaluate, patience=3, monitor="watched", maximize=maximize),
    )
    assert solution.status is osculant.Status.EARLY_STOP and solution.success
    assert len(places) == 5
    np.testing.assert_array_equal(backend.to_numpy(solution.x), places[1])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: osculant.Evaluation(3), TypeError, "the evaluation is a int"),
        (lambda: osculant.Evaluation(len, every=0), ValueError, "every is 0"),
        (lambda: osculant.Evaluation(len, patience=0), ValueError, "patience is 0"),
        (lambda: osculant.Evaluation(lambda w: {}), ValueError, "returned nothing"),
        (lambda: osculant.Evaluation(lambda w: None), TypeError, "returned a NoneType"),
        (lambda: osculant.Evaluation(lambda w: {"a": w}), TypeError, "ndarray as its a"),
        (lambda: osculant.Evaluation(lambda w: 1.0, monitor="a"), ValueError, "a was to be"),
        (lambda: osculant.Evaluation(lambda w: {"fun": 1.0}), ValueError, "another name"),
    ],
)
def test_evaluations_that_make_no_sense(make, error, message):
    oracle, start, data = problem()
    with pytest.raises(error, match=message):
        osculant.fit(oracle, start, [data], solver="sgd", evaluation=make())


def test_history_is_a_table():
    oracle, start, data = problem()
    evaluation = osculant.Evaluation(lambda w: 1.5, every=2)
    history = osculant.fit(oracle, start, [data] * 4, solver="lbfgs", evaluation=evaluation).history
    table = list(csv.DictReader(io.StringIO(history.to_csv())))
    assert history.rows == len(table) == 4
    assert list(table[0]) == list(history)
    for name, column in history.items():
        np.testing.assert_array_equal([float(row[name]) for row in table], column)
    assert history["seconds"] == sorted(history["seconds"])


def test_progress_shows_loss_step_and_cost(capsys):
    pytest.importorskip("rich", reason="the progress line is drawn by rich")
    oracle, start, data = problem()
    osculant.fit(oracle, start, [data] * 3, solver="trust-region", epochs=2, progress=True)
    *_, last = capsys.readouterr().out.splitlines()
    assert all(part in last for part in ("step 6", " f ", "|g| ", "radius ", "cost "))


# What goes wrong ---------------------------------------------------------------------------


def test_a_step_to_where_nothing_is_finite_is_halved_until_it_is(backend):
    """From 0 the descent of sqrt(4 - x) jumps to 10, which is halved to 5 and to 2.5."""
    start = backend.from_numpy(np.zeros(1))
    oracle = osculant.oracle(lambda x, y: ((4.0 - x) ** 0.5).sum() * y, start)
    batch = (backend.from_numpy(np.array(1.0)),)
    solution = osculant.fit(oracle, start, [batch] * 4, solver=osculant.SGD(learning_rate=40.0))
    assert [math.isnan(f) for f in solution.history["fun"]] == [False, True, True, False]
    np.testing.assert_allclose(solution.fun, 1.5**0.5)
    assert solution.nfev == 2  # a look back for each


def test_a_batch_that_is_at_fault_moves_nothing(backend):
    oracle, start, (X, Y) = problem(backend)
    bad = (X, Y * float("nan"))
    solver = osculant.SGD(learning_rate=0.1)
    solution = osculant.fit(oracle, start, [(X, Y), bad, bad, (X, Y)], solver=solver)
    clean = osculant.fit(oracle, start, [(X, Y), (X, Y)], solver=solver)
    assert "All epochs are done. The loss or" in solution.message
    assert "not finite in 2 of the 4 steps" in solution.message
    assert clean.message == osculant.Status.FINISHED.message
    np.testing.assert_array_equal(backend.to_numpy(solution.x), backend.to_numpy(clean.x))


def test_a_run_that_fails_again_and_again_ends_where_it_was_last_good(backend):
    """Only the first batch is finite anywhere."""
    oracle, start, (X, Y) = problem(backend)
    bad = (X, Y * float("nan"))
    solver = osculant.SGD(learning_rate=0.1)
    solution = osculant.fit(oracle, start, [(X, Y)] * 2 + [bad] * 50, solver=solver)
    assert solution.status is osculant.Status.NOT_FINITE and not solution.success
    assert solution.nit == 2 + NOT_FINITE_PATIENCE
    one_step = osculant.fit(oracle, start, [(X, Y)], solver=solver)
    np.testing.assert_array_equal(backend.to_numpy(solution.x), backend.to_numpy(one_step.x))
    assert math.isfinite(solution.fun) and np.isfinite(backend.to_numpy(solution.jac)).all()
    assert "10 times in a row" in solution.message and "learning rate" in solution.message
    assert solution.history.rows == solution.nit


def test_a_run_that_was_never_finite_is_no_success_however_short():
    oracle, start, (X, Y) = problem()
    solution = osculant.fit(oracle, start, [(X, Y * math.nan)] * 3)
    assert solution.status is osculant.Status.NOT_FINITE and not solution.success
    assert "3 times in a row" in solution.message and "the run started" in solution.message


@pytest.mark.parametrize(
    ("batch", "error", "was"),
    [
        ((X[:, :2], Y), ValueError, "step 2, on a batch of numpy (64, 2) float64, numpy (64,) "),
        ((X,), TypeError, "step 2, on a batch of numpy (64, 3) float64, for parameters of numpy "),
    ],
)
def test_an_error_of_the_function_comes_with_what_it_was_given(batch, error, was):
    oracle, start, data = problem()
    with pytest.raises(error) as raised:
        osculant.fit(oracle, start, [data, batch])
    note = raised.value.__notes__[-1]
    assert was in note and note.endswith("numpy (3,) float64.")


def test_parameters_of_another_structure():
    """Such as those of a module, passed as what its method ``parameters`` returns."""
    oracle = osculant.oracle(lambda p, X, y: loss(p["w"], X, y), {"w": W})
    with pytest.raises(ValueError, match=r"a generator, has another structure .*'w'"):
        osculant.fit(oracle, (p for p in [W]), [(X, Y)])


def test_a_function_is_no_oracle():
    _, start, data = problem()
    with pytest.raises(TypeError, match=r"the oracle is a function.* osculant\.oracle\(fun"):
        osculant.fit(loss, start, [data])


def test_where_the_last_step_overflowed_is_not_returned():
    oracle, start, data = problem()
    solution = osculant.fit(oracle, start, [data], solver=osculant.SGD(learning_rate=1e308))
    assert solution.status is osculant.Status.NOT_FINITE
    np.testing.assert_array_equal(solution.x, start)


def test_where_the_last_loss_was_not_finite_is_not_returned():
    oracle, start, data = problem()
    solution = osculant.fit(oracle, start, [data] * 2, solver=osculant.SGD(learning_rate=1e200))
    np.testing.assert_array_equal(solution.x, start)
    assert solution.fun == loss(start, *data)


@pytest.mark.parametrize("data", [np.ones(3), (np.ones(3), 2.0), ([1.0], [2.0])])
def test_batches_are_of_a_tuple_of_arrays(data):
    with pytest.raises(TypeError, match="tuple of arrays"):
        osculant.Batches(data, 1)
