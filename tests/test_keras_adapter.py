"""Keras models trained by the solvers: on one backend here, on the other in another process."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import osculant
from osculant.core.arrays import Array, like, max_abs, namespace
from osculant.core.result import Counts
from osculant.core.solvers.base import unevaluated

keras = pytest.importorskip("keras", reason="Keras, or the backend it is set to, is not installed")
from osculant.adapters import keras_adapter  # noqa: E402

Dense = keras.layers.Dense
BACKEND = keras.config.backend()
# Keras's own, where it makes a NumPy array of a tensor.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="of the torch backend")
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="of the JAX backend")


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def data(samples=24):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 3))
    return x, np.tanh(x @ [[1.0], [-2.0], [0.5]])


def network(*layers):
    return keras.Sequential([keras.Input((3,)), *layers])


def mlp():
    return network(Dense(4, activation="tanh"), Dense(1))


def compiled(model, solver="sgd", **options):
    keras_adapter.compile(model, solver, **{"loss": "mse", **options})
    return model


def fit(model, *arrays, **options):
    arrays = arrays or data()
    options = {"batch_size": 24, "shuffle": False, "verbose": 0, **options}
    return model.fit(*arrays, **options).history


def values(variables):
    return [keras.ops.convert_to_numpy(v.value).copy() for v in variables]


def assert_same(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 1e-4, "atol": 1e-6, **tolerance})


def backend_arrays(*arrays):
    return tuple(keras.ops.convert_to_tensor(a, dtype="float32") for a in arrays)


@pytest.mark.parametrize("solver", [osculant.NewtonKrylov(), osculant.CurveBall()])
def test_it_is_the_solver_and_nothing_else(solver):
    model, (x, y) = mlp(), data()

    def outputs(params, inputs):
        return model.stateless_call(params, [], inputs)[0]

    def loss(outputs, targets):
        return keras.ops.mean((outputs - targets) ** 2)

    start = list(backend_arrays(*values(model.trainable_variables)))
    batches = [backend_arrays(x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16)]
    oracle = osculant.oracle(model=outputs, loss=loss, params=start)
    solution = osculant.fit(oracle, start, batches, solver=solver, epochs=2)

    compiled(model, solver, metrics=["mae"])
    history = fit(model, batch_size=8, epochs=2, validation_data=(x, y))
    expected = np.reshape(solution.history["fun"], (2, 3)).mean(axis=1)
    assert_same(history["loss"], expected)
    assert_same(values(model.trainable_variables), [np.asarray(p) for p in solution.x])
    value = float(oracle.value(oracle.ravel(solution.x), *backend_arrays(x, y)))
    assert_same([history["val_loss"][-1], model.evaluate(x, y, verbose=0)[0]], [value, value])
    assert set(history) == {"loss", "mae", "val_loss", "val_mae"}


def test_regularizer_and_sample_weights_are_in_the_function():
    model = network(Dense(1, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.1)))
    compiled(model, "newton")
    x, y = data()
    weights = np.linspace(0.5, 2.0, len(x))
    history = fit(model, x, y, sample_weight=weights, epochs=3)
    (w,) = values(model.trainable_variables)
    A = x.T @ (weights[:, None] * x) / len(x) + 0.1 * np.eye(3)
    value = np.mean(weights[:, None] * (x @ w - y) ** 2) + 0.1 * np.sum(w**2)
    assert_same([w], [np.linalg.solve(A, x.T @ (weights[:, None] * y) / len(x))])
    assert_same(history["loss"][-1:], [value])


class ProbeState(NamedTuple):
    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    discrepancy: Array
    previous: Array


@dataclass(frozen=True, kw_only=True)
class Probe(osculant.Solver):
    """Stays where it is, and notes how far the evaluations of a step are from one function's."""

    def init(self, oracle, x, *data):
        zero = like(x, 0.0)
        return ProbeState(**unevaluated(x), discrepancy=zero, previous=zero)

    def step(self, oracle, state, *data):
        x, h = state.x, 3e-3
        v = namespace(x).ones_like(x)
        pt = oracle.at(x, *data)
        difference = (oracle.at(x + h * v, *data).grad - oracle.at(x - h * v, *data).grad) / (2 * h)
        wrong = max_abs(pt.hvp(v) - difference) + abs(oracle.value(x, *data) - pt.value)
        return state._replace(value=pt.value, grad=pt.grad, discrepancy=wrong, previous=state.value)

    def read(self, model):
        state = values(v for v in model.optimizer.variables if v.name == "state")
        return float(state[0]), float(state[-2]), float(state[-1])


def noisy():
    """Return a model with what changes from step to step: Keras's random numbers, and torch's."""
    dropout = [keras.layers.Dropout(0.3, seed=1), keras.layers.Dropout(0.3)]
    norm = keras.layers.BatchNormalization(momentum=0.9)
    return network(Dense(4, activation="tanh"), norm, *dropout, Dense(1))


def test_a_step_sees_one_function_and_moves_what_is_not_trained_once():
    model = compiled(noisy(), Probe())
    (kernel, bias, *_), seen = values(model.trainable_variables), []
    h = np.tanh(data()[0] @ kernel + bias)
    for step in (1, 2):
        fit(model)
        value, discrepancy, previous = Probe().read(model)
        assert discrepancy < 0.1
        assert previous == (seen[-1] if seen else 0.0)
        seen.append(value)
        norm, dropout = model.layers[1:3]
        expected = (1 - 0.9**step) * h.mean(axis=0)
        assert_same(values([norm.moving_mean]), [expected])
        assert values([dropout.seed_generator.state])[0][1] == step
    assert abs(seen[0] - seen[1]) > 1e-2  # another mask
    assert int(values([model.optimizer.iterations])[0]) == 2


def test_nothing_moves_where_the_loss_is_not_finite():
    model = compiled(noisy())
    before = values([*model.trainable_variables, model.layers[1].moving_mean])
    x, y = data()
    assert np.isnan(fit(model, x * np.nan, y)["loss"]).all()
    assert_same(values([*model.trainable_variables, model.layers[1].moving_mean]), before)


def test_state_persists_between_fits_and_in_a_file(tmp_path):
    model = compiled(mlp(), "second-order-adam")
    fit(model, batch_size=8)
    model.save(tmp_path / "model.keras")
    state = values(model.optimizer.variables)
    fit(model, batch_size=8)
    again = keras.models.load_model(tmp_path / "model.keras")
    with pytest.raises(TypeError, match="needs the loss as a function, not its gradient"):
        fit(again)
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.optimizer.solver == osculant.SecondOrderAdam()
    assert_same(values(again.optimizer.variables), state)
    compiled(again, again.optimizer)
    fit(again, batch_size=8)
    assert_same(values(again.trainable_variables), values(model.trainable_variables))
    assert_same(values(again.optimizer.variables), values(model.optimizer.variables))


def test_solvers_with_options_go_through_a_file():
    for solver in (
        osculant.TrustRegion(norm=osculant.norms.Adam(), radius=2.0),
        osculant.CurveBall(preconditioner=osculant.Kronecker()),
        osculant.NewtonKrylov(interval=(0.1, 1.0)),
        osculant.NewtonSummary(),
    ):
        schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
        optimizer = keras_adapter.SolverOptimizer(solver, schedule)
        again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        assert again.solver == solver and hash(again.solver) == hash(solver)
        assert again.get_config() == optimizer.get_config()
    optimizer = keras_adapter.SolverOptimizer(Probe())
    with pytest.raises(ValueError, match=r"cannot hold, Probe\(.*save_weights"):
        optimizer.get_config()


def test_learning_rate_is_the_fraction_of_a_step():
    model, half = compiled(mlp()), mlp()
    half.set_weights(model.get_weights())
    before = values(model.trainable_variables)
    fit(model)
    compiled(half)
    fit(half, callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch: 0.5)])
    whole = values(model.trainable_variables)
    middle = [(a + b) / 2 for a, b in zip(before, whole, strict=True)]
    assert_same(values(half.trainable_variables), middle)


def test_frozen_layers_stay_and_keras_gets_its_training_back():
    model = mlp()
    model.layers[0].trainable = False
    frozen, last = values(model.layers[0].variables), values(model.layers[1].variables)
    compiled(model)
    fit(model)
    assert_same(values(model.layers[0].variables), frozen)
    assert np.max(np.abs(values(model.layers[1].variables)[0] - last[0])) > 0

    model.layers[0].trainable = True
    with pytest.raises(osculant.CheckpointMismatch, match="of other trainable variables"):
        compiled(model, model.optimizer)
    model.compile("sgd", loss="mse")
    fit(model)
    assert np.max(np.abs(values(model.layers[0].variables)[0] - frozen[0])) > 0


class Penalty(keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(keras.ops.mean(inputs**2))
        return inputs


def test_several_outputs_and_losses_that_layers_add():
    inputs = keras.Input((3,))
    hidden = Penalty()(Dense(4, activation="tanh")(inputs))
    outputs = {"a": Dense(1, name="a")(hidden), "b": Dense(1, name="b")(hidden)}
    model, (x, y) = keras.Model(inputs, outputs), data()
    losses = {"a": "mse", "b": "mse"}
    compiled(model, keras_adapter.SolverOptimizer("sgd", 0.0), loss=losses)
    z = np.tanh(x @ model.layers[1].kernel + model.layers[1].bias)
    heads = [np.mean((z @ model.get_layer(n).kernel - y) ** 2) for n in "ab"]
    history = fit(model, x, {"a": y, "b": y}, batch_size=16)
    assert_same([history[f"{n}_loss"][0] for n in "ab"], heads)
    assert_same(history["loss"], [sum(heads) + np.mean(z**2)])


def test_what_gauss_newton_products_would_miss_is_refused():
    def refused(model, match, y=None):
        keras_adapter.compile(model, "curveball", loss="mse")
        with pytest.raises((osculant.ProductUnavailable, TypeError), match=match):
            fit(model, data()[0], data()[1] if y is None else y)

    L2 = keras.regularizers.L2(0.1)
    refused(network(Dense(1, kernel_regularizer=L2)), "loss reads .*kernel, beside the model")
    refused(network(Penalty(), Dense(1)), "layer adds a loss of its own")
    inputs = keras.Input((3,))
    y = [data()[1], data()[0]]
    refused(keras.Model(inputs, [Dense(1)(inputs), inputs]), "one array is needed", y)


def test_solvers_that_need_layers_or_parts_of_the_batch_say_so():
    for solver, match in (("kfac", "no layer to make factors of"), ("hessian-free", "chunks=0")):
        with pytest.raises((osculant.ProductUnavailable, ValueError), match=match):
            fit(compiled(mlp(), solver))


class Own(keras.Model):
    def train_step(self, *args):
        raise AssertionError


def test_what_cannot_work_is_refused_at_the_start():
    with pytest.raises(ValueError, match="there are: auto"):
        keras_adapter.compile(mlp(), "lbgfs", loss="mse")
    with pytest.raises(ValueError, match="Own has a train_step of its own"):
        compiled(Own())
    with pytest.raises(TypeError, match="dtype policy mixed_bfloat16"):
        compiled(network(Dense(1, dtype="mixed_bfloat16")))
    model = compiled(network(Dense(1, kernel_constraint="non_neg")))
    with pytest.raises(ValueError, match="kernel has a constraint"):
        fit(model)
    model = compiled(network(Dense(1, dtype="bfloat16")))
    with pytest.raises(TypeError, match="bfloat16; the solvers compute in float32 or float64"):
        fit(model)


@on_torch
def test_what_the_torch_backend_cannot_do_is_refused():
    import torch

    with pytest.raises(ValueError, match="leave jit_compile out"):
        compiled(mlp(), jit_compile=True)
    wrapped = keras.layers.TorchModuleWrapper(torch.nn.Linear(3, 1))
    with pytest.raises(osculant.ProductUnavailable, match="a torch module, whose parameters"):
        compiled(keras.Sequential([wrapped]))


class Noise(keras.layers.Layer):
    def call(self, inputs):
        return inputs + keras.random.normal(inputs.shape)


@on_torch
def test_random_numbers_without_a_seed_are_refused():
    model = compiled(network(Noise(), Dense(1)))
    with pytest.raises(ValueError, match=r"Give it a keras\.random\.SeedGenerator"):
        fit(model)


class TorchNoise(keras.layers.Layer):
    def call(self, inputs):
        import torch

        return inputs * torch.rand_like(inputs)


@on_torch
def test_torchs_own_random_numbers_are_the_same_within_a_step():
    model, seen = compiled(network(TorchNoise(), Dense(1)), Probe()), []
    for _ in range(2):
        fit(model)
        value, discrepancy, _ = Probe().read(model)
        assert discrepancy < 0.1
        seen.append(value)
    assert abs(seen[0] - seen[1]) > 1e-2


@on_jax
def test_run_eagerly_and_several_steps_per_execution_are_the_same_training():
    runs = {}
    for name, options in {
        "compiled": {},
        "eager": {"run_eagerly": True},
        "two": {"steps_per_execution": 2},
    }.items():
        keras.utils.set_random_seed(0)
        model = compiled(network(keras.layers.Dropout(0.5), Dense(1)), **options)
        fit(model, batch_size=8, epochs=2)
        runs[name] = values(model.trainable_variables)
    assert_same(runs["eager"], runs["compiled"])
    assert_same(runs["two"], runs["compiled"])


def elsewhere(backend, *command):
    """Run Python in a process with another backend of Keras."""
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif("OSCULANT_NO_SUBPROCESS" in os.environ, reason="this is the other backend")
def test_the_other_backend(monkeypatch):
    other = {"jax": "torch", "torch": "jax"}[BACKEND]
    pytest.importorskip(other, reason=f"{other} is not installed")
    monkeypatch.setenv("OSCULANT_NO_SUBPROCESS", "1")
    run = elsewhere(other, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__)
    assert run.returncode == 0 and " passed" in run.stdout, run.stdout + run.stderr


@pytest.mark.skipif("OSCULANT_NO_SUBPROCESS" in os.environ, reason="once is enough")
@pytest.mark.parametrize("backend", ["tensorflow", "numpy"])
def test_other_backends_of_keras_are_refused(backend):
    run = elsewhere(backend, "-c", "from osculant.adapters import keras_adapter")
    assert "BackendUnavailable" in run.stderr and "KERAS_BACKEND" in run.stderr
