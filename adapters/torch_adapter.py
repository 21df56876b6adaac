"""The solvers as ``torch.optim`` optimizers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch

from ..backends.torch_oracle import TorchOracle, TorchPoint
from ..core import solvers
from ..core.arrays import Array
from ..core.checkpoint import named_leaves, rebuild
from ..core.drive import check_start
from ..core.oracle import Objective, Point, check_scalar
from ..core.result import Status
from ..core.solvers import Solver
from ..core.structure import Structure

Closure = Callable[[], torch.Tensor]


class SolverOptimizer(torch.optim.Optimizer):
    """Run an osculant solver as a ``torch.optim.Optimizer``.

    Parameters
    ----------
    params : iterable
        Parameters or parameter groups. Those with ``requires_grad=False`` stay as they are.
    solver : Solver
        Its hyper-parameters are fixed from here on; of the groups only ``lr`` is read.
    lr : float
        Fraction of the solver's step to take, by group, for learning-rate schedulers. 1, the
        default, takes the step that the solver chose and checked.
    buffers : iterable of tensors
        What evaluating the model changes, such as the running statistics of batch normalisation:
        ``model.buffers()``. Each step moves them once, as its first evaluation does; buffers that
        are not named here move with every evaluation.

    Raises
    ------
    ValueError
        If ``lr`` is negative, or there is nothing to optimise.
    TypeError
        If the parameters differ in dtype or device, which one flat vector cannot hold.

    Notes
    -----
    ``step`` evaluates the closure several times, so the closure only computes the loss::

        optimizer.step(lambda: loss_fn(model(inputs), targets))

    It must not call ``backward`` and need not call ``zero_grad``; ``p.grad`` is not touched.
    Random numbers that it draws from PyTorch's generators are the same at each evaluation within
    a step. Gauss-Newton products need a model and a loss apart, which a closure does not have:
    for these use :func:`osculant.fit`.

    The state, ``state_dict()["state"]``, holds plain tensors only.

    Examples
    --------
    >>> import torch
    >>> x = torch.nn.Parameter(torch.tensor([5.0], dtype=torch.float64))
    >>> optimizer = TrustRegion([x], radius=50.0)
    >>> for _ in range(10):
    ...     loss = optimizer.step(lambda: (x - x.log()).sum())
    >>> round(x.item(), 6)
    1.0
    """

    def __init__(
        self,
        params: Any,
        solver: Solver,
        lr: float = 1.0,
        *,
        buffers: Iterable[torch.Tensor] = (),
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"lr is {lr}; it must be zero or positive")
        super().__init__(params, {"lr": lr})
        self.solver = solver
        self.buffers = list(buffers)

    def step(self, closure: Closure | None = None) -> torch.Tensor:
        """Take one step and return the loss where it started, as a 0-d tensor.

        Parameters
        ----------
        closure : callable
            Returns the loss, a scalar tensor with its graph. Called with gradients enabled.

        Raises
        ------
        TypeError
            Without a closure.
        RuntimeError
            If the closure calls ``backward``.

        Warns
        -----
        RuntimeWarning
            If the loss or its gradient is not finite: the parameters are left as they were.
        """
        if closure is None:
            raise TypeError(
                "step needs a closure that returns the loss: second-order solvers evaluate it "
                "several times"
            )
        oracle = _ClosureOracle(self._parameters(), closure, self.buffers)
        start = oracle.ravel(list(oracle.parameters))
        state = self._load(oracle, start)
        try:
            state = self.solver.step(oracle, state)
            end = start + self._fractions(start) * (state.x - start)
        except BaseException as error:
            oracle.place(start)
            oracle.settle(took=False)
            if "backward through the graph a second time" in str(error):
                raise RuntimeError(
                    "the closure called backward(), which destroys the graph that Hessian "
                    "products need; let it compute and return the loss, and nothing else"
                ) from error
            raise
        oracle.place(end)
        oracle.settle()
        self._store(state)
        if int(state.status) == Status.NOT_FINITE:
            warnings.warn(
                "the loss or its gradient is not finite where the step starts, so no step was "
                "taken: look for it in the data of this batch",
                RuntimeWarning,
                stacklevel=2,
            )
        return state.value

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    def _fractions(self, x: Array) -> Array:
        """Return each coordinate's ``lr``, as a scalar where all groups agree."""
        rates = {float(group["lr"]) for group in self.param_groups}
        if len(rates) == 1:
            return torch.full((), rates.pop(), dtype=x.dtype, device=x.device)
        parts = [
            torch.full((p.numel(),), float(group["lr"]), dtype=x.dtype, device=x.device)
            for group in self.param_groups
            for p in group["params"]
            if p.requires_grad
        ]
        return torch.cat(parts)

    # The solver's state without x, which the parameters hold, is kept under the first parameter.

    def _load(self, oracle: _ClosureOracle, x: Array) -> Any:
        fresh = self.solver.init(oracle, x)
        kept = self.state[oracle.parameters[0]]
        if not kept:
            check_start(oracle, x, self.solver)
            return fresh
        # torch casts a state that it loads to the parameters' dtype: cast counters back.
        fresh = fresh._replace(x=None)
        leaves = {name: kept[name].to(value.dtype) for name, value in named_leaves(fresh).items()}
        return rebuild(fresh, leaves)._replace(x=x)

    def _store(self, state: Any) -> None:
        self.state[self._parameters()[0]] = named_leaves(state._replace(x=None))


class _ClosureOracle(TorchOracle):
    """A closure over live parameters, which it moves to wherever it is asked to evaluate.

    A point's products need the parameters where they were when it was made; PyTorch raises if
    they have moved since, and no solver here asks for that.
    """

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        closure: Closure,
        buffers: list[torch.Tensor],
    ) -> None:
        if not parameters:
            raise ValueError("no parameter requires a gradient: there is nothing to optimise")
        super().__init__(
            Objective(lambda _: closure()), Structure([p.detach() for p in parameters])
        )
        self.parameters = parameters
        self.closure = closure
        self._random = _random_states(parameters[0].device)
        self._buffers = buffers
        self._before = [buffer.clone() for buffer in buffers]
        self._after: list[torch.Tensor] | None = None

    def place(self, x: Array) -> None:
        """Write ``x`` into the parameters."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.structure.split(x), strict=True):
                parameter.copy_(value)

    def at(self, x: Array, *data: Any) -> TorchPoint:
        return _ClosurePoint(self, x)

    def value(self, x: Array, *data: Any) -> Array:
        with torch.no_grad():
            return self.evaluate(x).detach().clone()

    def evaluate(self, x: Array) -> torch.Tensor:
        self.place(x)
        _set_random_states(self._random)
        _copy(self._before, self._buffers)
        value = self.closure()
        if self._after is None:
            self._after = [buffer.clone() for buffer in self._buffers]
        return value

    def settle(self, took: bool = True) -> None:
        """Leave the buffers as the first evaluation left them, or as they were before it."""
        _copy(self._after if took and self._after else self._before, self._buffers)


class _ClosurePoint(TorchPoint):
    """A point whose leaves are the live parameters."""

    def __init__(self, oracle: _ClosureOracle, x: Array) -> None:
        Point.__init__(self, oracle)
        with torch.inference_mode(False):
            value = oracle.evaluate(x)
        check_scalar(value, oracle.structure, "the closure")
        self._leaves, self._value = oracle.parameters, value


def _copy(values: list[torch.Tensor], tensors: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for value, tensor in zip(values, tensors, strict=True):
            tensor.copy_(value)


def _random_states(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_states(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


class TrustRegion(SolverOptimizer):
    """:class:`osculant.TrustRegion` as a :class:`SolverOptimizer`; ``options`` are its own."""

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        *,
        buffers: Iterable[torch.Tensor] = (),
        **options: Any,
    ) -> None:
        super().__init__(params, solvers.TrustRegion(**options), lr, buffers=buffers)


class NewtonKrylov(SolverOptimizer):
    """:class:`osculant.NewtonKrylov` as a :class:`SolverOptimizer`; ``options`` are its own."""

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        *,
        buffers: Iterable[torch.Tensor] = (),
        **options: Any,
    ) -> None:
        super().__init__(params, solvers.NewtonKrylov(**options), lr, buffers=buffers)
