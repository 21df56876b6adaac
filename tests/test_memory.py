"""Over a run nothing is compiled twice, kept without need, or taken from whoever holds it."""

import gc
import re
import tracemalloc
from typing import Any, NamedTuple

import numpy as np
import pytest

import osculant
from osculant.core import drive
from osculant.core.checkpoint import named_leaves
from osculant.core.drive.run import Run
from osculant.core.solvers import SGD, as_solver

X = np.random.default_rng(0).normal(size=(64, 3))
Y = X @ np.array([1.0, -2.0, 0.5])


def model(w, X):
    return X @ w


def loss(z, y):
    return ((z - y) ** 2).mean()


def problem(name, loss=loss):
    """The oracle of a linear regression, its start and its data."""
    if reason := osculant.backends.available()[name]:
        pytest.skip(reason)
    backend = osculant.backends.get(name)
    start = backend.from_numpy(np.zeros(3))
    oracle = osculant.oracle(model=model, loss=loss, params=start)
    return oracle, start, (backend.from_numpy(X), backend.from_numpy(Y))


# Flat over a thousand steps ----------------------------------------------------------------


def numpy_memory():
    """How many blocks NumPy's arrays hold, and how many bytes."""
    domain = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    traces = tracemalloc.take_snapshot().filter_traces([domain]).traces
    return len(traces), sum(trace.size for trace in traces)


def torch_memory():
    """How many tensors are alive, and how many bytes they hold."""
    import torch

    alive = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in alive}
    return len(alive), sum(storages.values())


def jax_memory():
    """How many of JAX's arrays are alive, and how many bytes they hold."""
    import jax

    alive = jax.live_arrays()
    return len(alive), sum(array.nbytes for array in alive)


MEMORY = {"numpy": numpy_memory, "torch": torch_memory, "jax": jax_memory}


def assert_flat(name, run):
    """Compare the memory after 100, 500 and 1000 steps; ``run(look)`` calls look after each 100."""
    seen = []
    gc.collect()
    gc.disable()  # what only a collection would free has a cycle
    if name == "numpy":
        tracemalloc.start()
    try:
        run(lambda *_: seen.append(MEMORY[name]()) or 0.0)
    finally:
        tracemalloc.stop()
        gc.enable()
    assert len(seen) == 10
    assert seen[0] == seen[4] == seen[9]


@pytest.mark.parametrize(
    ("name", "solver"),
    [
        *[("torch", s) for s in ("trust-region", "newton-krylov", "curveball", "lbfgs", "adam")],
        *[(name, s) for name in ("numpy", "jax") for s in ("newton-krylov", "lbfgs")],
    ],
)
def test_memory_is_flat_over_a_thousand_steps(name, solver):
    oracle, start, data = problem(name)

    def run(look):
        osculant.fit(
            oracle,
            start,
            osculant.Batches(data, 16),
            solver=solver,
            steps=1000,
            evaluation=osculant.Evaluation(look, every=100),
        )

    assert_flat(name, run)


@pytest.mark.parametrize("name", ["TrustRegion", "NewtonKrylov"])
def test_memory_is_flat_over_a_thousand_steps_of_torchs_own_loop(name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from osculant.adapters import torch_adapter

    module = torch.nn.Linear(3, 1, dtype=torch.float64)
    inputs, targets = torch.asarray(X), torch.asarray(Y)[:, None]
    optimizer = getattr(torch_adapter, name)(module.parameters())

    def run(look):
        for step in range(1, 1001):
            optimizer.step(lambda: torch.nn.functional.mse_loss(module(inputs), targets))
            if step % 100 == 0:
                look()

    assert_flat("torch", run)


# Compiled once -----------------------------------------------------------------------------


def test_the_step_is_compiled_once():
    pytest.importorskip("jax", reason="JAX is not installed")
    traces = []

    def counted(z, y):
        traces.append(z.shape)
        return loss(z, y)

    oracle, start, data = problem("jax", counted)

    def run(**options):
        before = len(traces)
        batches = osculant.Batches(data, 16, drop_last=options.pop("drop_last", True))
        osculant.fit(oracle, start, batches, solver="trust-region", **options)
        return len(traces) - before

    once = run(steps=1)
    assert once > 0
    assert run(epochs=5) == 0
    assert run(epochs=2, evaluation=lambda w: 0.0, seed=3) == 0
    oracle, *_ = problem("jax", counted)  # an equal one
    assert run(epochs=2) == 0


# Donated -----------------------------------------------------------------------------------


class Kept(NamedTuple):
    """The state of gradient descent, and more."""

    x: Any
    value: Any
    grad: Any
    status: Any
    counts: Any
    slots: Any
    target: Any
    last: Any
    same: Any


class Keeping(SGD):
    """Gradient descent whose states hold on to the data, the last start, and one array twice."""

    def init(self, oracle, x, *data):
        return Kept(*super().init(oracle, x), x, x, x)

    def refresh(self, oracle, state, batches):
        return state._replace(last=state.x, same=state.x)

    def step(self, oracle, state, target):
        x, *new = super().step(oracle, state, target)
        seen = state.target - target + state.last - state.same + state.grad * state.value
        return Kept(x + 1e-3 * seen, *new, target, state.x, state.x)  # all are arguments


def quadratic():
    """The oracle of |w - c|^2 in JAX, its start, and two batches."""
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    start = jax.numpy.zeros(3)
    batches = [(jax.numpy.ones(3),), (jax.numpy.arange(3.0),)]
    return osculant.oracle(lambda w, c: ((w - c) ** 2).sum(), start), start, batches


def test_nothing_that_anybody_holds_is_donated():
    oracle, start, batches = quadratic()

    def run(**options):
        return osculant.fit(oracle, start, batches, solver=Keeping(), epochs=3, **options)

    seen, best = [], osculant.Evaluation(lambda w: seen.append(w) or 0.0, every=1, patience=4)
    solution, eager = run(), run(jit=False)
    shown = []
    run(callback=lambda intermediate_result: shown.append(intermediate_result))
    stopped = run(evaluation=best)
    np.testing.assert_allclose(solution.x, eager.x, rtol=1e-12)
    assert not start.is_deleted() and not any(c.is_deleted() for (c,) in batches)
    for state in (solution.state, stopped.state, *(each.state for each in shown)):
        assert not any(leaf.is_deleted() for leaf in named_leaves(state).values())
    np.testing.assert_array_equal(stopped.x, seen[0])
    np.testing.assert_array_equal(shown[0].x, seen[0])
    batches.append((batches[0][0] * np.nan,))
    failed = run()
    assert failed.status is osculant.Status.NOT_FINITE and np.isfinite(failed.jac).all()


def test_the_start_of_a_bare_run_stays():
    oracle, start, [batch, _] = quadratic()
    drive.minimize(oracle, start, solver=Keeping(learning_rate=0.1), data=batch, maxiter=5)
    assert not start.is_deleted() and not batch[0].is_deleted()


@pytest.mark.parametrize("shown", [False, True])
def test_a_step_takes_the_memory_of_the_last_state_unless_that_is_shown(shown):
    oracle, start, [batch, _] = quadratic()
    callback = (lambda intermediate_result: None) if shown else None
    run = Run(oracle, start, osculant.LBFGS(), gtol=None, callback=callback)
    run.advance(*batch)
    old = run.state
    run.advance(*batch)
    gone = {name for name, leaf in named_leaves(old).items() if leaf.is_deleted()}
    assert not gone & {"x", "value", "grad"}
    assert ("memory.pairs.S" in gone) is not shown and bool(gone) is not shown


@pytest.mark.parametrize("method", ["lbfgs", "auto", "trust-region"])
def test_eager_steps_write_pairs_where_the_last_ones_were(backend, method):
    """Unless somebody may hold them: a callback, or whoever made the first state."""
    if backend.__name__.endswith("jax_backend"):
        pytest.skip("a compiled step is tested above")
    x = backend.from_numpy(np.linspace(-1.0, 1.0, 8))
    oracle = osculant.oracle(lambda x: (x**4).sum() + (x**2).sum() / 2, x)
    solver = as_solver(method).deterministic()

    def rows(state):
        return (state.lbfgs if method == "auto" else state).memory.pairs.S

    def run(**options):
        run = Run(oracle, x, solver, gtol=None, **options)
        states = [run.state]
        for _ in range(5):
            run.advance()
            states.append(run.state)
        return states

    own, shown, eager = run(), run(callback=print), run(jit=False)
    assert rows(own[5]) is rows(own[1]) and rows(own[1]) is not rows(own[0])
    assert not backend.to_numpy(rows(own[0])).any()
    for states in (shown, eager):
        assert len({id(rows(state)) for state in states}) > 1
        np.testing.assert_array_equal(*(backend.to_numpy(s[5].x) for s in (own, states)))
    again = solver.step(oracle, shown[2])  # is still what it was
    np.testing.assert_array_equal(backend.to_numpy(rows(again)), backend.to_numpy(rows(shown[3])))


@pytest.mark.parametrize("inner", ["cg", "cr"])
def test_pairs_that_precondition_stay_while_new_ones_are_gathered(inner):
    x = np.linspace(-1.0, 1.0, 8)
    oracle = osculant.oracle(lambda x: (x**4).sum() + (np.arange(1.0, 9.0) * x**2).sum() / 2, x)
    method = osculant.NewtonCG(inner=inner, memory=3, forcing=1e-6, quasi_newton=False)
    options = {"method": method, "maxiter": 4}
    donated, copied = (osculant.minimize(oracle, x, jit=jit, **options) for jit in (True, False))
    np.testing.assert_array_equal(donated.x, copied.x)


def test_pairs_of_another_run_are_not_taken():
    """A function may step a run of its own, in a step that was given its state for good."""
    inner = osculant.oracle(lambda x: ((x - 1) ** 4).sum(), np.zeros(3))
    solver = osculant.LBFGS().deterministic()
    first = solver.step(inner, solver.init(inner, np.zeros(3)))
    before = first.memory.pairs.S.copy()

    def fun(x):
        assert solver.step(inner, first).memory.pairs.S is not first.memory.pairs.S
        return (x**2).sum()

    osculant.minimize(fun, np.ones(2), method="lbfgs")
    np.testing.assert_array_equal(first.memory.pairs.S, before)


def test_torchs_own_loop_writes_pairs_where_the_last_ones_were():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from osculant.adapters import torch_adapter

    x = torch.nn.Parameter(torch.linspace(-1, 1, 8))
    optimizer = torch_adapter.SolverOptimizer([x], osculant.LBFGS())
    seen = []
    for _ in range(4):
        optimizer.step(lambda: (x**4).sum() + (x**2).sum())
        seen.append(optimizer.state[x]["memory.pairs.S"])
    assert seen[1] is seen[2] is seen[3] and seen[0].any()


def test_donated_memory_is_used():
    """L-BFGS keeps 10 pairs: the compiled step writes them where the last ones were."""
    oracle, start, [batch, _] = quadratic()
    run = Run(oracle, start, osculant.LBFGS(memory=10), gtol=None)
    kept, rest = run.parted()
    compiled = run.compiled.lower(run.solver, oracle, False, start[0], kept, rest, *batch).compile()
    assert compiled.memory_analysis().alias_size_in_bytes >= 2 * 10 * start.nbytes


def test_the_default_solver_moves_no_pairs():
    """They pass through two choices of a method: a branch of ``cond`` copies what it returns."""
    jax = pytest.importorskip("jax")
    x = jax.numpy.ones(1000)
    oracle = osculant.oracle(lambda x: (x**4).sum(), x)
    solver = osculant.Auto(lbfgs=osculant.LBFGS(memory=7)).deterministic()
    step = jax.jit(lambda state: solver.step(oracle, state), donate_argnums=0)
    program = step.lower(solver.init(oracle, x)).compile().as_text()
    assert "[7,1000]" in program and not re.search(r"\[7,1000\]\S* copy\(", program)
