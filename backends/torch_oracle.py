"""PyTorch: one double-backward graph, built once a point, answers every product.

For a composition the graph is that of z = model(p), u = grad loss(z) and g = J' u. As g is
linear in u, differentiating v'g by u gives J v: the forward mode is never needed, and no forward
pass is repeated. ``torch.func.linearize`` is avoided: it re-traces at every point.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any

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
from ..core.structure import Leaves, Structure
from .torch_module import FunctionalModule


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
        self._seed: int | None = None

    @contextmanager
    def held(self, seed: int, *, track: bool = True) -> Iterator[None]:
        """Seed PyTorch's generators before each evaluation; let a module's buffers move once.

        The caller's generators are left as they were. Statistics that are not finite are not
        kept.
        """
        device, model = self.structure.device, self.objective.model
        cuda = [device] if device.type == "cuda" else []
        statistics: AbstractContextManager[None] = nullcontext()
        if track and isinstance(model, FunctionalModule):
            statistics = model.moving()
        self._seed = seed
        try:
            with torch.random.fork_rng(cuda), statistics:
                yield
        finally:
            self._seed = None

    @property
    def buffers(self) -> Mapping[str, Array]:
        """The module's buffers, if the model is a module; not copies."""
        model = self.objective.model
        return dict(model.module.named_buffers()) if isinstance(model, FunctionalModule) else {}

    def prepare(self) -> None:
        """Seed the generators, if the function is held; called before each evaluation."""
        if self._seed is not None:
            torch.manual_seed(self._seed)

    def sibling(self, objective: Objective, example: Any) -> TorchOracle:
        """Return the oracle of another function, held as this one is."""
        other = TorchOracle(objective, Structure(example))
        other._seed = self._seed
        return other

    def at(self, x: Array, *data: Any) -> TorchPoint:
        """Linearise once at ``x``, of shape (n,)."""
        self.structure.check(x, name="x")
        return TorchPoint(self, x, data)

    def value(self, x: Array, *data: Any) -> Array:
        """Return the function at ``x`` as a 0-d tensor, by a forward pass that keeps nothing."""
        self.structure.check(x, name="x")
        self.prepare()
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
        oracle.prepare()
        with torch.inference_mode(False):  # turns gradients on, whatever the caller's mode
            self._leaves = [p.detach().clone().requires_grad_() for p in structure.split(x)]
            params = structure.build(self._leaves)
            self._z: Array | None = None  # the outputs, if it is a composition
            if objective.composite:
                self._z = objective.outputs(params, data)
                check_outputs(self._z, structure)
                check_graph(self._z, "model")
                self._value = objective.loss_of(self._z, data)
            else:
                self._value = objective(params, *data)
        name = _scalar_name(objective)
        check_scalar(self._value, structure, name)
        check_graph(self._value, name)

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
        return super().outputs if self._z is None else self._join([self._z])

    @property
    def loss_grad(self) -> Array:
        """The gradient u of the loss by the model's outputs, of shape (m,)."""
        return super().loss_grad if self._z is None else self._join([self._first[0]])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape in which the loss takes the model's outputs."""
        return super().output_shape if self._z is None else tuple(self._z.shape)

    @cached_property
    @torch.inference_mode(False)
    def _first(self) -> tuple[Any, Sequence[Array]]:
        """u, the gradient of the loss by z (None for a plain function), and g by leaf."""
        seed = _seed(self._value)
        if self._z is None:
            return None, _pull([self._value], self._leaves, [seed], create_graph=True)
        (u,) = _pull([self._value], [self._z], [seed], create_graph=True)
        u = u.clone()  # a node of its own: a loss may hand z itself back as its gradient
        return u, _pull([self._z], self._leaves, [u], create_graph=True)

    @cached_property
    def _second(self) -> tuple[Any, Sequence[Array]]:
        """The same, once their graph has been seen to be differentiable again."""
        _refuse_once_differentiable(self._first[1])
        return self._first

    def _hvp(self, v: Array | Leaves) -> Array:
        _, g = self._second
        return self._join(_pull(g, self._leaves, self._split(v)))

    def _jvp(self, v: Array | Leaves) -> Array:
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
        _refuse_fused_norms(g)
        return lambda w: self._join(_pull(Hv, self._leaves, self._split(w)))

    @torch.inference_mode(False)
    def _taylor(self, v: Array, order: int) -> Sequence[Array]:
        """Differentiate along ``v``, again and again, by the tensors that move alone.

        The k-th gradient by them, D^k f[v, ..., v, .], starts from the graph of the first.
        """
        _refuse_fused_norms([self._value])
        _, g = self._second
        moving = self.oracle.structure.moving(v.detach())
        places = [i for i, d in enumerate(moving) if d is not None]
        leaves, direction = [self._leaves[i] for i in places], [moving[i] for i in places]
        slope: Sequence[Array] = [g[i] for i in places]
        terms = [self.value]
        for k in range(1, order + 1):
            parts = [torch.sum(d.detach() * t) for d, t in zip(slope, direction, strict=True)]
            terms.append(sum(parts, torch.zeros_like(terms[0])))
            if k < order:
                slope = _pull(slope, leaves, direction, create_graph=k + 1 < order)
                _refuse_once_differentiable(slope)
        return terms

    def _columns(self, product: Callable[[Any], Array], V: Array) -> Array:
        _ = self._first  # records outside vmap
        if product in (self._hvp, self._jvp) and V.shape[1]:
            moving = self.oracle.structure.moving
            if moving(V[:, 0]).count(None) > len(self._leaves) / 2:
                rows = [product(moving(V[:, j])) for j in range(V.shape[1])]
                return torch.stack(rows, dim=1)
        try:
            rows = torch.vmap(product, in_dims=1)(V)
        except RuntimeError as error:
            if not re.search("vmap|batching rule|sparse", str(error), re.IGNORECASE):
                raise
            return super()._columns(product, V)
        return rows.T.contiguous()

    def _split(self, v: Array | Leaves) -> Leaves:
        return v if isinstance(v, list) else self.oracle.structure.split(v)

    def _like_z(self, w: Array) -> Array:
        return w.reshape(self.output_shape)

    def _join(self, parts: Sequence[Array]) -> Array:
        return self.oracle.structure.join([part.detach() for part in parts], copy=True)


def _pull(
    outputs: Sequence[Array],
    inputs: Sequence[Array],
    cotangents: Sequence[Array | None],
    *,
    create_graph: bool = False,
) -> Sequence[Array]:
    """Return the cotangents of ``inputs``: zeros where nothing depends on them. Keeps the graph.

    What has the cotangent None is passed over.
    """
    pairs = zip(outputs, cotangents, strict=True)
    live = [(y, t) for y, t in pairs if t is not None and y.requires_grad]
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
    if any(name == "torch::autograd::Error" for name in _names(gradient)):
        raise NotDifferentiable(
            "the function uses a torch.autograd.Function marked @once_differentiable; write "
            "its backward with differentiable tensor operations and remove the mark"
        )


def _refuse_fused_norms(tensors: Sequence[Array]) -> None:
    """Raise if a fused normalisation took part: PyTorch's own third derivative of it is wrong."""
    for name in _names(tensors):
        if fused := re.match("Native(Batch|Layer)Norm", name):
            kind = fused[1].lower()
            raise NotDifferentiable(
                f"PyTorch's third derivative of {kind}_norm is wrong: use "
                f"osculant.ops.{kind}_norm, or products up to second order"
            )


def _names(tensors: Sequence[Array]) -> Iterator[str]:
    """Yield the names of all nodes in the graph of ``tensors``."""
    return (node.name() for node in graph_nodes(tensors))


def graph_nodes(tensors: Sequence[Array], beyond: Sequence[Array] = ()) -> Iterator[Any]:
    """Yield the nodes of the graph of ``tensors``, without those behind ``beyond``."""
    seen: set[Any] = {tensor.grad_fn for tensor in beyond}
    found = [tensor.grad_fn for tensor in tensors]
    while found:
        node = found.pop()
        if node is None or node in seen:
            continue
        yield node
        seen.add(node)
        found.extend(successor for successor, _ in node.next_functions)


def check_graph(result: Array, name: str) -> None:
    """Raise unless ``result``, returned by the user's function, has a graph."""
    if not result.requires_grad:
        raise NotDifferentiable(
            f"{name} returned a tensor that does not depend on its parameters; compute it from "
            "them with tensor operations, without detach(), item(), numpy() or no_grad()"
        )


def _scalar_name(objective: Objective) -> str:
    return "loss" if objective.composite else "fun"
