"""NumPy's functions and methods on traced arrays, so that plain NumPy code is differentiable.

NumPy asks ``__array_ufunc__`` and ``__array_function__`` of its arguments. Most of what it then
calls has an array-API name (``NAMES`` has those that NumPy spells otherwise); a function that
means something else in NumPy is written down here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from itertools import pairwise
from typing import Any

import numpy
import optree

from ...core.arrays import Array
from ...core.errors import NotDifferentiable
from . import contraction, functions, linalg, namespace, shaping
from .linear import axes_of
from .record import FUNCTIONS, cast, namespace_of, plain

#: NumPy's name to the array API's.
NAMES = {
    "absolute": "abs",
    "amax": "max",
    "amin": "min",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "bitwise_not": "bitwise_invert",
    "concatenate": "concat",
    "conjugate": "conj",
    "copy": "positive",
    "fabs": "abs",
    "float_power": "pow",
    "invert": "bitwise_invert",
    "power": "pow",
    "true_divide": "divide",
}

#: NumPy's own, whose results carry no derivative.
PIECEWISE_CONSTANT = frozenset(
    """
    allclose around array_equal array_equiv iscomplexobj isclose isneginf isposinf isrealobj
    may_share_memory ndim result_type rint shape shares_memory size
    """.split()  # noqa: SIM905
)

#: NumPy's functions that are called otherwise than the array API's, or that it has not.
NUMPY: dict[str, Callable[..., Any]] = {}

#: Those that ndarray has as methods.
METHODS = frozenset(
    """
    all any argmax argmin argsort astype clip conj conjugate copy cumsum diagonal dot flatten max
    mean min nonzero prod ravel repeat reshape round searchsorted squeeze std sum swapaxes take
    trace transpose var
    """.split()  # noqa: SIM905
)

_UNIMPLEMENTED = {"casting", "initial", "out", "signature", "subok", "where"}


def _numpy(function: Callable[..., Any]) -> Callable[..., Any]:
    NUMPY[function.__name__.rstrip("_").replace("linalg_", "linalg.")] = function
    return function


# The protocols -------------------------------------------------------------------------------


def array_ufunc(ufunc: Any, method: str, inputs: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Answer ``__array_ufunc__``."""
    name = NAMES.get(ufunc.__name__, ufunc.__name__)
    if kwargs.get("out") is not None:
        raise NotDifferentiable(
            f"numpy.{ufunc.__name__} cannot write into a plain array what was computed from a "
            f"traced one, for its derivative would be lost: write x = x + y instead of x += y, "
            "and leave out= away"
        )
    if method == "__call__":
        _check_options(name, kwargs, {"dtype"})
        return _call(name, ufunc, inputs, kwargs)
    if (name, method) not in _REDUCTIONS:
        raise namespace.not_differentiable(f"{name}.{method}")
    _check_options(name, kwargs)
    return _REDUCTIONS[name, method](*inputs, **({"axis": 0} | kwargs))


def array_function(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Answer ``__array_function__``."""
    extension = function.__module__.removeprefix("numpy").removeprefix(".")
    prefix = f"{extension}." if extension in ("linalg", "fft") else ""
    name = prefix + function.__name__
    return _call(NAMES.get(name, name), function, args, kwargs)


def array_method(x: Any, name: str) -> Callable[..., Any]:
    """Return the method ``name`` of ndarray, bound to ``x``."""
    method = getattr(type(plain(x)), name)

    def bound(*args: Any, **kwargs: Any) -> Any:
        return _call(NAMES.get(name, name), method, (x, *args), kwargs)

    return bound


def _call(name: str, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Return ``function(*args, **kwargs)`` as NumPy means it, with derivatives."""
    _check_options(name, kwargs)
    if name in PIECEWISE_CONSTANT:
        return function(*namespace.stripped(args), **namespace.stripped(kwargs))
    if name in NUMPY and namespace.has_traced((args, kwargs)):
        return NUMPY[name](*args, **kwargs)
    return namespace.call(name, function, args, kwargs)


# Shapes --------------------------------------------------------------------------------------


@_numpy
def reshape(x: Any, *shape: Any, order: str = "C", copy: bool | None = None) -> Array:
    """Like numpy.reshape, and like the method, which takes the lengths one by one."""
    _check_order(order)
    return shaping.reshape(x, shape[0] if len(shape) == 1 else shape)


@_numpy
def ravel(x: Any, order: str = "C") -> Array:
    """Like numpy.ravel."""
    _check_order(order)
    return shaping.reshape(x, (-1,))


NUMPY["flatten"] = ravel


@_numpy
def transpose(x: Any, *axes: Any) -> Array:
    """Like numpy.transpose, and like the method, which takes the axes one by one."""
    if len(axes) == 1 and not isinstance(axes[0], int):
        axes = axes[0]
    return shaping.permute_dims(x, axes or range(x.ndim)[::-1])


@_numpy
def squeeze(x: Any, axis: Any = None) -> Array:
    """Like numpy.squeeze."""
    if axis is None:
        axis = tuple(i for i, n in enumerate(x.shape) if n == 1)
    return shaping.squeeze(x, axis)


@_numpy
def atleast_1d(x: Any) -> Array:
    """Like numpy.atleast_1d of one array."""
    return x if x.ndim else shaping.reshape(x, (1,))


@_numpy
def atleast_2d(x: Any) -> Array:
    """Like numpy.atleast_2d of one array."""
    return x if x.ndim > 1 else shaping.reshape(x, (1, -1))


@_numpy
def astype(x: Any, dtype: Any, copy: bool = True) -> Array:
    """Like ndarray.astype, which takes Python's types and names, too."""
    return cast(x, numpy.dtype(dtype))


# Joins and parts -----------------------------------------------------------------------------


@_numpy
def concat(arrays: Sequence[Any], axis: int | None = 0) -> Array:
    """Like numpy.concatenate, which takes lists among the arrays, too."""
    return shaping.concat(_arrays(*arrays), axis)


@_numpy
def append(x: Any, values: Any, axis: int | None = None) -> Array:
    """Like numpy.append."""
    return shaping.concat(_arrays(x, values), axis)


@_numpy
def stack(arrays: Sequence[Any], axis: int = 0) -> Array:
    """Like numpy.stack."""
    return shaping.stack(_arrays(*arrays), axis)


@_numpy
def hstack(arrays: Sequence[Any]) -> Array:
    """Like numpy.hstack."""
    arrays = [atleast_1d(x) for x in _arrays(*arrays)]
    return shaping.concat(arrays, 0 if arrays[0].ndim == 1 else 1)


@_numpy
def vstack(arrays: Sequence[Any]) -> Array:
    """Like numpy.vstack."""
    return shaping.concat([atleast_2d(x) for x in _arrays(*arrays)], 0)


@_numpy
def column_stack(arrays: Sequence[Any]) -> Array:
    """Like numpy.column_stack."""
    columns = [x if x.ndim > 1 else shaping.reshape(x, (-1, 1)) for x in _arrays(*arrays)]
    return shaping.concat(columns, 1)


@_numpy
def split(x: Any, sections: Any, axis: int = 0) -> list[Array]:
    """Like numpy.split."""
    if isinstance(sections, int) and x.shape[axis] % sections:
        raise ValueError(f"{x.shape[axis]} rows cannot be split into {sections} equal parts")
    return array_split(x, sections, axis)


@_numpy
def array_split(x: Any, sections: Any, axis: int = 0) -> list[Array]:
    """Like numpy.array_split."""
    n = x.shape[axis]
    if isinstance(sections, int):
        small, longer = divmod(n, sections)
        sections = [small * k + min(k, longer) for k in range(1, sections)]
    bounds = [0, *(int(s) for s in sections), n]
    lead = (slice(None),) * (axis % x.ndim)
    return [x[(*lead, slice(a, b))] for a, b in pairwise(bounds)]


@_numpy
def take(x: Any, indices: Any, axis: int | None = None) -> Array:
    """Like numpy.take."""
    return shaping.take(ravel(x), indices, 0) if axis is None else shaping.take(x, indices, axis)


@_numpy
def take_along_axis(x: Any, indices: Any, axis: int | None = -1) -> Array:
    """Like numpy.take_along_axis."""
    if axis is None:
        return shaping.take_along_axis(ravel(x), indices, 0)
    return shaping.take_along_axis(x, indices, axis)


@_numpy
def sort(x: Any, axis: int | None = -1, kind: Any = None, stable: bool = True) -> Array:
    """Like numpy.sort."""
    return shaping.sort(ravel(x), 0) if axis is None else shaping.sort(x, axis)


@_numpy
def where(condition: Any, *branches: Any) -> Any:
    """Like numpy.where, with one argument or three."""
    if not branches:
        return namespace_of(condition).nonzero(plain(condition))
    return functions.where(condition, *branches)


# Arithmetic ----------------------------------------------------------------------------------


@_numpy
def clip(x: Any, a_min: Any = None, a_max: Any = None, min: Any = None, max: Any = None) -> Array:
    """Like numpy.clip."""
    return functions.clip(x, min if a_min is None else a_min, max if a_max is None else a_max)


@_numpy
def cumsum(x: Any, axis: int | None = None, dtype: Any = None) -> Array:
    """Like numpy.cumsum."""
    return functions.cumulative_sum(ravel(x) if axis is None else x, axis, dtype)


@_numpy
def var(
    x: Any, axis: Any = None, ddof: float = 0, keepdims: bool = False, correction: float = 0
) -> Array:
    """Like numpy.var."""
    return functions.var(x, axis, ddof or correction, keepdims)


@_numpy
def std(
    x: Any, axis: Any = None, ddof: float = 0, keepdims: bool = False, correction: float = 0
) -> Array:
    """Like numpy.std."""
    return functions.std(x, axis, ddof or correction, keepdims)


@_numpy
def diff(x: Any, n: int = 1, axis: int = -1) -> Array:
    """Like numpy.diff."""
    return functions.diff(x, axis, n)


# Products ------------------------------------------------------------------------------------


@_numpy
def dot(x: Any, y: Any) -> Array:
    """Like numpy.dot: over the last axis of x and the last but one of y."""
    x, y = _arrays(x, y)
    if x.ndim == 0 or y.ndim == 0:
        return FUNCTIONS["multiply"](x, y)
    return contraction.tensordot(x, y, ([-1], [max(y.ndim - 2, 0)]))


@_numpy
def inner(x: Any, y: Any) -> Array:
    """Like numpy.inner: over the last axes."""
    x, y = _arrays(x, y)
    if x.ndim == 0 or y.ndim == 0:
        return FUNCTIONS["multiply"](x, y)
    return contraction.tensordot(x, y, ([-1], [-1]))


@_numpy
def vdot(x: Any, y: Any) -> Array:
    """Like numpy.vdot of real arrays."""
    return contraction.vecdot(*map(ravel, _arrays(x, y)))


@_numpy
def outer(x: Any, y: Any) -> Array:
    """Like numpy.outer, of the flattened arrays."""
    return contraction.outer(*map(ravel, _arrays(x, y)))


@_numpy
def einsum(subscripts: str, *operands: Any, optimize: Any = False) -> Array:
    """Like numpy.einsum with a string of subscripts."""
    if not isinstance(subscripts, str):
        raise NotDifferentiable(
            "numpy.einsum with lists of axes has no derivative rule on the tape: use a string"
        )
    return contraction.einsum(subscripts, *_arrays(*operands))


# Matrices ------------------------------------------------------------------------------------


@_numpy
def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """Like numpy.diagonal."""
    return contraction.diagonal(x, offset, axis1, axis2)


@_numpy
def diag(x: Any, k: int = 0) -> Array:
    """Like numpy.diag: the diagonal of a matrix, or the matrix with a diagonal."""
    return contraction.diagonal_matrix(x, k) if x.ndim == 1 else contraction.diagonal(x, k)


@_numpy
def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Array:
    """Like numpy.trace."""
    return functions.sum_(contraction.diagonal(x, offset, axis1, axis2), -1, dtype)


@_numpy
def linalg_norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Array:
    """Like numpy.linalg.norm of vectors, and the Frobenius norm of matrices."""
    if axis is None and ord is None:
        return linalg.vector_norm(x, None, keepdims)
    axes = axes_of(axis, x.ndim)
    if len(axes) == 1:
        return linalg.vector_norm(x, axes, keepdims, 2 if ord is None else ord)
    if len(axes) == 2 and ord in (None, "fro"):
        return linalg.vector_norm(x, axes, keepdims)
    return linalg.matrix_norm(x, keepdims, ord)


@_numpy
def linalg_cholesky(x: Any, upper: bool = False) -> Array:
    """Like numpy.linalg.cholesky."""
    return linalg.cholesky(x, upper)


# Shared --------------------------------------------------------------------------------------

_REDUCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("add", "reduce"): functions.sum_,
    ("multiply", "reduce"): functions.prod,
    ("maximum", "reduce"): functions.max_,
    ("minimum", "reduce"): functions.min_,
    ("add", "accumulate"): functions.cumulative_sum,
}


def _check_options(name: str, options: dict[str, Any], more: Set[str] = frozenset()) -> None:
    for option in sorted((_UNIMPLEMENTED | more) & options.keys()):
        raise NotDifferentiable(
            f"{name} with {option}= has no derivative rule on the tape: do that step on its own, "
            "for example with numpy.where"
        )


def _arrays(*xs: Any) -> list[Any]:
    """Return arrays as they are, and numbers and lists of numbers, traced or not, as arrays."""
    xp = namespace_of(*optree.tree_leaves(xs))

    def array(x: Any) -> Any:
        if hasattr(x, "ndim"):
            return x
        return shaping.stack(_arrays(*x)) if namespace.has_traced(x) else xp.asarray(x)

    return [array(x) for x in xs]


def _check_order(order: str) -> None:
    if order not in ("C", "K", "A"):
        raise NotDifferentiable(
            f"order={order!r} has no derivative rule on the tape: transpose, then use order='C'"
        )
