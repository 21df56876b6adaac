"""JAX's control flow: eager while values are known, compiled once they are traced."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..core.arrays import Array
from ..core.flow import Flow, S


class JaxFlow(Flow):
    """Python's control flow while values are known, and ``lax``'s once they are traced.

    ``lax.while_loop`` is not called with known values: fresh closures would recompile it each
    time.
    """

    def while_loop(self, keep_going: Callable[[S], Array], step: Callable[[S], S], state: S) -> S:
        """Return ``state`` stepped for as long as ``keep_going(state)`` holds."""
        try:
            while keep_going(state):
                state = step(state)
        except jax.errors.TracerBoolConversionError:
            return lax.while_loop(keep_going, step, state)
        return state

    def cond(
        self,
        predicate: Array,
        on_true: Callable[..., S],
        on_false: Callable[..., S],
        *operands: Any,
    ) -> S:
        """Return ``on_true(*operands)`` or ``on_false(*operands)``."""
        try:
            branch = on_true if predicate else on_false
        except jax.errors.TracerBoolConversionError:
            return lax.cond(predicate, on_true, on_false, *operands)
        return branch(*operands)

    def root(
        self,
        f: Callable[..., Array],
        solve: Callable[..., tuple[Array, S]],
        x: Array,
        data: tuple[Any, ...],
    ) -> tuple[Array, S]:
        """Return ``solve(x, *data)``; the root is differentiated by CG on the Jacobian of f."""

        @jax.custom_jvp
        def found(x: Array, data: tuple[Any, ...]) -> tuple[Array, S]:
            return solve(x, *data)

        @found.defjvp
        def _derivative(primals: Any, tangents: Any) -> Any:
            x, data = primals
            root, rest = found(x, data)
            _, slope = jax.jvp(lambda *data: f(root, *data), data, tangents[1])

            def jacobian(v: Array) -> Array:
                return jax.jvp(lambda x: f(x, *data), (root,), (v,))[1]

            moved = lax.custom_linear_solve(jacobian, -slope, _cg, symmetric=True)
            still = jax.tree.map(lambda a: np.zeros(a.shape, jax.dtypes.float0), rest)
            return (root, rest), (moved, still)

        return found(x, data)

    def put(self, rows: Array, i: Array, row: Array, where: Array | bool = True) -> Array:
        """Return ``rows`` with ``row`` in place ``i``, if ``where`` holds.

        XLA does it in place within a loop, and where the rows are donated. What is chosen between
        is the row: of two blocks XLA would copy one.
        """
        if where is not True:
            row = jnp.where(where, row, lax.dynamic_index_in_dim(rows, i, keepdims=False))
        return lax.dynamic_update_index_in_dim(rows, row, i, 0)

    def own_rows(self, rows: Array) -> Array:
        """Return ``rows``, which nothing writes to."""
        return rows

    copied_rows = own_rows

    def leading(self, rows: Array, count: Array) -> Array:
        """Return all rows."""
        return rows

    def jit(
        self,
        function: Callable[..., S],
        static: tuple[int, ...] = (),
        donate: tuple[int, ...] = (),
    ) -> Callable[..., S]:
        """Return ``function`` compiled; the same one for the same arguments."""
        return _jit(function, static, donate)

    def own(self, tree: S) -> S:
        """Return copies of the arrays in ``tree``."""
        return jax.tree.map(jnp.copy, tree)


def _cg(product: Callable[[Array], Array], b: Array) -> Array:
    tolerance = float(jnp.finfo(b.dtype).eps) ** 0.75
    return jax.scipy.sparse.linalg.cg(product, b, tol=tolerance)[0]


@lru_cache(maxsize=256)
def _jit(
    function: Callable[..., Any], static: tuple[int, ...], donate: tuple[int, ...]
) -> Callable[..., Any]:
    return jax.jit(function, static_argnums=static, donate_argnums=donate)
