"""Control flow that one algorithm can use eagerly and under a tracer."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import optree

from .arrays import Array, is_array, namespace

S = TypeVar("S")

#: The arrays, by ``id``, whose memory the function that is running may take (:meth:`Flow.jit`).
_DONATED: ContextVar[frozenset[int]] = ContextVar("donated", default=frozenset())


class Flow:
    """The eager control flow: Python's own.

    A backend whose arrays can be traced (JAX) subclasses this. Algorithms call nothing else,
    which is what lets the same text run eagerly on NumPy, CuPy and PyTorch and be compiled by
    ``jax.jit``.
    """

    def while_loop(self, keep_going: Callable[[S], Array], step: Callable[[S], S], state: S) -> S:
        """Return ``state`` stepped for as long as ``keep_going(state)`` holds.

        Parameters
        ----------
        keep_going : callable
            Maps the state to a 0-d boolean array.
        step : callable
            Maps the state to the next one, with the same structure, shapes and dtypes.
        state : NamedTuple of arrays
        """
        while bool(keep_going(state)):
            state = step(state)
        return state

    def cond(
        self,
        predicate: Array,
        on_true: Callable[..., S],
        on_false: Callable[..., S],
        *operands: Any,
    ) -> S:
        """Return ``on_true(*operands)`` or ``on_false(*operands)``; the other is not evaluated."""
        return on_true(*operands) if bool(predicate) else on_false(*operands)

    def root(
        self,
        f: Callable[..., Array],
        solve: Callable[..., tuple[Array, S]],
        x: Array,
        data: tuple[Any, ...],
    ) -> tuple[Array, S]:
        """Return ``solve(x, *data)``: a root of f(., *data), and integers beside it.

        Where a framework differentiates what it traces, the derivatives of the root by the data
        are those of the implicit function. The Jacobian of f there must be symmetric and positive
        definite.
        """
        return solve(x, *data)

    def when(self, predicate: Array, change: Callable[[S], S], state: S) -> S:
        """Return ``change(state)`` if ``predicate`` holds, and ``state`` if it does not.

        Under a tracer it is a loop of one turn or none, which changes the state in place, where
        the branches of :meth:`cond` would copy it. What ``change`` does without the state a
        compiler may move out of the loop, and do always.
        """
        once = (predicate, state)
        return self.while_loop(lambda c: c[0], lambda c: (c[0] & ~c[0], change(c[1])), once)[1]

    def put(self, rows: Array, i: Array, row: Array, where: Array | bool = True) -> Array:
        """Return ``rows`` with ``row`` in place ``i``, if ``where`` holds.

        ``rows`` may be written to: it must be the caller's own, who goes on with the result alone.
        """
        if bool(where):
            rows[int(i), ...] = row
        return rows

    def own_rows(self, rows: Array) -> Array:
        """Return ``rows`` for :meth:`put`: where it writes to them, a copy if they are not donated.

        Who reads the rows given, too, wants :meth:`copied_rows`.
        """
        return rows if id(rows) in _DONATED.get() else self.copied_rows(rows)

    def copied_rows(self, rows: Array) -> Array:
        """Return ``rows`` for :meth:`put`, which leaves those given as they are."""
        return namespace(rows).asarray(rows, copy=True)

    def leading(self, rows: Array, count: Array) -> Array:
        """Return the first ``count`` rows, at least one; all of them where shapes are fixed.

        What is computed from them must not depend on which it is: the others are to be zeros.
        """
        return rows[: max(int(count), 1), ...]

    def jit(
        self,
        function: Callable[..., S],
        static: tuple[int, ...] = (),
        donate: tuple[int, ...] = (),
    ) -> Callable[..., S]:
        """Return ``function`` compiled where the framework compiles; here, as it is.

        Parameters
        ----------
        function : callable
        static : tuple of int
            Positions of the hashable arguments that are not arrays.
        donate : tuple of int
            Positions of arguments whose memory the results may take, after which they are gone:
            what the function returned itself, and nobody else holds, or what :meth:`own` returned.
        """
        if not donate:
            return function

        def taking(*args: Any) -> Any:
            leaves = (leaf for i in donate for leaf in optree.tree_leaves(args[i]))
            before = _DONATED.set(frozenset(map(id, leaves)))
            try:
                return function(*args)
            finally:
                _DONATED.reset(before)

        return taking

    def own(self, tree: S) -> S:
        """Return ``tree`` in arrays that are nobody else's, nor twice in it, to be donated."""

        def copied(leaf: Any) -> Any:
            return namespace(leaf).asarray(leaf, copy=True) if is_array(leaf) else leaf

        return optree.tree_map(copied, tree)


EAGER = Flow()
