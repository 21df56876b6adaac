"""What the methods share that know gradients only and search along a direction with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

from ..arrays import Array, dot, guarded_divide, integer_like, like, namespace, norm
from ..flow import Flow
from ..globalize.line_search import noise, wolfe
from ..oracle import Oracle
from ..pairs import CAUTIOUS, at_end, damped, teaches
from ..result import Status
from .base import Solver, verdict

#: The first step tried, in units of max(1, |x|).
FIRST = 0.01


class Start(NamedTuple):
    """Where a step starts."""

    f: Array
    g: Array
    status: Array
    active: Array
    """Whether there is anything to do."""
    gradients: Array
    """Linearisations that it took to know all this."""


class Move(NamedTuple):
    """What a line search came to."""

    x: Array
    s: Array
    """Step taken; zeros if there is none."""
    y: Array
    """Change of the gradient over it."""
    value: Array
    grad: Array
    """Gradient at its end."""
    step_length: Array
    gradients: Array
    """What it cost."""
    moved: Array


@dataclass(frozen=True, kw_only=True)
class GradientSearch(Solver):
    """Base of the methods with a line search by gradients.

    Its fields are documented by its subclasses.
    """

    curvature: float = 0.9
    attempts: int = 30
    fixed: bool = False

    strong: ClassVar[bool] = False
    """Whether the line search is to satisfy the strong Wolfe conditions."""
    growth: ClassVar[float] = 10.0
    """How many times as long it may make a step at once."""

    def __post_init__(self) -> None:
        if not 1e-4 < self.curvature < 1:
            raise ValueError(f"curvature is {self.curvature}; it must lie between 1e-4 and 1")
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; at least one trial step is needed")

    def deterministic(self) -> Self:
        """Return this solver for one fixed function."""
        return replace(self, fixed=True)

    def _start(self, oracle: Oracle, state: Any, *data: Any) -> Start:
        """Evaluate the start, or recall what the last line search found there."""

        def evaluate(x: Array) -> tuple[Array, ...]:
            pt = oracle.at(x, *data)
            return pt.value, pt.grad, integer_like(x, 1)

        def recall(x: Array) -> tuple[Array, ...]:
            return state.value, state.grad, integer_like(x, 0)

        if self.fixed:
            known = oracle.flow.cond(state.counts.gradients > 0, recall, evaluate, state.x)
        else:
            known = evaluate(state.x)
        f, g, gradients = known
        status = verdict(f, g, self.gtol)
        return Start(f, g, status, status == Status.RUNNING.value, gradients)

    def _search(self, oracle: Oracle, x: Array, start: Start, d: Array, *data: Any) -> Move:
        """Search along ``d``, first at its own length."""
        xp = namespace(d)

        def at(a: Array) -> tuple[Array, Array, Array]:
            pt = oracle.at(x + a * d, *data)
            return pt.value, dot(pt.grad, d), pt.grad

        slope = dot(start.g, d)
        search = wolfe(
            at,
            start.f,
            slope,
            start.g,
            curvature=self.curvature,
            attempts=self.attempts,
            active=start.active & (slope < 0),
            flow=oracle.flow,
            growth=self.growth,
            strong=self.strong,
        )
        moved = search.step > 0
        s, y = oracle.flow.cond(
            moved,
            lambda: (search.step * d, search.grad - start.g),
            lambda: (xp.zeros_like(d), xp.zeros_like(d)),
        )
        return Move(
            x=x + s,
            s=s,
            y=y,
            value=search.value,
            grad=search.grad,
            step_length=search.step,
            gradients=search.tries,
            moved=moved,
        )

    def _known(self, start: Start, move: Move) -> tuple[Array, Array]:
        """Return the value and gradient to put into the state.

        Those at the end serve the next step of a fixed function; otherwise those of the start.
        """
        return (move.value, move.grad) if self.fixed else (start.f, start.g)

    def report(self, state: Any) -> dict[str, Array]:
        """Return the last step length."""
        return {"step_length": state.step_length}


@dataclass(frozen=True, kw_only=True)
class QuasiNewton(GradientSearch):
    """Base of the methods that learn the Hessian from steps and changes of the gradient."""

    cautious: float = CAUTIOUS
    damping: bool = False

    growth: ClassVar[float] = 50.0
    """The first step tried is short, and this lets it be half as long as the start is far."""

    def _pair(self, start: Start, move: Move) -> tuple[Array, Array, Array]:
        """Return s, y and whether they are to be learned from.

        The step was along d = -H g, so that B s = -a g for a step of length a: damping needs no
        product with B.
        """
        s = move.s
        y = at_end(s, move.y, move.grad, start.f - move.value, noise(start.f))
        if self.damping:
            y = damped(s, y, -move.step_length * start.g)
        return s, y, move.moved & teaches(s, y, self.cautious)


def first_scale(x: Array, g: Array) -> Array:
    """Return how many times -g the first step tried is, while nothing is known of curvature.

    It is short, so that the slopes at its ends tell the curvature between them, and the line search
    makes it as long as they say: a Hessian product's worth for one gradient, at a point that may
    serve. The start is the only length that there is (cf. Hager and Zhang 2005, step I0).
    """
    return guarded_divide(FIRST * namespace(x).maximum(norm(x), like(x, 1.0)), norm(g))


def descending(d: Array, g: Array, flow: Flow) -> Array:
    """Return ``d``, or -g/|g| where ``d`` does not descend or is not a number."""
    return flow.cond(dot(g, d) < 0, lambda: d, lambda: -guarded_divide(like(g, 1.0), norm(g)) * g)
