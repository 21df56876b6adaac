"""The linear primitives: a map and its transpose.

To add one, add a row. A transpose is called with the specs of the arguments, because most need
the shape that the map started from; it may return a view, and does not conjugate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import array_api_compat

from ...core.arrays import Array, Namespace, is_complex, join_parts
from .graph import Spec
from .rules import Formula, Linear
from .windows import cropped, overlapped, padded, patches

#: One axis, some, or all.
Axis = int | Sequence[int] | None


def _of_one(name: str, map: Formula, transposed: Formula) -> Linear:
    """Return a row for one argument; its transpose is ``(xp, g, spec, **params)``."""

    def of_only(xp: Namespace, g: Array, i: int, specs: tuple[Spec, ...], **params: Any) -> Array:
        return transposed(xp, g, specs[0], **params)

    return Linear(name, map, of_only)


# Reductions --------------------------------------------------------------------------------


def _spread(xp: Namespace, g: Array, spec: Spec, axis: Any, keepdims: bool) -> Array:
    """Undo a sum: repeat ``g`` along the axes that were summed over."""
    return xp.broadcast_to(xp.reshape(g, kept_shape(spec.shape, axis)), spec.shape)


def kept_shape(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """Return the shape of a reduction over ``axis`` that keeps its axes."""
    reduced = axes_of(axis, len(shape))
    return tuple(1 if i in reduced else n for i, n in enumerate(shape))


def axes_of(axis: Axis, ndim: int) -> tuple[int, ...]:
    """Return the axes as a tuple of numbers from 0; None stands for all."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(a % ndim for a in ((axis,) if isinstance(axis, int) else axis))


def _sum_to(xp: Namespace, g: Array, spec: Spec, shape: tuple[int, ...]) -> Array:
    """Undo a broadcast: sum over what was repeated."""
    added = len(shape) - len(spec.shape)
    stretched = [i for i, n in enumerate(spec.shape, added) if n == 1 and shape[i] != 1]
    total = xp.sum(g, axis=(*range(added), *stretched))
    return xp.reshape(total, spec.shape)


def _cumulative_from_end(xp: Namespace, g: Array, spec: Spec, axis: int) -> Array:
    return xp.flip(xp.cumulative_sum(xp.flip(g, axis=axis), axis=axis), axis=axis)


# Selections --------------------------------------------------------------------------------


def _scattered(xp: Namespace, g: Array, spec: Spec, key: Any) -> Array:
    """Undo ``x[key]``: add each entry of ``g`` to where it was taken from, perhaps repeatedly."""
    zeros = spec.zeros(xp)
    if _repeats_nothing(xp, key):
        if not hasattr(key, "dtype"):  # strictly, new axes may not be assigned to
            key = tuple(k for k in (key if isinstance(key, tuple) else (key,)) if k is not None)
        zeros[key] = xp.reshape(g, zeros[key].shape)
        return zeros
    if hasattr(xp.add, "at"):  # NumPy, CuPy
        xp.add.at(zeros, key, g)
        return zeros
    positions = _positions(xp, spec)[key]
    return xp.reshape(_scatter_add(xp, positions, g, math.prod(spec.shape)), spec.shape)


def _repeats_nothing(xp: Namespace, key: Any) -> bool:
    """Whether ``key`` selects no entry twice: integers, slices, or a mask."""
    if hasattr(key, "dtype"):
        return xp.isdtype(key.dtype, "bool")
    entries = key if isinstance(key, tuple) else (key,)
    return not any(isinstance(k, list) or (hasattr(k, "dtype") and k.ndim > 0) for k in entries)


def _positions(xp: Namespace, spec: Spec) -> Array:
    return xp.reshape(xp.arange(math.prod(spec.shape), device=spec.device), spec.shape)


def _scatter_add(xp: Namespace, positions: Array, g: Array, size: int) -> Array:
    """Return z with z[positions[k]] += g[k], as a product with an indicator matrix.

    The array API has no addition at repeated indices; this is only for namespaces that offer
    nothing of their own.
    """
    flat = xp.reshape(positions, (-1,))
    slots = xp.arange(size, device=array_api_compat.device(g))
    indicator = xp.astype(slots[:, None] == flat[None, :], g.dtype)
    return xp.matmul(indicator, xp.reshape(g, (-1,)))


def _untake(xp: Namespace, g: Array, spec: Spec, indices: Array, axis: int) -> Array:
    """Undo ``take``, whose rows may repeat: scatter along the first axis."""
    moved = (spec.shape[axis], *spec.shape[:axis], *spec.shape[axis + 1 :])
    rows = xp.moveaxis(g, axis, 0)
    if hasattr(xp.add, "at"):
        total = xp.zeros(moved, dtype=spec.dtype, device=spec.device)
        xp.add.at(total, indices, rows)
    else:
        positions = xp.take(_positions(xp, spec._replace(shape=moved)), indices, axis=0)
        total = xp.reshape(_scatter_add(xp, positions, rows, math.prod(moved)), moved)
    return xp.moveaxis(total, 0, axis)


def _untake_along(xp: Namespace, g: Array, spec: Spec, indices: Array, axis: int) -> Array:
    key = []
    for i, n in enumerate(spec.shape):
        shape = [1] * len(spec.shape)
        shape[i] = n
        key.append(xp.reshape(xp.arange(n, device=spec.device), tuple(shape)))
    key[axis] = indices
    return _scattered(xp, g, spec, tuple(xp.broadcast_arrays(*key)))


# Joins -------------------------------------------------------------------------------------


def _piece(xp: Namespace, g: Array, i: int, specs: tuple[Spec, ...], axis: int) -> Array:
    """Return the part of ``g`` that the i-th of the joined arrays takes up."""
    start = sum(spec.shape[axis] for spec in specs[:i])
    key = [slice(None)] * g.ndim
    key[axis] = slice(start, start + specs[i].shape[axis])
    return g[tuple(key)]


def _chosen(xp: Namespace, g: Array, i: int, specs: tuple[Spec, ...], condition: Array) -> Array:
    zero = xp.zeros((), dtype=g.dtype, device=array_api_compat.device(g))
    return xp.where(condition, g, zero) if i == 0 else xp.where(condition, zero, g)


_ROWS = [
    Linear(
        "add",
        map=lambda xp, x, y: xp.add(x, y),
        transposed=lambda xp, g, i, specs: g,
        broadcasts=True,
    ),
    Linear(
        "subtract",
        map=lambda xp, x, y: xp.subtract(x, y),
        transposed=lambda xp, g, i, specs: g if i == 0 else -g,
        broadcasts=True,
    ),
    Linear(
        "where",
        map=lambda xp, x, y, condition: xp.where(condition, x, y),
        transposed=_chosen,
        broadcasts=True,
    ),
    Linear(
        "concat",
        map=lambda xp, *xs, axis: xp.concat(xs, axis=axis),
        transposed=_piece,
    ),
    _of_one("negative", lambda xp, x: xp.negative(x), lambda xp, g, spec: -g),
    _of_one(
        "astype",
        lambda xp, x, dtype: xp.astype(x, dtype),
        lambda xp, g, spec, dtype: xp.astype(g, spec.dtype),
    ),
    _of_one(
        "broadcast_to",
        lambda xp, x, shape: xp.broadcast_to(x, shape),
        _sum_to,
    ),
    _of_one(
        "reshape",
        lambda xp, x, shape: xp.reshape(x, shape),
        lambda xp, g, spec, shape: xp.reshape(g, spec.shape),
    ),
    _of_one(
        "permute_dims",
        lambda xp, x, axes: xp.permute_dims(x, axes),
        lambda xp, g, spec, axes: xp.permute_dims(g, _inverse(axes)),
    ),
    _of_one(
        "sum",
        lambda xp, x, axis, keepdims: xp.sum(x, axis=axis, keepdims=keepdims),
        _spread,
    ),
    _of_one(
        "cumulative_sum",
        lambda xp, x, axis: xp.cumulative_sum(x, axis=axis),
        _cumulative_from_end,
    ),
    _of_one(
        "flip",
        lambda xp, x, axis=None: xp.flip(x, axis=axis),
        lambda xp, g, spec, axis=None: xp.flip(g, axis=axis),
    ),
    _of_one(
        "roll",
        lambda xp, x, shift, axis=None: xp.roll(x, shift, axis=axis),
        lambda xp, g, spec, shift, axis=None: xp.roll(g, _opposite(shift), axis=axis),
    ),
    _of_one(
        "tril",
        lambda xp, x, k=0: xp.tril(x, k=k),
        lambda xp, g, spec, k=0: xp.tril(g, k=k),
    ),
    _of_one(
        "triu",
        lambda xp, x, k=0: xp.triu(x, k=k),
        lambda xp, g, spec, k=0: xp.triu(g, k=k),
    ),
    _of_one("getitem", lambda xp, x, key: x[key], _scattered),
    _of_one("take", lambda xp, x, indices, axis: xp.take(x, indices, axis=axis), _untake),
    _of_one(
        "take_along_axis",
        lambda xp, x, indices, axis: xp.take_along_axis(x, indices, axis=axis),
        _untake_along,
    ),
    _of_one("zero_pad", padded, cropped),
    _of_one("patches", patches, overlapped),
    # A^-1 x with A a constant; how A itself is differentiated is in ``linalg.py``.
    _of_one(
        "solve",
        lambda xp, x, A: xp.linalg.solve(A, x),
        lambda xp, g, spec, A: xp.linalg.solve(xp.matrix_transpose(A), g),
    ),
    # A x with A a constant that is not an array: a LinearOperator of ``linear_operators.py``.
    _of_one(
        "constant_matmul",
        lambda xp, x, A: _by_parts(xp, A.product, x),
        lambda xp, g, spec, A: _by_parts(xp, A.T.product, g),
    ),
]


def _by_parts(xp: Namespace, product: Formula, x: Array) -> Array:
    """Return a product with a real matrix, which stays real in a complex step."""
    if not is_complex(x):
        return product(x)
    return join_parts(product(xp.real(x)), product(xp.imag(x)))


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=lambda i: axes[i]))


def _opposite(shift: Any) -> Any:
    return tuple(-s for s in shift) if isinstance(shift, tuple | list) else -shift


#: By name.
LINEAR = {row.name: row for row in _ROWS}
