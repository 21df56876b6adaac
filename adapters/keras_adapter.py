"""The solvers in Keras 3: ``model.fit`` as it is, with a step of theirs inside."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import fields
from itertools import chain
from typing import Any, NamedTuple

import optree

from ..backends import get
from ..core import kronecker, norms, solvers
from ..core.drive import check_start
from ..core.errors import BackendUnavailable, CheckpointMismatch, ProductUnavailable
from ..core.oracle import GAUSS_NEWTON_PRODUCTS, Objective, Oracle
from ..core.solvers import Solver, as_solver

_REMEDY = (
    "the solvers run on Keras's torch and jax backends: set the environment variable KERAS_BACKEND "
    "to one of them before keras is first imported"
)
try:
    import keras
except ModuleNotFoundError as error:
    if error.name != "tensorflow":  # Keras's backend unless another is set
        raise
    raise BackendUnavailable(_REMEDY) from error
_BACKEND = keras.config.backend()
if _BACKEND not in ("torch", "jax"):
    raise BackendUnavailable(f"Keras's backend is {_BACKEND}; {_REMEDY}")


def compile(
    model: keras.Model,
    solver: Solver | SolverOptimizer | str = "newton-krylov",
    **options: Any,
) -> None:
    """Compile ``model`` for training by ``solver``: ``model.compile``, and another train step.

    Parameters
    ----------
    model : keras.Model
        Sequential, functional or subclassed, built or not. Frozen layers stay as they are.
    solver : Solver, str or SolverOptimizer
        Its hyper-parameters are fixed from here on. Or its name in :func:`osculant.fit`; or a
        :class:`SolverOptimizer`: with a learning rate, or of a model that was compiled here
        before, to go on from its state.
    **options
        What ``model.compile`` takes beside the optimizer: ``loss``, ``metrics``, ``run_eagerly``,
        ...

    Raises
    ------
    ValueError
        If the model has a ``train_step`` of its own, or is to be compiled by ``torch.compile``.
    TypeError
        If a layer computes in another precision than it keeps its weights in; solvers compare
        function values that differ by little.
    CheckpointMismatch
        If other variables are to be trained than those that the optimizer's state is of.
    ProductUnavailable
        If a layer is a torch module, whose parameters cannot be replaced as Keras's variables can.

    Notes
    -----
    ``fit``, its callbacks, history and validation, ``evaluate`` and ``predict`` are Keras's own.
    Each batch is one step of the solver. The loss and the metrics of a batch are those where the
    step starts, as in Keras, and cost a forward pass beside the solver's own evaluations (nothing
    where JAX compiles the step, which finds it in the gradient).

    The function that the solver sees is the whole loss: with sample weights, regularizers and
    ``add_loss``. Within a step it is one and the same: each evaluation draws the same numbers
    (dropout) from the same seeds, and starts from the same non-trainable variables, which move
    once a step.

    Gauss-Newton methods (:class:`osculant.CurveBall`, ``curvature="gauss-newton"``) see it as
    ``model.compute_loss`` of the model's output, which must be one tensor; a regularizer or
    ``add_loss``, which reaches the weights beside it, is an error. Keras's layers are unknown to
    :class:`osculant.KFAC` and :class:`osculant.Kronecker`, and batches cannot be cut into parts
    (:class:`osculant.HessianFree` needs ``chunks=0``).

    The optimizer of a saved model keeps the solver and its state. To go on training a loaded
    model, import this module before loading, and compile again::

        keras_adapter.compile(model, model.optimizer, loss=...)

    ``model.compile`` with one of Keras's optimizers gives Keras's own training back.
    """
    optimizer = solver if isinstance(solver, SolverOptimizer) else SolverOptimizer(solver)
    if type(model).train_step is not keras.Model.train_step:
        raise ValueError(
            f"{type(model).__name__} has a train_step of its own, which the solver's would replace"
        )
    for layer in model._flatten_layers():
        _check_layer(layer)
    trainable = [tuple(variable.shape) for variable in model.trainable_variables]
    if optimizer.built and trainable != optimizer.shapes:
        raise CheckpointMismatch(
            "the optimizer's state is of other trainable variables: give a solver, to start anew"
        )
    if _BACKEND == "torch" and options.get("jit_compile", "auto") not in ("auto", False):
        raise ValueError("torch.compile does not take a solver's step: leave jit_compile out")
    model.compile(optimizer=optimizer, **options)
    training = _Training(model, optimizer)
    model.train_step = training.live_step if _BACKEND == "torch" else training.step


@keras.saving.register_keras_serializable("osculant")
class SolverOptimizer(keras.optimizers.Optimizer):
    """A solver's hyper-parameters and state as a Keras optimizer, for :func:`compile`.

    Parameters
    ----------
    solver : Solver or str
    learning_rate : float or keras.optimizers.schedules.LearningRateSchedule
        Fraction of the solver's step to take, which callbacks may change. 1, the default, takes
        the step that the solver chose and checked.
    name : str

    Notes
    -----
    Its variables are the leaves of the solver's state, without x, which the model holds.
    """

    def __init__(
        self, solver: Solver | str, learning_rate: Any = 1.0, name: str = "solver_optimizer"
    ) -> None:
        super().__init__(learning_rate, name=name)
        self.solver = as_solver(solver)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the variables of the solver's state at these trainable variables.

        Raises
        ------
        ValueError
            If a variable has a constraint, or is no parameter of the loss (float8's scales).
        """
        for variable in variables:
            _check_variable(variable)
        oracle = _make_oracle(Objective(model=_absent, loss=_absent), [v.value for v in variables])
        x = oracle.ravel([keras.ops.stop_gradient(v.value) for v in variables])
        check_start(oracle, x, self.solver)
        self.shapes = list(oracle.structure.shapes)
        leaves, self._treedef = optree.tree_flatten(self.solver.init(oracle, x)._replace(x=None))
        self._leaves = []
        for leaf in leaves:
            dtype = keras.backend.standardize_dtype(leaf.dtype)
            self._leaves.append(self.add_variable(leaf.shape, dtype=dtype, name="state"))
            self._leaves[-1].assign(keras.ops.copy(leaf))
        super().build(variables)

    def advance(
        self, oracle: Oracle, params: list[Any], values: list[Any], *data: Any
    ) -> tuple[list[Any], list[Any]]:
        """Return the parameters and the values of this optimizer's variables after one step."""
        mapping = list(zip(self.variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            x = oracle.ravel(params)
            leaves = [leaf.value for leaf in self._leaves]
            state = optree.tree_unflatten(self._treedef, leaves)._replace(x=x)
            state = self.solver.step(oracle, state, *data)
            fraction = keras.ops.cast(self.learning_rate, keras.backend.standardize_dtype(x.dtype))
            new = optree.tree_leaves(state._replace(x=None))
            for variable, leaf in zip(self._leaves, new, strict=True):
                variable.assign(leaf)
            self.iterations.assign_add(1)
        x = x + fraction * (state.x - x)
        return oracle.unravel(x), [scope.get_current_value(v) for v in self.variables]

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Raise: a gradient is not enough."""
        raise TypeError(
            "a solver needs the loss as a function, not its gradient: compile the model by "
            "keras_adapter.compile(model, solver, loss=...), also after loading it"
        )

    def get_config(self) -> dict[str, Any]:
        """Return name, learning rate and the solver's hyper-parameters as plain values.

        Raises
        ------
        ValueError
            If one is a function, or an object of a class of the user's.
        """
        config = super().get_config()
        own = {name: config[name] for name in ("name", "learning_rate")}
        return {**own, "solver": _plain(self.solver)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> SolverOptimizer:
        """Return the optimizer of which ``config`` is the ``get_config()``."""
        config = {**config, "solver": _rebuilt(config["solver"])}
        return super().from_config(config, custom_objects=custom_objects)


class _Batch(NamedTuple):
    """What the loss depends on beside the parameters."""

    x: Any
    y: Any
    sample_weight: Any
    non_trainable: list[Any]
    metrics: list[Any]


class _Training:
    """One model's loss as functions without side effects, and the training step made of them."""

    def __init__(self, model: keras.Model, optimizer: SolverOptimizer) -> None:
        self.model, self.optimizer = model, optimizer
        takes_mode = "training" in inspect.signature(model.call).parameters
        self._mode = {"training": True} if takes_mode else {}
        self._composite = bool(optimizer.solver.needs() & GAUSS_NEWTON_PRODUCTS)
        self._objective = Objective(self.whole_loss)
        if self._composite:
            self._objective = Objective(model=self.outputs, loss=self.loss_of)

    # What a solver asks for ------------------------------------------------------------------

    def whole_loss(self, params: list[Any], batch: _Batch) -> Any:
        """Return the loss, with all that layers add to it."""
        with self._scope(params, batch):
            return self._loss(self.model(batch.x, **self._mode), batch)

    def outputs(self, params: list[Any], batch: _Batch) -> Any:
        """Return the model's output, if all of the loss depends on the parameters through it."""
        with self._scope(params, batch) as scope:
            y_pred = self.model(batch.x, **self._mode)
            if scope.losses:
                raise ProductUnavailable(f"a layer adds a loss of its own, {_BESIDE}")
        return y_pred

    def loss_of(self, y_pred: Any, batch: _Batch) -> Any:
        """Return the loss of an output, without the parameters."""
        with self._scope(None, batch):
            return self._loss(y_pred, batch)

    # -----------------------------------------------------------------------------------------

    def observe(self, params: list[Any], batch: _Batch) -> tuple[Any, list[Any], list[Any]]:
        """Return logs, non-trainable and metrics variables after a pass forward."""
        model = self.model
        with self._scope(params, batch) as scope:
            y_pred = self.model(batch.x, **self._mode)
            loss = self._loss(y_pred, batch)
            samples = next(a for a in keras.tree.flatten(batch.x) if a is not None).shape[0]
            for metric in model.metrics:
                if metric.name == "loss":
                    metric.update_state(loss, sample_weight=samples)
            logs = model.compute_metrics(batch.x, batch.y, y_pred, batch.sample_weight)
        if not set(scope.state_mapping) <= {id(v) for v in chain(*self._variables())}:
            raise ValueError(
                "the model changes a variable that is not its own: is it a random number without "
                "a seed? Give it a keras.random.SeedGenerator that is an attribute of the layer"
            )
        _, non_trainable, metrics = self._variables()
        moved = [
            _if_finite(scope.get_current_value(variable), before)
            for variable, before in zip(non_trainable, batch.non_trainable, strict=True)
        ]
        return logs, moved, [scope.get_current_value(variable) for variable in metrics]

    def step(self, state: Any, data: Any, seed: int = 0) -> Any:
        """Return logs and the next state: JAX's ``train_step``, which Keras compiles."""
        if self.model.optimizer is not self.optimizer:
            return type(self.model).train_step(self.model, state, data)
        params, non_trainable, own, metrics = state
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        batch = _Batch(x, y, sample_weight, non_trainable, metrics)
        oracle = _make_oracle(self._objective, params)
        with oracle.held(seed):
            oracle.prepare()
            logs, non_trainable, metrics = self.observe(params, batch)
            arguments = (batch, batch) if self._composite else (batch,)
            params, own = self.optimizer.advance(oracle, params, own, *arguments)
        return logs, (params, non_trainable, own, metrics)

    def live_step(self, data: Any) -> Any:
        """Take a step and return its logs: PyTorch's ``train_step``, on the variables in place."""
        if self.model.optimizer is not self.optimizer:
            return type(self.model).train_step(self.model, data)
        trainable, non_trainable, metrics = self._variables()
        variables = [trainable, non_trainable, self.optimizer.variables, metrics]
        state = [[keras.ops.stop_gradient(keras.ops.copy(v)) for v in part] for part in variables]
        seed = int(keras.random.randint((), 0, 2**31 - 1))  # of what draws from PyTorch itself
        logs, new = self.step(state, data, seed)
        for variable, value in zip(chain(*variables), chain(*new), strict=True):
            variable.assign(value)
        return logs

    def _variables(self) -> tuple[list[keras.Variable], ...]:
        model = self.model
        return model.trainable_variables, model.non_trainable_variables, model.metrics_variables

    def _scope(self, params: list[Any] | None, batch: _Batch) -> keras.StatelessScope:
        """Return a scope in which the variables have these values; without parameters if None."""
        trainable, non_trainable, metrics = self._variables()
        mapping = [
            *zip(non_trainable, batch.non_trainable, strict=True),
            *zip(metrics, batch.metrics, strict=True),
        ]
        if params is None:
            return _WithoutParameters(trainable, mapping)
        mapping += zip(trainable, params, strict=True)
        return keras.StatelessScope(state_mapping=mapping, collect_losses=True)

    def _loss(self, y_pred: Any, batch: _Batch) -> Any:
        return self.model._compute_loss(
            batch.x, batch.y, y_pred, batch.sample_weight, training=True
        )


class _WithoutParameters(keras.StatelessScope):
    """A scope in which reading a parameter is an error."""

    def __init__(self, parameters: list[keras.Variable], mapping: list[Any]) -> None:
        super().__init__(state_mapping=mapping, collect_losses=True)
        self._barred = {id(variable) for variable in parameters}

    def get_current_value(self, variable: keras.Variable) -> Any:
        if id(variable) in self._barred:
            raise ProductUnavailable(f"the loss reads {variable.path}, {_BESIDE}")
        return super().get_current_value(variable)


_BESIDE = (
    "beside the model's output (a regularizer?), which Gauss-Newton products would miss: leave it "
    "out, or take a solver of Hessian products, such as one with curvature='hessian'"
)


def _make_oracle(objective: Objective, params: list[Any]) -> Oracle:
    return get(_BACKEND).make_oracle(objective, params)


def _absent(*args: Any) -> Any:
    raise AssertionError("a solver's init evaluates nothing")


def _if_finite(new: Any, old: Any) -> Any:
    """Return ``new``, unless it would spoil running statistics for good."""
    return keras.ops.where(keras.ops.all(keras.ops.isfinite(new)), new, old)


def _check_layer(layer: keras.Layer) -> None:
    if layer.compute_dtype != layer.variable_dtype:
        raise TypeError(
            f"layer {layer.name} has the dtype policy {layer.dtype_policy.name}; the solvers "
            "compute in the precision of the weights, float32 or float64"
        )
    if isinstance(layer, keras.layers.TorchModuleWrapper):
        raise ProductUnavailable(
            f"layer {layer.name} is a torch module, whose parameters Keras cannot replace: train "
            "such a model by osculant.adapters.torch_adapter"
        )


def _check_variable(variable: keras.Variable) -> None:
    if variable.constraint is not None:
        raise ValueError(
            f"{variable.path} has a constraint; the solvers minimise without constraints, and a "
            "projection after their steps would undo what they have checked"
        )
    if getattr(variable, "overwrite_with_gradient", False):
        raise ValueError(f"{variable.path} is a scale of float8 training, and no parameter")


#: Where the classes of solvers and of their options are, by the names that saved models have.
_HOMES = {"solvers": solvers, "norms": norms, "kronecker": kronecker}


def _plain(value: Any) -> Any:
    """Return hyper-parameters as what JSON can hold."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    kind = type(value)
    for name, home in _HOMES.items():
        if getattr(home, kind.__name__, None) is kind:
            options = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
            return {"class": f"{name}.{kind.__name__}", **options}
    raise ValueError(
        f"the solver has an option that a model's file cannot hold, {value!r}: save the weights "
        "alone, by model.save_weights"
    )


def _rebuilt(value: Any) -> Any:
    """Return the hyper-parameters of which ``value`` is the plain form."""
    if isinstance(value, list):
        return tuple(_rebuilt(entry) for entry in value)
    if not isinstance(value, dict):
        return value
    options = {name: _rebuilt(entry) for name, entry in value.items()}
    home, kind = options.pop("class").split(".")
    return getattr(_HOMES[home], kind)(**options)
