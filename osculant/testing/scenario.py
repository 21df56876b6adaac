"""What a scenario is: a function with its derivatives, at two places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import optree

from ..core.oracle import Objective
from ..core.structure import Structure
from .derivatives import Derivatives, differences


class Place(NamedTuple):
    """Parameters, data, and the derivatives there."""

    params: Any
    """Tree of float64 arrays."""
    x: np.ndarray
    """The same as a vector of shape (n,)."""
    data: tuple[Any, ...]
    derivatives: Derivatives


@dataclass(frozen=True, eq=False)
class Scenario:
    """A function with its derivatives in closed form.

    Parameters
    ----------
    name : str
    params : tree of float64 numpy.ndarray
        Where to look, and the structure of the parameters.
    data : tuple of numpy.ndarray
        Further arguments. Float arrays are given in the parameters' dtype, others as they are.
    fun : callable
        ``fun(params, *data)``, a scalar; or else ``model`` and ``loss`` are given.
    model, loss : callable
        The composition ``loss(model(params, *data[:-1]), data[-1])``; without data
        ``loss(model(params))``.
    closed_form : callable
        ``closed_form(params, *data)`` returns :class:`~osculant.testing.Derivatives`.
        Without it they come from central differences, which suit smooth functions that vary
        over lengths of about one.
    convex_loss : bool
        Whether the loss is convex, so that Gauss-Newton is positive semi-definite.

    Raises
    ------
    ValueError
        Unless either ``fun`` or both ``model`` and ``loss`` are given.
    """

    name: str
    params: Any
    data: tuple[Any, ...] = ()
    fun: Callable[..., Any] | None = None
    model: Callable[..., Any] | None = None
    loss: Callable[..., Any] | None = None
    closed_form: Callable[..., Derivatives] | None = None
    convex_loss: bool = True

    def __post_init__(self) -> None:
        given = (self.fun is not None, self.model is not None, self.loss is not None)
        if given not in ((True, False, False), (False, True, True)):
            raise ValueError(
                f"scenario {self.name!r} needs either fun=, or model= and loss= together"
            )

    def __str__(self) -> str:
        return self.name

    @property
    def objective(self) -> Objective:
        """The functions."""
        return Objective(self.fun, self.model, self.loss)

    def derivatives(self, params: Any, data: tuple[Any, ...]) -> Derivatives:
        """Return the derivatives at ``params``."""
        params, data = optree.tree_map(_as_float64, (params, data))
        if self.closed_form is None:
            return differences(self.objective, params, data)
        return self.closed_form(params, *data)

    @cached_property
    def here(self) -> Place:
        """The place that the scenario gives."""
        return self._place(Structure(self.params).ravel(self.params), self.data)

    @cached_property
    def elsewhere(self) -> Place:
        """A second place, with other data."""
        x = self.here.x + 0.1 * np.cos(np.arange(self.here.x.size))
        return self._place(x, optree.tree_map(_scale, self.data))

    def _place(self, x: np.ndarray, data: tuple[Any, ...]) -> Place:
        params = Structure(self.params).unravel(x)
        return Place(params, x, data, self.derivatives(params, data))


def _as_float64(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64) if np.issubdtype(a.dtype, np.floating) else a


def _scale(a: np.ndarray) -> np.ndarray:
    return 1.25 * a if np.issubdtype(a.dtype, np.floating) else a
