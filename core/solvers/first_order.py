"""First-order methods: what the second-order ones are compared with, and directions for them.

Each is known by its *proposal*, a direction u made from the gradients so far; its own step is
x <- x - learning_rate u. The adaptive ones propose A^-1 m, with A one of the ellipsoids of
:mod:`~osculant.core.norms` and m the gradient or a mean of gradients: the minimiser of the linear
model m's within that ellipsoid (Kohler et al. 2020, equations 5 and 6).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from .. import norms
from ..arrays import Array, integer_like, like, namespace
from ..flow import EAGER, Flow
from ..oracle import Oracle
from ..result import Counts, Status
from .base import Solver, unevaluated, verdict

#: Of the user's tensors.
Shapes = Sequence[tuple[int, ...]]


class FirstOrderState(NamedTuple):
    """State of the first-order methods."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    slots: Any
    """What the proposal keeps: a tuple of arrays."""


class AdamSlots(NamedTuple):
    """What :class:`Adam` keeps."""

    mean: Array
    """Decayed mean of the gradient, m, of shape (n,)."""
    moments: Any
    """State of the norm A."""


@dataclass(frozen=True, kw_only=True)
class FirstOrder(Solver):
    """Base of the first-order methods: a subclass supplies ``slots`` and ``propose``."""

    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be positive")

    @abstractmethod
    def slots(self, x: Array, shapes: Shapes) -> Any:
        """Return what is kept before the first gradient.

        Parameters
        ----------
        x : array of shape (n,)
        shapes : sequence of tuple of int
            Of the tensors that lie in x, one after the other.
        """

    @abstractmethod
    def propose(self, slots: Any, g: Array, flow: Flow = EAGER) -> tuple[Array, Any]:
        """Return the direction u of shape (n,) after another gradient ``g``, and the next slots.

        It is pure. A step goes along -u.
        """

    def init(self, oracle: Oracle, x: Array, *data: Any) -> FirstOrderState:
        """Return the state to start from ``x``, of shape (n,)."""
        return FirstOrderState(
            **unevaluated(x),
            slots=self.slots(x, oracle.structure.shapes),
        )

    def step(self, oracle: Oracle, state: FirstOrderState, *data: Any) -> FirstOrderState:
        """Return the state after one step; a gradient that is not finite moves nothing."""
        pt = oracle.at(state.x, *data)
        g = pt.grad
        status = verdict(pt.value, g, self.gtol)
        running = status == Status.RUNNING.value
        propose = partial(self.propose, flow=oracle.flow)
        u, slots = oracle.flow.cond(running, propose, stay, state.slots, g)
        return FirstOrderState(
            x=state.x - self.learning_rate * u,
            value=pt.value,
            grad=g,
            status=status,
            counts=state.counts.add(gradients=1),
            slots=slots,
        )


def stay(slots: Any, g: Array) -> tuple[Array, Any]:
    """Propose nothing, and learn nothing from ``g``."""
    return namespace(g).zeros_like(g), slots


class SGDSlots(NamedTuple):
    """What :class:`SGD` keeps."""

    velocity: Array
    """Shape (n,)."""
    t: Array
    """Gradients so far."""


@dataclass(frozen=True, kw_only=True)
class SGD(FirstOrder):
    """Gradient descent, with heavy-ball or Nesterov's momentum.

    v <- momentum v + (1 - dampening) g, from v = g;  u = v, or g + momentum v with Nesterov's.

    Parameters
    ----------
    learning_rate : float
        Step length per unit of gradient.
    momentum : float
        In [0, 1); 0 is plain gradient descent.
    dampening : float
        In [0, 1]; where it equals ``momentum``, v is a decayed mean of the gradients.
    nesterov : bool
        Whether the momentum is Nesterov's, in the form of Sutskever et al. (2013).
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.
    """

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1 or not 0 <= self.dampening <= 1:
            raise ValueError(
                f"momentum is {self.momentum} and dampening {self.dampening}; they must lie in "
                "[0, 1) and [0, 1]"
            )
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("Nesterov's momentum needs a momentum above 0, and no dampening")

    def slots(self, x: Array, shapes: Shapes) -> SGDSlots:
        """Return the velocity before the first gradient."""
        return SGDSlots(namespace(x).zeros_like(x), integer_like(x, 0))

    def propose(self, slots: SGDSlots, g: Array, flow: Flow = EAGER) -> tuple[Array, SGDSlots]:
        """Return the velocity, or Nesterov's, and the slots."""
        mixed = self.momentum * slots.velocity + (1 - self.dampening) * g
        velocity = namespace(g).where(slots.t == 0, g, mixed)
        u = g + self.momentum * velocity if self.nesterov else velocity
        return u if self.momentum else g, SGDSlots(velocity, slots.t + 1)


@dataclass(frozen=True, kw_only=True)
class _Adaptive(FirstOrder):
    """u = A^-1 g, where A has seen g."""

    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._norm()  # which says what is out of range

    @abstractmethod
    def _norm(self) -> norms.Norm:
        """Return what defines A."""

    def slots(self, x: Array, shapes: Shapes) -> Any:
        """Return the moments before the first gradient."""
        return self._norm().init(x)

    def propose(self, slots: Any, g: Array, flow: Flow = EAGER) -> tuple[Array, Any]:
        """Return A^-1 g and the moments."""
        norm = self._norm()
        moments = norm.update(slots, g)
        return norm.solve(moments, g), moments


@dataclass(frozen=True, kw_only=True)
class Adagrad(_Adaptive):
    """Adagrad (Duchi, Hazan and Singer 2011): A = diag(sqrt(sum of g^2)) + epsilon I.

    Parameters
    ----------
    learning_rate : float
        Length of the first step, in each coordinate.
    epsilon : float
        Keeps the denominator from zero.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.
    """

    def _norm(self) -> norms.Norm:
        return norms.Adagrad(epsilon=self.epsilon)


@dataclass(frozen=True, kw_only=True)
class RMSProp(_Adaptive):
    """RMSProp (Tieleman and Hinton 2012): A = diag(sqrt(v)) + epsilon I, v a decayed mean of g^2.

    Parameters
    ----------
    learning_rate : float
        Step length per coordinate, once the mean is that of the gradients.
    decay : float
        Decay rate of v; the lecture's 0.9.
    epsilon : float
        Keeps the denominator from zero.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.
    """

    learning_rate: float = 1e-3
    decay: float = 0.9

    def _norm(self) -> norms.Norm:
        return norms.RMSProp(epsilon=self.epsilon, decay=self.decay)


@dataclass(frozen=True, kw_only=True)
class Adam(_Adaptive):
    """Adam (Kingma and Ba 2015, Algorithm 1).

    m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;
    u = mhat / (sqrt(vhat) + epsilon), with the bias of m and v corrected.

    Parameters
    ----------
    learning_rate : float
        Step length per coordinate; 1e-3 is the paper's.
    beta1, beta2 : float
        Decay rates of the moments; the paper's 0.9 and 0.999.
    epsilon : float
        Keeps the denominator from zero; the paper's 1e-8.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")
        super().__post_init__()

    def _norm(self) -> norms.Norm:
        return norms.Adam(epsilon=self.epsilon, decay=self.beta2)

    def slots(self, x: Array, shapes: Shapes) -> AdamSlots:
        """Return the moments before the first gradient."""
        return AdamSlots(namespace(x).zeros_like(x), super().slots(x, shapes))

    def propose(self, slots: AdamSlots, g: Array, flow: Flow = EAGER) -> tuple[Array, AdamSlots]:
        """Return mhat / (sqrt(vhat) + epsilon) and the moments."""
        norm = self._norm()
        mean = self.beta1 * slots.mean + (1 - self.beta1) * g
        moments = norm.update(slots.moments, g)
        return norm.solve(moments, unbiased(mean, self.beta1, moments.t)), AdamSlots(mean, moments)


def unbiased(mean: Array, decay: float, t: Array) -> Array:
    """Return a decayed mean of ``t`` terms without its bias towards 0: over 1 - decay^t."""
    xp = namespace(mean)
    seen = xp.astype(xp.maximum(t, integer_like(t, 1)), mean.dtype)
    return mean / (1 - like(mean, decay) ** seen)
