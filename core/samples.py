"""Which data each part of a step sees: the gradient, the curvature and the ratio may differ."""

from __future__ import annotations

from typing import Any, NamedTuple

from .arrays import Array
from .oracle import Oracle, Point


class Samples(NamedTuple):
    """The data arguments of one step, where its parts are to see different ones.

    Passed to :meth:`~osculant.core.solvers.base.Solver.step` as its single data argument.
    """

    gradient: tuple[Any, ...]
    """For the value and gradient of the model."""
    curvature: Any = None
    """For Hessian, Gauss-Newton and third-order products; often a smaller batch."""
    ratio: Any = None
    """For the values by which a step is judged; often a larger batch.

    None, here as above, stands for the gradient's: a compiled step sees that, and not that two
    arguments were the same object.
    """

    def curved(self, oracle: Oracle, x: Array, pt: Point) -> Point:
        """Return where the products at ``x`` are taken: ``pt``, if they see the gradient's data."""
        return pt if self.curvature is self.gradient else oracle.at(x, *self.curvature)

    def judged(self, oracle: Oracle, x: Array, f: Array) -> Array:
        """Return what a step from ``x`` is judged against: f, if it sees the gradient's data."""
        return f if self.ratio is self.gradient else oracle.value(x, *self.ratio)

    def change(self, oracle: Oracle, x: Array, f: Array, new: Array) -> Array:
        """Return how the function changes from ``x`` to ``new``, on the ratio's sample."""
        before = self.judged(oracle, x, f)
        return oracle.value(new, *self.ratio) - before


def split(data: tuple[Any, ...]) -> Samples:
    """Return the samples that a step was given: one batch serves all parts, unless told apart.

    The parts of one batch are the same object, so that ``samples.curvature is samples.gradient``
    tells a solver that it need not linearise twice.
    """
    if len(data) != 1 or not isinstance(data[0], Samples):
        return Samples(data, data, data)
    gradient, curvature, ratio = data[0]
    return Samples(
        gradient,
        gradient if curvature is None else curvature,
        gradient if ratio is None else ratio,
    )
