"""The solvers as ``torch.optim`` optimizers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import optree
import torch

from ..backends.torch_oracle import TorchOracle, TorchPoint, check_graph, graph_nodes
from ..core import solvers
from ..core.arrays import Array
from ..core.checkpoint import named_leaves, rebuild
from ..core.drive import check_start
from ..core.errors import CheckpointMismatch, NotDifferentiable, ProductUnavailable
from ..core.flow import EAGER
from ..core.oracle import (
    GAUSS_NEWTON_PRODUCTS,
    Objective,
    Oracle,
    Point,
    Product,
    check_outputs,
    check_scalar,
)
from ..core.result import Status
from ..core.solvers import Solver, as_solver
from ..core.structure import Structure

#: Returns the loss, or the model's outputs and the loss of them.
Closure = Callable[[], torch.Tensor | tuple[torch.Tensor, torch.Tensor]]
#: Puts an oracle around another one.
Around = Callable[[Oracle], Oracle]


#: What an optimizer holds beside what PyTorch's do.
_OWN = ("solver", "buffers", "around", "_trained", "_template", "_made_for")


class SolverOptimizer(torch.optim.Optimizer):
    """Run an osculant solver as a ``torch.optim.Optimizer``.

    Parameters
    ----------
    params : iterable
        Parameters or parameter groups. Those with ``requires_grad=False`` stay as they are.
    solver : Solver or str
        Its hyper-parameters are fixed from here on; of the groups only ``lr`` is read. Or its name
        in :func:`osculant.fit`.
    lr : float
        Fraction of the solver's step to take, by group, for learning-rate schedulers. 1, the
        default, takes the step that the solver chose and checked.
    buffers : iterable of tensors
        What evaluating the model changes, such as the running statistics of batch normalisation:
        ``model.buffers()``. Each step moves them once, as its first evaluation does; buffers that
        are not named here move with every evaluation.
    around : callable, optional
        Maps the closure's oracle to one around it that the solver is to run on, such as
        :class:`osculant.Regularized` or :class:`osculant.backends.distributed.DataParallel`.
        Called in each step, with a closure that has no data::

            around=lambda oracle: DataParallel(oracle, samples=lambda: len(targets))

    Raises
    ------
    ValueError
        If ``lr`` is negative, there is nothing to optimise, or a group has a ``weight_decay``,
        which belongs in the loss: a second-order step needs its curvature, too.
    TypeError
        If the parameters differ in dtype or device, which one flat vector cannot hold.

    Notes
    -----
    ``step`` evaluates the closure several times, so the closure only computes the loss::

        optimizer.step(lambda: loss_fn(model(inputs), targets))

    It must not call ``backward`` and need not call ``zero_grad``; ``p.grad`` is not touched, so
    that a ``GradScaler`` has nothing to scale. ``torch.autocast`` belongs inside the closure.
    Random numbers that it draws from PyTorch's generators are the same at each evaluation within a
    step.

    Gauss-Newton products need the model's outputs beside the loss::

        def closure():
            outputs = model(inputs)
            return outputs, loss_fn(outputs, targets)

        SolverOptimizer(model.parameters(), osculant.CurveBall()).step(closure)

    The loss then must depend on the parameters through the outputs alone. Solvers that look into
    layers or cut the batch into parts (:class:`osculant.KFAC`, :class:`osculant.HessianFree`) need
    the model and the data themselves: for these use :func:`osculant.fit`.

    Where other parameters are trained than in the last step (unfrozen ones, a new group), the
    solver starts anew.

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
        solver: Solver | str,
        lr: float = 1.0,
        *,
        buffers: Iterable[torch.Tensor] = (),
        around: Around | None = None,
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"lr is {lr}; it must be zero or positive")
        super().__init__(params, {"lr": lr})
        self.solver = as_solver(solver)
        self.buffers = list(buffers)
        self.around = around
        self._trained: list[torch.nn.Parameter] = []  # in the last step
        self._template: Any = None  # state of the solver that it was made of, on no device
        self._made_for: Solver | None = None

    def __getstate__(self) -> dict[str, Any]:
        own = {name: self.__dict__[name] for name in _OWN}
        return {**super().__getstate__(), **own}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, as ``torch.optim.Optimizer`` does."""
        if param_group.get("weight_decay"):
            raise ValueError(
                "weight_decay of a group is not read: let the closure add it to the loss, as "
                "weight_decay / 2 * sum(p.square().sum() for p in parameters)"
            )
        super().add_param_group(param_group)

    def step(self, closure: Closure | None = None) -> torch.Tensor:
        """Take one step and return the loss where it started, as a 0-d tensor.

        Parameters
        ----------
        closure : callable
            Returns the loss, a scalar tensor with its graph; or the model's outputs and the loss.
            Called with gradients enabled.

        Raises
        ------
        TypeError
            Without a closure.
        RuntimeError
            If the closure calls ``backward``.
        NotDifferentiable
            If the loss does not depend on the parameters, or not by their outputs alone.
        CheckpointMismatch
            If the state that was loaded is of another solver, or of other parameters.

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
        closed = ClosureOracle(self._parameters(), closure, self.buffers)
        oracle = closed if self.around is None else self.around(closed)
        start = oracle.ravel(list(closed.parameters))
        state = self._load(oracle, start)
        try:
            state = oracle.flow.jit(self.solver.step, donate=(1,))(oracle, state)
            end = start + self._fractions(start) * (state.x - start)
        except BaseException as error:
            closed.place(start)
            closed.settle(took=False)
            if "backward through the graph a second time" in str(error):
                raise RuntimeError(
                    "the closure called backward(), which destroys the graph that Hessian "
                    "products need; let it compute and return the loss, and nothing else"
                ) from error
            raise
        closed.place(end)
        closed.settle()
        self._store(state)
        if int(state.status) == Status.NOT_FINITE:
            warnings.warn(
                "the loss or its gradient is not finite where the step starts, so no step was "
                "taken: look for it in the data of this batch",
                RuntimeWarning,
                stacklevel=2,
            )
        return state.value

    # Steps write to a part of the state (Flow.jit): what is given or taken has arrays of its own.

    def state_dict(self) -> dict[str, Any]:
        """Return state and groups, as PyTorch does; steps leave them as they are."""
        packed = super().state_dict()
        return {**packed, "state": EAGER.own(packed["state"])}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned, which steps leave as it is."""
        super().load_state_dict({**state_dict, "state": EAGER.own(state_dict["state"])})

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

    def _load(self, oracle: Oracle, x: Array) -> Any:
        parameters = self._parameters()
        if self._trained and not _same(self._trained, parameters):
            self.state.clear()
            self._made_for = None
        self._trained = parameters
        kept = self.state[parameters[0]]
        if not kept:
            check_start(oracle, x, self.solver)
        if not kept or self._made_for is not self.solver:
            fresh = self.solver.init(oracle, x)
            self._template = optree.tree_map(lambda leaf: leaf.to("meta"), fresh._replace(x=None))
            self._made_for = self.solver
        if not kept:
            return fresh
        # torch casts a state that it loads to the parameters' dtype: cast counters back.
        expected = named_leaves(self._template)
        if {name: leaf.shape for name, leaf in expected.items()} != {
            name: leaf.shape for name, leaf in kept.items()
        }:
            raise CheckpointMismatch(
                f"the state is not one of {type(self.solver).__name__} with these options and "
                "parameters: load another, or start anew by optimizer.state.clear()"
            )
        leaves = {name: kept[name].to(value.dtype) for name, value in expected.items()}
        return rebuild(self._template, leaves)._replace(x=x)

    def _store(self, state: Any) -> None:
        self.state[self._parameters()[0]] = named_leaves(state._replace(x=None))


class ClosureOracle(TorchOracle):
    """A closure over live parameters, which it moves to wherever it is asked to evaluate.

    A point's products need the parameters where they were when it was made; PyTorch raises if
    they have moved since, and no solver here asks for that.
    """

    products = TorchOracle.products | GAUSS_NEWTON_PRODUCTS

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

    def remedy(self, product: Product) -> str:
        """Return what to do where ``product``, which is missing, is wanted."""
        if product not in GAUSS_NEWTON_PRODUCTS:
            return super().remedy(product)
        return (
            "Gauss-Newton products need the model's outputs: let the closure return (outputs, "
            "loss), or train the model by osculant.fit"
        )

    def composition(self) -> Objective:
        """Raise: a closure hides the model's layers."""
        raise ProductUnavailable(
            "a closure hides the model's layers: train by osculant.fit, with "
            "osculant.oracle(model=model, loss=loss)"
        )

    def at(self, x: Array, *data: Any) -> TorchPoint:
        """Return the closure linearised at ``x``, of shape (n,)."""
        return _ClosurePoint(self, x)

    def value(self, x: Array, *data: Any) -> Array:
        """Return the loss at ``x`` as a 0-d tensor."""
        with torch.no_grad():
            return self.evaluate(x)[1].detach().clone()

    def evaluate(self, x: Array) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Return the model's outputs, None if the closure keeps them to itself, and the loss."""
        self.place(x)
        _set_random_states(self._random)
        _copy(self._before, self._buffers)
        result = self.closure()
        if self._after is None:
            self._after = [buffer.clone() for buffer in self._buffers]
        if isinstance(result, tuple) and len(result) == 2:
            return result
        self.products = TorchOracle.products
        return None, result

    def settle(self, took: bool = True) -> None:
        """Leave the buffers as the first evaluation left them, or as they were before it."""
        _copy(self._after if took and self._after else self._before, self._buffers)


class _ClosurePoint(TorchPoint):
    """A point whose leaves are the live parameters."""

    def __init__(self, oracle: ClosureOracle, x: Array) -> None:
        Point.__init__(self, oracle)
        with torch.inference_mode(False):
            self._z, self._value = oracle.evaluate(x)
        check_scalar(self._value, oracle.structure, "the closure")
        check_graph(self._value, "the closure")
        self._leaves = oracle.parameters
        if self._z is None:
            reached = self._depends(self._value)
        else:
            check_outputs(self._z, oracle.structure, "the closure")
            check_graph(self._z, "the closure")
            reached = self._depends(self._z)
            if self._depends(self._value, beyond=[self._z]):
                raise NotDifferentiable(
                    "the closure's loss depends on the parameters other than through the outputs "
                    "that it returns, which Gauss-Newton products would miss: return the loss alone"
                )
        if not reached:
            raise NotDifferentiable(
                "the closure's loss does not depend on the optimizer's parameters: is it of "
                "another model, or of a copy?"
            )

    def _depends(self, result: torch.Tensor, beyond: Sequence[torch.Tensor] = ()) -> bool:
        """Whether ``result`` is computed from the parameters otherwise than by ``beyond``."""
        leaves = {id(leaf) for leaf in self._leaves}
        nodes = graph_nodes([result], beyond)
        return any(id(getattr(node, "variable", None)) in leaves for node in nodes)


def _same(a: Sequence[object], b: Sequence[object]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


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
        around: Around | None = None,
        **options: Any,
    ) -> None:
        super().__init__(params, solvers.TrustRegion(**options), lr, buffers=buffers, around=around)


class NewtonKrylov(SolverOptimizer):
    """:class:`osculant.NewtonKrylov` as a :class:`SolverOptimizer`; ``options`` are its own."""

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        *,
        buffers: Iterable[torch.Tensor] = (),
        around: Around | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            params, solvers.NewtonKrylov(**options), lr, buffers=buffers, around=around
        )
