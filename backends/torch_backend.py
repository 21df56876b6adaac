"""PyTorch: one double-backward graph, built once a point, answers every product.

For a composition the graph is that of z = model(p), u = grad loss(z) and g = J' u. As g is
linear in u, differentiating v'g by u gives J v: the forward mode is never needed, and no forward
pass is repeated. ``torch.func.linearize`` is avoided: it re-traces at every point.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..core.arrays import Array
from ..core.errors import NotDifferentiable
from ..core.oracle import (
    GAUSS_NEWTON_PRODUCTS,
    HESSIAN_PRODUCTS,
    Objective,
    Oracle,
    Point,
    Product,
    check_outputs,
    check_scalar,
)
from ..core.structure import Structure


def make_oracle(objective: Objective, params: Any) -> TorchOracle:
    """Return the oracle of ``objective`` for parameters structured like ``params``.

    A model that is a :class:`torch.nn.Module` is called with ``params`` (a mapping by name) in
    place of its own parameters. Parameters left out of ``params``, such as frozen ones, are used
    as they stand. Buffers are used as they stand and never updated, so that evaluating in
    training mode leaves running statistics alone.

    Raises
    ------
    TypeError, ValueError
        If ``params`` does not name parameters of the module.
    """
    if isinstance(objective.model, torch.nn.Module):
        _check_names(objective.model, params)
        objective = objective._replace(model=_functional(objective.model))
    return TorchOracle(objective, Structure(params))


def make_holomorphic(objective: Objective, structure: Structure) -> TorchOracle:
    """Return the oracle of the analytic extension of ``objective``, of a complex structure."""
    from .strategies.torch_extension import HolomorphicTorchOracle  # which builds on this module

    return HolomorphicTorchOracle(objective, structure)


def module_parameters(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters of ``module`` that are to be trained, by name; tied ones once."""
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def from_numpy(array: np.ndarray, device: Any = None) -> torch.Tensor:
    """Return a copy of ``array`` as a tensor on ``device``, of the same dtype."""
    return torch.tensor(array, device=device)


def to_numpy(array: torch.Tensor) -> np.ndarray:
    """Return a copy of a tensor on the host, of the same dtype."""
    return array.detach().cpu().numpy().copy()


def version() -> str:
    """Return PyTorch's version."""
    return str(torch.__version__)


def devices() -> list[str]:
    """Return the devices that tensors can live on."""
    accelerator = torch.accelerator.current_accelerator()
    return ["cpu", *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))]


class TorchOracle(Oracle):
    """A scalar function of tensors.

    Inside ``no_grad`` and ``inference_mode`` it differentiates all the same; data that were
    created in ``inference_mode`` PyTorch cannot differentiate through, and says so.
    """

    products = HESSIAN_PRODUCTS | {Product.THIRD}

    def __init__(self, objective: Objective, structure: Structure) -> None:
        super().__init__(structure)
        self.objective = objective
        if objective.composite:
            self.products |= GAUSS_NEWTON_PRODUCTS

    def at(self, x: Array, *data: Any) -> TorchPoint:
        """Linearise once at ``x``, of shape (n,)."""
        self.structure.check(x, name="x")
        return TorchPoint(self, x, data)

    def value(self, x: Array, *data: Any) -> Array:
        """Return the function at ``x`` as a 0-d tensor, by a forward pass that keeps nothing."""
        self.structure.check(x, name="x")
        with torch.no_grad():
            # A copy: a function that overwrites its argument must not overwrite a state.
            value = self.objective(self.unravel(x.detach()), *data)
            check_scalar(value, self.structure, _scalar_name(self.objective))
            return value.clone()  # it may be a view of the parameters

    def ravel(self, tree: Any) -> Array:
        """Return a tree of parameters as a new vector of shape (n,), outside any graph."""
        leaves = [leaf.detach() for leaf in self.structure.leaves(tree)]
        return self.structure.join(leaves, copy=True)


class TorchPoint(Point):
    """The forward graph of a function at one place; the gradient's graph when first needed.

    Parameters
    ----------
    oracle : TorchOracle
    x : tensor of shape (n,)
        Copied.
    data : tuple
    """

    oracle: TorchOracle

    def __init__(self, oracle: TorchOracle, x: Array, data: tuple[Any, ...]) -> None:
        super().__init__(oracle)
        structure, objective = oracle.structure, oracle.objective
        with torch.inference_mode(False):  # turns gradients on, whatever the caller's mode
            self._leaves = [p.detach().clone().requires_grad_() for p in structure.split(x)]
            params = structure.build(self._leaves)
            if objective.composite:
                self._z = objective.outputs(params, data)
                check_outputs(self._z, structure)
                _check_graph(self._z, "model")
                self._value = objective.loss_of(self._z, data)
            else:
                self._value = objective(params, *data)
        name = _scalar_name(objective)
        check_scalar(self._value, structure, name)
        _check_graph(self._value, name)

    @property
    def value(self) -> Array:
        """The function, a 0-d tensor."""
        return self._value.detach().clone()

    @property
    def grad(self) -> Array:
        """The gradient, of shape (n,)."""
        return self._join(self._first[1])

    @property
    def outputs(self) -> Array:
        """The model's outputs, flattened to shape (m,)."""
        return self._join([self._z]) if self.oracle.objective.composite else super().outputs

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape in which the loss takes the model's outputs."""
        return tuple(self._z.shape)

    @cached_property
    @torch.inference_mode(False)
    def _first(self) -> tuple[Any, Sequence[Array]]:
        """u, the gradient of the loss by z (None for a plain function), and g by leaf."""
        seed = _seed(self._value)
        if not self.oracle.objective.composite:
            return None, _pull([self._value], self._leaves, [seed], create_graph=True)
        (u,) = _pull([self._value], [self._z], [seed], create_graph=True)
        u = u.clone()  # a node of its own: a loss may hand z itself back as its gradient
        return u, _pull([self._z], self._leaves, [u], create_graph=True)

    @cached_property
    def _second(self) -> tuple[Any, Sequence[Array]]:
        """The same, once their graph has been seen to be differentiable again."""
        _refuse_once_differentiable(self._first[1])
        return self._first

    def _hvp(self, v: Array) -> Array:
        _, g = self._second
        return self._join(_pull(g, self._leaves, self._split(v)))

    def _jvp(self, v: Array) -> Array:
        u, g = self._second
        return self._join(_pull(g, [u], self._split(v)))

    def _vjp(self, w: Array) -> Array:
        return self._join(_pull([self._z], self._leaves, [self._like_z(w)]))

    def _loss_hvp(self, w: Array) -> Array:
        u, _ = self._second
        return self._join(_pull([u], [self._z], [self._like_z(w)]))

    @torch.inference_mode(False)
    def _third(self, v: Array) -> Callable[[Array], Array]:
        _, g = self._second
        Hv = _pull(g, self._leaves, self._split(v), create_graph=True)
        _refuse_once_differentiable(Hv)
        return lambda w: self._join(_pull(Hv, self._leaves, self._split(w)))

    @torch.inference_mode(False)
    def _taylor(self, v: Array, order: int) -> Sequence[Array]:
        """Differentiate along ``v``, again and again, in the graph that is there."""
        direction = self._split(v.detach())
        term, terms = self._value, [self.value]
        for _ in range(order):
            seed = torch.ones_like(term.detach())
            slope = _pull([term], self._leaves, [seed], create_graph=True)
            _refuse_once_differentiable(slope)
            term = torch.stack(
                [torch.sum(d * t) for d, t in zip(slope, direction, strict=True)]
            ).sum()
            terms.append(term.detach().clone())
        return terms

    def _columns(self, product: Callable[[Array], Array], V: Array) -> Array:
        _ = self._first  # records outside vmap
        try:
            rows = torch.vmap(product, in_dims=1)(V)
        except RuntimeError as error:
            if not re.search("vmap|batching rule", str(error), re.IGNORECASE):
                raise
            return super()._columns(product, V)
        return rows.T.contiguous()

    def _split(self, v: Array) -> list[Array]:
        return self.oracle.structure.split(v)

    def _like_z(self, w: Array) -> Array:
        return w.reshape(self._z.shape)

    def _join(self, parts: Sequence[Array]) -> Array:
        return self.oracle.structure.join([part.detach() for part in parts], copy=True)


def _pull(
    outputs: Sequence[Array],
    inputs: Sequence[Array],
    cotangents: Sequence[Array],
    *,
    create_graph: bool = False,
) -> Sequence[Array]:
    """Return the cotangents of ``inputs``: zeros where nothing depends on them. Keeps the graph."""
    live = [(y, t) for y, t in zip(outputs, cotangents, strict=True) if y.requires_grad]
    if not live:
        return [torch.zeros_like(x) for x in inputs]
    try:
        return torch.autograd.grad(
            [y for y, _ in live],
            inputs,
            [t for _, t in live],
            retain_graph=True,
            create_graph=create_graph,
            materialize_grads=True,
        )
    except RuntimeError as error:
        if not re.search(r"derivative .* is not implemented", str(error)):
            raise
        raise NotDifferentiable(
            f"PyTorch cannot differentiate this function twice: {error}. Fused kernels often lack "
            "a second derivative: for attention compute under torch.nn.attention.sdpa_kernel("
            "SDPBackend.MATH), for recurrent layers under torch.backends.cudnn.flags(enabled=False)"
        ) from error


def _seed(value: Array) -> Array:
    """Return the cotangent 1, as a variable.

    With a constant one, a ``once_differentiable`` function would return a gradient without any
    graph, which is also what a linear function does: they could not be told apart.
    """
    return torch.ones_like(value.detach()).requires_grad_()


def _refuse_once_differentiable(gradient: Sequence[Array]) -> None:
    """Raise if a ``once_differentiable`` function took part in the gradient.

    Its error node hangs beside the path to the parameters, where differentiating does not meet
    it: the Hessian product would silently lack a term.
    """
    seen: set[Any] = set()
    found = [g.grad_fn for g in gradient]
    while found:
        node = found.pop()
        if node is None or node in seen:
            continue
        if node.name() == "torch::autograd::Error":
            raise NotDifferentiable(
                "the function uses a torch.autograd.Function marked @once_differentiable; write "
                "its backward with differentiable tensor operations and remove the mark"
            )
        seen.add(node)
        found.extend(successor for successor, _ in node.next_functions)


def _check_graph(result: Array, name: str) -> None:
    if not result.requires_grad:
        raise NotDifferentiable(
            f"{name} returned a tensor that does not depend on its parameters; compute it from "
            "them with tensor operations, without detach(), item(), numpy() or no_grad()"
        )


def _scalar_name(objective: Objective) -> str:
    return "loss" if objective.composite else "fun"


def _functional(module: torch.nn.Module) -> Callable[..., Any]:
    """Return ``module`` as a function of its parameters that leaves its buffers alone."""

    def model(params: Mapping[str, Array], *inputs: Any) -> Any:
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        return torch.func.functional_call(module, (dict(params), buffers), inputs)

    return model


def _check_names(module: torch.nn.Module, params: Any) -> None:
    if not isinstance(params, Mapping):
        raise TypeError(
            f"the parameters of a torch.nn.Module are a mapping by name, not a "
            f"{type(params).__name__}: leave params= out, or pass dict(model.named_parameters())"
        )
    unknown = set(params) - {name for name, _ in module.named_parameters(remove_duplicate=False)}
    if unknown:
        raise ValueError(
            f"the module has no parameter called {', '.join(sorted(map(repr, unknown)))}"
        )
