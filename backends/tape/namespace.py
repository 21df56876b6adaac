"""The array-API namespace of traced arrays, and what becomes of a function met on the way."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ...core.arrays import Namespace
from ...core.errors import NotDifferentiable
from .record import FUNCTIONS, Variable, real_value

#: Functions that are constant between jumps, or that look at shapes, dtypes and order only.
#: Their results are plain arrays: no derivative is lost.
PIECEWISE_CONSTANT = frozenset(
    """
    all any argmax argmin argsort bitwise_and bitwise_invert bitwise_or bitwise_xor can_cast ceil
    count_nonzero empty_like equal floor floor_divide full_like greater greater_equal isfinite
    isinf isnan less less_equal logical_and logical_not logical_or logical_xor nonzero not_equal
    ones_like result_type round searchsorted sign signbit trunc zeros_like
    """.split()  # noqa: SIM905
)


def call(name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Return ``function(*args, **kwargs)`` with derivatives, where an argument is traced.

    Parameters
    ----------
    name : str
        The function's name in the array API, with "linalg." for an extension's.
    function : callable
        The function itself, for plain arrays.

    Raises
    ------
    NotDifferentiable
        If there is no rule for it.
    """
    if not has_traced((args, kwargs)):
        return function(*args, **kwargs)
    if name in PIECEWISE_CONSTANT:
        return function(*stripped(args), **stripped(kwargs))
    if name in FUNCTIONS:
        return FUNCTIONS[name](*args, **kwargs)
    raise not_differentiable(name)


def not_differentiable(name: str) -> NotDifferentiable:
    """Return the error for a function without a rule."""
    advice = _INSTEAD.get(name, "write it with functions that have one, see osculant.backends.tape")
    return NotDifferentiable(
        f"{name} has no derivative rule on the tape: {advice}; or use the torch or the jax "
        "backend, or give your own products"
    )


_INSTEAD = {
    "imag": "traced arrays are real, or stand for real ones",
    "cumulative_prod": "use exp of cumulative_sum of log, if the factors are positive",
    "linalg.eigh": "use linalg.slogdet, linalg.solve or linalg.cholesky",
    "linalg.svd": "use linalg.slogdet, linalg.solve or linalg.vector_norm",
    "linalg.qr": "use linalg.cholesky",
    "linalg.lstsq": "use linalg.solve on the normal equations",
    "linalg.pinv": "use linalg.solve on the normal equations",
    "pad": "use osculant.ops.pad, or concat with zeros",
}


def has_traced(tree: Any) -> bool:
    """Whether there is a traced array in nested tuples, lists and dicts."""
    if isinstance(tree, tuple | list):
        return any(has_traced(item) for item in tree)
    if isinstance(tree, dict):
        return any(has_traced(item) for item in tree.values())
    return isinstance(tree, Variable)


def stripped(tree: Any) -> Any:
    """Return nested tuples, lists and dicts with traced arrays' (real) values in their place."""
    if isinstance(tree, tuple | list):
        return type(tree)(stripped(item) for item in tree)
    if isinstance(tree, dict):
        return {key: stripped(item) for key, item in tree.items()}
    return real_value(tree)


class TracedNamespace:
    """An array-API namespace whose functions accept traced arrays as well as plain ones.

    Everything that is not a function of arrays (dtypes, constants, creation functions, finfo)
    is the underlying namespace's own.

    Parameters
    ----------
    xp : namespace
        Of the values.
    prefix : str
        "linalg." for that extension.
    """

    def __init__(self, xp: Namespace, prefix: str = "") -> None:
        self._xp = xp
        self._prefix = prefix
        self.__name__ = f"traced {xp.__name__}"

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._xp, name)
        if name in ("linalg", "fft"):
            return TracedNamespace(attribute, name + ".")
        if isinstance(attribute, type) or not callable(attribute):
            return attribute  # a dtype or a constant

        def function(*args: Any, **kwargs: Any) -> Any:
            return call(self._prefix + name, attribute, args, kwargs)

        function.__name__ = name
        return function

    def __repr__(self) -> str:
        return f"<{self.__name__}>"


@cache
def traced_namespace(xp: Namespace) -> TracedNamespace:
    """Return the one namespace of traced arrays over ``xp``."""
    return TracedNamespace(xp)
