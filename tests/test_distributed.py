"""One function on several processes, and on several devices of JAX.

Run as a program, this file is one of two processes: it writes what it finds to a file, and the
tests compare the files of both with what one process finds on all of the data.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest

import osculant
from osculant import ProductUnavailable
from osculant.core.drive import run as run_module
from osculant.testing import SCENARIOS, ConformanceError, check_oracle

try:
    import torch
    import torch.distributed as dist

    from osculant.adapters import torch_adapter
    from osculant.backends import torch_backend
    from osculant.backends.distributed import DataParallel
except ModuleNotFoundError:
    torch = None

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "data_parallel.py"
#: Rows of each process, and the batches of its `fit`: three in an epoch on both.
SHARDS, BATCHES = [slice(0, 11), slice(11, 36)], [3, 8]
#: Most iterations: until they converge, or, where that takes hundreds, a few.
METHODS = {
    "lbfgs": 100,
    "trust-region": 100,
    "newton-krylov": 100,
    "newton-cg": 100,
    "curveball": 20,
    "hessian-free": 20,
}
#: With these weights the mean of a function times these scales is the function.
WEIGHTS, SCALES = [1, 3], [2.0, 2 / 3]

needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")


# What both sides compute -----------------------------------------------------------------------


def model(params, X):
    return torch.tanh(X @ params["W"]) @ params["v"]


def loss(z, y):
    return torch.mean(torch.nn.functional.softplus(-y * z))


def problem():
    """Return the inputs and targets of all processes, and where to start."""
    random = np.random.default_rng(0)
    X, W, v, noise = (random.standard_normal(s) for s in [(36, 3), (3, 2), 2, 36])
    y = np.sign(X[:, 0] * X[:, 1] + 0.3 * noise)
    X, y, W, v = (torch.tensor(a) for a in (X, y, W, v))
    return (X, y), {"W": W, "v": v}


def composite(params):
    return osculant.oracle(model=model, loss=loss, params=params)


def answers(oracle, x, data):
    """Return everything that a point has to say, by name."""
    V = torch.cos(torch.arange(3.0 * len(x), dtype=x.dtype)).reshape(len(x), 3)
    v, point = V[:, 0], oracle.at(x, *data)
    found = {"value": point.value, "grad": point.grad, "alone": oracle.value(x, *data)}
    for product in ("hvp", "vhv", "ggn", "vgv", "third"):
        found[f"{product}(v)"] = getattr(point, product)(v)
        found[f"{product}(V)"] = getattr(point, product)(V)
    found["dhvp"], found["H"] = point.dhvp(v, V), point.H @ V
    return found | {f"taylor{order}": torch.stack(point.taylor(v, order)) for order in (2, 4)}


def solved(oracle, params, data, method):
    """Return where a method comes on the function with weight decay, which has a minimum."""
    decayed, most = osculant.Regularized(oracle, 0.01), METHODS[method]
    return osculant.minimize(decayed, params, args=data, method=method, atol=1e-9, maxiter=most)


def flat(oracle, tree):
    return oracle.ravel(tree).numpy()


# One of two processes -------------------------------------------------------------------------


def scaled(scenario, params, kind):
    """Return the oracle of c f with weight w, so that the weighted mean is f, and no other."""
    c = SCALES[dist.get_rank()]
    if scenario.fun is not None:
        oracle = osculant.oracle(lambda *args: c * scenario.fun(*args), params)
    else:
        oracle = osculant.oracle(
            model=scenario.model, loss=lambda *args: c * scenario.loss(*args), params=params
        )
    return kind(oracle, samples=WEIGHTS[dist.get_rank()])


def broken_laws(kind, scenarios):
    """Return the laws that an oracle breaks."""
    try:
        check_oracle(
            lambda scenario, params: scaled(scenario, params, kind),
            scenarios=[SCENARIOS[name] for name in scenarios],
            dtypes=["float64"],
            convert=torch_backend.from_numpy,
        )
    except ConformanceError as error:
        return sorted({str(result.case.law) for result in error.report.failures})
    return []


def mutants():
    class Unweighted(DataParallel):
        def weight(self, data):
            return 1.0

    def local(name):
        class Local(DataParallel):
            def at(self, x, *data):
                point = super().at(x, *data)
                setattr(point, name, getattr(point._local, name))
                return point

        return Local

    products = ("hvp", "vhv", "ggn", "vgv", "third", "dhvp", "taylor")
    return {"weight": Unweighted} | {name: local(name) for name in products}


def message_of(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def findings(rank):
    """Yield names and arrays or texts."""
    (X, y), params = problem()
    local = (X[SHARDS[rank]], y[SHARDS[rank]])
    oracle = DataParallel(composite(params))
    x = oracle.ravel(params)
    for name, answer in answers(oracle, x, local).items():
        yield f"mean {name}", answer
    total = DataParallel(
        osculant.oracle(model=model, loss=lambda z, y: loss(z, y) * len(y), params=params),
        reduction="sum",
    )
    for name, answer in answers(total, x, local).items():
        yield f"sum {name}", answer
    everything = (X, y) if rank else (X[:0], y[:0])
    for name, answer in answers(oracle, x, everything).items():
        yield f"none {name}", answer

    for method in METHODS:
        yield f"solve {method}", flat(oracle, solved(oracle, params, local, method).x)
    batches = osculant.Batches(local, BATCHES[rank], seed=rank)
    fitted = osculant.fit(oracle, params, batches, solver="newton-krylov", epochs=4)
    yield "fit", flat(oracle, fitted.x)
    yield "adapter", adapted(rank)
    spec = importlib.util.spec_from_file_location("data_parallel", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    yield "example", np.array(example.train(epochs=10).history["fun"])

    yield "laws", ",".join(broken_laws(DataParallel, ["cubic", "tree", "softmax", "mlp"]))
    for name, mutant in mutants().items():
        yield f"mutant {name}", ",".join(broken_laws(mutant, ["cubic", "softmax"]))

    yield "nit at a limit of time", np.array(limited(rank, oracle, params, local).nit)
    numbers = count()  # of which that of one process rises, while their mean falls
    watched = osculant.Evaluation(lambda _: next(numbers) * (rank - 0.6), every=1, patience=2)
    patient = osculant.fit(oracle, params, [local], solver="sgd", steps=8, evaluation=watched)
    yield "nit with patience", np.array(patient.nit)

    seeds, base = [], composite(params)
    base.held = lambda seed, track: seeds.append(seed)
    DataParallel(base).held(7)
    yield "seed of the masks", np.array(seeds)

    def two(size):
        return DataParallel(osculant.oracle(lambda x: x @ x, torch.ones(size)), samples=1)

    yield "other values", message_of(lambda: osculant.minimize(two(2), torch.ones(2) * rank))
    yield "other shapes", message_of(lambda: two(2 + rank).at(torch.ones(2 + rank)))
    group = dist.new_group([0])  # a call of all processes
    yield "a group", message_of(lambda: DataParallel(base, group=group).value(x, *local))
    yield "an error", message_of(lambda: failing(rank))


def adapted(rank):
    (X, y), _ = problem()
    X, y = X[SHARDS[rank]], y[SHARDS[rank]]
    return trained(X, y, lambda oracle: DataParallel(oracle, samples=lambda: len(y)))


def trained(X, y, around):
    """Return a linear model's parameters after Gauss-Newton steps as torch.optim takes them."""
    linear = torch.nn.Linear(3, 1, dtype=torch.float64)
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(torch.arange(4.0).double(), linear.parameters())
    solver = osculant.TrustRegion(curvature="gauss-newton")
    optimizer = torch_adapter.SolverOptimizer(linear.parameters(), solver, around=around)
    for _ in range(3):
        optimizer.step(lambda: ((z := linear(X)[:, 0]), loss(z, y)))
    return torch.nn.utils.parameters_to_vector(linear.parameters()).detach()


def limited(rank, oracle, params, data):
    """Return a run to a limit of time, which the clock of one process reaches before the other."""
    clock = run_module.time.monotonic
    run_module.time.monotonic = lambda: clock() * (1 + 3 * rank)
    try:
        return osculant.minimize(
            osculant.Regularized(oracle, 0.1),
            params,
            args=data,
            method="sgd",
            atol=0,
            max_seconds=0.5,
            maxiter=10**6,
        )
    finally:
        run_module.time.monotonic = clock


def failing(rank):
    """Minimise a function that raises on one process after some evaluations."""
    calls = count()

    def fun(x):
        if next(calls) == 5 and rank:
            raise ArithmeticError("only here")
        return (x**4).sum()

    try:
        oracle = DataParallel(osculant.oracle(fun, torch.ones(2)), samples=1)
        osculant.minimize(oracle, torch.ones(2), method="newton-cg")
    finally:
        if rank:
            dist.destroy_process_group()  # as the end of the process does


def main(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = {name: np.asarray(answer) for name, answer in findings(rank)}
    np.savez(f"{folder}/{rank}.npz", **found)
    if rank == 0:
        dist.destroy_process_group()


# Two processes against one --------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return what each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-W", "error", __file__]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([*command, str(rank), str(folder)], env=environment, stderr=-1, text=True)
        for rank in (0, 1)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [dict(np.load(folder / f"{rank}.npz")) for rank in (0, 1)]


@needs_torch
def test_the_processes_have_the_same_bits(both):
    one, other = both
    assert one.keys() == other.keys()
    differing = {name for name in one if not np.array_equal(one[name], other[name])}
    assert differing == {"seed of the masks", "other shapes", "a group", "an error"}


@needs_torch
def test_answers_are_those_of_all_samples(both):
    data, params = problem()
    oracle = composite(params)
    for name, expected in answers(oracle, oracle.ravel(params), data).items():
        close = {"rtol": 1e-12, "atol": 1e-13, "err_msg": name}
        np.testing.assert_allclose(both[0][f"mean {name}"], expected, **close)
        np.testing.assert_allclose(both[0][f"sum {name}"], 36 * expected, **close)
        np.testing.assert_allclose(both[0][f"none {name}"], expected, **close)


@needs_torch
@pytest.mark.parametrize("method", METHODS)
def test_solutions_are_those_of_all_samples(both, method):
    data, params = problem()
    oracle = composite(params)
    solution = solved(oracle, params, data, method)
    assert solution.success == (METHODS[method] == 100)
    np.testing.assert_allclose(both[0][f"solve {method}"], flat(oracle, solution.x), atol=1e-7)


@needs_torch
def test_fit_takes_the_steps_of_the_joined_batches(both):
    data, params = problem()
    shards = [
        osculant.Batches(tuple(a[rows] for a in data), size, seed=rank)
        for rank, (rows, size) in enumerate(zip(SHARDS, BATCHES, strict=True))
    ]
    assert {len(shard) for shard in shards} == {3}

    def joined(epoch):
        for parts in zip(*(shard.epoch(epoch) for shard in shards), strict=True):
            yield tuple(torch.cat(arrays) for arrays in zip(*parts, strict=True))

    oracle = composite(params)
    solution = osculant.fit(oracle, params, joined, solver="newton-krylov", epochs=4)
    np.testing.assert_allclose(both[0]["fit"], flat(oracle, solution.x), rtol=1e-8)


@needs_torch
def test_the_adapter_takes_an_oracle_around_the_closures(both):
    data, _ = problem()
    np.testing.assert_allclose(both[0]["adapter"], trained(*data, around=None), rtol=1e-9)


@needs_torch
def test_the_example_trains(both):
    losses = both[0]["example"]
    assert losses[-1] < losses[0] / 3


@needs_torch
def test_the_laws_hold_on_two_processes_and_catch_mistakes(both):
    assert both[0]["laws"] == ""
    mutants = {name: laws for name, laws in both[0].items() if name.startswith("mutant")}
    assert len(mutants) == 8
    for name, laws in mutants.items():
        assert laws != "", f"{name} survives"


@needs_torch
def test_nothing_local_ends_a_run(both):
    assert both[0]["nit at a limit of time"] >= 1
    assert both[0]["nit with patience"] == 8


@needs_torch
def test_mistakes_are_errors_on_all_processes(both):
    for found in both:
        values, shapes = str(found["other values"]), str(found["other shapes"])
        assert values.startswith("ValueError: the processes start from different parameters")
        assert shapes.startswith("ValueError: the processes have parameters of different names")


@needs_torch
def test_a_group_leaves_the_others_alone(both):
    assert both[0]["a group"] == "nothing was raised"
    assert both[1]["a group"] == "RuntimeError: this process is not in the group"


@needs_torch
def test_an_error_is_raised_where_it_is_and_ends_the_others(both):
    assert both[1]["an error"] == "ArithmeticError: only here"
    assert str(both[0]["an error"]).startswith("RuntimeError")


# A single process ------------------------------------------------------------------------------


@pytest.fixture
def alone():
    """A group of one process."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_laws(alone):
    def plain(scenario, params):
        if scenario.fun is not None:
            return osculant.oracle(scenario.fun, params)
        return osculant.oracle(model=scenario.model, loss=scenario.loss, params=params)

    report = check_oracle(
        lambda scenario, params: DataParallel(plain(scenario, params), samples=3),
        convert=torch_backend.from_numpy,
        dtypes=["float64"],
        peer=plain,
    )
    outcomes = {r.case.law.name for r in report.results if r.outcome == "passed"}
    assert {"closed_form_vgv", "taylor_derivatives", "as_autodiff", "declared"} <= outcomes


@pytest.fixture
def collectives(alone, monkeypatch):
    """The lengths of what is reduced."""
    lengths = []

    def all_reduce(tensor, *args, original=dist.all_reduce if torch else None, **options):
        lengths.append(tensor.numel())
        return original(tensor, *args, **options)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    return lengths


def test_collectives_are_one_for_each_answer(collectives):
    data, params = problem()
    oracle = DataParallel(composite(params))
    x = oracle.ravel(params)
    n, V = len(x), torch.ones(len(x), 3, dtype=x.dtype)
    point = oracle.at(x, *data)
    assert collectives == [4]  # the comparison of the start
    for ask, length in {
        lambda: (point.grad, point.value, point.grad, point.taylor(V[:, 0], 0)): n + 2,
        lambda: point.hvp(V): 3 * n + 1,
        lambda: point.G @ V[:, 0]: n + 1,
        lambda: point.vhv(V): 3 + 1,
        lambda: point.vgv(V[:, 0]): 1 + 1,
        lambda: point.third(V): 3 + 1,
        lambda: point.dhvp(V[:, 0], V): 3 * n + 1,
        lambda: point.taylor(V[:, 0], 4): 5 + 1,
        lambda: oracle.value(x, *data): 1 + 1,
    }.items():
        collectives.clear()
        ask()
        assert collectives == [length]


@pytest.mark.parametrize("method", ["lbfgs", "newton-cg", "newton-krylov"])
def test_collectives_of_a_run_are_its_evaluations(collectives, method):
    data, params = problem()
    oracle = osculant.Regularized(DataParallel(composite(params)), 0.3)
    solution = osculant.minimize(oracle, params, args=data, method=method, maxiter=20)
    evaluations = solution.nfev + solution.njev + solution.nhev + solution.nggn
    assert len(collectives) == 1 + evaluations


def test_what_needs_outputs_or_layers_says_so(alone):
    data, params = problem()
    oracle = DataParallel(composite(params))
    for method in ("lm", "kfac"):
        with pytest.raises(ProductUnavailable, match="outputs lie on several processes"):
            osculant.minimize(oracle, params, args=data, method=method)
    solver = osculant.CurveBall(preconditioner=osculant.Kronecker())
    with pytest.raises(ProductUnavailable, match="layers lie on several processes"):
        osculant.fit(oracle, params, [data], solver=solver)


def test_bad_options_are_errors(alone):
    (X, y), params = problem()
    oracle = composite(params)
    x = oracle.ravel(params)
    with pytest.raises(TypeError, match=r"oracle of tensors, not of .*numpy"):
        DataParallel(osculant.oracle(lambda x: x @ x, np.ones(2)))
    with pytest.raises(ValueError, match="must be 'mean' or 'sum'"):
        DataParallel(oracle, reduction="max")
    with pytest.raises(ValueError, match="leave samples out"):
        DataParallel(oracle, reduction="sum", samples=3)
    with pytest.raises(ValueError, match="there cannot be -1 samples"):
        DataParallel(oracle, samples=-1).value(x, X, y)
    with pytest.raises(TypeError, match="give DataParallel samples="):
        DataParallel(osculant.oracle(lambda x: x @ x, x)).at(x)
    counts = DataParallel(oracle, samples=lambda X, y: float(y.abs().sum()))
    torch.testing.assert_close(counts.value(x, X, y), oracle.value(x, X, y))


@needs_torch
def test_a_group_is_needed():
    with pytest.raises(RuntimeError, match=r"call torch\.distributed\.init_process_group first"):
        DataParallel(osculant.oracle(lambda x: x @ x, torch.ones(2)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
