"""The solvers as optax gradient transformations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import optax

from ..backends import jax_backend
from ..core.drive import check_solver
from ..core.oracle import Objective
from ..core.solvers import NewtonKrylov, Solver, TrustRegion, as_solver


def from_solver(
    solver: Solver | str,
    fun: Callable[..., Any] | None = None,
    *,
    model: Callable[..., Any] | None = None,
    loss: Callable[..., Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Return ``solver`` as an optax transformation.

    Parameters
    ----------
    solver : Solver or str
        Its hyper-parameters are those of the transformation, and fixed: to schedule the length of
        steps, chain it with ``optax.scale_by_schedule``. Or its name in :func:`osculant.fit`.
    fun : callable, optional
        ``fun(params, *data)`` returns the loss.
    model, loss : callable, optional
        Instead of ``fun``, the composition that Gauss-Newton methods need:
        ``loss(model(params, *data[:-1]), data[-1])``.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        Its ``update(updates, state, params, *, data=(), value_fn=None, **extra)`` linearises by
        itself, so that the gradients given are not used. ``data`` are the arguments of ``fun``.
        Where no function was given here, ``value_fn(params, ...)`` is minimised, with those of
        the extra arguments that it names (optax's own convention for line searches). All other
        extra arguments are ignored. A rejected step is an update of zeros.

    Raises
    ------
    ValueError
        From ``update``: if there are no ``params``, or no function to minimise; if ``optax.masked``
        or ``optax.multi_transform`` keeps some of the parameters back, which the function needs.
    TypeError
        From ``update``: if ``data`` are not what the function takes beside the parameters.
    ProductUnavailable
        From ``init``: if the solver needs Gauss-Newton products and there is no ``model``.

    Notes
    -----
    Call ``update`` inside your jitted training step; it can be vmapped, too. A ``value_fn``
    made anew for every call is compiled anew when it is called outside jit.
    """
    solver = as_solver(solver)
    given = Objective(fun, model, loss)

    def init(params: Any) -> Any:
        _check_whole(params)
        oracle = jax_backend.make_oracle(given, params)
        check_solver(oracle, solver)
        state = solver.init(oracle, oracle.ravel(params))._replace(x=None)
        return oracle.flow.own(state)  # a jitted training step may donate it

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        data: tuple[Any, ...] = (),
        value_fn: Callable[..., Any] | None = None,
        **extra: Any,
    ) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("update needs the parameters: update(grads, state, params, ...)")
        _check_whole(params)
        objective = _objective(given, value_fn, extra)
        _check_data(objective, data)
        oracle = jax_backend.make_oracle(objective, params)
        x = oracle.ravel(params)
        state = solver.step(oracle, state._replace(x=x), *data)
        return oracle.unravel(state.x - x), state._replace(x=None)

    return optax.GradientTransformationExtraArgs(init, update)


def trust_region(
    fun: Callable[..., Any] | None = None,
    *,
    model: Callable[..., Any] | None = None,
    loss: Callable[..., Any] | None = None,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """Return :class:`~osculant.TrustRegion` as in :func:`from_solver`; ``options`` are its own."""
    return from_solver(TrustRegion(**options), fun, model=model, loss=loss)


def newton_krylov(
    fun: Callable[..., Any] | None = None,
    *,
    model: Callable[..., Any] | None = None,
    loss: Callable[..., Any] | None = None,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """Return :class:`~osculant.NewtonKrylov` as in :func:`from_solver`; ``options`` are its own."""
    return from_solver(NewtonKrylov(**options), fun, model=model, loss=loss)


def _check_whole(params: Any) -> None:
    """Raise if part of the parameters has been masked."""

    def masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    if any(map(masked, jax.tree.leaves(params, is_leaf=masked))):
        raise ValueError(
            "optax.masked or optax.multi_transform keeps some of the parameters back, and the "
            "function needs them all: optimise a tree of those to be trained, and give the others "
            "as data"
        )


def _check_data(objective: Objective, data: tuple[Any, ...]) -> None:
    if not isinstance(data, tuple | list):
        raise TypeError(f"data is a {type(data).__name__}; it must be a tuple of arguments")
    function, arguments = objective.fun, data
    if function is None:
        function, arguments = objective.model, data[:-1]
    try:
        inspect.signature(function).bind(None, *arguments)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(
            f"update was given data of {len(data)} arrays, and the "
            f"function says: {error}; its arguments after the parameters are "
            "update(..., data=(inputs, targets))"
        ) from error
    except ValueError:  # a function without a signature
        pass


def _objective(given: Objective, value_fn: Callable[..., Any] | None, extra: Any) -> Objective:
    if given.fun is not None or given.model is not None:
        return given
    if value_fn is None:
        raise ValueError(
            "there is no function to minimise: give it when the transformation is made, "
            "trust_region(fun), or to update, value_fn=fun"
        )
    named = inspect.signature(value_fn).parameters
    arguments = {name: value for name, value in extra.items() if name in named}
    if not arguments:
        return Objective(value_fn)
    return Objective(lambda params: value_fn(params, **arguments))
