"""What a smooth test function is, and how the collections of them are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array, like, namespace

Function = Callable[[Array], Array]


@dataclass(frozen=True)
class SmoothProblem:
    """A smooth function of n variables to minimise.

    Attributes
    ----------
    name : str
        The collection's.
    fun : callable
        Maps x of shape (n,) to a 0-d array, in the namespace, dtype and device of x.
    start : tuple of float
        The collection's start.
    lowest : float
        The lowest known value.
    source : str
        "formula" if ``lowest`` follows from it, else "measured".
    """

    name: str
    fun: Function
    start: tuple[float, ...]
    lowest: float
    source: str

    @property
    def n(self) -> int:
        """The number of variables."""
        return len(self.start)

    def starts(self) -> dict[str, np.ndarray]:
        """Return the standard start, and one perturbed by up to a tenth, in float64.

        Entry i of the perturbed one is x_i + max(1, |x_i|) u_i / 10, u uniform in [-1, 1] from
        a fixed seed.
        """
        x0 = np.asarray(self.start)
        u = np.random.default_rng(0).uniform(-1.0, 1.0, self.n)
        return {"standard": x0, "perturbed": x0 + 0.1 * np.maximum(1.0, np.abs(x0)) * u}


class Collection(list[SmoothProblem]):
    """Test functions, in the order in which they were added."""

    def add(
        self,
        name: str,
        n: int,
        start: float | Sequence[float] | np.ndarray,
        *,
        lowest: float,
        source: str = "formula",
    ) -> Callable[[Function], Function]:
        """Return what adds a function of n variables; ``start`` is repeated to that length."""

        def register(fun: Function) -> Function:
            x0 = tuple(float(x) for x in np.resize(np.asarray(start), n))
            self.append(SmoothProblem(name, fun, x0, lowest, source))
            return fun

        return register


def counting(x: Array, first: int = 1) -> Array:
    """Return (first, first + 1, ...), as long as x."""
    return like(x, np.arange(float(first), x.shape[0] + first))


def total(x: Array) -> Array:
    """Return the sum over all entries of x, as a 0-d array."""
    return namespace(x).sum(x)
