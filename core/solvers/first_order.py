"""First-order methods: what the second-order ones are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..arrays import Array, integer_like, like, namespace
from ..oracle import Oracle
from ..result import Counts, Status
from .base import Solver, verdict


class SGDState(NamedTuple):
    """State of :class:`SGD`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    velocity: Array


class AdamState(NamedTuple):
    """State of :class:`Adam`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    mean: Array
    """Decayed mean of the gradient, m."""
    square: Array
    """Decayed mean of its square, v."""
    t: Array
    """Steps so far."""


@dataclass(frozen=True, kw_only=True)
class SGD(Solver):
    """Gradient descent with heavy-ball momentum.

    v <- momentum v + g;  x <- x - learning_rate v

    Parameters
    ----------
    learning_rate : float
        Step length per unit of gradient.
    momentum : float
        In [0, 1); 0, plain gradient descent, is torch.optim.SGD's default.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.
    """

    learning_rate: float = 1e-2
    momentum: float = 0.0

    def init(self, oracle: Oracle, x: Array, *data: Any) -> SGDState:
        """Return the state to start from ``x``, of shape (n,)."""
        zeros = namespace(x).zeros_like(x)
        return SGDState(x, like(x, 0.0), zeros, integer_like(x, 0), Counts.zero(x), zeros)

    def step(self, oracle: Oracle, state: SGDState, *data: Any) -> SGDState:
        """Return the state after one gradient step; a gradient that is not finite moves nothing."""
        pt = oracle.at(state.x, *data)
        g = pt.grad
        status = verdict(pt.value, g, self.gtol)
        xp = namespace(g)
        moves = status == Status.RUNNING.value
        velocity = xp.where(moves, self.momentum * state.velocity + g, state.velocity)
        return SGDState(
            x=xp.where(moves, state.x - self.learning_rate * velocity, state.x),
            value=pt.value,
            grad=g,
            status=status,
            counts=state.counts.add(gradients=1),
            velocity=velocity,
        )


@dataclass(frozen=True, kw_only=True)
class Adam(Solver):
    """Adam (Kingma and Ba, 2015, Algorithm 1).

    m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;
    x <- x - learning_rate mhat / (sqrt(vhat) + epsilon), with the bias of m and v corrected.

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
    epsilon: float = 1e-8

    def init(self, oracle: Oracle, x: Array, *data: Any) -> AdamState:
        """Return the state to start from ``x``, of shape (n,)."""
        zeros, none = namespace(x).zeros_like(x), integer_like(x, 0)
        return AdamState(x, like(x, 0.0), zeros, none, Counts.zero(x), zeros, zeros, none)

    def step(self, oracle: Oracle, state: AdamState, *data: Any) -> AdamState:
        """Return the state after one step; a gradient that is not finite moves nothing."""
        pt = oracle.at(state.x, *data)
        g = pt.grad
        status = verdict(pt.value, g, self.gtol)
        xp = namespace(g)
        moves = status == Status.RUNNING.value
        t = state.t + xp.astype(moves, state.t.dtype)
        mean = xp.where(moves, self.beta1 * state.mean + (1 - self.beta1) * g, state.mean)
        square = xp.where(moves, self.beta2 * state.square + (1 - self.beta2) * g * g, state.square)
        power = xp.astype(xp.maximum(t, integer_like(t, 1)), g.dtype)
        unbiased_mean = mean / (1 - like(g, self.beta1) ** power)
        unbiased_square = square / (1 - like(g, self.beta2) ** power)
        move = self.learning_rate * unbiased_mean / (xp.sqrt(unbiased_square) + self.epsilon)
        return AdamState(
            x=xp.where(moves, state.x - move, state.x),
            value=pt.value,
            grad=g,
            status=status,
            counts=state.counts.add(gradients=1),
            mean=mean,
            square=square,
            t=t,
        )
