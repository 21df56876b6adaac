"""An oracle around another one, to count, time or change what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from ..core.arrays import Array
from ..core.oracle import Oracle, Point


class WrappedPoint(Point):
    """Another oracle's point; every product goes through :meth:`ask`.

    Parameters
    ----------
    oracle : Wrapped
        Whose point it is.
    inner : Point
        Answers.
    x : array of shape (n,)
        Where it is linearised: the very array that was given, which may change later.
    data : tuple
        As given to ``oracle.at``.
    """

    oracle: Wrapped

    def __init__(self, oracle: Wrapped, inner: Point, x: Array, data: tuple[Any, ...]) -> None:
        super().__init__(oracle)
        self.linearised = inner
        self.x = x
        self.data = data

    @property
    def inner(self) -> Point:
        """The point that is asked."""
        return self.linearised

    def ask(self, product: str, *args: Any) -> Any:
        """Return the inner point's answer to ``product``, the name of its method."""
        return getattr(self.inner, product)(*args)

    @property
    def value(self) -> Array:
        """The inner point's."""
        return self.inner.value

    @property
    def grad(self) -> Array:
        """The inner point's."""
        return self.inner.grad

    @property
    def outputs(self) -> Array:
        """The inner point's."""
        return self.inner.outputs

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The inner point's."""
        return self.inner.output_shape

    @property
    def loss_grad(self) -> Array:
        """The inner point's."""
        return self.inner.loss_grad

    def hvp(self, V: Array) -> Array:
        """Ask for H V."""
        return self.ask("hvp", V)

    def vhv(self, V: Array) -> Array:
        """Ask for v' H v."""
        return self.ask("vhv", V)

    def ggn(self, V: Array) -> Array:
        """Ask for G V."""
        return self.ask("ggn", V)

    def vgv(self, V: Array) -> Array:
        """Ask for v' G v."""
        return self.ask("vgv", V)

    def jvp(self, V: Array) -> Array:
        """Ask for J V."""
        return self.ask("jvp", V)

    def vjp(self, U: Array) -> Array:
        """Ask for J' U."""
        return self.ask("vjp", U)

    def loss_hvp(self, U: Array) -> Array:
        """Ask for H_L U."""
        return self.ask("loss_hvp", U)

    def third(self, V: Array) -> Array:
        """Ask for D^3 f[v, v, v]."""
        return self.ask("third", V)

    def dhvp(self, v: Array, W: Array) -> Array:
        """Ask for D^3 f[v, w, .]."""
        return self.ask("dhvp", v, W)

    def taylor(self, v: Array, order: int = 3) -> tuple[Array, ...]:
        """Ask for the derivatives of f(x + t v)."""
        terms: tuple[Array, ...] = self.ask("taylor", v, order)
        return terms


class Wrapped(Oracle):
    """Another oracle, of any backend, unchanged: the base of those that watch or change one.

    A subclass overrides :meth:`at` and :meth:`value` for the evaluations; for the products, it has
    a subclass of :class:`WrappedPoint` as its ``point``, which overrides ``ask``, or the products
    themselves. Any solver runs on it as on the oracle inside, but those that look into the
    model's layers (:class:`~osculant.KFAC`), as their products would pass it by.

    Parameters
    ----------
    inner : Oracle
        Answers.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> from osculant.testing import Wrapped, WrappedPoint
    >>> class SpeakingPoint(WrappedPoint):
    ...     def ask(self, product, *args):
    ...         print(product)
    ...         return super().ask(product, *args)
    >>> class Speaking(Wrapped):
    ...     point = SpeakingPoint
    >>> oracle = Speaking(osculant.oracle(lambda x: (x**3).sum(), np.ones(2)))
    >>> oracle.at(np.ones(2)).hvp(np.ones(2))
    hvp
    array([6., 6.])
    """

    point: type[WrappedPoint] = WrappedPoint

    def __init__(self, inner: Oracle) -> None:
        super().__init__(inner.structure)
        self.inner = inner
        self.products = inner.products
        self.flow = inner.flow

    def at(self, x: Array, *data: Any) -> WrappedPoint:
        """Wrap the inner oracle's point."""
        return self.point(self, self.inner.at(x, *data), x, data)

    def value(self, x: Array, *data: Any) -> Array:
        """Return the inner oracle's value."""
        return self.inner.value(x, *data)

    def held(self, seed: int, *, track: bool = True) -> AbstractContextManager[None]:
        """Hold the inner oracle."""
        return self.inner.held(seed, track=track)

    def prepare(self) -> None:
        """Make the inner oracle ready."""
        self.inner.prepare()

    def agreed(self, number: float) -> float:
        """Let the inner oracle agree."""
        return self.inner.agreed(number)

    @property
    def buffers(self) -> Mapping[str, Array]:
        """The inner oracle's."""
        return self.inner.buffers

    def ravel(self, tree: Any) -> Array:
        """Return the inner oracle's vector."""
        return self.inner.ravel(tree)

    def unravel(self, vector: Array) -> Any:
        """Return the inner oracle's tree."""
        return self.inner.unravel(vector)
