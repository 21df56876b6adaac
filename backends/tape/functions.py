"""The array API's arithmetic and reductions on traced arrays, composed of primitives.

A function here needs no derivative of its own. Those that are a primitive and nothing else are
taken from its table.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from ...core.arrays import Array, is_complex, join_parts
from .bilinear import BILINEAR
from .elementwise import ELEMENTWISE
from .linear import LINEAR, Axis, axes_of, kept_shape
from .record import (
    FUNCTIONS,
    apply,
    cast,
    differentiable,
    is_traced,
    namespace_of,
    plain,
    real_value,
    with_value,
)
from .rules import Linear


def _of_one_array(row: Linear) -> Callable[..., Any]:
    """Return the row as a function of an array, then parameters by position or by name."""
    names = list(inspect.signature(row.map).parameters)[2:]

    def function(x: Any, *args: Any, **params: Any) -> Array:
        return apply(row, x, **dict(zip(names, args, strict=False)), **params)

    return function


FUNCTIONS.update({name: partial(apply, row) for name, row in ELEMENTWISE.items()})
FUNCTIONS.update({name: partial(apply, row) for name, row in BILINEAR.items()})
FUNCTIONS.update({name: _of_one_array(row) for name, row in LINEAR.items()})

# Arithmetic ----------------------------------------------------------------------------------


@differentiable
def add(x: Any, y: Any) -> Array:
    """Return x + y."""
    if is_traced(x) == is_traced(y):
        return apply(LINEAR["add"], x, y)
    value = namespace_of(x, y).add(plain(x), plain(y))
    return with_value(x if is_traced(x) else y, value)


@differentiable
def subtract(x: Any, y: Any) -> Array:
    """Return x - y."""
    if is_traced(x) == is_traced(y):
        return apply(LINEAR["subtract"], x, y)
    value = namespace_of(x, y).subtract(plain(x), plain(y))
    return with_value(x if is_traced(x) else -y, value)


@differentiable
def positive(x: Any) -> Array:
    """Return x."""
    return x


@differentiable
def conj(x: Any) -> Array:
    """Return x: traced arrays are real, or stand for real ones in a complex step."""
    return x


@differentiable
def real(x: Any) -> Array:
    """Return x: traced arrays are real, or stand for real ones in a complex step."""
    return x


@differentiable
def pow_(x: Any, y: Any) -> Array:
    """Return x to the power y."""
    if isinstance(y, int | float) and y == 2:
        return apply(ELEMENTWISE["square"], x)
    return apply(ELEMENTWISE["pow"], x, y)


@differentiable
def clip(x: Any, min: Any = None, max: Any = None) -> Array:
    """Return x, or the bound that it exceeds."""
    if min is not None:
        x = apply(ELEMENTWISE["maximum"], x, min)
    if max is not None:
        x = apply(ELEMENTWISE["minimum"], x, max)
    return x


@differentiable
def where(condition: Any, x: Any, y: Any) -> Array:
    """Return x where the condition holds, and y elsewhere."""
    return apply(LINEAR["where"], x, y, condition=plain(condition))


# Reductions ----------------------------------------------------------------------------------


@differentiable
def sum_(x: Any, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """Return the sum over some axes, or all."""
    return apply(LINEAR["sum"], _in(x, dtype), axis=axis, keepdims=keepdims)


@differentiable
def mean(x: Any, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """Return the mean over some axes, or all."""
    return sum_(x, axis, dtype, keepdims) / _count(x, axis)


@differentiable
def var(x: Any, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Array:
    """Return the variance over some axes, or all."""
    deviation = x - mean(x, axis, keepdims=True)
    total = sum_(deviation * deviation, axis, keepdims=keepdims)
    return total / (_count(x, axis) - correction)


@differentiable
def std(x: Any, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Array:
    """Return the standard deviation; where it is 0, its derivatives are 0."""
    return root(var(x, axis, correction, keepdims))


@differentiable
def prod(x: Any, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """Return the product over some axes, or all.

    It is multiplied pairwise, which needs no division: zeros among the factors do no harm.
    """
    x = _in(x, dtype)
    kept = kept_shape(x.shape, axis)
    x = _to_last(x, axis)
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        pairs = x[..., :half] * x[..., half : 2 * half]
        x = FUNCTIONS["concat"]([pairs, x[..., 2 * half :]], axis=-1) if x.shape[-1] % 2 else pairs
    if x.shape[-1] == 0:
        return namespace_of(x).prod(plain(x), axis=-1)
    return FUNCTIONS["reshape"](x, kept if keepdims else x.shape[:-1])


@differentiable
def max_(x: Any, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the maximum over some axes, or all; ties share the derivative evenly."""
    return _extreme("max", x, axis, keepdims)


@differentiable
def min_(x: Any, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the minimum over some axes, or all; ties share the derivative evenly."""
    return _extreme("min", x, axis, keepdims)


@differentiable
def cumulative_sum(
    x: Any, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Array:
    """Return the sums of the first 1, 2, ... entries along an axis."""
    if axis is None and x.ndim != 1:
        raise ValueError(f"cumulative_sum needs an axis for an array of {x.ndim} dimensions")
    axis = 0 if axis is None else axis
    total = apply(LINEAR["cumulative_sum"], _in(x, dtype), axis=axis)
    if not include_initial:
        return total
    shape = list(x.shape)
    shape[axis] = 1
    zeros = namespace_of(x).zeros(tuple(shape), dtype=total.dtype, device=total.device)
    return apply(LINEAR["concat"], zeros, total, axis=axis)


@differentiable
def diff(x: Any, axis: int = -1, n: int = 1) -> Array:
    """Return the n-th differences of neighbours along an axis."""
    lead: tuple[Any, ...] = (slice(None),) * (axis % x.ndim)
    for _ in range(n):
        x = x[(*lead, slice(1, None), ...)] - x[(*lead, slice(None, -1), ...)]
    return x


# Shared ----------------------------------------------------------------------------------------


def root(x: Any) -> Array:
    """Return the square root of what cannot be negative, with derivatives of 0 where it is 0."""
    xp = namespace_of(x)
    zero = real_value(x) <= 0  # it rounds to less than 0 in a complex step
    one = xp.ones((), dtype=x.dtype, device=x.device)
    return where(zero, 0.0 * one, apply(ELEMENTWISE["sqrt"], where(zero, one, x)))


def _in(x: Any, dtype: Any) -> Any:
    return x if dtype is None or dtype == x.dtype else cast(x, dtype)


def _count(x: Any, axis: Axis) -> int:
    return math.prod(x.shape[a] for a in axes_of(axis, x.ndim))


def _to_last(x: Any, axis: Axis) -> Any:
    """Return ``x`` with the axes that are reduced joined into a last one."""
    reduced = axes_of(axis, x.ndim)
    others = [i for i in range(x.ndim) if i not in reduced]
    moved = apply(LINEAR["permute_dims"], x, axes=(*others, *reduced))
    return apply(LINEAR["reshape"], moved, shape=(*(x.shape[i] for i in others), _count(x, axis)))


def _extreme(name: str, x: Any, axis: Axis, keepdims: bool) -> Array:
    xp = namespace_of(x)
    reduce = getattr(xp, name)
    decisive = real_value(x)
    where_extreme = decisive == reduce(decisive, axis=axis, keepdims=True)
    ties = xp.sum(xp.astype(where_extreme, decisive.dtype), axis=axis, keepdims=keepdims)
    zero = xp.zeros((), dtype=x.dtype, device=x.device)
    average = sum_(where(where_extreme, x, zero), axis, keepdims=keepdims) / _at_least_one(xp, ties)
    value = reduce(decisive, axis=axis, keepdims=keepdims)
    if is_complex(plain(x)):
        value = join_parts(value, xp.imag(plain(average)))
    return with_value(average, value)


def _at_least_one(xp: Any, ties: Array) -> Array:
    return xp.where(ties > 0, ties, ties + 1.0)  # there is none where an entry is NaN
