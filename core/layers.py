"""What the dense and convolution layers of a model see: their inputs and their outputs' gradients.

While a :class:`Recorder` is active, ``osculant.ops.linear`` and ``ops.conv2d``, and the layers of a
:class:`torch.nn.Module`, report each use of a weight that is one of the parameters themselves: a
weight that was computed from parameters, such as a transpose, is not recognised, nor is one inside
a function that the user has compiled with ``jax.jit``. A layer's outputs can be shifted; the
gradient by the shifts is the gradient by the outputs. So the loss as a function of the shifts is a
composition like any other, which the backend's own oracle differentiates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from .arrays import Array, indices_like, like, namespace, root, smallest
from .oracle import Objective, Oracle, Point


class Layer(NamedTuple):
    """A dense or convolution layer: which leaves of the parameters it has, and how they lie."""

    weight: int
    """Index of the leaf."""
    bias: int | None
    outputs_first: bool
    """Whether the weight is (q, p), or (q, C, k_h, k_w), rather than (p, q)."""
    convolution: bool
    """Whether the outputs are images, (N, q, H, W), rather than (N, ..., q)."""


class Seen(NamedTuple):
    """What a layer saw of N samples at T places each; dense layers mostly have T = 1."""

    layer: Layer
    inputs: Array
    """Shape (N, T, p); of a convolution, the pixels under the kernel at each place."""
    gradients: Array
    """By the outputs, of shape (N, T, q)."""


class _Use(NamedTuple):
    layer: Layer
    inputs: Array
    outputs: Array


class Recorder:
    """Notes the layers that a model uses, in their order, or shifts their outputs.

    Parameters
    ----------
    leaves : sequence of array
        The parameters, as the very objects that the model is given.
    shifts : sequence of array, optional
        One for each use.
    """

    def __init__(self, leaves: Sequence[Any], shifts: Sequence[Any] | None = None) -> None:
        self.uses: list[_Use] = []
        self._leaves = leaves
        self._shifts = None if shifts is None else iter(shifts)

    def report(
        self,
        weight: Any,
        bias: Any,
        inputs: Callable[[], Array],
        outputs: Any,
        *,
        outputs_first: bool,
        convolution: bool,
    ) -> Any:
        """Return the outputs, shifted if they are to be; ``inputs`` gives (N, T, p)."""
        index = self._index(weight)
        if index is None:
            return outputs
        if self._shifts is not None:
            return outputs + next(self._shifts)
        layer = Layer(index, self._index(bias), outputs_first, convolution)
        self.uses.append(_Use(layer, inputs(), outputs))
        return outputs

    def _index(self, array: Any) -> int | None:
        return next((i for i, leaf in enumerate(self._leaves) if leaf is array), None)


_active: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Let the layers that are used in here report to ``recorder``."""
    token = _active.set(recorder)
    try:
        yield recorder
    finally:
        _active.reset(token)


def recorder() -> Recorder | None:
    """Return the recorder that layers are to report to; None if nobody listens."""
    return _active.get()


# The loss as a function of shifts ------------------------------------------------------------


class Layers:
    """The layers of a model at one place, and the loss as a function of their outputs.

    Parameters
    ----------
    oracle : Oracle
        Of a model and a loss, of the NumPy, PyTorch or JAX backend, or that with a weight decay,
        which belongs to no layer.
    x : array of shape (n,)
    *data
        As for ``oracle.at``.

    Attributes
    ----------
    point : Point
        The loss linearised as a function of all layers' outputs, of which ``outputs``,
        ``output_shape`` and ``loss_hvp`` are those of the model itself.

    Raises
    ------
    ProductUnavailable
        If the oracle has no model of its own backend to look into.

    Notes
    -----
    It costs two forward passes; :meth:`seen` a reverse sweep without the weights' gradients. A
    weight that is used more than once is left out: the product of its factors is not its block.
    On arrays other than NumPy's, PyTorch's and JAX's, what the model calls between layers must
    come from the namespace of what it computes with, not from that of the parameters.
    """

    def __init__(self, oracle: Oracle, x: Array, *data: Any) -> None:
        self._uses = _uses(oracle, x, data)
        self._once = _once(self._uses)
        shifts = [namespace(use.outputs).zeros_like(use.outputs) for use in self._uses]
        objective = Objective(model=_Shifted(oracle), loss=_Loss(oracle))
        self.point: Point | None = None
        if shifts:
            shifted = oracle.sibling(objective, shifts)
            self.point = shifted.at(shifted.ravel(shifts), (x, data[:-1]), data[-1:])

    @property
    def tags(self) -> tuple[Layer, ...]:
        """The layers, in the order in which they are used."""
        return _tags_of(self._uses)

    def seen(self, U: Array) -> list[Seen]:
        """Return the layers' inputs, and their outputs' gradients for this cotangent, (m,)."""
        assert self.point is not None, "the model has no layers"
        structure = self.point.oracle.structure
        return [
            Seen(use.layer, use.inputs, _places(use, d))
            for use, d, once in zip(
                self._uses, structure.split(self.point.vjp(U)), self._once, strict=True
            )
            if once
        ]


_tags: WeakKeyDictionary[Oracle, tuple[Layer, ...]] = WeakKeyDictionary()


def layers_of(oracle: Oracle, x: Array, *data: Any) -> tuple[Layer, ...]:
    """Return which layers the model has; it is run once, to be remembered for the oracle."""
    if oracle not in _tags:
        _tags[oracle] = _tags_of(_uses(oracle, x, data))
    return _tags[oracle]


def _once(uses: Sequence[_Use]) -> list[bool]:
    """Return, for each use of a weight, whether it is the only one."""
    times = Counter(use.layer.weight for use in uses)
    return [times[use.layer.weight] == 1 for use in uses]


def _tags_of(uses: Sequence[_Use]) -> tuple[Layer, ...]:
    return tuple(use.layer for use, once in zip(uses, _once(uses), strict=True) if once)


def _uses(oracle: Oracle, x: Array, data: tuple[Any, ...]) -> list[_Use]:
    """Run the model on plain arrays."""
    structure, objective = oracle.structure, oracle.composition()
    oracle.prepare()
    leaves = structure.split(namespace(x).asarray(x, copy=True))
    with recording(Recorder(leaves)) as record:
        objective.outputs(structure.build(leaves), data)
    return record.uses


@dataclass(frozen=True)
class _Shifted:
    """The model as a function of shifts; the parameters are data."""

    oracle: Oracle

    def __call__(self, shifts: Any, place: tuple[Array, tuple[Any, ...]]) -> Any:
        x, inputs = place
        structure, model = self.oracle.structure, self.oracle.composition().model
        leaves = structure.split(x)
        assert model is not None
        with recording(Recorder(leaves, shifts)):
            return model(structure.build(leaves), *inputs)


@dataclass(frozen=True)
class _Loss:
    oracle: Oracle

    def __call__(self, outputs: Any, targets: tuple[Any, ...]) -> Any:
        loss = self.oracle.composition().loss
        assert loss is not None
        return loss(outputs, *targets)


def _places(use: _Use, d: Array) -> Array:
    """Return gradients of the outputs' shape as (N, T, q)."""
    xp = namespace(d)
    if use.layer.convolution:
        N, q = d.shape[:2]
        return xp.matrix_transpose(xp.reshape(d, (N, q, -1)))
    return as_places(d)


def as_places(a: Array) -> Array:
    """Return an array of shape (N, ..., p), or (p,), as one of shape (N, T, p)."""
    N = a.shape[0] if a.ndim > 1 else 1
    return namespace(a).reshape(a, (N, -1, a.shape[-1]))


# Noise ---------------------------------------------------------------------------------------

#: The finaliser of MurmurHash3 (A. Appleby), in which each bit of the input reaches every other.
_MIX = ((16, -2048144789), (13, -1028477387), (16, 1))


def signs(u: Array, key: Array) -> Array:
    """Return random signs like ``u``, of shape (m,), that are a function of the integer ``key``.

    Being computed from an array, they differ from step to step where a step is compiled, too.
    """
    xp = namespace(u)
    h = indices_like(u, u.shape[0]) * 1540483477
    h = h + xp.reshape(xp.astype(key, xp.int32), (1,)) * -1640531527
    for shift, factor in _MIX:
        h = (h ^ ((h >> shift) & ((1 << (32 - shift)) - 1))) * factor
    return 2 * xp.astype(h & 1, u.dtype) - 1


def curvature_noise(point: Point, key: Array) -> Array:
    """Return u of shape (m,) with E[u u'] = H_L, the Hessian of the loss at the model's outputs.

    With signs s instead of draws of targets, u is sqrt(diag H_L) s where the outputs are
    independent, as for squared errors and Bernoullis. For the softmax cross-entropy of outputs of
    shape (N, C), where H_L = c (diag p - p p') for each sample, it is
    sqrt(c) (diag sqrt p - p sqrt(p)') s. Which of them it is, H_L says: of the latter all rows sum
    to zero.
    """
    z = point.outputs
    xp, s = namespace(z), signs(z, key)
    Hs, rows = point.loss_hvp(s), point.loss_hvp(xp.ones_like(z))
    independent = root(rows) * s
    if len(point.output_shape) != 2:
        return independent
    logits, S = (xp.reshape(a, point.output_shape) for a in (z, s))
    p = xp.exp(logits - xp.max(logits, axis=1, keepdims=True))
    p = p / xp.sum(p, axis=1, keepdims=True)
    drawn = xp.sqrt(p) * S
    drawn = drawn - p * xp.sum(drawn, axis=1, keepdims=True)
    spread = xp.sum(p * S**2) - xp.sum(xp.sum(p * S, axis=1) ** 2)
    total = xp.sum(s * Hs)
    c = total / xp.maximum(spread, like(z, smallest(z)))
    categorical = root(c) * xp.reshape(drawn, (-1,))
    return xp.where(xp.sum(rows) > total / 2, independent, categorical)
