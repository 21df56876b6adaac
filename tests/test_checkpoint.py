"""A run that is killed ends as it would have: checkpoints are whole, complete and checked."""

import json
import math
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

import osculant
from osculant.checkpoint import replace_file
from osculant.core.checkpoint import describe, named_leaves, rebuild

safetensors = pytest.importorskip("safetensors", reason="the extra 'checkpoint' is not installed")

SOLVERS = {
    "newton-krylov": osculant.NewtonKrylov(),
    "full": osculant.NewtonKrylov(global_gradient="full"),
    "trust-region": osculant.TrustRegion(curvature="gauss-newton"),
    "newton-cg": osculant.NewtonCG(),
    "lbfgs": osculant.LBFGS(),
    "auto": osculant.Auto(),
    "adam": osculant.Adam(learning_rate=0.1),
}


def model(p, X):
    return X @ p["v"] - (X**2) @ p["w"]


def loss(z, y):
    return ((z - y) ** 2).mean()


def problem(backend, dtype="float64"):
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 3)).astype(dtype)
    data = tuple(backend.from_numpy(a) for a in (X, np.sin(X @ np.ones(3, dtype))))
    start = {name: backend.from_numpy(np.full(3, 0.1, dtype)) for name in ("v", "w")}
    oracle = osculant.oracle(model=model, loss=loss, params=start)
    return oracle, start, osculant.Batches(data, 20, seed=2)


def train(backend, path=None, *, every=1, dtype="float64", **options):
    oracle, start, batches = problem(backend, dtype)
    checkpoint = None if path is None else osculant.Checkpoint(path, every=every)
    options = {"solver": "trust-region", "epochs": 4, **options}
    return osculant.fit(
        oracle, start, options.pop("batches", batches), checkpoint=checkpoint, **options
    )


class Killed(Exception):
    pass


def killed_at(step):
    """A callback that ends the process, as far as a test can, in the middle of a step."""

    def callback(intermediate_result):
        if intermediate_result.nit == step:
            raise Killed

    return callback


def assert_same(a, b, backend):
    """Equal to the last bit, in all but the time."""
    assert (a.status, a.nit, a.message) == (b.status, b.nit, b.message)
    assert (a.nfev, a.njev, a.nhev, a.nggn) == (b.nfev, b.njev, b.nhev, b.nggn)
    np.testing.assert_equal(a.fun, b.fun)
    for one, other in ((a.x, b.x), (a.jac, b.jac), (named_leaves(a.state), named_leaves(b.state))):
        assert list(one) == list(other)
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(
                backend.to_numpy(one[name]), backend.to_numpy(other[name]), err_msg=name
            )
    assert list(a.history) == list(b.history)
    for name in set(a.history) - {"seconds"}:
        np.testing.assert_array_equal(a.history[name], b.history[name], err_msg=name)


# A resumed run -----------------------------------------------------------------------------


@pytest.mark.parametrize("solver", list(SOLVERS))
@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_resumed_run_is_the_run_to_the_last_bit(backend, solver, step, tmp_path):
    """With 3 batches an epoch, killed within the first, the second, and at the end of one."""
    path = tmp_path / "run.safetensors"
    whole = train(backend, solver=SOLVERS[solver])
    with pytest.raises(Killed):
        train(backend, path, solver=SOLVERS[solver], callback=killed_at(step))
    assert_same(train(backend, path, solver=SOLVERS[solver]), whole, backend)


def test_checkpoints_by_epoch_go_back_to_its_end(backend, tmp_path):
    path = tmp_path / "run.safetensors"
    whole = train(backend)
    with pytest.raises(Killed):
        train(backend, path, every=None, callback=killed_at(8))
    seen = []
    resumed = train(
        backend,
        path,
        every=None,
        callback=lambda intermediate_result: seen.append(intermediate_result.nit),
    )
    assert seen[0] == 7
    assert_same(resumed, whole, backend)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_and_device_are_restored(backend, dtype, tmp_path):
    path = tmp_path / "run.safetensors"
    first = train(backend, path, dtype=dtype, epochs=1)
    second = train(backend, path, dtype=dtype, epochs=2)
    assert second.nit == 2 * first.nit
    for name, leaf in named_leaves(first.state).items():
        restored = named_leaves(second.state)[name]
        assert restored.dtype == leaf.dtype and restored.device == leaf.device, name


def test_a_finished_run_is_given_back_and_goes_on_if_there_is_more_to_do(tmp_path):
    backend = osculant.backends.get("numpy")
    path = tmp_path / "run.safetensors"
    first = train(backend, path, epochs=2)
    again = train(backend, path, epochs=2, callback=killed_at(1))
    assert_same(again, first, backend)
    assert again.history == first.history
    assert_same(train(backend, path, epochs=4), train(backend, epochs=4), backend)


def test_samples_evaluation_and_failures_are_resumed(backend, tmp_path):
    """Cursors of both samplers, the best parameters so far, and the last good ones."""
    *_, batches = problem(backend)
    X, y = next(iter(batches.epoch(0)))
    poison = [(X, y), (X, y), *[(X, y * math.nan)] * 3]

    never_better = osculant.Evaluation(lambda p: 1.0, every=1, patience=6)

    class Sampled(osculant.SGD):
        samples = frozenset({"ratio"})

        def step(self, oracle, state, *data):
            return super().step(oracle, state, *data[0].ratio)

    for options in (
        {"evaluation": never_better},
        {"batches": poison, "epochs": 1, "solver": "sgd"},
        {"batches": [(X, y)], "ratio": batches, "solver": Sampled(learning_rate=0.01), "epochs": 8},
    ):
        path = tmp_path / f"{len(os.listdir(tmp_path))}.safetensors"
        whole = train(backend, **options)
        with pytest.raises(Killed):
            train(backend, path, callback=killed_at(4), **options)
        assert_same(train(backend, path, **options), whole, backend)


def test_dropout_and_running_statistics_are_resumed(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    def run(path=None, **options):
        torch.manual_seed(0)
        layers = torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3)
        model = torch.nn.Sequential(*layers, torch.nn.Linear(8, 1)).double()
        oracle = osculant.oracle(model=model, loss=torch.nn.functional.mse_loss)
        inputs = torch.linspace(-1, 1, 60, dtype=torch.float64).reshape(20, 3)
        checkpoint = None if path is None else osculant.Checkpoint(path, every=1)
        torch.manual_seed(random.randrange(1000))
        solution = osculant.fit(
            oracle,
            dict(model.named_parameters()),
            osculant.Batches((inputs, inputs.sum(dim=1, keepdim=True)), 10),
            solver="trust-region",
            epochs=3,
            checkpoint=checkpoint,
            **options,
        )
        return solution, dict(model.named_buffers())

    whole, buffers = run()
    with pytest.raises(Killed):
        run(tmp_path / "run", callback=killed_at(3))
    resumed, restored = run(tmp_path / "run")
    assert_same(resumed, whole, osculant.backends.get("torch"))
    assert buffers["1.num_batches_tracked"] == 6
    for name, buffer in buffers.items():
        assert torch.equal(restored[name], buffer), name


# Killed for good ---------------------------------------------------------------------------

CHILD = """
import os, signal, sys
import numpy as np
import osculant

name, path, moment = sys.argv[1], sys.argv[2], int(sys.argv[3])
passed = 0

def moments(function):
    def counted(*arguments):
        global passed
        passed += 1
        if passed == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return counted

os.fsync, os.replace = moments(os.fsync), moments(os.replace)
backend = osculant.backends.get(name)
X = np.random.default_rng(0).normal(size=(60, 3))
data = tuple(backend.from_numpy(a) for a in (X, np.sin(X[:, 0])))
w = backend.from_numpy(np.zeros(3))
oracle = osculant.oracle(lambda w, X, y: ((X @ w - y) ** 2).mean() + (w**4).sum(), w)
solution = osculant.fit(
    oracle, w, osculant.Batches(data, 20, seed=1), solver="newton-krylov", epochs=4,
    checkpoint=osculant.Checkpoint(path, every=1) if path else None,
    callback=moments(lambda intermediate_result: None),
)
print(backend.to_numpy(solution.x).tobytes().hex())
print(np.array(solution.history["fun"]).tobytes().hex())
"""


def child(*arguments):
    """Run to the end, or to where the process kills itself; return what it was and printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JAX_ENABLE_X64": "1"}
    process = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, arguments)],
        capture_output=True,
        env=environment,
        text=True,
    )
    return process.returncode, process.stdout


def test_a_process_that_is_killed_at_any_moment(backend, tmp_path):
    """Killed where chance has it, within a step or a write, again and again, and let go at last.

    A step has four moments: its callback, the flush of the new file, its renaming, and the flush
    of the folder.
    """
    name = backend.__name__.rpartition(".")[-1].removesuffix("_backend")
    path, chance = tmp_path / "run.safetensors", random.Random(name)
    code, expected = child(name, "", 0)
    assert code == 0
    for _ in range(3):
        code, _ = child(name, path, chance.randint(5, 16))
        assert code == -signal.SIGKILL
        assert osculant.Checkpoint(path).load().facts["place"]["nit"] > 0
    (tmp_path / "run.safetensors.tmp").write_bytes(b"cut short")
    assert child(name, path, 0) == (0, expected)


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_write_that_is_cut_short_leaves_the_old_file(call, tmp_path, monkeypatch):
    path = tmp_path / "file"
    replace_file(path, b"old")

    def cut(*arguments):
        raise Killed

    if call == "write":
        monkeypatch.setattr("builtins.open", cut)
    else:
        monkeypatch.setattr(os, call, cut)
    with pytest.raises(Killed):
        replace_file(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    replace_file(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]


def test_the_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (calls.append("fsync"), fsync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    replace_file(tmp_path / "file", b"content")
    assert calls == ["fsync", "replace", "fsync"]


# A checkpoint of something else ------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"solver": "adam"}, r"solver.type: TrustRegion in the checkpoint, Adam here"),
        (
            {"solver": osculant.TrustRegion(radius=2.0)},
            "solver.radius: None in the checkpoint, 2.0",
        ),
        ({"dtype": "float32"}, "parameters.dtype: float64 in the checkpoint, float32 here"),
        ({"seed": 1}, "seed: 0 in the checkpoint, 1 here"),
        ({"batches": [(1.0,)]}, "batches.gradient.seed: 2 in the checkpoint, nothing here"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(change, message, tmp_path):
    backend = osculant.backends.get("numpy")
    path = tmp_path / "run.safetensors"
    train(backend, path, epochs=1)
    content = path.read_bytes()
    with pytest.raises(osculant.CheckpointMismatch, match=message):
        train(backend, path, **change)
    assert path.read_bytes() == content


def test_a_checkpoint_of_other_shapes_is_refused(tmp_path):
    def run(n):
        oracle = osculant.oracle(lambda x: (x**2).sum(), np.ones(n))
        return osculant.fit(oracle, np.ones(n), [()], solver="sgd", checkpoint=tmp_path / "run")

    run(2)
    with pytest.raises(
        osculant.CheckpointMismatch, match=r"shapes: \[\[2\]\] in the .* \[\[3\]\] here"
    ):
        run(3)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\xff" * 100])
def test_a_file_that_is_no_checkpoint_is_refused(content, tmp_path):
    path = tmp_path / "run"
    path.write_bytes(content)
    with pytest.raises(osculant.DataFormatError, match="run is not a checkpoint"):
        train(osculant.backends.get("numpy"), path)
    assert path.read_bytes() == content


def test_a_truncated_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run"
    train(osculant.backends.get("numpy"), path, epochs=1)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(osculant.DataFormatError, match="run is not a checkpoint"):
        train(osculant.backends.get("numpy"), path)


def test_checkpoints_are_plain_tensors_and_json(tmp_path):
    from safetensors import safe_open

    path = tmp_path / "run"
    train(osculant.backends.get("numpy"), path, epochs=1)
    with safe_open(path, framework="numpy") as file:
        facts = json.loads(file.metadata()["osculant"])
        assert {"state/x", "state/counts.hvps", "history/fun"} <= set(file.keys())
    assert facts["run"]["solver"]["type"] == "TrustRegion" and facts["place"]["nit"] == 3


def test_checkpoint_options(tmp_path):
    with pytest.raises(ValueError, match="every is 0"):
        osculant.Checkpoint(tmp_path / "run", every=0)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere for run"):
        osculant.Checkpoint(tmp_path / "nowhere" / "run")


# Names of leaves, and hyper-parameters as plain values ----------------------------------------


def test_leaves_have_names_and_make_the_state_again():
    solver = osculant.Auto()
    oracle = osculant.oracle(lambda x: (x**2).sum(), np.ones(2))
    state = solver.init(oracle, np.ones(2))
    leaves = named_leaves(state)
    assert {"x", "counts.values", "lbfgs.counts.values", "trust_region.radius"} <= set(leaves)
    assert named_leaves(rebuild(state, leaves)) == leaves
    assert "x" not in named_leaves(state._replace(x=None))


def test_hyper_parameters_are_told_apart():
    @dataclass
    class Inner:
        f: object

    def one(x):
        return x

    def other(x):
        return x

    assert describe(osculant.Auto()) == describe(osculant.Auto())
    assert describe(osculant.Auto()) != describe(osculant.Auto(lbfgs=osculant.LBFGS(memory=3)))
    assert describe(Inner(one)) == describe(Inner(one)) != describe(Inner(other))
    assert describe(Inner(np.ones(2))) != describe(Inner(np.zeros(2)))
    assert describe(np.int64(3)) == 3 and type(describe(np.int64(3))) is int
    json.dumps(describe(Inner({"a": (1, None, np.float32(0.5), True)})))
