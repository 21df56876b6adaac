"""The array API's functions that move, join and select entries, composed of primitives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...core.arrays import Array
from ...core.errors import NotDifferentiable
from .linear import LINEAR, axes_of
from .record import apply, cast, differentiable, is_traced, namespace_of, plain, real_value

# Shapes --------------------------------------------------------------------------------------


@differentiable
def reshape(x: Any, shape: int | Sequence[int], copy: bool | None = None) -> Array:
    """Return the entries in another shape, in row-major order."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if -1 in shape:
        known = math.prod(n for n in shape if n != -1)
        shape = tuple(x.size // known if n == -1 and known else n for n in shape)
    return x if shape == x.shape else apply(LINEAR["reshape"], x, shape=shape)


@differentiable
def permute_dims(x: Any, axes: Sequence[int]) -> Array:
    """Return ``x`` with its axes in another order."""
    return apply(LINEAR["permute_dims"], x, axes=tuple(a % x.ndim for a in axes))


@differentiable
def matrix_transpose(x: Any) -> Array:
    """Return ``x`` with its last two axes exchanged."""
    return swapaxes(x, -2, -1)


@differentiable
def swapaxes(x: Any, axis1: int, axis2: int) -> Array:
    """Return ``x`` with two axes exchanged."""
    axes = list(range(x.ndim))
    axes[axis1], axes[axis2] = axes[axis2], axes[axis1]
    return apply(LINEAR["permute_dims"], x, axes=tuple(axes))


@differentiable
def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Array:
    """Return ``x`` with some axes moved to other places."""
    sources = axes_of(source, x.ndim)
    places = axes_of(destination, x.ndim)
    axes = [a for a in range(x.ndim) if a not in sources]
    for place, a in sorted(zip(places, sources, strict=True)):
        axes.insert(place, a)
    return apply(LINEAR["permute_dims"], x, axes=tuple(axes))


@differentiable
def squeeze(x: Any, axis: int | Sequence[int]) -> Array:
    """Return ``x`` without some axes of length 1."""
    shape = tuple(namespace_of(x).squeeze(plain(x), axis=axis).shape)
    return apply(LINEAR["reshape"], x, shape=shape)


@differentiable
def expand_dims(x: Any, axis: int | Sequence[int] = 0) -> Array:
    """Return ``x`` with new axes of length 1."""
    new = (axis,) if isinstance(axis, int) else tuple(axis)
    places = axes_of(new, x.ndim + len(new))
    shape = list(x.shape)
    for place in sorted(places):
        shape.insert(place, 1)
    return apply(LINEAR["reshape"], x, shape=tuple(shape))


@differentiable
def broadcast_to(x: Any, shape: Sequence[int]) -> Array:
    """Return ``x`` repeated along new axes and those of length 1."""
    shape = tuple(shape)
    return x if shape == x.shape else apply(LINEAR["broadcast_to"], x, shape=shape)


@differentiable
def broadcast_arrays(*arrays: Any) -> list[Array]:
    """Return the arrays, each broadcast to the shape common to all."""
    xp = namespace_of(*arrays)
    shape = xp.broadcast_arrays(*(plain(x) for x in arrays))[0].shape
    return [broadcast_to(x, tuple(shape)) for x in arrays]


@differentiable
def astype(x: Any, dtype: Any, copy: bool = True, device: Any = None) -> Array:
    """Return ``x`` in another dtype; a plain array, if it is not a floating one."""
    _check_device(x, device)
    return cast(x, dtype)


@differentiable
def asarray(x: Any, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Array:
    """Return ``x``, which is an array already."""
    _check_device(x, device)
    return x if dtype is None or dtype == x.dtype else cast(x, dtype)


# Orders --------------------------------------------------------------------------------------


@differentiable
def sort(x: Any, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """Return the entries in order along an axis; it is a permutation, and differentiated as one."""
    xp = namespace_of(x)
    order = xp.argsort(real_value(x), axis=axis, descending=descending, stable=stable)
    return take_along_axis(x, order, axis)


@differentiable
def repeat(x: Any, repeats: Any, axis: int | None = None) -> Array:
    """Return ``x`` with entries repeated along an axis, of the flattened ``x`` if None."""
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    xp = namespace_of(x)
    indices = xp.repeat(xp.arange(x.shape[axis], device=x.device), plain(repeats))
    return take(x, indices, axis)


@differentiable
def tile(x: Any, repetitions: int | Sequence[int]) -> Array:
    """Return ``x`` repeated as a whole along each axis."""
    counts = (repetitions,) if isinstance(repetitions, int) else tuple(repetitions)
    ndim = max(x.ndim, len(counts))
    counts = (1,) * (ndim - len(counts)) + counts
    shape = (1,) * (ndim - x.ndim) + x.shape
    apart = reshape(x, tuple(k for n in shape for k in (1, n)))
    spread = broadcast_to(apart, tuple(k for pair in zip(counts, shape, strict=True) for k in pair))
    return reshape(spread, tuple(c * n for c, n in zip(counts, shape, strict=True)))


# Joins ---------------------------------------------------------------------------------------


@differentiable
def concat(arrays: Sequence[Any], axis: int | None = 0) -> Array:
    """Return the arrays joined along an axis, or flattened first if it is None."""
    arrays = list(arrays)
    if axis is None:
        arrays, axis = [reshape(x, (-1,)) for x in arrays], 0
    return apply(LINEAR["concat"], *arrays, axis=axis)


@differentiable
def stack(arrays: Sequence[Any], axis: int = 0) -> Array:
    """Return the arrays joined along a new axis."""
    return concat([expand_dims(x, axis) for x in arrays], axis)


@differentiable
def unstack(x: Any, axis: int = 0) -> tuple[Array, ...]:
    """Return the slices along an axis."""
    lead = (slice(None),) * (axis % x.ndim)
    return tuple(getitem(x, (*lead, i, ...)) for i in range(x.shape[axis]))


# Selections ----------------------------------------------------------------------------------


@differentiable
def getitem(x: Any, key: Any) -> Array:
    """Return ``x[key]``."""
    entries = key if isinstance(key, tuple) else (key,)
    if any(is_traced(k) for k in entries):
        raise NotDifferentiable(
            "an index cannot be a traced array: a selection does not depend smoothly on it; "
            "compute the index from constants, or from comparisons and argsort"
        )
    return apply(LINEAR["getitem"], x, key=key)


@differentiable
def take(x: Any, indices: Any, axis: int | None = None) -> Array:
    """Return the entries at ``indices`` along an axis."""
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"take needs an axis for an array of {x.ndim} dimensions")
        axis = 0
    axis %= x.ndim
    indices = _index_like(x, indices)
    flat = apply(LINEAR["take"], x, indices=_flat(x, indices), axis=axis)
    if indices.ndim == 1:
        return flat
    return reshape(flat, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@differentiable
def take_along_axis(x: Any, indices: Any, axis: int = -1) -> Array:
    """Return, along an axis, the entries that an array of the same number of axes names."""
    indices = _index_like(x, indices)
    axis %= x.ndim
    shape = list(x.shape)
    shape[axis] = indices.shape[axis]
    common = namespace_of(x).broadcast_to(indices, tuple(shape))
    return apply(LINEAR["take_along_axis"], x, indices=common, axis=axis)


# ---------------------------------------------------------------------------------------------


def _index_like(x: Any, indices: Any) -> Array:
    if is_traced(indices):
        return getitem(x, indices)  # which says why not
    return namespace_of(x).asarray(indices, device=x.device)


def _flat(x: Any, indices: Array) -> Array:
    return namespace_of(x).reshape(indices, (-1,))


def _check_device(x: Any, device: Any) -> None:
    if device is not None and device != x.device:
        raise NotDifferentiable(
            f"a traced array on {x.device} cannot move to {device}: put the parameters there"
        )
